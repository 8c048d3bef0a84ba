//! ureq's own transport, for a build without the feature `wipe`.

use ureq::Agent;
use ureq::config::Config;

/// Empty, because ureq builds a TLS configuration for each token request.
#[derive(Clone, Default)]
pub(super) struct KeptTls {}

pub(super) type ApiTls = KeptTls;

pub(super) fn agent(config: Config, _: KeptTls) -> Agent {
    Agent::new_with_config(config)
}

/// Returns `None`, because ureq's own transport keeps no record.
pub(crate) fn take_has_sent_token() -> Option<bool> {
    None
}
