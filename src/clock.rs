//! The process's clock: milliseconds since the first call, monotonic.
//!
//! Owns the origin of time that `shared` and the workers agree on. Never sleeps; pure modules get its values as
//! arguments.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Time since the clock was first read.
pub fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Milliseconds since the clock was first read.
pub fn now_ms() -> u64 {
    elapsed().as_millis() as u64
}

/// Microseconds since the clock was first read; for latencies.
pub fn now_us() -> u64 {
    let elapsed = elapsed();
    elapsed.as_secs() * 1_000_000 + u64::from(elapsed.subsec_micros())
}
