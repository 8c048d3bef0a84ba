//! A small service on `std` alone: 32 threads share a listener, and `/meetings` calls the API
//! through one agent. `/healthz` and `/metrics` tell how its tokens stand.
//!
//! A load of its own drives it for a few seconds, in which the token endpoint is out of order for
//! a moment and the API refuses a token.

#[path = "standin/client.rs"]
mod client;
#[path = "standin/outage.rs"]
mod outage;
#[path = "standin/revoke.rs"]
mod revoke;
mod standin;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use standin::Standin;
use weseedo_auth::{Authenticator, Environment, Event, Grant, ureq};

const WORKERS: usize = 32;

struct Service {
    authenticator: Authenticator,
    grant: Grant,
    agent: ureq::Agent,
    meetings: String,
    metrics: Arc<Metrics>,
}

impl Service {
    fn new(base_url: String) -> Result<Self, weseedo_auth::Error> {
        let metrics = Arc::new(Metrics::default());
        let meetings = format!("{base_url}/api/v2/personal/meetings");
        let told = Arc::clone(&metrics);
        let authenticator = Authenticator::builder(Environment::Custom(base_url))
            .on_event(move |event| told.count(event))
            .build()?;
        let grant = Grant::client_credentials("demo", "demo secret");
        let agent = authenticator.agent(grant.clone());
        Ok(Self { authenticator, grant, agent, meetings, metrics })
    }

    /// Serves in the background, and returns where.
    fn start(self) -> Result<SocketAddr, Box<dyn Error>> {
        // Warms up: a wrong secret is told now, and the first user waits for no token.
        self.authenticator.get_token(&self.grant)?;
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0))?);
        let (address, service) = (listener.local_addr()?, Arc::new(self));
        for _ in 0..WORKERS {
            let (listener, service) = (Arc::clone(&listener), Arc::clone(&service));
            thread::spawn(move || {
                loop {
                    let served = listener.accept().and_then(|(stream, _)| service.serve(&stream));
                    served.unwrap_or_else(|error| eprintln!("service: {error}"));
                }
            });
        }
        // Calls renew the token, and a health check makes none: without this, a service that has no
        // calls for a while would be told to be down, get no more calls, and stay down.
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                // The hook is told of a failure.
                let _ = service.authenticator.get_token(&service.grant);
            }
        });
        Ok(address)
    }

    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let lines = BufReader::new(stream.take(16 * 1024)).lines().map_while(Result::ok);
        let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        let (status, body) = match head.first().and_then(|line| line.split(' ').nth(1)) {
            Some("/meetings") => self.meetings(),
            Some("/healthz") => self.health(),
            Some("/metrics") => (200, self.metrics()),
            _ => (404, "not found".to_owned()),
        };
        let (kind, length) = ("text/plain; version=0.0.4", body.len());
        let head = format!("HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nConnection: close\r\n");
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())
    }

    fn meetings(&self) -> (u16, String) {
        let list = || self.agent.get(&self.meetings).call()?.body_mut().read_to_string();
        let mut outcome = list();
        // The agent has repeated the call with another token. That one may have been revoked as well,
        // if it was requested just before all tokens were revoked.
        if matches!(outcome, Err(ureq::Error::StatusCode(401))) {
            outcome = list();
        }
        match outcome {
            Ok(list) => (200, list),
            // Without a token the API was not called.
            Err(error) if weseedo_auth::Error::from_ureq(&error).is_some() => {
                (503, error.to_string())
            }
            Err(error) => (502, error.to_string()),
        }
    }

    fn health(&self) -> (u16, String) {
        let status = self.authenticator.status(&self.grant);
        match (status.remaining.map(|left| left.as_secs_f64()), status.last_error) {
            (Some(_), None) => (200, "ok".to_owned()),
            (Some(left), Some(_)) => (200, format!("degraded: renewals fail, {left:.1} s left")),
            (None, Some(error)) => (503, format!("down: {error}")),
            (None, None) => (503, "down: no token".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let Metrics { obtained, failed, refused } = &*self.metrics;
        let (obtained, refused) = (obtained.load(Relaxed), refused.load(Relaxed));
        let [transport, unavailable, rejected, unusable] =
            failed.each_ref().map(|n| n.load(Relaxed));
        let left = self.authenticator.status(&self.grant).remaining.unwrap_or_default();
        let left = left.as_secs_f64();
        format!(
            "# HELP weseedo_tokens_obtained_total Tokens that fetches and renewals brought.
# TYPE weseedo_tokens_obtained_total counter
weseedo_tokens_obtained_total {obtained}
# HELP weseedo_token_failures_total Fetches and renewals that failed to their last retry.
# TYPE weseedo_token_failures_total counter
weseedo_token_failures_total{{kind=\"transport\"}} {transport}
weseedo_token_failures_total{{kind=\"unavailable\"}} {unavailable}
weseedo_token_failures_total{{kind=\"rejected\"}} {rejected}
weseedo_token_failures_total{{kind=\"unusable\"}} {unusable}
# HELP weseedo_tokens_refused_total Tokens that the API refused before they expired.
# TYPE weseedo_tokens_refused_total counter
weseedo_tokens_refused_total {refused}
# HELP weseedo_token_remaining_seconds How long the cached token stays valid.
# TYPE weseedo_token_remaining_seconds gauge
weseedo_token_remaining_seconds {left:.3}
"
        )
    }
}

#[derive(Default)]
struct Metrics {
    obtained: AtomicU64,
    failed: [AtomicU64; 4],
    refused: AtomicU64,
}

impl Metrics {
    fn count(&self, event: &Event<'_>) {
        use weseedo_auth::Error::{Rejected, Transport, Unavailable};
        let counter = match event {
            Event::Obtained { .. } => &self.obtained,
            Event::Failed { error: Transport(_), .. } => &self.failed[0],
            Event::Failed { error: Unavailable { .. }, .. } => &self.failed[1],
            Event::Failed { error: Rejected { .. }, .. } => &self.failed[2],
            Event::Failed { .. } => &self.failed[3],
            Event::TokenRefused { .. } => &self.refused,
            _ => return,
        };
        counter.fetch_add(1, Relaxed);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut standin = Standin::start();
    // So short that it is renewed, at about three quarters of it, while the example runs.
    standin.set_lifetime(Duration::from_secs(8));
    let address = Service::new(standin.base_url())?.start()?;

    let (outcome, load) = client::under_load(address, || disturb(&mut standin, address));
    outcome?;
    let metrics = client::get(address, "/metrics")?;
    println!("\n/metrics:\n{}", metrics.trim_start_matches("200 "));
    println!("calls: {}, lost: {}", load.calls.into_inner(), load.lost.into_inner());
    Ok(())
}

/// What goes wrong while the clients call.
fn disturb(standin: &mut Standin, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let healthz = |text| client::poll(address, "/healthz", text);
    println!("/healthz at first:      {}", healthz("200 ok")?);
    let outage = standin.outage();
    println!("/healthz in the outage: {}", healthz("200 degraded")?);
    outage.remove();
    println!("/healthz after it:      {}", healthz("200 ok")?);
    standin.revoke_tokens();
    // The call that meets it is made once more, and one new token is fetched for all.
    client::poll(address, "/metrics", "obtained_total 3\n")?;
    Ok(())
}
