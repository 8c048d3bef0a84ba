use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::debug;

use crate::back_off;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::event::LOG;
use crate::source::{Fetched, TokenRequest, TokenSource};

/// With less time than this, a request counts as out of time, because the timer of a socket may
/// end this early.
pub(crate) const NO_TIME: Duration = Duration::from_millis(10);

impl TokenSource for Arc<Endpoint> {
    /// Asks for a token, and again after transient failures.
    fn fetch(&self, request: &TokenRequest<'_>) -> Result<Fetched, Error> {
        let clock = request.clock;
        // A caller may have waited for another fetch before. A time-out names its whole time.
        let whole =
            request.deadline.checked_sub(self.timeout).filter(|_| request.current.is_none());
        let start = whole.unwrap_or(clock().monotonic);
        let mut retry = 0;
        let mut answer = None;
        loop {
            let remaining = clock().until(request.deadline);
            if remaining.is_zero() {
                let elapsed = clock().monotonic.saturating_duration_since(start);
                return Err(answer.unwrap_or_else(|| self.timed_out(elapsed)));
            }
            let is_last = retry == request.retries;
            // The first attempt gets half of `timeout`, even if a store has used a part of it.
            let share = if retry == 0 { self.timeout / 2 } else { remaining / 2 };
            let time = if is_last { remaining } else { share.min(remaining) };
            let error = match self.fetch_once(request, time, start) {
                Ok(token) => return Ok(Fetched::New(token)),
                Err(error) => error,
            };
            let wait = back_off::before_retry(retry, &error);
            let remaining = clock().until(request.deadline);
            if is_last || !error.is_transient() || wait >= remaining {
                // The server's own answer says more than a time-out.
                return Err(answer.filter(|_| remaining < NO_TIME).unwrap_or(error));
            }
            let client_id = request.grant.client_id();
            debug!(target: LOG, "client {client_id:?}: asking again in {wait:.1?}: {error}");
            if error.status().is_some() {
                // When this error is returned, its `Retry-After` has been waited for.
                answer = Some(error.with_retry_after(None));
            }
            thread::sleep(wait);
            retry += 1;
        }
    }
}
