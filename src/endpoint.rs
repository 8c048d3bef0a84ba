mod address;
mod http;
mod json;
mod redact;
#[cfg(feature = "wipe")]
mod resolve;
mod response;
pub(crate) mod retry;
#[cfg(feature = "wipe")]
mod wipe;

use std::sync::Once;
use std::time::Duration;

use log::{Level, debug, log_enabled, warn};
use ureq::Agent;
use ureq::middleware::Middleware;
use zeroize::Zeroizing;

use crate::clock::Moment;
pub(crate) use crate::endpoint::address::Address;
pub(crate) use crate::endpoint::http::{Configure, HttpSettings};
use crate::endpoint::response::MAX_BODY;
use crate::error::{ConfigError, Error, InvalidResponse};
use crate::grant::Grant;
use crate::read;
use crate::token::Token;

/// The token endpoint, and the API at the same origin.
pub(crate) struct Endpoint {
    address: Address,
    settings: HttpSettings,
    agent: Agent,
}

impl Endpoint {
    pub(crate) fn new(address: Address, configure: Configure) -> Result<Self, ConfigError> {
        let settings = HttpSettings::new(configure);
        let agent = settings.token_agent(&address)?;
        Ok(Self { address, settings, agent })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// An agent for API calls.
    pub(crate) fn api_agent(&self, middleware: impl Middleware) -> Agent {
        self.settings.api_agent(&self.address, middleware)
    }

    /// Asks for a token, once.
    pub(crate) fn fetch(
        &self,
        grant: &Grant,
        timeout: Duration,
        clock: impl Fn() -> Moment,
    ) -> Result<Token, Error> {
        warn_of_traced_secrets();
        let uri = self.address.uri();
        debug!("asking {uri} for a token, client {:?}", grant.client_id());
        let own = self.agent.config().timeouts().global;
        let timeout = own.map_or(timeout, |own| own.min(timeout));
        let unreached = |error| self.unreached(error, timeout);
        // ureq's own look-up panics where no thread can be had.
        #[cfg(not(feature = "wipe"))]
        if let Err(error) = std::thread::Builder::new().spawn(|| ()) {
            return Err(unreached(error.into()));
        }
        let body = grant.to_json();
        let sent = clock();
        let request = self
            .agent
            .post(uri)
            .header("accept", "application/json")
            .header("content-type", "application/json");
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request.send(&body[..]).map_err(unreached)?;

        let status = response.status().as_u16();
        // One byte more than can be used tells a body that is too large.
        let announced = response.body().content_length().and_then(|n| usize::try_from(n).ok());
        let mut buffer = Zeroizing::new(vec![0; announced.unwrap_or(MAX_BODY).min(MAX_BODY) + 1]);
        let body = match status {
            200..=299 => read::until_full(response.body_mut().as_reader(), &mut buffer)
                .map_err(|error| unreached(error.into()))?,
            // Only a body that arrived whole is quoted: half a secret would not be recognized.
            400..=499 => {
                read::until_full(response.body_mut().as_reader(), &mut buffer).unwrap_or_default()
            }
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
                let hint = format!(
                    "no token endpoint at {uri}: look its path up in the environment's OpenAPI \
                     document and set it with Builder::token_path"
                );
                response::add(description, &hint);
            }
            _ => {}
        }
        token
    }

    /// The error of a call whose time is over before the endpoint was asked, or while it was.
    pub(crate) fn timed_out(&self, timeout: Duration) -> Error {
        self.unreached(ureq::Error::Timeout(ureq::Timeout::Global), timeout)
    }

    /// Says where there was no answer from, and after which time.
    fn unreached(&self, error: ureq::Error, timeout: Duration) -> Error {
        let config = self.agent.config();
        let proxy = config.proxy().filter(|proxy| !proxy.is_no_proxy(self.address.uri()));
        let proxy =
            proxy.map(|proxy| format!(" through the proxy {}:{}", proxy.host(), proxy.port()));
        let reason = match &error {
            ureq::Error::Timeout(ureq::Timeout::Global) => format!("timed out after {timeout:.1?}"),
            ureq::Error::Timeout(phase) => {
                let timeouts = config.timeouts();
                let time = match phase {
                    ureq::Timeout::PerCall => timeouts.per_call,
                    ureq::Timeout::Resolve => timeouts.resolve,
                    ureq::Timeout::Connect => timeouts.connect,
                    ureq::Timeout::SendRequest => timeouts.send_request,
                    ureq::Timeout::SendBody => timeouts.send_body,
                    ureq::Timeout::RecvResponse => timeouts.recv_response,
                    ureq::Timeout::RecvBody => timeouts.recv_body,
                    _ => None,
                };
                let time = time.map(|time| format!(" after {time:.1?}")).unwrap_or_default();
                format!("timed out{time} ({phase})")
            }
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let place = self.address.host_and_port();
        let text = format!(
            "no answer from the token endpoint at {place}{}: {reason}",
            proxy.unwrap_or_default()
        );
        Error::unreached(text, error)
    }
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
