//! How many client connections the process has, against how many it may have.
//!
//! Owns the count. Never closes one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of its places a worker keeps one in so many free as long as another has more.
const NEARLY_DIVISOR: u64 = 8;

/// Client connections of the whole process against their limit.
#[derive(Debug)]
pub struct OpenCount {
    open: AtomicU64,
    max: AtomicU64,
    max_per_worker: u64,
    /// A worker has a client at its door and no idle connection of its own to close.
    is_wanted: AtomicBool,
}

impl OpenCount {
    /// None open; `max` in all, `max_per_worker` with a descriptor at each worker.
    pub fn new(max: u64, max_per_worker: u64) -> Self {
        OpenCount {
            open: AtomicU64::new(0),
            max: AtomicU64::new(max),
            max_per_worker,
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Client connections open now, parked ones included.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// How many may be open in all.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Counts one in.
    pub fn add(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `count` out.
    pub fn sub(&self, count: usize) {
        if count > 0 {
            self.open.fetch_sub(count as u64, Ordering::Relaxed);
        }
    }

    /// Client connections with a descriptor that each worker may have.
    pub fn max_per_worker(&self) -> u64 {
        self.max_per_worker
    }

    /// Whether there are as many as there may be in all.
    pub fn is_full(&self) -> bool {
        self.open() >= self.max()
    }

    /// For how many more a worker that has `own` in its table has descriptors.
    pub fn room_in_table(&self, own: u64) -> u64 {
        self.max_per_worker.saturating_sub(own)
    }

    /// Whether a worker that has `own` in its table may take another. Two workers may both be told yes for the last
    /// place: the limit is held to within one connection a worker.
    pub fn has_room(&self, own: u64) -> bool {
        own < self.max_per_worker && !self.is_full()
    }

    /// Whether a worker that has `own` in its table should take from those that wait what they can do without.
    pub fn is_half_full(&self, own: u64) -> bool {
        own >= self.max_per_worker / 2
    }

    /// Whether a worker that has `own` in its table should look for another that has fewer, before it is full.
    pub fn is_nearly_full(&self, own: u64) -> bool {
        own >= self.max_per_worker - self.max_per_worker / NEARLY_DIVISOR
    }

    /// Asks the other workers to make room, if it is the limit of all that is reached: a table of one's own they can't help.
    pub fn want_room(&self) {
        if self.is_full() {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether room is wanted; whoever is told yes makes it.
    pub fn take_want(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed) && self.is_wanted.swap(false, Ordering::Relaxed)
    }

    /// Changes how many may be open in all.
    pub fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_asked_for_room_only_where_they_can_help() {
        let open = OpenCount::new(2, 1);
        open.add();
        open.want_room();
        assert!(!open.has_room(1) && !open.take_want(), "one table is full, and not the proxy");
        open.add();
        open.want_room();
        assert!(open.take_want() && !open.take_want());
    }

    #[test]
    fn a_worker_looks_for_another_before_it_is_full() {
        let open = OpenCount::new(1_000_000, 16_000);
        assert!(!open.is_nearly_full(13_999));
        assert!(open.is_nearly_full(14_000) && open.has_room(14_000));
        assert!(!open.has_room(16_000));
    }
}
