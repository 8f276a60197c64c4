//! What each worker counts, and the sums over all of them.
//!
//! Owns the counters. Each is written by its one worker (a load and a store, no locked instruction) and read by
//! anybody; the counters of two workers never share a cache line. Never keeps history and never names a counter for the
//! outside: that is management's.

use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::histogram::{Histogram, Latency};
use super::trouble::Troubles;
use crate::error::Reason;

/// A number that one thread writes and any may read; wraps around.
///
/// Also for numbers that fall again: where a thing begins at one worker and ends at another, one of the two stands
/// below zero (wrapped), and the sum over all workers is right.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only by the worker it belongs to.
    pub fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds one. Only by the worker it belongs to.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Takes one away. Only by the worker it belongs to.
    pub fn dec(&self) {
        self.add(1u64.wrapping_neg());
    }

    /// Sets it, for what is measured and not counted. Only by the worker it belongs to.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers by class of status: 1xx, 2xx, 3xx, 4xx, 5xx.
pub const CLASSES_COUNT: usize = 5;

/// As many counters as things of a kind.
#[derive(Debug)]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Counters(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> Counters<N> {
    /// What each stands at.
    pub fn get(&self) -> Sums<N> {
        Sums(std::array::from_fn(|i| self.0[i].get()))
    }
}

impl Counters<CLASSES_COUNT> {
    /// Counts an answer with this status; one outside 100..=599 is not counted.
    pub fn count(&self, status: u16) {
        if let Some(counter) = usize::from(status / 100).checked_sub(1).and_then(|class| self.0.get(class)) {
            counter.inc();
        }
    }
}

impl Counters<{ Reason::COUNT }> {
    /// Counts an exchange that ended for this reason.
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].inc();
    }
}

/// What as many counters stand at, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums<const N: usize>(pub [u64; N]);

impl<const N: usize> Default for Sums<N> {
    fn default() -> Self {
        Sums([0; N])
    }
}

impl<const N: usize> Add for Sums<N> {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Sums(std::array::from_fn(|i| self.0[i].wrapping_add(other.0[i])))
    }
}

impl Sums<CLASSES_COUNT> {
    /// Answers of this class; `class` is 1..=5, others have none.
    pub fn of_class(&self, class: usize) -> u64 {
        class.checked_sub(1).and_then(|i| self.0.get(i)).copied().unwrap_or(0)
    }
}

impl Sums<{ Reason::COUNT }> {
    /// Exchanges that ended for this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }
}

/// The field-by-field shape of a set of counters and of its sum, so that no counter is left out of the sum. What is
/// lazy is not summed here: `control::history` reads it.
macro_rules! counted {
    (
        $(#[$stats_doc:meta])* $stats:ident, $(#[$totals_doc:meta])* $totals:ident,
        numbers { $($(#[$number_doc:meta])* $number:ident,)* }
        arrays { $($(#[$array_doc:meta])* $array:ident: $count:expr,)* }
        lazy { $($(#[$lazy_doc:meta])* $lazy:ident, $read:ident: $made:ty,)* }
    ) => {
        $(#[$stats_doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $stats {
            $($(#[$number_doc])* pub $number: Counter,)*
            $($(#[$array_doc])* pub $array: Counters<{ $count }>,)*
            $($lazy: OnceLock<Box<$made>>,)*
        }

        impl $stats {
            $($(#[$lazy_doc])*
            ///
            /// Made at the first call, which is the worker's it belongs to.
            pub fn $lazy(&self) -> &$made {
                self.$lazy.get_or_init(Box::default)
            }

            /// What is there of it, for those who read.
            pub fn $read(&self) -> Option<&$made> {
                self.$lazy.get().map(Box::as_ref)
            })*
        }

        $(#[$totals_doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $totals {
            $($(#[$number_doc])* pub $number: u64,)*
            $($(#[$array_doc])* pub $array: Sums<{ $count }>,)*
        }

        impl AddAssign<&$stats> for $totals {
            fn add_assign(&mut self, stats: &$stats) {
                $(self.$number = self.$number.wrapping_add(stats.$number.get());)*
                $(self.$array = self.$array + stats.$array.get();)*
            }
        }

        impl $totals {
            /// The sum over workers. Each counter is read once; counters that belong together may be apart by what
            /// happens meanwhile.
            pub fn sum(workers: &[Arc<$stats>]) -> Self {
                let mut totals = Self::default();
                workers.iter().for_each(|stats| totals += &**stats);
                totals
            }
        }
    };
}

counted! {
    /// What one worker has counted since it started.
    WorkerStats,
    /// What all workers have counted.
    Totals,
    numbers {
        /// Ticks of its clock, ten a second: while it moves, the worker goes on.
        pulse,
        /// Client connections accepted.
        connections_accepted,
        /// Client connections open now, parked ones and tunnels included.
        connections_active,
        /// Client connections parked now.
        connections_parked,
        /// Those of them that have no descriptor now.
        connections_shelved,
        /// Tunnels open now.
        tunnels_active,
        /// Tunnels ever opened.
        tunnels,
        /// Event streams under way now.
        event_streams_active,
        /// Requests whose head was read.
        requests,
        /// Requests under way now, queued ones included and tunnels not.
        exchanges_active,
        /// Bytes read from clients, as on the wire (inside TLS).
        client_bytes_in,
        /// Bytes written to clients.
        client_bytes_out,
        /// Tries after the first.
        retries,
        /// Requests that waited in a queue.
        queue_waits,
        /// Requests that wait in a queue now.
        queue_waiting,
        /// TLS handshakes with clients that made a new session.
        handshakes_full,
        /// TLS handshakes with clients that took up an earlier session.
        handshakes_resumed,
        /// TLS handshakes with clients that failed or took too long.
        handshakes_failed,
        /// TLS sessions with clients open now, parked ones included; as of the last second.
        tls_sessions,
        /// Lines handed to the access log's writer.
        log_lines_written,
        /// Lines dropped because the writer had fallen behind.
        log_lines_dropped,
        /// Exchanges on a kept-alive backend connection.
        pool_hits,
        /// Exchanges that had to connect.
        pool_misses,
        /// Bytes of buffers, in use and spare; this and what follows as of the last second.
        memory_buffers,
        /// Bytes of exchanges under way and of room kept for the next.
        memory_exchanges,
        /// Bytes of connections that are neither parked nor tunnels.
        memory_connections,
        /// Bytes of the parking lot.
        memory_parked,
        /// Bytes of tunnels.
        memory_tunnels,
        /// Bytes of requests that wait in queues.
        memory_queues,
        /// Bytes of TLS sessions and of the buffers that they share.
        memory_tls,
    }
    arrays {
        /// Answers sent to clients, interim ones too, by class of status.
        statuses: CLASSES_COUNT,
        /// Exchanges that the proxy answered or ended itself, by [`Reason`].
        reasons: Reason::COUNT,
    }
    lazy {
        /// Times from a request's head to its answer's end; no tunnels and no event streams.
        latency, latency_so_far: Histogram,
        /// The last answers of its own that told of something wrong.
        troubles, troubles_so_far: Troubles,
    }
}

counted! {
    /// What one worker has counted for one backend since it knows it.
    BackendStats,
    /// What all workers have counted for one backend.
    BackendTotals,
    numbers {
        /// Exchanges begun with it, retries and tunnels included.
        requests,
        /// Exchanges tried with it after another try had failed.
        retries,
        /// Exchanges that failed by its fault.
        failures,
        /// Connections made to it.
        connects,
        /// Connections that could not be made.
        connect_failures,
        /// Bytes read from it.
        bytes_in,
        /// Bytes written to it.
        bytes_out,
        /// Exchanges on a kept-alive connection.
        pool_hits,
        /// Exchanges that had to connect.
        pool_misses,
    }
    arrays {
        /// Its answers, interim ones too, by class of status.
        statuses: CLASSES_COUNT,
    }
    lazy {
        /// How long its answers took.
        latency, latency_so_far: Latency,
    }
}
