//! ureq's own transport, for a build without the feature `wipe`.

use ureq::Agent;
use ureq::config::Config;

#[derive(Default)]
pub(super) struct KeptTls {}

pub(super) fn token_agent(config: Config, _: &KeptTls) -> Agent {
    Agent::new_with_config(config)
}

pub(super) fn api_agent(config: Config) -> Agent {
    Agent::new_with_config(config)
}

/// `None`, because there is no record.
pub(crate) fn take_has_sent_token() -> Option<bool> {
    None
}
