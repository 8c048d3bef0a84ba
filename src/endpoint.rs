mod json;
mod redact;
#[cfg(feature = "wipe")]
mod resolve;
mod response;
#[cfg(feature = "wipe")]
mod wipe;

use std::io::{self, Read};
use std::sync::{Arc, Once};
use std::time::Duration;

use log::{Level, debug, log_enabled, warn};
use ureq::Agent;
use ureq::config::{Config, ConfigBuilder, RedirectAuthHeaders};
use ureq::http::Uri;
use ureq::middleware::Middleware;
use ureq::typestate::AgentScope;
use zeroize::Zeroizing;

use crate::clock::Moment;
use crate::endpoint::response::MAX_BODY;
use crate::error::{Error, InvalidResponse};
use crate::grant::Grant;
use crate::token::Token;

/// What `Builder::http` was given.
pub(crate) type Configure =
    Box<dyn Fn(ConfigBuilder<AgentScope>) -> ConfigBuilder<AgentScope> + Send + Sync>;

const USER_AGENT: &str = concat!("weseedo-auth/", env!("CARGO_PKG_VERSION"));
/// Of each of a connection's two buffers, in bytes.
const BUFFER: usize = 16 * 1024;

/// The token endpoint, and the API at the same origin.
pub(crate) struct Endpoint {
    uri: Uri,
    configure: Configure,
    agent: Agent,
}

impl Endpoint {
    /// `uri` must have a scheme and a host.
    pub(crate) fn new(uri: Uri, configure: Configure) -> Self {
        // By the next renewal an idle connection would be stale, and until then it would hold
        // buffers.
        let config = configure(defaults(&uri).max_idle_connections(0))
            .http_status_as_error(false)
            .accept_encoding("")
            // No setting lifts these: credentials never travel to another host, nor in plain text.
            .max_redirects(0)
            .https_only(is_https(&uri))
            .build();
        Self { agent: agent(config), uri, configure }
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The settings of the token request.
    pub(crate) fn config(&self) -> &Config {
        self.agent.config()
    }

    /// An agent for API calls.
    pub(crate) fn api_agent(&self, middleware: impl Middleware) -> Agent {
        let config = (self.configure)(defaults(&self.uri));
        agent(
            config
                .https_only(is_https(&self.uri))
                // The same host is not the same origin: ureq's other choice would carry the token
                // to another port.
                .redirect_auth_headers(RedirectAuthHeaders::Never)
                .middleware(middleware)
                .build(),
        )
    }

    /// Whether `uri` is the API's: the token endpoint's scheme, host and port (RFC 6454 section 4),
    /// but not the endpoint.
    pub(crate) fn is_api(&self, uri: &Uri) -> bool {
        let hosts = uri.host().zip(self.uri.host());
        uri.scheme() == self.uri.scheme()
            && hosts.is_some_and(|(theirs, ours)| theirs.eq_ignore_ascii_case(ours))
            && port(uri) == port(&self.uri)
            && uri.path() != self.uri.path()
    }

    /// Asks for a token, once.
    pub(crate) fn fetch(
        &self,
        grant: &Grant,
        timeout: Duration,
        clock: impl Fn() -> Moment,
    ) -> Result<Token, Error> {
        warn_of_traced_secrets();
        debug!("asking {} for a token, client {:?}", self.uri, grant.client_id());
        let body = grant.to_json();
        let sent = clock();
        let request = self
            .agent
            .post(&self.uri)
            .header("accept", "application/json")
            .header("content-type", "application/json");
        let config = request.config();
        let own = self.agent.config().timeouts().global;
        let mut response = config
            .timeout_global(Some(own.map_or(timeout, |own| own.min(timeout))))
            .build()
            .send(&body[..])
            .map_err(transport)?;

        let status = response.status().as_u16();
        // One byte more than can be used tells a body that is too large.
        let announced = response.body().content_length().and_then(|n| usize::try_from(n).ok());
        let mut buffer = Zeroizing::new(vec![0; announced.unwrap_or(MAX_BODY).min(MAX_BODY) + 1]);
        let body = match status {
            200..=299 => read(response.body_mut().as_reader(), &mut buffer)
                .map_err(|e| transport(e.into()))?,
            // Only a body that arrived whole is quoted: half a secret would not be recognized.
            400..=499 => read(response.body_mut().as_reader(), &mut buffer).unwrap_or_default(),
            _ => &[],
        };
        // On arrival only the monotonic clock counts: the wall clock may have been stepped since.
        let arrived = clock();
        let sent = sent.told_by_wall_of(arrived);
        let mut token = response::parse(status, response.headers(), body, sent, grant);
        match &mut token {
            Ok(token) if token.lifetime().is_over(arrived) => {
                return Err(Error::InvalidResponse(InvalidResponse::Expired));
            }
            Err(Error::Rejected { status: 404 | 405, description, .. }) => {
                *description = Some(self.no_endpoint(description.take()));
            }
            _ => {}
        }
        token
    }

    fn no_endpoint(&self, description: Option<String>) -> String {
        let said = description.map(|text| format!("{text}: ")).unwrap_or_default();
        format!(
            "{said}no token endpoint at {}: look its path up in the environment's OpenAPI document and set it with \
             Builder::token_path",
            self.uri
        )
    }
}

fn defaults(uri: &Uri) -> ConfigBuilder<AgentScope> {
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
    if is_https(uri) { config } else { config.proxy(None) }
}

fn agent(config: Config) -> Agent {
    #[cfg(feature = "wipe")]
    let agent = wipe::agent(config);
    #[cfg(not(feature = "wipe"))]
    let agent = Agent::new_with_config(config);
    agent
}

pub(crate) fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// The port that is asked: the scheme's own one where none is written.
fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 })
}

/// Reads until the end, or until `buffer` is full.
fn read(mut reader: impl Read, buffer: &mut [u8]) -> io::Result<&[u8]> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(&buffer[..length])
}

fn transport(error: ureq::Error) -> Error {
    Error::Transport(Arc::new(error))
}

/// ureq-proto logs the raw bytes of answers and the headers of requests, whatever they hold.
fn warn_of_traced_secrets() {
    static ONCE: Once = Once::new();
    if log_enabled!(target: "ureq_proto", Level::Trace) {
        ONCE.call_once(|| {
            warn!("the log shows access tokens: ureq_proto is logged at trace, set the filter ureq_proto=debug");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// <https://www.rfc-editor.org/rfc/rfc6454#section-4>
    #[test]
    fn api_is_what_has_the_same_origin_but_for_the_token_endpoint() {
        let is_api = |endpoint: &str, uri: &str| {
            let endpoint = Endpoint::new(endpoint.parse().unwrap(), Box::new(|config| config));
            endpoint.is_api(&uri.parse().unwrap())
        };
        let endpoint = "https://api.example/v2/token";
        for uri in [
            "https://api.example/",
            "https://api.example/v2/meetings?token=x",
            "https://API.Example/v2/TOKEN",
            "https://api.example:443/v2",
            "HTTPS://api.example:443/v2",
        ] {
            assert!(is_api(endpoint, uri), "{uri}");
            assert!(is_api("https://api.example:443/v2/token", uri), "{uri}");
        }
        for uri in [
            "http://api.example/v2",
            "http://api.example:443/v2",
            "https://api.example:8443/v2",
            "https://api.example.evil.example/v2",
            "https://evil.example/api.example",
            "https://api.example@evil.example/",
            "https://api.example./v2",
            "https://api.example/v2/token",
            "https://api.example/v2/token?x",
            "/v2/meetings",
        ] {
            assert!(!is_api(endpoint, uri), "{uri}");
        }
        assert!(is_api("http://localhost:80/token", "http://localhost/v2"));
        assert!(!is_api("http://localhost/token", "http://127.0.0.1/v2"));
        assert!(is_api("http://[::1]:8080/token", "http://[::1]:8080/v2"));
    }
}
