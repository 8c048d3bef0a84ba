use std::error::Error as StdError;
use std::time::Duration;

use crate::error::Error;

/// What a `TokenStore` says when it fails.
pub type StoreError = Box<dyn StdError + Send + Sync>;

/// What `Builder::on_event` was given.
pub(crate) type Hook = Box<dyn Fn(&Event<'_>) + Send + Sync>;

/// What happened, for metrics and logs: [`Builder::on_event`](super::Builder::on_event).
///
/// It holds no secret and no user name.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A fetch or renewal brought a token.
    #[non_exhaustive]
    Obtained {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// Whether another token was still in use.
        is_renewal: bool,
        /// Whether it came from a store, where another process had put it.
        is_from_store: bool,
        /// How long it took, retries and a store included.
        took: Duration,
        /// How long the token can be used, from the sending of the request, by whichever process.
        lifetime: Duration,
    },
    /// A fetch or renewal failed, to its last retry.
    #[non_exhaustive]
    Failed {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// Whether another token was still in use.
        is_renewal: bool,
        /// How long it took, retries included.
        took: Duration,
        /// Why it failed.
        error: &'a Error,
        /// How long the token in use can still be used; `None` if there is none.
        token_left: Option<Duration>,
    },
    /// The API refused a token before it was over, and it was forgotten.
    #[non_exhaustive]
    Refused {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// How long ago the token had arrived.
        age: Duration,
    },
    /// A store failed or was too slow, and is left alone for 30 s: meanwhile the endpoint is asked
    /// as if there were none.
    #[non_exhaustive]
    StoreFailed {
        /// The client identifier of the grant.
        client_id: &'a str,
        /// What the store said.
        error: &'a (dyn StdError + 'static),
    },
}
