use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::process;
use std::time::Duration;

/// A random part of `span`, evenly distributed from zero to just below `span`.
///
/// Every `RandomState` of a process differs, and the operating system seeds the first one. The
/// process number distinguishes forked processes, which have the same seed. That is random enough
/// to spread load, which is the only use here.
pub(crate) fn part_of(span: Duration) -> Duration {
    const STEPS: u32 = 1 << 16;
    #[expect(clippy::cast_possible_truncation, reason = "the remainder makes the cast lossless")]
    let steps = (RandomState::new().hash_one(process::id()) % u64::from(STEPS)) as u32;
    span / STEPS * steps
}

/// `span`, shortened by a random 0 to 25 %, so that programs started together don't act together.
pub(crate) fn shortened(span: Duration) -> Duration {
    span.saturating_sub(part_of(span / 4))
}

/// `span`, lengthened by a random 0 to 10 %, so that callers with the same time to wait don't all
/// retry at once.
pub(crate) fn lengthened(span: Duration) -> Duration {
    span.saturating_add(part_of(span / 10))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn parts_are_spread_over_the_span() {
        let span = Duration::from_secs(1000);
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let part = part_of(span);
            assert!(part < span);
            tenths[usize::try_from(part.as_secs() / 100).unwrap()] += 1;
        }
        // 1,000 are expected in each, with a standard deviation of 30.
        assert!(tenths.iter().all(|n| (700..1300).contains(n)), "{tenths:?}");
    }

    #[test]
    fn spans_are_shortened_by_up_to_a_quarter() {
        let span = Duration::from_secs(1000);
        let (mut least, mut most) = (span, Duration::ZERO);
        for _ in 0..1000 {
            let shortened = shortened(span);
            (least, most) = (least.min(shortened), most.max(shortened));
        }
        let secs = Duration::from_secs;
        assert!((secs(750)..secs(775)).contains(&least), "{least:?}");
        assert!((secs(975)..=secs(1000)).contains(&most), "{most:?}");
    }

    #[test]
    fn fleet_that_started_together_does_not_renew_together() {
        let (hour, window) = (Duration::from_secs(3600), Duration::from_secs(300));
        let mut renewals = HashMap::new();
        for _ in 0..10_000 {
            let mut age = Duration::ZERO;
            while age < hour * 4 {
                *renewals.entry(age.as_secs()).or_insert(0) += 1;
                age += hour - shortened(window);
            }
        }
        let third = renewals.iter().filter(|(second, _)| **second > 3 * 3600 - 1200);
        let peak = third.map(|(_, count)| count).max();
        assert!(peak < Some(&500), "{peak:?} of 10,000 in one second");
    }
}
