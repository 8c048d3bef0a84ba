//! The first token of a grant: the request, the answer, the cache.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use mockito::{Matcher, Server, ServerGuard};
use weseedo_auth::{
    Authenticator, Bearer, Builder, ConfigError, Credentials, Environment, Error, Event, Grant,
    GrantError, GrantSource, InvalidResponse, Secret, Status, Token, TransportError,
};

use crate::support::{
    HOUR, TOKEN_PATH, grant, read_request, token_answer, token_mock, token_mock_at,
};

fn builder(server: &ServerGuard) -> Builder {
    Authenticator::builder(Environment::Custom(server.url()))
}

fn authenticator(server: &ServerGuard) -> Authenticator {
    builder(server).build().unwrap()
}

#[test]
fn request_is_the_documented_one_for_each_grant() {
    for (grant, body) in [
        (
            Grant::client_credentials("id", "s3cr3t"),
            r#"{"grant_type":"client_credentials","client_id":"id","client_secret":"s3cr3t"}"#,
        ),
        (
            Grant::password("id", "s3cr3t", "jan", "p4ss"),
            r#"{"grant_type":"password","client_id":"id","client_secret":"s3cr3t","username":"jan","password":"p4ss"}"#,
        ),
    ] {
        let mut server = Server::new();
        let user_agent = concat!("weseedo-auth/", env!("CARGO_PKG_VERSION"));
        let mock = token_mock(&mut server, "t0k3n")
            .match_header("accept", "application/json")
            .match_header("content-type", "application/json")
            .match_header("content-length", body.len().to_string().as_str())
            .match_header("user-agent", user_agent)
            .match_header("accept-encoding", Matcher::Missing)
            .match_header("authorization", Matcher::Missing)
            .match_body(body)
            .create();
        let token = authenticator(&server).get_token(&grant).unwrap();
        assert_eq!(token.access_token(), "t0k3n");
        assert_eq!(token.authorization(), "Bearer t0k3n");
        mock.assert();
    }
}

#[test]
fn compressed_answers_are_not_requested_whatever_the_settings() {
    let mut server = Server::new();
    let mock =
        token_mock(&mut server, "t").match_header("accept-encoding", Matcher::Missing).create();
    let settings = builder(&server).http(|http| http.accept_encoding("gzip, br"));
    settings.build().unwrap().get_token(&grant()).unwrap();
    mock.assert();
}

#[test]
fn remaining_time_of_a_token_is_less_than_its_lifetime() {
    let mut server = Server::new();
    token_mock(&mut server, "t").create();
    let token = authenticator(&server).get_token(&grant()).unwrap();
    let remaining = token.remaining();
    let lifetime = HOUR.saturating_sub(Duration::from_secs(1));
    assert!(remaining < lifetime && remaining > HOUR / 2, "{remaining:?}");
}

#[test]
fn second_call_makes_no_request_on_any_clone() {
    let mut server = Server::new();
    let mock = token_mock(&mut server, "t0k3n").expect(1).create();
    let authenticator = authenticator(&server);
    let first = authenticator.get_token(&grant()).unwrap();
    let second = authenticator.clone().get_token(&grant()).unwrap();
    assert_eq!(first.access_token().as_ptr(), second.access_token().as_ptr());
    mock.assert();
}

#[test]
fn each_grant_has_its_own_token() {
    let mut server = Server::new();
    let right =
        token_mock(&mut server, "right").match_body(Matcher::Regex("s3cr3t".into())).create();
    let wrong = server
        .mock("POST", TOKEN_PATH)
        .match_body(Matcher::Regex("wr0ng".into()))
        .with_status(401)
        .create();
    let authenticator = authenticator(&server);
    authenticator.get_token(&grant()).unwrap();
    let error = authenticator.get_token(&Grant::client_credentials("id", "wr0ng")).unwrap_err();
    assert_eq!(error.status(), Some(401));
    right.assert();
    wrong.assert();
}

#[test]
fn prefix_and_token_path_make_the_url() {
    let mut server = Server::new();
    let mock = token_mock_at(&mut server, "/proxy/v3/token", "t").create();
    let environment = Environment::Custom(format!("{}/proxy/", server.url()));
    let authenticator =
        Authenticator::builder(environment).token_path("/v3/token").build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    mock.assert();
}

#[test]
fn ipv6_loopback_works() {
    // Not every machine has IPv6.
    let Ok(listener) = TcpListener::bind(("::1", 0)) else {
        return;
    };
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    assert!(base_url.starts_with("http://[::1]:"));
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream);
        stream.write_all(token_answer("t", HOUR).as_bytes()).unwrap();
    });
    let authenticator = Authenticator::new(Environment::Custom(base_url)).unwrap();
    authenticator.get_token(&grant()).unwrap();
}

#[test]
fn rejection_is_returned_and_not_retried() {
    let mut server = Server::new();
    let mock = server
        .mock("POST", TOKEN_PATH)
        .with_status(401)
        .with_body(r#"{"error":"invalid_client","error_description":"client is disabled"}"#)
        .expect(1)
        .create();
    match authenticator(&server).get_token(&grant()).unwrap_err() {
        Error::Rejected { status: 401, code, description, .. } => {
            assert_eq!(code.as_deref(), Some("invalid_client"));
            assert_eq!(description.as_deref(), Some("client is disabled"));
        }
        other => panic!("{other:?}"),
    }
    mock.assert();
}

#[test]
fn error_for_a_wrong_path_names_the_url_and_the_setting() {
    for (status, body, said) in
        [(404, "<html>", ""), (405, r#"{"message":"no such route"}"#, "no such route: ")]
    {
        let mut server = Server::new();
        server.mock("POST", TOKEN_PATH).with_status(status).with_body(body).create();
        let error = authenticator(&server).get_token(&grant()).unwrap_err();
        let text = format!(
            "token request rejected with status {status}: {said}no token endpoint at {}{TOKEN_PATH}: look its path up in the \
             environment's OpenAPI document and set it with Builder::token_path",
            server.url()
        );
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn unavailable_endpoint_is_retried_as_often_as_set() {
    for (retries, requests) in [(0, 1), (1, 2)] {
        let mut server = Server::new();
        let mock = server.mock("POST", TOKEN_PATH).with_status(503).expect(requests).create();
        let error =
            builder(&server).retries(retries).build().unwrap().get_token(&grant()).unwrap_err();
        assert!(
            matches!(error, Error::Unavailable { status: 503, retry_after: None, .. }),
            "{error:?}"
        );
        mock.assert();
    }
}

#[test]
fn unusable_answer_is_not_retried() {
    let mut server = Server::new();
    let mock = server.mock("POST", TOKEN_PATH).with_body("<html>").expect(1).create();
    let error = authenticator(&server).get_token(&grant()).unwrap_err();
    assert!(matches!(error, Error::InvalidResponse(InvalidResponse::Body(_))), "{error:?}");
    mock.assert();
}

#[test]
fn no_request_is_made_before_retry_after_has_passed() {
    let mut server = Server::new();
    let mock = server
        .mock("POST", TOKEN_PATH)
        .with_status(429)
        .with_header("retry-after", "60")
        .expect(1)
        .create();
    let authenticator = authenticator(&server);
    for _ in 0..3 {
        let error = authenticator.get_token(&grant()).unwrap_err();
        assert_eq!(error.status(), Some(429));
        let seconds = error.retry_after().unwrap().as_secs_f64();
        assert!((50.0..=66.0).contains(&seconds), "{seconds}");
    }
    mock.assert();
}

#[test]
fn types_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Authenticator>();
    shared::<Builder>();
    shared::<Bearer>();
    shared::<Credentials>();
    shared::<Environment>();
    shared::<Error>();
    shared::<ConfigError>();
    shared::<GrantError>();
    shared::<TransportError>();
    shared::<InvalidResponse>();
    shared::<Grant>();
    shared::<GrantSource>();
    shared::<Secret>();
    shared::<Status>();
    shared::<Token>();
    #[cfg(feature = "store")]
    {
        use weseedo_auth::{FileStore, Lease, StoreError, Stored, TokenStore};

        shared::<FileStore>();
        shared::<Lease>();
        shared::<StoreError>();
        shared::<Stored>();
        shared::<Box<dyn TokenStore>>();
    }
}

/// A variant that is added breaks no program. `_` would be unreachable if an enum were exhaustive.
#[deny(unreachable_patterns)]
#[expect(clippy::match_like_matches_macro, reason = "its `_` is never reported as unreachable")]
#[test]
fn enums_can_grow() {
    fn error(error: &Error) -> bool {
        match error {
            Error::Config(_)
            | Error::Grant(_)
            | Error::Transport(_)
            | Error::Rejected { .. }
            | Error::Unavailable { .. }
            | Error::InvalidResponse(_) => true,
            _ => false,
        }
    }
    fn config(error: &ConfigError) -> bool {
        match error {
            ConfigError::BaseUrl(_)
            | ConfigError::TokenPath(_)
            | ConfigError::Timeout
            | ConfigError::Capacity
            | ConfigError::Reentrant
            | ConfigError::Http(_) => true,
            _ => false,
        }
    }
    fn response(response: &InvalidResponse) -> bool {
        match response {
            InvalidResponse::Status(_)
            | InvalidResponse::Body(_)
            | InvalidResponse::Field { .. }
            | InvalidResponse::Redirect { .. }
            | InvalidResponse::Expired => true,
            _ => false,
        }
    }
    fn event(event: &Event<'_>) -> bool {
        match event {
            Event::Obtained { .. }
            | Event::Failed { .. }
            | Event::TokenRefused { .. }
            | Event::StoreFailed { .. } => true,
            _ => false,
        }
    }
    fn grant(grant: &Grant) -> bool {
        match grant {
            Grant::ClientCredentials(_) | Grant::Password(_) => true,
            _ => false,
        }
    }
    fn environment(environment: &Environment) -> bool {
        match environment {
            Environment::Sandbox | Environment::Production | Environment::Custom(_) => true,
            _ => false,
        }
    }
    assert!(grant(&Grant::client_credentials("a", "b")) && environment(&Environment::Sandbox));
    assert!(response(&InvalidResponse::Expired) && config(&ConfigError::Timeout));
    let _ = (error, event);
}

#[test]
fn debug_texts_hold_nothing_secret() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    let grant = Grant::password("id", "s3cr3t", "jan", "p4ss");
    let authenticator = authenticator(&server);
    let token = authenticator.get_token(&grant).unwrap();
    assert_eq!(format!("{token:?}"), "Token { expires_at: 2021-12-31 1:00:00.0 +00:00:00, .. }");
    assert_eq!(
        format!("{authenticator:?}"),
        format!(
            "Authenticator {{ token_endpoint: {}{TOKEN_PATH}, cached_tokens: 1, .. }}",
            server.url()
        )
    );
    assert_eq!(
        format!("{:?}", authenticator.bearer(grant)),
        "Bearer { grant: Some(Password(Credentials { client_id: \"id\", .. })), .. }"
    );
    let source = GrantSource::new(|| Ok(Grant::client_credentials("id", "s3cr3t")));
    assert_eq!(format!("{source:?}"), "GrantSource(..)");
    assert_eq!(format!("{:?}", authenticator.bearer(source)), "Bearer { grant: None, .. }");
    assert_eq!(
        format!("{:?}", Authenticator::builder(Environment::Sandbox)),
        "Builder { environment: Sandbox, token_path: \"/api/v2/oauth2/token\", .. }"
    );
}
