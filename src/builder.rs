use std::fmt;
use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

use crate::authenticator::Authenticator;
use crate::cache::Cache;
use crate::endpoint::{Address, Configure, Endpoint};
use crate::environment::Environment;
use crate::error::{ConfigError, Error};

const DEFAULT_TOKEN_PATH: &str = "/api/v2/oauth2/token";
/// Longer is as good as for ever, and keeps deadlines within what an `Instant` can tell.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Settings of an [`Authenticator`].
pub struct Builder {
    environment: Environment,
    token_path: String,
    timeout: Duration,
    retries: u32,
    refresh_before: Duration,
    renew_in_background: bool,
    capacity: usize,
    configure: Configure,
}

impl Authenticator {
    /// Creates an `Authenticator` with the [`Builder`]'s defaults.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::build`].
    pub fn new(environment: Environment) -> Result<Self, Error> {
        Self::builder(environment).build()
    }

    /// Starts from the defaults.
    #[must_use]
    pub fn builder(environment: Environment) -> Builder {
        Builder {
            environment,
            token_path: DEFAULT_TOKEN_PATH.to_owned(),
            timeout: Duration::from_secs(10),
            retries: 2,
            refresh_before: Duration::from_secs(5 * 60),
            renew_in_background: true,
            capacity: 1024,
            configure: Box::new(|config| config),
        }
    }
}

impl Builder {
    /// Sets the path of the token endpoint; `/api/v2/oauth2/token` by default.
    ///
    /// WeSeeDo's authentication page does not print the path. The default rests on two facts:
    /// WeSeeDo's own WordPress plugin, for an older version of the API, asks `/api/oauth2/token`;
    /// and version 2 of the API stands below `/api/v2`. **Check it** against the OpenAPI document
    /// of your environment, at `api/v2/docs` below its base URL. Where it is wrong, the error names
    /// the URL that was asked.
    ///
    /// The path is appended to the base URL; it starts with `/` and has no query or fragment.
    #[must_use]
    pub fn token_path(mut self, path: impl Into<String>) -> Self {
        self.token_path = path.into();
        self
    }

    /// Sets how long one whole `get_token` call may take, retries, back-off and waiting included;
    /// 10 s by default.
    ///
    /// Each attempt but the last gets half of what is left. A call that finds a valid token takes
    /// none of it: its renewal has as long, in a thread. More than a year counts as a year.
    #[must_use]
    pub fn timeout(mut self, whole_call: Duration) -> Self {
        self.timeout = whole_call;
        self
    }

    /// Sets how often a fetch or renewal asks again after a transient failure; 2 times by default.
    ///
    /// What is transient is told by [`Error::is_transient`]. The waits in between are random, up to
    /// 100 ms, 200 ms and so on to 2 s, or the server's `Retry-After` if that is longer; where
    /// `timeout` leaves no room for one, the call fails.
    #[must_use]
    pub fn retries(mut self, n: u32) -> Self {
        self.retries = n;
        self
    }

    /// Sets how long before it expires a token is renewed; 5 min by default, at most a quarter of
    /// the token's lifetime.
    ///
    /// Each token's window is shortened by a random 0 to 25 %, so that programs started together do
    /// not renew together. Zero turns renewal ahead of time off.
    #[must_use]
    pub fn refresh_before(mut self, window: Duration) -> Self {
        self.refresh_before = window;
        self
    }

    /// Sets whether a renewal gets a thread of its own, which ends with it; true by default.
    ///
    /// The thread is named `weseedo-auth` and keeps the `Authenticator` alive while it runs, for
    /// [`timeout`](Self::timeout) at most. `false` is for programs that may have no other thread,
    /// such as those that `fork` without `exec` or count their threads: there, and where the system
    /// gives no thread, the call that finds a renewal due makes it, in one attempt of at most half
    /// of what the token has left, 3 s and `timeout`. After a `fork`, a fetch or renewal that a
    /// thread of the parent was making is taken over in the child 1 s after its `timeout`.
    #[must_use]
    pub fn renew_in_background(mut self, yes: bool) -> Self {
        self.renew_in_background = yes;
        self
    }

    /// Sets how many tokens are cached; 1024 by default.
    ///
    /// In a full cache, the token that is over soonest makes room when a new one arrives. A grant
    /// that has no token, since it was refused or is being fetched, takes no room; at most as many
    /// failures are remembered as tokens.
    #[must_use]
    pub fn capacity(mut self, grants: usize) -> Self {
        self.capacity = grants;
        self
    }

    /// Configures HTTP on top of this crate's defaults: TLS roots, a proxy, the user agent and so
    /// on; nothing by default.
    ///
    /// The function is called for each agent that is made: once here for the token request, and
    /// once for every [`Authenticator::agent`]. It gets ureq's defaults with these changes: the
    /// user agent is `weseedo-auth/VERSION`; buffers are 16 KiB each, and the response header may
    /// fill one; for plain `http`, no proxy is taken from environment variables; without the
    /// feature `rustls`, the TLS provider is `native-tls`. The token request's agent keeps no idle
    /// connection.
    ///
    /// It cannot lift what keeps credentials safe: the token request follows no redirect, and with
    /// an `https` base URL neither agent speaks plain `http`. A global timeout set here can only
    /// shorten [`timeout`](Self::timeout). A second call replaces the first.
    #[must_use]
    pub fn http(
        mut self,
        configure: impl Fn(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Checks the settings and creates the [`Authenticator`]. No I/O is done.
    ///
    /// # Errors
    ///
    /// [`Error::Config`], saying which setting is unusable and why.
    pub fn build(self) -> Result<Authenticator, Error> {
        self.checked().map_err(Error::Config)
    }

    fn checked(self) -> Result<Authenticator, ConfigError> {
        if self.timeout.is_zero() {
            return Err(ConfigError::Timeout);
        }
        if self.capacity == 0 {
            return Err(ConfigError::Capacity);
        }
        let address = Address::new(self.environment.base_url(), &self.token_path)?;
        let endpoint = Endpoint::new(address, self.configure)?;
        let timeout = self.timeout.min(LONGEST_TIMEOUT);
        Ok(Authenticator::from_parts(
            Cache::new(self.capacity, self.refresh_before, timeout),
            endpoint,
            timeout,
            self.retries,
            self.renew_in_background,
        ))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("environment", &self.environment)
            .field("token_path", &self.token_path)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("refresh_before", &self.refresh_before)
            .field("renew_in_background", &self.renew_in_background)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}
