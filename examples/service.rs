//! A small service on `std` alone: 32 threads share a listener, and `/meetings` calls the API.
//! `/healthz` and `/metrics` report the state of the token.
//!
//! The program calls its own service for a few seconds. Meanwhile the token endpoint has an outage,
//! and the API refuses a token.

mod standin;

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use load::Load;
use standin::Standin;
use weseedo_auth::{Authenticator, Bearer, Environment, Event, Grant, ureq};

const WORKERS: usize = 32;

struct Service {
    /// The tokens of the one grant that the service uses. `GrantSource::from_env()` instead of a
    /// grant lets the secret change while the service runs: see the example `rotation`.
    bearer: Bearer,
    agent: ureq::Agent,
    meetings: String,
    metrics: Arc<Metrics>,
}

impl Service {
    fn new(base_url: String) -> Result<Self, weseedo_auth::Error> {
        let metrics = Arc::new(Metrics::default());
        let meetings = format!("{base_url}/api/v2/personal/meetings");
        let counters = Arc::clone(&metrics);
        let authenticator = Authenticator::builder(Environment::Custom(base_url))
            .on_event(move |event| counters.count(event))
            .build()?;
        let bearer = authenticator.bearer(Grant::client_credentials("demo", "demo secret"));
        Ok(Self { agent: bearer.agent(), bearer, meetings, metrics })
    }

    /// Serves in the background, and returns the address.
    fn start(self) -> Result<SocketAddr, Box<dyn Error>> {
        // Warms up: a wrong secret shows now, and the first user does not wait for a token.
        self.bearer.token()?;
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
        // Keeps the token renewed, because only a call starts a renewal. Without this thread, the
        // token of an idle service expires, `/healthz` reports 503, and a load balancer sends no
        // calls that would fetch a new one.
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_secs(1));
                // The event hook has already counted an error.
                let _ = service.bearer.token();
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
        // `self.agent.get(…).call()` is shorter and repeats a refused call too. `with_token` also
        // gets past a second token that was revoked together with the first.
        let list = self.bearer.with_token(|token| {
            let request = self.agent.get(&self.meetings);
            let request = request.header("Authorization", token.authorization());
            request.call()?.body_mut().read_to_string()
        });
        match list {
            Ok(list) => (200, list),
            // Without a token the API was not called.
            Err(error) if weseedo_auth::Error::from_ureq(&error).is_some() => {
                (503, error.to_string())
            }
            Err(error) => (502, error.to_string()),
        }
    }

    fn health(&self) -> (u16, String) {
        let status = self.bearer.status();
        match (status.remaining.map(|time| time.as_secs_f64()), status.last_error) {
            (Some(_), None) => (200, "ok".to_owned()),
            (Some(time), Some(_)) => {
                (200, format!("degraded: renewals fail, the token is valid for {time:.1} s"))
            }
            (None, Some(error)) => (503, format!("down: {error}")),
            (None, None) => (503, "down: no token".to_owned()),
        }
    }

    fn metrics(&self) -> String {
        let Metrics { obtained, failed, refused } = &*self.metrics;
        let (obtained, refused) = (obtained.load(Relaxed), refused.load(Relaxed));
        let [transport, unavailable, rejected, other] = failed.each_ref().map(|n| n.load(Relaxed));
        let remaining = self.bearer.status().remaining.unwrap_or_default().as_secs_f64();
        format!(
            "# HELP weseedo_tokens_obtained_total Tokens from fetches and renewals.
# TYPE weseedo_tokens_obtained_total counter
weseedo_tokens_obtained_total {obtained}
# HELP weseedo_token_failures_total Fetches and renewals that failed after all retries.
# TYPE weseedo_token_failures_total counter
weseedo_token_failures_total{{kind=\"transport\"}} {transport}
weseedo_token_failures_total{{kind=\"unavailable\"}} {unavailable}
weseedo_token_failures_total{{kind=\"rejected\"}} {rejected}
weseedo_token_failures_total{{kind=\"other\"}} {other}
# HELP weseedo_tokens_refused_total Tokens that the API refused before they expired.
# TYPE weseedo_tokens_refused_total counter
weseedo_tokens_refused_total {refused}
# HELP weseedo_token_remaining_seconds How long the cached token stays valid.
# TYPE weseedo_token_remaining_seconds gauge
weseedo_token_remaining_seconds {remaining:.3}
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
    // The token is renewed after about three quarters of its lifetime, so while the example runs.
    standin.set_lifetime(Duration::from_secs(8));
    let load = Load::new(Service::new(standin.base_url())?.start()?);

    load.run_during(|| disturb(&mut standin, &load))?;
    println!("\n/metrics:\n{}", load.get("/metrics")?.trim_start_matches("200 "));
    println!("calls: {}, lost: {}", load.calls.load(Relaxed), load.lost.load(Relaxed));
    Ok(())
}

/// Disturbs the service while clients call it.
fn disturb(standin: &mut Standin, load: &Load) -> Result<(), Box<dyn Error>> {
    println!("/healthz at first:      {}", load.poll("/healthz", "200 ok")?);
    let outage = standin.outage();
    println!("/healthz in the outage: {}", load.poll("/healthz", "200 degraded")?);
    outage.remove();
    println!("/healthz after it:      {}", load.poll("/healthz", "200 ok")?);
    standin.revoke_tokens();
    // The first call that is refused is repeated, and one new token is fetched for all.
    load.poll("/metrics", "obtained_total 3\n")?;
    Ok(())
}

/// Clients of the service.
mod load {
    use std::error::Error;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    use std::thread;
    use std::time::{Duration, Instant};

    use weseedo_auth::ureq::{self, Agent};

    use crate::standin::MEETINGS;

    pub struct Load {
        agent: Agent,
        address: SocketAddr,
        pub calls: AtomicU64,
        pub lost: AtomicU64,
    }

    impl Load {
        pub fn new(address: SocketAddr) -> Self {
            let config = Agent::config_builder().http_status_as_error(false).proxy(None);
            let agent = config.build().new_agent();
            Self { agent, address, calls: AtomicU64::new(0), lost: AtomicU64::new(0) }
        }

        /// Returns the status and body of an answer, such as `200 ok`.
        pub fn get(&self, path: &str) -> Result<String, ureq::Error> {
            let mut answer = self.agent.get(format!("http://{}{path}", self.address)).call()?;
            Ok(format!("{} {}", answer.status().as_u16(), answer.body_mut().read_to_string()?))
        }

        /// Repeats a call until the answer contains this text, for 10 s at most.
        pub fn poll(&self, path: &str, text: &str) -> Result<String, Box<dyn Error>> {
            let patience = Instant::now() + Duration::from_secs(10);
            while Instant::now() < patience {
                let answer = self.get(path)?;
                if answer.contains(text) {
                    return Ok(answer);
                }
                thread::sleep(Duration::from_millis(20));
            }
            Err(format!("waited in vain for {text:?} from {path}").into())
        }

        /// Does `work` while eight clients call the service, each about 100 times a second.
        pub fn run_during<T>(&self, work: impl FnOnce() -> T) -> T {
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        while !is_over.load(Relaxed) {
                            self.call();
                            thread::sleep(Duration::from_millis(10));
                        }
                    });
                }
                let outcome = work();
                is_over.store(true, Relaxed);
                outcome
            })
        }

        fn call(&self) {
            self.calls.fetch_add(1, Relaxed);
            match self.get("/meetings") {
                Ok(answer) if answer.strip_prefix("200 ") == Some(MEETINGS) => {}
                outcome => {
                    self.lost.fetch_add(1, Relaxed);
                    eprintln!("lost: {outcome:?}");
                }
            }
        }
    }
}
