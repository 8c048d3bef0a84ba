use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration;

/// ureq's look-up of host names, which a thread bounds in time; where no thread can be had, ureq's
/// own would panic, and this one goes on without a bound.
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
        let (found, finding) = mpsc::sync_channel(1);
        let (theirs, settings) = (uri.clone(), config.clone());
        let look_up = move || {
            let outcome = DefaultResolver::default().resolve(&theirs, &settings, unbounded);
            // Nobody may be waiting any more.
            let _ = found.send(outcome);
        };
        if timeout.after.is_not_happening() || thread::Builder::new().spawn(look_up).is_err() {
            return DefaultResolver::default().resolve(uri, config, unbounded);
        }
        finding.recv_timeout(*timeout.after).unwrap_or_else(|error| {
            Err(match error {
                RecvTimeoutError::Timeout => ureq::Error::Timeout(timeout.reason),
                RecvTimeoutError::Disconnected => ureq::Error::HostNotFound,
            })
        })
    }
}
