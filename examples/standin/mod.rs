//! A stand-in for WeSeeDo on loopback, so that the examples run without an account: a token
//! endpoint, and an API that accepts the endpoint's tokens. A program of your own needs none of it.

#![allow(dead_code, reason = "each example uses another part of this file")]

use std::env;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mockito::{Matcher, Mock, Request, Server, ServerGuard};
use time::OffsetDateTime;
use weseedo_auth::{Environment, Grant};

pub const HOUR: Duration = Duration::from_secs(3600);
/// The list of meetings. Its field names are made up, because WeSeeDo's page does not show them.
pub const MEETINGS: &str = r#"[{"id":"7","start":"2030-05-01T09:00:00Z"}]"#;

pub struct Standin {
    server: ServerGuard,
    token_requests: Arc<AtomicUsize>,
}

impl Standin {
    /// Starts a stand-in that accepts every client and gives tokens for an hour.
    pub fn start() -> Self {
        let mut standin = Self { server: Server::new(), token_requests: Arc::default() };
        standin.set_lifetime(HOUR);
        standin.on_api_call("GET", Matcher::Any, |_| true, 404, "not found");
        let meetings = || Matcher::Exact("/api/v2/personal/meetings".to_owned());
        standin.on_api_call("GET", meetings(), has_token, 200, MEETINGS);
        standin.on_api_call("POST", meetings(), has_token, 201, r#"{"id":"8"}"#);
        standin
    }

    pub fn base_url(&self) -> String {
        self.server.url()
    }

    /// Returns how many token requests there were, failed ones included.
    pub fn token_requests(&self) -> usize {
        self.token_requests.load(Ordering::SeqCst)
    }

    /// Gives tokens with this lifetime from now on.
    pub fn set_lifetime(&mut self, lifetime: Duration) {
        self.on_token_request(|_| true, 200, move |n| token_body(n, lifetime));
    }

    /// Accepts this client secret and no other from now on.
    pub fn reset_secret(&mut self, secret: &str) {
        let field = format!(r#""client_secret":"{secret}""#);
        let has_secret = move |request: &Request| {
            request.utf8_lossy_body().is_ok_and(|body| body.contains(&field))
        };
        self.on_token_request(|_| true, 401, |_| r#"{"error":"invalid_client"}"#.to_owned());
        self.on_token_request(has_secret, 200, |n| token_body(n, HOUR));
    }

    /// Answers token requests with 503 until the mock is removed.
    pub fn outage(&mut self) -> Mock {
        self.on_token_request(|_| true, 503, |_| String::new())
    }

    /// Refuses the tokens that were given so far.
    pub fn revoke_tokens(&mut self) {
        // Later tokens are greater, see `access_token`.
        let next = format!("Bearer {}", access_token(self.token_requests()));
        let is_older = move |request: &Request| authorization(request) < next.as_bytes();
        self.on_api_call("GET", Matcher::Any, is_older, 401, "");
    }

    /// Sets the answer to token requests of one kind. `body` gets the number of earlier requests.
    fn on_token_request(
        &mut self,
        is_for: impl Fn(&Request) -> bool + Send + Sync + 'static,
        status: usize,
        body: impl Fn(usize) -> String + Send + Sync + 'static,
    ) -> Mock {
        let count = Arc::clone(&self.token_requests);
        self.server
            .mock("POST", "/api/v2/oauth2/token")
            .match_request(is_for)
            .with_status(status)
            .with_body_from_request(move |_| body(count.fetch_add(1, Ordering::SeqCst)).into())
            // Without this, mockito prefers a mock without requests to the newest mock.
            .expect_at_least(0)
            .create()
    }

    /// Sets the answer to API calls of one kind.
    fn on_api_call(
        &mut self,
        method: &str,
        path: Matcher,
        is_for: impl Fn(&Request) -> bool + Send + Sync + 'static,
        status: usize,
        body: &str,
    ) {
        let mock = self.server.mock(method, path).match_request(is_for).with_status(status);
        mock.with_body(body).expect_at_least(0).create();
    }
}

/// Returns the environment and grant of the variables `WESEEDO_*`, or those of a stand-in if
/// `WESEEDO_CLIENT_ID` is not set. The stand-in runs until it is dropped.
pub fn from_env_or_started() -> Result<(Environment, Grant, Option<Standin>), Box<dyn Error>> {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    if !is_set("WESEEDO_CLIENT_ID") {
        println!("WESEEDO_CLIENT_ID is not set: talking to a stand-in");
        let standin = Standin::start();
        let environment = Environment::Custom(standin.base_url());
        return Ok((environment, Grant::client_credentials("demo", "demo secret"), Some(standin)));
    }
    if !is_set("WESEEDO_ENVIRONMENT") {
        return Err("set WESEEDO_ENVIRONMENT to sandbox, production or a URL".into());
    }
    Ok((env::var("WESEEDO_ENVIRONMENT")?.parse()?, Grant::from_env()?, None))
}

/// The body of the documented answer, with the `n`th token.
pub fn token_body(n: usize, lifetime: Duration) -> String {
    let token = access_token(n);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expires = OffsetDateTime::UNIX_EPOCH + since + lifetime;
    let (date, (hour, minute, second)) = (expires.date(), expires.to_hms());
    let expires = format!("{date}T{hour:02}:{minute:02}:{second:02}.000Z");
    format!(r#"{{"access_token":"{token}","expires":"{expires}","token_type":"Bearer"}}"#)
}

/// The `n`th token. Later ones are greater.
fn access_token(n: usize) -> String {
    format!("d33f00d{n:03}59b")
}

fn has_token(request: &Request) -> bool {
    authorization(request).starts_with(b"Bearer d33f00d")
}

fn authorization(request: &Request) -> &[u8] {
    request.header("authorization").first().map_or(b"", |value| value.as_bytes())
}
