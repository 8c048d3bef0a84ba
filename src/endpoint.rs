mod address;
mod http;
mod json;
mod quote;
#[cfg(feature = "wipe")]
mod resolve;
mod response;
pub(crate) mod retry;
#[cfg_attr(not(feature = "wipe"), path = "endpoint/plain.rs")]
mod transport;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use log::{Level, debug, log_enabled, warn};
use ureq::config::Config;
use zeroize::Zeroizing;

pub(crate) use crate::endpoint::address::Address;
pub(crate) use crate::endpoint::http::Configure;
use crate::endpoint::response::MAX_BODY;
use crate::endpoint::transport::KeptTls;
pub(crate) use crate::endpoint::transport::take_has_sent_token;
use crate::error::{Error, InvalidResponse, TransportError};
use crate::event::LOG;
use crate::read;
use crate::source::TokenRequest;
use crate::token::Outcome;

/// The token endpoint, and the API at the same origin.
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    configure: Configure,
    /// The settings of token requests.
    config: Config,
    tls: KeptTls,
    /// The longest that one call takes, with its retries.
    timeout: Duration,
}

impl Endpoint {
    /// Sends one token request and reads the answer. The text of a time-out names the time since
    /// `start`.
    fn fetch_once(&self, request: &TokenRequest<'_>, timeout: Duration, start: Instant) -> Outcome {
        let (grant, clock) = (request.grant, request.clock);
        warn_of_traced_secrets();
        let uri = self.address.uri();
        debug!(target: LOG, "client {:?}: requesting a token from {uri}", grant.client_id());
        let own = self.config.timeouts().global;
        let timeout = own.map_or(timeout, |own| own.min(timeout));
        let elapsed = || clock().monotonic.saturating_duration_since(start);
        let unreached = |error| self.unreached(error, elapsed());
        // ureq's own look-up panics if the system gives no thread.
        #[cfg(not(feature = "wipe"))]
        if let Err(error) = std::thread::Builder::new().spawn(|| ()) {
            return Err(unreached(error.into()));
        }
        let body = grant.to_json();
        let sent = clock();
        // A new agent for each request, so that no cookie and no connection is kept.
        let request = transport::agent(self.config.clone(), self.tls.clone())
            .post(uri)
            .header("accept", "application/json")
            .header("content-type", "application/json");
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request.send(&body[..]).map_err(unreached)?;

        let status = response.status().as_u16();
        // One byte more than a usable body has, to notice a body that is too large.
        let announced = response.body().content_length().and_then(|n| usize::try_from(n).ok());
        let mut buffer = Zeroizing::new(vec![0; announced.unwrap_or(MAX_BODY).min(MAX_BODY) + 1]);
        let body = match status {
            200..=299 => read::until_full(response.body_mut().as_reader(), &mut buffer)
                .map_err(|error| unreached(error.into()))?,
            // Only a body that arrived whole is quoted, because half a secret might not be
            // recognized.
            400..=599 => {
                read::until_full(response.body_mut().as_reader(), &mut buffer).unwrap_or_default()
            }
            _ => &[],
        };
        // On arrival only the monotonic clock counts, because the wall clock may have been stepped
        // during the request.
        let arrived = clock();
        let sent = sent.by_wall_clock_of(arrived);
        let mut token = response::parse(status, response.headers(), body, sent, grant);
        match &mut token {
            Ok(token) if token.lifetime().has_ended(arrived) => {
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

    /// The error of a call that ran out of time after `elapsed`.
    pub(crate) fn timed_out(&self, elapsed: Duration) -> Error {
        self.unreached(ureq::Error::Timeout(ureq::Timeout::Global), elapsed)
    }

    /// Adds the host, the port, the proxy and the time to an error of ureq.
    fn unreached(&self, error: ureq::Error, elapsed: Duration) -> Error {
        let proxy = self.config.proxy().filter(|proxy| !proxy.is_no_proxy(self.address.uri()));
        let proxy =
            proxy.map(|proxy| format!(" through the proxy {}:{}", proxy.host(), proxy.port()));
        let reason = match &error {
            ureq::Error::Timeout(ureq::Timeout::Global) => format!("timed out after {elapsed:.1?}"),
            ureq::Error::Timeout(phase) => format!("timed out after {elapsed:.1?} ({phase})"),
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let (place, proxy) = (self.address.host_and_port(), proxy.unwrap_or_default());
        let mut text = format!("no answer from the token endpoint at {place}{proxy}: {reason}");
        if reason.contains("UnknownIssuer") {
            text += ": to trust your own certification authority, use Builder::http";
        }
        Error::Transport(TransportError::new(text, error))
    }
}

/// Warns once that ureq-proto logs the raw bytes of answers and the headers of requests.
fn warn_of_traced_secrets() {
    // Not a `Once`, because a logger that panics would poison it for good.
    static REPORTED: AtomicBool = AtomicBool::new(false);
    let is_shown = log_enabled!(target: "ureq_proto", Level::Trace);
    if is_shown && !REPORTED.swap(true, Ordering::Relaxed) {
        warn!(
            target: LOG,
            "the log shows access tokens: ureq_proto is logged at trace, set the filter \
             ureq_proto=debug"
        );
    }
}
