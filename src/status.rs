use std::time::Duration;

use crate::error::Error;

/// How one grant stands, for health checks:
/// [`Authenticator::status`](super::Authenticator::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// How long the cached token can still be used, by the monotonic clock and by the wall clock,
    /// whichever says less; `None` if there is no token or it is over.
    pub token_left: Option<Duration>,
    /// The error of the last fetch or renewal, if it failed; a success ends it.
    pub last_error: Option<Error>,
    /// How long the endpoint is still left alone after a failure; `None` if it is not.
    pub retry_in: Option<Duration>,
    /// Whether a fetch or renewal is under way.
    pub is_fetching: bool,
}

impl Status {
    /// That of a grant of which nothing is known.
    pub(crate) const UNKNOWN: Self =
        Self { token_left: None, last_error: None, retry_in: None, is_fetching: false };
}
