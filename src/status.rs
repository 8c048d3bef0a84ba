use std::time::Duration;

use crate::error::Error;

/// The state of one grant, for health checks:
/// [`Authenticator::status`](super::Authenticator::status).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Status {
    /// How long the cached token stays valid, by the monotonic clock or the wall clock, whichever
    /// says less; `None` if there is no token or it has expired.
    pub remaining: Option<Duration>,
    /// The error of the last fetch or renewal, if it failed. A success clears it.
    pub last_error: Option<Error>,
    /// How long until the endpoint is asked again, while it is left alone after failures; `None`
    /// after a single failure, because no pause follows it.
    pub retry_in: Option<Duration>,
    /// Whether a fetch or renewal is running.
    pub fetching: bool,
}
