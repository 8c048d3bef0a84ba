//! Checks the cache in every interleaving of threads that loom distinguishes.

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use time::OffsetDateTime;

use super::*;
use crate::clock::Span;

const HOUR: Duration = Duration::from_secs(3600);

struct World {
    cache: Arc<Cache>,
    grant: Grant,
    start: Moment,
    requests: AtomicUsize,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            cache: Cache::new(1, HOUR, HOUR),
            grant: Grant::client_credentials("id", "s3cr3t"),
            start: Moment::now(),
            requests: AtomicUsize::new(0),
        })
    }

    /// A token that is valid for an hour from `sent` on.
    fn token(&self, text: &str, sent: Moment) -> Token {
        Token::new(text, OffsetDateTime::UNIX_EPOCH, Span::new(sent, HOUR))
    }

    /// The moment when the first token expires.
    fn end(&self) -> Moment {
        self.start.plus(HOUR)
    }

    /// Gets a token like `Authenticator::get_token`, and counts the fetches. Expects that no
    /// renewal is due. A `fetch` that returns `None` stands for a panic.
    fn get(
        &self,
        now: Moment,
        fetch: impl Fn() -> Option<Result<Token, Error>>,
    ) -> Result<Token, Error> {
        loop {
            match self.cache.claim(&self.grant, now) {
                Claim::Hit(token) => return Ok(token),
                Claim::Renew(..) => panic!("no renewal is due"),
                Claim::Wait(flight) => {
                    if let Waited::Outcome(outcome) = flight.wait(now.monotonic + HOUR, || now) {
                        return outcome;
                    }
                }
                Claim::Failed(error) => return Err(error),
                Claim::Fetch(lead) => {
                    self.requests.fetch_add(1, Ordering::SeqCst);
                    let Some(outcome) = fetch() else { return Err(failure()) };
                    let landing = match outcome.clone() {
                        Ok(token) => Landing::Token(token),
                        Err(error) => Landing::Failed(error.into()),
                    };
                    lead.land(landing, now);
                    return outcome;
                }
            }
        }
    }

    fn get_named(&self, text: &str, now: Moment) -> Token {
        self.get(now, || Some(Ok(self.token(text, now)))).unwrap()
    }

    /// Caches the token "old", and returns it and the duty to renew it.
    fn due(&self) -> (Token, Lead) {
        self.get_named("old", self.start);
        let late = self.start.plus(HOUR - Duration::from_nanos(1));
        match self.cache.claim(&self.grant, late) {
            Claim::Renew(token, lead) => (token, lead),
            _ => panic!("a renewal is due"),
        }
    }

    /// The text of the cached token that can be used at `now`.
    fn cached(&self, now: Moment) -> Option<String> {
        match self.cache.claim(&self.grant, now) {
            Claim::Hit(token) => Some(token.access_token().to_owned()),
            _ => None,
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn failure() -> Error {
    Error::Unavailable { status: 503, code: None, description: None, retry_after: None }
}

fn spawn<T: 'static>(
    world: &Arc<World>,
    run: impl FnOnce(&World) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || run(&world))
}

#[test]
fn first_calls_of_many_threads_make_one_request() {
    loom::model(|| {
        let world = World::new();
        let get = |world: &World| world.get_named("t", world.start);
        let others = [spawn(&world, get), spawn(&world, get)];
        let token = get(&world);
        for other in others {
            assert!(other.join().unwrap().is_same(&token));
        }
        assert_eq!(world.requests(), 1);
    });
}

#[test]
fn failure_is_shared_by_all_waiters() {
    loom::model(|| {
        let world = World::new();
        let get = |world: &World| world.get(world.start, || Some(Err(failure()))).unwrap_err();
        let other = spawn(&world, get);
        get(&world);
        other.join().unwrap();
        // Two requests only if the second call came after the first had failed.
        assert!((1..=2).contains(&world.requests()));
    });
}

#[test]
fn waiter_takes_over_when_the_leader_panics() {
    loom::model(|| {
        let world = World::new();
        let panicking = spawn(&world, |world| world.get(world.start, || None).is_ok());
        world.get_named("t", world.start);
        panicking.join().unwrap();
        assert!((1..=2).contains(&world.requests()));
    });
}

#[test]
fn waiter_takes_over_when_the_leader_times_out() {
    loom::model(|| {
        let world = World::new();
        let Claim::Fetch(lead) = world.cache.claim(&world.grant, world.start) else { panic!() };
        let late = spawn(&world, |world| {
            lead.land(Landing::OutOfTime(failure().into()), world.start);
        });
        assert_eq!(world.get_named("t", world.start).access_token(), "t");
        late.join().unwrap();
        assert_eq!(world.requests(), 1);
    });
}

#[test]
fn renewal_lands_while_callers_find_the_token_expired() {
    loom::model(|| {
        let world = World::new();
        let (_, lead) = world.due();
        let renewing = spawn(&world, |world| {
            let new = world.token("new", world.end());
            lead.land(Landing::Token(new), world.end());
        });
        let other = spawn(&world, |world| world.get_named("fetched", world.end()));
        let token = world.get_named("fetched", world.end());
        assert_eq!(token.access_token(), "new", "no fetch starts while a renewal is running");
        assert!(other.join().unwrap().is_same(&token));
        renewing.join().unwrap();
        assert_eq!(world.requests(), 1);
    });
}

#[test]
fn renewal_fails_while_a_caller_finds_the_token_expired() {
    for is_out_of_time in [false, true] {
        loom::model(move || {
            let world = World::new();
            let (_, lead) = world.due();
            let renewing = spawn(&world, move |world| {
                let outcome = if is_out_of_time { Landing::OutOfTime } else { Landing::Failed };
                lead.land(outcome(failure().into()), world.end());
            });
            let outcome = world.get(world.end(), || Some(Ok(world.token("t", world.end()))));
            renewing.join().unwrap();
            match outcome {
                Ok(_) => assert_eq!(world.requests(), 2),
                Err(_) => assert!(!is_out_of_time && world.requests() == 1),
            }
        });
    }
}

#[test]
fn renewal_lands_during_clear_and_forget() {
    let forget: [fn(&World); 2] =
        [|world| world.cache.clear(), |world| world.cache.forget(&world.grant)];
    for forget in forget {
        loom::model(move || {
            let world = World::new();
            let (_, lead) = world.due();
            let renewing = spawn(&world, |world| {
                lead.land(Landing::Token(world.token("renewed", world.end())), world.end());
            });
            let forgetting = spawn(&world, forget);
            let token = world.get_named("fetched", world.end());
            assert!(["renewed", "fetched"].contains(&token.access_token()));
            renewing.join().unwrap();
            forgetting.join().unwrap();
            assert!((1..=2).contains(&world.requests()));
            // The cache is empty, or has the fetched token. The renewal started before the grant
            // was forgotten, so its token must not stay.
            assert_ne!(world.cached(world.end()).as_deref(), Some("renewed"));
        });
    }
}

#[test]
fn renewal_lands_while_the_old_token_is_refused() {
    loom::model(|| {
        let world = World::new();
        let (old, lead) = world.due();
        let late = world.start.plus(HOUR - Duration::from_nanos(1));
        let renewing = spawn(&world, move |world| {
            lead.land(Landing::Token(world.token("new", late)), late);
        });
        world.cache.invalidate(&world.grant, &old, late);
        assert_eq!(world.get_named("fetched", late).access_token(), "new");
        renewing.join().unwrap();
        assert_eq!(world.requests(), 1);
    });
}

#[test]
fn clear_during_a_fetch_leaves_no_stale_token_and_no_waiter() {
    loom::model(|| {
        let world = World::new();
        let is_clearing = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_clearing);
        let get = move |world: &World| {
            let fetch = || {
                // A token is stale if it was requested before the cache was cleared.
                let text = if seen.load(Ordering::SeqCst) { "fresh" } else { "stale" };
                Some(Ok(world.token(text, world.start)))
            };
            world.get(world.start, fetch).unwrap()
        };
        let getting = spawn(&world, get.clone());
        let clearing = spawn(&world, move |world| {
            is_clearing.store(true, Ordering::SeqCst);
            world.cache.clear();
        });
        get(&world);
        getting.join().unwrap();
        clearing.join().unwrap();
        assert!((1..=3).contains(&world.requests()));
        assert_ne!(world.cached(world.start).as_deref(), Some("stale"));
    });
}

#[test]
fn refused_token_is_fetched_once_however_many_callers_refuse_it() {
    loom::model(|| {
        let world = World::new();
        let old = world.get_named("old", world.start);
        let again = move |world: &World| {
            world.cache.invalidate(&world.grant, &old, world.start);
            let new = world.get_named("new", world.start);
            assert!(!new.is_same(&old));
        };
        let other = spawn(&world, again.clone());
        again(&world);
        other.join().unwrap();
        assert_eq!(world.requests(), 2);
    });
}
