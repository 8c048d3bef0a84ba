use std::collections::VecDeque;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use ring::aead::NONCE_LEN;

use crate::background;
use crate::clock::{Moment, Span};
use crate::error::Error;
use crate::grant::Grant;
use crate::source::{Errand, Fetched, Source};
use crate::store::policy;
use crate::store::seal::Seal;
use crate::store::{Lease, StoreError, TokenStore};
use crate::token::Token;

/// How long a store is left alone after it failed or was slow.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// The number of tokens whose ends are remembered.
const MAX_ENDS: usize = 4096;

/// A store in which processes share a token, in front of the token endpoint.
///
/// Every call of the store runs in a thread of its own. One that fails or takes too long costs its
/// caller that time and no more: the endpoint is asked as if there were no store.
pub(crate) struct Fleet {
    store: Arc<dyn TokenStore>,
    origin: Box<dyn Source>,
    token_endpoint: String,
    timeout: Duration,
    refresh_before: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    left_alone_until: Option<Instant>,
    /// The latest call that was given up. While it is still running, no other is made: a store that
    /// hangs for good keeps one thread, not one every 30 s.
    given_up: Weak<()>,
    /// When the tokens that this process loaded or saved are over for it, by their nonces. A token
    /// that the API refused is over at once. To load a token again never prolongs it, whatever the
    /// clocks say.
    ends: VecDeque<([u8; NONCE_LEN], Moment)>,
}

impl Source for Fleet {
    fn fetch(&self, errand: &Errand<'_>, clock: &dyn Fn() -> Moment) -> Fetched {
        let now = clock();
        if self.is_left_alone(now.monotonic) {
            return self.origin.fetch(errand, clock);
        }
        let mut turn = Turn::new(self, errand, now);
        let (outcome, is_from_store) = match turn.look(clock) {
            Found::Token(token) => (Ok(token), true),
            Found::BeingRenewed(token) => return Fetched::BeingRenewed(token),
            Found::Nothing => match self.origin.fetch(errand, clock).outcome() {
                Ok(token) => {
                    turn.save(&token, clock);
                    (Ok(token), false)
                }
                Err(error) => match turn.look_again(&error, clock) {
                    Some(token) => (Ok(token), true),
                    None => (Err(error), false),
                },
            },
        };
        turn.give_back(clock);
        Fetched::New { outcome, is_from_store, store_failure: turn.failure }
    }

    fn refuse(&self, token: &Token, now: Moment) {
        if let Some(sealed) = token.sealed().get() {
            self.note_end(sealed, now);
        }
    }

    fn remove(
        &self,
        grant: &Grant,
        token: &Token,
        clock: &dyn Fn() -> Moment,
    ) -> Option<StoreError> {
        let sealed = token.sealed().get()?.clone();
        if self.is_left_alone(clock().monotonic) {
            return None;
        }
        let name = Seal::new(&self.token_endpoint, grant).name();
        let patience = self.timeout / 4;
        self.call(patience, clock, move |store| store.remove(&name, &sealed)).err()
    }
}

impl Fleet {
    pub(crate) fn new(
        store: Arc<dyn TokenStore>,
        origin: Box<dyn Source>,
        token_endpoint: String,
        timeout: Duration,
        refresh_before: Duration,
    ) -> Self {
        let state = Mutex::default();
        Self { store, origin, token_endpoint, timeout, refresh_before, state }
    }

    /// Records how a new token, which nobody else has yet, is sealed. Returns when it is over.
    fn keep(&self, token: &Token, sealed: Vec<u8>) -> Moment {
        let end = self.note_end(&sealed, token.lifetime().end());
        let _ = token.sealed().set(sealed);
        end
    }

    /// Notes when a token is over for this process, unless an earlier end is known. Returns the
    /// earlier of the two.
    fn note_end(&self, sealed: &[u8], end: Moment) -> Moment {
        let Some(nonce) = sealed.first_chunk() else { return end };
        let ends = &mut self.lock().ends;
        if let Some((_, known)) = ends.iter_mut().find(|(known, _)| known == nonce) {
            *known = known.or_earlier(end);
            return *known;
        }
        if ends.len() == MAX_ENDS {
            ends.pop_front();
        }
        ends.push_back((*nonce, end));
        end
    }

    /// What a token has left as far as this process knows it.
    fn left(&self, sealed: &[u8], now: Moment) -> Duration {
        let ends = &self.lock().ends;
        let known = ends.iter().find(|(nonce, _)| sealed.starts_with(nonce));
        known.map_or(Duration::MAX, |(_, end)| end.since(now))
    }

    fn is_left_alone(&self, now: Instant) -> bool {
        let state = self.lock();
        state.left_alone_until.is_some_and(|until| now < until) || state.given_up.strong_count() > 0
    }

    /// Calls the store in a thread of its own and waits for at most `patience`. A store that fails
    /// or takes longer is left alone; what it answers later is dropped, a lease given back.
    fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        clock: &dyn Fn() -> Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let start = clock();
        let (store, running) = (Arc::clone(&self.store), Arc::new(()));
        let given_up = Arc::downgrade(&running);
        let outcome = background::call(patience, move || {
            let outcome = call(&*store);
            drop(running);
            outcome
        });
        let now = clock();
        let outcome = match outcome {
            Ok(outcome) if start.until(now.monotonic) <= patience => outcome,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {
                Err(format!("no answer within {:.1} s", patience.as_secs_f64()).into())
            }
            Err(RecvTimeoutError::Disconnected) => Err("it panicked".into()),
        };
        if let Err(error) = &outcome {
            warn!("the token store is left alone for 30 s, and the token endpoint asked: {error}");
            let mut state = self.lock();
            state.left_alone_until = now.monotonic.checked_add(LEFT_ALONE);
            state.given_up = given_up;
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One fetch beside the store.
struct Turn<'a> {
    fleet: &'a Fleet,
    seal: Seal,
    /// The key under which the token is stored.
    name: String,
    in_hand: Option<&'a Token>,
    deadline: Instant,
    /// The longest that one call of the store may take: a quarter of the time for the fetch.
    patience: Duration,
    lease: Option<Lease>,
    /// How the store failed in this turn. It is not asked again.
    failure: Option<StoreError>,
}

/// What the store has for a turn.
enum Found {
    /// A token that is better than the one in hand.
    Token(Token),
    /// The token in hand, which another process is renewing.
    BeingRenewed(Token),
    /// Nothing: this process is to ask the token endpoint.
    Nothing,
}

impl<'a> Turn<'a> {
    fn new(fleet: &'a Fleet, errand: &Errand<'a>, now: Moment) -> Self {
        let seal = Seal::new(&fleet.token_endpoint, errand.grant);
        Self {
            fleet,
            name: seal.name(),
            seal,
            in_hand: errand.in_hand,
            deadline: errand.deadline,
            patience: now.until(errand.deadline) / 4,
            lease: None,
            failure: None,
        }
    }

    /// Looks for another process's token, and else for the lease to fetch one.
    ///
    /// It gets half of the time, or three calls. So the endpoint has at least a quarter.
    fn look(&mut self, clock: &dyn Fn() -> Moment) -> Found {
        self.try_look(clock).unwrap_or_else(|error| {
            self.failure = Some(error);
            Found::Nothing
        })
    }

    fn try_look(&mut self, clock: &dyn Fn() -> Moment) -> Result<Found, StoreError> {
        let start = clock();
        let patience = policy::patience(start.until(self.deadline));
        if let Some(token) = self.load(clock)? {
            return Ok(Found::Token(token));
        }
        loop {
            let now = clock();
            let token_left = self.in_hand.map(|token| token.lifetime().left(now));
            let at_most = policy::lease(now.until(self.deadline), token_left);
            let name = self.name.clone();
            self.lease = self.call(clock, move |store| store.lease(&name, at_most))?;
            // Whoever had the lease may have saved a token since.
            if let Some(token) = self.load(clock)? {
                return Ok(Found::Token(token));
            }
            if self.lease.is_some() {
                return Ok(Found::Nothing);
            }
            if let (Some(token), Some(token_left)) = (self.in_hand, token_left) {
                let window = token.lifetime().window(self.fleet.refresh_before);
                return Ok(if policy::is_left_to_holder(token_left, window) {
                    Found::BeingRenewed(token.clone())
                } else {
                    Found::Nothing
                });
            }
            let asked = clock().monotonic;
            let left = patience.saturating_sub(start.until(asked));
            // To ask a slow store again would take the endpoint's time.
            if left <= now.until(asked) {
                return Ok(Found::Nothing);
            }
            thread::sleep(policy::pause().min(left));
        }
    }

    /// Looks once more for another process's token, after the endpoint gave none: it may have been
    /// luckier.
    fn look_again(&mut self, error: &Error, clock: &dyn Fn() -> Moment) -> Option<Token> {
        if !error.is_transient() || self.is_over(clock()) || !self.has_time(clock()) {
            return None;
        }
        self.load(clock).unwrap_or_else(|error| {
            self.failure = Some(error);
            None
        })
    }

    /// Loads a token, if there is one to be taken.
    fn load(&self, clock: &dyn Fn() -> Moment) -> Result<Option<Token>, StoreError> {
        // What the store says of the time left may be as old as the question.
        let asked = clock();
        let name = self.name.clone();
        let Some(stored) = self.call(clock, move |store| store.load(&name))? else {
            return Ok(None);
        };
        let now = asked.told_by_wall_of(clock());
        let Some(opened) = self.seal.open(&stored.sealed) else {
            debug!("what the token store has under {} can't be opened, and is not used", self.name);
            return Ok(None);
        };
        let left = policy::left(opened.fetched, opened.lifetime, stored.left, now.wall)
            .min(self.fleet.left(&stored.sealed, now));
        let lifetime = Span::with_left(now, left, opened.lifetime);
        let in_hand = self.in_hand.map(|token| token.lifetime().left(now));
        if !policy::is_taken(left, lifetime.window(self.fleet.refresh_before), in_hand) {
            return Ok(None);
        }
        let token = Token::new(&opened.access_token, opened.expires, lifetime);
        let end = self.fleet.keep(&token, stored.sealed);
        // It may have been refused meanwhile, or over before it was here.
        Ok(Some(token).filter(|_| clock().is_before(end)))
    }

    /// Seals and saves a token that was fetched.
    fn save(&mut self, token: &Token, clock: &dyn Fn() -> Moment) {
        let now = clock();
        if self.is_over(now) {
            return;
        }
        let Some(sealed) = self.seal.seal(token) else { return };
        self.fleet.keep(token, sealed.clone());
        let left = token.lifetime().left(now);
        // A token that ends while it is saved is of no use to the caller.
        self.patience = self.patience.min(left / 2);
        let name = self.name.clone();
        self.call_last(clock, move |store| store.save(&name, &sealed, left));
    }

    fn give_back(&mut self, clock: &dyn Fn() -> Moment) {
        if let Some(lease) = self.lease.take() {
            self.call_last(clock, move |_| {
                drop(lease);
                Ok(())
            });
        }
    }

    fn call<T: Send + 'static>(
        &self,
        clock: &dyn Fn() -> Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.fleet.call(self.patience, clock, call)
    }

    /// Calls the store when the outcome is known, and does not wait if the store has failed or
    /// there is no time.
    fn call_last(
        &mut self,
        clock: &dyn Fn() -> Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<(), StoreError> + Send + 'static,
    ) {
        if self.failure.is_none() && self.has_time(clock()) {
            self.failure = self.call(clock, call).err();
        } else {
            let store = Arc::clone(&self.fleet.store);
            let _ = background::spawn(call, move |call| _ = call(&*store));
        }
    }

    fn has_time(&self, now: Moment) -> bool {
        now.until(self.deadline) >= self.patience
    }

    /// Whether the store failed, in this turn or in another one meanwhile.
    fn is_over(&self, now: Moment) -> bool {
        self.failure.is_some() || self.fleet.is_left_alone(now.monotonic)
    }
}
