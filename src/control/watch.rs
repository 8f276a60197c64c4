//! What control keeps at hand for whoever asks for figures: looked at once a second, beside everything else.
//!
//! Owns history and sampler. Never on a request's way: the workers don't know that they are watched; nor does whoever
//! publishes a plan wait for those who look.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::figures::{self, BackendFigures, ServerFigures, Sources};
use super::history::History;
use super::machine::{Machine, Sampler, Tables};
use arc_swap::ArcSwap;

use crate::clock;
use crate::shared::command::Published;
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::sys;

/// Shared by control, which publishes, and by management, which looks.
#[derive(Debug)]
pub struct Watch {
    /// Lines of the access log that could not be written, counted by its writer.
    pub log_lines_lost: Arc<AtomicU64>,
    published: ArcSwap<Published>,
    /// Milliseconds since 1970, read once: as a difference of two clocks it would be another one at every look.
    began_unix_ms: u64,
    /// Held for as long as figures are made, which may take a tenth of a second where there are many backends.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    workers: Vec<Arc<WorkerStats>>,
    open: Arc<OpenCount>,
    tables_count: u64,
    sampler: Sampler,
    history: History,
    machine: Machine,
}

impl Watch {
    /// A watch over these workers. `tables` says where the process's descriptors are.
    pub fn new(
        published: Arc<Published>,
        workers: Vec<Arc<WorkerStats>>,
        open: Arc<OpenCount>,
        tables: Tables,
    ) -> Arc<Watch> {
        let now_us = clock::now_us();
        let root = Path::new("/");
        let mut sampler = Sampler::new(root, root, tables, now_us);
        let machine = sampler.sample(now_us);
        let mut history = History::default();
        history.look(now_us, &workers, &published);
        // Control has one beside those of the workers.
        let tables_count = if tables == Tables::PerWorker { workers.len() as u64 + 1 } else { 1 };
        let inner = Mutex::new(Inner { workers, open, tables_count, sampler, history, machine });
        let began_unix_ms = unix_ms().saturating_sub(clock::now_ms());
        Arc::new(Watch { log_lines_lost: Arc::default(), published: ArcSwap::new(published), began_unix_ms, inner })
    }

    /// Samples the machine and looks at the counters; to be called about once a second.
    pub fn look(&self) {
        let mut inner = self.lock();
        let Inner { workers, sampler, history, machine, .. } = &mut *inner;
        let now_us = clock::now_us();
        *machine = sampler.sample(now_us);
        history.look(now_us, workers, &self.published.load());
    }

    /// Watches the backends of another plan from now on.
    pub fn publish(&self, published: Arc<Published>) {
        self.published.store(published);
    }

    /// The server's figures, for `GET /api/v1/stats/server`.
    pub fn server(&self) -> ServerFigures {
        self.with(figures::server)
    }

    /// One backend's figures, for `GET /api/v1/stats/backend`; `None` when the plan has no such backend.
    pub fn backend(&self, upstream: &str, id: &str) -> Option<BackendFigures> {
        self.with(|sources| figures::backend(sources, upstream, id))
    }

    /// The figures of all backends, or of those of one upstream.
    pub fn backends(&self, upstream: Option<&str>) -> Vec<BackendFigures> {
        self.with(|sources| figures::backends(sources, upstream))
    }

    /// Makes anything else of the same sources, all as of one moment.
    pub fn with<R>(&self, make: impl FnOnce(&Sources<'_>) -> R) -> R {
        let inner = self.lock();
        make(&Sources {
            published: &self.published.load(),
            workers: &inner.workers,
            history: &inner.history,
            machine: &inner.machine,
            connections_max: inner.open.max(),
            descriptors_max: sys::table_size().saturating_mul(inner.tables_count),
            log_lines_lost: self.log_lines_lost.load(Ordering::Relaxed),
            now_ms: clock::now_ms(),
            unix_ms: unix_ms(),
            began_unix_ms: self.began_unix_ms,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Numbers to look at: a look cut short makes the next one no worse.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
