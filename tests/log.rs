//! The log of this crate and of the crates that it uses.

#[path = "it/support.rs"]
#[expect(dead_code, reason = "most of it is for the other tests")]
mod support;

#[cfg(any(feature = "rustls", feature = "native-tls"))]
use std::env;
use std::mem;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use weseedo_auth::{Authenticator, Grant, GrantSource};

use crate::support::{HOUR, Server, answer, token_answer};

const CLIENT_SECRET: &str = "Qm7vXz2LrT9wKd4HsYb6NcJf1GpAe8Ru3MtWo5Zi";
const PASSWORD: &str = "u3Hq8ZxTn5RbWc1VyKj7MfLd9SgPe2AoQi6XtNrB";
const USERNAME: &str = "jan.de.vries.1954";
const TOKEN: &str = "kV9bT3nQx7Zr5LmYc1Hs8WdgJf2PuXe6Ri4NaoBt";
const SECRETS: [&str; 4] = [CLIENT_SECRET, PASSWORD, USERNAME, TOKEN];

struct Entry {
    level: Level,
    target: String,
    text: String,
}

struct Recorder(Mutex<Vec<Entry>>);

/// While this is set, the logger requests a token for each record.
static ASKED: Mutex<Option<(Authenticator, Grant)>> = Mutex::new(None);
static OUTCOMES: Mutex<Vec<Result<(), String>>> = Mutex::new(Vec::new());

static RECORDER: Recorder = Recorder(Mutex::new(Vec::new()));

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        let (target, text) = (record.target().to_owned(), record.args().to_string());
        self.0.lock().unwrap().push(Entry { level: record.level(), target, text });
        let asked = ASKED.lock().unwrap().clone();
        if let Some((authenticator, grant)) = asked {
            let outcome = authenticator.get_token(&grant).map(drop);
            OUTCOMES.lock().unwrap().push(outcome.map_err(|error| error.to_string()));
        }
    }

    fn flush(&self) {}
}

/// Does everything that logs: both grants, an API call, a failure that echoes. Returns the log.
fn log_of_everything(level: LevelFilter) -> Vec<Entry> {
    log::set_max_level(level);
    let echo = format!(r#"{{"error_description":"{CLIENT_SECRET} {PASSWORD} {USERNAME}"}}"#);
    let server = Server::answering(move |n| match n {
        0 | 1 => token_answer(TOKEN, HOUR),
        2 => answer("200 OK", "", "[]"),
        3 => answer("400 Bad Request", "", &echo),
        _ => answer("503 Busy", "", &echo),
    });
    let authenticator = server.builder().build().unwrap();
    let grant = Grant::password("id", CLIENT_SECRET, USERNAME, PASSWORD);
    authenticator.get_token(&Grant::client_credentials("id", CLIENT_SECRET)).unwrap();
    authenticator.get_token(&grant).unwrap();
    authenticator.agent(grant.clone()).get(format!("{}/api", server.base_url)).call().unwrap();
    authenticator.clear();
    for _ in 0..2 {
        authenticator.get_token(&grant).unwrap_err();
    }
    mem::take(&mut RECORDER.0.lock().unwrap())
}

/// Joins the bytes that ureq-proto dumped, because a row has only 16 of them, too few to find a
/// secret. A row has them in hexadecimal and then as text.
fn dumped(log: &[Entry]) -> String {
    let rows = log.iter().filter(|entry| entry.target.starts_with("ureq_proto"));
    rows.filter_map(|entry| entry.text.get(41..)).collect()
}

/// Sets the logger, of which a process has only one. The tests that use it run one after another.
fn recording() -> MutexGuard<'static, ()> {
    static RECORDING: Mutex<()> = Mutex::new(());
    let guard = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = log::set_logger(&RECORDER);
    guard
}

#[test]
fn log_tells_the_story() {
    let _recording = recording();
    log::set_max_level(LevelFilter::Debug);
    let server = Server::answering(|n| match n {
        1 | 6 => token_answer("t", HOUR),
        _ => answer("503 Busy", "", ""),
    });
    let authenticator = server.builder().build().unwrap();
    let grant = Grant::client_credentials("id", CLIENT_SECRET);
    let token = authenticator.get_token(&grant).unwrap();
    authenticator.invalidate(&grant, &token);
    authenticator.clear();
    for _ in 0..2 {
        let _ = authenticator.get_token(&grant);
    }
    let source = GrantSource::new(|| Err("the vault is closed".into()));
    authenticator.bearer(source).token().unwrap_err();

    let log = mem::take(&mut *RECORDER.0.lock().unwrap());
    let story = log.iter().filter(|entry| entry.target == "weseedo_auth").map(|entry| {
        let text = entry.text.trim_start_matches("client \"id\": ");
        let words: Vec<_> = text.split_whitespace().take(3).collect();
        format!("{} {}", entry.level, words.join(" "))
    });
    let expected = [
        "DEBUG requesting a token",
        "DEBUG asking again in",
        "DEBUG requesting a token",
        "DEBUG obtained a token",
        "WARN the API refused",
        "DEBUG requesting a token",
        "DEBUG asking again in",
        "DEBUG requesting a token",
        "DEBUG asking again in",
        "DEBUG requesting a token",
        "DEBUG requesting a token",
        "DEBUG asking again in",
        "DEBUG requesting a token",
        "DEBUG obtained a token",
        "INFO tokens can be",
        "WARN the grant source",
    ];
    assert_eq!(story.collect::<Vec<_>>(), expected);
}

#[test]
fn secrets_are_logged_only_where_the_docs_say_so() {
    let _recording = recording();

    let log = log_of_everything(LevelFilter::Debug);
    assert!(log.iter().any(|entry| entry.target.starts_with("weseedo_auth")));
    assert!(log.iter().any(|entry| entry.target.starts_with("ureq")));
    for secret in SECRETS {
        for entry in &log {
            assert!(!entry.text.contains(secret), "{}: {}", entry.target, entry.text);
        }
    }
    assert!(log.iter().all(|entry| entry.level > Level::Warn), "no warning was logged");

    let log = log_of_everything(LevelFilter::Trace);
    let dump = dumped(&log);
    assert!(
        dump.contains(TOKEN),
        "the docs say that ureq-proto logs tokens, or this test can no longer read its dump"
    );
    for secret in [CLIENT_SECRET, PASSWORD] {
        assert_eq!(
            dump.matches(secret).count(),
            4,
            "the dump has the endpoint's four echoes and no request"
        );
    }
    for entry in log.iter().filter(|entry| !entry.target.starts_with("ureq_proto")) {
        for secret in SECRETS {
            assert!(!entry.text.contains(secret), "{}: {}", entry.target, entry.text);
        }
    }
    let warnings: Vec<_> = (0..log.len()).filter(|i| log[*i].level <= Level::Warn).collect();
    assert_eq!(warnings.len(), 1);
    assert!(log[warnings[0]].text.contains("ureq_proto=debug"));
    let first_of_ureq = log.iter().position(|entry| entry.target.starts_with("ureq"));
    assert!(first_of_ureq.unwrap() > warnings[0]);
}

/// Runs each case in a child process, which has its environment variables and prints its warnings.
#[test]
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn probable_mistakes_are_logged_once() {
    const CHILD: &str = "WESEEDO_AUTH_UNVERIFIED";
    const PROXIES: [&str; 8] = [
        "ALL_PROXY",
        "all_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "NO_PROXY",
        "no_proxy",
    ];
    if let Ok(is_unverified) = env::var(CHILD) {
        log::set_logger(&RECORDER).unwrap();
        log::set_max_level(LevelFilter::Warn);
        let environment = weseedo_auth::Environment::Sandbox;
        let authenticator = weseedo_auth::Authenticator::builder(environment).http(move |http| {
            let tls = weseedo_auth::ureq::tls::TlsConfig::builder();
            #[cfg(not(feature = "rustls"))]
            let tls = tls.provider(weseedo_auth::ureq::tls::TlsProvider::NativeTls);
            http.tls_config(tls.disable_verification(is_unverified == "yes").build())
        });
        let authenticator = authenticator.build().unwrap();
        for _ in 0..3 {
            drop(authenticator.agent(Grant::client_credentials("id", "s3cr3t")));
        }
        for entry in mem::take(&mut *RECORDER.0.lock().unwrap()) {
            println!("warning: {}", entry.text);
        }
        return;
    }
    let socks = "socks5://jan:hunter2@127.0.0.1:1080";
    let socks_warning = if cfg!(feature = "socks-proxy") {
        vec![]
    } else {
        vec!["ALL_PROXY is not used: SOCKS needs the feature socks-proxy of weseedo-auth"]
    };
    let useless = |entry: &str| -> &str {
        format!(
            "NO_PROXY: the entry {entry:?} matches no host: an entry is a host, .domain or \
             *.domain, without white space, port or network"
        )
        .leak()
    };
    let malformed = "is not used: it is no proxy's URL, such as http://proxy.example:3128";
    for (variables, is_unverified, warnings) in [
        (vec![], "no", vec![]),
        (
            vec![],
            "yes",
            vec!["certificates are not verified: any server that answers gets the credentials"],
        ),
        (vec![("ALL_PROXY", socks), ("https_proxy", "http://127.0.0.1:1")], "no", socks_warning),
        (vec![("https_proxy", "http://127.0.0.1:1"), ("HTTP_PROXY", ":")], "no", vec![]),
        (
            vec![("https_proxy", "http://127.0.0.1:1"), ("NO_PROXY", "a,*.b,.c,[::1], d,e:1,f/8")],
            "no",
            [" d", "e:1", "f/8"].map(useless).to_vec(),
        ),
        (vec![("NO_PROXY", " d")], "no", vec![]),
        (
            vec![("ALL_PROXY", "jan:hunter2@"), ("HTTPS_PROXY", "")],
            "no",
            vec![&*format!("ALL_PROXY {malformed}")],
        ),
    ] {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", "probable_mistakes_are_logged_once", "--nocapture"]);
        for name in PROXIES {
            child.env_remove(name);
        }
        let output = child.envs(variables.clone()).env(CHILD, is_unverified).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let logged: Vec<_> =
            text.lines().filter_map(|line| line.split_once("warning: ")).map(|p| p.1).collect();
        assert!(output.status.success(), "{text}");
        assert_eq!(logged, warnings, "{variables:?}");
    }
}

/// ureq logs in the thread of a look-up, too.
#[test]
fn logger_that_requests_the_token_being_fetched_gets_an_error_at_once() {
    let _recording = recording();
    log::set_max_level(LevelFilter::Debug);
    let server = Server::answering(|_| token_answer("t", HOUR));
    let authenticator = server.builder().build().unwrap();
    let grant = Grant::client_credentials("id", CLIENT_SECRET);
    *ASKED.lock().unwrap() = Some((authenticator.clone(), grant.clone()));
    authenticator.get_token(&grant).unwrap();
    ASKED.lock().unwrap().take();
    let outcomes = mem::take(&mut *OUTCOMES.lock().unwrap());
    let own = "logger or middleware: must not ask for the token that it is fetching";
    assert!(outcomes.iter().all(|outcome| !outcome.as_ref().is_err_and(|error| error != own)));
    let errors = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!(errors >= 2, "of this crate's record and of ureq's: {outcomes:?}");
    mem::take(&mut *RECORDER.0.lock().unwrap());
}
