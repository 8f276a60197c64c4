//! The process's clock: microseconds since the first call, monotonic.
//!
//! Owns the origin of time that `shared` and the workers agree on. Never sleeps; pure modules get its values as
//! arguments.

use std::sync::OnceLock;
use std::time::Duration;

use crate::sys;

static START_US: OnceLock<u64> = OnceLock::new();

/// Time since the clock was first read.
pub fn elapsed() -> Duration {
    Duration::from_micros(now_us())
}

/// Milliseconds since the clock was first read.
pub fn now_ms() -> u64 {
    now_us() / 1000
}

/// Microseconds since the clock was first read.
pub fn now_us() -> u64 {
    let now_us = sys::monotonic_us();
    now_us.saturating_sub(*START_US.get_or_init(|| now_us))
}

/// Microseconds since whenever, never 0; for latencies, which are differences. A third of what `Instant` takes.
pub fn stamp_us() -> u64 {
    sys::monotonic_us()
}
