use std::error::Error as StdError;
use std::time::Duration;

use log::{debug, warn};

use crate::error::Error;

/// The error of a [`TokenStore`](super::TokenStore).
pub type StoreError = Box<dyn StdError + Send + Sync>;

/// The target of all log records.
pub(crate) const LOG: &str = "weseedo_auth";

/// The hook of [`Builder::on_event`](super::Builder::on_event).
pub(crate) type Hook = dyn Fn(&Event<'_>) + Send + Sync;

/// Something that happened, for metrics and logs: [`Builder::on_event`](super::Builder::on_event).
///
/// No event holds a secret or a user name.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A fetch or renewal obtained a token.
    #[non_exhaustive]
    Obtained {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// Whether this was a renewal: another token was still valid when it started.
        renewal: bool,
        /// Whether the token came from the store, where another process had saved it.
        from_store: bool,
        /// How long the fetch took, with its retries and the store's calls.
        elapsed: Duration,
        /// The token's lifetime, counted from the moment the token request was sent, by whichever
        /// process sent it.
        lifetime: Duration,
    },
    /// A fetch or renewal failed, after its last retry. An error of a
    /// [`GrantSource`](super::GrantSource) is no event, but logged.
    #[non_exhaustive]
    Failed {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// Whether this was a renewal: another token was still valid when it started.
        renewal: bool,
        /// How long the fetch took, with its retries.
        elapsed: Duration,
        /// Why the fetch failed.
        error: &'a Error,
        /// How long the cached token stays valid; `None` if there is no valid one.
        remaining: Option<Duration>,
    },
    /// The API refused a token before it expired, so the next call fetches another one.
    #[non_exhaustive]
    TokenRefused {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// How long ago the token was requested.
        age: Duration,
    },
    /// A store failed or was too slow. It is left alone for 30 s: fetches ask the token endpoint as
    /// if there were no store.
    #[non_exhaustive]
    StoreFailed {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// The store's error.
        error: &'a (dyn StdError + 'static),
    },
}

impl Event<'_> {
    /// Logs the event and calls the hook. Call this after a landing, so that a slow hook delays
    /// only this thread.
    pub(crate) fn report(&self, hook: &Hook) {
        match self {
            Self::Obtained { client_id, from_store, lifetime, .. } => {
                let origin = if *from_store { "store" } else { "endpoint" };
                debug!(
                    target: LOG,
                    "client {client_id:?}: obtained a token from the {origin}, valid for \
                     {lifetime:.0?}"
                );
            }
            Self::Failed { client_id, renewal: true, error, .. } => warn!(
                target: LOG,
                "client {client_id:?}: the renewal failed, and the current token stays in use \
                 until it expires: {error}"
            ),
            // Not logged here: the caller gets the error, and a store's failure was logged at once.
            Self::Failed { .. } | Self::StoreFailed { .. } => {}
            Self::TokenRefused { client_id, age } => {
                warn!(target: LOG, "client {client_id:?}: the API refused a token, {age:.1?} old");
            }
        }
        hook(self);
    }
}
