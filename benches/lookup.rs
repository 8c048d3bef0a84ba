//! What a call costs: a lookup beside the floor, a fetch beside bare ureq's POST, all in one run.
//!
//! `cargo bench`, or `cargo bench -- --quick` for a fast look. Figures are medians of rounds, and a ratio is the median of
//! the rounds' ratios: on a noisy machine it is the one to compare.

#![expect(unsafe_code, reason = "a counting allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use weseedo_auth::{Authenticator, Environment, Grant, ureq};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Bench {
    rounds: usize,
    calls: u32,
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let bench = if quick {
        Bench { rounds: 15, calls: 2_000 }
    } else {
        Bench { rounds: 101, calls: 20_000 }
    };
    bench.lookups();
    bench.threads();
    bench.beside_a_stalled_fetch();
    bench.misses();
    resident_memory();
}

impl Bench {
    fn lookups(&self) {
        section("lookup; floor: a Mutex lock, Instant::now, SystemTime::now, an Arc clone");
        let floor = Floor::new();
        for cached in [1, 100, 1024] {
            for (kind, grant) in kinds(0) {
                let authenticator = filled(cached, &grant);
                let (hits, floors) = self.by_turns(
                    || self.time(|| hit(&authenticator, &grant)),
                    || self.time(|| floor.call()),
                );
                print(&format!("hit, {cached} cached, {kind}"), &hits, &floors);
                let before = ALLOCATIONS.get();
                for _ in 0..1000 {
                    hit(&authenticator, &grant);
                }
                println!("{:<44}{:>9}", "  allocations in 1000 hits", ALLOCATIONS.get() - before);
            }
        }
    }

    fn threads(&self) {
        section("lookup from many threads; floor: as many threads at one Mutex");
        let authenticator = filled(8, &grant(0));
        let floor = Floor::new();
        let fewer = Self { rounds: self.rounds / 5, ..*self };
        for threads in [1, 2, 4, 8] {
            for (which, distinct) in [("one grant", false), ("different grants", true)] {
                let grants: Vec<_> =
                    (0..threads).map(|i| grant(if distinct { i } else { 0 })).collect();
                let (hits, floors) = fewer.by_turns(
                    || self.on_threads(threads, |i| hit(&authenticator, &grants[i])),
                    || self.on_threads(threads, |_| floor.call()),
                );
                print(&format!("hit, {threads} threads, {which}"), &hits, &floors);
            }
        }
    }

    fn beside_a_stalled_fetch(&self) {
        section("lookup while another grant's fetch is stalled; floor: as above");
        let (server, held, stalled) = (Server::start(), grant(0), grant(1));
        let authenticator = server.authenticator();
        authenticator.get_token(&held).unwrap();
        server.stall(true);
        thread::scope(|scope| {
            let fetch = scope.spawn(|| authenticator.get_token(&stalled));
            server.wait_until_stalled();
            let floor = Floor::new();
            let (hits, floors) = self.by_turns(
                || self.time(|| hit(&authenticator, &held)),
                || self.time(|| floor.call()),
            );
            print("hit", &hits, &floors);
            server.stall(false);
            fetch.join().unwrap().unwrap();
        });
    }

    fn misses(&self) {
        section(
            "fetch over loopback; floor: the same POST with bare ureq, on a new connection too",
        );
        let server = Server::start();
        let (authenticator, grant) = (server.authenticator(), grant(0));
        let agent: ureq::Agent =
            ureq::Agent::config_builder().max_idle_connections(0).build().into();
        let url = format!("{}/api/v2/oauth/token", server.base_url);
        let body = format!(
            r#"{{"grant_type":"client_credentials","client_id":"{ID}-0","client_secret":"{SECRET}"}}"#
        );
        let calls = self.calls / 200;
        let (misses, posts) = self.by_turns(
            || {
                time(calls, || {
                    let token = authenticator.get_token(&grant).unwrap();
                    authenticator.invalidate(&grant, &token);
                })
            },
            || {
                time(calls, || {
                    let request = agent.post(&url).header("accept", "application/json");
                    let mut answer = request.content_type("application/json").send(&body).unwrap();
                    black_box(answer.body_mut().read_to_vec().unwrap());
                })
            },
        );
        print("miss", &misses, &posts);
    }

    /// Runs both once in each round, so that what disturbs one disturbs the other.
    fn by_turns(&self, ours: impl Fn() -> f64, floor: impl Fn() -> f64) -> (Vec<f64>, Vec<f64>) {
        (0..self.rounds).map(|_| (ours(), floor())).unzip()
    }

    fn time(&self, call: impl Fn()) -> f64 {
        time(self.calls, call)
    }

    /// The time for a call of each thread, from the first start to the last end.
    fn on_threads(&self, threads: usize, call: impl Fn(usize) + Sync) -> f64 {
        let barrier = Barrier::new(threads + 1);
        // Long enough for the threads to meet.
        let calls = self.calls * 2;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|i| {
                    let (barrier, call) = (&barrier, &call);
                    scope.spawn(move || {
                        barrier.wait();
                        time(calls, || call(i))
                    })
                })
                .collect();
            barrier.wait();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
        })
    }
}

/// Nanoseconds for each of so many calls.
fn time(calls: u32, call: impl Fn()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
}

fn hit(authenticator: &Authenticator, grant: &Grant) {
    black_box(authenticator.get_token(black_box(grant)).unwrap());
}

/// The least that a cache can do which several threads share and which knows the time.
struct Floor(Mutex<Arc<String>>);

impl Floor {
    fn new() -> Self {
        Self(Mutex::new(Arc::new("token".to_owned())))
    }

    fn call(&self) {
        black_box((Instant::now(), SystemTime::now()));
        black_box(Arc::clone(&self.0.lock().unwrap()));
    }
}

fn section(title: &str) {
    println!("\n{title}");
    println!("{:<44}{:>9}{:>10}{:>8}", "", "ns", "floor ns", "ratio");
}

fn print(name: &str, ours: &[f64], floor: &[f64]) {
    let ratios: Vec<_> = ours.iter().zip(floor).map(|(ours, floor)| ours / floor).collect();
    println!("{name:<44}{:>9.1}{:>10.1}{:>8.2}", median(ours), median(floor), median(&ratios));
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const ID: &str = "b1946ac9-2492-4d23-9c8f-5a1f0c3e7d42";
const SECRET: &str = "8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d";

fn grant(i: usize) -> Grant {
    Grant::client_credentials(format!("{ID}-{i}"), SECRET)
}

fn kinds(i: usize) -> [(&'static str, Grant); 2] {
    let password =
        Grant::password(format!("{ID}-{i}"), SECRET, "jan@example.nl", "correct horse battery");
    [("client credentials", grant(i)), ("password", password)]
}

/// An authenticator that holds so many tokens, that of `grant` among them.
fn filled(cached: usize, own: &Grant) -> Authenticator {
    let authenticator = Server::start().authenticator();
    for i in 1..cached {
        authenticator.get_token(&grant(i)).unwrap();
    }
    authenticator.get_token(own).unwrap();
    authenticator
}

fn resident_memory() {
    section("memory");
    let before = resident_kib();
    let authenticator = filled(1024, &grant(0));
    match (before, resident_kib()) {
        (Some(before), Some(after)) => {
            println!("{:<44}{:>9} KiB", "resident, before", before);
            println!("{:<44}{:>9} KiB", "resident, with a full cache of 1024", after);
        }
        _ => println!("resident memory is only told by Linux"),
    }
    drop(authenticator);
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// A token endpoint that serves one connection after the other, and can be made to keep one waiting.
struct Server {
    base_url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stalls: AtomicBool,
    is_stalled: AtomicBool,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let theirs = Arc::clone(&state);
        thread::spawn(move || {
            listener.incoming().flatten().for_each(|stream| answer(stream, &theirs));
        });
        Self { base_url, state }
    }

    fn authenticator(&self) -> Authenticator {
        let environment = Environment::Custom(self.base_url.clone());
        Authenticator::builder(environment).timeout(Duration::from_secs(600)).build().unwrap()
    }

    fn stall(&self, stalls: bool) {
        self.state.stalls.store(stalls, Ordering::SeqCst);
    }

    fn wait_until_stalled(&self) {
        while !self.state.is_stalled.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
}

fn answer(mut stream: TcpStream, state: &State) {
    let (mut request, mut length) = ([0; 4096], 0);
    // The end of the JSON object is the end of the request.
    while !request[..length].ends_with(b"}") {
        match stream.read(&mut request[length..]) {
            Ok(n) if n > 0 => length += n,
            _ => return,
        }
    }
    while state.stalls.load(Ordering::SeqCst) {
        state.is_stalled.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(1));
    }
    let body = r#"{"access_token":"d33f00d1e59b","expires":"2021-12-31T23:59:59.999Z","token_type":"Bearer"}"#;
    let text = format!(
        "HTTP/1.1 200 OK\r\nDate: Fri, 31 Dec 2021 00:00:00 GMT\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(text.as_bytes());
}
