//! What a process does with a token that another one has stored. Told the time, and free of I/O, so
//! that the bench can simulate a fleet on it.

use std::time::{Duration, SystemTime};

use crate::jitter;

/// What any store can tell from nothing.
const LEAST_LEASE: Duration = Duration::from_millis(1);
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

/// Whether a stored token that has so much left is taken. A renewal takes it only if it outlasts
/// the token in hand and is not within its own window of renewal, which is at most so long.
pub(crate) fn is_taken(left: Duration, window: Duration, in_hand: Option<Duration>) -> bool {
    match in_hand {
        None => !left.is_zero(),
        Some(in_hand) => left > in_hand && left > window,
    }
}

/// How long a lease lasts: a quarter of the time that there is for a fetch, so that those who wait
/// can still have it if its holder dies; and half of what the token in hand has left, so that
/// another process can renew it then.
pub(crate) fn lease(time: Duration, token_left: Option<Duration>) -> Duration {
    (time / 4).min(token_left.unwrap_or(time) / 2).max(LEAST_LEASE)
}

/// How long to wait for a token of who has the lease: half of the time that there is, less a random
/// part, so that those who wait for one who died don't all ask at once.
pub(crate) fn patience(time: Duration) -> Duration {
    jitter::shortened(time / 2)
}

/// Whether a renewal leaves it to the process that has the lease. Leases are so short that others
/// have had it by the last quarter of the window, unless nobody ever gives it back; then each goes
/// without it, at a moment of its own. Tries are a tenth of the window apart, and one is in the
/// last eighth.
pub(crate) fn is_left_to_holder(token_left: Duration, window: Duration) -> bool {
    token_left > window / 8 + jitter::part_of(window / 8)
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
    fn lease_leaves_others_time() {
        assert_eq!(lease(MINUTE, None), MINUTE / 4);
        assert_eq!(lease(MINUTE, Some(MINUTE)), MINUTE / 4);
        assert_eq!(lease(MINUTE, Some(MINUTE / 3)), MINUTE / 6);
        assert_eq!(lease(Duration::ZERO, None), Duration::from_millis(1));
    }

    #[test]
    fn patience_is_half_of_the_time_less_a_random_quarter() {
        let all: Vec<_> = (0..1000).map(|_| patience(MINUTE)).collect();
        let (least, most) = (all.iter().min().unwrap(), all.iter().max().unwrap());
        assert!((MINUTE * 3 / 8..MINUTE * 4 / 10).contains(least), "{least:?}");
        assert!((MINUTE * 48 / 100..=MINUTE / 2).contains(most), "{most:?}");
    }

    #[test]
    fn renewal_is_left_to_the_holder_of_the_lease_until_the_window_is_nearly_over() {
        let (window, tries) = (MINUTE * 8, 0..1000);
        assert!(tries.clone().all(|_| is_left_to_holder(MINUTE * 2, window)));
        assert!(!tries.clone().any(|_| is_left_to_holder(MINUTE, window)));
        let left = tries.filter(|_| is_left_to_holder(MINUTE * 3 / 2, window)).count();
        assert!((400..600).contains(&left), "{left} of 1000 go on waiting half-way");
    }

    #[test]
    fn pauses_are_50_to_100_ms() {
        for _ in 0..1000 {
            assert!((POLL..POLL * 2).contains(&pause()));
        }
    }
}
