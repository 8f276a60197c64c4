//! The retry budget of an upstream, for all workers together.
//!
//! Owns the lock around it, which no request takes: workers count requests themselves and hand the sum in when they ask
//! for a retry, and every so often in between. Never says whether a request may be sent again.

use std::sync::{Mutex, PoisonError};

use crate::health::budget::Budget;

/// One upstream's budget; survives reloads by the upstream's name.
#[derive(Debug)]
pub struct Retries(Mutex<Budget>);

impl Default for Retries {
    fn default() -> Self {
        Retries(Mutex::new(Budget::new(1)))
    }
}

impl Retries {
    /// Hands in requests that were counted since the last time.
    pub fn add_requests(&self, now_ms: u64, count: u32) {
        self.with(|budget| budget.add_requests(now_ms, count));
    }

    /// Takes one retry from the budget, after `count` more requests; `false` when it is used up.
    pub fn try_retry(&self, now_ms: u64, count: u32) -> bool {
        self.with(|budget| {
            budget.add_requests(now_ms, count);
            budget.try_retry(now_ms)
        })
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Budget) -> R) -> R {
        // Counts can't be left half-changed by a panic elsewhere.
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
