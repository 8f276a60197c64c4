//! The last ten seconds: what the workers count, looked at once a second, and what moved between two looks.
//!
//! Owns rates and latency windows of the proxy and of each backend. Never touches a request: it reads counters, and
//! what nobody counted on costs nothing. Memory: about 8 KB for each backend that ever answered, and 100 for others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::shared::command::{Published, WorkersStats};
use crate::shared::histogram::{Delta, Histogram, Reading, Snapshot};
use crate::shared::stats::WorkerStats;

/// Looks that a window spans, one a second.
const LOOKS_COUNT: usize = 10;

/// Latencies of the last ten seconds and of all time.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Counted in the last ten looks.
    pub last_10s: Snapshot,
    /// Counted since the start, as of the last look.
    pub since_start: Snapshot,
}

/// Events a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Over the time between the last two looks, about a second.
    pub last_1s: f64,
    /// Over the last ten looks.
    pub last_10s: f64,
}

/// One histogram, followed over all workers.
#[derive(Debug, Default)]
struct Track {
    so_far: Option<Snapshot>,
    /// Oldest first, at most [`LOOKS_COUNT`].
    recent: VecDeque<Delta>,
}

impl Track {
    fn look<'a>(&mut self, histograms: impl Iterator<Item = &'a Histogram> + Clone) {
        let delta = if self.is_behind(histograms.clone()) { self.catch_up(histograms) } else { Delta::default() };
        if self.recent.len() == LOOKS_COUNT {
            self.recent.pop_front();
        }
        self.recent.push_back(delta);
    }

    /// Whether anything was counted since the last look: each time counted adds to the sum.
    fn is_behind<'a>(&self, histograms: impl Iterator<Item = &'a Histogram>) -> bool {
        let sum_us = histograms.fold(0u64, |sum, histogram| sum.wrapping_add(histogram.sum_us()));
        sum_us != self.so_far.as_ref().map_or(0, Snapshot::sum_us)
    }

    fn catch_up<'a>(&mut self, histograms: impl Iterator<Item = &'a Histogram>) -> Delta {
        let mut reading = Reading::default();
        histograms.for_each(|histogram| reading.add(histogram));
        self.so_far.get_or_insert_default().catch_up(&reading)
    }

    fn latencies(&self) -> Latencies {
        let since_start = self.so_far.clone().unwrap_or_default();
        let mut last_10s = Snapshot::default();
        self.recent.iter().for_each(|delta| last_10s.add(delta));
        last_10s.limit_max(since_start.max_us());
        Latencies { last_10s, since_start }
    }
}

/// A counter at the last looks, oldest first, at most [`LOOKS_COUNT`] + 1.
#[derive(Debug, Default)]
struct Counts(VecDeque<u64>);

impl Counts {
    fn look(&mut self, count: u64) {
        if self.0.len() > LOOKS_COUNT {
            self.0.pop_front();
        }
        self.0.push_back(count);
    }

    /// `times_us` are those of all looks; this counter may have been there for the last few only.
    fn rate(&self, times_us: &VecDeque<u64>) -> Rate {
        let over = |looks: usize| {
            let looks = looks.min(self.0.len().saturating_sub(1));
            let back =
                |all: &VecDeque<u64>| Some(all.back()?.wrapping_sub(*all.get(all.len().checked_sub(looks + 1)?)?));
            match (back(&self.0), back(times_us)) {
                (Some(count), Some(us)) if us > 0 => count as f64 * 1e6 / us as f64,
                _ => 0.0,
            }
        };
        Rate { last_1s: over(1), last_10s: over(LOOKS_COUNT) }
    }
}

#[derive(Debug)]
struct BackendSeries {
    /// Held, so that its address is nobody else's.
    stats: WorkersStats,
    requests: Counts,
    first_byte: Track,
    total: Track,
}

impl BackendSeries {
    fn look(&mut self) {
        let latencies = self.stats.iter().filter_map(|stats| stats.latency_so_far());
        self.first_byte.look(latencies.clone().map(|latency| &latency.first_byte));
        self.total.look(latencies.map(|latency| &latency.total));
        let requests = self.stats.iter().map(|stats| stats.requests.get());
        self.requests.look(requests.fold(0, u64::wrapping_add));
    }
}

/// What is kept of the past.
#[derive(Debug, Default)]
pub struct History {
    times_us: VecDeque<u64>,
    requests: Counts,
    latency: Track,
    /// By [`key`].
    backends: HashMap<usize, BackendSeries>,
}

/// Tells one backend's counters from another's, for as long as they live.
fn key(stats: &WorkersStats) -> usize {
    Arc::as_ptr(stats).cast::<()>().addr()
}

impl History {
    /// Looks at everything; to be called about once a second. `now_us` is of the process clock.
    pub fn look(&mut self, now_us: u64, workers: &[Arc<WorkerStats>], published: &Published) {
        if self.times_us.len() > LOOKS_COUNT {
            self.times_us.pop_front();
        }
        self.times_us.push_back(now_us);
        self.latency.look(workers.iter().filter_map(|worker| worker.latency_so_far()));
        self.requests.look(workers.iter().fold(0, |sum, worker| sum.wrapping_add(worker.requests.get())));
        let mut before = std::mem::take(&mut self.backends);
        for stats in published.upstreams.iter().flat_map(|upstream| &upstream.stats) {
            let key = key(stats);
            let mut series = before.remove(&key).unwrap_or_else(|| BackendSeries {
                stats: stats.clone(),
                requests: Counts::default(),
                first_byte: Track::default(),
                total: Track::default(),
            });
            series.look();
            self.backends.insert(key, series);
        }
    }

    /// Requests of the proxy.
    pub fn requests(&self) -> Rate {
        self.requests.rate(&self.times_us)
    }

    /// Times of the proxy's exchanges, from the request's head to the answer's end.
    pub fn latency(&self) -> Latencies {
        self.latency.latencies()
    }

    /// Tries with one backend.
    pub fn backend_requests(&self, stats: &WorkersStats) -> Rate {
        self.backends.get(&key(stats)).map_or_else(Rate::default, |series| series.requests.rate(&self.times_us))
    }

    /// Times of one backend, from the try's begin to its answer's head.
    pub fn backend_first_byte(&self, stats: &WorkersStats) -> Latencies {
        self.backends.get(&key(stats)).map_or_else(Latencies::default, |series| series.first_byte.latencies())
    }

    /// Times of one backend, from the try's begin to its answer's end.
    pub fn backend_latency(&self, stats: &WorkersStats) -> Latencies {
        self.backends.get(&key(stats)).map_or_else(Latencies::default, |series| series.total.latencies())
    }
}
