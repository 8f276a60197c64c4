//! Ctrl-C: once ends the measurement early with its report, twice ends the program.
//!
//! Owns the signal. Never decides what ends.

use crate::error::{Result, Trying};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The usual exit status of a program that was interrupted.
const STATUS: i32 = 130;

/// A flag that is set by SIGINT or SIGTERM; the second one ends the program at once.
///
/// # Errors
/// What `sigaction(2)` says.
pub fn flag() -> Result<Arc<AtomicBool>> {
    let set = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down.
        flag::register_conditional_shutdown(signal, STATUS, Arc::clone(&set)).trying(|| "sigaction".into())?;
        flag::register(signal, Arc::clone(&set)).trying(|| "sigaction".into())?;
    }
    Ok(set)
}
