//! Checks an implementation of `TokenStore` against the trait's contract.
//!
//! It needs nothing but the crate: copy this file into your tests and call [`check`] with your
//! store, and [`check_that_leases_end`] if its leases end when their time is up. For a store
//! without leases, [`check_values`] is all.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use weseedo_auth::TokenStore;

const HOUR: Duration = Duration::from_secs(3600);

/// Checks all that can be told of any store.
pub fn check(store: &(impl TokenStore + ?Sized)) {
    check_values(store);
    check_leases(store);
}

/// Checks what is stored.
pub fn check_values(store: &(impl TokenStore + ?Sized)) {
    let (key, other) = (new_key(), new_key());
    let load = |key: &str| store.load(key).unwrap().map(|stored| stored.sealed);

    assert!(load(&key).is_none(), "nothing is there at first");
    store.remove(&key, b"x").expect("to remove nothing is no error");

    // As long as a value can be, with each byte there is.
    let long: Vec<u8> = (0..17 * 1024).map(|i| u8::try_from(i % 256).unwrap()).collect();
    store.save(&key, &long, HOUR).unwrap();
    let stored = store.load(&key).unwrap().expect("the saved value is there");
    let (sealed, remaining) = (stored.sealed, stored.remaining);
    assert!(sealed == long, "what was saved comes back, byte by byte");
    let is_right = |remaining| remaining <= HOUR && remaining > HOUR / 2;
    assert!(remaining.is_none_or(is_right), "remaining is {remaining:?}");
    assert!(load(&other).is_none(), "another key has another value");

    store.save(&key, b"new", HOUR).unwrap();
    assert_eq!(load(&key).as_deref(), Some(&b"new"[..]), "a new value replaces the old one");
    store.remove(&key, &long).unwrap();
    assert_eq!(load(&key).as_deref(), Some(&b"new"[..]), "only the very value is removed");
    store.remove(&other, b"new").unwrap();
    assert_eq!(load(&key).as_deref(), Some(&b"new"[..]), "only under its own key");
    store.remove(&key, b"new").unwrap();
    assert!(load(&key).is_none(), "what was removed is gone");

    check_that_saves_are_whole(store);
    check_that_nothing_newer_is_removed(store);
}

/// Who removes an old value while a new one is saved does not remove that.
fn check_that_nothing_newer_is_removed(store: &(impl TokenStore + ?Sized)) {
    let key = new_key();
    for _ in 0..100 {
        store.save(&key, b"old", HOUR).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| store.remove(&key, b"old").unwrap());
            scope.spawn(|| store.save(&key, b"new", HOUR).unwrap());
        });
        let value = store.load(&key).unwrap().expect("the new value was removed");
        assert_eq!(value.sealed, b"new");
    }
    store.remove(&key, b"new").unwrap();
}

/// Who loads while others save gets one value or another, never a mixture.
fn check_that_saves_are_whole(store: &(impl TokenStore + ?Sized)) {
    let key = new_key();
    store.save(&key, &[0; 3000], HOUR).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for byte in 1..=2 {
            let (key, is_over) = (&key, &is_over);
            scope.spawn(move || {
                for _ in 0..100 {
                    store.save(key, &[byte; 3000], HOUR).unwrap();
                }
                is_over.store(true, Ordering::SeqCst);
            });
        }
        while !is_over.load(Ordering::SeqCst) {
            let value = store.load(&key).unwrap().expect("there is a value at any time").sealed;
            assert!(value.len() == 3000 && value.iter().all(|byte| *byte == value[0]));
        }
    });
    let value = store.load(&key).unwrap().unwrap().sealed;
    store.remove(&key, &value).unwrap();
}

/// Checks that one has a lease at a time.
pub fn check_leases(store: &(impl TokenStore + ?Sized)) {
    let (key, other) = (new_key(), new_key());
    let lease = store.lease(&key, HOUR).unwrap().expect("the first one gets it");
    assert!(store.lease(&key, HOUR).unwrap().is_none(), "the next one does not");
    assert!(store.lease(&other, HOUR).unwrap().is_some(), "another key has another lease");
    assert!(store.load(&key).unwrap().is_none(), "a lease is no value");
    store.save(&key, b"value", HOUR).unwrap();
    assert!(store.lease(&key, HOUR).unwrap().is_none(), "to save does not end it");
    drop(lease);
    assert!(store.lease(&key, HOUR).unwrap().is_some(), "what was given back can be had");
    assert_eq!(store.load(&key).unwrap().unwrap().sealed, b"value", "that removes nothing");
    store.remove(&key, b"value").unwrap();

    let holders = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let Some(lease) = store.lease(&key, HOUR).unwrap() else { continue };
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two have one lease");
                    thread::yield_now();
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(lease);
                }
            });
        }
    });
}

/// Checks that a lease ends when its time is up, and is no longer given back then.
pub fn check_that_leases_end(store: &(impl TokenStore + ?Sized)) {
    let key = new_key();
    let late = store.lease(&key, Duration::from_millis(50)).unwrap().expect("nobody has it");
    let patience = Instant::now() + Duration::from_secs(5);
    let next = loop {
        if let Some(next) = store.lease(&key, HOUR).unwrap() {
            break next;
        }
        assert!(Instant::now() < patience, "the lease does not end");
        thread::sleep(Duration::from_millis(10));
    };
    drop(late);
    assert!(store.lease(&key, HOUR).unwrap().is_none(), "another one's lease was given back");
    drop(next);
    assert!(store.lease(&key, HOUR).unwrap().is_some());
}

/// A key like those of the crate, for each check another one.
fn new_key() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (nanos, count) = (since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{nanos:032x}{:016x}{count:016x}", std::process::id())
}
