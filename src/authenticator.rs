use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;

use crate::background;
use crate::cache::{Cache, Claim, Landing, Lead, Waited};
use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::endpoint::retry::NO_TIME;
use crate::error::Error;
use crate::event::{Event, Hook, StoreError};
use crate::grant::Grant;
use crate::source::{Errand, Fetched, Source};
use crate::status::Status;
use crate::token::Token;

/// The longest that a renewal may hold up the caller who makes it, where no thread can.
const INLINE_RENEWAL: Duration = Duration::from_secs(3);

/// Gets access tokens, caches them until they expire, and renews them ahead of time.
///
/// A cheap handle: clones share one cache and can be used from many threads.
#[derive(Clone)]
pub struct Authenticator(Arc<Shared>);

struct Shared {
    cache: Arc<Cache>,
    endpoint: Arc<Endpoint>,
    source: Box<dyn Source>,
    timeout: Duration,
    renew_in_background: bool,
    hook: Hook,
}

impl Authenticator {
    pub(crate) fn from_parts(
        cache: Arc<Cache>,
        endpoint: Arc<Endpoint>,
        source: Box<dyn Source>,
        timeout: Duration,
        renew_in_background: bool,
        hook: Hook,
    ) -> Self {
        Self(Arc::new(Shared { cache, endpoint, source, timeout, renew_in_background, hook }))
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    /// Returns a token for `grant`: the cached one while it lasts, else a new one.
    ///
    /// | the cached token | what happens |
    /// |---|---|
    /// | more than the window left | it is returned |
    /// | within the window | it is returned, always. If no renewal is under way or pausing, this call starts one in a thread that ends with it |
    /// | none, or over; a fetch is under way | the call waits for that one outcome, until its own `timeout` |
    /// | none, or over; the last fetch failed a moment ago | it fails at once with that error |
    /// | none, or over | it fetches, for everybody |
    ///
    /// The window is [`refresh_before`](super::Builder::refresh_before), at most a quarter of the
    /// token's lifetime, shortened by a random 0 to 25 % for each token. A token is over when the
    /// monotonic clock or the wall clock says so. Its lifetime is `expires` less the answer's
    /// `Date`, so that a wrong local clock does no harm, and less 1 s since `Date` is cut to whole
    /// seconds (of a lifetime under 2 s, less half).
    ///
    /// A fetch has [`timeout`](super::Builder::timeout) and [`retries`](super::Builder::retries):
    /// each attempt but the last gets half of the time that is left, so that a connection that went
    /// silent is given up while there is time for another. A renewal in a thread has the same. One
    /// that fails is logged at `warn` and leaves the token in use; the next is due a tenth of the
    /// window later, or after the server's `Retry-After`. Where no thread can be had, or with
    /// [`renew_in_background(false)`](super::Builder::renew_in_background), the call renews the
    /// token itself, in one attempt of at most half of what the token has left, 3 s and `timeout`,
    /// and returns the old one if that fails.
    ///
    /// Failures are remembered for a moment, per grant. One is held against nobody; after more in a
    /// row the endpoint is left alone for 100 ms, 200 ms and so on up to 2 s after a transient one
    /// (see [`Error::is_transient`]), for 1 s, 2 s and so on up to 30 s after any other, each
    /// shortened by a random 0 to 25 %, and for the server's `Retry-After` (at most 1 h counts)
    /// from the first on. A success ends that, and so do [`forget`](Self::forget) and
    /// [`clear`](Self::clear).
    ///
    /// To find a wrong secret or an unreachable endpoint when a program starts, and not with its
    /// first user, call this once at the start.
    ///
    /// # Errors
    ///
    /// All callers that waited for one fetch get its error.
    ///
    /// - [`Error::Transport`]: the token endpoint was not reached, or gave no whole answer within
    ///   [`timeout`](super::Builder::timeout).
    /// - [`Error::Unavailable`]: it answered 408, 429 or 5xx, to the last retry.
    /// - [`Error::Rejected`]: it answered another 4xx.
    /// - [`Error::InvalidResponse`]: it answered, but not with a usable token.
    pub fn get_token(&self, grant: &Grant) -> Result<Token, Error> {
        self.get_token_by(grant, Moment::now)
    }

    /// [`get_token`](Self::get_token) by a given clock.
    fn get_token_by(
        &self,
        grant: &Grant,
        clock: impl Fn() -> Moment + Clone + Send + 'static,
    ) -> Result<Token, Error> {
        let (mut now, timeout) = (clock(), self.0.timeout);
        // The deadline is not worked out for a hit, which needs none.
        let start = now.monotonic;
        loop {
            match self.0.cache.claim(grant, now) {
                Claim::Hit(token) => return Ok(token),
                Claim::Renew(token, lead) => {
                    return Ok(self.renew(token, lead, grant, start + timeout, now, &clock));
                }
                Claim::Wait(flight) => match flight.wait(start + timeout, &clock) {
                    Waited::Outcome(outcome) => return outcome,
                    Waited::StartOver => now = clock(),
                    Waited::InVain => return Err(self.timed_out()),
                },
                Claim::Failed(error) => return Err(error),
                Claim::Fetch(_) if now.monotonic >= start + timeout => {
                    // Hands over to a waiter that has time left.
                    return Err(self.timed_out());
                }
                Claim::Fetch(lead) => {
                    let deadline = start + timeout;
                    let errand = Errand { grant, in_hand: None, deadline, is_brief: false };
                    return self.fetch(lead, &errand, &clock);
                }
            }
        }
    }

    /// Returns the token that is in hand, or the new one where the caller had to fetch it.
    #[cold]
    fn renew(
        &self,
        token: Token,
        mut lead: Lead,
        grant: &Grant,
        deadline: Instant,
        now: Moment,
        clock: &(impl Fn() -> Moment + Clone + Send + 'static),
    ) -> Token {
        if self.0.renew_in_background {
            let (this, grant, clock) = (self.clone(), grant.clone(), clock.clone());
            let in_hand = token.clone();
            let renew = move |lead| {
                let deadline = clock().monotonic + this.0.timeout;
                let in_hand = Some(&in_hand);
                let errand = Errand { grant: &grant, in_hand, deadline, is_brief: false };
                // A failure is logged, and told to the hook.
                let _ = this.fetch(lead, &errand, &clock);
            };
            lead = match background::spawn(lead, renew) {
                Ok(()) => return token,
                Err(lead) => lead,
            };
        }
        let time = inline_time(now.until(deadline), token.lifetime().left(now));
        let deadline = now.monotonic + time;
        let errand = Errand { grant, in_hand: Some(&token), deadline, is_brief: true };
        self.fetch(lead, &errand, clock).unwrap_or(token)
    }

    /// Fetches a token for everybody who waits for one, then reports what happened.
    #[cold]
    fn fetch(
        &self,
        lead: Lead,
        errand: &Errand<'_>,
        clock: &impl Fn() -> Moment,
    ) -> Result<Token, Error> {
        let start = clock();
        match self.0.source.fetch(errand, clock) {
            Fetched::New { outcome, is_from_store, store_failure } => {
                let now = clock();
                lead.land(landing(&outcome, errand, now), now);
                self.tell(errand, &outcome, is_from_store, start, now);
                self.tell_of_store(errand.grant, store_failure);
                outcome
            }
            // Nothing lands, so the renewal is due again later.
            Fetched::BeingRenewed(token) => Ok(token),
        }
    }

    fn timed_out(&self) -> Error {
        self.0.endpoint.timed_out(self.0.timeout)
    }

    fn tell_of_store(&self, grant: &Grant, failure: Option<StoreError>) {
        if let Some(error) = failure {
            let client_id = grant.client_id();
            (self.0.hook)(&Event::StoreFailed { client_id, error: &*error });
        }
    }

    fn tell(
        &self,
        errand: &Errand<'_>,
        outcome: &Result<Token, Error>,
        is_from_store: bool,
        start: Moment,
        now: Moment,
    ) {
        let (client_id, is_renewal) = (errand.grant.client_id(), errand.in_hand.is_some());
        let took = start.until(now.monotonic);
        let event = match outcome {
            Ok(token) => {
                let lifetime = token.lifetime().length();
                Event::Obtained { client_id, is_renewal, is_from_store, took, lifetime }
            }
            Err(error) => {
                if is_renewal {
                    warn!(
                        "token not renewed, the current one stays in use until it expires: {error}"
                    );
                }
                let token_left = errand.in_hand.map(|token| token.lifetime().left(now));
                let token_left = token_left.filter(|left| !left.is_zero());
                Event::Failed { client_id, is_renewal, took, error, token_left }
            }
        };
        (self.0.hook)(&event);
    }

    /// Forgets `token`, and never a newer one: for when the API refused it before it expired.
    ///
    /// Threads that had the same token refused may all call this; one new token is fetched for all
    /// of them. That token is not forgotten for a refusal within 10 s of its arrival, so that an
    /// API path which refuses every token costs a token request in 10 s, not one a call; unless it
    /// was asked for before the refusal, and may have been revoked as well.
    /// [`with_token`](Self::with_token) and [`Bearer`](super::Bearer) do this on their own.
    ///
    /// A token that is forgotten is also removed from the store, if there is one, which is waited
    /// for, and one that was refused is not taken from there again.
    pub fn invalidate(&self, grant: &Grant, token: &Token) {
        self.invalidate_by(grant, token, Moment::now);
    }

    fn invalidate_by(&self, grant: &Grant, token: &Token, clock: impl Fn() -> Moment) {
        let now = clock();
        // Before the cache forgets it, or whoever looks for another one might find it again.
        self.0.source.refuse(token, now);
        let Some(age) = self.0.cache.invalidate(grant, token, now) else { return };
        (self.0.hook)(&Event::Refused { client_id: grant.client_id(), age });
        self.tell_of_store(grant, self.0.source.remove(grant, token, &clock));
    }

    /// Returns how a grant stands: what is left of its token, and what came of the last request.
    ///
    /// It makes no request and waits for none, so that a health check can ask as often as it likes.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Grant};
    ///
    /// fn health(authenticator: &Authenticator, grant: &Grant) -> String {
    ///     let status = authenticator.status(grant);
    ///     match (status.token_left, status.last_error) {
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

    /// Forgets all that belongs to one grant, its secrets included, and wipes it: for when a secret
    /// was replaced, or a user has left.
    ///
    /// A fetch in flight goes on for those who wait for it, but its token is not cached. Without
    /// this, a grant's secrets stay in memory until its token is over and the next fetch of any
    /// grant has ended. A store keeps its token, which takes the secrets to find.
    pub fn forget(&self, grant: &Grant) {
        self.0.cache.forget(grant);
    }

    /// Forgets all tokens, and every failure, of all grants.
    ///
    /// A fetch in flight goes on for those who wait for it, but its token is not cached. A store
    /// keeps its tokens.
    pub fn clear(&self) {
        self.0.cache.clear();
    }

    /// Calls `call` with a token, and once more with another one if it returns
    /// [`ureq::Error::StatusCode(401)`](ureq::Error::StatusCode).
    ///
    /// The token that was refused is forgotten (see [`invalidate`](Self::invalidate)). Where that
    /// is not done, since it has just replaced another refused one, there is no second call. A
    /// second 401 is returned as it is, but for a token that was asked for before the first
    /// refusal, by a renewal under way or by another process: then there is a third call.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Environment, Grant, ureq};
    ///
    /// # let mut server = mockito::Server::new();
    /// # let body = r#"{"access_token":"d33...59b","expires":"9999-12-31T23:59:59.999Z","token_type":"Bearer"}"#;
    /// # server.mock("POST", "/api/v2/oauth2/token").with_body(body).create();
    /// # server.mock("DELETE", "/api/v2/personal/meetings/7").with_status(401).create();
    /// # server.mock("DELETE", "/api/v2/personal/meetings/7").with_status(204).create();
    /// let environment = Environment::Sandbox;
    /// # let environment = Environment::Custom(server.url());
    /// let meeting = format!("{}/api/v2/personal/meetings/7", environment.base_url());
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
    /// For a certification authority or a proxy of your own, call through
    /// [`agent`](Self::agent)`(grant)`, which has the settings of
    /// [`Builder::http`](super::Builder::http) and leaves a header that is there alone. With
    /// `http_status_as_error(false)` a 401 is no error: return
    /// `Err(ureq::Error::StatusCode(401))` for it.
    ///
    /// # Errors
    ///
    /// What `call` returns, or an [`Error`] of [`get_token`](Self::get_token), which
    /// [`Error::from_ureq`] tells from it.
    pub fn with_token<T>(
        &self,
        grant: &Grant,
        mut call: impl FnMut(&Token) -> Result<T, ureq::Error>,
    ) -> Result<T, ureq::Error> {
        let mut token = self.get_token(grant).map_err(Error::into_ureq)?;
        let mut outcome = call(&token);
        let refused = Instant::now();
        for _ in 0..2 {
            if !matches!(outcome, Err(ureq::Error::StatusCode(401))) {
                break;
            }
            self.invalidate(grant, &token);
            let another = self.get_token(grant).map_err(Error::into_ureq)?;
            if another.ptr_eq(&token) {
                break;
            }
            outcome = call(&another);
            if another.lifetime().start().monotonic >= refused {
                break;
            }
            // It is as old as the refused one, and may have been revoked together with it.
            token = another;
        }
        outcome
    }
}

fn landing(outcome: &Result<Token, Error>, errand: &Errand<'_>, now: Moment) -> Landing {
    let is_out_of_time = now.until(errand.deadline) < NO_TIME;
    match outcome.clone() {
        Ok(token) => Landing::Token(token),
        // So short an attempt says too little to those who wait and have more time.
        Err(error) if is_out_of_time || errand.is_brief => Landing::OutOfTime(error.into()),
        Err(error) => Landing::Failed(error.into()),
    }
}

/// How long a renewal may hold its caller up.
fn inline_time(left: Duration, token_left: Duration) -> Duration {
    left.min(INLINE_RENEWAL).min(token_left / 2)
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("token_endpoint", &format_args!("{}", self.endpoint().address().uri()))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #[cfg(feature = "store")]
    mod fleet;

    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use ureq::SendBody;
    use ureq::http::Request;
    use ureq::middleware::MiddlewareNext;

    use super::*;
    use crate::builder::Builder;
    use crate::error::InvalidResponse;
    use crate::support::{Gate, Server, answer, token_answer, wait_until};

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// An `Authenticator`, its endpoint, and a clock that only the test moves.
    struct World {
        server: Server,
        answer: Arc<Mutex<String>>,
        authenticator: Authenticator,
        grant: Grant,
        clock: Clock,
    }

    #[derive(Clone)]
    struct Clock(Arc<Mutex<Moment>>);

    impl Clock {
        fn now(&self) -> Moment {
            *self.0.lock().unwrap()
        }

        fn advance(&self, monotonic: Duration, wall: Duration) {
            let mut now = self.0.lock().unwrap();
            *now = now.later(monotonic, wall);
        }
    }

    impl World {
        fn new(set: impl FnOnce(Builder) -> Builder) -> Self {
            let answer = Arc::new(Mutex::new(String::new()));
            let theirs = Arc::clone(&answer);
            let server = Server::answering(move |_| theirs.lock().unwrap().clone());
            Self::at(server, answer, set)
        }

        fn at(
            server: Server,
            answer: Arc<Mutex<String>>,
            set: impl FnOnce(Builder) -> Builder,
        ) -> Self {
            let builder = server.builder().retries(0).timeout(MINUTE);
            let authenticator = set(builder).build().unwrap();
            let grant = Grant::client_credentials("id", "s3cr3t");
            let clock = Clock(Arc::new(Mutex::new(Moment::now())));
            Self { server, answer, authenticator, grant, clock }
        }

        /// A world in which the caller renews.
        fn inline() -> Self {
            Self::new(|builder| builder.renew_in_background(false))
        }

        /// From now on the endpoint answers with a token for an hour.
        fn serves(&self, access_token: &str) {
            self.answers(&token_for_an_hour(access_token));
        }

        fn answers(&self, answer: &str) {
            answer.clone_into(&mut self.answer.lock().unwrap());
        }

        fn get(&self) -> Result<String, Error> {
            let clock = self.clock.clone();
            let token = self.authenticator.get_token_by(&self.grant, move || clock.now())?;
            Ok(token.access_token().to_owned())
        }

        fn get_after(&self, time: Duration) -> Result<String, Error> {
            self.clock.advance(time, time);
            self.get()
        }
    }

    /// With the second that is taken off.
    fn token_for_an_hour(access_token: &str) -> String {
        token_answer(access_token, HOUR + SECOND)
    }

    #[test]
    fn token_is_renewed_ahead_of_time_by_a_thread() {
        let world = World::new(|builder| builder);
        world.serves("old");
        assert_eq!(world.get().unwrap(), "old");
        world.serves("new");
        assert_eq!(world.get_after(HOUR - MINUTE * 6).unwrap(), "old");
        assert_eq!(world.server.connections(), 1);
        assert_eq!(world.get_after(MINUTE * 5).unwrap(), "old");
        wait_until(|| world.get().unwrap() == "new");
        assert_eq!(world.get_after(MINUTE * 2).unwrap(), "new");
        assert_eq!(world.server.connections(), 2);
    }

    #[test]
    fn valid_token_is_returned_at_once_while_its_renewal_stalls() {
        let gate = Gate::default();
        let theirs = gate.clone();
        let server = Server::answering(move |n| {
            theirs.pass();
            token_for_an_hour(if n == 0 { "old" } else { "new" })
        });
        let world = World::at(server, Arc::default(), |builder| builder);
        world.get().unwrap();
        gate.close();
        assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "old");
        wait_until(|| world.server.connections() == 2);
        for _ in 0..100 {
            assert_eq!(world.get().unwrap(), "old");
        }
        assert_eq!(world.server.connections(), 2, "one renewal, however many find it due");
        gate.open();
        wait_until(|| world.get().unwrap() == "new");
    }

    #[test]
    fn renewal_in_a_thread_has_the_retries_of_a_fetch() {
        let server = Server::answering(|n| match n {
            1 | 2 => answer("503 Busy", "", ""),
            n => token_for_an_hour(&format!("t{n}")),
        });
        let world = World::at(server, Arc::default(), |builder| builder.retries(2));
        world.get().unwrap();
        world.get_after(HOUR - MINUTE).unwrap();
        wait_until(|| world.get().unwrap() == "t3");
    }

    #[test]
    fn renewal_in_a_thread_has_the_timeout_of_a_fetch() {
        let server = Server::answering(|n| {
            if n > 0 {
                thread::sleep(SECOND * 7 / 2);
            }
            token_for_an_hour(&format!("t{n}"))
        });
        let world = World::at(server, Arc::default(), |builder| builder);
        world.get().unwrap();
        world.get_after(HOUR - MINUTE).unwrap();
        wait_until(|| world.get().unwrap() != "t0");
        assert_eq!(world.get().unwrap(), "t1", "the first renewal was waited for");
    }

    #[test]
    fn renewal_that_panics_leaves_the_token_in_use() {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let world = World::new(|builder| {
            builder.http(move |http| {
                let count = Arc::clone(&count);
                http.middleware(move |request: Request<SendBody>, next: MiddlewareNext| {
                    let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
                    assert!(is_first, "in the middle of a renewal");
                    next.handle(request)
                })
            })
        });
        world.serves("old");
        world.get().unwrap();
        for renewals in 1..=2 {
            let time = if renewals == 1 { HOUR - MINUTE * 2 } else { MINUTE };
            assert_eq!(world.get_after(time).unwrap(), "old");
            wait_until(|| {
                assert_eq!(world.get().unwrap(), "old");
                requests.load(Ordering::SeqCst) == 1 + renewals
            });
        }
    }

    #[test]
    fn renewals_are_told_as_such() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&told);
        let world = World::new(|builder| {
            builder.renew_in_background(false).on_event(move |event| {
                theirs.lock().unwrap().push(match event {
                    Event::Obtained { is_renewal, lifetime, .. } => (*is_renewal, *lifetime),
                    Event::Failed { is_renewal, token_left, .. } => {
                        (*is_renewal, token_left.unwrap())
                    }
                    other => panic!("{other:?}"),
                });
            })
        });
        world.serves("old");
        world.get().unwrap();
        world.answers(&answer("503 Busy", "", ""));
        world.get_after(HOUR - MINUTE * 2).unwrap();
        world.serves("new");
        world.get_after(MINUTE).unwrap();
        let expected = [(false, HOUR), (true, MINUTE * 2), (true, HOUR)];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    #[test]
    fn caller_renews_where_no_thread_may() {
        let world = World::inline();
        world.serves("old");
        world.get().unwrap();
        world.serves("new");
        assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "new");
        assert_eq!(world.get_after(MINUTE * 2).unwrap(), "new");
        assert_eq!(world.server.connections(), 2);
    }

    /// Runs the test again, in a process that gets no thread.
    #[test]
    #[cfg(feature = "wipe")]
    fn caller_renews_where_no_thread_can_be_had() {
        const NO_THREADS: &str = "WESEEDO_AUTH_NO_THREADS";
        const NAME: &str = "authenticator::tests::caller_renews_where_no_thread_can_be_had";
        let Ok(base_url) = std::env::var(NO_THREADS) else {
            let server = Server::answering(|n| token_for_an_hour(&format!("t{n}")));
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", NAME, "--test-threads", "1", "--nocapture"]);
            // No machine has so much memory for a thread's stack.
            child.env("RUST_MIN_STACK", (usize::MAX / 4).to_string());
            let output = child.env(NO_THREADS, &server.base_url).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert_eq!(server.connections(), 2);
            return;
        };
        assert!(thread::Builder::new().spawn(|| ()).is_err(), "or this shows nothing");
        let environment = crate::environment::Environment::Custom(base_url);
        let builder = Authenticator::builder(environment);
        let (authenticator, grant) =
            (builder.build().unwrap(), Grant::client_credentials("a", "b"));
        let start = Moment::now();
        for (time, text) in [(Duration::ZERO, "t0"), (HOUR - MINUTE, "t1"), (HOUR, "t1")] {
            let token = authenticator.get_token_by(&grant, move || start.plus(time)).unwrap();
            assert_eq!(token.access_token(), text);
        }
    }

    #[test]
    fn renewal_by_the_caller_is_bounded_while_the_endpoint_stalls() {
        let server = Server::stalling(|n| n > 0, token_for_an_hour("old"));
        let world = World::at(server, Arc::default(), |b| b.renew_in_background(false));
        world.get().unwrap();
        let start = Instant::now();
        assert_eq!(world.get_after(HOUR - SECOND).unwrap(), "old");
        // Half of the second that the token has left.
        assert!(start.elapsed() < SECOND * 5 / 2, "{:?}", start.elapsed());
    }

    #[test]
    fn renewal_by_the_caller_takes_half_of_what_is_left_at_most() {
        assert_eq!(inline_time(MINUTE, SECOND * 4), SECOND * 2);
        assert_eq!(inline_time(MINUTE, MINUTE * 5), SECOND * 3);
        assert_eq!(inline_time(SECOND, MINUTE * 5), SECOND);
    }

    #[test]
    fn outage_that_ends_before_the_token_does_is_not_noticed() {
        let world = World::inline();
        world.serves("old");
        world.get().unwrap();
        world.answers(&answer("503 Busy", "", ""));
        world.get_after(HOUR - SECOND * 300).unwrap();
        for _ in 0..299 {
            assert_eq!(world.get_after(SECOND).unwrap(), "old");
        }
        let asked = world.server.connections() - 1;
        assert!((5..=14).contains(&asked), "{asked}");
        world.serves("new");
        assert_eq!(world.get_after(SECOND).unwrap(), "new");
    }

    #[test]
    fn outage_that_outlasts_the_token_is_told() {
        let world = World::inline();
        world.serves("old");
        world.get().unwrap();
        world.answers(&answer("503 Busy", "", ""));
        assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "old");
        assert_eq!(world.get_after(MINUTE).unwrap_err().status(), Some(503));
        world.serves("new");
        assert_eq!(world.get().unwrap(), "new", "one failure is held against nobody");
    }

    #[test]
    fn renewal_that_is_refused_is_no_error_while_the_token_lasts() {
        for text in [answer("401 No", "", ""), answer("200 OK", "", "<html>"), String::new()] {
            let world = World::inline();
            world.serves("old");
            world.get().unwrap();
            world.answers(&text);
            assert_eq!(world.get_after(HOUR - MINUTE).unwrap(), "old");
            assert_eq!(world.server.connections(), 2);
        }
    }

    #[test]
    fn wall_clock_set_right_during_the_request_does_no_harm() {
        for is_ahead in [true, false] {
            let clock = Clock(Arc::new(Mutex::new(Moment::now())));
            let theirs = clock.clone();
            let server = Server::answering(move |_| {
                let mut now = theirs.0.lock().unwrap();
                let step = HOUR * 2;
                now.wall = if is_ahead { now.wall + step } else { now.wall - step };
                token_for_an_hour("t")
            });
            let authenticator = server.builder().build().unwrap();
            let (grant, now) = (Grant::client_credentials("id", "s3cr3t"), clock.clone());
            let token = authenticator.get_token_by(&grant, move || now.now()).unwrap();
            let left = token.lifetime().left(clock.now());
            assert_eq!(left, HOUR, "neither killed nor prolonged");
        }
    }

    #[test]
    fn token_that_was_over_before_it_arrived_is_refused() {
        let world = World::new(|builder| builder.timeout(HOUR * 24));
        world.serves("old");
        for (minutes, is_in_time) in [(40, true), (80, false)] {
            world.authenticator.clear();
            // Each look at the clock moves it on; from sending to arrival there is one.
            let clock = world.clock.clone();
            let slow = move || {
                clock.advance(MINUTE * minutes, Duration::ZERO);
                clock.now()
            };
            match world.authenticator.get_token_by(&world.grant, slow) {
                Ok(_) => assert!(is_in_time),
                Err(Error::InvalidResponse(InvalidResponse::Expired)) => assert!(!is_in_time),
                other => panic!("{other:?}"),
            }
        }
    }
}
