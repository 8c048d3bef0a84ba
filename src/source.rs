use std::cell::OnceCell;
use std::time::Instant;

use crate::clock::Moment;
use crate::error::Error;
use crate::event::StoreError;
use crate::grant::Grant;
use crate::token::Token;

/// Where new tokens come from: the token endpoint, or a store in front of it.
pub(crate) trait TokenSource: Send + Sync {
    /// Obtains a token by the deadline of `request`.
    fn fetch(&self, request: &TokenRequest<'_>) -> Result<Fetched, Error>;

    /// Makes sure that `fetch` never returns `token` again, because the API refused it.
    fn refuse(&self, _token: &Token, _now: Moment) {}

    /// Removes a refused token where other processes might find it.
    fn remove(&self, _grant: &Grant, _token: &Token, _now: Moment) {}
}

pub(crate) struct TokenRequest<'a> {
    pub(crate) grant: &'a Grant,
    /// The valid token that is to be renewed, if there is one.
    pub(crate) current: Option<&'a Token>,
    pub(crate) deadline: Instant,
    /// How often the endpoint is asked again after a transient failure.
    pub(crate) retries: u32,
    pub(crate) clock: &'a dyn Fn() -> Moment,
    /// The store's first failure during this fetch, which went on without the store.
    pub(crate) store_failure: OnceCell<StoreError>,
}

/// The token that a [`TokenSource`] supplies.
#[cfg_attr(not(feature = "store"), expect(dead_code, reason = "there are no other processes"))]
pub(crate) enum Fetched {
    New(Token),
    FromStore(Token),
    /// Another process is renewing this token, so it stays in use here.
    LeftToAnotherProcess(Token),
}
