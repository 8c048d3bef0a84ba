use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ureq::http::header::{AUTHORIZATION, HeaderValue};
use ureq::http::{Request, Response, StatusCode};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Agent, Body, SendBody};

use crate::authenticator::Authenticator;
use crate::error::Error;
use crate::grant::Grant;
use crate::grant_source::GrantSource;
use crate::token::Token;

/// ureq middleware that puts the token on API calls: `Authorization: Bearer …` (RFC 6750 section
/// 2.1).
///
/// Only requests to the environment's own scheme, host and port get the header, and never the token
/// endpoint; a request that has an `Authorization` header already is left alone. The value is
/// marked sensitive. An answer with status 401 makes the [`Authenticator`] forget the token that
/// was sent (see [`Authenticator::invalidate`]); the request itself is not repeated, since its body
/// may be gone: for that there is [`Authenticator::with_token`].
///
/// In an agent of your own, add it after all other middleware, so that it sees the URL that is
/// asked. ureq drops the header when it follows a redirect; leave the agent's
/// `redirect_auth_headers` like that: the other choice takes another port for the same host, and
/// would carry the token there.
///
/// An [`Error`] on the way to a token ends the request; [`Error::from_ureq`] tells it from an error
/// of the call itself. Where the token endpoint rejects the grant, its [`GrantSource`] is asked for
/// another one, and the call goes on with that, once.
#[derive(Clone)]
pub struct Bearer {
    authenticator: Authenticator,
    source: GrantSource,
    /// The grant in use. The lock is never held while the source is asked.
    current: Arc<Mutex<Option<Grant>>>,
}

impl Authenticator {
    /// Returns middleware for a [`ureq::Agent`] of your own.
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
    pub fn bearer(&self, grant: impl Into<GrantSource>) -> Bearer {
        let source = grant.into();
        let current = Arc::new(Mutex::new(source.fixed()));
        Bearer { authenticator: self.clone(), source, current }
    }

    /// Returns an agent for API calls: this `Authenticator`'s HTTP settings, and [`Bearer`].
    ///
    /// Make it once and keep it: it owns a pool of connections. Clones share the pool.
    ///
    /// It waits 10 s for a connection and 60 s for the head of an answer, and keeps up to 10 idle
    /// connections; [`Builder::http`](super::Builder::http) overrides that. Else ureq's own
    /// defaults hold: a 4xx or 5xx status is an error, and a body may take as long as it takes.
    /// Redirects are followed without the header, whatever `Builder::http` says.
    ///
    /// What a single request sets with its own `config()` is the caller's to answer for. With
    /// `redirect_auth_headers(SameHost)` ureq carries the token to another port of the same host;
    /// `https_only(false)`, `proxy` and `tls_config` change where and how it travels. A new agent
    /// made of this one's settings, `agent.config().new_agent()`, carries the token too, but its
    /// buffers are not wiped.
    #[must_use]
    pub fn agent(&self, grant: impl Into<GrantSource>) -> Agent {
        self.endpoint().api_agent(self.bearer(grant))
    }
}

impl Bearer {
    /// A token for a call, and the grant that it belongs to.
    fn token(&self) -> Result<(Grant, Token), ureq::Error> {
        let grant = self.grant(None)?;
        let rejected = match self.authenticator.get_token(&grant) {
            Ok(token) => return Ok((grant, token)),
            Err(error @ Error::Rejected { .. }) => error,
            Err(error) => return Err(error.into_ureq()),
        };
        let next = self.grant(Some(&grant))?;
        if next == grant {
            return Err(rejected.into_ureq());
        }
        let token = self.authenticator.get_token(&next).map_err(Error::into_ureq)?;
        Ok((next, token))
    }

    /// The grant in use, unless it is the one that was rejected: another thread may have found a
    /// newer one meanwhile. Else what the source says now.
    fn grant(&self, rejected: Option<&Grant>) -> Result<Grant, ureq::Error> {
        let is_newer = |grant: &Grant| rejected.is_none_or(|old| grant != old);
        if let Some(newer) = self.current().clone().filter(is_newer) {
            return Ok(newer);
        }
        let read = self.source.read().map_err(ureq::Error::Other)?;
        let mut current = self.current();
        Ok(match current.clone().filter(is_newer) {
            Some(newer) => newer,
            None => current.insert(read).clone(),
        })
    }

    fn current(&self) -> MutexGuard<'_, Option<Grant>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Middleware for Bearer {
    fn handle(
        &self,
        mut request: Request<SendBody>,
        next: MiddlewareNext,
    ) -> Result<Response<Body>, ureq::Error> {
        let is_ours = self.authenticator.endpoint().address().is_api(request.uri());
        if !is_ours || request.headers().contains_key(AUTHORIZATION) {
            return next.handle(request);
        }
        let (grant, token) = self.token()?;
        let mut value = HeaderValue::from_str(token.authorization())
            .map_err(|error| ureq::Error::Http(error.into()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);

        let result = next.handle(request);
        let is_refused = match &result {
            Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
            Err(error) => matches!(error, ureq::Error::StatusCode(401)),
        };
        if is_refused {
            self.authenticator.invalidate(&grant, &token);
        }
        result
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bearer = f.debug_struct("Bearer");
        if let Some(grant) = &*self.current() {
            bearer.field("grant", grant);
        }
        bearer.finish_non_exhaustive()
    }
}
