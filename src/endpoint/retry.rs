use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::clock::Moment;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::jitter;
use crate::source::{Errand, Fetched, Source};
use crate::token::Token;

const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(2);
/// With less than this left, a request has run out of time: a socket's timer may end this early.
pub(crate) const NO_TIME: Duration = Duration::from_millis(10);

/// The token endpoint, asked again after transient failures.
pub(crate) struct Retrying {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
}

impl Source for Retrying {
    fn fetch(&self, errand: &Errand<'_>, clock: &dyn Fn() -> Moment) -> Fetched {
        Fetched::from_endpoint(self.ask(errand, clock))
    }
}

impl Retrying {
    pub(crate) fn ask(
        &self,
        errand: &Errand<'_>,
        clock: &dyn Fn() -> Moment,
    ) -> Result<Token, Error> {
        let retries = if errand.is_brief { 0 } else { self.retries };
        let mut retry = 0;
        let mut answer = None;
        loop {
            let left = clock().until(errand.deadline);
            if left.is_zero() {
                return Err(answer.unwrap_or_else(|| self.endpoint.timed_out(self.timeout)));
            }
            let is_last = retry == retries;
            // The first attempt gets half of the timeout, also where a store took some of it.
            let share = if retry == 0 { self.timeout / 2 } else { left / 2 };
            let time = if is_last { left } else { share.min(left) };
            let error = match self.endpoint.fetch(errand.grant, time, clock) {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let wait = back_off(retry).max(error.retry_after().unwrap_or_default());
            let left = clock().until(errand.deadline);
            if is_last || !error.is_transient() || wait >= left {
                // The server's own answer says more than that there was no time for another.
                return Err(match answer {
                    Some(answer) if left < NO_TIME => answer,
                    _ => error,
                });
            }
            if let Error::Unavailable { status, .. } = error {
                // Its `Retry-After` will have been waited for.
                answer = Some(Error::Unavailable { status, retry_after: None });
            }
            thread::sleep(wait);
            retry += 1;
        }
    }
}

/// Full jitter over 100 ms · 2ⁿ, at most 2 s.
fn back_off(retry: u32) -> Duration {
    let longest = FIRST_BACK_OFF.saturating_mul(2_u32.saturating_pow(retry));
    jitter::part_of(longest.min(LONGEST_BACK_OFF))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        for (retry, limit) in
            [(0, 100), (1, 200), (4, 1600), (5, 2000), (40, 2000), (u32::MAX, 2000)]
        {
            let longest = (0..200).map(|_| back_off(retry)).max().unwrap();
            let limit = Duration::from_millis(limit);
            assert!(longest < limit && longest > limit * 8 / 10, "{retry}: {longest:?}");
        }
    }
}
