//! API calls that carry the token, and requests that must not carry it.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use mockito::{Matcher, Mock, Server, ServerGuard};
use weseedo_auth::ureq::config::RedirectAuthHeaders;
use weseedo_auth::ureq::http::Request;
use weseedo_auth::ureq::middleware::MiddlewareNext;
use weseedo_auth::ureq::{self, Agent, SendBody};
use weseedo_auth::{Authenticator, Builder, Environment, Error};

use crate::support::{self, HOUR, TOKEN_PATH, answer, grant, token_answer, token_mock};

fn builder(server: &ServerGuard) -> Builder {
    Authenticator::builder(Environment::Custom(server.url()))
}

fn api_mock(server: &mut ServerGuard, authorization: impl Into<Matcher>) -> Mock {
    server.mock("GET", "/api/v2/personal/meetings").match_header("authorization", authorization)
}

fn meetings(server: &ServerGuard) -> String {
    format!("{}/api/v2/personal/meetings", server.url())
}

#[test]
fn agent_adds_the_token_and_has_the_settings() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n")
        .match_header("user-agent", "clinic/1.0")
        .expect(1)
        .create();
    let api = api_mock(&mut server, "Bearer t0k3n")
        .match_header("user-agent", "clinic/1.0")
        .expect(2)
        .create();
    let authenticator =
        builder(&server).http(|http| http.user_agent("clinic/1.0")).build().unwrap();
    let agent = authenticator.agent(grant());
    for _ in 0..2 {
        agent.get(meetings(&server)).call().unwrap();
    }
    tokens.assert();
    api.assert();
}

#[test]
fn middleware_works_in_the_users_own_agent() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    let api = api_mock(&mut server, "Bearer t0k3n").create();
    let bearer = builder(&server).build().unwrap().bearer(grant());
    let agent: Agent = Agent::config_builder().middleware(bearer).build().into();
    agent.get(meetings(&server)).call().unwrap();
    api.assert();
}

#[test]
fn other_origins_get_no_header() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n").expect(0).create();
    let mut other = Server::new();
    let api = api_mock(&mut other, Matcher::Missing).expect(1).create();
    let agent = builder(&server).build().unwrap().agent(grant());
    agent.get(meetings(&other)).call().unwrap();
    // The same server under another name is another origin.
    let renamed = meetings(&server).replace("127.0.0.1", "localhost");
    agent.get(renamed).call().unwrap_err();
    tokens.assert();
    api.assert();
}

#[test]
fn redirect_to_another_host_does_not_carry_the_header() {
    let mut other = Server::new();
    let elsewhere = api_mock(&mut other, Matcher::Missing).expect(1).create();
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    let redirect = api_mock(&mut server, "Bearer t0k3n")
        .with_status(302)
        .with_header("location", &meetings(&other))
        .expect(1)
        .create();
    // Another port is another origin, but ureq's `SameHost` ignores ports.
    let settings =
        builder(&server).http(|http| http.redirect_auth_headers(RedirectAuthHeaders::SameHost));
    settings.build().unwrap().agent(grant()).get(meetings(&server)).call().unwrap();
    redirect.assert();
    elsewhere.assert();
}

#[test]
fn token_endpoint_gets_no_header() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n")
        .match_header("authorization", Matcher::Missing)
        .expect(2)
        .create();
    let authenticator = builder(&server).build().unwrap();
    authenticator.agent(grant()).post(format!("{}{TOKEN_PATH}", server.url())).send("").unwrap();
    // A token request adds no header either if its own agent has the middleware.
    let bearer = authenticator.bearer(grant());
    let authenticator =
        builder(&server).http(move |http| http.middleware(bearer.clone())).build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    tokens.assert();
}

#[test]
fn authorization_header_of_the_caller_is_kept() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n").expect(0).create();
    let api = api_mock(&mut server, "Basic abc").create();
    let agent = builder(&server).build().unwrap().agent(grant());
    agent.get(meetings(&server)).header("Authorization", "Basic abc").call().unwrap();
    tokens.assert();
    api.assert();
}

#[test]
fn refused_token_is_forgotten_whether_or_not_statuses_are_errors() {
    for statuses_are_errors in [true, false] {
        let mut server = Server::new();
        let tokens = token_mock(&mut server, "t0k3n").expect(2).create();
        api_mock(&mut server, "Bearer t0k3n").with_status(401).create();
        let settings =
            builder(&server).http(move |http| http.http_status_as_error(statuses_are_errors));
        let authenticator = settings.build().unwrap();
        let outcome = authenticator.agent(grant()).get(meetings(&server)).call();
        assert_eq!(outcome.is_err(), statuses_are_errors);
        authenticator.get_token(&grant()).unwrap();
        tokens.assert();
    }
}

#[test]
fn other_statuses_leave_the_token_in_use() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n").expect(1).create();
    api_mock(&mut server, "Bearer t0k3n").with_status(403).create();
    let authenticator = builder(&server).build().unwrap();
    authenticator.agent(grant()).get(meetings(&server)).call().unwrap_err();
    authenticator.get_token(&grant()).unwrap();
    tokens.assert();
}

#[test]
fn error_of_a_token_request_is_distinguished_from_an_error_of_the_call() {
    let mut server = Server::new();
    server.mock("POST", TOKEN_PATH).with_status(401).create();
    let api = api_mock(&mut server, Matcher::Any).expect(0).create();
    let authenticator = builder(&server).build().unwrap();
    let by_agent = authenticator.agent(grant()).get(meetings(&server)).call().unwrap_err();
    let by_call = authenticator.with_token(&grant(), |_| Ok(())).unwrap_err();
    for error in [by_agent, by_call] {
        assert_eq!(Error::from_ureq(&error).unwrap().status(), Some(401));
    }
    api.assert();
}

/// Calls `with_token` with a call that returns the next of `statuses` each time. Returns the number
/// of calls and the outcome.
fn calls(authenticator: &Authenticator, statuses: &[u16]) -> (usize, Result<(), u16>) {
    let mut calls = 0;
    let outcome = authenticator.with_token(&grant(), |_| {
        calls += 1;
        match statuses[calls - 1] {
            200 => Ok(()),
            status => Err(ureq::Error::StatusCode(status)),
        }
    });
    let status = outcome.map_err(|error| match error {
        ureq::Error::StatusCode(status) => status,
        other => panic!("{other:?}"),
    });
    (calls, status)
}

#[test]
fn with_token_repeats_a_call_once_and_only_on_401() {
    let server = support::Server::answering(|n| token_answer(&format!("t{n}"), HOUR));
    let authenticator = server.builder().build().unwrap();
    assert_eq!(calls(&authenticator, &[200]), (1, Ok(())));
    assert_eq!(calls(&authenticator, &[403]), (1, Err(403)));
    assert_eq!(calls(&authenticator, &[500]), (1, Err(500)));
    assert_eq!(calls(&authenticator, &[401, 401]), (2, Err(401)));
    assert_eq!(server.connections(), 2);
}

#[test]
fn with_token_does_not_repeat_a_call_with_the_same_token() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n").expect(2).create();
    let authenticator = builder(&server).build().unwrap();
    assert_eq!(
        calls(&authenticator, &[401]),
        (1, Err(401)),
        "the endpoint returns the same token again"
    );
    assert_eq!(calls(&authenticator, &[401]), (1, Err(401)), "the token has just been replaced");
    assert_eq!(calls(&authenticator, &[200]), (1, Ok(())));
    tokens.assert();
}

#[test]
fn api_path_that_refuses_every_token_does_not_cause_a_token_request_per_call() {
    let mut server = Server::new();
    let tokens = token_mock(&mut server, "t0k3n").expect(2).create();
    let api = api_mock(&mut server, "Bearer t0k3n").with_status(401).expect(40).create();
    let authenticator = builder(&server).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let agent = authenticator.agent(grant());
                for _ in 0..10 {
                    agent.get(meetings(&server)).call().unwrap_err();
                }
            });
        }
    });
    api.assert();
    tokens.assert();
}

#[test]
fn error_of_the_call_itself_is_not_an_error_of_this_crate() {
    assert!(Error::from_ureq(&ureq::Error::StatusCode(401)).is_none());
    assert!(Error::from_ureq(&ureq::Error::Other("x".into())).is_none());
}

#[test]
fn agent_has_timeouts_unless_settings_change_them() {
    let server = Server::new();
    let timeouts = |builder: Builder| {
        let timeouts = builder.build().unwrap().agent(grant()).config().timeouts();
        (timeouts.connect, timeouts.recv_response)
    };
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(timeouts(builder(&server)), (seconds(10), seconds(60)));
    let settings = builder(&server)
        .http(|http| http.timeout_connect(None).timeout_recv_response(Some(Duration::ZERO)));
    assert_eq!(timeouts(settings), (None, seconds(0)));
}

#[test]
fn agent_keeps_ten_connections_to_the_api() {
    const THREADS: usize = 10;
    let together = Barrier::new(THREADS);
    let server = support::Server::keeping(move |request| {
        if request.starts_with("POST") {
            return token_answer("t", HOUR);
        }
        together.wait();
        answer("200 OK", "", "").replace("Connection: close\r\n", "")
    });
    let agent = server.builder().build().unwrap().agent(grant());
    let url = format!("{}/api", server.base_url);
    for _ in 0..2 {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| agent.get(&url).call().unwrap());
            }
        });
    }
    assert_eq!(server.connections(), 1 + THREADS);
}

#[test]
fn header_is_marked_sensitive() {
    let mut server = Server::new();
    token_mock(&mut server, "t0k3n").create();
    api_mock(&mut server, "Bearer t0k3n").create();
    let bearer = builder(&server).build().unwrap().bearer(grant());
    let agent: Agent = Agent::config_builder()
        .middleware(bearer)
        .middleware(|request: Request<SendBody>, next: MiddlewareNext| {
            assert!(request.headers()["authorization"].is_sensitive());
            next.handle(request)
        })
        .build()
        .into();
    agent.get(meetings(&server)).call().unwrap();
}

#[test]
fn revoked_token_costs_64_threads_one_fetch_and_one_retry_each() {
    const THREADS: usize = 64;
    let tokens = AtomicUsize::new(0);
    let server = support::Server::start(move |_, mut stream| {
        use std::io::Write;
        let request = support::read_request(&mut stream);
        let text = if request.starts_with("POST") {
            token_answer(
                if tokens.fetch_add(1, Ordering::SeqCst) == 0 { "revoked" } else { "new" },
                HOUR,
            )
        } else if request.contains("Bearer new") {
            answer("200 OK", "", "")
        } else {
            answer("401 Unauthorized", "", "")
        };
        stream.write_all(text.as_bytes()).unwrap();
    });
    let authenticator = server.builder().build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    let (barrier, tries) = (Barrier::new(THREADS), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                let call = authenticator.with_token(&grant(), |token| {
                    tries.fetch_add(1, Ordering::SeqCst);
                    let request = ureq::get(format!("{}/api", server.base_url));
                    request.header("authorization", token.authorization()).call()
                });
                call.unwrap();
            });
        }
    });
    let tries = tries.into_inner();
    assert!(tries <= 2 * THREADS);
    assert_eq!(server.connections(), tries + 2, "the API calls, and two token requests");
}
