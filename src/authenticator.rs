use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};

use crate::background;
use crate::cache::{Cache, Claim, Landing, Lead, Waited};
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::endpoint::retry::NO_TIME;
use crate::error::{ConfigError, Error};
use crate::event::{Event, Hook, LOG};
use crate::grant::Grant;
use crate::source::{Fetched, TokenRequest, TokenSource};
use crate::status::Status;
use crate::token::{Outcome, Token};

/// The longest that a renewal delays the caller who makes it.
const INLINE_RENEWAL: Duration = Duration::from_secs(3);

/// Gets access tokens, caches them until they expire, and renews them ahead of time.
///
/// Clones share one cache, so that cloning is cheap. Any number of threads can use it.
///
/// ```no_run
/// use weseedo_auth::{Authenticator, Environment, Grant};
///
/// let authenticator = Authenticator::new(Environment::Sandbox)?;
/// let token = authenticator.get_token(&Grant::from_env()?)?;
/// # Ok::<(), weseedo_auth::Error>(())
/// ```
///
/// Three methods drop tokens before they expire:
///
/// | method | drops | call it when |
/// |---|---|---|
/// | [`invalidate`](Self::invalidate) | one token | the API refused the token |
/// | [`forget`](Self::forget) | one grant's token, failure and secrets | a user has left |
/// | [`clear`](Self::clear) | everything of all grants | the program no longer needs any token |
#[derive(Clone)]
pub struct Authenticator(pub(crate) Arc<Shared>);

/// A caller of `get_token`: its clock, and what it does after its grant was rejected.
pub(crate) trait Caller: Clone + Send + 'static {
    fn now(&self) -> Moment {
        Moment::now()
    }

    /// Goes on with another grant if the outcome is a rejection and there is another grant. Takes no
    /// longer than the given time.
    fn recover(&self, _: &Outcome, _: &Grant, _: Duration) -> Option<Outcome> {
        None
    }
}

/// A caller without another grant to go on with.
impl Caller for () {}

pub(crate) struct Shared {
    pub(crate) cache: Arc<Cache>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) source: Box<dyn TokenSource>,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) renew_in_background: bool,
    pub(crate) hook: Arc<Hook>,
}

impl Authenticator {
    /// Returns a token for `grant`: the cached one while it is valid, else a new one.
    ///
    /// | the cached token | what `get_token` does |
    /// |---|---|
    /// | has more than the window remaining | returns it |
    /// | is within the window | returns it. If no renewal is running or paused, it first starts one in a thread of its own |
    /// | is missing or expired, and a fetch is running | waits for the outcome of that fetch, until its own `timeout` |
    /// | is missing or expired, and the last fetch failed a moment ago | returns that error at once |
    /// | is missing or expired | fetches one token, which all waiting callers get |
    ///
    /// The window is the last part of a token's lifetime, in which the token is renewed: see
    /// [`renew_before`](super::Builder::renew_before). [Timing](crate#timing) has all numbers.
    ///
    /// A token that the API refused counts as missing (see [`invalidate`](Self::invalidate)). If
    /// the next fetch fails for a transient reason, calls get the refused token again.
    ///
    /// A failed renewal is logged at `warn`, and the cached token stays in use. A failed fetch is
    /// remembered for its grant: from the second failure in a row on, calls return the error at
    /// once until a pause is over. A success, [`forget`](Self::forget) and [`clear`](Self::clear)
    /// end the pause.
    ///
    /// Call this once when your program starts, to find a wrong secret or an unreachable endpoint
    /// before the first user does.
    ///
    /// # Errors
    ///
    /// All callers that waited for one fetch get its error.
    ///
    /// - [`Error::Transport`]: the token endpoint was not reached, or gave no whole answer within
    ///   [`timeout`](super::Builder::timeout).
    /// - [`Error::Unavailable`]: the endpoint can't answer now, and the retries did not help.
    /// - [`Error::Rejected`]: the endpoint refused the grant or the request.
    /// - [`Error::InvalidResponse`]: the endpoint answered, but not with a usable token.
    /// - [`Error::Config`]: a logger or middleware called `get_token` for the grant whose token was
    ///   being fetched in its thread.
    pub fn get_token(&self, grant: &Grant) -> Result<Token, Error> {
        self.token_for(&(), grant, self.0.timeout)
    }

    /// Implements [`get_token`](Self::get_token) for a caller that has `time`.
    pub(crate) fn token_for(&self, caller: &impl Caller, grant: &Grant, time: Duration) -> Outcome {
        let start = caller.now();
        let mut now = start;
        // Not computed for a hit, which needs no deadline.
        let deadline = || start.monotonic + time;
        let outcome = loop {
            match self.0.cache.claim(grant, now) {
                Claim::Hit(token) => return Ok(token),
                Claim::Renew(token, lead) => {
                    return Ok(self.renew(token, lead, grant, deadline(), caller));
                }
                Claim::Wait(flight) => match flight.wait(deadline(), || caller.now()) {
                    Waited::Outcome(outcome) => break outcome,
                    Waited::StartOver => now = caller.now(),
                    // The flight may have landed in this very moment.
                    Waited::TimedOut => {
                        let token = self.0.cache.unexpired_token(grant, caller.now());
                        return token.ok_or_else(|| self.0.endpoint.timed_out(time));
                    }
                    Waited::OwnFlight => return Err(Error::Config(ConfigError::Reentrant)),
                },
                Claim::Failed(error) => break Err(error),
                Claim::Fetch(lead) => {
                    return self.fetch(lead, grant, None, deadline(), self.0.retries, caller);
                }
            }
        };
        let time = caller.now().until(deadline());
        caller.recover(&outcome, grant, time).unwrap_or(outcome)
    }

    /// Renews `token` in a thread and returns it. If there is no thread, renews it here and returns
    /// the new one.
    #[cold]
    fn renew(
        &self,
        token: Token,
        lead: Lead,
        grant: &Grant,
        deadline: Instant,
        caller: &impl Caller,
    ) -> Token {
        let unstarted = if self.0.renew_in_background {
            let (this, caller) = (self.clone(), caller.clone());
            let (grant, token) = (grant.clone(), token.clone());
            background::spawn(lead, move |lead| {
                let (deadline, retries) = (caller.now().monotonic + this.0.timeout, this.0.retries);
                // `fetch` has already logged the error and passed it to the event hook.
                let _ = this.fetch(lead, &grant, Some(&token), deadline, retries, &caller);
            })
        } else {
            Err(lead)
        };
        let Err(lead) = unstarted else { return token };
        let now = caller.now();
        let time = inline_time(now.until(deadline), token.lifetime().remaining(now));
        let deadline = now.monotonic + time;
        self.fetch(lead, grant, Some(&token), deadline, 0, caller).unwrap_or(token)
    }

    /// Fetches a token for all callers that wait, then reports what happened.
    #[cold]
    fn fetch(
        &self,
        lead: Lead,
        grant: &Grant,
        current: Option<&Token>,
        deadline: Instant,
        retries: u32,
        caller: &impl Caller,
    ) -> Outcome {
        let (clock, store_failure) = (&|| caller.now(), OnceCell::new());
        let request = TokenRequest { grant, current, deadline, retries, clock, store_failure };
        let start = clock();
        lead.flight.set_leader();
        let (outcome, from_store) = match self.0.source.fetch(&request) {
            Ok(Fetched::New(token)) => (Ok(token), false),
            Ok(Fetched::FromStore(token)) => (Ok(token), true),
            // Dropping the lead postpones the renewal.
            Ok(Fetched::LeftToAnotherProcess(token)) => return Ok(token),
            Err(error) => (Err(error), false),
        };
        let now = clock();
        let had_failed = self.0.cache.status(grant, now).last_error.is_some();
        let served = lead.land(landing(&outcome, now.until(deadline)), now);
        let recovered = caller.recover(&outcome, grant, now.until(deadline));
        let client_id = grant.client_id();
        // A rejected grant is no failure if another one has replaced it.
        if !matches!(recovered, Some(Ok(_))) {
            let (renewal, elapsed) = (current.is_some(), start.until(now.monotonic));
            let remaining = served.as_ref().map(|token| token.lifetime().remaining(now));
            let event = match &outcome {
                Ok(token) => {
                    let lifetime = token.lifetime().length;
                    Event::Obtained { client_id, renewal, from_store, elapsed, lifetime }
                }
                Err(error) => Event::Failed { client_id, renewal, elapsed, error, remaining },
            };
            event.report(&*self.0.hook);
            if had_failed && outcome.is_ok() {
                info!(target: LOG, "client {client_id:?}: tokens can be had again");
            }
        }
        if let Some(error) = request.store_failure.get() {
            Event::StoreFailed { client_id, error: &**error }.report(&*self.0.hook);
        }
        recovered.unwrap_or_else(|| served.map_or(outcome, Ok))
    }

    /// Drops `token` from the cache because the API refused it before it expired. Never drops a
    /// newer token.
    ///
    /// Threads that had the same token refused may all call this; one new token is fetched for all
    /// of them. That token is kept for a while (see [Timing](crate#timing)), so that an API path
    /// that refuses every token doesn't cost a token request for each call. A token that was
    /// requested before the refusal is not kept, because it may have been revoked as well.
    /// [`with_token`](Self::with_token) and [`Bearer`](super::Bearer) call this on their own.
    ///
    /// A token that is dropped is also removed from the store, if there is one, and is never loaded
    /// from there again. The call waits only briefly for a slow store; the removal goes on in a
    /// thread.
    pub fn invalidate(&self, grant: &Grant, token: &Token) {
        self.invalidate_at(grant, token, Moment::now());
    }

    pub(crate) fn invalidate_at(&self, grant: &Grant, token: &Token, now: Moment) {
        // Before the cache drops the token: the next fetch must not find it in the store.
        self.0.source.refuse(token, now);
        let Some(refusals) = self.0.cache.invalidate(grant, token, now) else { return };
        // Before the event hook, which may panic: other processes must not find the token either.
        self.0.source.remove(grant, token, now);
        let (client_id, age) = (grant.client_id(), token.lifetime().start.until(now.monotonic));
        Event::TokenRefused { client_id, age }.report(&*self.0.hook);
        if refusals >= 3 {
            warn!(
                target: LOG,
                "client {client_id:?}: {refusals} tokens in a row were refused early: either \
                 another process fetches tokens with the same credentials and the server revokes \
                 the older ones (share tokens through a store, or use a client for each process), \
                 or the token lacks a right"
            );
        }
    }

    /// Returns the state of a grant: the remaining time of its token, and how the last fetch ended.
    ///
    /// Makes no request and waits for none, so that a health check can call it at any rate.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Grant};
    ///
    /// fn health(authenticator: &Authenticator, grant: &Grant) -> String {
    ///     let status = authenticator.status(grant);
    ///     match (status.remaining, status.last_error) {
    ///         (Some(_), None) => "ok".to_owned(),
    ///         (Some(left), Some(_)) => format!("degraded: renewals fail, {} s left", left.as_secs()),
    ///         (None, Some(error)) => format!("down: {error}"),
    ///         (None, None) => "down: no token yet".to_owned(),
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn status(&self, grant: &Grant) -> Status {
        self.0.cache.status(grant, Moment::now())
    }

    /// Drops everything about one grant from the cache: for a secret that was replaced, or a user
    /// who has left. Secrets and tokens are wiped with their last clone.
    ///
    /// A running fetch goes on for the callers that wait for it, but its token is not cached.
    /// A store keeps its token, which no process finds without the secrets. [Limits](crate#limits)
    /// says how long secrets stay in memory without this call.
    pub fn forget(&self, grant: &Grant) {
        self.0.cache.forget(grant);
    }

    /// Drops all tokens and failures of all grants from the cache. Secrets and tokens are wiped
    /// with their last clone.
    ///
    /// A running fetch goes on for the callers that wait for it, but its token is not cached. A
    /// store keeps its tokens.
    pub fn clear(&self) {
        self.0.cache.clear();
    }
}

fn landing(outcome: &Outcome, remaining: Duration) -> Landing {
    match outcome.clone() {
        Ok(token) => Landing::Token(token),
        Err(error) if remaining < NO_TIME => Landing::OutOfTime(error.into()),
        Err(error) => Landing::Failed(error.into()),
    }
}

/// How long a renewal may delay its caller.
fn inline_time(time: Duration, remaining: Duration) -> Duration {
    time.min(INLINE_RENEWAL).min(remaining / 2)
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (endpoint, tokens) = (self.0.endpoint.address.uri(), self.0.cache.tokens());
        write!(f, "Authenticator {{ token_endpoint: {endpoint}, cached_tokens: {tokens}, .. }}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
