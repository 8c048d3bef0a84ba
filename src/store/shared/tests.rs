//! Processes that share a token through a store, each with a clock of its own.

use std::mem;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ureq::SendBody;
use ureq::http::Request;
use ureq::middleware::MiddlewareNext;

use super::*;
use crate::authenticator::Authenticator;
use crate::builder::Builder;
use crate::clock::tests::TestClock;
use crate::event::Event;
use crate::memory_store::MemoryStore;
use crate::store::Stored;
use crate::support::{Gate, Server, answer, token_answer, token_for_an_hour, wait_until};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

struct World {
    /// Answers the `n`th request, from 0 on, with the token `t{n}` for an hour.
    server: Server,
    store: MemoryStore,
    start: Moment,
}

struct Process {
    authenticator: Authenticator,
    grant: Grant,
    clock: TestClock,
    reported: Arc<Mutex<Vec<String>>>,
}

impl World {
    fn new() -> Self {
        Self::answering(|n| token_for_an_hour(&format!("t{n}")))
    }

    fn answering(answer: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        Self {
            server: Server::answering(answer),
            store: MemoryStore::default(),
            start: Moment::now(),
        }
    }

    /// A process in which the caller renews.
    fn process(&self) -> Process {
        self.process_with(|builder| builder)
    }

    fn process_with(&self, set: impl FnOnce(Builder) -> Builder) -> Process {
        let reported = Arc::new(Mutex::new(Vec::new()));
        let events = Arc::clone(&reported);
        let builder = self.server.builder().retries(0).timeout(MINUTE);
        let builder = builder.renew_before(MINUTE * 5).renew_in_background(false);
        let builder = builder.store(self.store.clone()).on_event(move |event| {
            events.lock().unwrap().push(match event {
                Event::Obtained { renewal, from_store, .. } => {
                    let from = if *from_store { "store" } else { "endpoint" };
                    format!("{} from {from}", if *renewal { "renewed" } else { "fetched" })
                }
                Event::StoreFailed { error, .. } => format!("store failed: {error}"),
                Event::Failed { .. } => "failed".to_owned(),
                Event::TokenRefused { .. } => "refused".to_owned(),
            });
        });
        let clock = TestClock::new();
        clock.set(self.start);
        let grant = Grant::client_credentials("id", "s3cr3t");
        Process { authenticator: set(builder).build().unwrap(), grant, clock, reported }
    }

    fn requests(&self) -> usize {
        self.server.connections()
    }

    /// Makes the store's calls named `name` take `time` by the clock of a process. An empty name
    /// means all calls.
    fn slows(&self, process: &Process, name: &'static str, time: Duration) {
        let clock = process.clock.clone();
        self.store.before(move |call| {
            if call.starts_with(name) {
                clock.advance(time, time);
            }
            Ok(())
        });
    }

    /// Makes the store's calls named `name` hang until the returned gate is opened. An empty name
    /// means all calls.
    fn hangs(&self, name: &'static str) -> Gate {
        let gate = Gate::closed();
        let store_gate = gate.clone();
        self.store.before(move |call| {
            if call.starts_with(name) {
                store_gate.pass();
            }
            Ok(())
        });
        gate
    }

    /// Makes one load hang, the one after `after` others, until the returned gate is opened. Also
    /// returns the number of loads.
    fn hangs_in_load(&self, after: usize) -> (Gate, Arc<AtomicUsize>) {
        let (gate, loads) = (Gate::closed(), Arc::new(AtomicUsize::new(0)));
        let (store_gate, count) = (gate.clone(), Arc::clone(&loads));
        self.store.before(move |call| {
            if call == "load" && count.fetch_add(1, Ordering::SeqCst) == after {
                store_gate.pass();
            }
            Ok(())
        });
        (gate, loads)
    }
}

impl World {
    /// Waits until these were the store's calls, because a thread may release the lease after the
    /// fetch has returned.
    #[track_caller]
    fn wait_for_calls(&self, expected: &str) {
        let calls = Mutex::new(Vec::new());
        wait_until(|| {
            let mut calls = calls.lock().unwrap();
            calls.extend(Some(self.store.calls()).filter(|calls| !calls.is_empty()));
            calls.join(" ") == expected
        });
    }
}

impl Process {
    fn token(&self) -> Result<Token, Error> {
        self.authenticator.get_token_by(&self.clock, &self.grant)
    }

    #[track_caller]
    fn get(&self) -> String {
        self.token().unwrap().access_token().to_owned()
    }

    #[track_caller]
    fn get_after(&self, time: Duration) -> String {
        self.clock.advance(time, time);
        self.get()
    }

    fn refuse(&self, token: &Token) {
        self.authenticator.invalidate_at(&self.grant, token, self.clock.now());
    }

    /// Waits for these events in any order, because a thread may report some of them.
    #[track_caller]
    fn wait_for_reports(&self, expected: &str) {
        let is_reported = |name: &&str| self.reported.lock().unwrap().iter().any(|e| e == name);
        wait_until(|| expected.split(", ").collect::<Vec<_>>().iter().all(is_reported));
        self.reported();
    }

    fn reported(&self) -> String {
        mem::take(&mut *self.reported.lock().unwrap()).join(", ")
    }
}

#[test]
fn token_of_another_process_is_used_without_a_request() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    assert_eq!(first.get(), "t0");
    assert_eq!(world.store.calls(), "load lease load save give");
    let original = first.token().unwrap();
    let token = second.token().unwrap();
    assert_eq!(world.store.calls(), "load");
    assert_eq!((token.access_token(), token.expires_at()), ("t0", original.expires_at()));
    assert_eq!(token.lifetime().length, HOUR);
    assert_eq!(
        (first.reported(), second.reported()),
        ("fetched from endpoint".into(), "fetched from store".into())
    );
    assert_eq!(second.get(), "t0");
    assert_eq!(world.store.calls(), "", "a hit makes no call to the store");
    assert_eq!(world.requests(), 1);
}

#[test]
fn stored_token_keeps_its_end() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    second.clock.set(first.clock.now());
    first.get();
    second.clock.advance(MINUTE * 50, MINUTE * 50);
    let token = second.token().unwrap();
    let remaining = token.lifetime().remaining(second.clock.now());
    assert!(remaining <= MINUTE * 10 && remaining > MINUTE * 10 - SECOND, "{remaining:?}");
    assert_eq!(second.get_after(MINUTE * 10), "t1");
}

#[test]
fn other_grants_and_other_secrets_find_nothing() {
    let world = World::new();
    world.process().get();
    for grant in [
        Grant::client_credentials("id", "S3cr3t"),
        Grant::client_credentials("ID", "s3cr3t"),
        Grant::password("id", "s3cr3t", "jan", "p4ss"),
    ] {
        let process = Process { grant, ..world.process() };
        process.get();
        assert_eq!(process.reported(), "fetched from endpoint");
    }
}

#[test]
fn renewal_uses_a_newer_stored_token() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    assert_eq!((first.get(), second.get()), ("t0".into(), "t0".into()));
    assert_eq!(first.get_after(HOUR - MINUTE * 2), "t1");
    assert_eq!(second.get_after(HOUR - MINUTE * 2), "t1");
    assert_eq!(second.reported(), "fetched from store, renewed from store");
    assert_eq!(world.requests(), 2);
}

#[test]
fn renewal_does_not_use_a_token_that_is_due_for_renewal_itself() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    assert_eq!((first.get(), second.get()), ("t0".into(), "t0".into()));
    world.store.clear();
    first.authenticator.clear();
    assert_eq!(first.get_after(MINUTE * 2), "t1");
    // The stored token has four minutes remaining then, so its own renewal is due.
    assert_eq!(second.get_after(MINUTE * 58), "t2");
    assert_eq!(second.reported(), "fetched from store, renewed from endpoint");
}

#[test]
fn refused_token_is_removed_and_never_used_again() {
    let world = World::new();
    let process = world.process();
    let (token, (key, value)) = (process.token().unwrap(), world.store.value());
    process.refuse(&token);
    wait_until(|| world.store.is_empty());
    world.store.put(&key, value.clone());
    assert_eq!(process.get(), "t1");
    for _ in 0..3 {
        world.store.put(&key, value.clone());
        process.authenticator.clear();
        assert_ne!(process.get(), "t0");
    }
    assert!(!process.reported().contains("from store"));

    // A token that this process has loaded, and not saved.
    let process = world.process();
    let loaded = process.token().unwrap();
    assert_eq!(process.reported(), "fetched from store");
    process.refuse(&loaded);
    wait_until(|| world.store.is_empty());
    process.get();
    assert_eq!(process.reported(), "refused, fetched from endpoint");
}

#[test]
fn newer_stored_token_is_not_removed_with_a_refused_one() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    let old = second.token().unwrap();
    first.get();
    world.store.clear();
    first.authenticator.clear();
    assert_eq!(first.get(), "t1");
    second.refuse(&old);
    assert_eq!(second.get(), "t1");
    assert_eq!(second.reported(), "fetched from endpoint, refused, fetched from store");
}

#[test]
fn stored_token_requested_before_a_refusal_can_be_refused_at_once() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    let revoked = second.token().unwrap();
    world.store.clear();
    assert_eq!(first.get(), "t1");
    second.clock.advance(SECOND, SECOND);
    second.refuse(&revoked);
    let also_revoked = second.token().unwrap();
    assert_eq!(also_revoked.access_token(), "t1");
    second.refuse(&also_revoked);
    let fresh = second.token().unwrap();
    assert_eq!(fresh.access_token(), "t2");
    second.refuse(&fresh);
    assert_eq!(second.get(), "t2", "a replacement that was requested after the refusal is kept");
}

#[test]
fn clear_and_forget_leave_the_store_alone() {
    let world = World::new();
    let process = world.process();
    process.get();
    world.store.calls();
    process.authenticator.clear();
    process.authenticator.forget(&process.grant);
    assert_eq!(world.store.calls(), "");
    assert_eq!(process.get(), "t0");
}

#[test]
fn failures_are_not_stored() {
    let world = World::answering(|_| answer("401 No", "", ""));
    let process = world.process();
    assert_eq!(process.token().unwrap_err().status(), Some(401));
    assert_eq!(world.store.calls(), "load lease load give");
    assert_eq!(world.process().token().unwrap_err().status(), Some(401));
    assert_eq!(world.requests(), 2);
}

#[test]
fn store_that_fails_is_left_alone_for_30_s_and_fails_no_call() {
    for (bad, calls) in
        [("load", "load"), ("lease", "load lease"), ("save", "load lease load save give")]
    {
        let world = World::new();
        let process = world.process();
        world.store.before(move |call| if call == bad { Err("no room".into()) } else { Ok(()) });
        assert_eq!(process.get(), "t0");
        world.wait_for_calls(calls);
        assert_eq!(process.reported(), "fetched from endpoint, store failed: no room");
        world.store.works();
        process.authenticator.clear();
        assert_eq!(process.get_after(SECOND * 29), "t1");
        assert_eq!(world.store.calls(), "");
        process.authenticator.clear();
        process.get_after(SECOND * 2);
        assert_eq!(world.store.calls(), "load lease load save give");
    }
}

#[test]
fn store_that_failed_meanwhile_is_not_asked_to_save_or_remove() {
    let gate = Gate::closed();
    let server_gate = gate.clone();
    let world = World::answering(move |n| {
        if n == 0 {
            server_gate.pass();
        }
        token_for_an_hour(&format!("t{n}"))
    });
    let process = world.process();
    thread::scope(|scope| {
        let fetching = scope.spawn(|| process.token().unwrap());
        wait_until(|| world.requests() == 1);
        world.store.before(|_| Err("no room".into()));
        let other = Grant::client_credentials("id2", "s3cr3t");
        process.authenticator.get_token_by(&process.clock, &other).unwrap();
        world.store.calls();
        world.store.works();
        gate.open();
        let token = fetching.join().unwrap();
        assert_eq!(world.store.calls(), "give");
        process.refuse(&token);
        assert_eq!(world.store.calls(), "");
    });
}

#[test]
fn failed_removal_is_reported_and_the_store_left_alone() {
    let world = World::new();
    let process = world.process();
    let token = process.token().unwrap();
    process.reported();
    world.store.before(|_| Err("gone".into()));
    process.refuse(&token);
    process.wait_for_reports("store failed: gone, refused");
    world.store.calls();
    world.store.works();
    assert_eq!(process.get(), "t1");
    assert_eq!(world.store.calls(), "");
}

#[test]
fn slow_store_leaves_the_endpoint_a_quarter_of_the_time() {
    let world = World::new();
    world.process().get();
    let (key, _) = world.store.value();
    world.store.clear();
    let _dead = world.store.lease(&key, MINUTE).unwrap();
    let process = world.process();
    for each in [SECOND * 10, SECOND * 12, SECOND * 15] {
        world.slows(&process, "", each);
        let start = process.clock.now();
        process.get();
        let took = start.until(process.clock.now().monotonic);
        // Not counted: the last call, which saves the token.
        assert!(took - each <= MINUTE * 3 / 4, "{took:?} with {each:?} each");
        process.authenticator.clear();
        world.store.clear();
    }
}

#[test]
fn fetches_before_and_after_forget_do_not_wait_for_each_other() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND * 8));
    // The load of the first fetch that follows its lease.
    let (gate, loads) = world.hangs_in_load(1);
    let get = || process.authenticator.get_token(&process.grant).unwrap();
    thread::scope(|scope| {
        let start = Instant::now();
        let first = scope.spawn(get);
        wait_until(|| loads.load(Ordering::SeqCst) == 2);
        process.authenticator.forget(&process.grant);
        let second = scope.spawn(get);
        wait_until(|| loads.load(Ordering::SeqCst) == 4);
        gate.open();
        first.join().unwrap();
        second.join().unwrap();
        assert!(start.elapsed() < SECOND * 2, "{:?}", start.elapsed());
    });
}

#[test]
fn garbage_counts_as_missing_and_is_replaced() {
    let world = World::new();
    world.process().get();
    let (key, good) = world.store.value();
    let mut cut = good.clone();
    cut.sealed.pop();
    let mut flipped = good.clone();
    flipped.sealed[40] ^= 1;
    let long = Stored::new(vec![7; 1 << 20]);
    let empty = Stored::new(Vec::new());
    for garbage in [cut, flipped, long, empty] {
        world.store.put(&key, garbage);
        let process = world.process();
        process.get();
        assert_eq!(process.reported(), "fetched from endpoint");
        let process = world.process();
        process.get();
        assert_eq!(process.reported(), "fetched from store");
    }
}

#[test]
fn clocks_that_disagree_do_not_prolong_a_token() {
    let world = World::new();
    world.process().get();
    let (key, value) = world.store.value();
    let set_clock = |process: &Process, wall| {
        let now = process.clock.now();
        process.clock.set(Moment { wall, ..now });
    };
    // The process's clock was set back after the fetch, and the store has no clock.
    let process = world.process();
    set_clock(&process, process.clock.now().wall - YEAR);
    assert_eq!(process.get(), "t1");

    // A store with a clock says that the token is still valid.
    world.store.put(&key, value.with_remaining(MINUTE * 50));
    let process = world.process();
    set_clock(&process, process.clock.now().wall - YEAR);
    let token = process.token().unwrap();
    assert_eq!(token.access_token(), "t0");
    assert_eq!(token.lifetime().remaining(process.clock.now()), MINUTE * 50);

    let process = world.process();
    set_clock(&process, process.clock.now().wall + YEAR);
    assert_eq!(process.get(), "t2");
}

#[test]
fn store_can_shorten_a_lifetime_and_not_prolong_it() {
    let world = World::new();
    world.process().get();
    let (key, mut value) = world.store.value();
    for (by_store, expected) in [(MINUTE, MINUTE), (YEAR, HOUR)] {
        value.remaining = Some(by_store);
        world.store.put(&key, value.clone());
        let process = world.process();
        let token = process.token().unwrap();
        assert_eq!(token.access_token(), "t0");
        let remaining = token.lifetime().remaining(process.clock.now());
        assert!(remaining <= expected && remaining > expected - SECOND, "{remaining:?}");
    }
    value.remaining = Some(Duration::ZERO);
    world.store.put(&key, value);
    assert_eq!(world.process().get(), "t1");
}

#[test]
fn time_that_a_load_takes_is_subtracted_from_the_remaining_time() {
    let world = World::new();
    world.process().get();
    let (key, mut value) = world.store.value();
    value.remaining = Some(MINUTE);
    world.store.put(&key, value);
    let process = world.process();
    let clock = process.clock.clone();
    world.store.before(move |_| {
        clock.advance(SECOND * 10, Duration::ZERO);
        Ok(())
    });
    let token = process.token().unwrap();
    assert_eq!(token.lifetime().remaining(process.clock.now()), SECOND * 50);
}

#[test]
fn process_without_the_lease_waits_for_the_token() {
    let world = World::answering(|n| {
        thread::sleep(Duration::from_millis(300));
        token_for_an_hour(&format!("t{n}"))
    });
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(world.process().get(), "t0"));
        }
    });
    assert_eq!(world.requests(), 1);
}

#[test]
fn lease_that_is_never_free_fails_no_call() {
    let world = World::new();
    world.process().get();
    let (key, _) = world.store.value();
    world.store.clear();
    let process = world.process();
    let dead = world.store.lease(&key, MINUTE).unwrap().unwrap();
    let start = process.clock.now();
    world.slows(&process, "lease", SECOND);
    process.get();
    let waited = start.until(process.clock.now().monotonic);
    assert!((SECOND * 22..=SECOND * 31).contains(&waited), "{waited:?}");
    assert!(!world.store.is_empty(), "the token is saved without the lease too");
    drop(dead);
}

#[test]
fn endpoint_has_half_of_the_time_after_a_vain_wait_for_the_lease() {
    let slow = Duration::from_millis(1500);
    let world = World::answering(move |n| {
        if n > 0 {
            thread::sleep(slow);
        }
        token_for_an_hour(&format!("t{n}"))
    });
    world.process().get();
    let _dead = world.store.lease(&world.store.value().0, MINUTE).unwrap();
    world.store.clear();
    let process = world.process_with(|builder| builder.timeout(SECOND * 4).retries(2));
    let token = process.authenticator.get_token(&process.grant).unwrap();
    assert_eq!(token.access_token(), "t1");
}

#[test]
fn lease_is_short_enough_for_others_to_take_over() {
    let world = World::new();
    let process = world.process_with(|builder| builder.renew_in_background(true));
    process.get();
    assert_eq!(world.store.longest_lease(), MINUTE / 4);
    process.get_after(HOUR - SECOND * 10);
    wait_until(|| process.reported().contains("renewed"));
    assert_eq!(world.store.longest_lease(), SECOND * 5);
}

#[test]
fn renewal_does_not_wait_for_the_lease_and_is_due_again() {
    let world = World::new();
    let process = world.process();
    process.get();
    let (key, _) = world.store.value();
    let held = world.store.lease(&key, MINUTE).unwrap();
    world.store.calls();
    assert_eq!(process.get_after(HOUR - MINUTE * 3), "t0");
    assert_eq!(world.store.calls(), "load lease load");
    assert_eq!(process.get(), "t0");
    assert_eq!(world.store.calls(), "", "the next renewal is due a tenth of the window later");
    assert_eq!(process.reported(), "fetched from endpoint");
    drop(held);
    assert_eq!(process.get_after(SECOND * 30), "t1");
}

#[test]
fn renewal_beside_a_store_that_fails_after_the_lease_asks_the_endpoint() {
    let world = World::new();
    let process = world.process();
    process.get();
    let key = world.store.value().0;
    let _held = world.store.lease(&key, MINUTE).unwrap();
    process.reported();
    let loads = AtomicUsize::new(0);
    world.store.before(move |call| match call {
        "load" if loads.fetch_add(1, Ordering::SeqCst) == 1 => Err("no room".into()),
        _ => Ok(()),
    });
    assert_eq!(process.get_after(HOUR - MINUTE * 3), "t1");
    assert_eq!(process.reported(), "renewed from endpoint, store failed: no room");
}

#[test]
fn renewal_without_a_lease_succeeds_before_the_token_expires() {
    let world = World::new();
    let process = world.process_with(|builder| builder.renew_in_background(true));
    process.get();
    let _dead = world.store.lease(&world.store.value().0, MINUTE).unwrap();
    process.get_after(HOUR - Duration::from_millis(1));
    wait_until(|| process.get() == "t1");
}

#[test]
fn renewal_in_a_thread_asks_a_slow_store_for_the_lease() {
    let world = World::new();
    let process = world.process_with(|builder| builder.renew_in_background(true));
    process.get();
    let _held = world.store.lease(&world.store.value().0, MINUTE).unwrap();
    world.store.calls();
    world.slows(&process, "load", SECOND * 14);
    process.get_after(HOUR - MINUTE * 3);
    wait_until(|| !process.authenticator.status(&process.grant).fetching);
    assert_eq!(world.store.calls(), "load lease load");
    assert_eq!(world.requests(), 1);
}

#[test]
fn stored_token_that_expires_while_it_is_loaded_is_not_used() {
    let world = World::new();
    world.process().get();
    let (key, mut value) = world.store.value();
    value.remaining = Some(SECOND * 5);
    world.store.put(&key, value);
    let process = world.process();
    world.slows(&process, "", SECOND * 5);
    assert_eq!(process.get(), "t1");
}

#[test]
fn token_stored_meanwhile_is_used_if_the_endpoint_fails() {
    let stored = Arc::new(Mutex::new(None::<(MemoryStore, String, Stored)>));
    let by_server = Arc::clone(&stored);
    let world = World::answering(move |n| match (n, &*by_server.lock().unwrap()) {
        (0, _) => token_for_an_hour("t0"),
        (_, Some((store, key, value))) => {
            store.put(key, value.clone());
            answer("503 Busy", "", "")
        }
        _ => panic!("too early"),
    });
    world.process().get();
    let (key, value) = world.store.value();
    world.store.clear();
    *stored.lock().unwrap() = Some((world.store.clone(), key, value));
    let process = world.process();
    assert_eq!(process.get(), "t0");
    assert_eq!(process.reported(), "fetched from store");
    assert_eq!(world.store.calls().matches("save").count(), 1, "the token is stored already");
}

#[test]
fn lease_whose_release_hangs_delays_one_call_and_is_reported() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND));
    let gate = world.hangs("give");
    process.get();
    process.wait_for_reports("store failed: no answer within 0.2 s, fetched from endpoint");
    world.store.calls();
    process.authenticator.clear();
    process.get();
    assert_eq!(world.store.calls(), "", "the store is left alone");
    gate.open();
}

#[test]
fn with_token_retries_past_a_token_that_was_revoked_with_the_first() {
    let world = World::new();
    let (first, second) = (world.process(), world.process());
    let authenticator = &second.authenticator;
    authenticator.get_token(&second.grant).unwrap();
    world.store.clear();
    assert_eq!(first.get(), "t1");
    let mut calls = Vec::new();
    let outcome = authenticator.with_token(&second.grant, |token| {
        calls.push(token.access_token().to_owned());
        if token.access_token() == "t2" { Ok(()) } else { Err(ureq::Error::StatusCode(401)) }
    });
    assert!(outcome.is_ok());
    assert_eq!(calls, ["t0", "t1", "t2"]);
}

#[test]
fn fetch_that_panics_releases_the_lease() {
    let world = World::new();
    let process = world.process_with(|builder| {
        builder.http(|http| {
            http.middleware(|_: Request<SendBody>, _: MiddlewareNext| panic!("on purpose"))
        })
    });
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| process.token()));
    assert!(outcome.is_err());
    assert_eq!(world.store.calls(), "load lease load give");
    assert_eq!(world.process().get(), "t0");
}

#[test]
fn store_that_hangs_takes_a_quarter_of_the_time_and_fails_no_call() {
    for (bad, calls) in [("load", "load"), ("lease", "load lease"), ("", "load")] {
        let world = World::new();
        let process = world.process_with(|builder| builder.timeout(SECOND * 4));
        let gate = world.hangs(bad);
        let get = || process.authenticator.get_token(&process.grant).unwrap();
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(get);
            }
        });
        let took = start.elapsed();
        assert!(took >= SECOND && took < SECOND * 2, "{took:?}");
        world.wait_for_calls(calls);
        assert_eq!(world.requests(), 1);
        assert_eq!(
            process.reported(),
            "fetched from endpoint, store failed: no answer within 1.0 s"
        );
        gate.open();
    }
}

#[test]
fn store_that_hangs_gets_no_call_until_its_call_has_returned() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND));
    let gate = world.hangs("");
    process.get();
    world.store.calls();
    for _ in 0..3 {
        process.authenticator.clear();
        process.get_after(MINUTE);
        assert_eq!(world.store.calls(), "");
    }
    gate.open();
    wait_until(|| {
        process.authenticator.clear();
        process.get();
        world.store.calls().starts_with("load")
    });
}

#[test]
fn lease_that_is_acquired_too_late_is_released() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND));
    let gate = world.hangs("lease");
    process.get();
    assert_eq!(world.store.calls(), "load lease");
    gate.open();
    wait_until(|| world.store.calls() == "give");
}

#[test]
fn lease_is_released_although_the_store_has_failed_since() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND));
    // The load that follows the lease.
    let (gate, _) = world.hangs_in_load(1);
    process.get();
    world.wait_for_calls("load lease load give");
    gate.open();
}

#[test]
fn renewal_in_a_thread_succeeds_beside_a_store_that_hangs() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND).renew_in_background(true));
    process.get();
    let gate = world.hangs("");
    assert_eq!(process.get_after(HOUR - MINUTE), "t0");
    wait_until(|| process.get() == "t1");
    gate.open();
}

#[test]
fn renewal_by_the_caller_beside_a_store_that_hangs_is_brief() {
    for bad in ["load", "lease", "save"] {
        let world = World::new();
        let process = world.process();
        process.get();
        let gate = world.hangs(bad);
        let start = Instant::now();
        assert_eq!(process.get_after(HOUR - SECOND * 4), "t1");
        // A store call gets a quarter of the renewal's time, which is two seconds.
        assert!(start.elapsed() < SECOND * 3 / 2, "{:?}", start.elapsed());
        gate.open();
    }
}

#[test]
fn renewal_by_the_caller_leaves_the_endpoint_time_beside_a_slow_store() {
    let world = World::new();
    let process = world.process();
    process.get();
    world.store.calls();
    world.slows(&process, "", SECOND / 2);
    assert_eq!(process.get_after(HOUR - MINUTE), "t1");
    assert_eq!(world.store.calls(), "load lease load save give");
}

#[test]
fn token_is_returned_before_it_expires_although_saving_hangs() {
    let world = World::answering(|n| token_answer(&format!("t{n}"), SECOND * 4));
    let process = world.process();
    let gate = world.hangs("save");
    let token = process.authenticator.get_token(&process.grant).unwrap();
    assert!(token.remaining() > SECOND, "{:?}", token.remaining());
    gate.open();
}

#[test]
fn store_that_panics_fails_no_call() {
    let world = World::new();
    let process = world.process();
    world.store.before(|_| panic!("on purpose"));
    assert_eq!(process.get(), "t0");
    assert_eq!(process.reported(), "fetched from endpoint, store failed: it panicked");
    world.store.works();
}

#[test]
fn token_that_arrives_late_is_saved_after_the_call_has_returned() {
    let clock = TestClock::new();
    let late = clock.clone();
    let world = World::answering(move |n| {
        let almost = MINUTE - Duration::from_millis(20);
        late.advance(almost, almost);
        token_for_an_hour(&format!("t{n}"))
    });
    let process = Process { clock, ..world.process() };
    let gate = world.hangs("save");
    process.get();
    assert_eq!(process.reported(), "fetched from endpoint", "the store has not failed");
    gate.open();
    wait_until(|| !world.store.is_empty());
}

#[test]
fn refused_token_that_is_saved_late_is_removed_again() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND));
    let gate = world.hangs("save");
    let token = process.token().unwrap();
    process.refuse(&token);
    assert_eq!(world.store.calls(), "load lease load save give");
    gate.open();
    world.wait_for_calls("remove");
    wait_until(|| world.store.is_empty());
}

#[test]
fn removal_that_hangs_delays_no_call_and_is_reported() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND * 40));
    let token = process.token().unwrap();
    let gate = world.hangs("remove");
    process.refuse(&token);
    assert_eq!(
        process.reported(),
        "fetched from endpoint, refused",
        "the removal has 10 s to return"
    );
    gate.open();

    let process = world.process_with(|builder| builder.timeout(SECOND));
    let token = process.token().unwrap();
    let gate = world.hangs("remove");
    process.refuse(&token);
    process.wait_for_reports("store failed: no answer within 0.2 s, refused");
    gate.open();
}

#[test]
fn refused_token_leaves_the_store_even_if_the_hook_panics() {
    let world = World::new();
    let process = world.process_with(|builder| {
        builder.on_event(|event| assert!(!matches!(event, Event::TokenRefused { .. })))
    });
    let token = process.token().unwrap();
    let refuse = std::panic::AssertUnwindSafe(|| process.refuse(&token));
    assert!(std::panic::catch_unwind(refuse).is_err());
    wait_until(|| world.store.is_empty());
}

#[test]
fn store_gets_no_call_while_any_of_its_calls_hangs() {
    let world = World::new();
    let process = world.process_with(|builder| builder.timeout(SECOND));
    // Two calls hang at the same time, and only the later one returns.
    let (first, second) = (Gate::closed(), Gate::closed());
    let (gates, count) = ([first.clone(), second.clone()], AtomicUsize::new(0));
    world.store.before(move |_| {
        if let Some(gate) = gates.get(count.fetch_add(1, Ordering::SeqCst)) {
            gate.pass();
        }
        Ok(())
    });
    thread::scope(|scope| {
        for id in ["a", "b"] {
            let grant = Grant::client_credentials(id, "s3cr3t");
            let (authenticator, clock) = (&process.authenticator, &process.clock);
            scope.spawn(move || authenticator.get_token_by(clock, &grant).unwrap());
        }
    });
    assert_eq!(world.store.calls(), "load load");
    second.open();
    process.clock.advance(MINUTE, MINUTE);
    // Long enough for the second call to return.
    thread::sleep(Duration::from_millis(50));
    process.get();
    assert_eq!(world.store.calls(), "", "the first call hangs");
    first.open();
    wait_until(|| {
        process.authenticator.clear();
        process.get();
        !world.store.calls().is_empty()
    });
}
