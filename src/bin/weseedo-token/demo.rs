use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use weseedo_auth::{Authenticator, Environment, Error, Grant, Token};

use crate::failure::Failure;
use crate::{print, rfc3339};

/// The lifetime of the stand-in's tokens. The library takes one second off.
const LIFETIME: Duration = Duration::from_millis(4200);

/// Shows the library at work against a stand-in for WeSeeDo.
pub(crate) fn run() -> Result<(), Failure> {
    let standin = Standin::start().map_err(|error| Failure::other(&error))?;
    let (base_url, grant) = (&standin.base_url, Grant::client_credentials("demo", "demo secret"));
    print(&format!(
        "A stand-in for WeSeeDo listens on {base_url}; nothing leaves this machine.\n"
    ))?;
    let authenticator = Authenticator::new(Environment::Custom(base_url.clone()))?;
    let get = || authenticator.get_token(&grant);

    let (token, time) = timed(get);
    let token = token?;
    let remaining = token.remaining();
    print(&format!("\nFirst call:    a token, valid for {remaining:.1?}, after {time:.1?}.\n"))?;
    let (again, time) = timed(get);
    again?;
    print(&format!("Second call:   the same token, from the cache, after {time:.1?}.\n"))?;
    let calls = thread::scope(|scope| {
        let calls = || (0..1000).filter(|_| get().is_ok()).count();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(calls)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum::<usize>()
    });
    print(&format!("8 threads:     {calls} calls.\n"))?;
    print(&format!("               Token requests so far: {}.\n", standin.requests()))?;

    let renewal = call_until(get, |new| new.access_token() != token.access_token())?;
    print(&format!("Renewal:       ahead of time, in the background. {renewal}\n"))?;
    let token = get()?;
    standin.is_down.store(true, Ordering::SeqCst);
    let requests = standin.requests();
    let outage = call_until(get, |_| standin.requests() >= requests + 6)?;
    standin.is_down.store(false, Ordering::SeqCst);
    print(&format!("Outage:        the endpoint answers 503 to each renewal. {outage}\n"))?;
    let end = call_until(get, |new| new.access_token() != token.access_token())?;
    print(&format!("After it:      the token is renewed. {end}\n"))?;
    print(&format!("               Token requests in all: {}.\n", standin.requests()))
}

fn timed<T>(call: impl Fn() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = call();
    (result, start.elapsed())
}

/// Calls until a token is as expected. Returns a text about the calls.
fn call_until(
    get: impl Fn() -> Result<Token, Error>,
    is_expected: impl Fn(&Token) -> bool,
) -> Result<String, Failure> {
    let (mut calls, mut failed, mut slowest) = (0, 0, Duration::ZERO);
    let start = Instant::now();
    loop {
        let (outcome, time) = timed(&get);
        calls += 1;
        slowest = slowest.max(time);
        match outcome {
            Ok(token) if is_expected(&token) => break,
            Ok(_) => {}
            Err(_) => failed += 1,
        }
        if start.elapsed() > LIFETIME * 3 {
            return Err(Failure::other(&"the demo waited in vain"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(format!("{calls} calls, {failed} failed, the slowest took {slowest:.1?}."))
}

/// A token endpoint on loopback.
struct Standin {
    base_url: String,
    requests: Arc<AtomicUsize>,
    is_down: Arc<AtomicBool>,
}

impl Standin {
    fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let (requests, is_down) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, down) = (Arc::clone(&requests), Arc::clone(&is_down));
        thread::Builder::new().spawn(move || {
            for stream in listener.incoming().flatten() {
                let n = count.fetch_add(1, Ordering::SeqCst) + 1;
                // The stand-in ignores clients that close the connection early.
                let _ = answer(stream, n, down.load(Ordering::SeqCst));
            }
        })?;
        Ok(Self { base_url, requests, is_down })
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, n: usize, is_down: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut block = [0; 1024];
    // The body of a token request is one JSON object, and the last thing that is sent.
    while !request.ends_with(b"}") {
        match stream.read(&mut block)? {
            0 => break,
            length => request.extend(&block[..length]),
        }
    }
    let (status, body) = if is_down {
        ("503 Service Unavailable", String::new())
    } else {
        let expires = rfc3339(OffsetDateTime::from(std::time::SystemTime::now()) + LIFETIME);
        let token = format!("\"access_token\":\"d33f00d{n}\",\"token_type\":\"Bearer\"");
        ("200 OK", format!("{{{token},\"expires\":\"{expires}\"}}"))
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    stream.write_all(format!("{head}\r\n{body}").as_bytes())
}
