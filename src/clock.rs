use std::time::{Duration, Instant, SystemTime};

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Never steps, but may stop while the machine is suspended.
    pub(crate) monotonic: Instant,
    /// Counts suspend, but may be stepped.
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The time until the monotonic clock reads `later`; zero if that is past.
    pub(crate) fn until(self, later: Instant) -> Duration {
        later.saturating_duration_since(self.monotonic)
    }

    /// Whether both clocks are before their reading in `later`.
    #[inline]
    pub(crate) fn is_before(self, later: Self) -> bool {
        self.monotonic < later.monotonic && self.wall < later.wall
    }

    /// The time since an earlier moment, by the clock that counts less; zero if a clock reads
    /// earlier now than it did then.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        earlier.until(self.monotonic).min(wall)
    }

    /// The earlier reading of each clock.
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        Self { monotonic: self.monotonic.min(other.monotonic), wall: self.wall.min(other.wall) }
    }

    /// The moment `span` later. A clock that can't represent a time so far away keeps its reading,
    /// so that an overflow can only shorten a deadline.
    pub(crate) fn plus(self, span: Duration) -> Self {
        Self {
            monotonic: self.monotonic.checked_add(span).unwrap_or(self.monotonic),
            wall: self.wall.checked_add(span).unwrap_or(self.wall),
        }
    }

    /// This moment with the reading that the wall clock of `later` would have had. So a step of the
    /// wall clock between the two no longer matters.
    pub(crate) fn by_wall_clock_of(self, later: Self) -> Self {
        let elapsed = self.until(later.monotonic);
        Self { wall: later.wall.checked_sub(elapsed).unwrap_or(later.wall), ..self }
    }
}

/// A stretch of time. It has ended as soon as either clock says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: Moment,
    pub(crate) length: Duration,
}

impl Span {
    pub(crate) fn new(start: Moment, length: Duration) -> Self {
        Self { start, length }
    }

    /// A span of `length` that ends `remaining` after `now`.
    #[cfg(feature = "store")]
    pub(crate) fn with_remaining(now: Moment, remaining: Duration, length: Duration) -> Self {
        let passed = length.saturating_sub(remaining);
        let start = now.monotonic.checked_sub(passed).zip(now.wall.checked_sub(passed));
        match start {
            Some((monotonic, wall)) => Self::new(Moment { monotonic, wall }, length),
            // A monotonic clock may not reach back to before the machine was started.
            None => Self::new(now, remaining),
        }
    }

    /// How long before the end of a token with this lifetime its renewal is due. At most a quarter
    /// of the lifetime, so that a short-lived token isn't renewed on every call.
    pub(crate) fn window(&self, renew_before: Duration) -> Duration {
        renew_before.min(self.length / 4)
    }

    /// The time until the end, by the clock that says less. A clock that was set back to before the
    /// start counts as not having moved.
    pub(crate) fn remaining(&self, now: Moment) -> Duration {
        let wall = now.wall.duration_since(self.start.wall).unwrap_or_default();
        self.length.saturating_sub(self.start.until(now.monotonic).max(wall))
    }

    pub(crate) fn has_ended(&self, now: Moment) -> bool {
        self.remaining(now).is_zero()
    }

    pub(crate) fn end(&self) -> Moment {
        self.start.plus(self.length)
    }

    /// The moment `window` before the end.
    pub(crate) fn before_end(&self, window: Duration) -> Moment {
        self.start.plus(self.length.saturating_sub(window))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #[cfg(not(loom))]
    use std::sync::{Arc, Mutex};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const TICK: Duration = Duration::from_nanos(1);

    /// A clock that only the test moves.
    #[cfg(not(loom))]
    #[derive(Clone)]
    pub(crate) struct TestClock(Arc<Mutex<Moment>>);

    #[cfg(not(loom))]
    impl TestClock {
        pub(crate) fn new() -> Self {
            Self(Arc::new(Mutex::new(Moment::now())))
        }

        pub(crate) fn now(&self) -> Moment {
            *self.0.lock().unwrap()
        }

        pub(crate) fn set(&self, now: Moment) {
            *self.0.lock().unwrap() = now;
        }

        pub(crate) fn advance(&self, monotonic: Duration, wall: Duration) {
            let mut now = self.0.lock().unwrap();
            *now = now.later(monotonic, wall);
        }
    }

    impl Moment {
        /// This moment, later by the given time on each clock.
        pub(crate) fn later(self, monotonic: Duration, wall: Duration) -> Self {
            Self { monotonic: self.monotonic + monotonic, wall: self.wall + wall }
        }
    }

    #[test]
    fn span_has_ended_at_its_end_by_either_clock() {
        let start = Moment::now();
        let hour = Span::new(start, HOUR);
        assert!(!hour.has_ended(start.plus(HOUR - TICK)));
        assert!(hour.has_ended(start.later(HOUR, Duration::ZERO)));
        assert!(hour.has_ended(start.later(Duration::ZERO, HOUR)), "suspend counts");
    }

    #[test]
    fn clock_set_back_ends_nothing_and_prolongs_nothing() {
        let start = Moment::now();
        let hour = Span::new(start, HOUR);
        let set_back =
            |monotonic| Moment { monotonic: start.monotonic + monotonic, wall: start.wall - HOUR };
        assert_eq!(hour.remaining(set_back(HOUR / 2)), HOUR / 2);
        assert!(hour.has_ended(set_back(HOUR)));
    }

    #[test]
    fn step_of_the_wall_clock_in_between_no_longer_matters() {
        let sent = Moment::now();
        for stepped in [HOUR * 3, Duration::ZERO] {
            let arrived = Moment { wall: sent.wall - HOUR + stepped, ..sent.plus(TICK * 9) };
            let span = Span::new(sent.by_wall_clock_of(arrived), HOUR);
            assert_eq!(span.remaining(arrived), HOUR - TICK * 9);
        }
    }

    #[test]
    #[cfg(feature = "store")]
    fn span_that_began_before_the_machine_started_is_not_prolonged() {
        let now = Moment::now();
        let span = Span::with_remaining(now, HOUR, HOUR * 3);
        assert_eq!((span.remaining(now), span.length), (HOUR, HOUR * 3));
        for length in [HOUR, Duration::from_secs(u64::MAX / 2), Duration::MAX] {
            let span = Span::with_remaining(now, HOUR, length);
            assert_eq!(span.remaining(now), HOUR);
            assert!(span.has_ended(now.plus(HOUR)));
        }
    }

    #[test]
    fn end_beyond_the_clocks_does_not_panic() {
        let now = Moment::now();
        assert!(!now.is_before(Span::new(now, Duration::MAX).end()));
    }
}
