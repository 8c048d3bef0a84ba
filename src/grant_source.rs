use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use log::warn;

use crate::error::{Error, GrantError};
use crate::event::LOG;
use crate::grant::Grant;

/// Supplies the grant of a [`Bearer`](super::Bearer), and another grant after a secret was reset.
///
/// A [`Grant`] turns into a source that never changes. [`new`](Self::new) takes a function, such as
/// one that reads a file. [`Bearer`](super::Bearer) says when the function is called.
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
pub struct GrantSource {
    read: Arc<dyn Fn() -> Result<Grant, BoxedError> + Send + Sync>,
    /// The grant, if it never changes.
    pub(crate) fixed: Option<Grant>,
}

type BoxedError = Box<dyn StdError + Send + Sync>;

impl GrantSource {
    /// Creates a source from a function that returns the grant to use from now on.
    ///
    /// Several threads may call the function at the same time, and none waits for another. An error
    /// of the function fails only the call that needs the grant, with
    /// [`Error::Grant`](super::Error::Grant), and is logged at `warn`. A panic too ends only that
    /// call.
    pub fn new(
        read: impl Fn() -> Result<Grant, Box<dyn StdError + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Arc::new(read), fixed: None }
    }

    /// Creates a source that reads environment variables, as [`Grant::from_env`] does. A file is
    /// read again each time, so a secret that was replaced there needs no code.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(|| Ok(Grant::from_env()?))
    }

    pub(crate) fn read(&self) -> Result<Grant, Error> {
        (self.read)().map_err(|error| {
            let error = match error.downcast() {
                Ok(error) => *error,
                Err(error) => Error::Grant(GrantError(error.into())),
            };
            warn!(target: LOG, "the grant source failed: {error}");
            error
        })
    }
}

impl From<Grant> for GrantSource {
    fn from(grant: Grant) -> Self {
        Self { fixed: Some(grant.clone()), read: Arc::new(move || Ok(grant.clone())) }
    }
}

impl fmt::Debug for GrantSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantSource(..)")
    }
}
