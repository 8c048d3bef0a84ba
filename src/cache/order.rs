use std::collections::BTreeSet;
use std::time::{Instant, SystemTime};

use crate::clock::Moment;

/// Entries, by their hash, in the order in which what is known of them is over, by each clock:
/// after a suspend or a step of the wall clock the two orders differ.
#[derive(Default)]
pub(super) struct Order {
    monotonic: BTreeSet<(Instant, u64)>,
    wall: BTreeSet<(SystemTime, u64)>,
}

impl Order {
    pub(super) fn insert(&mut self, end: Moment, hash: u64) {
        self.monotonic.insert((end.monotonic, hash));
        self.wall.insert((end.wall, hash));
    }

    /// Removes what was inserted with this very end.
    pub(super) fn remove(&mut self, end: Moment, hash: u64) {
        self.monotonic.remove(&(end.monotonic, hash));
        self.wall.remove(&(end.wall, hash));
    }

    pub(super) fn len(&self) -> usize {
        self.monotonic.len()
    }

    /// Returns the entry whose end comes first.
    pub(super) fn first(&self) -> Option<u64> {
        self.monotonic.first().map(|(_, hash)| *hash)
    }

    /// Returns an entry whose end is past by either clock.
    pub(super) fn over(&self, now: Moment) -> Option<u64> {
        let monotonic = self.monotonic.first().filter(|(end, _)| *end <= now.monotonic);
        let wall = self.wall.first().filter(|(end, _)| *end <= now.wall);
        monotonic.map(|(_, hash)| *hash).or(wall.map(|(_, hash)| *hash))
    }
}
