//! How often management may be asked: token buckets for all, for changes, and for wrong tokens.
//!
//! Owns the buckets. Pure but for its lock: the time is handed in.

use std::sync::{Mutex, PoisonError};

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: f64,
    burst: f64,
}

/// Requests of any kind. A fleet of a few thousand backends that report once a second fits.
const REQUESTS: Pace = Pace { per_second: 5_000.0, burst: 10_000.0 };
/// Changes: each is checked whole and told to every worker.
const CHANGES: Pace = Pace { per_second: 50.0, burst: 100.0 };
/// Wrong tokens: guessing one of 8 random bytes at this pace takes longer than the sun has left.
const FAILURES: Pace = Pace { per_second: 10.0, burst: 50.0 };

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any request.
    Request,
    /// One that changes something.
    Change,
    /// One with a wrong token.
    Failure,
}

/// A bucket that fills with time and is emptied by requests.
#[derive(Debug)]
struct Bucket {
    pace: Pace,
    level: f64,
    at_ms: u64,
}

impl Bucket {
    fn full(pace: Pace) -> Self {
        Bucket { pace, level: pace.burst, at_ms: 0 }
    }

    fn take(&mut self, now_ms: u64) -> bool {
        let since = now_ms.saturating_sub(self.at_ms) as f64 / 1e3;
        self.at_ms = now_ms.max(self.at_ms);
        self.level = (self.level + since * self.pace.per_second).min(self.pace.burst);
        let is_there = self.level >= 1.0;
        if is_there {
            self.level -= 1.0;
        }
        is_there
    }
}

/// The buckets of one port, for all its peers together: the whole cost is what is bounded.
#[derive(Debug)]
pub struct Rates(Mutex<[Bucket; 3]>);

impl Default for Rates {
    fn default() -> Self {
        Rates(Mutex::new([REQUESTS, CHANGES, FAILURES].map(Bucket::full)))
    }
}

impl Rates {
    /// Whether one more is allowed at `now_ms`.
    pub fn allow(&self, kind: Kind, now_ms: u64) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets[kind as usize].take(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_pace() {
        let rates = Rates::default();
        let allowed = |n: usize, now_ms| (0..n).filter(|_| rates.allow(Kind::Change, now_ms)).count();
        assert_eq!(allowed(1000, 1_000_000), 100);
        assert_eq!(allowed(1000, 1_000_100), 5);
        // Time that goes back gives nothing.
        assert_eq!(allowed(1000, 1_000_000), 0);
        assert_eq!(allowed(1000, 2_000_000), 100);
        assert!(rates.allow(Kind::Request, 0));
    }
}
