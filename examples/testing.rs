//! Tests code that calls the API: first without any server, then with a mock server.
//!
//! `cargo test --example testing` runs the tests at the end of the file.

use weseedo_auth::ureq::http::{Request, Response};
use weseedo_auth::ureq::middleware::{Middleware, MiddlewareNext};
use weseedo_auth::ureq::{self, Body, SendBody};
use weseedo_auth::{Authenticator, Bearer, Environment, Error, Grant};

/// The code under test. Its caller passes the `Authenticator`, so that a test can pass another.
struct Meetings {
    bearer: Bearer,
    agent: ureq::Agent,
    url: String,
}

impl Meetings {
    fn new(authenticator: &Authenticator, environment: &Environment, grant: Grant) -> Self {
        let bearer = authenticator.bearer(grant);
        let url = format!("{}/api/v2/personal/meetings", environment.base_url());
        Self { agent: bearer.agent(), bearer, url }
    }

    /// Fetches the first token, so that wrong settings show when the program starts.
    fn warm_up(&self) -> Result<(), Error> {
        self.bearer.token().map(drop)
    }

    fn list(&self) -> Result<String, ureq::Error> {
        self.agent.get(&self.url).call()?.body_mut().read_to_string()
    }
}

/// Answers the token request and the API call in place of the network.
///
/// The agent calls this middleware before it adds the token, so API calls have no `Authorization`
/// header yet. The test `one_token_is_used_for_all_calls` checks the header with a mock server.
#[expect(clippy::needless_pass_by_value, reason = "the signature of ureq's middleware")]
fn without_network(
    request: Request<SendBody>,
    _: MiddlewareNext,
) -> Result<Response<Body>, ureq::Error> {
    let body = match request.uri().path() {
        "/api/v2/oauth2/token" => {
            r#"{"access_token":"t0k3n","expires":"9999-12-31T23:59:59Z","token_type":"Bearer"}"#
        }
        "/api/v2/personal/meetings" => "[]",
        // An error, because ureq checks the status only of answers from the network.
        _ => return Err(ureq::Error::StatusCode(404)),
    };
    Ok(Response::new(Body::builder().mime_type("application/json").data(body)))
}

/// An authenticator whose requests this middleware answers.
///
/// Nothing listens at this address, so a test without the middleware would reach no real server.
fn offline(middleware: impl Middleware + Clone) -> Result<(Authenticator, Environment), Error> {
    let environment = Environment::Custom("http://127.0.0.1:1".to_owned());
    let authenticator = Authenticator::builder(environment.clone())
        .http(move |http| http.middleware(middleware.clone()))
        .retries(0) // so that the test of an outage does not wait
        .build()?;
    Ok((authenticator, environment))
}

/// In production, `Authenticator::new(Environment::Production)` takes the place of `offline`.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (authenticator, environment) = offline(without_network)?;
    let grant = Grant::client_credentials("demo", "demo secret");
    let meetings = Meetings::new(&authenticator, &environment, grant);
    meetings.warm_up()?;
    println!("meetings, without any server: {}", meetings.list()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant::client_credentials("id", "secret")
    }

    #[test]
    fn meetings_are_listed_without_a_server() {
        let (authenticator, environment) = offline(without_network).unwrap();
        let meetings = Meetings::new(&authenticator, &environment, grant());
        meetings.warm_up().unwrap();
        assert_eq!(meetings.list().unwrap(), "[]");
    }

    #[test]
    fn outage_is_transient() {
        let outage = |_: Request<SendBody>, _: MiddlewareNext| Err(ureq::Error::ConnectionFailed);
        let (authenticator, environment) = offline(outage).unwrap();
        let meetings = Meetings::new(&authenticator, &environment, grant());
        assert!(meetings.warm_up().unwrap_err().is_transient());
    }

    #[test]
    fn one_token_is_used_for_all_calls() {
        let mut server = mockito::Server::new();
        let body =
            r#"{"access_token":"t0k3n","expires":"9999-12-31T23:59:59Z","token_type":"Bearer"}"#;
        let token = server.mock("POST", "/api/v2/oauth2/token").with_body(body).expect(1).create();
        let list = server
            .mock("GET", "/api/v2/personal/meetings")
            .match_header("authorization", "Bearer t0k3n")
            .with_body("[]")
            .expect(2)
            .create();

        // Plain `http` is accepted on loopback, where mockito listens.
        let environment = Environment::Custom(server.url());
        let authenticator = Authenticator::new(environment.clone()).unwrap();
        let meetings = Meetings::new(&authenticator, &environment, grant());
        assert_eq!(meetings.list().unwrap(), "[]");
        assert_eq!(meetings.list().unwrap(), "[]");
        token.assert();
        list.assert();
    }

    #[test]
    fn wrong_secret_is_rejected() {
        let mut server = mockito::Server::new();
        let answer = server.mock("POST", "/api/v2/oauth2/token").with_status(401);
        answer.with_body(r#"{"error":"invalid_client"}"#).create();

        let environment = Environment::Custom(server.url());
        let authenticator = Authenticator::new(environment.clone()).unwrap();
        let error = Meetings::new(&authenticator, &environment, grant()).warm_up().unwrap_err();
        assert!(matches!(error, Error::Rejected { status: 401, .. }), "{error}");
    }
}
