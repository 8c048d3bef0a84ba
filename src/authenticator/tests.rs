use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ureq::SendBody;
use ureq::http::Request;
use ureq::middleware::MiddlewareNext;

use super::*;
use crate::builder::Builder;
use crate::clock::tests::TestClock;
use crate::error::InvalidResponse;
use crate::support::{Gate, Server, answer, token_for_an_hour, wait_until};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// An `Authenticator`, its endpoint, and a clock that only the test moves.
struct World {
    server: Server,
    answer: Arc<Mutex<String>>,
    authenticator: Authenticator,
    grant: Grant,
    clock: TestClock,
}

impl Authenticator {
    pub(crate) fn get_token_by(&self, caller: &impl Caller, grant: &Grant) -> Result<Token, Error> {
        self.token_for(caller, grant, self.0.timeout)
    }
}

impl Caller for TestClock {
    fn now(&self) -> Moment {
        self.now()
    }
}

/// A clock that advances at each look. A fetch looks once between sending and arrival.
#[derive(Clone)]
struct SlowClock(TestClock, Duration);

impl Caller for SlowClock {
    fn now(&self) -> Moment {
        self.0.advance(self.1, Duration::ZERO);
        self.0.now()
    }
}

impl World {
    fn new(set: impl FnOnce(Builder) -> Builder) -> Self {
        let answer = Arc::new(Mutex::new(String::new()));
        let theirs = Arc::clone(&answer);
        let server = Server::answering(move |_| theirs.lock().unwrap().clone());
        Self::at(server, answer, set)
    }

    fn at(
        server: Server,
        answer: Arc<Mutex<String>>,
        set: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let builder = server.builder().retries(0).timeout(MINUTE).renew_before(MINUTE * 5);
        let authenticator = set(builder).build().unwrap();
        let grant = Grant::client_credentials("id", "s3cr3t");
        let clock = TestClock::new();
        Self { server, answer, authenticator, grant, clock }
    }

    /// A world in which the caller renews.
    fn inline() -> Self {
        Self::new(|builder| builder.renew_in_background(false))
    }

    /// From now on the endpoint answers with a token for an hour.
    fn serves(&self, access_token: &str) {
        self.answers(&token_for_an_hour(access_token));
    }

    fn answers(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().unwrap());
    }

    fn get(&self) -> Result<String, Error> {
        let token = self.authenticator.get_token_by(&self.clock, &self.grant)?;
        Ok(token.access_token().to_owned())
    }

    fn get_after(&self, time: Duration) -> Result<String, Error> {
        self.clock.advance(time, time);
        self.get()
    }
}

#[test]
fn token_is_renewed_ahead_of_time_by_a_thread() {
    let world = World::new(|builder| builder);
    world.serves("old");
    assert_eq!(world.get().unwrap(), "old");
    world.serves("new");
    assert_eq!(world.get_after(HOUR - MINUTE * 6).unwrap(), "old");
    assert_eq!(world.server.connections(), 1);
    assert_eq!(world.get_after(MINUTE * 5).unwrap(), "old");
    wait_until(|| world.get().unwrap() == "new");
    assert_eq!(world.get_after(MINUTE * 2).unwrap(), "new");
    assert_eq!(world.server.connections(), 2);
}

#[test]
fn valid_token_is_returned_at_once_while_its_renewal_stalls() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let server = Server::answering(move |n| {
        theirs.pass();
        token_for_an_hour(if n == 0 { "old" } else { "new" })
    });
    let world = World::at(server, Arc::default(), |builder| builder);
    world.get().unwrap();
    gate.close();
    assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "old");
    wait_until(|| world.server.connections() == 2);
    for _ in 0..100 {
        assert_eq!(world.get().unwrap(), "old");
    }
    assert_eq!(world.server.connections(), 2, "one renewal, however many find it due");
    gate.open();
    wait_until(|| world.get().unwrap() == "new");
}

#[test]
fn renewal_in_a_thread_has_the_retries_of_a_fetch() {
    let server = Server::answering(|n| match n {
        1 | 2 => answer("503 Busy", "", ""),
        n => token_for_an_hour(&format!("t{n}")),
    });
    let world = World::at(server, Arc::default(), |builder| builder.retries(2));
    world.get().unwrap();
    world.get_after(HOUR - MINUTE).unwrap();
    wait_until(|| world.get().unwrap() == "t3");
}

#[test]
fn renewal_in_a_thread_has_the_timeout_of_a_fetch() {
    let server = Server::answering(|n| {
        if n > 0 {
            thread::sleep(SECOND * 7 / 2);
        }
        token_for_an_hour(&format!("t{n}"))
    });
    let world = World::at(server, Arc::default(), |builder| builder);
    world.get().unwrap();
    world.get_after(HOUR - MINUTE).unwrap();
    wait_until(|| world.get().unwrap() != "t0");
    assert_eq!(world.get().unwrap(), "t1", "the first renewal was waited for");
}

#[test]
fn renewal_that_panics_leaves_the_token_in_use() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let world = World::new(|builder| {
        builder.http(move |http| {
            let count = Arc::clone(&count);
            http.middleware(move |request: Request<SendBody>, next: MiddlewareNext| {
                let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
                assert!(is_first, "in the middle of a renewal");
                next.handle(request)
            })
        })
    });
    world.serves("old");
    world.get().unwrap();
    for renewals in 1..=2 {
        let time = if renewals == 1 { HOUR - MINUTE * 2 } else { MINUTE };
        assert_eq!(world.get_after(time).unwrap(), "old");
        wait_until(|| {
            assert_eq!(world.get().unwrap(), "old");
            requests.load(Ordering::SeqCst) == 1 + renewals
        });
    }
}

#[test]
fn renewals_are_told_as_such() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&told);
    let world = World::new(|builder| {
        builder.renew_in_background(false).on_event(move |event| {
            theirs.lock().unwrap().push(match event {
                Event::Obtained { renewal, lifetime, .. } => (*renewal, *lifetime),
                Event::Failed { renewal, remaining, .. } => (*renewal, remaining.unwrap()),
                other => panic!("{other:?}"),
            });
        })
    });
    world.serves("old");
    world.get().unwrap();
    world.answers(&answer("503 Busy", "", ""));
    world.get_after(HOUR - MINUTE * 2).unwrap();
    world.serves("new");
    world.get_after(MINUTE).unwrap();
    let expected = [(false, HOUR), (true, MINUTE * 2), (true, HOUR)];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[test]
fn caller_renews_where_no_thread_may() {
    let world = World::inline();
    world.serves("old");
    world.get().unwrap();
    world.serves("new");
    assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "new");
    assert_eq!(world.get_after(MINUTE * 2).unwrap(), "new");
    assert_eq!(world.server.connections(), 2);
}

/// Runs the test again, in a process that gets no thread.
#[test]
#[cfg(feature = "wipe")]
fn caller_renews_where_no_thread_can_be_had() {
    const NO_THREADS: &str = "WESEEDO_AUTH_NO_THREADS";
    const NAME: &str = "authenticator::tests::caller_renews_where_no_thread_can_be_had";
    let Ok(base_url) = std::env::var(NO_THREADS) else {
        let server = Server::answering(|n| token_for_an_hour(&format!("t{n}")));
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME, "--test-threads", "1", "--nocapture"]);
        // No machine has so much memory for a thread's stack.
        child.env("RUST_MIN_STACK", (usize::MAX / 4).to_string());
        let output = child.env(NO_THREADS, &server.base_url).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(server.connections(), 2);
        return;
    };
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "or this shows nothing");
    let environment = crate::environment::Environment::Custom(base_url);
    let builder = Authenticator::builder(environment);
    let (authenticator, grant) = (builder.build().unwrap(), Grant::client_credentials("a", "b"));
    let clock = TestClock::new();
    for (time, text) in [(Duration::ZERO, "t0"), (HOUR - MINUTE, "t1"), (MINUTE, "t1")] {
        clock.advance(time, time);
        let token = authenticator.get_token_by(&clock, &grant).unwrap();
        assert_eq!(token.access_token(), text);
    }
}

#[test]
fn renewal_by_the_caller_is_bounded_while_the_endpoint_stalls() {
    let server = Server::stalling(|n| n > 0, token_for_an_hour("old"));
    let world = World::at(server, Arc::default(), |b| b.renew_in_background(false));
    world.get().unwrap();
    let start = Instant::now();
    assert_eq!(world.get_after(HOUR - SECOND).unwrap(), "old");
    // Half of the second that the token has left.
    assert!(start.elapsed() < SECOND * 5 / 2, "{:?}", start.elapsed());
}

#[test]
fn renewal_by_the_caller_takes_half_of_what_is_left_at_most() {
    assert_eq!(inline_time(MINUTE, SECOND * 4), SECOND * 2);
    assert_eq!(inline_time(MINUTE, MINUTE * 5), SECOND * 3);
    assert_eq!(inline_time(SECOND, MINUTE * 5), SECOND);
}

#[test]
fn outage_that_ends_before_the_token_does_is_not_noticed() {
    let world = World::inline();
    world.serves("old");
    world.get().unwrap();
    world.answers(&answer("503 Busy", "", ""));
    world.get_after(HOUR - SECOND * 300).unwrap();
    for _ in 0..299 {
        assert_eq!(world.get_after(SECOND).unwrap(), "old");
    }
    let asked = world.server.connections() - 1;
    assert!((5..=14).contains(&asked), "{asked}");
    world.serves("new");
    assert_eq!(world.get_after(SECOND).unwrap(), "new");
}

#[test]
fn outage_that_outlasts_the_token_is_told() {
    let world = World::inline();
    world.serves("old");
    world.get().unwrap();
    world.answers(&answer("503 Busy", "", ""));
    assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "old");
    assert_eq!(world.get_after(MINUTE).unwrap_err().status(), Some(503));
    world.serves("new");
    assert_eq!(world.get().unwrap(), "new", "one failure is held against nobody");
}

#[test]
fn renewal_that_is_refused_is_no_error_while_the_token_lasts() {
    for text in [answer("401 No", "", ""), answer("200 OK", "", "<html>"), String::new()] {
        let world = World::inline();
        world.serves("old");
        world.get().unwrap();
        world.answers(&text);
        assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "old");
        assert_eq!(world.server.connections(), 2);
    }
}

#[test]
fn wall_clock_set_right_during_the_request_does_no_harm() {
    for is_ahead in [true, false] {
        let clock = TestClock::new();
        let theirs = clock.clone();
        let server = Server::answering(move |_| {
            let (now, step) = (theirs.now(), HOUR * 2);
            let wall = if is_ahead { now.wall + step } else { now.wall - step };
            theirs.set(Moment { wall, ..now });
            token_for_an_hour("t")
        });
        let authenticator = server.builder().build().unwrap();
        let grant = Grant::client_credentials("id", "s3cr3t");
        let token = authenticator.get_token_by(&clock, &grant).unwrap();
        let left = token.lifetime().remaining(clock.now());
        assert_eq!(left, HOUR, "neither killed nor prolonged");
    }
}

#[test]
fn token_that_was_over_before_it_arrived_is_refused() {
    let world = World::new(|builder| builder.timeout(HOUR * 24));
    world.serves("old");
    for (minutes, is_in_time) in [(40, true), (80, false)] {
        world.authenticator.clear();
        let slow = SlowClock(world.clock.clone(), MINUTE * minutes);
        match world.authenticator.get_token_by(&slow, &world.grant) {
            Ok(_) => assert!(is_in_time),
            Err(Error::InvalidResponse(InvalidResponse::Expired)) => assert!(!is_in_time),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn at_most_32_renewals_run_at_the_same_time() {
    let gate = Gate::default();
    let theirs = gate.clone();
    let server = Server::answering(move |n| {
        theirs.pass();
        token_for_an_hour(&format!("t{n}"))
    });
    // The clock runs fast below, and no renewal may look abandoned by it.
    let authenticator = server.builder().timeout(HOUR).build().unwrap();
    let clock = TestClock::new();
    let grants: Vec<_> =
        (0..40).map(|i| Grant::client_credentials(i.to_string(), "s3cr3t")).collect();
    let get_all = || {
        for grant in &grants {
            authenticator.get_token_by(&clock, grant).unwrap();
        }
    };
    get_all();
    gate.close();
    clock.advance(HOUR - MINUTE, HOUR - MINUTE);
    get_all();
    wait_until(|| server.connections() == 40 + 32);
    clock.advance(SECOND, SECOND);
    get_all();
    assert_eq!(server.connections(), 40 + 32);
    gate.open();
    wait_until(|| grants.iter().all(|grant| !authenticator.status(grant).fetching));
    wait_until(|| {
        clock.advance(SECOND, SECOND);
        get_all();
        server.connections() == 40 + 40
    });
}

/// A source that has another grant once.
#[derive(Clone)]
struct Rotation {
    authenticator: Authenticator,
    next: Grant,
    clock: TestClock,
}

impl Caller for Rotation {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn recover(&self, outcome: &Outcome, grant: &Grant, _: Duration) -> Option<Outcome> {
        let Err(Error::Rejected { .. }) = outcome else { return None };
        assert_ne!(*grant, self.next);
        Some(self.authenticator.get_token_by(&self.clock, &self.next))
    }
}

#[test]
fn rejected_renewal_goes_on_with_another_grant_at_once() {
    let server = Server::answering(|n| match n {
        1 => answer("401 No", "", ""),
        n => token_for_an_hour(&format!("t{n}")),
    });
    let world = World::at(server, Arc::default(), |builder| builder);
    let next = Grant::client_credentials("id", "next");
    let (authenticator, clock) = (world.authenticator.clone(), world.clock.clone());
    let rotation = Rotation { authenticator, next: next.clone(), clock: clock.clone() };
    let get = || world.authenticator.get_token_by(&rotation, &world.grant).unwrap();
    get();
    clock.advance(HOUR - MINUTE, HOUR - MINUTE);
    assert_eq!(get().access_token(), "t0", "the caller doesn't wait for the other grant");
    wait_until(|| world.authenticator.0.cache.status(&next, clock.now()).remaining.is_some());
    assert_eq!(world.server.connections(), 3);
}
