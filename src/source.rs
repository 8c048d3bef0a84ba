use std::time::Instant;

use crate::clock::Moment;
use crate::error::Error;
use crate::event::StoreError;
use crate::grant::Grant;
use crate::token::Token;

/// Where new tokens come from: the token endpoint, or a store in front of it.
pub(crate) trait Source: Send + Sync {
    /// Gets a new token, by `errand.deadline`.
    fn fetch(&self, errand: &Errand<'_>, clock: &dyn Fn() -> Moment) -> Fetched;

    /// Notes that the API refused a token, so that it is never given out again.
    fn refuse(&self, _token: &Token, _now: Moment) {}

    /// Removes a refused token. Returns how the store failed, if it did.
    fn remove(
        &self,
        _grant: &Grant,
        _token: &Token,
        _clock: &dyn Fn() -> Moment,
    ) -> Option<StoreError> {
        None
    }
}

/// A request for a token.
pub(crate) struct Errand<'a> {
    pub(crate) grant: &'a Grant,
    /// The token that is to be renewed, if there is one.
    pub(crate) in_hand: Option<&'a Token>,
    pub(crate) deadline: Instant,
    /// Whether a caller who has a usable token waits for this. It gets one attempt only.
    pub(crate) is_brief: bool,
}

/// What came of an errand.
#[cfg_attr(not(feature = "store"), expect(dead_code, reason = "there is no other process"))]
pub(crate) enum Fetched {
    New {
        outcome: Result<Token, Error>,
        is_from_store: bool,
        /// How the store failed on the way, which cost nothing but time.
        store_failure: Option<StoreError>,
    },
    /// The token in hand, which another process is renewing.
    BeingRenewed(Token),
}

impl Fetched {
    pub(crate) fn from_endpoint(outcome: Result<Token, Error>) -> Self {
        Self::New { outcome, is_from_store: false, store_failure: None }
    }

    #[cfg(feature = "store")]
    pub(crate) fn outcome(self) -> Result<Token, Error> {
        match self {
            Self::New { outcome, .. } => outcome,
            Self::BeingRenewed(token) => Ok(token),
        }
    }
}
