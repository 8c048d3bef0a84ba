//! Scans every block of memory when it is freed, and the blocks that are never freed, for secrets
//! and tokens that should have been wiped.
//!
//! A scan looks for every aligned piece of 8 bytes of a secret. So it also finds a copy that was
//! cut, moved or partly overwritten.

#![expect(unsafe_code, reason = "the allocator scans the blocks that it frees")]

#[cfg(feature = "store")]
#[path = "it/memory_store.rs"]
#[expect(dead_code, reason = "most of it is for the other tests")]
mod memory_store;
#[path = "it/support.rs"]
#[expect(dead_code, reason = "most of it is for the other tests")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::io::{Read, Write};
use std::panic;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::CertificateParams;
use weseedo_auth::ureq::http::Request;
use weseedo_auth::ureq::middleware::MiddlewareNext;
use weseedo_auth::ureq::tls::{Certificate, TlsConfig};
use weseedo_auth::ureq::{Agent, SendBody};
use weseedo_auth::{Authenticator, Builder, Environment, Grant, GrantSource, Secret};
use zeroize::Zeroizing;

use crate::support::{
    DATE, HOUR, Server, answer, certificate, over_tls, read_request, stall, token_answer,
    token_body, wait_until,
};

const CLIENT_SECRET: &str = "Qm7vXz2LrT9wKd4HsYb6NcJf1GpAe8Ru3MtWo5ZiVxDkSqBhCyEnFgUjIaPlO0_c";
const CLIENT_SECRET_BASE64: &str =
    "UW03dlh6MkxyVDl3S2Q0SHNZYjZOY0pmMUdwQWU4UnUzTXRXbzVaaVZ4RGtTcUJoQ3lFbkZnVWpJYVBsTzBfYw";
const PASSWORD: &str = "u3Hq8ZxTn5RbWc1VyKj7MfLd9SgPe2AoQi6XtNrBkYv4EwJmDhGzUsCaFlOI0p_p";
/// Contains characters that JSON may escape.
const TOKEN: &str = "kV9/bT3nQx7Zr/5LmYc1Hs8Wd=gJf2PuXe6Ri4Na+oBtSvKyEqGwCzDhMjUlAp0_t";
const NEW_TOKEN: &str = "aB4cWz8XkL1qTn6VrYs3JhPd9FgMe7RoUi5QtNvZbGxKcEwSyDmHjCuIlAfOp2_u";

/// Secrets that must not stay in memory.
const SECRETS: &[&str] = &[CLIENT_SECRET, PASSWORD, CLIENT_SECRET_BASE64];
/// Tokens that must not stay in memory.
const TOKENS: &[&str] = &[TOKEN, NEW_TOKEN];

/// Whether a block holds a piece of 8 bytes of one of the texts.
fn holds(block: &[u8], texts: &[&str]) -> bool {
    let pieces = || texts.iter().flat_map(|text| text.as_bytes().as_chunks::<8>().0);
    let mut is_first = [false; 256];
    for piece in pieces() {
        is_first[usize::from(piece[0])] = true;
    }
    block
        .windows(8)
        .any(|window| is_first[usize::from(window[0])] && pieces().any(|piece| window == piece))
}

/// The key that seals stored values in the current scenes. Counts as a secret. Zero before that.
static STORE_KEY: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn holds_store_key(block: &[u8]) -> bool {
    let key = STORE_KEY.each_ref().map(|piece| piece.load(SeqCst));
    let pieces = || block.windows(8).filter_map(|window| window.try_into().ok());
    key != [0; 4] && pieces().any(|piece| key.contains(&u64::from_ne_bytes(piece)))
}

struct Scanner {
    is_on: AtomicBool,
    /// The number of freed blocks that held a secret, and of those that held a token.
    freed: [AtomicUsize; 2],
    live: Live,
}

thread_local! {
    /// Set in the server's threads, which the scanner ignores because they don't wipe secrets.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

#[global_allocator]
static SCANNER: Scanner = Scanner {
    is_on: AtomicBool::new(false),
    freed: [const { AtomicUsize::new(0) }; 2],
    live: Live { lock: AtomicBool::new(false), blocks: UnsafeCell::new([(0, 0); SLOTS]) },
};

// SAFETY: passes every call on to the system's allocator. `realloc` is the trait's default, which
// frees the old block through `dealloc`, so that block is scanned too.
unsafe impl GlobalAlloc for Scanner {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`.
        let block = unsafe { System.alloc(layout) };
        if !block.is_null() && self.is_watching() {
            // Overwrites the previous content, because it must not count as a copy.
            // SAFETY: the block is not null, so it has `layout.size()` bytes.
            unsafe { block.write_bytes(0xa5, layout.size()) };
            self.live.insert(block as usize, layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_on.load(SeqCst) {
            // Also in a server's thread, because it may free a block of another thread.
            self.live.remove(block as usize);
        }
        if self.is_watching() {
            // SAFETY: the block has `layout.size()` bytes, which `alloc` or the owner has
            // initialized. The owner no longer uses them.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            let found = [holds(bytes, SECRETS) || holds_store_key(bytes), holds(bytes, TOKENS)];
            for (count, is_found) in self.freed.iter().zip(found) {
                count.fetch_add(usize::from(is_found), SeqCst);
            }
        }
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

impl Scanner {
    fn is_watching(&self) -> bool {
        self.is_on.load(SeqCst) && !GUARDED.try_with(Cell::get).unwrap_or(true)
    }

    /// Runs `scene`. Returns the number of freed blocks with secrets and with tokens, and of live
    /// blocks with either.
    fn watch(&self, scene: impl FnOnce()) -> Found {
        self.live.clear();
        self.freed.iter().for_each(|count| count.store(0, SeqCst));
        self.is_on.store(true, SeqCst);
        scene();
        self.is_on.store(false, SeqCst);
        let [secrets, tokens] = self.freed.each_ref().map(|count| count.load(SeqCst));
        Found { secrets, tokens, live: self.live.count() }
    }
}

/// Waits until `expected` live blocks hold a secret or token, for 10 s at most. Returns their
/// number.
fn live_at_last(expected: usize) -> usize {
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let live = SCANNER.live.count();
        if live == expected || Instant::now() > patience {
            return live;
        }
        thread::yield_now();
    }
}

struct Found {
    secrets: usize,
    tokens: usize,
    live: usize,
}

const SLOTS: usize = 1 << 16;

/// The live blocks, by address. A spin lock protects them, because a `Mutex` might allocate.
struct Live {
    lock: AtomicBool,
    blocks: UnsafeCell<[(usize, usize); SLOTS]>,
}

// SAFETY: `with` lends `blocks` to one thread at a time.
unsafe impl Sync for Live {}

impl Live {
    fn with<T>(&self, run: impl FnOnce(&mut [(usize, usize); SLOTS]) -> T) -> T {
        while self.lock.swap(true, SeqCst) {
            std::hint::spin_loop();
        }
        // SAFETY: this thread holds the lock, and `run` cannot keep the reference.
        let result = run(unsafe { &mut *self.blocks.get() });
        self.lock.store(false, SeqCst);
        result
    }

    /// The slots to search for a block, in order. The search ends at an empty slot. A removed block
    /// leaves the address 1 behind.
    fn slots(block: usize) -> impl Iterator<Item = usize> {
        (0..SLOTS).map(move |i| (block / 16 + i) % SLOTS)
    }

    fn insert(&self, block: usize, size: usize) {
        self.with(|blocks| {
            let slot = Self::slots(block).find(|i| blocks[*i].0 <= 1);
            blocks[slot.expect("few blocks are live at once")] = (block, size);
        });
    }

    fn remove(&self, block: usize) {
        self.with(|blocks| {
            let mut used = Self::slots(block).take_while(|i| blocks[*i].0 != 0);
            if let Some(slot) = used.find(|i| blocks[*i].0 == block) {
                blocks[slot] = (1, 0);
            }
        });
    }

    fn clear(&self) {
        self.with(|blocks| blocks.fill((0, 0)));
    }

    fn count(&self) -> usize {
        self.with(|blocks| {
            let live = blocks.iter().filter(|(block, _)| *block > 1);
            // SAFETY: these blocks have not been freed, and every thread of the scene that could
            // free them has ended.
            let bytes = live.map(|(block, size)| unsafe {
                std::slice::from_raw_parts(*block as *const u8, *size)
            });
            let has_secret = |bytes: &&[u8]| {
                holds(bytes, SECRETS) || holds(bytes, TOKENS) || holds_store_key(bytes)
            };
            bytes.filter(has_secret).count()
        })
    }
}

/// A token endpoint, over TLS if it has a certificate. Each piece of an answer is written on its
/// own.
struct Endpoint {
    base_url: String,
    certificate: Option<Certificate<'static>>,
}

impl Endpoint {
    fn start(
        is_tls: bool,
        answer: impl Fn(usize, &str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let tls =
            is_tls.then(|| certificate(&CertificateParams::new(["127.0.0.1".to_owned()]).unwrap()));
        let (certificate, config) = tls.unzip();
        let server = Server::start(move |n, mut stream| {
            GUARDED.set(true);
            match &config {
                Some(config) => {
                    over_tls(stream, config, |stream| _ = serve(stream, n, &answer));
                }
                None if serve(&mut stream, n, &answer) => stall(stream),
                None => {}
            }
        });
        let scheme = if is_tls { "https" } else { "http" };
        Self { base_url: server.base_url.replace("http", scheme), certificate }
    }

    fn builder(&self) -> Builder {
        let certificate = self.certificate.clone();
        Authenticator::builder(Environment::Custom(self.base_url.clone())).retries(0).http(
            move |http| match certificate.clone() {
                Some(certificate) => {
                    http.tls_config(TlsConfig::builder().root_certs([certificate].into()).build())
                }
                None => http,
            },
        )
    }

    fn authenticator(&self) -> Authenticator {
        self.builder().build().unwrap()
    }
}

/// Serves one request. Returns whether the answer keeps the connection open.
fn serve(
    stream: &mut (impl Read + Write),
    n: usize,
    answer: impl Fn(usize, &str) -> Vec<String>,
) -> bool {
    let request = read_request(stream);
    let pieces = answer(n, &request);
    let stays_open = !pieces.concat().contains("Connection: close");
    for (i, piece) in pieces.into_iter().enumerate() {
        if i > 0 {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = stream.write_all(piece.as_bytes()).and_then(|()| stream.flush());
    }
    stays_open
}

fn client_credentials() -> Grant {
    Grant::client_credentials("id", CLIENT_SECRET)
}

fn password() -> Grant {
    Grant::password("id", CLIENT_SECRET, "jan", PASSWORD)
}

/// The number of unwiped blocks that a scene must or may leave.
#[derive(Clone, Copy)]
enum Rule {
    /// For controls: a scan that finds nothing here would find nothing elsewhere either.
    MustBeFreed,
    MustBeLive,
    AtMost {
        secrets: usize,
        tokens: usize,
        live: usize,
    },
}

const NOTHING: Rule = freed(0, 0);

const fn freed(secrets: usize, tokens: usize) -> Rule {
    Rule::AtMost { secrets, tokens, live: 0 }
}

/// The private texts in an unusable answer.
#[derive(Clone, Copy)]
enum Holds {
    Token,
    Echo,
    Both,
}

#[derive(Default)]
struct Runner {
    passed: usize,
    failed: usize,
}

impl Runner {
    fn scene(&mut self, name: &str, rule: Rule, scene: impl FnOnce()) {
        let Found { secrets, tokens, live } = SCANNER.watch(scene);
        let is_ok = match rule {
            Rule::MustBeFreed => secrets > 0 && tokens > 0,
            Rule::MustBeLive => live > 0,
            Rule::AtMost { secrets: s, tokens: t, live: l } => {
                secrets <= s && tokens <= t && live <= l
            }
        };
        let name = format!(
            "{name:<58} freed with secrets {secrets:>2}, with tokens {tokens:>2}; live {live:>2}"
        );
        self.verdict(&name, is_ok);
    }

    fn verdict(&mut self, name: &str, is_ok: bool) {
        println!("{name} ... {}", if is_ok { "ok" } else { "FAILED" });
        *(if is_ok { &mut self.passed } else { &mut self.failed }) += 1;
    }

    /// Calls `get_token` once with each grant. `Ok` expects a token, sent in this number of TLS
    /// records.
    fn calls(
        &mut self,
        name: &str,
        expected: Result<usize, Holds>,
        answer: impl Fn(usize, &str) -> Vec<String> + Send + Sync + Clone + 'static,
    ) {
        // rustls frees two copies of each record, and there are two calls.
        let tls = match expected {
            Ok(records) => freed(0, 4 * records),
            Err(Holds::Token) => freed(0, 4),
            Err(Holds::Echo) => freed(4, 0),
            Err(Holds::Both) => freed(4, 4),
        };
        for (scheme, is_tls, rule) in [("http", false, NOTHING), ("https", true, tls)] {
            let endpoint = Endpoint::start(is_tls, answer.clone());
            self.scene(&format!("{name}, {scheme}"), rule, || {
                let authenticator = endpoint.authenticator();
                for grant in [client_credentials(), password()] {
                    let outcome = authenticator.get_token(&grant);
                    assert_eq!(outcome.is_ok(), expected.is_ok(), "{outcome:?}");
                    drop(format!("{outcome:?} {authenticator:?} {grant:?}"));
                    if let Err(error) = outcome {
                        drop(error.to_string());
                    }
                }
            });
        }
    }
}

fn chunked(pieces: &[&str]) -> Vec<String> {
    let head = format!("HTTP/1.1 200 OK\r\nDate: {DATE}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunks = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
    std::iter::once(head).chain(chunks).chain(["0\r\n\r\n".to_owned()]).collect()
}

fn main() -> ExitCode {
    let mut run = Runner::default();
    controls(&mut run);
    answers(&mut run);
    unusable_answers(&mut run);
    lives_of_a_token(&mut run);
    requests(&mut run);
    api_calls(&mut run);
    #[cfg(feature = "store")]
    stores(&mut run);
    println!("{} passed, {} failed", run.passed, run.failed);
    if run.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn whole() -> Vec<String> {
    vec![token_answer(TOKEN, HOUR)]
}

fn controls(run: &mut Runner) {
    let endpoint = Endpoint::start(false, move |_, _| whole());
    run.scene("control: a plain agent", Rule::MustBeFreed, || {
        let agent = Agent::new_with_defaults();
        let body = format!(r#"{{"client_secret":"{CLIENT_SECRET}"}}"#);
        let mut answer = agent.post(&endpoint.base_url).send(&body).unwrap();
        drop(answer.body_mut().read_to_string().unwrap());
    });
    let kept = Cell::new(None);
    run.scene("control: a token that is kept", Rule::MustBeLive, || {
        kept.set(Some(endpoint.authenticator().get_token(&password()).unwrap()));
    });
    drop(kept);
}

fn answers(run: &mut Runner) {
    run.calls("both grants", Ok(1), move |_, _| whole());
    run.calls("a token with escapes", Ok(1), |_, _| {
        let escaped = TOKEN.replace('/', r"\/").replace('=', r"\u003d").replace('k', r"\u006b");
        vec![token_answer(&escaped, HOUR)]
    });
    run.calls("an answer in pieces", Ok(3), |_, _| {
        let text = token_answer(TOKEN, HOUR);
        text.as_bytes().chunks(50).map(|piece| str::from_utf8(piece).unwrap().to_owned()).collect()
    });
    run.calls("an answer in chunks", Ok(2), |_, _| {
        let body = token_body(TOKEN, HOUR);
        chunked(&[&body[..40], &body[40..70], &body[70..]])
    });
}

fn unusable_answers(run: &mut Runner) {
    run.calls("an error that echoes the whole request", Err(Holds::Echo), |_, request| {
        vec![answer("400 Bad Request", "", request)]
    });
    run.calls("an error that quotes the request in JSON", Err(Holds::Echo), |_, request| {
        let quoted = request.replace('\\', r"\\").replace('"', r#"\""#).replace("\r\n", r"\r\n");
        let body = format!(
            r#"{{"error":"{CLIENT_SECRET}","error_description":"{quoted}","message":"{quoted}"}}"#
        );
        vec![answer("401 Unauthorized", "", &body)]
    });
    run.calls("an error with half an escape before a secret", Err(Holds::Echo), |_, _| {
        vec![answer("400 Bad Request", "", &format!(r#""\q{CLIENT_SECRET}""#))]
    });
    run.calls("an unavailable endpoint that echoes", Err(Holds::Echo), |_, request| {
        vec![answer("503 Busy", "Retry-After: 60\r\n", request)]
    });
    run.calls("a success that echoes as a JSON string", Err(Holds::Both), |_, _| {
        vec![answer("200 OK", "", &format!(r#""\u0041 {CLIENT_SECRET} {TOKEN}""#))]
    });
    run.calls("a truncated body", Err(Holds::Token), |_, _| {
        let text = token_answer(TOKEN, HOUR);
        vec![text[..text.len() - 5].to_owned()]
    });
    run.calls("a redirect", Err(Holds::Echo), |_, request| {
        vec![answer("307 Temporary Redirect", "Location: http://127.0.0.1:1/\r\n", request)]
    });
    run.calls("an access_token of the wrong type", Err(Holds::Token), |_, _| {
        let body = token_body(TOKEN, HOUR)
            .replace(&format!("\"{TOKEN}\""), &format!(r#"["{TOKEN}","\u0041{TOKEN}"]"#));
        vec![answer("200 OK", "", &body)]
    });
    run.calls("an access_token as the name of a field", Err(Holds::Token), |_, _| {
        vec![answer(
            "200 OK",
            "",
            &format!(r#"{{"\u006b{}":1,"{TOKEN}":{{"{TOKEN}":2}}}}"#, &TOKEN[1..]),
        )]
    });
    run.calls("a token that had expired on arrival", Err(Holds::Token), |_, _| {
        vec![token_answer(TOKEN, HOUR).replace("31 Dec 2021", "31 Dec 2022")]
    });
}

fn lives_of_a_token(run: &mut Runner) {
    // The crate takes a second off, so the first token is valid for 0.2 s and renewed within that
    // time.
    let endpoint = Endpoint::start(false, |n, _| match n {
        0 => vec![token_answer(TOKEN, Duration::from_millis(1200))],
        _ => vec![token_answer(NEW_TOKEN, HOUR)],
    });
    run.scene("a renewal", NOTHING, || {
        let authenticator = endpoint.authenticator();
        wait_until(|| authenticator.get_token(&password()).unwrap().access_token() == NEW_TOKEN);
        drop(authenticator);
        // The renewal's thread ends a moment after it has published the new token.
        live_at_last(0);
    });
    let endpoint = Endpoint::start(false, move |_, _| whole());
    run.scene("an eviction", NOTHING, || {
        let authenticator = endpoint.builder().capacity(1).build().unwrap();
        for id in 0..20 {
            authenticator
                .get_token(&Grant::client_credentials(id.to_string(), CLIENT_SECRET))
                .unwrap();
        }
    });
    run.scene("invalidate and clear", NOTHING, || {
        let authenticator = endpoint.authenticator();
        let token = authenticator.get_token(&password()).unwrap();
        authenticator.invalidate(&password(), &token);
        authenticator.get_token(&password()).unwrap();
        authenticator.clear();
    });
    run.scene("a failure while others wait", NOTHING, || {
        let endpoint = Endpoint::start(false, |_, request| {
            thread::sleep(Duration::from_millis(100));
            vec![answer("400 Bad Request", "", request)]
        });
        let authenticator = endpoint.authenticator();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| authenticator.get_token(&password()).unwrap_err());
            }
        });
    });
    panic::set_hook(Box::new(|_| {}));
    run.scene("a leader that panics after the answer", NOTHING, || {
        let first = Arc::new(AtomicBool::new(true));
        let authenticator = endpoint
            .builder()
            .http(move |http| {
                let first = Arc::clone(&first);
                http.middleware(move |request: Request<SendBody>, next: MiddlewareNext| {
                    let answer = next.handle(request);
                    assert!(!first.swap(false, SeqCst), "in the middle of a token request");
                    answer
                })
            })
            .build()
            .unwrap();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            let get = || {
                barrier.wait();
                authenticator.get_token(&password())
            };
            let panics = [scope.spawn(get), scope.spawn(get)].map(|thread| thread.join().is_err());
            assert!(panics.contains(&true) && panics.contains(&false));
        });
    });
    drop(panic::take_hook());
    run.scene("dropping the Authenticator while a token is in use", NOTHING, || {
        let token = endpoint.authenticator().get_token(&password()).unwrap();
        assert_eq!(token.clone().access_token(), TOKEN);
    });
}

/// The request in ureq's buffers, while it waits for its answer and when it is never sent.
fn requests(run: &mut Runner) {
    let (asked, answers) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (Arc::clone(&asked), Arc::clone(&answers));
    let endpoint = Endpoint::start(false, move |_, _| {
        barriers.0.wait();
        barriers.1.wait();
        whole()
    });
    let mut live = 0;
    run.scene("a request that waits for its answer", NOTHING, || {
        let authenticator = endpoint.authenticator();
        thread::scope(|scope| {
            scope.spawn(|| authenticator.get_token(&client_credentials()).unwrap());
            asked.wait();
            // Waits, because the server may have read the request before the client wipes its send
            // buffer.
            live = live_at_last(2);
            answers.wait();
        });
    });
    run.verdict(&format!("  meanwhile: the credentials and the body, {live} live"), live == 2);

    run.scene("a request that is never sent", NOTHING, || {
        let authenticator =
            endpoint.builder().http(|http| http.timeout_send_body(Some(Duration::ZERO))).build();
        authenticator.unwrap().get_token(&password()).unwrap_err();
    });
}

fn api_calls(run: &mut Runner) {
    let file = std::env::temp_dir().join(format!("weseedo-auth-heap-{}", std::process::id()));
    std::fs::write(&file, format!("{CLIENT_SECRET}\n")).unwrap();
    let path = file.clone();
    api_call(run, "an API call whose connection is kept", || client_credentials().into());
    api_call(run, "an API call whose secret comes from a file", move || {
        let path = path.clone();
        GrantSource::new(move || Ok(Grant::client_credentials("id", Secret::from_file(&path)?)))
    });
    std::fs::remove_file(&file).unwrap();
}

fn api_call(run: &mut Runner, name: &str, source: impl Fn() -> GrantSource) {
    // Serves the token request and one API call. The API's answer echoes the request,
    // `Authorization` header included.
    let endpoint = Endpoint::start(false, |n, request| match n {
        0 => whole(),
        _ => vec![answer("200 OK", "", request).replace("Connection: close\r\n", "")],
    });
    // ureq frees one copy of the header's value unwiped, and the agent holds the grant's secret.
    let rule = Rule::AtMost { secrets: 0, tokens: 1, live: 1 };
    let kept = Cell::new(None);
    run.scene(name, rule, || {
        let authenticator = endpoint.authenticator();
        let agent = authenticator.agent(source());
        let mut answer = agent.get(format!("{}/api", endpoint.base_url)).call().unwrap();
        // Reads into memory that is wiped, because the crate doesn't wipe the caller's copies.
        let mut body = Zeroizing::new([0; 4096]);
        while answer.body_mut().as_reader().read(&mut *body).unwrap() > 0 {}
        drop(answer);
        authenticator.clear();
        kept.set(Some(agent));
    });
    drop(kept);
}

/// Tokens that are saved in a store or loaded from it.
#[cfg(feature = "store")]
fn stores(run: &mut Runner) {
    use std::fmt::Write as _;

    use crate::memory_store::MemoryStore;
    use crate::support::TOKEN_PATH;
    use ring::hkdf::{HKDF_SHA256, Salt};

    let endpoint = Endpoint::start(false, move |_, _| whole());
    let token_endpoint = format!("{}{TOKEN_PATH}", endpoint.base_url);
    let framed = |texts: &[&str]| {
        let frame = |text: &&str| [&(text.len() as u64).to_be_bytes(), text.as_bytes()].concat();
        texts.iter().flat_map(frame).collect::<Vec<_>>()
    };
    let info = framed(&[&token_endpoint, "password", "id", "jan"]);
    let mut name_and_key = [0; 64];
    Salt::new(HKDF_SHA256, b"weseedo-auth token store, format 2")
        .extract(&framed(&[CLIENT_SECRET, PASSWORD]))
        .expand(&[&info], Length(64))
        .and_then(|okm| okm.fill(&mut name_and_key))
        .unwrap();
    for (piece, bytes) in STORE_KEY.iter().zip(name_and_key[32..].as_chunks::<8>().0) {
        piece.store(u64::from_ne_bytes(*bytes), SeqCst);
    }

    run.scene("control: a key that is kept in memory", Rule::MustBeLive, || {
        std::mem::forget(name_and_key.to_vec());
    });
    let store = MemoryStore::default();
    let authenticator = || endpoint.builder().store(store.clone()).build().unwrap();
    run.scene("a token that is stored", NOTHING, || {
        authenticator().get_token(&password()).unwrap();
    });
    let (key, value) = store.value();
    let mut name = String::new();
    name_and_key[..32].iter().for_each(|byte| write!(name, "{byte:02x}").unwrap());
    assert_eq!(key, name, "the scenes look for the key that the crate derives");
    run.scene("a token from the store, refused", NOTHING, || {
        let authenticator = authenticator();
        let token = authenticator.get_token(&password()).unwrap();
        assert_eq!(token.access_token(), TOKEN);
        authenticator.invalidate(&password(), &token);
    });
    assert!(store.is_empty());
    run.scene("a stored value that does not open", NOTHING, || {
        let mut value = value.clone();
        value.sealed[30] ^= 1;
        store.put(&key, value);
        authenticator().get_token(&password()).unwrap();
    });
    run.scene("a store that fails", NOTHING, || {
        store.before(|call| if call == "save" { Err("no room".into()) } else { Ok(()) });
        store.clear();
        authenticator().get_token(&password()).unwrap();
    });
}

#[cfg(feature = "store")]
struct Length(usize);

#[cfg(feature = "store")]
impl ring::hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}
