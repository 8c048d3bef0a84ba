use std::sync::mpsc::RecvTimeoutError;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration;

use crate::background;

/// ureq's look-up of host names, in a thread if its time is limited. If the system gives no thread,
/// ureq's own look-up would panic. This one goes on without a limit.
#[derive(Debug)]
pub(crate) struct Lookup;

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let unbounded = NextTimeout { after: Duration::NotHappening, ..timeout };
        // A thread would cost each API call, because ureq looks up the name even for a kept
        // connection.
        if timeout.after.is_not_happening() {
            return DefaultResolver::default().resolve(uri, config, unbounded);
        }
        let (uri, config) = (uri.clone(), config.clone());
        let look_up = move || DefaultResolver::default().resolve(&uri, &config, unbounded);
        background::call(*timeout.after, look_up).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => ureq::Error::Timeout(timeout.reason),
                RecvTimeoutError::Disconnected => ureq::Error::HostNotFound,
            })
        })
    }
}
