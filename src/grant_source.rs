use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::grant::Grant;

/// Where a [`Bearer`](super::Bearer) gets its grant, and the next one after a secret was reset.
///
/// A [`Grant`] turns into one that never changes. [`new`](Self::new) takes a function, such as one
/// that reads a file. It is asked before the first API call, and again when the token endpoint has
/// answered the current grant with [`Rejected`](super::Error::Rejected); if it then gives another
/// grant, the call goes on with that one. As long as the grant is rejected, it is asked once a
/// call, also while the endpoint is left alone.
///
/// ```
/// use weseedo_auth::{Authenticator, Environment, Grant, GrantSource, Secret};
///
/// let source = GrantSource::new(|| {
///     let secret = Secret::from_file("/run/secrets/weseedo")?;
///     Ok(Grant::client_credentials("client id", secret))
/// });
/// # #[cfg(any(feature = "rustls", feature = "native-tls"))]
/// let agent = Authenticator::new(Environment::Sandbox)?.agent(source);
/// # Ok::<(), weseedo_auth::Error>(())
/// ```
#[derive(Clone)]
pub struct GrantSource(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Grant),
    Read(Arc<Read>),
}

type Read = dyn Fn() -> Result<Grant, BoxedError> + Send + Sync;
type BoxedError = Box<dyn StdError + Send + Sync>;

impl GrantSource {
    /// Creates a source from a function that gives the grant to be used from now on.
    ///
    /// Several threads may ask it at the same time, and none waits for another's answer. An error
    /// ends the API call for which it was asked, as [`ureq::Error::Other`], and no other one; so
    /// does a panic.
    pub fn new(
        read: impl Fn() -> Result<Grant, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        Self(Kind::Read(Arc::new(read)))
    }

    /// The grant, where it never changes.
    pub(crate) fn fixed(&self) -> Option<Grant> {
        match &self.0 {
            Kind::Fixed(grant) => Some(grant.clone()),
            Kind::Read(_) => None,
        }
    }

    pub(crate) fn read(&self) -> Result<Grant, BoxedError> {
        match &self.0 {
            Kind::Fixed(grant) => Ok(grant.clone()),
            Kind::Read(read) => read(),
        }
    }
}

impl From<Grant> for GrantSource {
    fn from(grant: Grant) -> Self {
        Self(Kind::Fixed(grant))
    }
}

impl fmt::Debug for GrantSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantSource(..)")
    }
}
