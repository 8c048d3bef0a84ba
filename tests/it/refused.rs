//! Tokens that the API refuses.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weseedo_auth::Authenticator;
use weseedo_auth::ureq::http::Request;
use weseedo_auth::ureq::middleware::MiddlewareNext;
use weseedo_auth::ureq::{self, Agent, SendBody};

use crate::support::{HOUR, Server, TOKEN_PATH, answer, grant, token_answer};

/// Returns a server whose API accepts only the newest token, and the number of that token.
fn revoking_server() -> (Server, Arc<AtomicUsize>) {
    let newest = Arc::new(AtomicUsize::new(0));
    let issued = Arc::clone(&newest);
    let server = Server::keeping(move |request| {
        if request.starts_with(&format!("POST {TOKEN_PATH}")) {
            return token_answer(&format!("t{}", issued.fetch_add(1, Ordering::SeqCst) + 1), HOUR);
        }
        let accepted = format!("Bearer t{}\r\n", issued.load(Ordering::SeqCst));
        answer(if request.contains(&accepted) { "200 OK" } else { "401 No" }, "", "")
    });
    (server, newest)
}

#[test]
fn agent_repeats_a_call_without_a_body_with_another_token() {
    for call in [
        (|agent, url| agent.get(url).call()) as fn(&Agent, &str) -> _,
        |agent, url| agent.delete(url).call(),
        |agent, url| agent.run(ureq::http::Request::get(url).body(()).unwrap()),
    ] {
        let (server, newest) = revoking_server();
        let agent = server.builder().build().unwrap().agent(grant());
        let url = format!("{}/api", server.base_url);
        call(&agent, &url).unwrap();
        newest.fetch_add(1, Ordering::SeqCst);
        call(&agent, &url).unwrap();
        assert_eq!(newest.load(Ordering::SeqCst), 3, "the refused token costs one token request");
    }
}

#[test]
fn agent_does_not_repeat_a_call_that_may_have_a_body() {
    for call in [
        (|agent, url| agent.post(url).send("body")) as fn(&Agent, &str) -> _,
        |agent, url| agent.put(url).send_empty(),
        |agent, url| agent.get(url).force_send_body().send("body"),
    ] {
        let (server, newest) = revoking_server();
        let agent = server.builder().build().unwrap().agent(grant());
        let url = format!("{}/api", server.base_url);
        call(&agent, &url).unwrap();
        newest.fetch_add(1, Ordering::SeqCst);
        let error = call(&agent, &url).unwrap_err();
        assert!(matches!(error, ureq::Error::StatusCode(401)), "{error:?}");
        call(&agent, &url).unwrap();
    }
}

#[test]
fn repeated_call_passes_through_the_users_middleware() {
    let (server, newest) = revoking_server();
    let passed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&passed);
    let builder = server.builder().http(move |http| {
        let count = Arc::clone(&count);
        http.middleware(move |request: Request<SendBody>, next: MiddlewareNext| {
            let is_token_request = request.uri().path() == TOKEN_PATH;
            assert!(is_token_request || request.headers().get("x-trace").is_none());
            count.fetch_add(usize::from(!is_token_request), Ordering::SeqCst);
            next.handle(request)
        })
    });
    let agent = builder.build().unwrap().agent(grant());
    let url = format!("{}/api", server.base_url);
    agent.get(&url).call().unwrap();
    newest.fetch_add(1, Ordering::SeqCst);
    agent.get(&url).call().unwrap();
    assert_eq!(passed.load(Ordering::SeqCst), 3);
}

#[test]
#[cfg(feature = "wipe")]
fn status_401_of_another_origin_neither_repeats_the_call_nor_refuses_the_token() {
    let elsewhere = Server::answering(|_| answer("401 No", "", ""));
    // ureq makes an `Authorization` header of user info.
    let location = format!("Location: {}/\r\n", elsewhere.base_url.replace("//", "//u:p@"));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let server = Server::keeping(move |request| {
        if request.starts_with("POST") {
            return token_answer(&format!("t{}", count.load(Ordering::SeqCst)), HOUR);
        }
        count.fetch_add(1, Ordering::SeqCst);
        answer("302 Found", &location, "")
    });
    let authenticator = server.builder().build().unwrap();
    let agent = authenticator.agent(grant());
    for n in 1..=3 {
        let error = agent.get(format!("{}/api", server.base_url)).call().unwrap_err();
        assert!(matches!(error, ureq::Error::StatusCode(401)), "{error:?}");
        assert_eq!((calls.load(Ordering::SeqCst), elsewhere.connections()), (n, n));
    }
    assert!(authenticator.status(&grant()).remaining.is_some());
}

#[test]
#[cfg(feature = "wipe")]
fn status_401_after_a_redirect_that_dropped_the_token_does_not_refuse_the_token() {
    let there = Arc::new(Mutex::new(String::new()));
    let back = Arc::clone(&there);
    let elsewhere =
        Server::answering(move |_| answer("302 Found", &back.lock().unwrap().clone(), ""));
    let location = format!("Location: {}/\r\n", elsewhere.base_url);
    let token_requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&token_requests);
    let server = Server::keeping(move |request| match request.split(' ').nth(1) {
        Some("/api") => answer("302 Found", &location, ""),
        Some("/back") => answer("401 No", "", ""),
        _ => token_answer(&format!("t{}", count.fetch_add(1, Ordering::SeqCst)), HOUR),
    });
    *there.lock().unwrap() = format!("Location: {}/back\r\n", server.base_url);
    let agent = server.builder().build().unwrap().agent(grant());
    for n in 1..=3 {
        let error = agent.get(format!("{}/api", server.base_url)).call().unwrap_err();
        assert!(matches!(error, ureq::Error::StatusCode(401)), "{error:?}");
        assert_eq!(elsewhere.connections(), n);
    }
    assert_eq!(token_requests.load(Ordering::SeqCst), 1);
}

#[test]
fn refused_token_stays_in_use_while_the_endpoint_is_unavailable() {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let server = Server::keeping(move |request| {
        let is_down = down.load(Ordering::SeqCst);
        match (request.starts_with("POST"), is_down) {
            (true, false) => token_answer("t", HOUR),
            (true, true) => answer("503 Busy", "", ""),
            (false, _) => answer(if is_down { "401 No" } else { "200 OK" }, "", ""),
        }
    });
    let authenticator = server.builder().build().unwrap();
    let agent = authenticator.agent(grant());
    let url = format!("{}/api", server.base_url);
    agent.get(&url).call().unwrap();
    is_down.store(true, Ordering::SeqCst);
    let error = agent.get(&url).call().unwrap_err();
    assert!(matches!(error, ureq::Error::StatusCode(401)), "the API's own answer: {error:?}");
    assert_eq!(authenticator.get_token(&grant()).unwrap().access_token(), "t");
    is_down.store(false, Ordering::SeqCst);
    agent.get(&url).call().unwrap();
}

#[test]
fn middleware_that_requests_the_token_being_fetched_gets_an_error_at_once() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let slot = Arc::new(Mutex::new(None::<Authenticator>));
    let errors = Arc::new(Mutex::new(Vec::new()));
    let (authenticator, seen) = (Arc::clone(&slot), Arc::clone(&errors));
    let builder = server.builder().http(move |http| {
        let (authenticator, errors) = (Arc::clone(&authenticator), Arc::clone(&seen));
        http.middleware(move |request: Request<SendBody>, next: MiddlewareNext| {
            let authenticator = authenticator.lock().unwrap().clone().unwrap();
            errors.lock().unwrap().push(authenticator.get_token(&grant()).unwrap_err());
            next.handle(request)
        })
    });
    let built = builder.build().unwrap();
    *slot.lock().unwrap() = Some(built.clone());
    let start = Instant::now();
    built.get_token(&grant()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let errors = errors.lock().unwrap();
    let text = "logger or middleware: must not ask for the token that it is fetching";
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [text]);
    // Breaks the cycle in which the authenticator owns the middleware and the middleware the
    // authenticator.
    slot.lock().unwrap().take();
}
