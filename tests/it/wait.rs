//! Waiting for what nobody tells a test: a counter that moves, a backend that is taken out of service.
//!
//! Owns the bound. Never waits for a span of time: only for a condition.

use std::thread;
use std::time::{Duration, Instant};

use crate::origin::WATCHDOG;

/// How long passes between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// Looks until `done`, and fails after [`WATCHDOG`].
#[track_caller]
pub fn until(what: &str, done: impl FnMut() -> bool) {
    look(WATCHDOG, what, done);
}

/// As [`until`], for what is known to take longer: fails after `seconds`.
#[track_caller]
pub fn until_within(seconds: u64, what: &str, done: impl FnMut() -> bool) {
    look(Duration::from_secs(seconds), what, done);
}

#[track_caller]
fn look(patience: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < patience, "waited {patience:?} for {what}");
        thread::park_timeout(LOOK);
    }
}
