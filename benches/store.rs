//! Measures the cost of sharing a token through a store, and the token requests that sharing saves.
//!
//! Run `cargo bench --features store --bench store`, with `-- --quick` for a fast look.
//! `measure/mod.rs` says how to read the figures, and `fleet/mod.rs` describes the simulation.

// The simulation compiles the crate's own files, so that it decides as the crate does.
#[path = "../src/clock.rs"]
#[expect(dead_code, reason = "some of it is for the rest of the crate")]
mod clock;
mod fleet;
#[path = "../src/jitter.rs"]
#[expect(dead_code, unused_imports, reason = "some of it is for the rest of the crate")]
mod jitter;
mod measure;
#[path = "../tests/it/memory_store.rs"]
#[expect(dead_code, reason = "most of it is for the tests")]
mod memory_store;
#[path = "../src/store/policy.rs"]
#[expect(dead_code, reason = "some of it is used by its tests only")]
mod policy;
#[path = "../tests/it/support.rs"]
#[expect(dead_code, reason = "most of it is for the tests")]
mod support;

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use weseedo_auth::ureq::tls::{Certificate, TlsConfig};
use weseedo_auth::{Authenticator, Environment, FileStore, Grant, TokenStore};

use crate::fleet::{Cost, Deaths};
use crate::measure::{Bench, print, section, time};
use crate::memory_store::MemoryStore;
use crate::support::{Directory, HOUR, Server, token_answer};

fn main() {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [AS_PROCESS] => return,
        [AS_PROCESS, base_url, certificate, directory @ ..] => {
            return be_process(base_url, certificate, directory.first().copied());
        }
        _ => {}
    }
    let bench = Bench::from_args();
    bench.starts();
    bench.files();
    bench.opening();
    fleets();
}

impl Bench {
    fn starts(&self) {
        section("start of a process that needs a token; floor: it fetches one over loopback https");
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let (trusted, config) = support::certificate(&params);
        let server = Server::start(move |_, stream| {
            support::answer_over_tls(stream, &config, |_| token_answer(TOKEN, HOUR));
        });
        let base_url = server.base_url.replace("http:", "https:");
        let directory = Directory::new();
        let (certificate, tokens) = (directory.0.join("certificate"), directory.0.join("tokens"));
        fs::create_dir(&directory.0).unwrap();
        fs::write(&certificate, trusted.der()).unwrap();
        let find = || time(1, || start(&[base_url.as_ref(), &certificate, &tokens]));
        let fetch = || time(1, || start(&[base_url.as_ref(), &certificate]));
        // The first process saves its token for the others.
        find();
        let before = server.connections();
        find();
        assert_eq!(server.connections(), before, "the second process finds the token");
        let (ours, floor) = self.by_turns(find, fetch);
        print("it finds one in a file", &ours, &floor);
        let (ours, floor) = self.by_turns(|| time(1, || start(&[])), fetch);
        print("it needs none, and ends", &ours, &floor);
    }

    fn files(&self) {
        section("FileStore; floor: fs::read, and fs::write and fs::rename");
        let (directory, calls) = (Directory::new(), self.calls / 100);
        let store = FileStore::new(&directory.0);
        let (key, other) = ("0f".repeat(32), directory.0.join("other"));
        let (path, temporary) = (directory.0.join(&key), other.with_extension("tmp"));
        let sealed = Shared::new().store.value().1.sealed;
        store.save(&key, &sealed, HOUR).unwrap();
        let (loads, reads) = self.by_turns(
            || time(calls, || _ = black_box(store.load(&key).unwrap().unwrap())),
            || time(calls, || _ = black_box(fs::read(&path).unwrap())),
        );
        print("load", &loads, &reads);
        let write = || {
            fs::write(&temporary, &sealed).unwrap();
            fs::rename(&temporary, &other).unwrap();
        };
        let (saves, writes) = self.by_turns(
            || time(calls, || store.save(&key, &sealed, HOUR).unwrap()),
            || time(calls, write),
        );
        print("save", &saves, &writes);
    }

    fn opening(&self) {
        section("open; floor: HKDF-SHA256 and ChaCha20-Poly1305 with bare ring");
        let (shared, calls) = (Shared::new(), self.calls / 10);
        let value = sealed(shared.store.value().1.sealed.len());
        let before = shared.server.connections();
        let (misses, floors) = self.by_turns(
            || {
                let took = time(calls, || shared.miss());
                // Clears the list of calls that the store keeps.
                shared.store.calls();
                took
            },
            || time(calls, || open(&value)),
        );
        assert_eq!(shared.server.connections(), before, "the store answers each miss");
        print("miss that a store in memory answers", &misses, &floors);
    }
}

fn fleets() {
    println!("\n10,000 processes with one grant and tokens of an hour, in simulated time");
    Cost::print_head();
    for (name, has_store, deaths) in [
        ("with a store", true, Deaths::None),
        ("  killed and started again by chance", true, Deaths::ByChance),
        ("  and half of the holders while they fetch", true, Deaths::OfHolders),
        ("without", false, Deaths::None),
        ("  killed and started again by chance", false, Deaths::ByChance),
    ] {
        fleet::run(has_store, deaths).print(name);
    }
}

/// The argument with which the bench starts itself as a process to be measured.
const AS_PROCESS: &str = "--as-process";

/// Runs a process from its start to its end.
fn start(args: &[&Path]) {
    let mut command = Command::new(env::current_exe().unwrap());
    let status = command.arg(AS_PROCESS).args(args).stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
}

/// Gets a token as a program does that cron starts, from a store if `directory` is given.
fn be_process(base_url: &str, certificate: &str, directory: Option<&str>) {
    let trusted = Certificate::from_der(&fs::read(certificate).unwrap()).to_owned();
    let tls = TlsConfig::builder().root_certs([trusted].into()).build();
    let mut builder = Authenticator::builder(Environment::Custom(base_url.to_owned()))
        .http(move |http| http.tls_config(tls.clone()));
    if let Some(directory) = directory {
        builder = builder.store(FileStore::new(directory));
    }
    black_box(builder.build().unwrap().get_token(&grant()).unwrap());
}

/// An authenticator whose token is in a store in memory.
struct Shared {
    server: Server,
    store: MemoryStore,
    authenticator: Authenticator,
    grant: Grant,
}

impl Shared {
    fn new() -> Self {
        let (server, store) =
            (Server::answering(|_| token_answer(TOKEN, HOUR)), MemoryStore::default());
        let authenticator = server.builder().store(store.clone()).build().unwrap();
        let shared = Self { server, store, authenticator, grant: grant() };
        shared.miss();
        shared
    }

    fn miss(&self) {
        black_box(self.authenticator.get_token(&self.grant).unwrap());
        self.authenticator.forget(&self.grant);
    }
}

/// Returns a value of `length` bytes that [`open`] can open.
fn sealed(length: usize) -> Vec<u8> {
    let mut value = vec![0; length - CHACHA20_POLY1305.tag_len()];
    let (name_and_key, key) = name_and_key();
    let aad = Aad::from(&name_and_key[..32]);
    let (nonce, text) = value.split_first_chunk_mut().unwrap();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let tag = key.seal_in_place_separate_tag(nonce, aad, text).unwrap();
    value.extend(tag.as_ref());
    value
}

/// The least work that opens a stored token.
fn open(value: &[u8]) {
    let (name_and_key, key) = name_and_key();
    let (nonce, text) = value.split_first_chunk::<NONCE_LEN>().unwrap();
    let (nonce, mut text) = (Nonce::assume_unique_for_key(*nonce), text.to_vec());
    black_box(key.open_in_place(nonce, Aad::from(&name_and_key[..32]), &mut text).unwrap());
}

fn name_and_key() -> ([u8; 64], LessSafeKey) {
    struct Both;

    impl KeyType for Both {
        fn len(&self) -> usize {
            64
        }
    }

    let mut both = [0; 64];
    let prk = Salt::new(HKDF_SHA256, b"salt").extract(black_box(SECRET.as_bytes()));
    prk.expand(&[ID.as_bytes()], Both).unwrap().fill(&mut both).unwrap();
    let key = UnboundKey::new(&CHACHA20_POLY1305, &both[32..]).unwrap();
    (both, LessSafeKey::new(key))
}

const ID: &str = "b1946ac9-2492-4d23-9c8f-5a1f0c3e7d42";
const SECRET: &str = "8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d";
const TOKEN: &str = "d33f00d1e59b4c0f9e2b7a61c5d8e3f04a97b26c1d5e8f307b94a6c2e1d0f59b";

fn grant() -> Grant {
    Grant::client_credentials(ID, SECRET)
}
