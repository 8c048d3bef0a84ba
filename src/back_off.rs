//! How long the endpoint is left alone after failures.

use std::time::Duration;

use crate::error::{Error, InvalidResponse};
use crate::jitter;

/// How long a server may hand out a token that has expired here, because one second is taken off.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// How long to wait before the `retry`th retry of one fetch: full jitter over 100 ms · 2ⁿ, at most
/// 2 s, or the server's `Retry-After` if that is longer. A token that had expired on arrival is
/// asked for again when the server must have another one.
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

/// The server's `Retry-After`, lengthened by a random 0 to 10 % so that not all grants come back at
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
    fn server_has_another_token_a_second_after_one_that_had_expired_on_arrival() {
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
