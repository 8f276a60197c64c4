//! Instructions that counting takes of one exchange, for `valgrind --tool=callgrind --toggle-collect='*::one_exchange'`:
//! what `count_cost real` takes more than `count_cost none`, over 1,000 exchanges, against what the whole program takes
//! for one (callgrind on `speedmimi run`, of the worker's thread, between two numbers of requests).
//!
//! Owns no figure. Calls what a kept-alive exchange calls, in its order; keep it so when a counter is added.

use std::hint::black_box;

use speedmimi::clock;
use speedmimi::shared::stats::{BackendStats, Counter, WorkerStats};

const ROUNDS: u32 = 1000;

/// What a worker does to count.
trait Count {
    fn now_us(&self) -> u64;
    fn add(&self, counter: &Counter, n: u64);
    fn status(&self, worker: &WorkerStats, status: u16);
    fn backend_status(&self, backend: &BackendStats, status: u16);
    fn first_byte(&self, backend: &BackendStats, us: u64);
    fn total(&self, worker: &WorkerStats, backend: &BackendStats, us: u64);
}

/// As it is.
struct Real;

/// In its place, nothing.
struct Nothing;

impl Count for Real {
    fn now_us(&self) -> u64 {
        clock::stamp_us()
    }

    fn add(&self, counter: &Counter, n: u64) {
        counter.add(n);
    }

    fn status(&self, worker: &WorkerStats, status: u16) {
        worker.statuses.count(status);
    }

    fn backend_status(&self, backend: &BackendStats, status: u16) {
        backend.statuses.count(status);
    }

    fn first_byte(&self, backend: &BackendStats, us: u64) {
        backend.latency().first_byte.record(us);
    }

    fn total(&self, worker: &WorkerStats, backend: &BackendStats, us: u64) {
        worker.latency().record(us);
        backend.latency().total.record(us);
    }
}

impl Count for Nothing {
    fn now_us(&self) -> u64 {
        0
    }

    fn add(&self, _: &Counter, _: u64) {}

    fn status(&self, _: &WorkerStats, _: u16) {}

    fn backend_status(&self, _: &BackendStats, _: u16) {}

    fn first_byte(&self, _: &BackendStats, _: u64) {}

    fn total(&self, _: &WorkerStats, _: &BackendStats, _: u64) {}
}

fn main() {
    let (worker, backend) = (WorkerStats::default(), BackendStats::default());
    let is_real = std::env::args().nth(1).as_deref() != Some("none");
    for round in 0..ROUNDS {
        match is_real {
            true => one_exchange(&Real, black_box(&worker), black_box(&backend), black_box(100 + round % 50)),
            false => one_exchange(&Nothing, black_box(&worker), black_box(&backend), black_box(100 + round % 50)),
        }
    }
    println!("{} requests counted", worker.requests.get());
}

#[inline(never)]
fn one_exchange<C: Count>(count: &C, worker: &WorkerStats, backend: &BackendStats, bytes: u32) {
    let (bytes, one_less) = (u64::from(bytes), 1u64.wrapping_neg());
    count.add(&worker.requests, 1);
    let began_us = count.now_us();
    count.add(&worker.exchanges_active, 1);
    count.add(&backend.requests, 1);
    count.add(&backend.pool_hits, 1);
    count.add(&worker.pool_hits, 1);
    count.add(&backend.bytes_in, bytes);
    count.backend_status(backend, 200);
    // Some time, so that the histograms are written in more than one place.
    let us = count.now_us().saturating_sub(began_us) + bytes;
    count.first_byte(backend, us);
    count.add(&backend.bytes_out, bytes);
    count.add(&worker.exchanges_active, one_less);
    count.add(&worker.client_bytes_in, bytes);
    count.add(&worker.client_bytes_out, bytes);
    count.status(worker, 200);
    count.total(worker, backend, us);
}
