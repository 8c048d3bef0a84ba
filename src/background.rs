//! Short-lived threads, and what happens where the system gives none.

use std::cell::Cell;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

thread_local! {
    static WORKS_FOR: Cell<Option<ThreadId>> = const { Cell::new(None) };
}

/// The thread that waits for this one, or this one if none does.
pub(crate) fn caller() -> ThreadId {
    WORKS_FOR.get().unwrap_or_else(|| thread::current().id())
}

/// Runs `run` with `input` in a new thread.
///
/// # Errors
///
/// Returns `input` if the thread can't be started.
pub(crate) fn spawn<T: Send + 'static>(
    input: T,
    run: impl FnOnce(T) + Send + 'static,
) -> Result<(), T> {
    // Not a channel of the standard library: one with a buffer copies uninitialised stack memory to
    // the heap, where pieces of secrets may have been.
    let slot = Arc::new(Mutex::new(Some(input)));
    let shared = Arc::clone(&slot);
    let take = |slot: &Mutex<Option<T>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let run = move || take(&shared).map(run).unwrap_or_default();
    let spawned = thread::Builder::new().name("weseedo-auth".to_owned()).spawn(run);
    if spawned.is_ok() { Ok(()) } else { take(&slot).map_or(Ok(()), Err) }
}

/// Runs `job` in a new thread and waits for its result for `time` at most. A result that comes
/// later is dropped in that thread.
///
/// If the thread can't be started, runs `job` in this thread, without a limit of time.
///
/// # Errors
///
/// Returns `Timeout` if `job` takes longer, and `Disconnected` if it panics.
#[cfg_attr(
    not(any(feature = "store", feature = "wipe")),
    expect(dead_code, reason = "only stores and look-ups call it")
)]
pub(crate) fn call<T: Send + 'static>(
    time: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RecvTimeoutError> {
    // Without a buffer, so that a late result stays with the thread that made it.
    let (sender, receiver) = mpsc::sync_channel(0);
    let caller = caller();
    let run = move |job: Box<dyn FnOnce() -> T + Send>| {
        WORKS_FOR.set(Some(caller));
        let _ = sender.send(job());
    };
    match spawn(Box::new(job) as Box<_>, run) {
        Ok(()) => receiver.recv_timeout(time),
        Err(job) => Ok(job()),
    }
}
