mod entry;
mod flight;
#[cfg(all(test, loom))]
mod model;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::cache::entry::{Decision, Entry, Known};
pub(crate) use crate::cache::flight::{Flight, Landing, Waited};
use crate::cache::flight::{Mutex, MutexGuard, lock};
use crate::clock::Moment;
use crate::error::Error;
use crate::grant::Grant;
use crate::status::Status;
use crate::token::Token;

/// How many renewals run at the same time, so that thousands of tokens that are due beside a
/// stalled endpoint don't start thousands of threads.
const MAX_RENEWALS: usize = 32;

/// The tokens by grant, and the flights that fetch them. Does no I/O; callers pass in the time.
pub(crate) struct Cache {
    state: Mutex<State>,
    capacity: usize,
    renew_before: Duration,
    /// The longest that a flight may last.
    timeout: Duration,
}

/// The next step of a caller that needs a token.
pub(crate) enum Claim {
    /// Use this token.
    Hit(Token),
    /// Use this token, and renew it for all callers.
    Renew(Token, Lead),
    /// Wait for the flight of another caller.
    Wait(Arc<Flight>),
    /// Return this error: the last fetch failed a moment ago.
    Failed(Error),
    /// Fetch a token for all callers that wait.
    Fetch(Lead),
}

/// Every entry with a token or a remembered failure is indexed by its end.
#[derive(Default)]
struct State {
    entries: HashMap<Grant, Entry, BuildHasherDefault<DigestHasher>>,
    tokens: Ends,
    failures: Ends,
    /// The number of tokens and failures so far.
    count: u64,
    /// The flights of renewals, landed ones included until the next renewal starts.
    renewals: Vec<Weak<Flight>>,
}

/// Takes a grant's digest as the hash, because the digest is a keyed hash already.
#[derive(Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    /// Never called: a grant writes its digest as one number, and nothing else.
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, digest: u64) {
        self.0 = digest;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Grants by the end of their token or failure, and by the entry's number. The monotonic clock is
/// enough here. A token that has expired by the wall clock alone is not served, and is dropped a
/// little later.
type Ends = BTreeMap<(Instant, u64), Grant>;

/// Removed values. Drop them after unlocking, because wiping takes a while.
type Removed = (Known, Option<(Grant, Entry)>);

impl Cache {
    pub(crate) fn new(capacity: usize, renew_before: Duration, timeout: Duration) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), capacity, renew_before, timeout })
    }

    #[inline]
    pub(crate) fn claim(self: &Arc<Self>, grant: &Grant, now: Moment) -> Claim {
        let mut state = self.lock();
        let entry = state.entries.get(grant);
        match entry.map_or(Decision::Fetch, |entry| entry.decide(now)) {
            Decision::Hit(token) => Claim::Hit(token.clone()),
            Decision::Renew(token) => {
                let token = token.clone();
                match self.renewal(&mut state, grant, now) {
                    Some(lead) => Claim::Renew(token, lead),
                    None => Claim::Hit(token),
                }
            }
            Decision::Wait(flight) => Claim::Wait(Arc::clone(flight)),
            Decision::Failed(error) => Claim::Failed(error),
            Decision::Fetch => Claim::Fetch(self.lead(&mut state, grant, now)),
        }
    }

    #[cold]
    fn lead(self: &Arc<Self>, state: &mut State, grant: &Grant, now: Moment) -> Lead {
        let flight = Arc::new(Flight::new(now, self.timeout));
        state.entries.entry(grant.clone()).or_default().start(&flight);
        Lead { cache: Arc::clone(self), grant: grant.clone(), flight }
    }

    /// The lead of a renewal. If [`MAX_RENEWALS`] are running, postpones the renewal and returns
    /// `None`.
    #[cold]
    fn renewal(self: &Arc<Self>, state: &mut State, grant: &Grant, now: Moment) -> Option<Lead> {
        let is_running = |flight: &Weak<Flight>| {
            flight.upgrade().is_some_and(|flight| !flight.is_abandoned(now))
        };
        state.renewals.retain(is_running);
        if state.renewals.len() >= MAX_RENEWALS {
            state.entries.get_mut(grant)?.postpone_renewal(now);
            return None;
        }
        let lead = self.lead(state, grant, now);
        state.renewals.push(Arc::downgrade(&lead.flight));
        Some(lead)
    }

    /// Makes this token count as missing. Ignores any other token, a token that is refused already,
    /// and a token that has just replaced a refused one. A flight goes on and fills the cache.
    /// Returns how many tokens in a row were refused before their renewal was due.
    pub(crate) fn invalidate(&self, grant: &Grant, token: &Token, now: Moment) -> Option<u32> {
        self.lock().entries.get_mut(grant)?.refuse(token, now)
    }

    /// The token of a grant, also a refused one, unless it has expired.
    pub(crate) fn unexpired_token(&self, grant: &Grant, now: Moment) -> Option<Token> {
        self.lock().entries.get(grant)?.known.unexpired_token(now).cloned()
    }

    pub(crate) fn status(&self, grant: &Grant, now: Moment) -> Status {
        self.lock().entries.get(grant).map(|entry| entry.status(now)).unwrap_or_default()
    }

    /// The number of cached tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.lock().tokens.len()
    }

    /// Drops everything about a grant. A flight goes on for its waiters, but doesn't fill the
    /// cache.
    pub(crate) fn forget(&self, grant: &Grant) {
        let mut state = self.lock();
        let _removed = (state.take(grant), state.entries.remove_entry(grant));
        drop(state);
    }

    /// Drops everything about all grants, as [`forget`](Self::forget) does.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        let renewals = mem::take(&mut state.renewals);
        let _removed = mem::replace(&mut *state, State { renewals, ..State::default() });
        drop(state);
    }

    /// Drops expired tokens, and failures that need not be remembered any longer. Unlocks after
    /// each of them, so that other threads can get the lock.
    fn sweep(&self, now: Moment) {
        loop {
            let removed = self.lock().remove_ended(now);
            if removed.is_none() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Takes the token or failure of a grant out of its entry. The caller puts it back or drops it.
    fn take(&mut self, grant: &Grant) -> Known {
        let Some(entry) = self.entries.get_mut(grant) else { return Known::Nothing };
        let (number, known) = (entry.number, mem::take(&mut entry.known));
        if let Some((ends, end)) = self.index_of(&known) {
            ends.remove(&(end, number));
        }
        known
    }

    /// Stores the token or failure of a grant, after [`take`](Self::take). In a full cache, evicts
    /// the one that ends first: a token for a token, a failure for a failure.
    fn put(&mut self, grant: &Grant, known: Known, capacity: usize) -> Option<Removed> {
        let key = self.entries.get_key_value(grant)?.0.clone();
        self.count += 1;
        let number = self.count;
        let Some((ends, end)) = self.index_of(&known) else {
            return Some((known, self.remove_if_empty(grant)));
        };
        let evicted = if ends.len() >= capacity { ends.pop_first() } else { None };
        ends.insert((end, number), key);
        let entry = self.entries.get_mut(grant)?;
        (entry.number, entry.known) = (number, known);
        evicted.map(|(_, grant)| self.remove(&grant))
    }

    /// The index that lists the entry, and the end under which the entry is listed.
    fn index_of(&mut self, known: &Known) -> Option<(&mut Ends, Instant)> {
        let is_token = matches!(known, Known::Token(_));
        let ends = if is_token { &mut self.tokens } else { &mut self.failures };
        Some((ends, known.end()?.monotonic))
    }

    /// Removes the token or failure of a grant, and the entry unless a flight is running.
    fn remove(&mut self, grant: &Grant) -> Removed {
        (self.take(grant), self.remove_if_empty(grant))
    }

    fn remove_if_empty(&mut self, grant: &Grant) -> Option<(Grant, Entry)> {
        let entry = self.entries.get(grant)?;
        let is_empty = entry.flight.is_none() && matches!(entry.known, Known::Nothing);
        is_empty.then(|| self.entries.remove_entry(grant))?
    }

    /// Removes an entry that has ended, if there is one.
    fn remove_ended(&mut self, now: Moment) -> Option<Removed> {
        let has_ended = |ends: &&Ends| {
            ends.first_key_value().is_some_and(|((end, _), _)| *end <= now.monotonic)
        };
        let ends = [&self.tokens, &self.failures].into_iter().find(has_ended)?;
        let grant = ends.first_key_value()?.1.clone();
        Some(self.remove(&grant))
    }
}

/// The duty to land one flight for all its waiters. If it is dropped without
/// [`land`](Self::land), for example by a panic, one of the waiters takes over.
pub(crate) struct Lead {
    cache: Arc<Cache>,
    grant: Grant,
    pub(crate) flight: Arc<Flight>,
}

impl Lead {
    /// Caches the outcome and publishes it to the waiters. Returns the token that callers get
    /// although the fetch failed, if there is one.
    pub(crate) fn land(self, landing: Landing, now: Moment) -> Option<Token> {
        let served = self.finish(landing, now);
        self.cache.sweep(now);
        served
    }

    fn finish(&self, landing: Landing, now: Moment) -> Option<Token> {
        let flight = &self.flight;
        let (served, _removed) = {
            let mut state = self.cache.lock();
            match state.entries.get_mut(&self.grant) {
                Some(entry)
                    if entry.flight.as_ref().is_some_and(|own| Arc::ptr_eq(own, flight)) =>
                {
                    entry.flight = None;
                    let known = state.take(&self.grant);
                    let known = known.after(&landing, flight, self.cache.renew_before, now);
                    let served = known.valid_token(now).cloned();
                    (served, state.put(&self.grant, known, self.cache.capacity))
                }
                // The flight has landed before or counts as abandoned, or the grant was forgotten.
                _ => (None, None),
            }
        };
        // Publishes after changing the cache, because a waiter that starts over must not find this
        // flight again.
        flight.publish(served.clone().map_or(landing, Landing::Token));
        served
    }
}

/// Does nothing after [`land`](Lead::land): the entry no longer has the flight, and a flight keeps
/// its first landing.
impl Drop for Lead {
    fn drop(&mut self) {
        self.finish(Landing::Gone, Moment::now());
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
