use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::clock::{Lifetime, Now};
use crate::error::Error;
use crate::grant::Grant;
use crate::hash::FoldedMultiply;
use crate::jitter;
use crate::token::Token;

type Entries = HashMap<Grant, Entry, FoldedMultiply>;

/// Tokens by grant, and who is fetching which. It is told the time and does no I/O.
pub(crate) struct Cache {
    entries: Mutex<Entries>,
    capacity: usize,
    refresh_before: Duration,
}

/// What a caller is to do for a token.
pub(crate) enum Claim<'a> {
    /// Use this one.
    Hit(Token),
    /// Wait for another caller's fetch.
    Follow(Arc<Flight>),
    /// Fetch, for everybody.
    Lead(Lead<'a>),
    /// Give up: the server asked to be left alone.
    Refused(Error),
}

#[derive(Default)]
struct Entry {
    held: Option<Held>,
    flight: Option<Arc<Flight>>,
    /// From a failed renewal until the next one may be tried.
    pause: Option<Lifetime>,
    refusal: Option<Refusal>,
}

struct Held {
    token: Token,
    /// How long before its end it is to be renewed, and when that is: for a hit, to compare is cheaper than to subtract.
    window: Duration,
    renew_at: Option<Now>,
}

/// The server's `Retry-After`.
struct Refusal {
    status: u16,
    wait: Lifetime,
}

/// A decision is a pure function of an entry and the time.
enum Decision<'a> {
    Hit(&'a Token),
    Renew,
    Fetch,
    Follow(&'a Arc<Flight>),
    Refused(Error),
}

impl Entry {
    fn decide(&self, now: Now) -> Decision<'_> {
        if let Some(Held { token, renew_at, .. }) = &self.held {
            if renew_at.is_none_or(|due| now.is_before(due)) {
                return Decision::Hit(token);
            }
            if !token.lifetime().is_over(now) {
                return if self.may_renew(now) { Decision::Renew } else { Decision::Hit(token) };
            }
        }
        if let Some(flight) = &self.flight {
            return Decision::Follow(flight);
        }
        match &self.refusal {
            Some(Refusal { status, wait }) if !wait.is_over(now) => {
                Decision::Refused(Error::Unavailable {
                    status: *status,
                    retry_after: Some(wait.left(now)),
                })
            }
            _ => Decision::Fetch,
        }
    }

    fn may_renew(&self, now: Now) -> bool {
        let is_over = |span: Option<&Lifetime>| span.is_none_or(|span| span.is_over(now));
        self.flight.is_none()
            && is_over(self.pause.as_ref())
            && is_over(self.refusal.as_ref().map(|refusal| &refusal.wait))
    }

    /// What the token has left; nothing where there is none.
    fn left(&self, now: Now) -> Duration {
        self.held.as_ref().map_or(Duration::ZERO, |held| held.token.lifetime().left(now))
    }
}

impl Cache {
    pub(crate) fn new(capacity: usize, refresh_before: Duration) -> Self {
        Self { entries: Mutex::new(Entries::default()), capacity, refresh_before }
    }

    pub(crate) fn claim<'a>(&'a self, grant: &'a Grant, now: Now) -> Claim<'a> {
        let mut entries = self.lock();
        let decision = entries.get(grant).map_or(Decision::Fetch, |entry| entry.decide(now));
        let is_renewal = match decision {
            Decision::Hit(token) => return Claim::Hit(token.clone()),
            Decision::Follow(flight) => return Claim::Follow(Arc::clone(flight)),
            Decision::Refused(error) => return Claim::Refused(error),
            Decision::Renew => true,
            Decision::Fetch => false,
        };
        let flight = Arc::new(Flight::new());
        if let Some(entry) = entries.get_mut(grant) {
            entry.flight = Some(Arc::clone(&flight));
            if !is_renewal {
                entry.held = None;
            }
        } else {
            shrink(&mut entries, self.capacity - 1, now);
            let entry = Entry { flight: Some(Arc::clone(&flight)), ..Entry::default() };
            entries.insert(grant.clone(), entry);
        }
        Claim::Lead(Lead { cache: self, grant, flight: Some(flight), is_renewal })
    }

    /// Forgets this very token, never a newer one. A fetch in flight goes on, and fills the cache.
    pub(crate) fn invalidate(&self, grant: &Grant, token: &Token) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(grant) else {
            return;
        };
        if entry.held.as_ref().is_some_and(|held| held.token.is(token)) {
            entry.held = None;
            // A renewal that failed no longer matters: without a token nobody waits.
            entry.pause = None;
        }
        remove_if_empty(&mut entries, grant);
    }

    /// Forgets all. A fetch in flight goes on for those who wait for it, but no longer fills the cache.
    pub(crate) fn clear(&self) {
        // Dropped out of the lock: to wipe a thousand tokens takes a while.
        let _forgotten = mem::take(&mut *self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        lock(&self.entries)
    }
}

/// A lock that a panicking thread held is as good as any: no panic can come between two writes that belong together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Evicts down to `room` entries: who has no usable token first, then who loses it soonest, but nobody in flight.
fn shrink(entries: &mut Entries, room: usize, now: Now) {
    while entries.len() > room {
        let idle = entries.values().filter(|entry| entry.flight.is_none());
        let Some(least) = idle.map(|entry| entry.left(now)).min() else {
            return;
        };
        entries.extract_if(|_, entry| entry.flight.is_none() && entry.left(now) == least).next();
    }
}

/// Shortened by up to a quarter: what started together does not renew together.
fn jittered_window(lifetime: &Lifetime, refresh_before: Duration) -> Duration {
    let window = lifetime.window(refresh_before);
    window.saturating_sub(jitter::part_of(window / 4))
}

fn remove_if_empty(entries: &mut Entries, grant: &Grant) {
    let is_empty =
        |entry: &Entry| entry.held.is_none() && entry.flight.is_none() && entry.refusal.is_none();
    if entries.get(grant).is_some_and(is_empty) {
        entries.remove(grant);
    }
}

/// The duty to fetch for everybody. Dropped without [`land`](Self::land), as by a panic, it hands over to a waiter.
pub(crate) struct Lead<'a> {
    cache: &'a Cache,
    grant: &'a Grant,
    /// `None` once landed.
    flight: Option<Arc<Flight>>,
    /// Whether there is a token that stays in use if this fails.
    pub(crate) is_renewal: bool,
}

impl Lead<'_> {
    /// Caches and publishes what came of the fetch.
    pub(crate) fn land(mut self, outcome: &Result<Token, Error>, now: Now) {
        let landing = match outcome {
            // A renewal is one short attempt: its failure says too little to those who need a token.
            Err(_) if self.is_renewal => Landing::StartOver,
            outcome => Landing::Outcome(outcome.clone()),
        };
        let refresh_before = self.cache.refresh_before;
        self.finish(landing, |entry| match outcome {
            Ok(token) => {
                let window = jittered_window(token.lifetime(), refresh_before);
                let renew_at = token.lifetime().before_end(window);
                entry.held = Some(Held { token: token.clone(), window, renew_at });
                entry.pause = None;
                entry.refusal = None;
            }
            Err(error) => {
                entry.pause = entry.held.as_ref().map(|held| Lifetime::new(now, held.window / 10));
                entry.refusal = match *error {
                    Error::Unavailable { status, retry_after: Some(wait) } => {
                        Some(Refusal { status, wait: Lifetime::new(now, wait) })
                    }
                    _ => None,
                };
            }
        });
        shrink(&mut self.cache.lock(), self.cache.capacity, now);
    }

    fn finish(&mut self, landing: Landing, update: impl FnOnce(&mut Entry)) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        {
            let mut entries = self.cache.lock();
            // Once cleared, the entry is gone or another flight's.
            if let Some(entry) = entries.get_mut(self.grant)
                && entry.flight.as_ref().is_some_and(|current| Arc::ptr_eq(current, &flight))
            {
                entry.flight = None;
                update(entry);
                remove_if_empty(&mut entries, self.grant);
            }
        }
        // After the cache: who starts over must not find this flight again.
        flight.publish(landing);
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.finish(Landing::StartOver, |_| {});
    }
}

/// A fetch in progress, for those who wait for it.
pub(crate) struct Flight {
    landing: Mutex<Option<Landing>>,
    landed: Condvar,
}

enum Landing {
    Outcome(Result<Token, Error>),
    StartOver,
}

impl Flight {
    fn new() -> Self {
        Self { landing: Mutex::new(None), landed: Condvar::new() }
    }

    fn publish(&self, landing: Landing) {
        *lock(&self.landing) = Some(landing);
        self.landed.notify_all();
    }

    /// Waits for the outcome; `None` is to start over, or to find that there is no time left.
    pub(crate) fn wait(
        &self,
        mut now: Now,
        deadline: Instant,
        clock: impl Fn() -> Now,
    ) -> Option<Result<Token, Error>> {
        let mut landing = lock(&self.landing);
        loop {
            match &*landing {
                Some(Landing::Outcome(outcome)) => return Some(outcome.clone()),
                Some(Landing::StartOver) => return None,
                None => {}
            }
            // By the caller's clock, whatever the operating system's timer thinks: it may be wrong, or wake for nothing.
            let left = now.until(deadline);
            if left.is_zero() {
                return None;
            }
            let woken = self.landed.wait_timeout(landing, left);
            landing = woken.unwrap_or_else(PoisonError::into_inner).0;
            now = clock();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use time::OffsetDateTime;

    use super::*;
    use crate::error::InvalidResponse;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const TICK: Duration = Duration::from_nanos(1);

    fn grant(id: &str) -> Grant {
        Grant::client_credentials(id, "s3cr3t")
    }

    /// Renewal is due in the last quarter of a token's lifetime, less the jitter.
    fn cache(capacity: usize) -> Cache {
        Cache::new(capacity, HOUR)
    }

    fn token(text: &str, sent: Now, lifetime: Duration) -> Token {
        Token::new(text, OffsetDateTime::UNIX_EPOCH, Lifetime::new(sent, lifetime))
    }

    fn unavailable(retry_after: Option<Duration>) -> Result<Token, Error> {
        Err(Error::Unavailable { status: 503, retry_after })
    }

    fn rejected() -> Result<Token, Error> {
        Err(Error::Rejected { status: 401, code: None, description: None })
    }

    #[track_caller]
    fn hit(cache: &Cache, grant: &Grant, now: Now) -> String {
        match cache.claim(grant, now) {
            Claim::Hit(token) => token.access_token().to_owned(),
            other => panic!("{}", name(&other)),
        }
    }

    #[track_caller]
    fn lead<'a>(cache: &'a Cache, grant: &'a Grant, now: Now) -> Lead<'a> {
        match cache.claim(grant, now) {
            Claim::Lead(lead) if !lead.is_renewal => lead,
            other => panic!("{}", name(&other)),
        }
    }

    #[track_caller]
    fn renewal<'a>(cache: &'a Cache, grant: &'a Grant, now: Now) -> Lead<'a> {
        match cache.claim(grant, now) {
            Claim::Lead(lead) if lead.is_renewal => lead,
            other => panic!("{}", name(&other)),
        }
    }

    #[track_caller]
    fn follow(cache: &Cache, grant: &Grant, now: Now) -> Arc<Flight> {
        match cache.claim(grant, now) {
            Claim::Follow(flight) => flight,
            other => panic!("{}", name(&other)),
        }
    }

    #[track_caller]
    fn refused(cache: &Cache, grant: &Grant, now: Now) -> Duration {
        match cache.claim(grant, now) {
            Claim::Refused(error) => error.retry_after().unwrap(),
            other => panic!("{}", name(&other)),
        }
    }

    fn name(claim: &Claim) -> &'static str {
        match claim {
            Claim::Hit(_) => "a hit",
            Claim::Follow(_) => "a flight to follow",
            Claim::Lead(lead) if lead.is_renewal => "a renewal",
            Claim::Lead(_) => "a fetch",
            Claim::Refused(_) => "a refusal",
        }
    }

    /// Caches a token that lives from `now` on, and returns the window that it was given.
    fn fill(cache: &Cache, grant: &Grant, text: &str, now: Now, lifetime: Duration) -> Duration {
        lead(cache, grant, now).land(&Ok(token(text, now, lifetime)), now);
        cache.lock()[grant].held.as_ref().unwrap().window
    }

    /// What a flight that has landed hands out.
    fn landed(flight: &Flight) -> Option<Result<Token, Error>> {
        let now = Now::read();
        flight.wait(now, now.monotonic, || now)
    }

    #[test]
    fn token_is_returned_until_the_window_then_renewed_by_one_until_it_is_over() {
        let (cache, grant, start) = (cache(1), grant("a"), Now::read());
        let window = fill(&cache, &grant, "old", start, HOUR);
        let due = HOUR - window;
        assert_eq!(hit(&cache, &grant, start), "old");
        assert_eq!(hit(&cache, &grant, start.plus(due - TICK)), "old");

        for by_one_clock in [start.later(due, Duration::ZERO), start.later(Duration::ZERO, due)] {
            drop(renewal(&cache, &grant, by_one_clock));
        }
        let renewing = renewal(&cache, &grant, start.plus(due));
        assert_eq!(hit(&cache, &grant, start.plus(due)), "old", "the others are not kept");
        assert_eq!(hit(&cache, &grant, start.plus(HOUR - TICK)), "old");
        let waiting = follow(&cache, &grant, start.plus(HOUR));

        let now = start.plus(HOUR);
        renewing.land(&Ok(token("new", now, HOUR)), now);
        assert_eq!(landed(&waiting).unwrap().unwrap().access_token(), "new");
        assert_eq!(hit(&cache, &grant, now), "new");
    }

    #[test]
    fn token_that_is_over_is_fetched_again_by_either_clock() {
        let (cache, grant, start) = (cache(1), grant("a"), Now::read());
        fill(&cache, &grant, "old", start, HOUR);
        lead(&cache, &grant, start.later(HOUR, Duration::ZERO))
            .land(&Ok(token("new", start, HOUR)), start);
        lead(&cache, &grant, start.later(Duration::ZERO, HOUR));
    }

    #[test]
    fn window_is_jittered_by_up_to_a_quarter() {
        let (cache, start) = (cache(1000), Now::read());
        let windows = (0..1000).map(|i| fill(&cache, &grant(&i.to_string()), "t", start, HOUR));
        let (shortest, longest) = windows.fold((HOUR, TICK), |(a, b), w| (a.min(w), b.max(w)));
        let quarter = HOUR / 4;
        assert!(shortest >= quarter * 3 / 4 && longest <= quarter);
        assert!(shortest < quarter * 31 / 40 && longest > quarter * 39 / 40, "all of it is used");
    }

    #[test]
    fn window_of_zero_turns_renewal_off() {
        let (cache, grant, start) = (Cache::new(1, Duration::ZERO), grant("a"), Now::read());
        fill(&cache, &grant, "old", start, HOUR);
        assert_eq!(hit(&cache, &grant, start.plus(HOUR - TICK)), "old");
        lead(&cache, &grant, start.plus(HOUR));
    }

    #[test]
    fn failed_renewal_is_tried_again_after_a_tenth_of_the_window() {
        for failure in
            [rejected(), unavailable(None), Err(Error::InvalidResponse(InvalidResponse::Expired))]
        {
            let (cache, grant, start) = (cache(1), grant("a"), Now::read());
            let window = fill(&cache, &grant, "old", start, HOUR);
            let due = start.plus(HOUR - window);
            renewal(&cache, &grant, due).land(&failure, due);
            assert_eq!(hit(&cache, &grant, due), "old");
            assert_eq!(hit(&cache, &grant, due.plus(window / 10 - TICK)), "old");
            renewal(&cache, &grant, due.plus(window / 10));
            lead(&cache, &grant, start.plus(HOUR));
        }
    }

    #[test]
    fn failed_renewal_respects_a_longer_retry_after() {
        let (cache, grant, start) = (cache(1), grant("a"), Now::read());
        let window = fill(&cache, &grant, "old", start, HOUR);
        let due = start.plus(HOUR - window);
        renewal(&cache, &grant, due).land(&unavailable(Some(window / 2)), due);
        assert_eq!(hit(&cache, &grant, due.plus(window / 2 - TICK)), "old");
        renewal(&cache, &grant, due.plus(window / 2)).land(&unavailable(Some(TICK)), due);
        assert_eq!(hit(&cache, &grant, due.plus(window / 10 - TICK)), "old", "nor a shorter one");
    }

    #[test]
    fn who_waited_for_a_renewal_that_failed_starts_over() {
        let (cache, grant, start) = (cache(1), grant("a"), Now::read());
        let window = fill(&cache, &grant, "old", start, HOUR);
        let renewing = renewal(&cache, &grant, start.plus(HOUR - window));
        let over = start.plus(HOUR);
        let waiting = follow(&cache, &grant, over);
        renewing.land(&rejected(), over);
        assert!(landed(&waiting).is_none());
        lead(&cache, &grant, over);
    }

    #[test]
    fn outcome_is_shared_and_a_failure_not_remembered() {
        let (cache, grant, now) = (cache(1), grant("a"), Now::read());
        let leading = lead(&cache, &grant, now);
        let waiting = [follow(&cache, &grant, now), follow(&cache, &grant, now)];
        leading.land(&rejected(), now);
        for flight in waiting {
            assert_eq!(landed(&flight).unwrap().unwrap_err().status(), Some(401));
        }
        assert!(cache.lock().is_empty());
        lead(&cache, &grant, now);
    }

    #[test]
    fn retry_after_fails_fast_until_it_is_over() {
        let (cache, grant, now) = (cache(1), grant("a"), Now::read());
        lead(&cache, &grant, now).land(&unavailable(Some(MINUTE)), now);
        assert_eq!(refused(&cache, &grant, now), MINUTE);
        assert_eq!(refused(&cache, &grant, now.plus(MINUTE - TICK)), TICK);
        lead(&cache, &grant, now.plus(MINUTE)).land(&Ok(token("t", now, HOUR)), now);
        assert_eq!(hit(&cache, &grant, now), "t");
    }

    #[test]
    fn retry_after_of_one_grant_leaves_the_others_alone() {
        let (cache, now) = (cache(2), Now::read());
        lead(&cache, &grant("a"), now).land(&unavailable(Some(MINUTE)), now);
        lead(&cache, &grant("b"), now);
    }

    #[test]
    fn wrong_secret_is_not_served_from_cache() {
        let (cache, now) = (cache(2), Now::read());
        fill(&cache, &Grant::client_credentials("a", "right"), "t", now, HOUR);
        lead(&cache, &Grant::client_credentials("a", "wrong"), now);
    }

    #[test]
    fn lead_that_is_dropped_hands_over() {
        let (cache, grant, now) = (cache(1), grant("a"), Now::read());
        let leading = lead(&cache, &grant, now);
        let waiting = follow(&cache, &grant, now);
        drop(leading);
        assert!(landed(&waiting).is_none());
        assert!(cache.lock().is_empty());
        lead(&cache, &grant, now);
    }

    #[test]
    fn renewal_that_is_dropped_leaves_the_token_in_use() {
        let (cache, grant, start) = (cache(1), grant("a"), Now::read());
        let window = fill(&cache, &grant, "old", start, HOUR);
        let due = start.plus(HOUR - window);
        drop(renewal(&cache, &grant, due));
        drop(renewal(&cache, &grant, due));
        assert_eq!(hit(&cache, &grant, start), "old");
    }

    #[test]
    fn panic_in_a_lock_is_not_passed_on() {
        let (cache, grant, now) = (cache(1), grant("a"), Now::read());
        fill(&cache, &grant, "t", now, HOUR);
        thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _held = cache.lock();
                panic!("while the lock is held");
            });
            assert!(panicking.join().is_err());
        });
        assert!(cache.entries.is_poisoned());
        assert_eq!(hit(&cache, &grant, now), "t");
    }

    #[test]
    fn invalidate_forgets_this_token_and_no_newer_one() {
        let (cache, grant, now) = (cache(1), grant("a"), Now::read());
        let (old, new) = (token("same text", now, HOUR), token("same text", now, HOUR));
        lead(&cache, &grant, now).land(&Ok(old.clone()), now);
        cache.invalidate(&grant, &new);
        cache.invalidate(&self::grant("b"), &old);
        hit(&cache, &grant, now);
        cache.invalidate(&grant, &old);
        lead(&cache, &grant, now).land(&Ok(new), now);
        cache.invalidate(&grant, &old);
        hit(&cache, &grant, now);
    }

    #[test]
    fn invalidate_leaves_a_renewal_in_flight_and_its_result_alone() {
        let (cache, grant, start) = (cache(1), grant("a"), Now::read());
        let old = token("old", start, HOUR);
        lead(&cache, &grant, start).land(&Ok(old.clone()), start);
        let due = start.plus(HOUR - TICK);
        for success in [false, true] {
            let renewing = renewal(&cache, &grant, due);
            cache.invalidate(&grant, &old);
            let waiting = follow(&cache, &grant, due);
            if success {
                renewing.land(&Ok(token("new", due, HOUR)), due);
                assert_eq!(landed(&waiting).unwrap().unwrap().access_token(), "new");
                assert_eq!(hit(&cache, &grant, due), "new");
            } else {
                renewing.land(&rejected(), due);
                assert!(landed(&waiting).is_none());
                lead(&cache, &grant, due).land(&Ok(old.clone()), due);
            }
        }
    }

    #[test]
    fn clear_forgets_all_and_a_fetch_in_flight_does_not_refill() {
        let (cache, now) = (cache(3), Now::read());
        let (cached, blocked, fetched) = (grant("a"), grant("b"), grant("c"));
        fill(&cache, &cached, "t", now, HOUR);
        lead(&cache, &blocked, now).land(&unavailable(Some(MINUTE)), now);
        let leading = lead(&cache, &fetched, now);
        let waiting = follow(&cache, &fetched, now);

        cache.clear();
        lead(&cache, &cached, now);
        lead(&cache, &blocked, now);
        let second = lead(&cache, &fetched, now);
        leading.land(&Ok(token("stale", now, HOUR)), now);
        assert_eq!(
            landed(&waiting).unwrap().unwrap().access_token(),
            "stale",
            "who waited is served"
        );
        follow(&cache, &fetched, now);
        second.land(&Ok(token("new", now, HOUR)), now);
        assert_eq!(hit(&cache, &fetched, now), "new");
    }

    #[test]
    fn full_cache_evicts_the_unusable_then_the_soonest_over() {
        let (cache, now) = (cache(3), Now::read());
        let keys = || {
            let entries = cache.lock();
            let mut keys = entries.keys().map(|g| g.client_id().to_owned()).collect::<Vec<_>>();
            keys.sort();
            keys.concat()
        };
        fill(&cache, &grant("a"), "t", now, MINUTE);
        fill(&cache, &grant("b"), "t", now, HOUR);
        lead(&cache, &grant("c"), now).land(&unavailable(Some(HOUR)), now);
        fill(&cache, &grant("d"), "t", now, HOUR / 2);
        assert_eq!(keys(), "abd");
        fill(&cache, &grant("e"), "t", now, HOUR * 2);
        assert_eq!(keys(), "bde");
        fill(&cache, &grant("f"), "t", now.plus(HOUR), HOUR);
        assert!(keys() == "bef" || keys() == "def", "one of two that are over goes");
    }

    #[test]
    fn flights_are_never_evicted_and_leave_a_bounded_cache() {
        let (cache, now) = (cache(2), Now::read());
        let grants = ["a", "b", "c", "d"].map(grant);
        let leads = grants.each_ref().map(|grant| lead(&cache, grant, now));
        for grant in &grants {
            follow(&cache, grant, now);
        }
        for (lead, minutes) in leads.into_iter().zip(1..) {
            lead.land(&Ok(token("t", now, MINUTE * minutes)), now);
        }
        assert_eq!(cache.lock().len(), 2);
        hit(&cache, &grants[2], now);
        hit(&cache, &grants[3], now);
        for i in 0..10_000 {
            fill(&cache, &grant(&i.to_string()), "t", now, HOUR);
            assert!(cache.lock().len() <= 2);
        }
    }

    #[test]
    fn follower_gives_up_at_its_deadline_by_its_own_clock() {
        let (cache, grant, now) = (cache(1), grant("a"), Now::read());
        let leading = lead(&cache, &grant, now);
        let flight = follow(&cache, &grant, now);
        assert!(flight.wait(now, now.monotonic, || now).is_none());
        leading.land(&Ok(token("t", now, HOUR)), now);
        assert!(
            flight.wait(now, now.monotonic, || now).is_some(),
            "what has landed is never too late"
        );
    }

    /// The peak of renewals in one second, of 10,000 processes that started together, in the third lifetime and on.
    fn peak_of_renewals(window_of: impl Fn(&Lifetime) -> Duration) -> u32 {
        let start = Now::read();
        let mut renewals = std::collections::HashMap::new();
        for _ in 0..10_000 {
            let mut age = Duration::ZERO;
            while age < HOUR * 4 {
                if age > HOUR * 3 {
                    *renewals.entry(age.as_secs()).or_insert(0) += 1;
                }
                age += HOUR - window_of(&Lifetime::new(start.plus(age), HOUR));
            }
        }
        renewals.into_values().max().unwrap()
    }

    #[test]
    fn fleet_that_started_together_does_not_renew_together() {
        let five_minutes = MINUTE * 5;
        let apart = peak_of_renewals(|lifetime| jittered_window(lifetime, five_minutes));
        let together = peak_of_renewals(|lifetime| lifetime.window(five_minutes));
        assert_eq!(together, 10_000);
        assert!(apart * 20 <= together, "{apart} of {together} in one second");
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving of the protocol, as far as loom can tell them apart.

    use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use loom::thread;
    use time::OffsetDateTime;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    struct World {
        cache: Cache,
        grant: Grant,
        start: Now,
        requests: AtomicUsize,
    }

    impl World {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                cache: Cache::new(1, HOUR),
                grant: Grant::client_credentials("id", "s3cr3t"),
                start: Now::read(),
                requests: AtomicUsize::new(0),
            })
        }

        fn token(&self) -> Token {
            self.token_named("t")
        }

        fn token_named(&self, text: &str) -> Token {
            let lifetime = Lifetime::new(self.start, HOUR);
            Token::new(text, OffsetDateTime::UNIX_EPOCH, lifetime)
        }

        /// What `Authenticator::get_token` does, with a fetch that only counts.
        fn get(
            &self,
            now: Now,
            fetch: impl Fn(&Lead) -> Option<Result<Token, Error>>,
        ) -> Result<Token, Error> {
            loop {
                match self.cache.claim(&self.grant, now) {
                    Claim::Hit(token) => return Ok(token),
                    Claim::Refused(error) => return Err(error),
                    Claim::Follow(flight) => {
                        let deadline = now.monotonic + HOUR;
                        if let Some(outcome) = flight.wait(now, deadline, || now) {
                            return outcome;
                        }
                    }
                    Claim::Lead(lead) => {
                        self.requests.fetch_add(1, Ordering::SeqCst);
                        let is_renewal = lead.is_renewal;
                        // `None` is a panic.
                        let Some(outcome) = fetch(&lead) else {
                            return Err(failure());
                        };
                        lead.land(&outcome, now);
                        if outcome.is_ok() || !is_renewal {
                            return outcome;
                        }
                    }
                }
            }
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::SeqCst)
        }
    }

    fn failure() -> Error {
        Error::Unavailable { status: 503, retry_after: None }
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
            let get = |world: &World| world.get(world.start, |_| Some(Ok(world.token()))).unwrap();
            let others = [spawn(&world, get), spawn(&world, get)];
            let token = get(&world);
            for other in others {
                assert!(other.join().unwrap().is(&token));
            }
            assert_eq!(world.requests(), 1);
        });
    }

    #[test]
    fn failure_is_shared_by_all_who_waited() {
        loom::model(|| {
            let world = World::new();
            let get = |world: &World| world.get(world.start, |_| Some(Err(failure()))).unwrap_err();
            let other = spawn(&world, get);
            get(&world);
            other.join().unwrap();
            // Two only if the second came after the first had failed.
            assert!((1..=2).contains(&world.requests()));
            assert!(world.cache.lock().is_empty());
        });
    }

    #[test]
    fn panicking_leader_hands_over() {
        loom::model(|| {
            let world = World::new();
            let panicking = spawn(&world, |world| world.get(world.start, |_| None).is_ok());
            world.get(world.start, |_| Some(Ok(world.token()))).unwrap();
            panicking.join().unwrap();
            assert!((1..=2).contains(&world.requests()));
        });
    }

    #[test]
    fn renewal_that_fails_while_the_token_runs_out_is_followed_by_one_fetch() {
        loom::model(|| {
            let world = World::new();
            world.get(world.start, |_| Some(Ok(world.token()))).unwrap();
            let over = Now { monotonic: world.start.monotonic + HOUR, ..world.start };
            let fresh = Token::new("u", OffsetDateTime::UNIX_EPOCH, Lifetime::new(over, HOUR));
            let theirs = fresh.clone();
            let renewing = spawn(&world, move |world| {
                let due = Now { monotonic: over.monotonic - Duration::from_nanos(1), ..over };
                let fetch = |lead: &Lead| {
                    Some(if lead.is_renewal { Err(failure()) } else { Ok(theirs.clone()) })
                };
                world.get(due, fetch).unwrap()
            });
            assert!(world.get(over, |_| Some(Ok(fresh.clone()))).unwrap().is(&fresh));
            renewing.join().unwrap();
            assert!((2..=3).contains(&world.requests()));
        });
    }

    #[test]
    fn clear_meanwhile_leaves_no_stale_token_and_nobody_waiting() {
        loom::model(|| {
            let world = World::new();
            let is_clearing = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&is_clearing);
            let get = move |world: &World| {
                let fetch = |_: &Lead| {
                    // Asked for before anybody cleared.
                    let is_stale = !seen.load(Ordering::SeqCst);
                    Some(Ok(world.token_named(if is_stale { "stale" } else { "fresh" })))
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
            if let Claim::Hit(token) = world.cache.claim(&world.grant, world.start) {
                assert_eq!(token.access_token(), "fresh");
            }
        });
    }

    #[test]
    fn refused_token_is_fetched_once_more_however_many_refuse_it() {
        loom::model(|| {
            let world = World::new();
            let old = world.get(world.start, |_| Some(Ok(world.token()))).unwrap();
            let again = move |world: &World| {
                world.cache.invalidate(&world.grant, &old);
                let new = world.get(world.start, |_| Some(Ok(world.token()))).unwrap();
                assert!(!new.is(&old));
            };
            let other = spawn(&world, again.clone());
            again(&world);
            other.join().unwrap();
            assert_eq!(world.requests(), 2);
        });
    }
}
