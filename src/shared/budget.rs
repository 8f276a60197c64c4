//! The retry budget of one upstream, the same for all workers.
//!
//! Owns the lock around [`Budget`]. It is taken for a retry and about once a second by each worker, never on the way of a
//! request that goes well: workers count those themselves and hand the sums in.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::health::budget::Budget;

/// An upstream's budget; survives reloads by the upstream's name.
#[derive(Debug, Default)]
pub struct SharedBudget(Mutex<Budget>);

impl SharedBudget {
    /// Hands in `requests` (first tries) that a worker has counted since it last did.
    pub fn add_requests(&self, now_ms: u64, requests: u32) {
        self.lock().add_requests(now_ms, requests);
    }

    /// Hands in as [`SharedBudget::add_requests`] does and takes one retry; `false` when the budget is used up.
    pub fn try_retry(&self, now_ms: u64, requests: u32) -> bool {
        let mut budget = self.lock();
        budget.add_requests(now_ms, requests);
        budget.try_retry(now_ms)
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        // Two sums of counts: nothing in there can be left half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
