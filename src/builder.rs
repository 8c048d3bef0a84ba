use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::typestate::AgentScope;

use crate::authenticator::{Authenticator, Shared};
use crate::cache::Cache;
use crate::endpoint::{Address, Configure, Endpoint};
use crate::environment::Environment;
use crate::error::{ConfigError, Error};
use crate::event::{Event, Hook};
use crate::source::TokenSource;
#[cfg(feature = "store")]
use crate::store::{TokenStore, guard::GuardedStore, shared::SharedTokens};

const DEFAULT_TOKEN_PATH: &str = "/api/v2/oauth2/token";
/// Longer is as good as for ever, and keeps deadlines within what an `Instant` can tell.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Settings of an [`Authenticator`].
#[must_use = "build() creates the Authenticator"]
pub struct Builder {
    environment: Environment,
    token_path: String,
    timeout: Duration,
    retries: u32,
    renew_before: Duration,
    renew_in_background: bool,
    capacity: usize,
    configure: Configure,
    hook: Arc<Hook>,
    #[cfg(feature = "store")]
    store: Option<Box<dyn TokenStore>>,
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

    /// Returns a [`Builder`] with the defaults.
    pub fn builder(environment: Environment) -> Builder {
        Builder {
            environment,
            token_path: DEFAULT_TOKEN_PATH.to_owned(),
            timeout: Duration::from_secs(10),
            retries: 2,
            renew_before: Duration::from_secs(15 * 60),
            renew_in_background: true,
            capacity: 1024,
            configure: Box::new(|config| config),
            hook: Arc::new(|_| {}),
            #[cfg(feature = "store")]
            store: None,
        }
    }
}

impl Builder {
    /// Sets the path of the token endpoint; `/api/v2/oauth2/token` by default.
    ///
    /// WeSeeDo's authentication page does not name the path. The default is a guess from two facts:
    /// WeSeeDo's own WordPress plugin asks `/api/oauth2/token` of an older version of the API, and
    /// version 2 of the API is below `/api/v2`. **Check the path** in the OpenAPI document of your
    /// environment, at `api/v2/docs` below its base URL; it is probably the `tokenUrl`. If the path
    /// is wrong, the error names the URL that was asked.
    ///
    /// The path is appended to the base URL. It starts with `/` and has no query or fragment.
    pub fn token_path(mut self, path: impl Into<String>) -> Self {
        self.token_path = path.into();
        self
    }

    /// Sets how long one whole `get_token` call may take; 10 s by default.
    ///
    /// [Timing](crate#timing) lists what the time covers. More than a year counts as a year. Zero
    /// is a [`ConfigError`].
    pub fn timeout(mut self, whole_call: Duration) -> Self {
        self.timeout = whole_call;
        self
    }

    /// Sets how often a fetch or renewal asks again after a transient failure; 2 times by default.
    ///
    /// [`Error::is_transient`] says which failures are transient. If the pause before a retry is
    /// longer than the remaining time, the fetch fails at once.
    pub fn retries(mut self, n: u32) -> Self {
        self.retries = n;
        self
    }

    /// Sets how long before its end a token is renewed; 15 min by default.
    ///
    /// [Timing](crate#timing) says how this is shortened: for tokens with a short lifetime, and at
    /// random, so that programs that started together don't renew together. Zero switches renewal
    /// ahead of time off.
    pub fn renew_before(mut self, window: Duration) -> Self {
        self.renew_before = window;
        self
    }

    /// Sets whether a renewal runs in a thread of its own; true by default.
    ///
    /// The thread is named `weseedo-auth` and ends with the renewal. With `false`, or if a thread
    /// can't be started, the call that finds a renewal due renews the token itself. If that
    /// fails, the call returns the cached token. `false` is for programs that must not start
    /// threads for renewals, such as programs that `fork` without `exec`. Look-ups of host names
    /// for token requests, and calls of a store, have short-lived threads in any case.
    pub fn renew_in_background(mut self, yes: bool) -> Self {
        self.renew_in_background = yes;
        self
    }

    /// Sets how many tokens are cached; 1024 by default.
    ///
    /// If the cache is full, a new token evicts the token that ends soonest. Remembered failures
    /// have a limit of their own of the same size. Zero is a [`ConfigError`].
    pub fn capacity(mut self, grants: usize) -> Self {
        self.capacity = grants;
        self
    }

    /// Configures HTTP: root certificates, a proxy, the user agent and so on; by default, the
    /// settings below.
    ///
    /// [`build`](Self::build) calls the function for the token requests, and each
    /// [`Authenticator::agent`] calls it again for API calls. The settings are checked each time.
    /// If the settings of an agent are unusable, its calls fail with [`Error::Config`]. A second
    /// call of `http` replaces the first.
    ///
    /// The function gets ureq's defaults with these changes:
    ///
    /// - The user agent is `weseedo-auth/VERSION`.
    /// - Buffers have 16 KiB each, and the header of an answer fits into one.
    /// - Without the feature `rustls`, the TLS provider is `native-tls`.
    /// - Token requests keep no idle connection. API calls keep up to 10 for each host.
    /// - API calls have `timeout_connect` and `timeout_recv_response` (see [Timing](crate#timing)).
    ///
    /// A global timeout that is set here can only shorten [`timeout`](Self::timeout) for token
    /// requests. It also limits each API call.
    ///
    /// # Middleware
    ///
    /// Middleware runs before an agent adds the token. If it answers an API call itself, no token
    /// is requested. Of such an answer, ureq does not check the status: for a 401, return
    /// `Err(ureq::Error::StatusCode(401))`.
    ///
    /// # Proxies
    ///
    /// With an `https` base URL, the first of these environment variables that holds a URL names
    /// the proxy: `ALL_PROXY`, `all_proxy`, `HTTPS_PROXY`, `https_proxy`, `HTTP_PROXY`,
    /// `http_proxy`. `NO_PROXY` or `no_proxy` lists hosts that need no proxy (see
    /// [Limits](crate#limits)). A variable that can't be used is logged once, at `warn`. With a
    /// plain `http` base URL, which is on loopback, the variables are ignored.
    ///
    /// # Own certification authority
    ///
    #[cfg_attr(any(feature = "rustls", feature = "native-tls"), doc = "```")]
    #[cfg_attr(not(any(feature = "rustls", feature = "native-tls")), doc = "```ignore")]
    /// use weseedo_auth::ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
    /// use weseedo_auth::{Authenticator, Environment};
    ///
    /// fn authenticator(bundle: &[u8]) -> Result<Authenticator, Box<dyn std::error::Error>> {
    ///     // A PEM file with any number of certificates, such as `std::fs::read("ca.pem")?`.
    ///     let mut certificates = Vec::new();
    ///     for item in parse_pem(bundle) {
    ///         if let PemItem::Certificate(certificate) = item? {
    ///             certificates.push(certificate);
    ///         }
    ///     }
    ///     let tls = TlsConfig::builder().root_certs(RootCerts::from(certificates)).build();
    ///     let builder = Authenticator::builder(Environment::Sandbox);
    ///     Ok(builder.http(move |http| http.tls_config(tls.clone())).build()?)
    /// }
    /// # assert!(authenticator(b"").is_err(), "no certificate");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Safeguards
    ///
    /// The function can't lift two safeguards: a token request follows no redirect, and with an
    /// `https` base URL, agents refuse plain `http`. Three settings undo other safeguards, and are
    /// your responsibility: `disable_verification` (logged once, at `warn`), a proxy that you don't
    /// trust, and middleware, which sees the credentials of token requests and can change their
    /// URL.
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

    /// Sets a function that is called for each [`Event`], for metrics; none by default.
    ///
    /// The function is called in the thread where the event happens, after the waiting callers have
    /// the outcome. No lock of this crate is held, so the function may call the `Authenticator`. A
    /// slow function delays only its own thread, and a panic goes to that thread's caller, if there
    /// is one. A token from the cache is no event. A second call of `on_event` replaces the first.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use weseedo_auth::{Authenticator, Environment, Error, Event};
    ///
    /// static OBTAINED: AtomicU64 = AtomicU64::new(0);
    /// static FAILED: AtomicU64 = AtomicU64::new(0);
    ///
    /// let authenticator = Authenticator::builder(Environment::Sandbox)
    ///     .on_event(|event| match event {
    ///         Event::Obtained { .. } => _ = OBTAINED.fetch_add(1, Ordering::Relaxed),
    ///         Event::Failed { error, .. } => {
    ///             FAILED.fetch_add(1, Ordering::Relaxed);
    ///             eprintln!("no token: {error}");
    ///         }
    ///         _ => {}
    ///     })
    ///     .build();
    /// # drop(authenticator);
    /// ```
    pub fn on_event(mut self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Arc::new(hook);
        self
    }

    /// Sets a store where processes share tokens; none by default.
    ///
    /// [The crate's documentation](crate#one-token-for-many-processes) says who needs a store, how
    /// a fetch uses the store, and what happens if the store fails.
    ///
    /// A second call of `store` replaces the first.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Environment, FileStore};
    ///
    /// let store = FileStore::new("/var/cache/my-program/tokens");
    /// let authenticator = Authenticator::builder(Environment::Sandbox).store(store).build();
    /// # drop(authenticator);
    /// ```
    #[cfg(feature = "store")]
    pub fn store(mut self, store: impl TokenStore + 'static) -> Self {
        self.store = Some(Box::new(store));
        self
    }

    /// Checks the settings and creates the [`Authenticator`]. Makes no request.
    ///
    /// # Errors
    ///
    /// [`Error::Config`]: its text names the unusable setting and says why.
    pub fn build(self) -> Result<Authenticator, Error> {
        if self.timeout.is_zero() {
            return Err(Error::Config(ConfigError::Timeout));
        }
        if self.capacity == 0 {
            return Err(Error::Config(ConfigError::Capacity));
        }
        let timeout = self.timeout.min(LONGEST_TIMEOUT);
        let endpoint = Address::new(self.environment.base_url(), &self.token_path)
            .and_then(|address| Endpoint::new(address, self.configure, timeout))
            .map_err(Error::Config)?;
        let endpoint = Arc::new(endpoint);
        let source: Box<dyn TokenSource> = Box::new(Arc::clone(&endpoint));
        #[cfg(feature = "store")]
        let source = match self.store {
            None => source,
            Some(store) => Box::new(SharedTokens {
                store: GuardedStore::new(store, Arc::clone(&self.hook)),
                origin: source,
                token_endpoint: endpoint.address.uri().to_string(),
                timeout,
                renew_before: self.renew_before,
                ledger: Arc::default(),
            }) as Box<dyn TokenSource>,
        };
        Ok(Authenticator(Arc::new(Shared {
            cache: Cache::new(self.capacity, self.renew_before, timeout),
            endpoint,
            source,
            timeout,
            retries: self.retries,
            renew_in_background: self.renew_in_background,
            hook: self.hook,
        })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("environment", &self.environment)
            .field("token_path", &self.token_path)
            .finish_non_exhaustive()
    }
}
