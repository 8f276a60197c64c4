//! The lock and the atomics that [`super::backend`] and [`super::queue`] are built on.
//!
//! Owns names only. They are gathered here because `tests/loom.rs` compiles those two files once more, with loom's
//! types under the same names, and explores their interleavings. Never add one that loom lacks.

pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard};
