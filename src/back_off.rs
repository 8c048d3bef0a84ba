//! Decides how long the endpoint gets no request after failures.

use std::time::Duration;

use crate::error::{Error, InvalidResponse};
use crate::jitter;

/// A server that counts whole seconds may repeat a token for this long after it has expired here.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// How long to wait before the `retry`th retry of one fetch. Full jitter over 100 ms · 2ⁿ, at most
/// 2 s. A longer `Retry-After` of the server takes its place. After a token that had expired on
/// arrival, the wait is long enough for the server to have a new one.
pub(crate) fn before_retry(retry: u32, error: &Error) -> Duration {
    if matches!(error, Error::InvalidResponse(InvalidResponse::Expired)) {
        return jitter::lengthened(LAST_SECOND);
    }
    let longest = Duration::from_millis(100).saturating_mul(2_u32.saturating_pow(retry));
    jitter::part_of(longest.min(Duration::from_secs(2))).max(retry_after(error))
}

/// How long callers get the error after the `count`th failed fetch in a row.
pub(crate) fn after_failure(count: u32, error: &Error) -> Duration {
    let (first, longest) = if error.is_transient() {
        (Duration::from_millis(100), Duration::from_secs(2))
    } else {
        (Duration::from_secs(1), Duration::from_secs(30))
    };
    let pause = match count.checked_sub(2) {
        // One failure delays nobody.
        None => Duration::ZERO,
        Some(doublings) => first.saturating_mul(2_u32.saturating_pow(doublings)).min(longest),
    };
    jitter::shortened(pause).max(retry_after(error))
}

/// The server's `Retry-After`, lengthened by a random 0 to 10 % so that not all grants retry at
/// once; zero if there is none.
pub(crate) fn retry_after(error: &Error) -> Duration {
    jitter::lengthened(error.retry_after().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_up_to_twice_as_long_each_time() {
        let error = Error::InvalidResponse(InvalidResponse::Body(""));
        for (retry, limit) in
            [(0, 100), (1, 200), (4, 1600), (5, 2000), (40, 2000), (u32::MAX, 2000)]
        {
            let longest = (0..200).map(|_| before_retry(retry, &error)).max().unwrap();
            let limit = Duration::from_millis(limit);
            assert!(longest < limit && longest > limit * 8 / 10, "{retry}: {longest:?}");
        }
    }

    #[test]
    fn retry_waits_a_second_after_a_token_that_had_expired_on_arrival() {
        let error = Error::InvalidResponse(InvalidResponse::Expired);
        assert!((0..200).all(|_| before_retry(0, &error) >= LAST_SECOND));
    }

    #[test]
    fn retry_after_is_lengthened_by_up_to_a_tenth() {
        let wait = Duration::from_secs(100);
        let error = Error::Unavailable {
            status: 429,
            code: None,
            description: None,
            retry_after: Some(wait),
        };
        for waits in [before_retry, after_failure] {
            let all: Vec<_> = (0..200).map(|_| waits(1, &error)).collect();
            let (least, most) = (*all.iter().min().unwrap(), *all.iter().max().unwrap());
            assert!(least >= wait && least < wait * 101 / 100, "{least:?}");
            assert!(most <= wait * 11 / 10 && most > wait * 109 / 100, "{most:?}");
        }
    }
}
