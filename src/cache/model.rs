//! Every interleaving of the protocol, as far as loom can tell them apart.

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

    /// A token that lives for an hour from `sent` on.
    fn token(&self, text: &str, sent: Moment) -> Token {
        Token::new(text, OffsetDateTime::UNIX_EPOCH, Span::new(sent, HOUR))
    }

    fn over(&self) -> Moment {
        self.start.plus(HOUR)
    }

    /// What `Authenticator::get_token` does where no renewal is due, with a fetch that only counts.
    /// `None` is a panic.
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
fn cold_grant_costs_one_request() {
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
fn failure_is_shared_by_all_who_waited() {
    loom::model(|| {
        let world = World::new();
        let get = |world: &World| world.get(world.start, || Some(Err(failure()))).unwrap_err();
        let other = spawn(&world, get);
        get(&world);
        other.join().unwrap();
        // Two only if the second came after the first had failed.
        assert!((1..=2).contains(&world.requests()));
    });
}

#[test]
fn panicking_leader_hands_over() {
    loom::model(|| {
        let world = World::new();
        let panicking = spawn(&world, |world| world.get(world.start, || None).is_ok());
        world.get_named("t", world.start);
        panicking.join().unwrap();
        assert!((1..=2).contains(&world.requests()));
    });
}

#[test]
fn leader_out_of_time_hands_over() {
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
fn renewal_lands_beside_callers_who_find_the_token_over() {
    loom::model(|| {
        let world = World::new();
        let (_, lead) = world.due();
        let renewing = spawn(&world, |world| {
            let new = world.token("new", world.over());
            lead.land(Landing::Token(new), world.over());
        });
        let other = spawn(&world, |world| world.get_named("fetched", world.over()));
        let token = world.get_named("fetched", world.over());
        assert_eq!(token.access_token(), "new", "there is no fetch beside a renewal");
        assert!(other.join().unwrap().is_same(&token));
        renewing.join().unwrap();
        assert_eq!(world.requests(), 1);
    });
}

#[test]
fn renewal_fails_beside_a_caller_who_finds_the_token_over() {
    for is_out_of_time in [false, true] {
        loom::model(move || {
            let world = World::new();
            let (_, lead) = world.due();
            let renewing = spawn(&world, move |world| {
                let outcome = if is_out_of_time { Landing::OutOfTime } else { Landing::Failed };
                lead.land(outcome(failure().into()), world.over());
            });
            let outcome = world.get(world.over(), || Some(Ok(world.token("t", world.over()))));
            renewing.join().unwrap();
            match outcome {
                Ok(_) => assert_eq!(world.requests(), 2),
                Err(_) => assert!(!is_out_of_time && world.requests() == 1),
            }
        });
    }
}

#[test]
fn renewal_lands_beside_clear_and_forget() {
    let forget: [fn(&World); 2] =
        [|world| world.cache.clear(), |world| world.cache.forget(&world.grant)];
    for forget in forget {
        loom::model(move || {
            let world = World::new();
            let (_, lead) = world.due();
            let renewing = spawn(&world, |world| {
                lead.land(Landing::Token(world.token("renewed", world.over())), world.over());
            });
            let forgetting = spawn(&world, forget);
            let token = world.get_named("fetched", world.over());
            assert!(["renewed", "fetched"].contains(&token.access_token()));
            renewing.join().unwrap();
            forgetting.join().unwrap();
            assert!((1..=2).contains(&world.requests()));
            // Forgotten, or what was asked for after that; the renewal was asked for before.
            assert_ne!(world.cached(world.over()).as_deref(), Some("renewed"));
        });
    }
}

#[test]
fn renewal_lands_beside_a_refusal_of_the_old_token() {
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
fn clear_meanwhile_leaves_no_stale_token_and_nobody_waiting() {
    loom::model(|| {
        let world = World::new();
        let is_clearing = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_clearing);
        let get = move |world: &World| {
            let fetch = || {
                // Asked for before anybody cleared.
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
fn refused_token_is_fetched_once_more_however_many_refuse_it() {
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
