use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::debug;

use crate::clock::{Moment, Span};
use crate::error::Error;
use crate::event::{LOG, StoreError};
use crate::grant::Grant;
use crate::source::{Fetched, TokenRequest, TokenSource};
use crate::store::guard::{Failure, GuardedStore};
use crate::store::ledger::Ledger;
use crate::store::policy;
use crate::store::seal::Seal;
use crate::store::{Lease, TokenStore};
use crate::token::Token;

/// The longest that `invalidate` waits for the store.
const BRIEFLY: Duration = Duration::from_millis(100);
/// The time before a deadline that is left for the landing.
const LANDING: Duration = Duration::from_millis(100);

/// A store in which processes share tokens, in front of the source that they come from.
pub(crate) struct SharedTokens {
    pub(crate) store: GuardedStore,
    pub(crate) origin: Box<dyn TokenSource>,
    pub(crate) token_endpoint: String,
    pub(crate) timeout: Duration,
    pub(crate) renew_before: Duration,
    pub(crate) ledger: Arc<Ledger>,
}

impl TokenSource for SharedTokens {
    fn fetch(&self, request: &TokenRequest<'_>, clock: &dyn Fn() -> Moment) -> Fetched {
        let mut turn = Turn::new(self, request, clock());
        let (found, mut store_failure) = split(turn.look(clock));
        let (outcome, from_store) = match found {
            Found::Token(token) => (Ok(token), true),
            Found::BeingRenewed(token) => return Fetched::LeftToAnotherProcess(token),
            Found::Nothing => match self.origin.fetch(request, clock).into_outcome() {
                Ok(token) => {
                    store_failure = store_failure.or(turn.save(&token, clock()));
                    (Ok(token), false)
                }
                Err(error) => {
                    let (found, failure) = split(turn.look_again(&error, clock));
                    store_failure = store_failure.or(failure);
                    match found {
                        Found::Token(token) => (Ok(token), true),
                        _ => (Err(error), false),
                    }
                }
            },
        };
        Fetched::New { outcome, from_store, store_failure }
    }

    fn refuse(&self, token: &Token, now: Moment) {
        if let Some(sealed) = token.sealed().get() {
            self.ledger.record(sealed, now);
        }
    }

    fn remove(&self, grant: &Grant, token: &Token, now: Moment) {
        let Some(sealed) = token.sealed().get().cloned() else { return };
        let name = Seal::new(&self.token_endpoint, grant).name();
        let patience = self.timeout / 4;
        self.store.start(BRIEFLY, grant, move |store, grant| {
            store.call(patience, grant, now, move |store| store.remove(&name, &sealed))
        });
    }
}

/// One fetch with the help of the store.
struct Turn<'a> {
    shared: &'a SharedTokens,
    request: &'a TokenRequest<'a>,
    seal: Seal,
    /// The longest wait for one call of the store: a quarter of the time for the fetch.
    patience: Duration,
    lease: Option<Lease>,
}

/// The result of a look into the store.
enum Found {
    /// A token to use.
    Token(Token),
    /// The current token, which another process is renewing.
    BeingRenewed(Token),
    /// No token: this process asks the token endpoint.
    Nothing,
}

/// Treats a store that failed as an empty one.
fn split(answer: Result<Found, Failure>) -> (Found, Failure) {
    match answer {
        Ok(found) => (found, None),
        Err(failure) => (Found::Nothing, failure),
    }
}

impl<'a> Turn<'a> {
    fn new(shared: &'a SharedTokens, request: &'a TokenRequest<'a>, now: Moment) -> Self {
        let seal = Seal::new(&shared.token_endpoint, request.grant);
        Self { shared, request, seal, patience: now.until(request.deadline) / 4, lease: None }
    }

    /// The remaining time of the token that is to be renewed.
    fn current_remaining(&self, now: Moment) -> Option<Duration> {
        self.request.current.map(|token| token.lifetime().remaining(now))
    }

    /// Looks for a token of another process, and acquires the lease if there is none.
    ///
    /// Takes half of the time for the fetch at most, or three calls. So the endpoint has a quarter
    /// at least.
    fn look(&mut self, clock: &dyn Fn() -> Moment) -> Result<Found, Failure> {
        let start = clock();
        let patience = policy::patience(start.until(self.request.deadline));
        if let found @ Found::Token(_) = self.load(clock)? {
            return Ok(found);
        }
        loop {
            let now = clock();
            let remaining = self.current_remaining(now);
            let at_most = policy::lease(now.until(self.request.deadline), remaining);
            let name = self.seal.name();
            self.lease = self.call(now, move |store| store.lease(&name, at_most))?;
            // The last holder of the lease may have saved a token since the first look.
            if let found @ Found::Token(_) = self.load(clock)? {
                return Ok(found);
            }
            if self.lease.is_some() {
                return Ok(Found::Nothing);
            }
            if let (Some(token), Some(remaining)) = (self.request.current, remaining) {
                let window = token.lifetime().window(self.shared.renew_before);
                return Ok(if policy::is_left_to_holder(remaining, window) {
                    Found::BeingRenewed(token.clone())
                } else {
                    Found::Nothing
                });
            }
            let asked = clock().monotonic;
            let time = patience.saturating_sub(start.until(asked));
            // Asking a slow store once more would take the endpoint's time.
            if time <= now.until(asked) {
                return Ok(Found::Nothing);
            }
            thread::sleep(policy::pause().min(time));
        }
    }

    /// Looks once more after the endpoint failed, because another process may have obtained a token
    /// meanwhile.
    fn look_again(&self, error: &Error, clock: &dyn Fn() -> Moment) -> Result<Found, Failure> {
        if error.is_transient() && clock().until(self.request.deadline) >= self.patience {
            self.load(clock)
        } else {
            Ok(Found::Nothing)
        }
    }

    /// Loads the stored token, if this process may use it.
    fn load(&self, clock: &dyn Fn() -> Moment) -> Result<Found, Failure> {
        // The store's remaining time counts from here, because the store may have read its clock
        // before it answered.
        let asked = clock();
        let name = self.seal.name();
        let Some(stored) = self.call(asked, move |store| store.load(&name))? else {
            return Ok(Found::Nothing);
        };
        let now = asked.by_wall_clock_of(clock());
        let Some(opened) = self.seal.open(&stored.sealed) else {
            let client_id = self.request.grant.client_id();
            debug!(target: LOG, "client {client_id:?}: the stored value can't be opened");
            return Ok(Found::Nothing);
        };
        let remaining =
            policy::remaining(opened.fetched, opened.lifetime, stored.remaining, now.wall)
                .min(self.shared.ledger.remaining(&stored.sealed, now));
        let lifetime = Span::with_remaining(now, remaining, opened.lifetime);
        let window = lifetime.window(self.shared.renew_before);
        if !policy::is_used(remaining, window, self.current_remaining(now)) {
            return Ok(Found::Nothing);
        }
        let token = Token::new(&opened.access_token, opened.expires, lifetime);
        let end = self.keep_sealed(&token, stored.sealed);
        // Checked last, because the token may have expired or been refused meanwhile.
        Ok(if clock().is_before(end) { Found::Token(token) } else { Found::Nothing })
    }

    /// Saves a token that was fetched from the endpoint. Returns the failure if there was time to
    /// wait for it.
    fn save(&mut self, token: &Token, now: Moment) -> Failure {
        let sealed = self.seal.seal(token)?;
        self.keep_sealed(token, sealed.clone());
        let remaining = token.lifetime().remaining(now);
        // A token that expires while it is saved is of no use to the caller.
        self.patience = self.patience.min(remaining / 4);
        let (name, ledger) = (self.seal.name(), Arc::clone(&self.shared.ledger));
        let save = move |store: &dyn TokenStore| {
            store.save(&name, &sealed, remaining)?;
            // The API may have refused the token while the store was slow.
            if ledger.remaining(&sealed, Moment::now()).is_zero() {
                store.remove(&name, &sealed)?;
            }
            Ok(())
        };
        let (wait, patience) = (self.wait(now), self.patience);
        if wait == patience {
            return self.call(now, save).err().flatten();
        }
        let save =
            move |store: &GuardedStore, grant: &Grant| store.call(patience, grant, now, save);
        self.shared.store.start(wait, self.request.grant, save);
        None
    }

    /// How long to wait for the store once the outcome is known. At most half of the remaining
    /// time, because the callers that wait for the outcome have the same deadline.
    fn wait(&self, now: Moment) -> Duration {
        let time = now.until(self.request.deadline).saturating_sub(LANDING);
        self.patience.min(time / 2)
    }

    /// Records the sealed bytes of a token that no other thread has yet. Returns when the token
    /// ends.
    fn keep_sealed(&self, token: &Token, sealed: Vec<u8>) -> Moment {
        let end = self.shared.ledger.record(&sealed, token.lifetime().end());
        let _ = token.sealed().set(sealed);
        end
    }

    fn call<T: Send + 'static>(
        &self,
        now: Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        self.shared.store.call(self.patience, self.request.grant, now, call)
    }
}

impl Drop for Turn<'_> {
    /// Releases the lease in a thread, because the store may be slow.
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let (now, patience) = (Moment::now(), self.patience);
        self.shared.store.start(self.wait(now), self.request.grant, move |store, grant| {
            store.call_anyway(patience, grant, now, move |_| {
                drop(lease);
                Ok(())
            })
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
