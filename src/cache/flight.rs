use std::sync::{OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

#[cfg(loom)]
pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};

use crate::background;
use crate::clock::Moment;
use crate::error::Error;
use crate::token::Token;

/// How long after its deadline a flight counts as abandoned.
const GRACE: Duration = Duration::from_secs(1);

/// A fetch or renewal that is running, and the place where others wait for its outcome.
pub(crate) struct Flight {
    pub(super) started: Moment,
    timeout: Duration,
    abandoned_at: Instant,
    /// The thread that will land the flight.
    leader: OnceLock<ThreadId>,
    landing: Mutex<Option<Landing>>,
    landed: Condvar,
}

/// How a flight ended.
///
/// All variants are small, because moving a value to the heap copies its unused part too. That part
/// is old content of the stack, which may hold pieces of secrets.
#[derive(Clone)]
pub(crate) enum Landing {
    Token(Token),
    Failed(Box<Error>),
    /// This attempt was cut short, so waiters with time left retry instead of failing with its
    /// error.
    OutOfTime(Box<Error>),
    /// The leader ended without an outcome, for example with a panic.
    Gone,
}

/// How a wait ended.
pub(crate) enum Waited {
    Outcome(Result<Token, Error>),
    /// The waiter has time left, but the flight brings no outcome.
    StartOver,
    TimedOut,
    /// The waiter would wait for itself.
    OwnFlight,
}

impl Flight {
    /// Creates a flight that lasts `timeout` at most.
    pub(super) fn new(started: Moment, timeout: Duration) -> Self {
        Self {
            started,
            timeout,
            abandoned_at: started.plus(timeout.saturating_add(GRACE)).monotonic,
            leader: OnceLock::new(),
            landing: Mutex::new(None),
            landed: Condvar::new(),
        }
    }

    /// Whether the leader's thread must be gone, because it would have landed by now. A `fork`
    /// copies flights, but not the threads that would land them.
    pub(super) fn is_abandoned(&self, now: Moment) -> bool {
        now.monotonic >= self.abandoned_at
    }

    /// Makes this thread the one that will land the flight.
    pub(crate) fn set_leader(&self) {
        let _ = self.leader.set(background::caller());
    }

    /// Publishes the landing to the waiters. Ignores a second landing, because a lead lands again
    /// when it is dropped.
    pub(super) fn publish(&self, landing: Landing) {
        lock(&self.landing).get_or_insert(landing);
        self.landed.notify_all();
    }

    /// Waits for the outcome until `deadline`.
    #[cold]
    pub(crate) fn wait(&self, deadline: Instant, clock: impl Fn() -> Moment) -> Waited {
        if self.leader.get() == Some(&background::caller()) {
            return Waited::OwnFlight;
        }
        let mut landing = lock(&self.landing);
        loop {
            // The caller's clock decides, because the condition variable may wake up early or for
            // no reason.
            let now = clock();
            match &*landing {
                Some(Landing::Token(token)) => return Waited::Outcome(Ok(token.clone())),
                Some(Landing::Failed(error)) => return Waited::Outcome(Err((**error).clone())),
                // With so little time left, one waiter after the other would take over and fail.
                Some(Landing::OutOfTime(error)) if now.until(deadline) < self.timeout / 10 => {
                    return Waited::Outcome(Err((**error).clone()));
                }
                _ if now.monotonic >= deadline => return Waited::TimedOut,
                None if !self.is_abandoned(now) => {}
                _ => return Waited::StartOver,
            }
            let time = now.until(deadline.min(self.abandoned_at));
            let woken = self.landed.wait_timeout(landing, time);
            landing = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Locks a mutex, even if a thread panicked while it held the lock. That is safe, because no code
/// under these locks can panic between two writes that belong together.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
