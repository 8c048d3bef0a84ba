//! What a process does with a token that another one has stored. Told the time, and free of I/O, so
//! that the bench can simulate a fleet on it.

use std::time::{Duration, SystemTime};

use crate::jitter;

const POLL: Duration = Duration::from_millis(50);

/// What a stored token has left: the least of what the store says, what this machine's wall clock
/// says, and its whole life. Clocks that disagree can shorten a life, never prolong it.
pub(crate) fn left(
    fetched: SystemTime,
    lifetime: Duration,
    by_store: Option<Duration>,
    now: SystemTime,
) -> Duration {
    let end = fetched.checked_add(lifetime);
    let by_wall = end.and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
    by_wall.min(lifetime).min(by_store.unwrap_or(lifetime))
}

/// Whether a stored token that has so much left is taken. A renewal takes it only if it outlasts the
/// token in hand and is not within its own window of renewal, which is at most so long.
pub(crate) fn is_taken(left: Duration, window: Duration, in_hand: Option<Duration>) -> bool {
    match in_hand {
        None => !left.is_zero(),
        Some(in_hand) => left > in_hand && left > window,
    }
}

/// Of the time that there is, how much another process gets to fetch a token for all: the lease lasts
/// no longer, and nobody waits longer for who has it.
pub(crate) fn share(time: Duration) -> Duration {
    time / 2
}

/// Whether a renewal leaves it to the process that has the lease. No lease lasts so long that it is
/// still another's in the second half of the window, unless nobody gives it back.
pub(crate) fn is_left_to_holder(token_left: Duration, window: Duration) -> bool {
    token_left > window / 2
}

/// How long to wait before a store is asked again: 50 to 100 ms.
pub(crate) fn pause() -> Duration {
    POLL + jitter::part_of(POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_left_is_the_least_that_anybody_says() {
        let (fetched, life) = (SystemTime::now(), MINUTE * 60);
        let at = |minutes| fetched + MINUTE * minutes;
        assert_eq!(left(fetched, life, None, at(20)), MINUTE * 40);
        assert_eq!(left(fetched, life, Some(MINUTE * 30), at(20)), MINUTE * 30);
        assert_eq!(left(fetched, life, Some(MINUTE * 50), at(20)), MINUTE * 40);
        assert_eq!(left(fetched, life, None, at(60)), Duration::ZERO);
        assert_eq!(left(fetched, life, None, fetched - MINUTE * 600), life);
        assert_eq!(left(fetched, life, Some(MINUTE * 600), fetched - MINUTE * 600), life);
        assert_eq!(left(fetched, Duration::MAX, None, at(0)), Duration::ZERO);
    }

    #[test]
    fn renewal_takes_what_outlasts_the_token_in_hand_and_is_not_due_itself() {
        assert!(is_taken(MINUTE, MINUTE * 5, None));
        assert!(!is_taken(Duration::ZERO, MINUTE * 5, None));
        let in_hand = Some(MINUTE * 4);
        assert!(is_taken(MINUTE * 6, MINUTE * 5, in_hand));
        assert!(!is_taken(MINUTE * 5, MINUTE * 5, in_hand));
        assert!(!is_taken(MINUTE * 4, MINUTE * 3, in_hand));
    }

    #[test]
    fn renewal_is_left_to_the_holder_of_the_lease_in_the_first_half_of_the_window() {
        assert!(is_left_to_holder(MINUTE * 3, MINUTE * 5));
        assert!(!is_left_to_holder(MINUTE * 2, MINUTE * 5));
    }

    #[test]
    fn pauses_are_50_to_100_ms() {
        for _ in 0..1000 {
            assert!((POLL..POLL * 2).contains(&pause()));
        }
    }
}
