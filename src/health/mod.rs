//! Whether a backend is fit to be used, as machines over time and what was seen.
//!
//! Pure: time is handed in as milliseconds of any clock that doesn't go back. Never probes and never connects.

pub mod budget;
pub mod schedule;
pub mod verdict;
