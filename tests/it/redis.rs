//! One token for a fleet: the store of the example `redis_store`, with a real Redis server.

#[path = "../../examples/redis_store.rs"]
#[expect(dead_code, reason = "some of it is used by its `main` only")]
mod redis_store;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use rcgen::{CertificateParams, KeyPair};
use redis::FromRedisValue;
use weseedo_auth::{Authenticator, Builder, Environment, Event, Grant, TokenStore};

use crate::contract;
use crate::examples::set_variables;
use crate::support::{Directory, HOUR, Server, grant, pem, token_answer, wait_until};
use redis_store::RedisStore;
use redis_store::redis_server::{RedisServer, start_on};

const SECOND: Duration = Duration::from_secs(1);
/// The longest time that a call takes beside a stalled server, because one call to the store times
/// out after 1 s. Well below the call's own timeout of 10 s.
const LONGEST: Duration = Duration::from_millis(2500);

impl RedisServer {
    fn store(&self) -> RedisStore {
        RedisStore::new(&self.url()).unwrap()
    }

    /// Sends a command to the server directly, and returns the answer.
    #[track_caller]
    fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        let mut connection = redis::Client::open(self.url()).unwrap().get_connection().unwrap();
        command.query(&mut connection).unwrap()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn restart(&mut self) {
        self.process = start_on(self.port).unwrap();
    }

    fn stall(&self) {
        stall(self.process.id());
    }
}

/// Stops a process, which does nothing from then on but keeps its connections open.
fn stall(process: u32) {
    let status = Command::new("kill").arg("-STOP").arg(process.to_string()).status();
    assert!(status.unwrap().success());
}

/// Starts a Redis server for one test. If redis-server is not installed, prints a note once and
/// returns `None`.
pub fn redis() -> Option<RedisServer> {
    static REPORTED: Once = Once::new();
    match RedisServer::start() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Bypasses the test harness, because it hides the output of tests that pass.
            REPORTED.call_once(|| {
                let note = "NOT RUN: the tests with Redis, because redis-server is not installed";
                let _ = writeln!(io::stderr(), "{note}");
            });
            None
        }
        redis => Some(redis.unwrap()),
    }
}

/// Returns a server that answers the `n`th request, counted from 0, with the token `t{n}`.
fn server() -> Server {
    Server::answering(|n| token_answer(&format!("t{n}"), HOUR))
}

#[track_caller]
fn get(authenticator: &Authenticator) -> String {
    authenticator.get_token(&grant()).unwrap().access_token().to_owned()
}

/// Returns the token of another process, which shares only the store.
#[track_caller]
fn another(server: &Server, store: &RedisStore) -> String {
    get(&server.builder().store(store.clone()).build().unwrap())
}

/// Returns an authenticator, and the list of the store failures that it reports.
fn recorded(builder: Builder, store: RedisStore) -> (Authenticator, Arc<Mutex<Vec<String>>>) {
    let failures = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&failures);
    let builder = builder.store(store).on_event(move |event| {
        if let Event::StoreFailed { error, .. } = event {
            reported.lock().unwrap().push(error.to_string());
        }
    });
    (builder.build().unwrap(), failures)
}

const URL: &str = "WESEEDO_AUTH_TEST_REDIS_URL";
const BASE_URL: &str = "WESEEDO_AUTH_TEST_BASE_URL";
const TIMEOUT: &str = "WESEEDO_AUTH_TEST_TIMEOUT";

/// Returns a command that gets a token: this program, running one test that calls [`is_spawned`].
fn process(url: &str, server: &Server, timeout: Duration) -> Command {
    let timeout = timeout.as_millis().to_string();
    let variables = [(URL, url), (BASE_URL, &server.base_url), (TIMEOUT, &timeout)];
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "redis::processes_that_start_together_make_one_request"]);
    set_variables(&mut command, &variables).stdout(Stdio::null());
    command
}

/// Gets a token and returns true if [`process`] has started this process.
fn is_spawned() -> bool {
    let Ok(url) = env::var(URL) else { return false };
    let environment = Environment::Custom(env::var(BASE_URL).unwrap());
    let timeout = Duration::from_millis(env::var(TIMEOUT).unwrap().parse().unwrap());
    let builder = Authenticator::builder(environment).timeout(timeout);
    let store = RedisStore::new(&url).unwrap();
    get(&builder.store(store).build().unwrap());
    true
}

#[test]
fn processes_that_start_together_make_one_request() {
    if is_spawned() {
        return;
    }
    let Some(redis) = redis() else { return };
    let server = Server::answering(|n| {
        thread::sleep(Duration::from_millis(200));
        token_answer(&format!("t{n}"), HOUR)
    });
    let children: Vec<_> =
        (0..16).map(|_| process(&redis.url(), &server, SECOND * 10).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(server.connections(), 1);
    assert_eq!(another(&server, &redis.store()), "t0");
}

#[test]
fn contract_is_kept() {
    let Some(redis) = redis() else { return };
    contract::check(&redis.store());
    contract::check_that_leases_end(&redis.store());
    assert_eq!(redis.ask::<usize>("DBSIZE"), 0);
}

#[test]
fn value_expires_with_its_token() {
    let Some(redis) = redis() else { return };
    let store = redis.store();
    store.save("key", b"value", Duration::from_millis(100)).unwrap();
    wait_until(|| store.load("key").unwrap().is_none());
    assert_eq!(redis.ask::<usize>("DBSIZE"), 0);

    store.save("key", b"value", Duration::from_nanos(1)).unwrap();
    store.save("key", b"value", SECOND * 100).unwrap();
    let remaining = store.load("key").unwrap().unwrap().remaining.unwrap();
    assert!(remaining <= SECOND * 100 && remaining > SECOND * 50, "{remaining:?}");
    assert!(redis.ask::<bool>("PERSIST weseedo-auth:key"));
    assert_eq!(store.load("key").unwrap().unwrap().remaining, None);
}

#[test]
fn server_that_is_killed_and_restarted_under_load_fails_no_call() {
    let Some(mut redis) = redis() else { return };
    let (server, store) = (server(), redis.store());
    let (calls, is_done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let start = Instant::now();
    let wait_for_calls = |more| {
        let before = calls.load(Ordering::SeqCst);
        wait_until(|| calls.load(Ordering::SeqCst) >= before + more);
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_done.load(Ordering::SeqCst) && start.elapsed() < SECOND * 60 {
                    another(&server, &store);
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_for_calls(100);
        assert_eq!(server.connections(), 1);
        redis.kill();
        wait_for_calls(100);
        assert!(server.connections() > 50, "processes ask the endpoint while Redis is down");
        redis.restart();
        wait_until(|| {
            let before = server.connections();
            wait_for_calls(50);
            server.connections() == before
        });
        is_done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn kept_connection_that_was_closed_is_replaced() {
    let Some(mut redis) = redis() else { return };
    let store = redis.store();
    store.save("key", b"value", HOUR).unwrap();
    redis.kill();
    assert!(store.load("key").is_err());
    redis.restart();
    store.save("key", b"value", HOUR).unwrap();
    redis.kill();
    redis.restart();
    assert!(store.load("key").unwrap().is_none());
}

#[test]
fn stalled_server_delays_one_call_briefly_and_none_after_it() {
    let Some(redis) = redis() else { return };
    let server = server();
    let used = redis.store();
    used.load("key").unwrap();
    redis.stall();
    for store in [used, redis.store()] {
        let (authenticator, failures) = recorded(server.builder(), store);
        let start = Instant::now();
        get(&authenticator);
        assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
        let start = Instant::now();
        for _ in 0..20 {
            authenticator.forget(&grant());
            get(&authenticator);
        }
        // Each call would take 1 s if it asked the store.
        assert!(start.elapsed() < SECOND * 10, "{:?}", start.elapsed());
        assert_eq!(failures.lock().unwrap().len(), 1);
    }
}

#[test]
fn stalled_server_delays_simultaneous_calls_no_longer_than_one() {
    let Some(redis) = redis() else { return };
    let server = server();
    let authenticator = server.builder().store(redis.store()).build().unwrap();
    get(&authenticator);
    redis.stall();
    thread::scope(|scope| {
        for n in 0..16 {
            let authenticator = &authenticator;
            scope.spawn(move || {
                let start = Instant::now();
                let grant = Grant::client_credentials(n.to_string(), "s3cr3t");
                authenticator.get_token(&grant).unwrap();
                assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
            });
        }
    });
}

#[test]
fn server_that_stalls_during_a_fetch_delays_the_call_briefly() {
    let Some(redis) = redis() else { return };
    let process = redis.process.id();
    let server = Server::answering(move |n| {
        stall(process);
        token_answer(&format!("t{n}"), HOUR)
    });
    let (authenticator, failures) = recorded(server.builder(), redis.store());
    let start = Instant::now();
    assert_eq!(get(&authenticator), "t0");
    assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    assert_eq!(failures.lock().unwrap().len(), 1);
}

#[test]
fn each_call_to_a_stalled_server_takes_a_second_at_most() {
    let Some(redis) = redis() else { return };
    let (store, others) = (redis.store(), redis.store());
    let lease = RefCell::new(others.lease("lease", HOUR).unwrap());
    store.load("key").unwrap();
    redis.stall();
    let calls: [&dyn Fn(); 5] = [
        &|| assert!(store.load("key").is_err()),
        &|| assert!(store.save("key", b"value", HOUR).is_err()),
        &|| assert!(store.remove("key", b"value").is_err()),
        &|| assert!(store.lease("key", HOUR).is_err()),
        &|| drop(lease.replace(None)),
    ];
    for call in calls {
        let start = Instant::now();
        call();
        assert!(start.elapsed() < SECOND * 3 / 2, "{:?}", start.elapsed());
    }
}

#[test]
fn connection_that_failed_is_closed_and_not_used_again() {
    let closed = Arc::new(AtomicUsize::new(0));
    let closed_by_client = Arc::clone(&closed);
    // The first connection stops answering after three commands: the two that open it and one more.
    let server = Server::start(move |n, mut stream| {
        let (mut block, mut answers) = ([0; 512], 0);
        while let Ok(length @ 1..) = stream.read(&mut block) {
            for _ in block[..length].iter().filter(|byte| **byte == b'*') {
                answers += 1;
                if n > 0 || answers <= 3 {
                    stream.write_all(b"+OK\r\n").unwrap();
                }
            }
        }
        closed_by_client.fetch_add(1, Ordering::SeqCst);
    });
    let store = RedisStore::new(&server.base_url.replace("http", "redis")).unwrap();
    let save = || store.save("key", b"value", HOUR);
    save().unwrap();
    assert!(save().is_err());
    wait_until(|| closed.load(Ordering::SeqCst) == 1);
    save().unwrap();
    save().unwrap();
    assert_eq!(server.connections(), 2);
}

#[test]
fn evicted_token_is_fetched_again_by_a_process_without_one() {
    let Some(redis) = redis() else { return };
    let (server, store) = (server(), redis.store());
    let authenticator = server.builder().store(store.clone()).build().unwrap();
    assert_eq!(get(&authenticator), "t0");
    redis.ask::<()>("CONFIG SET maxmemory-policy volatile-lru maxmemory 1");
    wait_until(|| redis.ask::<usize>("DBSIZE") == 0);
    redis.ask::<()>("CONFIG SET maxmemory 0");
    assert_eq!(another(&server, &store), "t1");
    assert_eq!(get(&authenticator), "t0");
    assert_eq!(another(&server, &store), "t1");
    assert_eq!(server.connections(), 2);
}

#[test]
fn full_server_fails_no_call() {
    let Some(redis) = redis() else { return };
    let server = server();
    redis.ask::<()>("CONFIG SET maxmemory 1");
    let (authenticator, failures) = recorded(server.builder(), redis.store());
    assert_eq!(get(&authenticator), "t0");
    let failures = failures.lock().unwrap();
    assert!(failures.len() == 1 && failures[0].contains("maxmemory"), "{failures:?}");
}

/// Kills a process that holds the lease and waits for the endpoint. Returns how long a call with
/// `timeout` takes after that.
#[track_caller]
fn delay_by_a_killed_holder(
    redis: &RedisServer,
    holders_timeout: Duration,
    timeout: Duration,
) -> Duration {
    let server = Server::stalling(|n| n == 0, token_answer("t", HOUR));
    let mut holder = process(&redis.url(), &server, holders_timeout).spawn().unwrap();
    wait_until(|| server.connections() == 1);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let builder = server.builder().timeout(timeout).store(redis.store());
    let start = Instant::now();
    assert_eq!(get(&builder.build().unwrap()), "t");
    start.elapsed()
}

#[test]
fn lease_of_a_killed_process_delays_the_others_by_half_of_their_timeout_at_most() {
    let Some(redis) = redis() else { return };
    let delay = delay_by_a_killed_holder(&redis, SECOND * 60, SECOND * 4);
    assert!(delay > SECOND && delay < SECOND * 3, "{delay:?}");
    assert_eq!(redis.ask::<usize>("DBSIZE"), 2, "a token and the lease");
}

#[test]
fn lease_of_a_killed_process_expires() {
    let Some(redis) = redis() else { return };
    let delay = delay_by_a_killed_holder(&redis, SECOND * 2, SECOND * 60);
    assert!(delay < SECOND * 3, "{delay:?}");
}

#[test]
fn password_and_tls_come_from_the_url() {
    let Some(redis) = redis() else { return };
    let directory = Directory::new();
    fs::create_dir(&directory.0).unwrap();
    let (key, certificate) = (KeyPair::generate().unwrap(), directory.0.join("certificate"));
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let der = params.self_signed(&key).unwrap();
    fs::write(&certificate, pem("CERTIFICATE", der.der())).unwrap();
    fs::write(directory.0.join("key"), pem("PRIVATE KEY", &key.serialize_der())).unwrap();
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    // Paths are relative to the server's working directory, the one for temporary files.
    let name = directory.0.file_name().unwrap().to_str().unwrap();
    redis.ask::<()>(&format!(
        "CONFIG SET tls-auth-clients no tls-cert-file {name}/certificate \
         tls-key-file {name}/key tls-port {port} requirepass s3cr3t"
    ));

    let (server, url) = (server(), format!("rediss://:s3cr3t@127.0.0.1:{port}"));
    let mut process = process(&url, &server, SECOND * 10);
    assert!(process.env("SSL_CERT_FILE", &certificate).status().unwrap().success());
    let store = RedisStore::new(&redis.url().replace("//", "//:s3cr3t@")).unwrap();
    assert_eq!(another(&server, &store), "t0");
    assert_eq!(server.connections(), 1);
    let error = RedisStore::new(&url).unwrap().load("key").unwrap_err();
    assert!(
        error.to_string().contains("certificate"),
        "only the other process trusts the certificate: {error}"
    );
}

#[test]
fn error_for_a_wrong_password_does_not_show_it() {
    let Some(redis) = redis() else { return };
    redis.ask::<()>("CONFIG SET requirepass s3cr3t");
    let server = server();
    let url = redis.url().replace("//", "//:wr0ng@");
    let (authenticator, failures) = recorded(server.builder(), RedisStore::new(&url).unwrap());
    assert_eq!(get(&authenticator), "t0");
    let failures = failures.lock().unwrap();
    assert_eq!(failures.len(), 1);
    assert!(
        !failures[0].contains("wr0ng") && failures[0].contains("uthentication"),
        "{failures:?}"
    );
    let error = RedisStore::new("redis://:wr0ng@:x").err().unwrap();
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
}
