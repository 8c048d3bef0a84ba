//! Many threads share one request and its outcome, and none waits needlessly.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use weseedo_auth::ureq::SendBody;
use weseedo_auth::ureq::http::Request;
use weseedo_auth::ureq::middleware::MiddlewareNext;
use weseedo_auth::{Authenticator, Error, Grant, Token};

use crate::support::{HOUR, Server, answer, grant, stall, token_answer, wait_until};

const THREADS: usize = 64;

/// Calls `get_token` in 64 threads at once. Returns the outcomes, and how long the slowest call
/// took.
fn ask_from_all(authenticator: &Authenticator) -> (Vec<Result<Token, Error>>, Duration) {
    let barrier = Barrier::new(THREADS);
    let start = Instant::now();
    let outcomes = thread::scope(|scope| {
        let ask = || {
            barrier.wait();
            authenticator.get_token(&grant())
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    (outcomes, start.elapsed())
}

#[test]
fn first_calls_of_many_threads_make_one_request() {
    let server = Server::answering(|_| {
        thread::sleep(Duration::from_millis(300));
        token_answer("t", HOUR)
    });
    let (outcomes, took) = ask_from_all(&server.builder().build().unwrap());
    let tokens: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert!(tokens.iter().all(|t| t.access_token().as_ptr() == tokens[0].access_token().as_ptr()));
    assert_eq!(server.connections(), 1);
    assert!(
        took < Duration::from_secs(5),
        "64 requests one after another would take 19 s: {took:?}"
    );
}

#[test]
fn dead_endpoint_costs_one_timeout() {
    let server = Server::start(|_, stream| stall(stream));
    let timeout = Duration::from_millis(500);
    let authenticator = server.builder().timeout(timeout).retries(0).build().unwrap();
    let (outcomes, took) = ask_from_all(&authenticator);
    for outcome in outcomes {
        assert!(matches!(outcome, Err(Error::Transport(_))));
    }
    // A thread that called a moment after the leader has a moment more, and may use it for a
    // request.
    assert!(server.connections() <= 3, "{}", server.connections());
    assert!(took < Duration::from_secs(5), "64 timeouts would take 32 s: {took:?}");
}

#[test]
fn waiter_with_time_left_takes_over_when_the_leader_times_out() {
    let server = Server::stalling(|n| n == 0, token_answer("t", HOUR));
    let timeout = Duration::from_secs(2);
    let authenticator = server.builder().timeout(timeout).retries(0).build().unwrap();
    thread::scope(|scope| {
        let leader = scope.spawn(|| authenticator.get_token(&grant()));
        wait_until(|| server.connections() == 1);
        thread::sleep(timeout / 2);
        authenticator.get_token(&grant()).unwrap();
        assert!(matches!(leader.join().unwrap(), Err(Error::Transport(_))));
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn waiter_that_takes_over_keeps_its_own_deadline() {
    let server = Server::start(|_, stream| stall(stream));
    let timeout = Duration::from_secs(2);
    let authenticator = server.builder().timeout(timeout).retries(0).build().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| authenticator.get_token(&grant()).unwrap_err());
        wait_until(|| server.connections() == 1);
        thread::sleep(timeout / 2);
        let start = Instant::now();
        authenticator.get_token(&grant()).unwrap_err();
        assert!(start.elapsed() < timeout * 7 / 5, "{:?}", start.elapsed());
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn rejection_is_shared() {
    let server = Server::answering(|_| {
        thread::sleep(Duration::from_millis(300));
        answer("401 No", "", "")
    });
    let (outcomes, _) = ask_from_all(&server.builder().build().unwrap());
    for outcome in outcomes {
        assert_eq!(outcome.unwrap_err().status(), Some(401));
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn stalled_fetch_does_not_delay_other_grants() {
    let server = Server::stalling(|n| n == 1, token_answer("t", HOUR));
    let builder = server.builder().timeout(Duration::from_secs(2)).retries(0);
    let authenticator = builder.build().unwrap();
    authenticator.get_token(&grant()).unwrap();
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let grant = Grant::client_credentials("slow", "s3cr3t");
            authenticator.get_token(&grant)
        });
        wait_until(|| server.connections() == 2);
        authenticator.get_token(&grant()).unwrap();
        let other = Grant::client_credentials("other", "s3cr3t");
        authenticator.get_token(&other).unwrap();
        assert!(!slow.is_finished(), "neither call waited for the stalled fetch");
        slow.join().unwrap().unwrap_err();
    });
}

#[test]
fn waiter_takes_over_when_the_leader_panics() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let (first, waiting) = (Arc::new(AtomicBool::new(true)), Arc::new(Barrier::new(2)));
    let at_barrier = Arc::clone(&waiting);
    let authenticator = server
        .builder()
        .http(move |http| {
            let (first, at_barrier) = (Arc::clone(&first), Arc::clone(&at_barrier));
            http.middleware(move |request: Request<SendBody>, next: MiddlewareNext| {
                if first.swap(false, Ordering::SeqCst) {
                    at_barrier.wait();
                    thread::sleep(Duration::from_millis(100));
                    panic!("in the middle of a token request");
                }
                next.handle(request)
            })
        })
        .build()
        .unwrap();
    thread::scope(|scope| {
        let leader = scope.spawn(|| authenticator.get_token(&grant()));
        waiting.wait();
        authenticator.get_token(&grant()).unwrap();
        assert!(leader.join().is_err());
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn refused_token_is_fetched_once_for_all_threads_that_refuse_it() {
    let server = Server::answering(|_| token_answer("t", HOUR));
    let authenticator = server.builder().build().unwrap();
    let old = authenticator.get_token(&grant()).unwrap();
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                barrier.wait();
                authenticator.invalidate(&grant(), &old);
                authenticator.get_token(&grant()).unwrap();
            });
        }
    });
    assert_eq!(server.connections(), 2);
}
