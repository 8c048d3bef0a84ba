use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ureq::ProxyProtocol;
use ureq::config::{AutoHeaderValue, Config, ConfigBuilder};
use ureq::http::{HeaderValue, Uri};
use ureq::typestate::AgentScope;

use crate::authenticator::Authenticator;
use crate::cache::Cache;
use crate::endpoint::{Configure, Endpoint, is_https};
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
            return Err(ConfigError::Timeout("must be longer than zero"));
        }
        if self.capacity == 0 {
            return Err(ConfigError::Capacity("must be at least 1"));
        }
        let uri = token_endpoint(self.environment.base_url(), &self.token_path)?;
        let endpoint = Endpoint::new(uri, self.configure);
        check_http(endpoint.config(), is_https(endpoint.uri()))?;
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

fn token_endpoint(base_url: &str, token_path: &str) -> Result<Uri, ConfigError> {
    let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let base = |reason| Err(ConfigError::BaseUrl(reason));
    let uri = match base_url.parse::<Uri>() {
        Ok(uri) if is_visible(base_url) => uri,
        _ => return base("must be a URL, such as https://api.example"),
    };
    // `Uri` drops a fragment.
    if base_url.contains(['?', '#']) {
        return base("must have no query and no fragment");
    }
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return base("must be a URL, such as https://api.example");
    };
    if authority.as_str().contains('@') {
        return base("must have no user info: what authenticates belongs in a Grant");
    }
    let host = authority.host();
    if host.is_empty() {
        return base("must name a host");
    }
    match authority.as_str()[host.len()..].strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_err() => {
            return base("must have a port from 0 to 65535, or none");
        }
        _ => {}
    }
    match scheme {
        "https" if cfg!(any(feature = "rustls", feature = "native-tls")) => {}
        "https" => {
            return base("is https, which needs the feature rustls or native-tls of weseedo-auth");
        }
        "http" if is_loopback(host) => {}
        "http" => return base("must be https: plain http is accepted for loopback hosts only"),
        _ => return base("must start with https://"),
    }

    if !token_path.starts_with('/') {
        return Err(ConfigError::TokenPath("must start with /"));
    }
    if token_path.contains(['?', '#']) {
        return Err(ConfigError::TokenPath("must have no query and no fragment"));
    }
    match format!("{base_url}{token_path}").parse() {
        Ok(uri) if is_visible(token_path) => Ok(uri),
        _ => Err(ConfigError::TokenPath("holds what can't stand in a URL: percent-encode it")),
    }
}

fn is_loopback(host: &str) -> bool {
    let ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || ipv6
            .is_some_and(|host| host.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback()))
}

/// Finds what ureq would answer with a panic on the first request, and a way out for plain text.
fn check_http(config: &Config, is_https: bool) -> Result<(), ConfigError> {
    for value in [config.user_agent(), config.accept(), config.accept_encoding()] {
        if let AutoHeaderValue::Provided(text) = value
            && HeaderValue::from_str(text).is_err()
        {
            return Err(ConfigError::Http(
                "a header value holds what can't stand in an HTTP header",
            ));
        }
    }
    // ureq's own limit is 100 MB.
    let sizes = 1..=64 * 1024 * 1024;
    if !sizes.contains(&config.input_buffer_size()) || !sizes.contains(&config.output_buffer_size())
    {
        return Err(ConfigError::Http("buffers must have from 1 byte to 64 MiB"));
    }
    if let Some(proxy) = config.proxy() {
        let is_socks = !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
        if cfg!(not(feature = "socks-proxy")) && is_socks && !proxy.is_from_env() {
            return Err(ConfigError::Http(
                "a SOCKS proxy needs the feature socks-proxy of weseedo-auth",
            ));
        }
        if !is_https && !is_loopback(proxy.host()) {
            return Err(ConfigError::Http(
                "the proxy must be on a loopback host: the base URL is plain http",
            ));
        }
    }
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    if is_https {
        use ureq::tls::{RootCerts, TlsProvider};
        let tls = config.tls_config();
        match tls.provider() {
            TlsProvider::Rustls if cfg!(not(feature = "rustls")) => {
                return Err(ConfigError::Http(
                    "the TLS provider needs the feature rustls of weseedo-auth",
                ));
            }
            TlsProvider::NativeTls if cfg!(not(feature = "native-tls")) => {
                return Err(ConfigError::Http(
                    "the TLS provider needs the feature native-tls of weseedo-auth",
                ));
            }
            TlsProvider::Rustls
                if cfg!(not(feature = "platform-verifier"))
                    && matches!(tls.root_certs(), RootCerts::PlatformVerifier) =>
            {
                return Err(ConfigError::Http(
                    "the platform's root certificates need the feature platform-verifier of weseedo-auth",
                ));
            }
            _ => {}
        }
    }
    Ok(())
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
