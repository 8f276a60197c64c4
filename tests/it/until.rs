//! Waiting for what becomes true by itself: with a deadline, and with words for what did not.
//!
//! Never used where an event can be waited for: an answer, an end, an origin's record.

use std::thread;
use std::time::{Duration, Instant};

use crate::origin::WATCHDOG;

/// How often a condition is looked at again.
const PERIOD: Duration = Duration::from_millis(2);

/// Waits until `done`; fails after [`WATCHDOG`].
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    until_equal(what, true, &mut done);
}

/// Waits until `value` gives `expected`.
#[track_caller]
pub fn until_equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, mut value: impl FnMut() -> T) {
    let began = Instant::now();
    let mut last = value();
    while last != expected {
        assert!(began.elapsed() < WATCHDOG, "waited {WATCHDOG:?} for {what}: {expected:?}; it is {last:?}");
        thread::park_timeout(PERIOD);
        last = value();
    }
}

/// Waits until `value` has not changed for `quiet`, and returns it.
#[track_caller]
pub fn until_still(what: &str, quiet: Duration, mut value: impl FnMut() -> usize) -> usize {
    let began = Instant::now();
    let (mut last, mut since) = (value(), Instant::now());
    while since.elapsed() < quiet {
        assert!(began.elapsed() < WATCHDOG * 2, "{what} never came to rest; it is {last}");
        thread::park_timeout(PERIOD);
        let now = value();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}
