use std::net::IpAddr;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use ureq::unversioned::transport::time::Duration;

/// ureq's resolver, which spawns a thread to bound a lookup in time; for an address there is nothing to look up.
#[derive(Debug, Default)]
pub(crate) struct ThreadlessForAddresses(DefaultResolver);

impl Resolver for ThreadlessForAddresses {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let is_address =
            uri.host().is_some_and(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok());
        let timeout = if is_address {
            NextTimeout { after: Duration::NotHappening, ..timeout }
        } else {
            timeout
        };
        self.0.resolve(uri, config, timeout)
    }
}
