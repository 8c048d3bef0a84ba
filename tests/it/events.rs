//! What a program is told, and what it can ask.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use weseedo_auth::{Authenticator, Event, Grant};

use crate::support::{
    Gate, HOUR, Server, answer, grant, token_answer, token_for_an_hour, wait_until,
};

/// An authenticator that writes down what it is told.
fn recorded(server: &Server) -> (Authenticator, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&events);
    let hook = move |event: &Event<'_>| {
        theirs.lock().unwrap().push(match event {
            Event::Obtained { client_id, renewal, from_store, lifetime, .. } => {
                format!("{client_id} obtained {renewal} {from_store} {lifetime:?}")
            }
            Event::Failed { client_id, renewal, error, remaining, .. } => {
                format!("{client_id} failed {renewal} {:?} {remaining:?}", error.status())
            }
            Event::TokenRefused { client_id, age, .. } => {
                assert!(*age < Duration::from_secs(60));
                format!("{client_id} refused")
            }
            other => panic!("{other:?}"),
        });
    };
    let authenticator = server.builder().retries(0).on_event(hook).build().unwrap();
    (authenticator, events)
}

#[test]
fn fetches_failures_and_refusals_are_told_and_hits_are_not() {
    let server = Server::answering(|n| match n {
        1 => answer("401 No", "", ""),
        _ => token_for_an_hour("t0k3n"),
    });
    let (authenticator, events) = recorded(&server);
    let token = authenticator.get_token(&grant()).unwrap();
    authenticator.get_token(&grant()).unwrap();
    authenticator.invalidate(&grant(), &token);
    authenticator.invalidate(&grant(), &token);
    authenticator.get_token(&grant()).unwrap_err();
    let told = events.lock().unwrap().join("\n");
    assert_eq!(told, "id obtained false false 3600s\nid refused\nid failed false Some(401) None");
}

#[test]
fn hook_may_call_back() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let slot = Arc::new(Mutex::new(None::<Authenticator>));
    let (mine, called) = (Arc::clone(&slot), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&called);
    let hook = move |_: &Event<'_>| {
        let authenticator = mine.lock().unwrap().clone().unwrap();
        assert!(authenticator.status(&grant()).remaining.is_some());
        authenticator.get_token(&grant()).unwrap();
        if !seen.swap(true, Ordering::SeqCst) {
            authenticator.get_token(&Grant::client_credentials("other", "s3cr3t")).unwrap();
            authenticator.forget(&grant());
            authenticator.get_token(&grant()).unwrap();
        }
    };
    let authenticator = server.builder().on_event(hook).build().unwrap();
    *slot.lock().unwrap() = Some(authenticator.clone());
    authenticator.get_token(&grant()).unwrap();
    assert!(called.load(Ordering::SeqCst));
    // Else the hook would keep its own owner.
    slot.lock().unwrap().take();
}

#[test]
fn hook_that_panics_or_blocks_strands_nobody() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let (gate, reached) = (Gate::closed(), Arc::new(AtomicBool::new(false)));
    let theirs = gate.clone();
    let at_hook = Arc::clone(&reached);
    let hook = move |_: &Event<'_>| {
        at_hook.store(true, Ordering::SeqCst);
        theirs.pass();
        panic!("in the hook");
    };
    let authenticator = server.builder().on_event(hook).build().unwrap();
    thread::scope(|scope| {
        let leader = scope.spawn(|| authenticator.get_token(&grant()));
        wait_until(|| reached.load(Ordering::SeqCst));
        authenticator.get_token(&grant()).unwrap();
        assert!(!leader.is_finished());
        gate.open();
        assert!(leader.join().is_err(), "it is the caller's panic");
    });
    authenticator.get_token(&grant()).unwrap();
    assert_eq!(server.connections(), 1);
}

#[test]
fn status_waits_for_no_fetch_and_makes_no_request() {
    let gate = Gate::closed();
    let theirs = gate.clone();
    let server = Server::answering(move |_| {
        theirs.pass();
        token_answer("t", HOUR)
    });
    let authenticator = server.builder().build().unwrap();
    let before = authenticator.status(&grant());
    assert!(before.remaining.is_none() && before.last_error.is_none() && !before.fetching);
    assert_eq!(server.connections(), 0);
    thread::scope(|scope| {
        scope.spawn(|| authenticator.get_token(&grant()).unwrap());
        wait_until(|| server.connections() == 1);
        assert!(authenticator.status(&grant()).fetching);
        gate.open();
    });
    let after = authenticator.status(&grant());
    assert!(after.remaining > Some(HOUR / 2) && !after.fetching, "{after:?}");
    assert_eq!(server.connections(), 1);
}

#[test]
fn status_tells_the_last_error_and_when_the_endpoint_is_asked_again() {
    let server = Server::answering(|_| answer("503 Busy", "Retry-After: 60\r\n", ""));
    let authenticator = server.builder().build().unwrap();
    authenticator.get_token(&grant()).unwrap_err();
    let status = authenticator.status(&grant());
    assert_eq!(status.last_error.unwrap().status(), Some(503));
    assert!(status.retry_in > Some(Duration::from_secs(30)), "{:?}", status.retry_in);
    assert!(status.remaining.is_none());
}

#[test]
fn expiry_is_a_time_of_the_standard_library_too() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let token = server.builder().build().unwrap().get_token(&grant()).unwrap();
    // 2021-12-31T01:00:00Z
    let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_640_912_400);
    assert_eq!(SystemTime::from(token.expires_at()), expected);
}
