use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, HeaderValue};
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Agent, Body, SendBody};

use crate::authenticator::{Authenticator, Caller};
use crate::back_off;
use crate::clock::{Moment, Span};
use crate::endpoint::take_has_sent_token;
use crate::error::Error;
use crate::grant::Grant;
use crate::grant_source::GrantSource;
use crate::status::Status;
use crate::token::{Outcome, Token};

/// The tokens of one grant, or of one [`GrantSource`]; also ureq middleware that puts them on API
/// calls.
///
/// A source is asked before the first use, and again whenever the token endpoint rejects the
/// current grant, also when a renewal is rejected. If the source then gives another grant, the call
/// goes on with that grant, once. After several rejected grants in a row, the source is left alone
/// for up to 30 s, or until [`forget`](Authenticator::forget) or [`clear`](Authenticator::clear).
///
/// # As middleware
///
/// Adds `Authorization: Bearer …` (RFC 6750 section 2.1) to requests for the environment's own
/// scheme, host and port, except for the token endpoint. A request that already has an
/// `Authorization` header is left alone. The value is marked sensitive. If the API answers 401, the
/// token that was sent counts as refused (see [`Authenticator::invalidate`]). The request is not
/// repeated: [`agent`](Self::agent) and [`with_token`](Self::with_token) do that.
///
/// In an agent of your own, add it after all other middleware, so that it sees the URL that is
/// asked. ureq drops the header when it follows a redirect. Leave the agent's
/// `redirect_auth_headers` like that: the other choice would carry the token to another port of the
/// same host.
///
/// If no token can be obtained, the request ends with that [`Error`]. [`Error::from_ureq`]
/// distinguishes it from an error of the call itself.
#[derive(Clone)]
pub struct Bearer {
    authenticator: Authenticator,
    source: GrantSource,
    state: Arc<Mutex<State>>,
}

/// The lock is never held while the source is asked.
struct State {
    /// The grant in use; `None` before the source was asked.
    grant: Option<Grant>,
    /// How many grants in a row were rejected that were to replace a rejected one, and the time when
    /// the source is not asked for another one.
    rejections: Option<(u32, Span)>,
}

impl Authenticator {
    /// Returns the tokens of a grant or a [`GrantSource`], which are also middleware for a
    /// [`ureq::Agent`] of your own.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Environment, Error, Grant, ureq};
    ///
    /// # let mut server = mockito::Server::new();
    /// # server.mock("POST", "/api/v2/oauth2/token").with_status(401).create();
    /// let environment = Environment::Sandbox;
    /// # let environment = Environment::Custom(server.url());
    /// let meetings = format!("{}/api/v2/personal/meetings", environment.base_url());
    /// let authenticator = Authenticator::new(environment)?;
    /// let grant = Grant::client_credentials("client id", "wrong secret");
    ///
    /// let config = ureq::Agent::config_builder().middleware(authenticator.bearer(grant));
    /// let agent = ureq::Agent::new_with_config(config.build());
    /// match agent.get(meetings).call() {
    ///     Ok(answer) => println!("the API answered {}", answer.status()),
    ///     // Without a token the API is not called.
    ///     Err(error) => match Error::from_ureq(&error) {
    ///         Some(error) => assert_eq!(error.status(), Some(401)),
    ///         None => println!("the call failed: {error}"),
    ///     },
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn bearer(&self, source: impl Into<GrantSource>) -> Bearer {
        let source = source.into();
        let state = State { grant: source.fixed.clone(), rejections: None };
        Bearer { authenticator: self.clone(), source, state: Arc::new(Mutex::new(state)) }
    }

    /// Returns an agent for API calls: [`bearer(source).agent()`](Bearer::agent).
    #[must_use]
    pub fn agent(&self, source: impl Into<GrantSource>) -> Agent {
        self.bearer(source).agent()
    }

    /// Calls `call` with a token, and once more with another token if it returns
    /// [`ureq::Error::StatusCode(401)`](ureq::Error::StatusCode): see [`Bearer::with_token`].
    ///
    /// # Errors
    ///
    /// The error of `call`, or an [`Error`] of [`get_token`](Self::get_token).
    /// [`Error::from_ureq`] distinguishes the two.
    pub fn with_token<T>(
        &self,
        grant: &Grant,
        call: impl FnMut(&Token) -> Result<T, ureq::Error>,
    ) -> Result<T, ureq::Error> {
        self.bearer(grant.clone()).with_token(call)
    }
}

impl Bearer {
    /// Returns a token of the current grant, as [`Authenticator::get_token`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Grant`] if the source gives no grant, and those of [`Authenticator::get_token`].
    pub fn token(&self) -> Result<Token, Error> {
        let grant = self.grant()?;
        // A success, `forget` and `clear` end the pause.
        let has_ended = |_: &mut _| self.authenticator.status(&grant).last_error.is_none();
        self.state().rejections.take_if(has_ended);
        self.authenticator.token_for(self, &grant, self.authenticator.0.timeout)
    }

    /// Calls `call` with a token, and once more with another token if it returns
    /// [`ureq::Error::StatusCode(401)`](ureq::Error::StatusCode).
    ///
    /// The refused token counts as missing from then on (see [`Authenticator::invalidate`]). There
    /// is no second call if no other token can be had. A second 401 is returned as it is, with one
    /// exception. If the second token was requested before the first refusal, by a renewal or
    /// another process, that token may have been revoked too, and the call is repeated again.
    ///
    /// ```
    /// use weseedo_auth::{Authenticator, Environment, Grant, ureq};
    ///
    /// # let mut server = mockito::Server::new();
    /// # let body = r#"{"access_token":"d33...59b","expires":"9999-12-31T23:59:59.999Z","token_type":"Bearer"}"#;
    /// # server.mock("POST", "/api/v2/oauth2/token").with_body(body).create();
    /// # server.mock("DELETE", "/api/v2/personal/meetings/7").with_status(204).create();
    /// let environment = Environment::Sandbox;
    /// # let environment = Environment::Custom(server.url());
    /// let meeting = format!("{}/api/v2/personal/meetings/7", environment.base_url());
    /// let authenticator = Authenticator::new(environment)?;
    /// let bearer = authenticator.bearer(Grant::client_credentials("client id", "client secret"));
    ///
    /// let answer = bearer.with_token(|token| {
    ///     ureq::delete(&meeting).header("authorization", token.authorization()).call()
    /// })?;
    /// assert_eq!(answer.status(), 204);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// To use your own certification authority or proxy, call through [`agent`](Self::agent). It
    /// has the settings of [`Builder::http`](super::Builder::http), and keeps an `Authorization`
    /// header that the request already has. With `http_status_as_error(false)` a 401 is no error:
    /// return `Err(ureq::Error::StatusCode(401))` for it.
    ///
    /// # Errors
    ///
    /// The error of `call`, or an [`Error`] of [`token`](Self::token). [`Error::from_ureq`]
    /// distinguishes the two.
    pub fn with_token<T>(
        &self,
        mut call: impl FnMut(&Token) -> Result<T, ureq::Error>,
    ) -> Result<T, ureq::Error> {
        let mut token = self.token().map_err(Error::into_ureq)?;
        let mut outcome = call(&token);
        let refused = Moment::now().monotonic;
        while matches!(outcome, Err(ureq::Error::StatusCode(401)))
            && token.lifetime().start.monotonic < refused
            && let Some(another) = self.another_token(&token)
        {
            outcome = call(&another);
            token = another;
        }
        outcome
    }

    /// Returns the state of the current grant, as [`Authenticator::status`] does. The state is
    /// empty until the source has returned a grant.
    #[must_use]
    pub fn status(&self) -> Status {
        let grant = self.state().grant.clone();
        grant.map(|grant| self.authenticator.status(&grant)).unwrap_or_default()
    }

    /// Returns an agent for API calls, with the HTTP settings of the [`Authenticator`] and this
    /// `Bearer` as middleware.
    ///
    /// Make it once and keep it, because it owns a pool of connections. Clones share the pool.
    ///
    /// If the API refuses a token with 401, the agent repeats the call once with another token, if
    /// there is one. It doesn't repeat a call whose method usually has a body (POST, PUT, PATCH),
    /// or, with the feature `wipe`, a call that was redirected. Nor does it repeat a call with its
    /// own settings (`config()`, `force_send_body()`). [`with_token`](Self::with_token) can repeat
    /// any call.
    ///
    /// [`Builder::http`](super::Builder::http) lists the agent's settings and changes them.
    /// Otherwise the agent has ureq's own defaults: a 4xx or 5xx status is an error, and a body may
    /// take any time. Redirects are followed without the header, whatever `Builder::http` says.
    ///
    /// The settings of a single request, made with its own `config()`, are your responsibility.
    /// With `redirect_auth_headers(SameHost)` ureq carries the token to another port of the same
    /// host; `https_only(false)`, `proxy` and `tls_config` change where and how it travels. A new
    /// agent made of this one's settings, `agent.config().new_agent()`, carries the token too, but
    /// its buffers are not wiped.
    #[must_use]
    pub fn agent(&self) -> Agent {
        let endpoint = &self.authenticator.0.endpoint;
        // The agent that repeats a call must not repeat it again.
        let pass = |call: Request<SendBody>, next: MiddlewareNext<'_>| next.handle(call);
        let agent = endpoint.api_agent(pass, self.clone());
        endpoint.api_agent(Repeat { bearer: self.clone(), agent }, self.clone())
    }

    /// The current grant. Asks the source if it was not asked yet.
    fn grant(&self) -> Result<Grant, Error> {
        let current = self.state().grant.clone();
        if let Some(grant) = current {
            return Ok(grant);
        }
        let grant = self.source.read()?;
        Ok(self.state().grant.get_or_insert(grant).clone())
    }

    /// Makes `refused` count as missing, and returns another token if there is one.
    fn another_token(&self, refused: &Token) -> Option<Token> {
        self.refuse(refused);
        self.token().ok().filter(|token| !token.is_same(refused))
    }

    /// Ignores a token of a grant that is no longer the current one.
    fn refuse(&self, token: &Token) {
        let current = self.state().grant.clone();
        if let Some(grant) = current {
            self.authenticator.invalidate(&grant, token);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller for Bearer {
    /// Goes on with another grant of the source. The rejected grant stays the current one while its
    /// token is valid and the other grant gives none.
    fn recover(&self, outcome: &Outcome, grant: &Grant, time: Duration) -> Option<Outcome> {
        let Err(Error::Rejected { .. }) = outcome else { return None };
        let now = Moment::now();
        let (current, rejections) = {
            let state = self.state();
            (state.grant.clone(), state.rejections)
        };
        let next = match current {
            // Another thread has found a newer grant meanwhile.
            Some(newer) if newer != *grant => newer,
            _ if rejections.is_some_and(|(_, pause)| !pause.has_ended(now)) => return None,
            _ => match self.source.read() {
                Ok(same) if same == *grant => return None,
                Ok(next) => next,
                Err(error) => return Some(Err(error)),
            },
        };
        let outcome = self.authenticator.token_for(&(), &next, time);
        let is_over = self.authenticator.status(grant).remaining.is_none();
        let mut state = self.state();
        if let Err(error @ Error::Rejected { .. }) = &outcome
            && is_over
            && state.grant.as_ref() != Some(&next)
        {
            let count = rejections.map_or(1, |(count, _)| count.saturating_add(1));
            let pause = Span::new(now, back_off::after_failure(count, error));
            state.rejections = Some((count, pause));
        }
        // Dropped after unlocking, because wiping takes a while.
        let _removed =
            if outcome.is_ok() || is_over { state.grant.replace(next) } else { Some(next) };
        drop(state);
        Some(outcome)
    }
}

impl Middleware for Bearer {
    fn handle(
        &self,
        mut request: Request<SendBody>,
        next: MiddlewareNext,
    ) -> Result<Response<Body>, ureq::Error> {
        let address = &self.authenticator.0.endpoint.address;
        if !address.is_api(request.uri()) || request.headers().contains_key(AUTHORIZATION) {
            return next.handle(request);
        }
        let token = self.token().map_err(Error::into_ureq)?;
        let mut value = HeaderValue::from_str(token.authorization())
            .map_err(|error| ureq::Error::Http(error.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
        let slot = request.extensions().get::<Refused>().cloned();

        // Clears the record of an earlier request.
        let _ = take_has_sent_token();
        let result = next.handle(request);
        let is_refused = match &result {
            Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
            Err(error) => matches!(error, ureq::Error::StatusCode(401)),
        };
        // ureq drops the header when it follows a redirect, so a 401 after that says nothing about
        // the token. Without a record every 401 counts: without `wipe`, and in a user's own agent.
        if is_refused && take_has_sent_token() != Some(false) {
            self.refuse(&token);
            let _ = slot.map(|slot| slot.set(token));
        }
        result
    }
}

/// The slot for a token that the API refused, in the extensions of a request.
type Refused = Arc<OnceLock<Token>>;

/// Middleware that repeats a call once if the API refused its token. Comes before the user's
/// middleware, so that a repeated call passes through that as any other call.
struct Repeat {
    bearer: Bearer,
    /// An agent like the one that has this middleware, but without it.
    agent: Agent,
}

impl Middleware for Repeat {
    fn handle(
        &self,
        request: Request<SendBody>,
        next: MiddlewareNext,
    ) -> Result<Response<Body>, ureq::Error> {
        let methods = [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS, Method::TRACE];
        // ureq adds one extension to each request, and others for settings or a forced body, which
        // can't be distinguished from outside.
        if !methods.contains(request.method()) || request.extensions().len() != 1 {
            return next.handle(request);
        }
        let (mut parts, body) = request.into_parts();
        let again = Request::from_parts(parts.clone(), ());
        let refused = Refused::default();
        parts.extensions.insert(refused.clone());
        let result = next.handle(Request::from_parts(parts, body));
        match refused.get() {
            Some(token) if self.bearer.another_token(token).is_some() => self.agent.run(again),
            _ => result,
        }
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("grant", &self.state().grant).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::support::{Server, answer, token_for_an_hour};

    #[test]
    fn grant_that_gives_no_token_does_not_replace_one_whose_token_lasts() {
        let server = Server::answering(|n| match n {
            0 => token_for_an_hour("t"),
            _ => answer("401 No", "", ""),
        });
        let reads =
            Mutex::new(["wrong", "old"].map(|secret| Grant::client_credentials("id", secret)));
        let source = GrantSource::new(move || {
            let mut reads = reads.lock().unwrap();
            reads.swap(0, 1);
            Ok(reads[0].clone())
        });
        let bearer = server.builder().build().unwrap().bearer(source);
        assert_eq!(bearer.token().unwrap().access_token(), "t");
        let rejected = bearer.grant().unwrap();
        let (status, code, description) = (401, None, None);
        let rejection = Err(Error::Rejected { status, code, description });
        let outcome = bearer.recover(&rejection, &rejected, Duration::from_secs(10));
        assert!(matches!(outcome, Some(Err(Error::Rejected { .. }))), "{outcome:?}");
        assert_eq!(bearer.token().unwrap().access_token(), "t");
        assert_eq!(server.connections(), 2);
    }
}
