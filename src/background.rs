//! Short-lived threads, and what to do where the system gives none.

#[cfg(any(feature = "store", feature = "wipe"))]
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
#[cfg(any(feature = "store", feature = "wipe"))]
use std::time::Duration;

/// Runs `run` with `cargo` in a new thread.
///
/// # Errors
///
/// Returns `cargo` if the thread can't be started.
pub(crate) fn spawn<T: Send + 'static>(
    cargo: T,
    run: impl FnOnce(T) + Send + 'static,
) -> Result<(), T> {
    // Not a channel of the standard library with a buffer: its padding is copied to the heap as it
    // was found on the stack, where pieces of secrets may have been.
    let slot = Arc::new(Mutex::new(Some(cargo)));
    let theirs = Arc::clone(&slot);
    let take = |slot: &Mutex<Option<T>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
    let run = move || {
        if let Some(cargo) = take(&theirs) {
            run(cargo);
        }
    };
    let spawned = thread::Builder::new().name("weseedo-auth".to_owned()).spawn(run);
    if spawned.is_ok() { Ok(()) } else { take(&slot).map_or(Ok(()), Err) }
}

/// Runs `job` in a new thread and waits for its result for at most `time`. A result that comes
/// later is dropped in that thread.
///
/// If the thread can't be started, runs `job` in this one, without a limit.
///
/// # Errors
///
/// Returns `Timeout` if `job` takes longer, `Disconnected` if it panics.
#[cfg(any(feature = "store", feature = "wipe"))]
pub(crate) fn call<T: Send + 'static>(
    time: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RecvTimeoutError> {
    // Without a buffer: a result that nobody takes stays with the thread that made it.
    let (sender, receiver) = mpsc::sync_channel(0);
    let run = move |job: Box<dyn FnOnce() -> T + Send>| _ = sender.send(job());
    match spawn(Box::new(job) as Box<_>, run) {
        Ok(()) => receiver.recv_timeout(time),
        Err(job) => Ok(job()),
    }
}
