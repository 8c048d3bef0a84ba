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
use crate::store::TokenStore;
#[cfg(feature = "store")]
use crate::store::guard::GuardedStore;
#[cfg(feature = "store")]
use crate::store::shared::SharedTokens;

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

    /// Starts from the defaults.
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
    /// WeSeeDo's authentication page does not print the path. The default rests on two facts:
    /// WeSeeDo's own WordPress plugin, for an older version of the API, asks `/api/oauth2/token`;
    /// and version 2 of the API stands below `/api/v2`. **Check it** against the OpenAPI document
    /// of your environment, at `api/v2/docs` below its base URL. Where it is wrong, the error names
    /// the URL that was asked.
    ///
    /// The path is appended to the base URL; it starts with `/` and has no query or fragment.
    pub fn token_path(mut self, path: impl Into<String>) -> Self {
        self.token_path = path.into();
        self
    }

    /// Sets how long one whole `get_token` call may take, retries, back-off and waiting included;
    /// 10 s by default.
    ///
    /// Each attempt but the last gets half of what is left. A call that finds a valid token takes
    /// none of it: its renewal has as long, in a thread. More than a year counts as a year. A store
    /// that fails may add the time that it took, and one that outlasts the token half of `timeout`.
    pub fn timeout(mut self, whole_call: Duration) -> Self {
        self.timeout = whole_call;
        self
    }

    /// Sets how often a fetch or renewal asks again after a transient failure; 2 times by default.
    ///
    /// What is transient is told by [`Error::is_transient`]. The waits in between are random, up to
    /// 100 ms, 200 ms and so on to 2 s, or the server's `Retry-After` if that is longer; where
    /// `timeout` leaves no room for one, the call fails.
    pub fn retries(mut self, n: u32) -> Self {
        self.retries = n;
        self
    }

    /// Sets how long before it expires a token is renewed; 5 min by default, at most a quarter of
    /// the token's lifetime.
    ///
    /// Each token's window is shortened by a random 0 to 25 %, so that programs started together do
    /// not renew together. Zero turns renewal ahead of time off.
    pub fn renew_before(mut self, window: Duration) -> Self {
        self.renew_before = window;
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
    pub fn renew_in_background(mut self, yes: bool) -> Self {
        self.renew_in_background = yes;
        self
    }

    /// Sets how many tokens are cached; 1024 by default.
    ///
    /// In a full cache, the token that is over soonest makes room when a new one arrives. A grant
    /// that has no token, since it was refused or is being fetched, takes no room; at most as many
    /// failures are remembered as tokens.
    pub fn capacity(mut self, grants: usize) -> Self {
        self.capacity = grants;
        self
    }

    /// Configures HTTP on top of this crate's defaults: TLS roots, a proxy, the user agent and so
    /// on; nothing by default.
    ///
    /// The function is called for each agent that is made, and what it answers is checked each
    /// time: once by [`build`](Self::build), for the token request, and once by every
    /// [`Authenticator::agent`], whose calls fail with [`Error::Config`] where the check does. A
    /// second call of `http` replaces the first.
    ///
    /// It gets ureq's defaults with these changes: the user agent is `weseedo-auth/VERSION`;
    /// buffers are 16 KiB each, and the response header may fill one; without the feature `rustls`,
    /// the TLS provider is `native-tls`. For the token request, no idle connection is kept. For API
    /// calls, `timeout_connect` is 10 s, `timeout_recv_response` 60 s, and up to 10 idle
    /// connections are kept. A global timeout set here can only shorten [`timeout`](Self::timeout).
    ///
    /// # Proxies
    ///
    /// With an `https` base URL, the first of these environment variables that is set to a URL
    /// names the proxy: `ALL_PROXY`, `all_proxy`, `HTTPS_PROXY`, `https_proxy`, `HTTP_PROXY`,
    /// `http_proxy`. `NO_PROXY` or `no_proxy` lists hosts to go to directly. One that can't be used
    /// (no URL, or SOCKS without the feature `socks-proxy`) is told in the log once, at `warn`.
    /// With a plain `http` base URL, which is on loopback, none of them counts.
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
    /// # What it can undo
    ///
    /// It cannot lift these: the token request follows no redirect, and with an `https` base URL
    /// neither agent speaks plain `http`. A caller's own code can undo other safeguards, and
    /// answers for them: `disable_verification` (told in the log once, at `warn`), a proxy that is
    /// not trusted, and middleware, which sees the credentials and can rewrite the URL they go to.
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

    /// Sets a function that is told what happens, for metrics and logs; nothing is told by default.
    ///
    /// It is called in the thread where it happens, after the outcome has reached all who wait for
    /// it, and outside every lock: it may call the `Authenticator`, and it delays nobody but its
    /// own caller. A panic in it is its caller's. A token that comes from the cache is no event. A
    /// second call replaces the first.
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

    /// Sets where processes keep a token that they share; nowhere by default.
    ///
    /// For programs that run from cron or a shell, and for fleets: see [the crate's
    /// documentation](super#one-token-for-many-processes), which says what a store can and can't
    /// do. [`FileStore`](super::FileStore) is one for the processes of a machine. A single process
    /// that keeps running needs none.
    ///
    /// A fetch or renewal looks there first. What it finds is used if it was stored for the same
    /// grant and token endpoint and has time left. Else the process that gets the store's lease
    /// asks the token endpoint and stores what it gets, and the others wait for that, for half of
    /// [`timeout`](Self::timeout) at most, less a random 0 to 25 %; a renewal does not wait: it is
    /// due again later, and goes without the lease in the last quarter of its window. A lease is
    /// asked for a quarter of the time that the fetch has, and no more than half of what the token
    /// in hand has left.
    ///
    /// A store that fails, or takes longer than a quarter of `timeout` for a call, is told in the
    /// log, at `warn`, and as [`Event::StoreFailed`]; it is left alone for 30 s. Meanwhile, and for
    /// the very call, the token endpoint is asked as if there were none. If there is no token in
    /// hand, a call may take longer than `timeout` then, by what the store took, so that the
    /// endpoint has half of `timeout`. What the store takes can't be bounded from outside: it is
    /// the implementation that keeps its calls short.
    ///
    /// A second call replaces the first.
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
        let timeout = self.timeout.min(LONGEST_TIMEOUT);
        let endpoint = Arc::new(Endpoint::new(address, self.configure, timeout)?);
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
