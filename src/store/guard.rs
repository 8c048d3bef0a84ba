use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use log::warn;

use crate::background;
use crate::clock::Moment;
use crate::event::{Event, Hook, LOG, StoreError};
use crate::grant::Grant;
use crate::store::TokenStore;

/// How long a store is left alone after it failed or was slow.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// A store that can't delay a caller for long: each call runs in a thread of its own.
#[derive(Clone)]
pub(crate) struct GuardedStore {
    store: Arc<dyn TokenStore>,
    hook: Arc<Hook>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    left_alone_until: Option<Instant>,
    /// The calls that no thread waits for any longer. While one of them runs, no other call is
    /// made. So a store that hangs forever keeps one thread, and not one more every 30 s.
    abandoned: Vec<Weak<()>>,
}

impl GuardedStore {
    pub(crate) fn new(store: Box<dyn TokenStore>, hook: Arc<Hook>) -> Self {
        Self { store: store.into(), hook, state: Arc::default() }
    }

    /// Returns the store; `None` while it is left alone: for 30 s after a failure, and while an
    /// abandoned call runs.
    pub(super) fn unless_left_alone(&self, now: Moment) -> Option<&Self> {
        let mut state = self.lock();
        state.abandoned.retain(|call| call.strong_count() > 0);
        let is_left_alone = state.left_alone_until.is_some_and(|until| now.monotonic < until);
        (state.abandoned.is_empty() && !is_left_alone).then_some(self)
    }

    /// Calls the store, also while it is left alone, in a thread of its own. Waits for `patience`
    /// at most. A store that fails, panics or takes longer is left alone. A late answer is dropped
    /// in that thread, which releases a lease.
    pub(super) fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        grant: &Grant,
        now: Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (this, running, start) = (self.clone(), Arc::new(()), Instant::now());
        let abandoned = Arc::downgrade(&running);
        // The call runs until its answer is dropped, because that may release a lease.
        let answer = background::call(patience, move || (call(&*this.store), running));
        let error = match answer {
            Ok((Ok(answer), _)) => return Ok(answer),
            Ok((Err(error), _)) => error,
            Err(RecvTimeoutError::Timeout) => {
                format!("no answer within {:.1} s", patience.as_secs_f64()).into()
            }
            Err(RecvTimeoutError::Disconnected) => "it panicked".into(),
        };
        let mut state = self.lock();
        state.left_alone_until = now.monotonic.checked_add(start.elapsed() + LEFT_ALONE);
        state.abandoned.push(abandoned);
        drop(state);
        let client_id = grant.client_id();
        warn!(
            target: LOG,
            "client {client_id:?}: the token store failed and is left alone for 30 s, meanwhile \
             the token endpoint is asked: {error}"
        );
        Err(error)
    }

    /// Makes a call whose result no caller needs. Waits for `wait` at most, where the call itself
    /// may take `patience`. Its thread reports a failure.
    pub(super) fn call_detached(
        &self,
        wait: Duration,
        patience: Duration,
        grant: &Grant,
        now: Moment,
        call: impl FnOnce(&dyn TokenStore) -> Result<(), StoreError> + Send + 'static,
    ) {
        let (this, grant) = (self.clone(), grant.clone());
        let _ = background::call(wait, move || {
            if let Err(error) = this.call(patience, &grant, now, call) {
                let client_id = grant.client_id();
                Event::StoreFailed { client_id, error: &*error }.report(&*this.hook);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
