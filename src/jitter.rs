use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

/// A random share of `span`, evenly spread from nothing to just below all of it.
///
/// A `RandomState` is seeded by the operating system and differs from every other one of the process: random enough to
/// spread load, which is all that this is for.
pub(crate) fn part_of(span: Duration) -> Duration {
    const STEPS: u32 = 1 << 16;
    // The remainder makes the cast lossless.
    #[expect(clippy::cast_possible_truncation)]
    let steps = (RandomState::new().hash_one(()) % u64::from(STEPS)) as u32;
    span / STEPS * steps
}

#[cfg(test)]
mod tests {
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
}
