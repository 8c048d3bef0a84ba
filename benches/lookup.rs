//! Measures calls in one run: a lookup beside the floor, and a fetch beside a POST of bare ureq.
//!
//! Run `cargo bench --bench lookup`, with `-- --quick` for a fast look. `measure/mod.rs` says how
//! to read the figures.
//!
//! valgrind counts the instructions of an API call, which no other load disturbs. `Collected` is
//! the number for 1000 calls:
//!
//! ```sh
//! for call in through_agent through_bare_ureq; do
//!     valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect="*$call*" \
//!         "$(ls -t target/release/deps/lookup-* | grep -v '\.d$' | head -n 1)" --api-calls
//! done
//! ```

#![expect(unsafe_code, reason = "a counting allocator")]

mod measure;
#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "most of it is for the tests")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "rustls")]
use weseedo_auth::Environment;
use weseedo_auth::{Authenticator, Grant, ureq};

use crate::measure::{Bench, is_quick, median, print, section, time};
use crate::support::{Gate, HOUR, Server, token_answer, wait_until};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The allocated bytes of all threads together, because one thread may free a block of another.
static BYTES: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: passes every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        BYTES.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() {
    if std::env::args().any(|arg| arg == "--api-calls") {
        let api = Api::new();
        api.through_agent(1000);
        api.through_bare_ureq(1000);
        return;
    }
    let bench = Bench::from_args();
    memory();
    bench.lookups();
    bench.threads();
    bench.beside_a_stalled_fetch();
    bench.beside_its_own_renewal();
    bench.misses();
    #[cfg(feature = "rustls")]
    bench.misses_over_tls();
    bench.api_calls();
    for cached in if is_quick() { &[1_000][..] } else { &[1_000, 10_000, 100_000] } {
        bench.insertions(*cached);
    }
}

impl Bench {
    fn lookups(&self) {
        section("lookup; floor: a Mutex lock, Instant::now, SystemTime::now, an Arc clone");
        for cached in [1, 100, 1024] {
            for (kind, grant) in kinds(0) {
                let authenticator = filled(cached, &grant);
                let name = format!("hit, {cached} cached, {kind}");
                self.hit_beside_floor(&name, &authenticator, &grant);
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
        let (server, gate) = gated(HOUR);
        let authenticator = authenticator(&server, 1024);
        let (held, stalled) = (grant(0), grant(1));
        authenticator.get_token(&held).unwrap();
        gate.close();
        thread::scope(|scope| {
            let fetch = scope.spawn(|| authenticator.get_token(&stalled));
            wait_until(|| server.connections() == 2);
            self.hit_beside_floor("hit", &authenticator, &held);
            gate.open();
            fetch.join().unwrap().unwrap();
        });
    }

    fn beside_its_own_renewal(&self) {
        section("lookup while the token's own renewal is under way; floor: as above");
        let lifetime = Duration::from_secs(4);
        let (server, gate) = gated(lifetime);
        let (authenticator, grant) = (authenticator(&server, 1024), grant(0));
        authenticator.get_token(&grant).unwrap();
        gate.close();
        // The renewal is due by then: jitter leaves the window at least 3/16 of the lifetime.
        thread::sleep(lifetime.saturating_sub(Duration::from_secs(1)) * 13 / 16);
        authenticator.get_token(&grant).unwrap();
        wait_until(|| server.connections() == 2);
        self.hit_beside_floor("hit", &authenticator, &grant);
        gate.open();
    }

    fn hit_beside_floor(&self, name: &str, authenticator: &Authenticator, grant: &Grant) {
        let floor = Floor::new();
        let (hits, floors) = self.by_turns(
            || time(self.calls, || hit(authenticator, grant)),
            || time(self.calls, || floor.call()),
        );
        print(name, &hits, &floors);
    }

    fn misses(&self) {
        section("fetch over loopback; floor: the same POST and timeout with bare ureq");
        let server = Server::answering(|_| token_answer(TOKEN, HOUR));
        let (authenticator, grant) = (authenticator(&server, 1024), grant(0));
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let url = format!("{}/api/v2/oauth2/token", server.base_url);
        let calls = self.calls / 200;
        let (misses, posts) = self.by_turns(
            || time(calls, || fetch(&authenticator, &grant)),
            || time(calls, || post(&agent, &url)),
        );
        print("miss", &misses, &posts);
    }

    #[cfg(feature = "rustls")]
    fn misses_over_tls(&self) {
        use weseedo_auth::ureq::tls::TlsConfig;

        section("fetch over https, but for the first; floor: the same POST with bare ureq");
        let (trusted, config) =
            support::certificate(&rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap());
        let server = Server::start(move |_, stream| {
            support::answer_over_tls(stream, &config, |_| token_answer(TOKEN, HOUR));
        });
        let base_url = server.base_url.replace("http:", "https:");
        let url = format!("{base_url}/api/v2/oauth2/token");
        let tls = TlsConfig::builder().root_certs([trusted].into()).build();
        let config = ureq::Agent::config_builder().tls_config(tls.clone()).max_idle_connections(0);
        let bare: ureq::Agent = config.timeout_global(Some(Duration::from_secs(10))).build().into();
        let authenticator = Authenticator::builder(Environment::Custom(base_url))
            .http(move |http| http.tls_config(tls.clone()))
            .build()
            .unwrap();
        let (grant, calls) = (grant(0), self.calls / 1000);
        fetch(&authenticator, &grant);
        post(&bare, &url);
        let (misses, posts) = self.by_turns(
            || time(calls, || fetch(&authenticator, &grant)),
            || time(calls, || post(&bare, &url)),
        );
        print("miss", &misses, &posts);
    }

    fn api_calls(&self) {
        section(
            "API call on a kept connection; floor: bare ureq with a header that stays the same",
        );
        let calls = self.calls / 200;
        // Each round has new connections, because the core on which their server runs makes a
        // difference.
        let each = |run: fn(&Api, u32)| {
            let api = Api::new();
            let start = Instant::now();
            run(&api, calls);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        };
        let (ours, floors) =
            self.by_turns(|| each(Api::through_agent), || each(Api::through_bare_ureq));
        print("call", &ours, &floors);
    }

    /// Measures fetches that each evict another token, and how they slow down the hits of another
    /// thread.
    fn insertions(&self, cached: usize) {
        section(&format!("fetch into a full cache of {cached}; floor: into an empty one"));
        let (full, held) = (filled(cached, &grant(0)), grant(0));
        let empty = authenticator(&Server::answering(|_| token_answer(TOKEN, HOUR)), 1);
        let next = Cell::new(cached);
        let insert = |authenticator: &Authenticator| {
            next.set(next.get() + 1);
            let grant = grant(next.get());
            authenticator.get_token(&grant).unwrap();
            grant
        };
        let calls = self.calls / 200;
        let (inserted, floors) = self.by_turns(
            || time(calls, || drop(insert(&full))),
            || time(calls, || empty.forget(&insert(&empty))),
        );
        print("insertion", &inserted, &floors);

        // Fetches the token again, so that it is not the one that expires first and is evicted.
        full.forget(&held);
        full.get_token(&held).unwrap();
        let hits = AtomicU64::new(0);
        let (is_done, rounds) = (AtomicBool::new(false), self.rounds / 5);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    hit(&full, &held);
                    hits.fetch_add(1, Ordering::Relaxed);
                }
            });
            let rate = |load: &dyn Fn()| {
                let (start, before) = (Instant::now(), hits.load(Ordering::Relaxed));
                load();
                let made = u32::try_from(hits.load(Ordering::Relaxed) - before).unwrap();
                f64::from(made) / start.elapsed().as_secs_f64() / 1e6
            };
            let (mut beside, mut elsewhere, mut alone) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rounds {
                beside.push(rate(&|| (0..calls).for_each(|_| drop(insert(&full)))));
                elsewhere.push(rate(&|| (0..calls).for_each(|_| drop(insert(&empty)))));
                alone.push(rate(&|| thread::sleep(Duration::from_millis(10))));
            }
            is_done.store(true, Ordering::Relaxed);
            for (name, rates) in [
                ("million hits a second, alone", alone),
                ("  while another thread fetches elsewhere", elsewhere),
                ("  while another thread inserts here", beside),
            ] {
                println!("{name:<44}{:>9.2}", median(&rates));
            }
        });
    }

    /// Returns the time of a call in the slowest thread, in nanoseconds.
    fn on_threads(&self, threads: usize, call: impl Fn(usize) + Sync) -> f64 {
        let barrier = Barrier::new(threads + 1);
        // Long enough for the threads to run at the same time.
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

/// Sends the token request with bare ureq.
fn post(agent: &ureq::Agent, url: &str) {
    let body = format!(
        r#"{{"grant_type":"client_credentials","client_id":"{ID}-0","client_secret":"{SECRET}"}}"#
    );
    let request = agent.post(url).header("accept", "application/json");
    let mut answer = request.content_type("application/json").send(&body).unwrap();
    black_box(answer.body_mut().read_to_vec().unwrap());
}

/// An API, and two agents that each keep a connection to it.
struct Api {
    url: String,
    agent: ureq::Agent,
    bare: ureq::Agent,
}

impl Api {
    fn new() -> Self {
        let server = Server::keeping(|request| {
            let answer = if request.starts_with("POST") {
                token_answer(TOKEN, HOUR)
            } else {
                support::answer("200 OK", "Content-Type: application/json\r\n", "[]")
            };
            answer.replace("Connection: close\r\n", "")
        });
        let api = Self {
            url: format!("{}/api/v2/personal/meetings", server.base_url),
            agent: authenticator(&server, 1).agent(grant(0)),
            bare: ureq::Agent::new_with_defaults(),
        };
        read(api.agent.get(&api.url).call());
        read(api.bare.get(&api.url).call());
        api
    }

    #[inline(never)]
    fn through_agent(&self, calls: u32) {
        for _ in 0..calls {
            read(self.agent.get(&self.url).call());
        }
    }

    #[inline(never)]
    fn through_bare_ureq(&self, calls: u32) {
        for _ in 0..calls {
            read(self.bare.get(&self.url).header("authorization", "Bearer d33f00d1e59b").call());
        }
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) {
    black_box(answer.unwrap().body_mut().read_to_vec().unwrap());
}

fn fetch(authenticator: &Authenticator, grant: &Grant) {
    authenticator.get_token(grant).unwrap();
    authenticator.forget(grant);
}

fn hit(authenticator: &Authenticator, grant: &Grant) {
    black_box(authenticator.get_token(black_box(grant)).unwrap());
}

/// The least work of a cache that several threads share and whose tokens expire.
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

fn authenticator(server: &Server, capacity: usize) -> Authenticator {
    let timeout = Duration::from_secs(10);
    server.builder().timeout(timeout).capacity(capacity).build().unwrap()
}

/// Returns an authenticator whose cache is full with `cached` tokens, one of them for `own`.
fn filled(cached: usize, own: &Grant) -> Authenticator {
    let server = Server::answering(|_| token_answer(TOKEN, HOUR));
    let authenticator = authenticator(&server, cached);
    for i in 1..cached {
        authenticator.get_token(&grant(i)).unwrap();
    }
    authenticator.get_token(own).unwrap();
    authenticator
}

fn memory() {
    section("memory");
    let bytes = || {
        // The threads of look-ups and of the server end a moment after the last answer.
        thread::sleep(Duration::from_millis(100));
        BYTES.load(Ordering::Relaxed)
    };
    let server = Server::answering(|_| token_answer(TOKEN, HOUR));
    let authenticator = authenticator(&server, 1024);
    authenticator.get_token(&grant(0)).unwrap();
    let (resident, before) = (resident_kib(), bytes());
    for i in 1..1024 {
        authenticator.get_token(&grant(i)).unwrap();
    }
    println!(
        "{:<44}{:>9} bytes",
        "on the heap, for each of 1024 grants",
        (bytes() - before) / 1023
    );
    match (resident, resident_kib()) {
        (Some(before), Some(after)) => {
            println!("{:<44}{:>9} KiB", "resident, with one token", before);
            println!("{:<44}{:>9} KiB", "resident, with a full cache of 1024", after);
        }
        _ => println!("resident memory is known on Linux only"),
    }
}

fn resident_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
}

const TOKEN: &str = "d33f00d1e59b";

/// Returns a token endpoint that waits while its gate is closed. The gate is open at first.
fn gated(lifetime: Duration) -> (Server, Gate) {
    let gate = Gate::default();
    let server_gate = gate.clone();
    let server = Server::answering(move |_| {
        server_gate.pass();
        token_answer(TOKEN, lifetime)
    });
    (server, gate)
}
