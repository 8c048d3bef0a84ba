use std::env;
use std::sync::Once;
use std::time::Duration;

use log::warn;
use ureq::config::{AutoHeaderValue, Config, ConfigBuilder, RedirectAuthHeaders};
use ureq::http::{HeaderValue, Request};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::typestate::AgentScope;
use ureq::{Agent, Proxy, ProxyProtocol, SendBody};

use crate::endpoint::address::{Address, is_loopback};
#[cfg(feature = "wipe")]
use crate::endpoint::wipe;
use crate::error::{ConfigError, Error};

/// What `Builder::http` was given.
pub(crate) type Configure =
    Box<dyn Fn(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> + Send + Sync>;

const USER_AGENT: &str = concat!("weseedo-auth/", env!("CARGO_PKG_VERSION"));
/// Of each of a connection's two buffers, in bytes.
const BUFFER: usize = 16 * 1024;
const IDLE_CONNECTIONS: usize = 10;
const API_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const API_RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Makes the agents, of the defaults and what the user configured, and checks what came of it.
pub(crate) struct HttpSettings {
    configure: Configure,
    proxy_told: Once,
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    verification_told: Once,
}

impl HttpSettings {
    pub(crate) fn new(configure: Configure) -> Self {
        Self {
            configure,
            proxy_told: Once::new(),
            #[cfg(any(feature = "rustls", feature = "native-tls"))]
            verification_told: Once::new(),
        }
    }

    /// An agent for token requests.
    pub(crate) fn token_agent(&self, address: &Address) -> Result<Agent, ConfigError> {
        // By the next renewal an idle connection would be stale, and until then it would hold
        // buffers.
        let config = (self.configure)(defaults(address).max_idle_connections(0))
            .http_status_as_error(false)
            .accept_encoding("")
            // No setting lifts these: credentials never travel to another host, nor in plain text.
            .max_redirects(0)
            .https_only(address.is_https())
            .build();
        self.check(&config, address)?;
        #[cfg(feature = "wipe")]
        let agent = wipe::agent(config, kept_tls::KeptTls::default());
        #[cfg(not(feature = "wipe"))]
        let agent = Agent::new_with_config(config);
        Ok(agent)
    }

    /// An agent for API calls. Where what the user's function answers this time is not usable, each
    /// call says so.
    pub(crate) fn api_agent(&self, address: &Address, bearer: impl Middleware) -> Agent {
        let defaults = defaults(address)
            .timeout_connect(Some(API_CONNECT_TIMEOUT))
            .timeout_recv_response(Some(API_RESPONSE_TIMEOUT))
            .max_idle_connections_per_host(IDLE_CONNECTIONS);
        let config = (self.configure)(defaults)
            .https_only(address.is_https())
            // The same host is not the same origin: ureq's other choice would carry the token to
            // another port.
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .middleware(bearer)
            .build();
        if let Err(error) = self.check(&config, address) {
            let refuse = move |_: Request<SendBody>, _: MiddlewareNext<'_>| {
                Err(Error::Config(error.clone()).into_ureq())
            };
            return Agent::config_builder().proxy(None).middleware(refuse).build().new_agent();
        }
        #[cfg(feature = "wipe")]
        let agent = wipe::agent(config, ureq::unversioned::transport::DefaultConnector::new());
        #[cfg(not(feature = "wipe"))]
        let agent = Agent::new_with_config(config);
        agent
    }

    /// Finds what ureq would answer with a panic on the first request, and a way out for plain
    /// text; tells once what is allowed but may be a mistake.
    fn check(&self, config: &Config, address: &Address) -> Result<(), ConfigError> {
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
        if !sizes.contains(&config.input_buffer_size())
            || !sizes.contains(&config.output_buffer_size())
        {
            return Err(ConfigError::Http("buffers must have from 1 byte to 64 MiB"));
        }
        if let Some(proxy) = config.proxy() {
            if is_unsupported(proxy) {
                return Err(ConfigError::Http(
                    "a SOCKS proxy needs the feature socks-proxy of weseedo-auth",
                ));
            }
            if !address.is_https() && !is_loopback(proxy.host()) {
                return Err(ConfigError::Http(
                    "the proxy must be on a loopback host: the base URL is plain http",
                ));
            }
        }
        if address.is_https() && config.proxy().is_none_or(Proxy::is_from_env) {
            self.proxy_told.call_once(tell_of_unusable_proxies);
        }
        #[cfg(any(feature = "rustls", feature = "native-tls"))]
        if address.is_https() {
            check_tls(config.tls_config())?;
            if config.tls_config().disable_verification() {
                self.verification_told.call_once(|| {
                    warn!("certificates are not verified: whoever answers gets the credentials");
                });
            }
        }
        Ok(())
    }
}

fn defaults(address: &Address) -> ConfigBuilder<AgentScope> {
    let config = Agent::config_builder()
        .user_agent(USER_AGENT)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        // A header that fills the buffer would read as a closed connection.
        .max_response_header_size(BUFFER - 1);
    // ureq's own default is rustls, whether it is there or not.
    #[cfg(all(feature = "native-tls", not(feature = "rustls")))]
    let config = config.tls_config(
        ureq::tls::TlsConfig::builder().provider(ureq::tls::TlsProvider::NativeTls).build(),
    );
    // What the environment's variables name is no place for plain text that stays on this machine.
    let proxy = if address.is_https() { Proxy::try_from_env() } else { None };
    config.proxy(proxy.filter(|proxy| !is_unsupported(proxy)))
}

fn is_unsupported(proxy: &Proxy) -> bool {
    let is_http = matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
    cfg!(not(feature = "socks-proxy")) && !is_http
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn check_tls(tls: &ureq::tls::TlsConfig) -> Result<(), ConfigError> {
    use ureq::tls::{RootCerts, TlsProvider};

    Err(ConfigError::Http(match tls.provider() {
        TlsProvider::Rustls if cfg!(not(feature = "rustls")) => {
            "the TLS provider needs the feature rustls of weseedo-auth"
        }
        TlsProvider::NativeTls if cfg!(not(feature = "native-tls")) => {
            "the TLS provider needs the feature native-tls of weseedo-auth"
        }
        TlsProvider::Rustls
            if cfg!(not(feature = "platform-verifier"))
                && matches!(tls.root_certs(), RootCerts::PlatformVerifier) =>
        {
            "the platform's root certificates need the feature platform-verifier of weseedo-auth"
        }
        _ => return Ok(()),
    }))
}

/// Names the variables that ureq passes over on its way to the first one that it can use. What is
/// in them may hold a password.
fn tell_of_unusable_proxies() {
    for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"]
    {
        let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        let Some(Ok(proxy)) = value.to_str().map(Proxy::new) else {
            warn!("{name} is not used: it is no proxy's URL, such as http://proxy.example:3128");
            continue;
        };
        if is_unsupported(&proxy) {
            warn!("{name} is not used: SOCKS needs the feature socks-proxy of weseedo-auth");
        }
        return;
    }
}

#[cfg(feature = "wipe")]
mod kept_tls {
    use ureq::unversioned::transport::{ConnectionDetails, Connector, DefaultConnector, Transport};

    /// ureq's connector with one TLS set-up for all requests. ureq takes a request with a timeout
    /// of its own for one that may have TLS settings of its own too, and sets TLS up anew.
    #[derive(Debug, Default)]
    pub(super) struct KeptTls(DefaultConnector);

    impl Connector<()> for KeptTls {
        type Out = Box<dyn Transport>;

        fn connect(
            &self,
            details: &ConnectionDetails,
            chained: Option<()>,
        ) -> Result<Option<Self::Out>, ureq::Error> {
            let mut addrs = details.resolver.empty();
            details.addrs.iter().for_each(|address| addrs.push(*address));
            let details = ConnectionDetails {
                request_level: false,
                addrs,
                uri: details.uri,
                config: details.config,
                resolver: details.resolver,
                now: details.now,
                timeout: details.timeout,
                current_time: details.current_time.clone(),
                run_connector: details.run_connector.clone(),
                register_shutdown: details.register_shutdown.clone(),
            };
            self.0.connect(&details, chained)
        }
    }
}
