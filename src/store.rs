mod file;
pub(crate) mod policy;
mod seal;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, warn};
use ring::aead::NONCE_LEN;

use crate::clock::{Moment, Span};
use crate::grant::Grant;
pub use crate::store::file::FileStore;
use crate::store::seal::Seal;
use crate::token::Token;

/// How long a store is left alone that failed or was slow.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// Of how many tokens it is remembered when they are over.
const MAX_ENDS: usize = 4096;

/// What a [`TokenStore`] says when it fails.
pub type StoreError = Box<dyn StdError + Send + Sync>;

/// What a [`TokenStore`] has under a key.
#[derive(Clone)]
pub struct Stored {
    /// The very bytes that were saved.
    pub sealed: Vec<u8>,
    /// How long they will be kept, by the store's own clock; `None` if it has none.
    pub left: Option<Duration>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sealed = format_args!("{} bytes", self.sealed.len());
        f.debug_struct("Stored").field("sealed", &sealed).field("left", &self.left).finish()
    }
}

/// Where processes keep a token that they share: [`Builder::store`](super::Builder::store).
///
/// [`FileStore`] is one for the processes of a machine. The example `redis_store` has one for a
/// fleet, to be copied.
///
/// A store sees no secret and no token. Its keys are 64 lower-case hexadecimal digits, derived from
/// the whole grant, secrets included, and the token endpoint; its values are encrypted with another
/// key from the same source. What it loses, mixes up or makes up is a token that was not found, at
/// worst; what it brings back too late is over. See [the crate's
/// documentation](super#one-token-for-many-processes) for who can do what with it.
///
/// # What an implementation must do
///
/// - Bound each call in time, a look-up of a host name, a new connection and the giving back of a
///   lease included: the calling thread waits for it. Stay well below a quarter of
///   [`Builder::timeout`](super::Builder::timeout) (2.5 s by default), after which a store counts
///   as failed.
/// - Bear calls from many threads at once, and not panic: the panic would be that of the call which
///   needed a token. Who waits for another process's token makes two calls every 50 to 100 ms.
/// - Give back the very bytes that were saved, or nothing. Values have some hundred bytes, 17 KiB
///   at most.
/// - Save as a whole: who loads at the same time gets the old value or the new one.
/// - Make what was saved visible to all processes before the lease is given back.
/// - Remove only if the value is still the one that is given, in one step.
/// - Give a lease to one holder at a time, in this process or another, and free it when its time is
///   up, or else when its holder has died. Give it back only if it is still held, and without a
///   panic. A lease is no value: keep it under a name that is no key.
/// - Answer with an error if it can't do its work. It is told in the log, at `warn`, and to
///   [`Builder::on_event`](super::Builder::on_event), and the token endpoint is asked instead: keep
///   passwords out of its text.
///
/// `tests/it/contract.rs` in this crate's sources checks these points: copy it and call `check`
/// with your store.
///
/// # Example
///
/// In memory, for the `Authenticator`s of one process. A lease owns what it needs to be given back;
/// hence the `Arc`.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::sync::{Arc, Mutex, MutexGuard};
/// use std::time::{Duration, Instant};
///
/// use weseedo_auth::{Lease, StoreError, Stored, TokenStore};
///
/// /// Values and leases, and when they end.
/// type Map = HashMap<String, (Vec<u8>, Instant)>;
///
/// #[derive(Clone, Default)]
/// struct Memory(Arc<Mutex<Map>>);
///
/// impl Memory {
///     /// What has not ended.
///     fn map(&self) -> Result<MutexGuard<'_, Map>, StoreError> {
///         let mut map = self.0.lock().map_err(|_| "another thread panicked")?;
///         map.retain(|_, (_, end)| *end > Instant::now());
///         Ok(map)
///     }
/// }
///
/// impl TokenStore for Memory {
///     fn load(&self, key: &str) -> Result<Option<Stored>, StoreError> {
///         Ok(self.map()?.get(key).map(|(sealed, end)| {
///             let left = end.saturating_duration_since(Instant::now());
///             Stored { sealed: sealed.clone(), left: Some(left) }
///         }))
///     }
///
///     fn save(&self, key: &str, sealed: &[u8], left: Duration) -> Result<(), StoreError> {
///         let end = Instant::now().checked_add(left).ok_or("longer than the clock can tell")?;
///         self.map()?.insert(key.to_owned(), (sealed.to_vec(), end));
///         Ok(())
///     }
///
///     fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError> {
///         let mut map = self.map()?;
///         if map.get(key).is_some_and(|(found, _)| found == sealed) {
///             map.remove(key);
///         }
///         Ok(())
///     }
///
///     fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
///         static HOLDERS: AtomicU64 = AtomicU64::new(0);
///         let (this, name) = (self.clone(), format!("{key}:lease"));
///         let holder = HOLDERS.fetch_add(1, Ordering::Relaxed).to_le_bytes();
///         let end = Instant::now().checked_add(at_most).ok_or("longer than the clock can tell")?;
///         let mut map = self.map()?;
///         if map.contains_key(&name) {
///             return Ok(None);
///         }
///         map.insert(name.clone(), (holder.to_vec(), end));
///         Ok(Some(Lease::new(move || _ = this.remove(&name, &holder))))
///     }
/// }
/// # let store = Memory::default();
/// # let lease = store.lease("key", Duration::from_secs(60))?;
/// # assert!(lease.is_some() && store.lease("key", Duration::from_secs(60))?.is_none());
/// # drop(lease);
/// # assert!(store.lease("key", Duration::from_secs(60))?.is_some());
/// # Ok::<(), StoreError>(())
/// ```
pub trait TokenStore: Send + Sync {
    /// Returns what is stored under `key`, or `None`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from telling.
    fn load(&self, key: &str) -> Result<Option<Stored>, StoreError>;

    /// Stores `sealed` under `key`, in the place of what is there. It is of no use any more when
    /// `left` has passed, and may be dropped then.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from doing so.
    fn save(&self, key: &str, sealed: &[u8], left: Duration) -> Result<(), StoreError>;

    /// Removes what is stored under `key`, if it is `sealed` and nothing newer.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from doing so. That something else is there is no error.
    fn remove(&self, key: &str, sealed: &[u8]) -> Result<(), StoreError>;

    /// Returns the right to fetch a token for all processes, or `None` if another process has it.
    /// Never waits for it.
    ///
    /// The lease ends when it is dropped, and after `at_most` in any case. Without leases, which is
    /// the default, processes that need a token at the same time all ask for one.
    ///
    /// # Errors
    ///
    /// Whatever keeps the store from telling.
    fn lease(&self, key: &str, at_most: Duration) -> Result<Option<Lease>, StoreError> {
        let _ = (key, at_most);
        Ok(Some(Lease::none()))
    }
}

/// The right to fetch a token for all processes, given back when it is dropped.
pub struct Lease(Mutex<Option<GiveBack>>);

type GiveBack = Box<dyn FnOnce() + Send>;

impl Lease {
    /// Creates a lease that is given back by calling `give_back`, once.
    pub fn new(give_back: impl FnOnce() + Send + 'static) -> Self {
        Self(Mutex::new(Some(Box::new(give_back))))
    }

    /// Creates a lease that there is nothing to do for, of a store without leases.
    #[must_use]
    pub fn none() -> Self {
        Self(Mutex::new(None))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            give_back();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease(..)")
    }
}

/// The processes that share a token through a store, as this one sees them.
pub(crate) struct Fleet {
    store: Box<dyn TokenStore>,
    token_endpoint: String,
    /// The most that a call of the store may take.
    patience: Duration,
    refresh_before: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    left_alone_until: Option<Instant>,
    /// When the calls began that have not come back, and in which process: after a `fork` nobody is
    /// left in the child to end them.
    calls: Vec<(u32, Instant)>,
    /// When the tokens that this process took from the store, or saved, are over for it, by their
    /// nonces: one that the API refused, at once. To load one again prolongs nothing, whatever the
    /// clocks say.
    ends: VecDeque<([u8; NONCE_LEN], Moment)>,
}

/// What came of looking for the fleet's token.
pub(crate) enum Found {
    /// One that is better than the one in hand.
    Token(Token),
    /// None: this process is to fetch one.
    Nothing,
    /// None, but another process is renewing the one in hand, which this is.
    BeingRenewed(Token),
}

/// A process's turn to get the fleet's token, from the store or for it.
pub(crate) struct Turn<'a> {
    fleet: &'a Fleet,
    seal: Seal,
    /// What the token is stored under.
    name: String,
    lease: Option<Lease>,
    /// Whether there is a store to save in.
    is_left_alone: bool,
    failure: Option<StoreError>,
}

impl Fleet {
    pub(crate) fn new(
        store: Box<dyn TokenStore>,
        token_endpoint: String,
        timeout: Duration,
        refresh_before: Duration,
    ) -> Self {
        let patience = timeout / 4;
        Self { store, token_endpoint, patience, refresh_before, state: Mutex::default() }
    }

    /// Looks for the fleet's token, and else for the turn to fetch it, with few calls of a slow
    /// store where the time is brief. `expect` is told by when each call of the store is to be
    /// over, and when it is.
    pub(crate) fn look(
        &self,
        grant: &Grant,
        in_hand: Option<&Token>,
        deadline: Instant,
        is_brief: bool,
        expect: impl Fn(Option<Instant>),
        clock: impl Fn() -> Moment,
    ) -> (Found, Turn<'_>) {
        let seal = Seal::new(&self.token_endpoint, grant);
        let name = seal.name();
        let mut turn =
            Turn { fleet: self, seal, name, lease: None, is_left_alone: true, failure: None };
        let mut found = Found::Nothing;
        if !self.is_left_alone(clock().monotonic) {
            match turn.look(in_hand, deadline, is_brief, expect, clock) {
                Ok(looked) => (found, turn.is_left_alone) = (looked, false),
                Err(error) => turn.failure = Some(error),
            }
        }
        (found, turn)
    }

    /// Notes that the API refused a token, so that it is never taken from the store again.
    pub(crate) fn refuse(&self, token: &Token, now: Moment) {
        if let Some(sealed) = token.sealed().get() {
            self.note_end(sealed, now);
        }
    }

    /// Removes a refused token from the store, and returns how that failed.
    pub(crate) fn remove(
        &self,
        grant: &Grant,
        token: &Token,
        clock: impl Fn() -> Moment,
    ) -> Option<StoreError> {
        let sealed = token.sealed().get()?;
        if self.is_left_alone(clock().monotonic) {
            return None;
        }
        let name = Seal::new(&self.token_endpoint, grant).name();
        self.call(clock, |_| {}, |store| store.remove(&name, sealed)).err()
    }

    /// Notes how a new token, which nobody else has yet, is sealed. Returns when it is over.
    fn keep(&self, token: &Token, sealed: Vec<u8>) -> Moment {
        let end = self.note_end(&sealed, token.lifetime().end());
        let _ = token.sealed().set(sealed);
        end
    }

    /// Notes when a token is over for this process, unless that is known to be sooner, and returns
    /// which it is.
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

    /// Whether the store failed a moment ago, or has a call that has not come back in time.
    fn is_left_alone(&self, now: Instant) -> bool {
        let state = self.lock();
        state.left_alone_until.is_some_and(|until| now < until)
            || state.calls.iter().any(|(process, start)| {
                now.saturating_duration_since(*start) >= self.patience && *process == process::id()
            })
    }

    /// Calls the store. If it fails or takes too long, it is left alone from then on.
    fn call<T>(
        &self,
        clock: impl Fn() -> Moment,
        expect: impl Fn(Option<Instant>),
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let start = clock().monotonic;
        let entry = (process::id(), start);
        self.lock().calls.push(entry);
        // At the end: until then, the store is left alone for a call that took too long.
        let _ended = Ended { fleet: self, entry };
        expect(start.checked_add(self.patience));
        let mut outcome = call(&*self.store);
        expect(None);
        let now = clock().monotonic;
        let took = now.saturating_duration_since(start);
        if outcome.is_ok() && took > self.patience {
            let text = format!("took {took:.1?}, longer than a quarter of the timeout");
            outcome = Err(text.into());
        }
        if let Err(error) = &outcome {
            warn!("the token store is left alone for 30 s, and the token endpoint asked: {error}");
            self.lock().left_alone_until = now.checked_add(LEFT_ALONE);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a call of the store, also one that panics.
struct Ended<'a> {
    fleet: &'a Fleet,
    entry: (u32, Instant),
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let calls = &mut self.fleet.lock().calls;
        if let Some(i) = calls.iter().position(|entry| *entry == self.entry) {
            calls.swap_remove(i);
        }
    }
}

impl Turn<'_> {
    fn look(
        &mut self,
        in_hand: Option<&Token>,
        deadline: Instant,
        is_brief: bool,
        expect: impl Fn(Option<Instant>),
        clock: impl Fn() -> Moment,
    ) -> Result<Found, StoreError> {
        let time = clock().until(deadline);
        if let Some(token) = self.load(in_hand, &expect, &clock)? {
            return Ok(Found::Token(token));
        }
        let start = clock();
        let patience = policy::patience(start.until(deadline));
        // A renewal by its caller is short: three calls that are so slow would take too much of it.
        let is_slow = |now: Moment| is_brief && now.until(deadline) < time * 5 / 6;
        loop {
            let now = clock();
            if is_slow(now) {
                return Ok(Found::Nothing);
            }
            let token_left = in_hand.map(|token| token.lifetime().left(now));
            let at_most = policy::lease(now.until(deadline), token_left);
            // One that came too slowly is given back too, after the landing.
            self.fleet.call(&clock, &expect, |store| {
                self.lease = store.lease(&self.name, at_most)?;
                Ok(())
            })?;
            // Who had the lease may have saved a token since.
            if !is_slow(clock())
                && let Some(token) = self.load(in_hand, &expect, &clock)?
            {
                return Ok(Found::Token(token));
            }
            if self.lease.is_some() {
                return Ok(Found::Nothing);
            }
            if let (Some(token), Some(token_left)) = (in_hand, token_left) {
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

    /// Looks once more for the token of another process, after the endpoint gave none.
    pub(crate) fn look_again(
        &mut self,
        expect: impl Fn(Option<Instant>),
        clock: impl Fn() -> Moment,
    ) -> Option<Token> {
        if self.is_left_alone || self.fleet.is_left_alone(clock().monotonic) {
            return None;
        }
        self.load(None, expect, clock).unwrap_or_else(|error| {
            self.failure = Some(error);
            None
        })
    }

    /// Loads the fleet's token, if it is one to be taken.
    fn load(
        &self,
        in_hand: Option<&Token>,
        expect: impl Fn(Option<Instant>),
        clock: impl Fn() -> Moment,
    ) -> Result<Option<Token>, StoreError> {
        let Self { fleet, seal, name, .. } = self;
        // What the store says of the time left may be as old as the question.
        let asked = clock();
        let Some(stored) = fleet.call(&clock, expect, |store| store.load(name))? else {
            return Ok(None);
        };
        let now = asked.told_by_wall_of(clock());
        let Some(opened) = seal.open(&stored.sealed) else {
            debug!("what the token store has under {name} can't be opened, and is not used");
            return Ok(None);
        };
        let left = policy::left(opened.fetched, opened.lifetime, stored.left, now.wall)
            .min(fleet.left(&stored.sealed, now));
        let lifetime = Span::with_left(now, left, opened.lifetime);
        let in_hand = in_hand.map(|token| token.lifetime().left(now));
        if !policy::is_taken(left, lifetime.window(fleet.refresh_before), in_hand) {
            return Ok(None);
        }
        let token = Token::new(&opened.access_token, opened.expires, lifetime);
        let end = fleet.keep(&token, stored.sealed);
        // It may have been refused meanwhile, or over before it was here.
        Ok(Some(token).filter(|_| clock().is_before(end)))
    }

    /// Until when the token endpoint may take for a call that has no token in hand, and began to
    /// look in the store at `start`.
    pub(crate) fn deadline(&self, deadline: Instant, start: Moment, now: Moment) -> Instant {
        if self.failure.is_none() {
            return deadline;
        }
        let took = start.until(now.monotonic);
        policy::deadline(deadline, took, now.monotonic, self.fleet.patience * 2)
    }

    /// Until when to wait for a thread that went past the store, which failed in this turn: for
    /// half of the time. Not at all where that thread may be waiting for the lease of this turn.
    pub(crate) fn waits_for_others_until(&self, deadline: Instant, now: Moment) -> Instant {
        if self.failure.is_none() || self.lease.is_some() {
            return now.monotonic;
        }
        now.plus(now.until(deadline) / 2).monotonic
    }

    /// Seals a token that was fetched, before anybody gets it: what the API refuses is told by
    /// that.
    pub(crate) fn seal(&self, token: &Token) {
        if !self.is_left_alone
            && let Some(sealed) = self.seal.seal(token)
        {
            self.fleet.keep(token, sealed);
        }
    }

    /// Saves a token that was fetched, gives the lease back, and returns how the store failed in
    /// this turn. Nobody waits for that but the caller: the token has landed.
    pub(crate) fn end(
        mut self,
        fetched: Option<&Token>,
        clock: impl Fn() -> Moment,
    ) -> Option<StoreError> {
        let sealed = fetched.and_then(|token| token.sealed().get());
        let saved = sealed.map_or(Ok(()), |sealed| self.save(sealed, &clock));
        let given_back = self.lease.take().map_or(Ok(()), |lease| {
            let give_back = |_: &dyn TokenStore| {
                drop(lease);
                Ok(())
            };
            self.fleet.call(clock, |_| {}, give_back)
        });
        self.failure.or(saved.err()).or(given_back.err())
    }

    fn save(&self, sealed: &[u8], clock: impl Fn() -> Moment) -> Result<(), StoreError> {
        let Self { fleet, name, .. } = self;
        let now = clock();
        let left = fleet.left(sealed, now);
        if left.is_zero() || fleet.is_left_alone(now.monotonic) {
            return Ok(());
        }
        fleet.call(&clock, |_| {}, |store| store.save(name, sealed, left))?;
        // It may have been refused, and removed, before it was there.
        if fleet.left(sealed, clock()).is_zero() {
            fleet.call(clock, |_| {}, |store| store.remove(name, sealed))?;
        }
        Ok(())
    }
}
