use std::fmt;

use ureq::http::header::{AUTHORIZATION, HeaderValue};
use ureq::http::{Request, Response, StatusCode};
use ureq::middleware::{Middleware, MiddlewareNext};
use ureq::{Agent, Body, SendBody};

use crate::authenticator::Authenticator;
use crate::grant::Grant;

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
/// An [`Error`](super::Error) on the way to a token ends the request with [`ureq::Error::Other`],
/// to be downcast.
#[derive(Clone)]
pub struct Bearer {
    authenticator: Authenticator,
    grant: Grant,
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
    pub fn bearer(&self, grant: Grant) -> Bearer {
        Bearer { authenticator: self.clone(), grant }
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
    pub fn agent(&self, grant: Grant) -> Agent {
        self.endpoint().api_agent(self.bearer(grant))
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
        let token = self.authenticator.token_for_call(&self.grant)?;
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
            self.authenticator.invalidate(&self.grant, &token);
        }
        result
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("grant", &self.grant).finish_non_exhaustive()
    }
}
