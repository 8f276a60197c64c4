//! Passive ejection: a backend that keeps failing requests is set aside for a while.
//!
//! Owns the record of one backend and the bound of its upstream. Never says what a failure is (refused, connect timeout,
//! TLS failure, reset or close before a whole head, response timeout; a 5xx answer is none): the caller does.

/// Failures in a row that eject.
pub const FAILURES: u32 = 5;
/// The first ejection, in milliseconds; each further one is twice as long.
pub const FIRST_MS: u64 = 10_000;
/// The longest ejection, in milliseconds.
pub const LONGEST_MS: u64 = 300_000;
/// Time in service that takes one doubling back, in milliseconds: after five minutes all is forgotten.
pub const FORGIVE_MS: u64 = 60_000;

/// Doublings until [`LONGEST_MS`] is reached.
const DOUBLINGS_MAX: u32 = 5;
const _: () = assert!(FIRST_MS << DOUBLINGS_MAX >= LONGEST_MS && FIRST_MS << (DOUBLINGS_MAX - 1) < LONGEST_MS);

/// How many of an upstream's `backends` may be ejected at once: half, rounded down, so never the only one.
pub const fn ejected_max(backends: usize) -> usize {
    backends / 2
}

/// The record of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    failed: u32,
    /// How often the next ejection is doubled, before time in service is taken off.
    doublings: u32,
    /// The end of the last ejection; 0 = there was none.
    until_ms: u64,
}

impl Record {
    /// A request ended well: the row of failures is broken. An ejection that runs goes on.
    pub fn succeeded(&mut self) {
        self.failed = 0;
    }

    /// A request failed. Gives the end of the ejection that this begins.
    ///
    /// `has_room` says whether fewer than [`ejected_max`] of the upstream are ejected now; it is asked only when it
    /// matters. Without room the row stays, and the next failure asks again. Failures of one that is ejected already
    /// (requests that were under way, or that had nowhere else to go) don't count.
    pub fn failed(&mut self, now_ms: u64, has_room: impl FnOnce() -> bool) -> Option<u64> {
        if self.is_ejected(now_ms) {
            return None;
        }
        self.failed = self.failed.saturating_add(1);
        if self.failed < FAILURES || !has_room() {
            return None;
        }
        let doublings = self.doublings_left(now_ms);
        self.failed = 0;
        self.doublings = (doublings + 1).min(DOUBLINGS_MAX);
        self.until_ms = now_ms.saturating_add((FIRST_MS << doublings).min(LONGEST_MS));
        Some(self.until_ms)
    }

    /// Whether it is ejected now.
    pub fn is_ejected(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms
    }

    /// The end of the last ejection, past or to come; 0 when there was none.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Ends an ejection at once: for when a reload leaves more ejected than [`ejected_max`] allows.
    pub fn pardon(&mut self, now_ms: u64) {
        self.until_ms = self.until_ms.min(now_ms);
    }

    /// The doublings that time in service has not yet taken back.
    fn doublings_left(&self, now_ms: u64) -> u32 {
        let forgiven = now_ms.saturating_sub(self.until_ms) / FORGIVE_MS;
        self.doublings.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Rng;

    /// Five failures at `now_ms`, with room.
    fn fail_five(record: &mut Record, now_ms: u64) -> Option<u64> {
        (0..FAILURES).map(|_| record.failed(now_ms, || true)).last().flatten()
    }

    #[test]
    fn five_in_a_row_eject() {
        let mut record = Record::default();
        for _ in 0..4 {
            assert_eq!(record.failed(0, || true), None);
        }
        record.succeeded();
        assert_eq!(fail_five(&mut record, 100), Some(10_100));
        assert!(record.is_ejected(10_099));
        assert!(!record.is_ejected(10_100));
    }

    #[test]
    fn ejections_double_up_to_five_minutes() {
        let mut record = Record::default();
        let mut now_ms = 0;
        let mut lengths = Vec::new();
        for _ in 0..8 {
            let until_ms = fail_five(&mut record, now_ms).unwrap();
            lengths.push((until_ms - now_ms) / 1000);
            now_ms = until_ms;
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300, 300]);
        // Two minutes in service take two doublings back, and ten take all.
        let until_ms = fail_five(&mut record, now_ms + 2 * FORGIVE_MS).unwrap();
        assert_eq!(until_ms - (now_ms + 2 * FORGIVE_MS), 80_000);
        assert_eq!(fail_five(&mut record, until_ms + 10 * FORGIVE_MS), Some(until_ms + 10 * FORGIVE_MS + FIRST_MS));
    }

    #[test]
    fn failures_while_ejected_do_not_count() {
        let mut record = Record::default();
        let until_ms = fail_five(&mut record, 0).unwrap();
        assert_eq!(fail_five(&mut record, until_ms - 1), None);
        assert_eq!(record.failed(until_ms, || true), None, "a new row begins after it");
        assert_eq!(record.until_ms(), until_ms);
    }

    #[test]
    fn without_room_the_next_failure_asks_again() {
        let mut record = Record::default();
        assert!((0..9).all(|_| record.failed(5, || false).is_none()));
        assert_eq!(record.failed(6, || true), Some(6 + FIRST_MS));
    }

    #[test]
    fn a_pardon_ends_it_and_only_it() {
        let mut record = Record::default();
        fail_five(&mut record, 1_000);
        record.pardon(2_000);
        assert!(!record.is_ejected(2_000));
        assert_eq!(fail_five(&mut record, 3_000), Some(23_000), "the doubling stays");
    }

    /// Random requests over simulated hours on upstreams of every size, each with backends of their own badness.
    #[test]
    fn never_more_than_half_and_never_for_ever() {
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            let n = 1 + rng.below(9) as usize;
            let badness: Vec<u64> = (0..n).map(|_| rng.below(101)).collect();
            let mut records = vec![Record::default(); n];
            let mut now_ms = 0;
            for _ in 0..20_000 {
                now_ms += rng.below(200);
                let i = rng.below(n as u64) as usize;
                step(&mut records, i, now_ms, rng.below(100) < badness[i]);
            }
            let end_ms = now_ms + LONGEST_MS;
            assert!(records.iter().all(|record| !record.is_ejected(end_ms)));
        }
    }

    fn step(records: &mut [Record], i: usize, now_ms: u64, is_failure: bool) {
        let ejected = records.iter().filter(|record| record.is_ejected(now_ms)).count();
        if !is_failure {
            return records[i].succeeded();
        }
        let was = records[i].is_ejected(now_ms);
        let room = ejected < ejected_max(records.len());
        if let Some(until_ms) = records[i].failed(now_ms, || room) {
            assert!(!was && room && (FIRST_MS..=LONGEST_MS).contains(&(until_ms - now_ms)));
        }
        let after = records.iter().filter(|record| record.is_ejected(now_ms)).count();
        assert!(after <= ejected_max(records.len()), "{after} of {}", records.len());
    }
}
