//! Events, and the status of a grant.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime};

use weseedo_auth::{Authenticator, Event, Grant};

use crate::support::{
    Gate, HOUR, Server, answer, grant, token_answer, token_for_an_hour, wait_until,
};

/// Returns an authenticator, and the list of its events as texts.
fn recorded(server: &Server) -> (Authenticator, Arc<Mutex<Vec<String>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&events);
    let hook = move |event: &Event<'_>| {
        reported.lock().unwrap().push(match event {
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
fn fetches_failures_and_refusals_are_reported_and_hits_are_not() {
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
    let reported = events.lock().unwrap().join("\n");
    assert_eq!(
        reported,
        "id obtained false false 3600s\nid refused\nid failed false Some(401) None"
    );
}

#[test]
fn hook_may_call_back() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let slot = Arc::new(Mutex::new(None::<Authenticator>));
    let (hook_slot, called) = (Arc::clone(&slot), Arc::new(AtomicBool::new(false)));
    let seen = Arc::clone(&called);
    let hook = move |_: &Event<'_>| {
        let authenticator = hook_slot.lock().unwrap().clone().unwrap();
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
    // Breaks the cycle in which the authenticator owns the hook and the hook the authenticator.
    slot.lock().unwrap().take();
}

#[test]
fn hook_that_panics_or_blocks_does_not_block_other_callers() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let (gate, reached) = (Gate::closed(), Arc::new(AtomicBool::new(false)));
    let (hook_gate, at_hook) = (gate.clone(), Arc::clone(&reached));
    let hook = move |_: &Event<'_>| {
        at_hook.store(true, Ordering::SeqCst);
        hook_gate.pass();
        panic!("in the hook");
    };
    let authenticator = server.builder().on_event(hook).build().unwrap();
    thread::scope(|scope| {
        let leader = scope.spawn(|| authenticator.get_token(&grant()));
        wait_until(|| reached.load(Ordering::SeqCst));
        authenticator.get_token(&grant()).unwrap();
        assert!(!leader.is_finished());
        gate.open();
        assert!(leader.join().is_err(), "the hook panics in the caller's thread");
    });
    authenticator.get_token(&grant()).unwrap();
    assert_eq!(server.connections(), 1);
}

#[test]
fn status_neither_waits_for_a_fetch_nor_makes_a_request() {
    let gate = Gate::closed();
    let server_gate = gate.clone();
    let server = Server::answering(move |_| {
        server_gate.pass();
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
fn status_has_the_last_error_and_the_time_until_the_next_request() {
    let server = Server::answering(|_| answer("503 Busy", "Retry-After: 60\r\n", ""));
    let authenticator = server.builder().build().unwrap();
    authenticator.get_token(&grant()).unwrap_err();
    let status = authenticator.status(&grant());
    assert_eq!(status.last_error.unwrap().status(), Some(503));
    assert!(status.retry_in > Some(Duration::from_secs(30)), "{:?}", status.retry_in);
    assert!(status.remaining.is_none());
}

#[test]
fn expiry_converts_to_system_time() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let token = server.builder().build().unwrap().get_token(&grant()).unwrap();
    // 2021-12-31T01:00:00Z
    let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_640_912_400);
    assert_eq!(SystemTime::from(token.expires_at()), expected);
}
