use std::time::{Duration, Instant, SystemTime};

/// A point in time on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Never steps, but may stand still while the machine is suspended.
    pub(crate) monotonic: Instant,
    /// Counts suspend, but may be stepped.
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// The time until the monotonic clock says `later`; nothing once it is past.
    pub(crate) fn until(self, later: Instant) -> Duration {
        later.saturating_duration_since(self.monotonic)
    }

    /// Whether both clocks say so.
    #[inline]
    pub(crate) fn is_before(self, later: Self) -> bool {
        self.monotonic < later.monotonic && self.wall < later.wall
    }

    /// The time since an earlier moment, by the clock that says less; nothing if one says that it
    /// is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let wall = self.wall.duration_since(earlier.wall).unwrap_or_default();
        earlier.until(self.monotonic).min(wall)
    }

    /// Each clock's earlier reading.
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        Self { monotonic: self.monotonic.min(other.monotonic), wall: self.wall.min(other.wall) }
    }

    /// So much later on both clocks. A clock that can't tell a time so far away stays where it is,
    /// so that it can only shorten what it bounds.
    pub(crate) fn plus(self, span: Duration) -> Self {
        Self {
            monotonic: self.monotonic.checked_add(span).unwrap_or(self.monotonic),
            wall: self.wall.checked_add(span).unwrap_or(self.wall),
        }
    }

    /// This earlier moment as the wall clock of `later` would have told it: by how much that clock
    /// was stepped in between no longer matters.
    pub(crate) fn told_by_wall_of(self, later: Self) -> Self {
        let elapsed = self.until(later.monotonic);
        Self { wall: later.wall.checked_sub(elapsed).unwrap_or(later.wall), ..self }
    }
}

/// A stretch of time that is over when either clock says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: Moment,
    length: Duration,
}

impl Span {
    pub(crate) fn new(start: Moment, length: Duration) -> Self {
        Self { start, length }
    }

    /// A stretch of `length`, of which `left` is left at `now`.
    #[cfg(feature = "store")]
    pub(crate) fn with_left(now: Moment, left: Duration, length: Duration) -> Self {
        let passed = length.saturating_sub(left);
        let start = now.monotonic.checked_sub(passed).zip(now.wall.checked_sub(passed));
        match start {
            Some((monotonic, wall)) => Self::new(Moment { monotonic, wall }, length),
            // A clock may not reach back to before the machine was started.
            None => Self::new(now, left),
        }
    }

    pub(crate) fn start(&self) -> Moment {
        self.start
    }

    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// How long before its end what has this life is to be renewed. A short life gets a short
    /// window, never a renewal on every call.
    pub(crate) fn window(&self, refresh_before: Duration) -> Duration {
        refresh_before.min(self.length / 4)
    }

    /// What is left, by the clock that says less. A clock that went back has counted nothing.
    pub(crate) fn left(&self, now: Moment) -> Duration {
        let wall = now.wall.duration_since(self.start.wall).unwrap_or_default();
        self.length.saturating_sub(self.start.until(now.monotonic).max(wall))
    }

    pub(crate) fn is_over(&self, now: Moment) -> bool {
        self.left(now).is_zero()
    }

    pub(crate) fn end(&self) -> Moment {
        self.start.plus(self.length)
    }

    /// The moment that is so long before the end.
    pub(crate) fn before_end(&self, window: Duration) -> Moment {
        self.start.plus(self.length.saturating_sub(window))
    }
}

#[cfg(test)]
impl Moment {
    /// This moment, later by so much on each clock.
    pub(crate) fn later(self, monotonic: Duration, wall: Duration) -> Self {
        Self { monotonic: self.monotonic + monotonic, wall: self.wall + wall }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const TICK: Duration = Duration::from_nanos(1);

    #[test]
    fn over_at_its_end_by_either_clock() {
        let start = Moment::now();
        let hour = Span::new(start, HOUR);
        assert!(!hour.is_over(start.plus(HOUR - TICK)));
        assert!(hour.is_over(start.later(HOUR, Duration::ZERO)));
        assert!(hour.is_over(start.later(Duration::ZERO, HOUR)), "suspend counts");
    }

    #[test]
    fn clock_set_back_ends_nothing_and_prolongs_nothing() {
        let start = Moment::now();
        let hour = Span::new(start, HOUR);
        let set_back =
            |monotonic| Moment { monotonic: start.monotonic + monotonic, wall: start.wall - HOUR };
        assert_eq!(hour.left(set_back(HOUR / 2)), HOUR / 2);
        assert!(hour.is_over(set_back(HOUR)));
    }

    #[test]
    fn step_of_the_wall_clock_in_between_no_longer_matters() {
        let sent = Moment::now();
        for stepped in [HOUR * 3, Duration::ZERO] {
            let arrived = Moment { wall: sent.wall - HOUR + stepped, ..sent.plus(TICK * 9) };
            let span = Span::new(sent.told_by_wall_of(arrived), HOUR);
            assert_eq!(span.left(arrived), HOUR - TICK * 9);
        }
    }

    #[test]
    #[cfg(feature = "store")]
    fn life_that_began_before_the_clock_could_tell_is_not_prolonged() {
        let now = Moment::now();
        let span = Span::with_left(now, HOUR, HOUR * 3);
        assert_eq!((span.left(now), span.length()), (HOUR, HOUR * 3));
        for length in [HOUR, Duration::from_secs(u64::MAX / 2), Duration::MAX] {
            let span = Span::with_left(now, HOUR, length);
            assert_eq!(span.left(now), HOUR);
            assert!(span.is_over(now.plus(HOUR)));
        }
    }

    #[test]
    fn end_that_no_clock_can_tell_is_no_panic() {
        let now = Moment::now();
        assert!(!now.is_before(Span::new(now, Duration::MAX).end()));
    }
}
