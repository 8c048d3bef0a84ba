use std::fmt;
use std::sync::Arc;
#[cfg(feature = "store")]
use std::sync::OnceLock;
use std::time::Duration;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::clock::{Moment, Span};
use crate::error::Error;
use crate::secret::is_same;

const SCHEME: &str = "Bearer ";

/// The result of a call: a token, or the reason why there is none.
pub(crate) type Outcome = Result<Token, Error>;

/// An access token, wiped from memory when its last clone is dropped.
///
/// Clones share one buffer, so that cloning is cheap. `Debug` prints the end of its validity and
/// nothing else.
#[derive(Clone)]
pub struct Token(Arc<Inner>);

struct Inner {
    authorization: Zeroizing<String>,
    expires_at: OffsetDateTime,
    lifetime: Span,
    /// The bytes that a store holds for this token.
    #[cfg(feature = "store")]
    sealed: OnceLock<Vec<u8>>,
}

impl Token {
    pub(crate) fn new(access_token: &str, expires_at: OffsetDateTime, lifetime: Span) -> Self {
        // `concat` allocates the final size at once. A buffer that grows leaves an unwiped copy.
        let authorization = Zeroizing::new([SCHEME, access_token].concat());
        Self(Arc::new(Inner {
            authorization,
            expires_at,
            lifetime,
            #[cfg(feature = "store")]
            sealed: OnceLock::new(),
        }))
    }

    /// Returns the bare access token, such as `d33...59b`.
    #[must_use]
    pub fn access_token(&self) -> &str {
        &self.0.authorization[SCHEME.len()..]
    }

    /// Returns the value of the `Authorization` header (RFC 6750 section 2.1), such as `Bearer
    /// d33...59b`.
    #[must_use]
    pub fn authorization(&self) -> &str {
        &self.0.authorization
    }

    /// Returns the moment at which the token expires, by the server's clock: the field `expires` of
    /// the answer.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.0.expires_at
    }

    /// Returns how long the token stays valid, by the monotonic clock or by the wall clock,
    /// whichever says less; zero once it has expired.
    ///
    /// Prefer this to comparing [`expires_at`](Self::expires_at) with the local time, because the
    /// local clock may be wrong.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.0.lifetime.remaining(Moment::now())
    }

    pub(crate) fn lifetime(&self) -> &Span {
        &self.0.lifetime
    }

    /// The bytes that a store holds for this token, once it was saved there or loaded from there.
    #[cfg(feature = "store")]
    pub(crate) fn sealed(&self) -> &OnceLock<Vec<u8>> {
        &self.0.sealed
    }

    /// Whether both have the same text. Compares in constant time.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        is_same(self.access_token(), other.access_token())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token {{ expires_at: {}, .. }}", self.0.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(loom))]
    impl Token {
        /// The number of handles to this token, this one included.
        pub(crate) fn handles(&self) -> usize {
            Arc::strong_count(&self.0)
        }
    }

    #[test]
    fn header_value_is_built_once_and_debug_hides_it() {
        let lifetime = Span::new(Moment::now(), Duration::from_secs(1));
        let token = Token::new("d33.59b", OffsetDateTime::UNIX_EPOCH, lifetime);
        assert_eq!(token.access_token(), "d33.59b");
        assert_eq!(token.authorization(), "Bearer d33.59b");
        assert_eq!(token.authorization().as_ptr(), token.clone().authorization().as_ptr());
        assert_eq!(
            format!("{token:?}"),
            "Token { expires_at: 1970-01-01 0:00:00.0 +00:00:00, .. }"
        );
    }
}
