use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::warn;

use crate::cache::{Cache, Claim, Lead};
use crate::clock::Now;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::grant::Grant;
use crate::jitter;
use crate::token::Token;

/// The longest that a renewal may keep the caller who makes it.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);

/// Gets access tokens, caches them until they expire, and renews them ahead of time.
///
/// A cheap handle: clones share one cache and can be used from many threads.
#[derive(Clone)]
pub struct Authenticator(Arc<Shared>);

struct Shared {
    cache: Cache,
    endpoint: Endpoint,
    timeout: Duration,
    retries: u32,
}

impl Authenticator {
    pub(crate) fn from_parts(
        cache: Cache,
        endpoint: Endpoint,
        timeout: Duration,
        retries: u32,
    ) -> Self {
        Self(Arc::new(Shared { cache, endpoint, timeout, retries }))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Returns a token for `grant`: the cached one while it lasts, else a new one.
    ///
    /// | the cached token | what happens |
    /// |---|---|
    /// | none, or over | one caller fetches, within `timeout` and with up to `retries` retries; the others wait for that one outcome |
    /// | more than the window left | it is returned |
    /// | within the window | the first caller renews it, in one attempt of at most 3 s; the others get the current one at once. A renewal that fails leaves the current token in use until it expires, is logged at `warn`, and is tried again no sooner than a tenth of the window (or the answer's `Retry-After`) later |
    ///
    /// The window is [`refresh_before`](super::Builder::refresh_before), at most a quarter of the token's lifetime, shortened by
    /// a random 0 to 25 % for each token. A token is over when the monotonic clock or the wall clock says so; its lifetime
    /// is `expires` less the answer's `Date`, so that a wrong local clock does no harm.
    ///
    /// # Errors
    ///
    /// All callers that waited for one fetch get its error.
    ///
    /// - [`Error::Transport`]: the token endpoint was not reached, or gave no whole answer within
    ///   [`timeout`](super::Builder::timeout).
    /// - [`Error::Unavailable`]: it answered 408, 429 or 5xx, to the last retry. If it named a `Retry-After` (at most 1 h
    ///   counts), calls that need a new token fail at once until that is over.
    /// - [`Error::Rejected`]: it answered another 4xx.
    /// - [`Error::InvalidResponse`]: it answered, but not with a usable token.
    pub fn get_token(&self, grant: &Grant) -> Result<Token, Error> {
        self.get_token_by(grant, Now::read)
    }

    /// [`get_token`](Self::get_token) by a given clock.
    fn get_token_by(&self, grant: &Grant, clock: impl Fn() -> Now + Copy) -> Result<Token, Error> {
        let mut now = clock();
        let start = now.monotonic;
        // Not worked out for a hit, which needs none.
        let deadline = || start + self.0.timeout;
        loop {
            match self.0.cache.claim(grant, now) {
                Claim::Hit(token) => return Ok(token),
                Claim::Refused(error) => return Err(error),
                // Not a renewal, whose failure leaves a token to return.
                Claim::Follow(_) | Claim::Lead(Lead { is_renewal: false, .. })
                    if now.monotonic >= deadline() =>
                {
                    let timeout = ureq::Error::Timeout(ureq::Timeout::Global);
                    return Err(Error::Transport(Arc::new(timeout)));
                }
                Claim::Follow(flight) => {
                    if let Some(outcome) = flight.wait(now, deadline(), clock) {
                        return outcome;
                    }
                }
                Claim::Lead(lead) if lead.is_renewal => {
                    let outcome = self.renew(grant, now, deadline(), clock);
                    lead.land(&outcome, clock());
                    if outcome.is_ok() {
                        return outcome;
                    }
                }
                Claim::Lead(lead) => {
                    let outcome = self.fetch(grant, now, deadline(), clock);
                    lead.land(&outcome, clock());
                    return outcome;
                }
            }
            now = clock();
        }
    }

    fn renew(
        &self,
        grant: &Grant,
        now: Now,
        deadline: Instant,
        clock: impl Fn() -> Now,
    ) -> Result<Token, Error> {
        let left = now.until(deadline).min(RENEWAL_TIMEOUT);
        let outcome = self.0.endpoint.fetch(grant, left, clock);
        if let Err(error) = &outcome {
            warn!("token not renewed, the current one stays in use until it expires: {error}");
        }
        outcome
    }

    fn fetch(
        &self,
        grant: &Grant,
        mut now: Now,
        deadline: Instant,
        clock: impl Fn() -> Now + Copy,
    ) -> Result<Token, Error> {
        let mut retries = 0..self.0.retries;
        loop {
            let error = match self.0.endpoint.fetch(grant, now.until(deadline), clock) {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let Some(retry) = retries.next().filter(|_| error.is_transient()) else {
                return Err(error);
            };
            let wait = back_off(retry).max(error.retry_after().unwrap_or_default());
            if wait >= clock().until(deadline) {
                return Err(error);
            }
            thread::sleep(wait);
            now = clock();
        }
    }

    /// Forgets `token`, and never a newer one: for when the API refused it before it expired.
    ///
    /// Threads that had the same token refused may all call this; one new token is fetched for all of them.
    /// [`with_token`](Self::with_token) and [`Bearer`](super::Bearer) do this on their own.
    pub fn invalidate(&self, grant: &Grant, token: &Token) {
        self.0.cache.invalidate(grant, token);
    }

    /// Forgets all tokens, and every `Retry-After`.
    ///
    /// A fetch in flight goes on for those who wait for it, but its token is not cached.
    pub fn clear(&self) {
        self.0.cache.clear();
    }

    /// Calls `call` with a token, and once more with a new one if it returns [`ureq::Error::StatusCode(401)`](ureq::Error::StatusCode).
    ///
    /// The token that was refused is forgotten (see [`invalidate`](Self::invalidate)). A second 401 is returned as it is.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Environment, Grant, ureq};
    ///
    /// # let mut server = mockito::Server::new();
    /// # let body = r#"{"access_token":"d33...59b","expires":"9999-12-31T23:59:59.999Z","token_type":"Bearer"}"#;
    /// # server.mock("POST", "/api/v2/oauth/token").with_body(body).create();
    /// # server.mock("DELETE", "/api/v2/meetings/7").with_status(401).create();
    /// # server.mock("DELETE", "/api/v2/meetings/7").with_status(204).create();
    /// let environment = Environment::Sandbox;
    /// # let environment = Environment::Custom(server.url());
    /// let meeting = format!("{}/api/v2/meetings/7", environment.base_url());
    /// let authenticator = Authenticator::new(environment)?;
    /// let grant = Grant::client_credentials("client id", "client secret");
    ///
    /// let answer = authenticator.with_token(&grant, |token| {
    ///     ureq::delete(&meeting).header("authorization", token.authorization()).call()
    /// })?;
    /// assert_eq!(answer.status(), 204);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// What `call` returns, or an [`Error`] of [`get_token`](Self::get_token) in [`ureq::Error::Other`], to be downcast.
    pub fn with_token<T>(
        &self,
        grant: &Grant,
        mut call: impl FnMut(&Token) -> Result<T, ureq::Error>,
    ) -> Result<T, ureq::Error> {
        let token = self.token_for_call(grant)?;
        match call(&token) {
            Err(ureq::Error::StatusCode(401)) => {
                self.invalidate(grant, &token);
                call(&self.token_for_call(grant)?)
            }
            outcome => outcome,
        }
    }

    /// [`get_token`](Self::get_token) on the way to an API call, whose errors are ureq's.
    pub(crate) fn token_for_call(&self, grant: &Grant) -> Result<Token, ureq::Error> {
        self.get_token(grant).map_err(|error| ureq::Error::Other(Box::new(error)))
    }
}

/// Full jitter over 100 ms · 2ⁿ, at most 2 s.
fn back_off(retry: u32) -> Duration {
    let longest = FIRST_BACK_OFF.saturating_mul(2_u32.saturating_pow(retry));
    jitter::part_of(longest.min(LONGEST_BACK_OFF))
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("token_endpoint", &format_args!("{}", self.0.endpoint.uri()))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use mockito::{Mock, Server, ServerGuard};

    use super::*;
    use crate::environment::Environment;
    use crate::error::InvalidResponse;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);

    /// An `Authenticator`, its endpoint, and a clock that only the test moves.
    struct World {
        server: ServerGuard,
        authenticator: Authenticator,
        grant: Grant,
        start: Now,
        since: Cell<Duration>,
    }

    impl World {
        fn new() -> Self {
            let server = Server::new();
            let builder = Authenticator::builder(Environment::Custom(server.url()));
            let authenticator = builder.retries(0).timeout(MINUTE).build().unwrap();
            let grant = Grant::client_credentials("id", "s3cr3t");
            Self { server, authenticator, grant, start: Now::read(), since: Cell::default() }
        }

        /// From now on the endpoint answers with a token for an hour.
        fn serves(&mut self, access_token: &str) -> Mock {
            let body =
                r#"{"expires":"2021-12-31T01:00:00Z","token_type":"Bearer","access_token":""#;
            self.answers(200, &format!("{body}{access_token}\"}}"))
        }

        fn answers(&mut self, status: usize, body: &str) -> Mock {
            self.server.reset();
            let mock = self.server.mock("POST", "/api/v2/oauth/token").with_status(status);
            mock.with_header("date", "Fri, 31 Dec 2021 00:00:00 GMT").with_body(body).create()
        }

        fn get_at(&self, since: Duration) -> Result<String, Error> {
            self.since.set(since);
            let clock = || self.start.plus(self.since.get());
            let token = self.authenticator.get_token_by(&self.grant, clock)?;
            Ok(token.access_token().to_owned())
        }
    }

    #[test]
    fn token_is_renewed_ahead_of_time() {
        let mut world = World::new();
        world.serves("old");
        assert_eq!(world.get_at(Duration::ZERO).unwrap(), "old");
        let renewed = world.serves("new").expect(1);
        assert_eq!(world.get_at(HOUR - MINUTE * 6).unwrap(), "old");
        assert_eq!(world.get_at(HOUR - MINUTE).unwrap(), "new");
        assert_eq!(world.get_at(HOUR + MINUTE).unwrap(), "new");
        renewed.assert();
    }

    #[test]
    fn outage_that_ends_before_the_token_does_is_not_noticed() {
        let mut world = World::new();
        world.serves("old");
        world.get_at(Duration::ZERO).unwrap();
        let outage = world.answers(503, "").expect_at_least(5).expect_at_most(11);
        for second in (HOUR.as_secs() - 300..HOUR.as_secs() - 1).map(Duration::from_secs) {
            assert_eq!(world.get_at(second).unwrap(), "old");
        }
        outage.assert();
        world.serves("new");
        assert_eq!(world.get_at(HOUR).unwrap(), "new");
    }

    #[test]
    fn outage_that_outlasts_the_token_is_told() {
        let mut world = World::new();
        world.serves("old");
        world.get_at(Duration::ZERO).unwrap();
        world.answers(503, "");
        assert_eq!(world.get_at(HOUR - MINUTE).unwrap(), "old");
        assert_eq!(world.get_at(HOUR).unwrap_err().status(), Some(503));
        world.serves("new");
        assert_eq!(world.get_at(HOUR).unwrap(), "new", "nothing is remembered of the failure");
    }

    #[test]
    fn renewal_that_is_refused_is_no_error_while_the_token_lasts() {
        let mut world = World::new();
        world.serves("old");
        world.get_at(Duration::ZERO).unwrap();
        for (status, body) in [(401, ""), (200, "<html>"), (302, "")] {
            world.answers(status, body);
            assert_eq!(world.get_at(HOUR - MINUTE).unwrap(), "old");
        }
    }

    #[test]
    fn who_renews_a_token_that_runs_out_meanwhile_fetches_in_the_same_call() {
        let mut world = World::new();
        world.serves("old");
        world.get_at(Duration::ZERO).unwrap();
        world.answers(500, "");
        world.since.set(HOUR - MINUTE);
        // Each look at the clock moves it on by 20 s.
        let clock = || {
            world.since.set(world.since.get() + MINUTE / 3);
            Now { monotonic: world.start.monotonic, ..world.start.plus(world.since.get()) }
        };
        let error = world.authenticator.get_token_by(&world.grant, clock).unwrap_err();
        assert_eq!(
            error.status(),
            Some(500),
            "the error of a fetch, since that of a renewal is told to nobody"
        );
    }

    #[test]
    fn call_that_starts_over_has_what_is_left_of_its_time() {
        let mut world = World::new();
        world.serves("old");
        world.get_at(Duration::ZERO).unwrap();
        let renewal = world.answers(500, "").expect(1);
        world.since.set(HOUR - MINUTE);
        // Each look at the clock moves it on by 20 s, past the deadline and the end of the token.
        let clock = || {
            world.since.set(world.since.get() + MINUTE / 3);
            world.start.plus(world.since.get())
        };
        let error = world.authenticator.get_token_by(&world.grant, clock).unwrap_err();
        assert!(
            matches!(&error, Error::Transport(e) if matches!(**e, ureq::Error::Timeout(_))),
            "{error:?}"
        );
        renewal.assert();
    }

    #[test]
    fn token_that_was_over_before_it_arrived_is_refused() {
        let mut world = World::new();
        world.serves("old");
        for (minutes, is_in_time) in [(40, true), (80, false)] {
            world.authenticator.clear();
            // Each look at the clock moves it on by so much: from sending to arrival it is looked at twice.
            let clock = || {
                world.since.set(world.since.get() + MINUTE * minutes);
                Now { monotonic: world.start.monotonic, ..world.start.plus(world.since.get()) }
            };
            match world.authenticator.get_token_by(&world.grant, clock) {
                Ok(_) => assert!(is_in_time),
                Err(Error::InvalidResponse(InvalidResponse::Expired)) => assert!(!is_in_time),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        for (retry, limit) in
            [(0, 100), (1, 200), (4, 1600), (5, 2000), (40, 2000), (u32::MAX, 2000)]
        {
            let longest = (0..200).map(|_| back_off(retry)).max().unwrap();
            let limit = Duration::from_millis(limit);
            assert!(longest < limit && longest > limit * 8 / 10, "{retry}: {longest:?}");
        }
    }
}
