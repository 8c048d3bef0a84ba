//! Grants that change while API calls go on.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use weseedo_auth::{Authenticator, Error, Grant, GrantSource, ureq};

use crate::support::{Gate, HOUR, Server, answer, token_answer, wait_until};

/// An endpoint that accepts one secret, and its API, which accepts the token of that secret.
struct World {
    server: Server,
    authenticator: Authenticator,
    accepted: Arc<Mutex<String>>,
    token_requests: Arc<AtomicUsize>,
}

impl World {
    fn new() -> Self {
        let accepted = Arc::new(Mutex::new("old".to_owned()));
        let token_requests = Arc::new(AtomicUsize::new(0));
        let (current, count) = (Arc::clone(&accepted), Arc::clone(&token_requests));
        let server = Server::keeping(move |request| {
            let secret = current.lock().unwrap().clone();
            if request.starts_with("POST") {
                count.fetch_add(1, Ordering::SeqCst);
                if !request.contains(&format!(r#""client_secret":"{secret}""#)) {
                    return answer("401 No", "", r#"{"error":"invalid_client"}"#);
                }
                return token_answer(&secret, HOUR);
            }
            let is_valid = request.contains(&format!("Bearer {secret}\r\n"));
            answer(if is_valid { "200 OK" } else { "401 No" }, "", "")
        });
        let authenticator = server.builder().build().unwrap();
        Self { server, authenticator, accepted, token_requests }
    }

    fn agent(
        &self,
        read: impl Fn(usize) -> Result<Grant, Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> (ureq::Agent, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let source = GrantSource::new(move || read(count.fetch_add(1, Ordering::SeqCst)));
        (self.authenticator.agent(source), asked)
    }

    fn call(&self, agent: &ureq::Agent) -> Result<(), ureq::Error> {
        agent.get(format!("{}/api", self.server.base_url)).call().map(drop)
    }

    /// Resets the secret, which revokes the tokens of the old one.
    fn reset(&self, secret: &str) {
        secret.clone_into(&mut self.accepted.lock().unwrap());
    }
}

fn grant(secret: &str) -> Grant {
    Grant::client_credentials("id", secret)
}

/// A source whose secret is reset after the first read.
fn old_then_new() -> GrantSource {
    let reads = AtomicUsize::new(0);
    GrantSource::new(move || {
        Ok(grant(if reads.fetch_add(1, Ordering::SeqCst) == 0 { "old" } else { "new" }))
    })
}

#[test]
fn source_is_asked_once_as_long_as_its_grant_is_accepted() {
    let world = World::new();
    let (agent, asked) = world.agent(|_| Ok(grant("old")));
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the source is not asked before the first call");
    for _ in 0..3 {
        world.call(&agent).unwrap();
        world.call(&agent.clone()).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(world.token_requests.load(Ordering::SeqCst), 1);
}

#[test]
fn rejected_grant_is_replaced_within_the_call() {
    let world = World::new();
    let (agent, asked) = world.agent(|n| Ok(grant(if n == 0 { "old" } else { "new" })));
    world.call(&agent).unwrap();
    world.reset("new");
    for _ in 0..3 {
        world.call(&agent).unwrap();
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(
        world.token_requests.load(Ordering::SeqCst),
        3,
        "one for the old grant, one that is rejected, one for the new grant"
    );
}

#[test]
fn rejected_grant_fails_no_call_of_many_threads() {
    let world = World::new();
    let (agent, _) = world.agent(|n| Ok(grant(if n == 0 { "old" } else { "new" })));
    world.call(&agent).unwrap();
    world.reset("new");
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| (0..10).for_each(|_| world.call(&agent).unwrap()));
        }
    });
    assert!(world.token_requests.load(Ordering::SeqCst) <= 5);
}

#[test]
fn source_that_returns_the_rejected_grant_again_is_asked_at_each_call() {
    let world = World::new();
    let (agent, asked) = world.agent(|n| Ok(grant(if n < 3 { "old" } else { "new" })));
    world.call(&agent).unwrap();
    world.reset("new");
    let refused = world.call(&agent).unwrap_err();
    assert!(matches!(refused, ureq::Error::StatusCode(401)), "the API's own answer: {refused:?}");
    let error = world.call(&agent).unwrap_err();
    assert_eq!(Error::from_ureq(&error).unwrap().status(), Some(401));
    let requests = world.token_requests.load(Ordering::SeqCst);
    assert_eq!(requests, 3, "one call does not send the same grant twice");
    world.call(&agent).unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[test]
fn wrong_grant_of_the_source_costs_no_call_once_the_source_has_the_right_one() {
    let world = World::new();
    let file = Arc::new(Mutex::new("old"));
    let content = Arc::clone(&file);
    let (agent, _) = world.agent(move |_| Ok(grant(*content.lock().unwrap())));
    world.call(&agent).unwrap();
    world.reset("new");
    *file.lock().unwrap() = "wrong\n";
    let call = || {
        let error = world.call(&agent).unwrap_err();
        let error = Error::from_ureq(&error).map(ToString::to_string).unwrap_or_default();
        assert!(error.is_empty() || error.contains("white space"), "of the wrong grant: {error}");
    };
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(call);
        }
    });
    *file.lock().unwrap() = "new";
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| world.call(&agent).unwrap());
        }
    });
}

#[test]
fn rejected_grant_is_not_sent_again_while_the_next_one_is_unavailable() {
    let server = Server::keeping(|request| {
        let is_old = request.contains("old");
        let (status, wait) =
            if is_old { ("401 No", "") } else { ("429 Busy", "Retry-After: 60\r\n") };
        answer(status, wait, "")
    });
    let bearer = server.builder().retries(0).build().unwrap().bearer(old_then_new());
    for _ in 0..9 {
        assert_eq!(bearer.token().unwrap_err().status(), Some(429));
    }
    assert_eq!(bearer.status().last_error.unwrap().status(), Some(429));
    assert_eq!(server.connections(), 2);
}

#[test]
fn source_that_fails_or_panics_fails_only_the_current_call() {
    let world = World::new();
    let (agent, _) = world.agent(|n| match n {
        0 => Err(Box::new(io::Error::other("no file yet"))),
        1 => panic!("in the source"),
        _ => Ok(grant("old")),
    });
    let error = world.call(&agent).unwrap_err();
    let error = Error::from_ureq(&error).unwrap();
    assert!(matches!(error, Error::Grant(_)) && !error.is_transient(), "{error:?}");
    assert_eq!(error.to_string(), "no grant: no file yet");
    thread::scope(|scope| {
        assert!(scope.spawn(|| world.call(&agent)).join().is_err());
    });
    world.call(&agent).unwrap();
}

#[test]
fn source_that_blocks_does_not_block_other_callers() {
    let world = World::new();
    let gate = Gate::closed();
    let source_gate = gate.clone();
    let (agent, asked) = world.agent(move |n| {
        if n == 0 {
            source_gate.pass();
        }
        Ok(grant("old"))
    });
    thread::scope(|scope| {
        let blocked = scope.spawn(|| world.call(&agent));
        wait_until(|| asked.load(Ordering::SeqCst) == 1);
        world.call(&agent).unwrap();
        drop(format!("{agent:?}"));
        assert!(!blocked.is_finished());
        gate.open();
        blocked.join().unwrap().unwrap();
    });
}

#[test]
fn source_whose_grants_are_all_rejected_is_left_alone() {
    let world = World::new();
    let (agent, _) = world.agent(|n| Ok(grant(&format!("wrong {n}"))));
    for _ in 0..50 {
        world.call(&agent).unwrap_err();
    }
    let requests = world.token_requests.load(Ordering::SeqCst);
    assert!(requests <= 8, "{requests} token requests for 50 calls");
}

#[test]
fn successful_rotation_reports_no_failure() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&events);
    let server = Server::answering(|n| match n {
        0 => answer("401 No", "", ""),
        _ => token_answer("t", HOUR),
    });
    let builder =
        server.builder().on_event(move |event| reported.lock().unwrap().push(format!("{event:?}")));
    let bearer = builder.build().unwrap().bearer(old_then_new());
    assert!(bearer.status().remaining.is_none());
    bearer.token().unwrap();
    let events = events.lock().unwrap();
    assert!(events.len() == 1 && events[0].starts_with("Obtained"), "{events:?}");
    let status = bearer.status();
    assert!(
        status.remaining.is_some() && status.last_error.is_none(),
        "the status is that of the new grant"
    );
}

#[test]
fn source_is_asked_again_after_clear() {
    let world = World::new();
    let (agent, asked) = world.agent(|n| Ok(grant(&format!("wrong-{n}"))));
    for _ in 0..50 {
        world.call(&agent).unwrap_err();
    }
    let before = asked.load(Ordering::SeqCst);
    world.reset(&format!("wrong-{before}"));
    world.call(&agent).unwrap_err();
    assert_eq!(asked.load(Ordering::SeqCst), before, "the source is left alone");
    world.authenticator.clear();
    world.call(&agent).unwrap();
}
