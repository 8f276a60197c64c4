//! What control shows to everybody: the configuration in use, where is listened, what was changed, whether it is ready.
//!
//! Owns the snapshots; control's thread alone replaces them. Never changes the proxy.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::registry::Leaving;
use super::watch::Watch;
use crate::config::document::Document;
use crate::config::plan::ListenAddr;
use crate::shared::command::Published;
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::tls::Loaded;

/// Changes that are remembered.
const CHANGES_COUNT_MAX: usize = 200;

/// The configuration in use.
#[derive(Clone, Debug)]
pub struct Shown {
    /// What is written, and the defaults.
    pub document: Arc<Document>,
    /// What the workers run by.
    pub published: Arc<Published>,
    /// Names this configuration; another one has another.
    pub etag: String,
    /// Keys that are written otherwise than they are in use, until a restart.
    pub restart_required: Vec<&'static str>,
    /// The file that changes are written to; `None` where the proxy was started without one.
    pub file: Option<PathBuf>,
}

/// One change, or a refused one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// When.
    pub at: SystemTime,
    /// Who: `token`, `signal`, `watch` and the like.
    pub who: String,
    /// From where; empty for signals and the file.
    pub from: String,
    /// What was asked.
    pub what: String,
    /// Paths of the keys that changed, never their values.
    pub paths: Vec<String>,
    /// Why it was refused; `None` when it was done.
    pub refused: Option<String>,
}

/// What everybody may look at.
#[derive(Debug)]
pub struct Board {
    /// Figures of the last seconds.
    pub watch: Arc<Watch>,
    /// Counters, by worker.
    pub workers: Vec<Arc<WorkerStats>>,
    /// Client connections.
    pub open: Arc<OpenCount>,
    /// When the process started to serve.
    pub started: SystemTime,
    shown: ArcSwap<Shown>,
    listening: ArcSwap<Vec<ListenAddr>>,
    leaving: ArcSwap<Vec<Leaving>>,
    trouble: ArcSwapOption<String>,
    tls: ArcSwap<Loaded>,
    is_ready: AtomicBool,
    is_reload_asked: AtomicBool,
    is_reload_under_way: AtomicBool,
    pulse: AtomicU64,
    changes: Mutex<VecDeque<ChangeRecord>>,
}

impl Board {
    /// A board that shows `shown`, not ready yet.
    pub fn new(shown: Shown, watch: Arc<Watch>, workers: Vec<Arc<WorkerStats>>, open: Arc<OpenCount>) -> Self {
        Board {
            watch,
            workers,
            open,
            started: SystemTime::now(),
            shown: ArcSwap::from_pointee(shown),
            listening: ArcSwap::default(),
            leaving: ArcSwap::default(),
            trouble: ArcSwapOption::empty(),
            tls: ArcSwap::default(),
            is_ready: AtomicBool::new(false),
            is_reload_asked: AtomicBool::new(false),
            is_reload_under_way: AtomicBool::new(false),
            pulse: AtomicU64::new(0),
            changes: Mutex::default(),
        }
    }

    /// The configuration in use.
    pub fn shown(&self) -> Arc<Shown> {
        self.shown.load_full()
    }

    /// The addresses listened on, with real ports, in the order of the plan.
    pub fn listening(&self) -> Arc<Vec<ListenAddr>> {
        self.listening.load_full()
    }

    /// Backends that were removed and still have something running.
    pub fn leaving(&self) -> Arc<Vec<Leaving>> {
        self.leaving.load_full()
    }

    /// Why the last reading of the file was refused; `None` when it was not.
    pub fn trouble(&self) -> Option<Arc<String>> {
        self.trouble.load_full()
    }

    /// What was made of the files of TLS.
    pub fn tls(&self) -> Arc<Loaded> {
        self.tls.load_full()
    }

    /// Whether new requests are welcome: started, and not on the way out.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }

    /// The last changes, newest first.
    pub fn changes(&self) -> Vec<ChangeRecord> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.iter().rev().cloned().collect()
    }

    /// Notes that the file is to be read again; `false` when somebody has asked already and it was not begun.
    pub fn ask_to_reload(&self) -> bool {
        !self.is_reload_asked.swap(true, Ordering::AcqRel)
    }

    /// Whether a reload that was asked for by [`Board::ask_to_reload`] is still to come or to end.
    pub fn is_reloading(&self) -> bool {
        self.is_reload_asked.load(Ordering::Acquire) || self.is_reload_under_way.load(Ordering::Acquire)
    }

    /// A number that moves at least once a second while control's thread goes on.
    pub fn pulse(&self) -> u64 {
        self.pulse.load(Ordering::Relaxed)
    }

    pub(super) fn beat(&self) {
        self.pulse.fetch_add(1, Ordering::Relaxed);
    }

    /// From here on, a change of the file needs another reading.
    pub(super) fn begin_reload(&self) {
        // In this order: at no moment there seems to be none.
        self.is_reload_under_way.store(true, Ordering::Release);
        self.is_reload_asked.store(false, Ordering::Release);
    }

    pub(super) fn end_reload(&self) {
        self.is_reload_under_way.store(false, Ordering::Release);
    }

    pub(super) fn show(&self, shown: Shown) {
        self.shown.store(Arc::new(shown));
    }

    pub(super) fn show_listening(&self, listening: Vec<ListenAddr>) {
        self.listening.store(Arc::new(listening));
    }

    pub(super) fn show_leaving(&self, leaving: Vec<Leaving>) {
        self.leaving.store(Arc::new(leaving));
    }

    pub(super) fn show_trouble(&self, trouble: Option<String>) {
        self.trouble.store(trouble.map(Arc::new));
    }

    pub(super) fn show_tls(&self, tls: Arc<Loaded>) {
        self.tls.store(tls);
    }

    pub(super) fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }

    pub(super) fn note(&self, change: ChangeRecord) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.len() >= CHANGES_COUNT_MAX {
            changes.pop_front();
        }
        changes.push_back(change);
    }
}
