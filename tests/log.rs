//! What the log holds, of this crate and of those below it.

#[path = "it/support.rs"]
#[expect(dead_code, reason = "most of it is for the other tests")]
mod support;

use std::mem;
use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};
use weseedo_auth::Grant;

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

static RECORDER: Recorder = Recorder(Mutex::new(Vec::new()));

impl Log for Recorder {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        let (target, text) = (record.target().to_owned(), record.args().to_string());
        self.0.lock().unwrap().push(Entry { level: record.level(), target, text });
    }

    fn flush(&self) {}
}

/// Everything that logs: both grants, a failure that echoes, a call of the API. Returns what was
/// logged.
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

/// The bytes that ureq-proto dumped in rows of 16: in hexadecimal, then as text. No secret can be
/// found in one row.
fn dumped(log: &[Entry]) -> String {
    let rows = log.iter().filter(|entry| entry.target.starts_with("ureq_proto"));
    rows.filter_map(|entry| entry.text.get(41..)).collect()
}

// One test, since there is one log.
#[test]
fn secrets_are_in_no_record_that_the_docs_do_not_name() {
    log::set_logger(&RECORDER).unwrap();

    let log = log_of_everything(LevelFilter::Debug);
    assert!(log.iter().any(|entry| entry.target.starts_with("weseedo_auth")));
    assert!(log.iter().any(|entry| entry.target.starts_with("ureq")));
    for secret in SECRETS {
        for entry in &log {
            assert!(!entry.text.contains(secret), "{}: {}", entry.target, entry.text);
        }
    }
    assert!(log.iter().all(|entry| entry.level > Level::Warn), "nothing to warn of");

    let log = log_of_everything(LevelFilter::Trace);
    let dump = dumped(&log);
    assert!(
        dump.contains(TOKEN),
        "the limit that the docs name, or a dump that this test no longer reads"
    );
    for secret in [CLIENT_SECRET, PASSWORD] {
        assert_eq!(
            dump.matches(secret).count(),
            1,
            "the endpoint's echo, and none of the requests"
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
