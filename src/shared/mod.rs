//! The seam between the planes: what workers and control both see while the proxy runs.
//!
//! Owns atomics, the locks of queue and retry budget, and nothing else. On a request's way a worker writes one word here, the
//! [`backend::BackendState`]'s; everything else is written when something changes. Never reads a clock, never waits:
//! time is handed in as milliseconds of one process clock, and waiting is a plain [`std::future::Future`].

pub mod backend;
pub mod budget;
pub mod command;
pub mod histogram;
pub mod open;
pub mod queue;
pub mod stats;
mod sync;
pub mod trouble;

#[cfg(test)]
mod tests;
