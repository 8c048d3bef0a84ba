//! Decides what a process does with a token that another process has stored. These functions take
//! the time as an argument and do no I/O, so that the bench can simulate many processes with them.

use std::time::{Duration, SystemTime};

use crate::jitter;

/// The shortest lease, because stores may round to milliseconds.
const SHORTEST_LEASE: Duration = Duration::from_millis(1);
const POLL: Duration = Duration::from_millis(50);

/// How long a stored token stays valid: the least of the store's value, the end by this machine's
/// wall clock, and the whole lifetime. Clocks that disagree can shorten this, and never prolong it.
///
/// If the store has no clock and the token seems to come from the future, this machine's clock was
/// set back after the fetch. In that case nothing remains.
pub(crate) fn remaining(
    fetched: SystemTime,
    lifetime: Duration,
    by_store: Option<Duration>,
    now: SystemTime,
) -> Duration {
    let end = fetched.checked_add(lifetime);
    let by_wall = end.and_then(|end| end.duration_since(now).ok()).unwrap_or_default();
    let is_from_future = by_wall > lifetime;
    let by_store = by_store.unwrap_or(if is_from_future { Duration::ZERO } else { lifetime });
    by_wall.min(lifetime).min(by_store)
}

/// Whether a stored token is used. A renewal uses the token only if it outlasts the current one and
/// is not due for renewal itself.
pub(crate) fn is_used(remaining: Duration, window: Duration, current: Option<Duration>) -> bool {
    match current {
        None => !remaining.is_zero(),
        Some(current) => remaining > current && remaining > window,
    }
}

/// How long a lease lasts. A quarter of the time for the fetch, so that waiting processes can still
/// acquire the lease if its holder dies. At most half of the current token's remaining time, so
/// that another process can still renew it.
pub(crate) fn lease(time: Duration, current: Option<Duration>) -> Duration {
    (time / 4).min(current.unwrap_or(time) / 2).max(SHORTEST_LEASE)
}

/// How long to wait for the token of the lease's holder: half of the time for the fetch. Shortened
/// by a random part, so that not all waiting processes ask the endpoint at once if the holder died.
pub(crate) fn patience(time: Duration) -> Duration {
    jitter::shortened(time / 2)
}

/// Whether a renewal is left to the process that has the lease.
///
/// Leases are so short that other processes acquire them before the last quarter of the window,
/// unless the lease is never released. In that case each process renews without the lease, at a
/// random moment. Attempts are a tenth of the window apart, so one of them falls into the last
/// eighth.
pub(crate) fn is_left_to_holder(remaining: Duration, window: Duration) -> bool {
    remaining > window / 8 + jitter::part_of(window / 8)
}

/// How long to wait before the store is asked again: 50 to 100 ms.
pub(crate) fn pause() -> Duration {
    POLL + jitter::part_of(POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn remaining_time_is_the_least_of_all_clocks() {
        let (fetched, life) = (SystemTime::now(), MINUTE * 60);
        let at = |minutes| fetched + MINUTE * minutes;
        assert_eq!(remaining(fetched, life, None, at(20)), MINUTE * 40);
        assert_eq!(remaining(fetched, life, Some(MINUTE * 30), at(20)), MINUTE * 30);
        assert_eq!(remaining(fetched, life, Some(MINUTE * 50), at(20)), MINUTE * 40);
        assert_eq!(remaining(fetched, life, None, at(60)), Duration::ZERO);
        assert_eq!(remaining(fetched, life, None, fetched), life);
        assert_eq!(remaining(fetched, life, None, fetched - MINUTE), Duration::ZERO);
        assert_eq!(remaining(fetched, life, Some(MINUTE * 600), fetched - MINUTE * 600), life);
        assert_eq!(remaining(fetched, Duration::MAX, None, at(0)), Duration::ZERO);
    }

    #[test]
    fn renewal_uses_a_token_that_outlasts_the_current_one_and_is_not_due_itself() {
        assert!(is_used(MINUTE, MINUTE * 5, None));
        assert!(!is_used(Duration::ZERO, MINUTE * 5, None));
        let current = Some(MINUTE * 4);
        assert!(is_used(MINUTE * 6, MINUTE * 5, current));
        assert!(!is_used(MINUTE * 5, MINUTE * 5, current));
        assert!(!is_used(MINUTE * 4, MINUTE * 3, current));
    }

    #[test]
    fn lease_leaves_time_for_other_processes() {
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
    fn renewal_is_left_to_the_holder_of_the_lease_until_the_window_has_nearly_ended() {
        let (window, tries) = (MINUTE * 8, 0..1000);
        assert!(tries.clone().all(|_| is_left_to_holder(MINUTE * 2, window)));
        assert!(!tries.clone().any(|_| is_left_to_holder(MINUTE, window)));
        let waiting = tries.filter(|_| is_left_to_holder(MINUTE * 3 / 2, window)).count();
        assert!((400..600).contains(&waiting), "{waiting} of 1000 still wait halfway");
    }

    #[test]
    fn pauses_are_50_to_100_ms() {
        for _ in 0..1000 {
            assert!((POLL..POLL * 2).contains(&pause()));
        }
    }
}
