//! The retry budget of an upstream: retries stay a small part of its requests, so that a failing upstream isn't
//! finished off by them.
//!
//! Owns the two sliding counts. Never says whether a request may be sent again (that is `proxy::exchange`).

/// The window, in milliseconds.
pub const WINDOW_MS: u64 = 10_000;
/// Retries in a window that are always allowed.
pub const RETRIES_ALWAYS: u32 = 100;
/// Above that, one retry for so many requests.
pub const REQUESTS_PER_RETRY: u32 = 5;

/// Length of a bucket, in milliseconds.
const BUCKET_MS: u64 = 500;
/// Buckets that lie within the window whatever part of the current one has passed.
const INSIDE: usize = (WINDOW_MS / BUCKET_MS) as usize;
/// One more, which is partly within it.
const BUCKETS: usize = INSIDE + 1;

/// Requests and retries of the last 10 s.
///
/// Requests are summed over at most 10 s and retries over at least 10 s, so that in no window of 10 s, wherever it
/// begins, retries exceed what they may.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    buckets: [Bucket; BUCKETS],
    /// Number of the newest bucket: time divided by [`BUCKET_MS`].
    newest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// Counts requests (first tries, not retries).
    pub fn add_requests(&mut self, now_ms: u64, count: u32) {
        let bucket = self.advance(now_ms);
        bucket.requests = bucket.requests.saturating_add(count);
    }

    /// Takes one retry from the budget; `false` when it is used up.
    pub fn try_retry(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms);
        let is_allowed = self.retries() < self.limit();
        if is_allowed {
            self.advance(now_ms).retries += 1;
        }
        is_allowed
    }

    /// Retries that are allowed in this window in all.
    fn limit(&self) -> u32 {
        let oldest = self.slot(self.newest + 1);
        let inside = self.buckets.iter().enumerate().filter(|&(i, _)| i != oldest);
        let requests = inside.fold(0u32, |sum, (_, bucket)| sum.saturating_add(bucket.requests));
        RETRIES_ALWAYS.max(requests / REQUESTS_PER_RETRY)
    }

    fn retries(&self) -> u32 {
        self.buckets.iter().fold(0, |sum, bucket| sum.saturating_add(bucket.retries))
    }

    /// Empties the buckets that time has passed over; the newest.
    fn advance(&mut self, now_ms: u64) -> &mut Bucket {
        // A clock that is a little behind another worker's counts into the newest.
        let now = (now_ms / BUCKET_MS).max(self.newest);
        for passed in 0..(now - self.newest).min(BUCKETS as u64) {
            self.buckets[self.slot(now - passed)] = Bucket::default();
        }
        self.newest = now;
        &mut self.buckets[self.slot(now)]
    }

    fn slot(&self, number: u64) -> usize {
        (number % BUCKETS as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Rng;

    fn retries(budget: &mut Budget, now_ms: u64) -> usize {
        (0..10_000).take_while(|_| budget.try_retry(now_ms)).count()
    }

    #[test]
    fn a_hundred_are_always_allowed() {
        let mut budget = Budget::default();
        assert_eq!(retries(&mut budget, 5_000), 100);
        assert_eq!(retries(&mut budget, 14_999), 0);
        assert_eq!(retries(&mut budget, 15_500), 100);
    }

    #[test]
    fn above_it_a_fifth_of_the_requests() {
        let mut budget = Budget::default();
        budget.add_requests(1_000, 4_000);
        budget.add_requests(6_000, 1_000);
        assert_eq!(retries(&mut budget, 6_000), 1_000);
        // The first requests have left the window, the retries have not.
        assert_eq!(retries(&mut budget, 12_000), 0);
        assert_eq!(retries(&mut budget, 17_000), 100);
    }

    #[test]
    fn a_long_silence_forgets_everything() {
        let mut budget = Budget::default();
        budget.add_requests(0, u32::MAX);
        budget.add_requests(0, u32::MAX);
        assert!(budget.try_retry(0));
        assert_eq!(retries(&mut budget, u64::MAX), 100);
        assert_eq!(retries(&mut budget, 0), 0, "a clock that is behind");
    }

    /// In every window of 10 s, wherever it begins, retries are within a hundred or a fifth of the requests of the
    /// 10 s before one of them.
    #[test]
    fn no_window_holds_more_than_it_may() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let mut budget = Budget::default();
            let (mut now_ms, mut requested, mut retried) = (0, Vec::new(), Vec::new());
            let pace = 1 + rng.below(40);
            for _ in 0..4_000 {
                now_ms += rng.below(pace);
                budget.add_requests(now_ms, 1);
                requested.push(now_ms);
                if rng.below(3) > 0 && budget.try_retry(now_ms) {
                    retried.push(now_ms);
                    let allowed = (within(&requested, now_ms) / 5).max(100);
                    assert!(within(&retried, now_ms) <= allowed, "seed {seed} at {now_ms}");
                }
            }
            assert!(retried.len() >= 100);
        }
    }

    fn within(times: &[u64], now_ms: u64) -> usize {
        times.iter().rev().take_while(|&&time| now_ms - time < WINDOW_MS).count()
    }
}
