use std::sync::mpsc::RecvTimeoutError;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration;

use crate::background;

/// ureq's look-up of host names in a thread that bounds its time. If the system gives no thread,
/// ureq's own look-up would panic, and this one goes on without a bound.
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
        // No thread where none is needed: ureq looks a name up for a kept connection too.
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
