use std::fmt;
use std::sync::Arc;
#[cfg(feature = "store")]
use std::sync::OnceLock;
use std::time::Duration;

use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::clock::{Moment, Span};

const SCHEME: &str = "Bearer ";

/// An access token, wiped from memory when its last clone is dropped.
///
/// Clones share one buffer, so that cloning is cheap. `Debug` prints when it expires and nothing
/// else.
#[derive(Clone)]
pub struct Token(Arc<Inner>);

struct Inner {
    authorization: Zeroizing<String>,
    expires: OffsetDateTime,
    lifetime: Span,
    /// What a store keeps of it.
    #[cfg(feature = "store")]
    sealed: OnceLock<Vec<u8>>,
}

impl Token {
    pub(crate) fn new(access_token: &str, expires: OffsetDateTime, lifetime: Span) -> Self {
        let mut authorization =
            Zeroizing::new(String::with_capacity(SCHEME.len() + access_token.len()));
        authorization.push_str(SCHEME);
        authorization.push_str(access_token);
        Self(Arc::new(Inner {
            authorization,
            expires,
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

    /// Returns the moment at which the token expires, as the server said it and by the server's
    /// clock.
    #[must_use]
    pub fn expires(&self) -> OffsetDateTime {
        self.0.expires
    }

    /// Returns how long the token can still be used: by the monotonic clock or by the wall clock,
    /// whichever says less; nothing once it is over.
    ///
    /// A wrong clock does no harm, which a comparison of [`expires`](Self::expires) with the local
    /// time can't say.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.lifetime.left(Moment::now())
    }

    pub(crate) fn lifetime(&self) -> &Span {
        &self.0.lifetime
    }

    /// What a store keeps of it; nothing if no store does.
    #[cfg(feature = "store")]
    pub(crate) fn sealed(&self) -> &OnceLock<Vec<u8>> {
        &self.0.sealed
    }

    /// Whether both are clones of one answer's token.
    pub(crate) fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("expires", &format_args!("{}", self.0.expires))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
impl Token {
    /// How many hold it, this handle included.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_value_is_built_once_and_debug_hides_it() {
        let lifetime = Span::new(Moment::now(), Duration::from_secs(1));
        let token = Token::new("d33.59b", OffsetDateTime::UNIX_EPOCH, lifetime);
        assert_eq!(token.access_token(), "d33.59b");
        assert_eq!(token.authorization(), "Bearer d33.59b");
        assert_eq!(token.authorization().as_ptr(), token.clone().authorization().as_ptr());
        assert_eq!(format!("{token:?}"), "Token { expires: 1970-01-01 0:00:00.0 +00:00:00, .. }");
    }
}
