use std::sync::PoisonError;
use std::time::{Duration, Instant};

#[cfg(loom)]
use loom::sync::{Condvar, Mutex, MutexGuard};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::clock::Moment;
use crate::error::Error;
use crate::token::Token;

/// How long after its deadline a flight is taken for abandoned.
const GRACE: Duration = Duration::from_secs(1);

/// A fetch or renewal in progress, for those who wait for it.
pub(crate) struct Flight {
    started: Moment,
    timeout: Duration,
    abandoned_at: Instant,
    landing: Mutex<Option<Landing>>,
    landed: Condvar,
}

/// How a flight ended. It is small: what a variant leaves unused is copied to the heap as it was
/// found on the stack, where pieces of secrets may have been.
pub(crate) enum Landing {
    Token(Token),
    Failed(Box<Error>),
    /// Its leader ran out of time: an error for those who have hardly any left either.
    OutOfTime(Box<Error>),
    /// Its leader is gone without an outcome, as by a panic.
    Gone,
}

/// What came of waiting.
pub(crate) enum Waited {
    Outcome(Result<Token, Error>),
    /// There is time left, but nobody to wait for.
    StartOver,
    /// The time is over.
    InVain,
}

impl Flight {
    /// A flight that lasts no longer than `timeout`.
    pub(super) fn new(started: Moment, timeout: Duration) -> Self {
        Self {
            started,
            timeout,
            abandoned_at: started.plus(timeout.saturating_add(GRACE)).monotonic,
            landing: Mutex::new(None),
            landed: Condvar::new(),
        }
    }

    pub(super) fn started(&self) -> Moment {
        self.started
    }

    /// Whether its thread is gone, or it would have landed: a `fork` copies flights, but not the
    /// threads that are to land them.
    pub(super) fn is_abandoned(&self, now: Moment) -> bool {
        now.monotonic >= self.abandoned_at
    }

    pub(super) fn publish(&self, landing: Landing) {
        *lock(&self.landing) = Some(landing);
        self.landed.notify_all();
    }

    /// Waits for the outcome until `deadline`.
    #[cold]
    pub(crate) fn wait(&self, deadline: Instant, clock: impl Fn() -> Moment) -> Waited {
        let mut landing = lock(&self.landing);
        loop {
            // By the caller's clock, whatever the operating system's timer thinks: it may be wrong,
            // or wake for nothing.
            let now = clock();
            let is_late = now.monotonic >= deadline;
            match &*landing {
                Some(Landing::Token(token)) => return Waited::Outcome(Ok(token.clone())),
                Some(Landing::Failed(error)) => return Waited::Outcome(Err((**error).clone())),
                // With little time left, one waiter after the other would take over and fail too.
                Some(Landing::OutOfTime(error)) if now.until(deadline) < self.timeout / 10 => {
                    return Waited::Outcome(Err((**error).clone()));
                }
                None if is_late => return Waited::InVain,
                None if !self.is_abandoned(now) => {}
                Some(Landing::OutOfTime(_) | Landing::Gone) | None => return Waited::StartOver,
            }
            let left = now.until(deadline.min(self.abandoned_at));
            let woken = self.landed.wait_timeout(landing, left);
            landing = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Locks a mutex, also one that a panicking thread held: no panic can come between two writes under
/// it that belong together.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
