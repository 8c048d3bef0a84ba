use std::time::{Duration, Instant, SystemTime};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Never steps, but may stand still while the machine is suspended.
    pub(crate) monotonic: Instant,
    /// Counts suspend, but may be stepped.
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    pub(crate) fn until(self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.monotonic)
    }

    /// Whether both clocks say so.
    pub(crate) fn is_before(self, later: Self) -> bool {
        self.monotonic < later.monotonic && self.wall < later.wall
    }
}

/// A span of time that is over when either clock says so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    start: Now,
    length: Duration,
}

impl Lifetime {
    pub(crate) fn new(start: Now, length: Duration) -> Self {
        Self { start, length }
    }

    /// What is left, by the clock that says less. A clock that went back has counted nothing.
    pub(crate) fn left(&self, now: Now) -> Duration {
        let monotonic = now.monotonic.saturating_duration_since(self.start.monotonic);
        let wall = now.wall.duration_since(self.start.wall).unwrap_or_default();
        self.length.saturating_sub(monotonic.max(wall))
    }

    /// The moment that is so long before the end; `None` where it is too far away for a clock to tell.
    pub(crate) fn before_end(&self, window: Duration) -> Option<Now> {
        let elapsed = self.length.saturating_sub(window);
        Some(Now {
            monotonic: self.start.monotonic.checked_add(elapsed)?,
            wall: self.start.wall.checked_add(elapsed)?,
        })
    }

    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.left(now).is_zero()
    }

    /// How long before the end a renewal is due: a short life gets a short window, never a renewal on every call.
    pub(crate) fn window(&self, refresh_before: Duration) -> Duration {
        refresh_before.min(self.length / 4)
    }
}

#[cfg(test)]
impl Now {
    /// This moment, later by so much on each clock.
    pub(crate) fn later(self, monotonic: Duration, wall: Duration) -> Self {
        Self { monotonic: self.monotonic + monotonic, wall: self.wall + wall }
    }

    pub(crate) fn plus(self, both: Duration) -> Self {
        self.later(both, both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const TICK: Duration = Duration::from_nanos(1);

    #[test]
    fn over_at_its_end_by_either_clock() {
        let start = Now::read();
        let hour = Lifetime::new(start, HOUR);
        assert!(!hour.is_over(start.plus(HOUR - TICK)));
        assert!(hour.is_over(start.later(HOUR, Duration::ZERO)));
        assert!(hour.is_over(start.later(Duration::ZERO, HOUR)), "suspend counts");
    }

    #[test]
    fn clock_set_back_ends_nothing_and_prolongs_nothing() {
        let start = Now::read();
        let hour = Lifetime::new(start, HOUR);
        let set_back =
            |monotonic| Now { monotonic: start.monotonic + monotonic, wall: start.wall - HOUR };
        assert_eq!(hour.left(set_back(HOUR / 2)), HOUR / 2);
        assert!(hour.is_over(set_back(HOUR)));
    }

    #[test]
    fn window_is_a_quarter_of_a_short_life() {
        let window = |length| Lifetime::new(Now::read(), length).window(Duration::from_secs(300));
        assert_eq!(window(HOUR), Duration::from_secs(300));
        assert_eq!(window(Duration::from_secs(1200)), Duration::from_secs(300));
        assert_eq!(window(Duration::from_secs(1196)), Duration::from_secs(299));
        assert_eq!(window(Duration::from_secs(8)), Duration::from_secs(2));
    }
}
