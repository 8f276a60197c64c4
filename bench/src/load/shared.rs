//! What the threads of a load share: the phase, the counters, and the latencies by slice of the window.
//!
//! Owns no decision. Every counter is written by one thread alone, so that none waits for another.

use super::report::Counts;
use crate::conns::Failure;
use crate::error::{Error, Result};
use crate::traffic::TIMEOUT_MAX;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Largest latency that is told apart, in ns: of a request that waited for a connection, and then for its answer, each as
/// long as may be.
const LATENCY_NS_MAX: u64 = 2 * TIMEOUT_MAX.as_nanos() as u64;

/// An empty histogram of latencies in ns, of three digits.
///
/// # Errors
/// Never with these bounds; the library's type says so.
pub fn histogram() -> Result<Histogram<u32>> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|e| Error::Failed(e.to_string()))
}

/// What all threads are in; they look once a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connections are opened, answered a first time and wait for the others: a proxy that is saturated by the first
    /// ones would accept the last ones late, and the load would not be what was asked for.
    Ramp = 0,
    /// All ask.
    Warmup = 1,
    /// All ask, and latencies are recorded.
    Window = 2,
    /// Nothing new is asked.
    Drain = 3,
}

/// One thread's counters, each written by that thread alone.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Tally {
    ok: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
}

impl Tally {
    pub fn count(&self, verdict: std::result::Result<(), Failure>) {
        let counter = match verdict {
            Ok(()) => &self.ok,
            Err(failure) => &self.failed[failure as usize],
        };
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}

pub(super) struct Shared {
    phase: AtomicU8,
    /// Whether what is under way at the end is hardly waited for.
    pub hurry: AtomicBool,
    /// Threads still at work; each is a [`Working`].
    pub running: AtomicUsize,
    /// Connections answered at least once.
    pub settled: AtomicUsize,
    /// Connections that were answered and wait for the others, or for their turn to ask again.
    pub waiting: AtomicUsize,
    /// Requests still to be asked, when their number is given.
    tickets: Option<AtomicU64>,
    pub tallies: Vec<Tally>,
    /// The slice of the window that answers are recorded in now.
    pub slice: AtomicU32,
    /// Latencies by slice; a thread brings its own when the slice changes.
    slices: Mutex<Vec<Histogram<u32>>>,
    /// When the schedule of an open loop begins.
    pub schedule_from: OnceLock<Instant>,
}

/// A thread at work, until it ends, however that is: nobody waits for one that panicked.
pub(super) struct Working<'a>(pub &'a Shared);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    pub fn new(threads: usize, requests: Option<u64>) -> Shared {
        // A load of so many requests has no ramp: all of them count.
        let phase = if requests.is_some() { Phase::Window } else { Phase::Ramp };
        Shared {
            phase: AtomicU8::new(phase as u8),
            hurry: AtomicBool::new(false),
            running: AtomicUsize::new(threads),
            settled: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            tickets: requests.map(AtomicU64::new),
            tallies: (0..threads).map(|_| Tally::default()).collect(),
            slice: AtomicU32::new(0),
            slices: Mutex::default(),
            schedule_from: OnceLock::new(),
        }
    }

    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Ramp,
            1 => Phase::Warmup,
            2 => Phase::Window,
            _ => Phase::Drain,
        }
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// Takes the right to ask once.
    pub fn take_ticket(&self) -> bool {
        let Some(tickets) = &self.tickets else { return true };
        tickets.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    pub fn tickets_gone(&self) -> bool {
        self.tickets.as_ref().is_some_and(|tickets| tickets.load(Relaxed) == 0)
    }

    /// Adds what a thread recorded in a slice.
    ///
    /// # Errors
    /// Never with histograms of these bounds.
    pub fn collect(&self, slice: u32, latency: &Histogram<u32>) -> Result<()> {
        if latency.is_empty() {
            return Ok(());
        }
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        while slices.len() <= slice as usize {
            slices.push(histogram()?);
        }
        slices[slice as usize].add(latency).map_err(|e| Error::Failed(e.to_string()))
    }

    /// Takes out all that was collected.
    pub fn take_slices(&self) -> Vec<Histogram<u32>> {
        std::mem::take(&mut self.slices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn counts(&self) -> Counts {
        let of = |failure: Failure| self.tallies.iter().map(|t| t.failed[failure as usize].load(Relaxed)).sum();
        Counts {
            ok: self.tallies.iter().map(|t| t.ok.load(Relaxed)).sum(),
            failed: Failure::ALL.into_iter().map(of).sum::<u64>(),
            connect: of(Failure::Connect),
            closed: of(Failure::Closed),
            timeout: of(Failure::Timeout),
            status: of(Failure::Status),
            body: of(Failure::Body),
            malformed: of(Failure::Malformed),
            refused: of(Failure::Refused),
        }
    }
}
