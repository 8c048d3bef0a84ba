use std::env;
use std::time::Duration;

use log::warn;
use ureq::config::{AutoHeaderValue, Config, ConfigBuilder, RedirectAuthHeaders};
use ureq::http::{HeaderValue, Request};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::typestate::AgentScope;
use ureq::{Agent, Proxy, ProxyProtocol, SendBody};

use crate::endpoint::Endpoint;
use crate::endpoint::address::{Address, is_loopback};
use crate::endpoint::transport::{self, ApiTls, KeptTls};
use crate::error::{ConfigError, Error};
use crate::event::LOG;

/// The function of `Builder::http`.
pub(crate) type Configure =
    Box<dyn Fn(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> + Send + Sync>;

/// The size of each of the two buffers of a connection, in bytes.
const BUFFER: usize = 16 * 1024;

impl Endpoint {
    pub(crate) fn new(
        address: Address,
        configure: Configure,
        timeout: Duration,
    ) -> Result<Self, ConfigError> {
        // Idle connections would hold buffers until the next renewal, and be stale then.
        let config = configure(defaults(&address).max_idle_connections(0))
            .http_status_as_error(false)
            .accept_encoding("")
            // Set last, so that no setting overrides these: credentials never travel to another
            // host, nor in plain text.
            .max_redirects(0)
            .https_only(address.is_https())
            .build();
        check(&config, &address)?;
        // Only here, so that agents do not repeat the warnings.
        if address.is_https() {
            warn_of_probable_mistakes(&config);
        }
        Ok(Self { address, configure, config, tls: KeptTls::default(), timeout })
    }

    /// An agent for API calls, with one middleware before the user's and one after them. If the
    /// user's function returns unusable settings this time, each call fails with that error.
    pub(crate) fn api_agent(&self, first: impl Middleware, last: impl Middleware) -> Agent {
        let config = defaults(&self.address)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .max_idle_connections_per_host(10)
            .middleware(first);
        let config = (self.configure)(config)
            .https_only(self.address.is_https())
            // ureq's other choice compares hosts and not origins, so it would carry the token to
            // another port.
            .redirect_auth_headers(RedirectAuthHeaders::Never)
            .middleware(last)
            .build();
        if let Err(error) = check(&config, &self.address) {
            let refuse = move |_: Request<SendBody>, _: MiddlewareNext<'_>| {
                Err(Error::Config(error.clone()).into_ureq())
            };
            return Agent::config_builder().proxy(None).middleware(refuse).build().new_agent();
        }
        transport::agent(config, ApiTls::default())
    }
}

/// Refuses settings with which ureq would panic on the first request, and settings that would send
/// plain text off this machine.
fn check(config: &Config, address: &Address) -> Result<(), ConfigError> {
    let is_unusable = |value: &AutoHeaderValue| match value {
        AutoHeaderValue::Provided(text) => HeaderValue::from_str(text).is_err(),
        _ => false,
    };
    let headers = [config.user_agent(), config.accept(), config.accept_encoding()];
    // ureq's own limit is 100 MB.
    let sizes = 1..=64 * 1024 * 1024;
    let buffers = [config.input_buffer_size(), config.output_buffer_size()];
    Err(ConfigError::Http(match config.proxy() {
        _ if headers.into_iter().any(is_unusable) => {
            "a header value holds what can't stand in an HTTP header"
        }
        _ if !buffers.iter().all(|size| sizes.contains(size)) => {
            "buffers must have from 1 byte to 64 MiB"
        }
        Some(proxy) if is_unsupported(proxy) => {
            "a SOCKS proxy needs the feature socks-proxy of weseedo-auth"
        }
        Some(proxy) if !address.is_https() && !is_loopback(proxy.host()) => {
            "the proxy must be on a loopback host: the base URL is plain http"
        }
        #[cfg(any(feature = "rustls", feature = "native-tls"))]
        _ if address.is_https() => return check_tls(config.tls_config()),
        _ => return Ok(()),
    }))
}

fn defaults(address: &Address) -> ConfigBuilder<AgentScope> {
    let config = Agent::config_builder()
        .user_agent(concat!("weseedo-auth/", env!("CARGO_PKG_VERSION")))
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        // ureq would take a header that fills the buffer for a closed connection.
        .max_response_header_size(BUFFER - 1);
    // ureq's own default is rustls, even if that feature is off.
    #[cfg(all(feature = "native-tls", not(feature = "rustls")))]
    let config = config.tls_config(
        ureq::tls::TlsConfig::builder().provider(ureq::tls::TlsProvider::NativeTls).build(),
    );
    // A base URL of plain http is on this machine, and a proxy would send its text elsewhere.
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
        // A certificate in DER starts with the tag of a SEQUENCE.
        _ if matches!(tls.root_certs(), RootCerts::Specific(roots)
            if !roots.iter().any(|root| root.der().first() == Some(&0x30))) =>
        {
            "the root certificates hold no certificate: read a PEM file with ureq::tls::parse_pem"
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

fn warn_of_probable_mistakes(config: &Config) {
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    if config.tls_config().disable_verification() {
        warn!(target: LOG, "certificates are not verified: any server that answers gets the credentials");
    }
    if config.proxy().is_none_or(Proxy::is_from_env) {
        warn_of_unusable_proxies();
    }
    if config.proxy().is_some_and(Proxy::is_from_env) {
        warn_of_useless_exceptions();
    }
}

/// Warns of each proxy variable that ureq skips before the first usable one. Shows only the names,
/// because the values may hold a password.
fn warn_of_unusable_proxies() {
    for name in ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"]
    {
        let Some(value) = env::var_os(name).filter(|value| !value.is_empty()) else { continue };
        let Some(Ok(proxy)) = value.to_str().map(Proxy::new) else {
            warn!(target: LOG, "{name} is not used: it is no proxy's URL, such as http://proxy.example:3128");
            continue;
        };
        if is_unsupported(&proxy) {
            warn!(target: LOG, "{name} is not used: SOCKS needs the feature socks-proxy of weseedo-auth");
        }
        return;
    }
}

/// Warns of entries of `NO_PROXY` that never match, because ureq compares them with host names.
fn warn_of_useless_exceptions() {
    let list = env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).unwrap_or_default();
    for entry in list.split(',') {
        let has_port = entry.contains(':') && !entry.ends_with(']');
        if has_port || entry.contains('/') || entry.contains(char::is_whitespace) {
            warn!(
                target: LOG,
                "NO_PROXY: the entry {entry:?} matches no host: an entry is a host, .domain or \
                 *.domain, without white space, port or network"
            );
        }
    }
}
