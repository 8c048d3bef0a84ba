use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::debug;

use crate::clock::{Moment, Span};
use crate::error::Error;
use crate::event::{LOG, StoreError};
use crate::grant::Grant;
use crate::source::{Fetched, TokenRequest, TokenSource};
use crate::store::guard::GuardedStore;
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
    fn fetch(&self, request: &TokenRequest<'_>) -> Result<Fetched, Error> {
        let mut turn = Turn::new(self, request);
        if let Some(found) = turn.look() {
            return Ok(found);
        }
        let fetched = self.origin.fetch(request);
        if let Ok(Fetched::New(token)) = &fetched {
            turn.save(token);
        }
        fetched.or_else(|error| turn.look_again(&error).ok_or(error))
    }

    fn refuse(&self, token: &Token, now: Moment) {
        if let Some(sealed) = token.sealed().get() {
            self.ledger.record(sealed, now);
        }
    }

    fn remove(&self, grant: &Grant, token: &Token, now: Moment) {
        let Some(sealed) = token.sealed().get().cloned() else { return };
        let name = Seal::new(&self.token_endpoint, grant).name();
        let remove = move |store: &dyn TokenStore| store.remove(&name, &sealed);
        if let Some(store) = self.store.unless_left_alone(now) {
            store.call_detached(BRIEFLY, self.timeout / 4, grant, now, remove);
        }
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

impl<'a> Turn<'a> {
    fn new(shared: &'a SharedTokens, request: &'a TokenRequest<'a>) -> Self {
        let seal = Seal::new(&shared.token_endpoint, request.grant);
        let patience = (request.clock)().until(request.deadline) / 4;
        Self { shared, request, seal, patience, lease: None }
    }

    fn now(&self) -> Moment {
        (self.request.clock)()
    }

    /// The remaining time of the token that is to be renewed.
    fn current_remaining(&self, now: Moment) -> Option<Duration> {
        self.request.current.map(|token| token.lifetime().remaining(now))
    }

    /// Looks for a token of another process. If there is none, acquires the lease and returns
    /// `None`: this process asks the endpoint. A store that fails counts as empty.
    ///
    /// Takes at most half of the fetch's time, or three calls of a quarter each. At least a quarter
    /// remains for the endpoint.
    fn look(&mut self) -> Option<Fetched> {
        let start = self.now();
        let patience = policy::patience(start.until(self.request.deadline));
        if let found @ Some(_) = self.load() {
            return found;
        }
        loop {
            let now = self.now();
            let remaining = self.current_remaining(now);
            let at_most = policy::lease(now.until(self.request.deadline), remaining);
            let name = self.seal.name();
            self.lease = self.call(now, move |store| store.lease(&name, at_most))?;
            // The last holder of the lease may have saved a token since the first look.
            let found = self.load();
            if found.is_some() || self.lease.is_some() {
                return found;
            }
            // The second load may have failed. A failed store is not asked again.
            self.shared.store.unless_left_alone(now)?;
            if let (Some(token), Some(remaining)) = (self.request.current, remaining) {
                let window = token.lifetime().window(self.shared.renew_before);
                let is_left = policy::is_left_to_holder(remaining, window);
                return is_left.then(|| Fetched::LeftToAnotherProcess(token.clone()));
            }
            let asked = self.now().monotonic;
            let time = patience.saturating_sub(start.until(asked));
            // Asking a slow store once more would take the endpoint's time.
            if time <= now.until(asked) {
                return None;
            }
            thread::sleep(policy::pause().min(time));
        }
    }

    /// Looks once more after the endpoint failed, because another process may have obtained a token
    /// meanwhile.
    fn look_again(&self, error: &Error) -> Option<Fetched> {
        let has_time = self.now().until(self.request.deadline) >= self.patience;
        if error.is_transient() && has_time { self.load() } else { None }
    }

    /// Loads the stored token, if this process may use it.
    fn load(&self) -> Option<Fetched> {
        // The store's remaining time counts from here, because the store may have read its clock
        // before it answered.
        let asked = self.now();
        let name = self.seal.name();
        let stored = self.call(asked, move |store| store.load(&name))??;
        let now = asked.by_wall_clock_of(self.now());
        let Some(opened) = self.seal.open(&stored.sealed) else {
            let client_id = self.request.grant.client_id();
            debug!(target: LOG, "client {client_id:?}: the stored value can't be opened");
            return None;
        };
        let remaining =
            policy::remaining(opened.fetched, opened.lifetime, stored.remaining, now.wall)
                .min(self.shared.ledger.remaining(&stored.sealed, now));
        let lifetime = Span::with_remaining(now, remaining, opened.lifetime);
        let window = lifetime.window(self.shared.renew_before);
        if !policy::is_used(remaining, window, self.current_remaining(now)) {
            return None;
        }
        let token = Token::new(&opened.access_token, opened.expires, lifetime);
        let end = self.keep_sealed(&token, stored.sealed);
        // Checked last, because the token may have expired or been refused meanwhile.
        self.now().is_before(end).then_some(Fetched::FromStore(token))
    }

    /// Saves a token that was fetched from the endpoint, and waits for the store if there is time.
    fn save(&mut self, token: &Token) {
        let Some(sealed) = self.seal.seal(token) else { return };
        self.keep_sealed(token, sealed.clone());
        let now = self.now();
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
        // With time for the whole call, the fetch reports a failure; otherwise the call's thread.
        if wait == patience {
            self.call(now, save);
        } else if let Some(store) = self.shared.store.unless_left_alone(now) {
            store.call_detached(wait, patience, self.request.grant, now, save);
        }
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

    /// Calls the store; `None` if the store failed or is left alone.
    fn call<T: Send + 'static>(
        &self,
        now: Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<T> {
        let store = self.shared.store.unless_left_alone(now)?;
        let answer = store.call(self.patience, self.request.grant, now, call);
        answer.map_err(|error| self.request.store_failure.set(error)).ok()
    }
}

impl Drop for Turn<'_> {
    /// Releases the lease in a thread, because the store may be slow. Does so even while the store
    /// is left alone, because other processes wait for the lease.
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let (now, store) = (Moment::now(), &self.shared.store);
        let release = move |_: &dyn TokenStore| {
            drop(lease);
            Ok(())
        };
        store.call_detached(self.wait(now), self.patience, self.request.grant, now, release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
