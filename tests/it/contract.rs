//! Checks an implementation of `TokenStore` against the trait's contract.
//!
//! Copy this file into your tests; it depends on this crate only. Call [`check`] with your store,
//! and [`check_that_leases_end`] if its leases expire. For a store without leases, call only
//! [`check_values`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use weseedo_auth::TokenStore;

const HOUR: Duration = Duration::from_secs(3600);

/// Checks the rules that apply to every store with leases.
pub fn check(store: &(impl TokenStore + ?Sized)) {
    check_values(store);
    check_leases(store);
}

/// Checks how values are loaded, saved and removed.
pub fn check_values(store: &(impl TokenStore + ?Sized)) {
    let (key, other) = (new_key(), new_key());
    let load = |key: &str| store.load(key).unwrap().map(|stored| stored.sealed);

    assert!(load(&key).is_none(), "a new key has no value");
    store.remove(&key, b"x").expect("removing a missing value is not an error");

    // The longest possible value, with every possible byte in it.
    let long: Vec<u8> = (0..17 * 1024).map(|i| u8::try_from(i % 256).unwrap()).collect();
    store.save(&key, &long, HOUR).unwrap();
    let stored = store.load(&key).unwrap().expect("a saved value is found");
    let (sealed, remaining) = (stored.sealed, stored.remaining);
    assert!(sealed == long, "the saved bytes come back unchanged");
    let is_right = |remaining| remaining <= HOUR && remaining > HOUR / 2;
    assert!(remaining.is_none_or(is_right), "remaining is {remaining:?}");
    assert!(load(&other).is_none(), "another key has no value");

    store.save(&key, b"new", HOUR).unwrap();
    assert_eq!(load(&key).as_deref(), Some(&b"new"[..]), "a new value replaces the old one");
    store.remove(&key, &long).unwrap();
    assert_eq!(
        load(&key).as_deref(),
        Some(&b"new"[..]),
        "a value is not removed in place of another one"
    );
    store.remove(&other, b"new").unwrap();
    assert_eq!(
        load(&key).as_deref(),
        Some(&b"new"[..]),
        "a value is not removed under another key"
    );
    store.remove(&key, b"new").unwrap();
    assert!(load(&key).is_none(), "a removed value is gone");

    check_that_saves_are_whole(store);
    check_that_nothing_newer_is_removed(store);
}

/// Checks that removing an old value never removes a new one that is saved at the same time.
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

/// Checks that a load during saves returns one of the values, never a mixture.
fn check_that_saves_are_whole(store: &(impl TokenStore + ?Sized)) {
    let key = new_key();
    store.save(&key, &[0; 3000], HOUR).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        for byte in 1..=2 {
            let (key, is_done) = (&key, &is_done);
            scope.spawn(move || {
                for _ in 0..100 {
                    store.save(key, &[byte; 3000], HOUR).unwrap();
                }
                is_done.store(true, Ordering::SeqCst);
            });
        }
        while !is_done.load(Ordering::SeqCst) {
            let value = store.load(&key).unwrap().expect("a value is found at any time").sealed;
            assert!(value.len() == 3000 && value.iter().all(|byte| *byte == value[0]));
        }
    });
    let value = store.load(&key).unwrap().unwrap().sealed;
    store.remove(&key, &value).unwrap();
}

/// Checks that a lease has one holder at a time.
pub fn check_leases(store: &(impl TokenStore + ?Sized)) {
    let (key, other) = (new_key(), new_key());
    let lease = store.lease(&key, HOUR).unwrap().expect("a free lease is acquired");
    assert!(store.lease(&key, HOUR).unwrap().is_none(), "a held lease is not acquired again");
    assert!(store.lease(&other, HOUR).unwrap().is_some(), "each key has its own lease");
    assert!(store.load(&key).unwrap().is_none(), "a lease is not a value");
    store.save(&key, b"value", HOUR).unwrap();
    assert!(store.lease(&key, HOUR).unwrap().is_none(), "saving does not release the lease");
    drop(lease);
    assert!(store.lease(&key, HOUR).unwrap().is_some(), "a released lease can be acquired");
    assert_eq!(
        store.load(&key).unwrap().unwrap().sealed,
        b"value",
        "releasing the lease keeps the value"
    );
    store.remove(&key, b"value").unwrap();

    let holders = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let Some(lease) = store.lease(&key, HOUR).unwrap() else { continue };
                    assert_eq!(
                        holders.fetch_add(1, Ordering::SeqCst),
                        0,
                        "two threads hold the same lease"
                    );
                    thread::yield_now();
                    holders.fetch_sub(1, Ordering::SeqCst);
                    drop(lease);
                }
            });
        }
    });
}

/// Checks that a lease expires, and that releasing an expired lease does not release the next
/// holder's lease.
pub fn check_that_leases_end(store: &(impl TokenStore + ?Sized)) {
    let key = new_key();
    let late =
        store.lease(&key, Duration::from_millis(50)).unwrap().expect("a free lease is acquired");
    let patience = Instant::now() + Duration::from_secs(5);
    let next = loop {
        if let Some(next) = store.lease(&key, HOUR).unwrap() {
            break next;
        }
        assert!(Instant::now() < patience, "the lease does not expire");
        thread::sleep(Duration::from_millis(10));
    };
    drop(late);
    assert!(store.lease(&key, HOUR).unwrap().is_none(), "the next holder's lease was released");
    drop(next);
    assert!(store.lease(&key, HOUR).unwrap().is_some());
}

/// Returns a new key that looks like the keys of the crate.
fn new_key() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (nanos, count) = (since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed));
    format!("{nanos:032x}{:016x}{count:016x}", std::process::id())
}
