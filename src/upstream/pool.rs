//! Idle connections to one backend, kept by one worker.
//!
//! Owns them last in, first out, so that few stay warm and the rest age out. Never connects and never counts exchanges.

use std::cell::{Cell, RefCell};

use crate::stream::Stream;

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: u32,
}

/// The idle connections of one worker to one backend.
#[derive(Debug, Default)]
pub struct Pool {
    idle: RefCell<Vec<Idle>>,
    is_closed: Cell<bool>,
}

impl Pool {
    /// The connection that was used last, if it went idle at tick `since` or later and its backend has neither closed
    /// it nor sent anything since: the cached readiness tells, without a system call.
    pub fn take(&self, since: u32) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        // Those below the top are older still; who may wait longer than this caller can use them yet.
        while idle.last().is_some_and(|top| top.since >= since) {
            let top = idle.pop()?;
            if top.stream.is_quiet() {
                return Some(top.stream);
            }
        }
        None
    }

    /// Keeps a connection, unless `max` are kept already; then the oldest goes.
    pub fn put(&self, stream: Stream, now: u32, max: usize) {
        if max == 0 || self.is_closed.get() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= max {
            idle.remove(0);
        }
        idle.push(Idle { stream, since: now });
    }

    /// Closes what went idle before tick `since`, and what the backend closed.
    pub fn sweep(&self, since: u32) {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|kept| kept.since >= since && kept.stream.is_quiet());
        if idle.is_empty() && idle.capacity() > 64 {
            *idle = Vec::new();
        }
    }

    /// Closes all, and keeps none any more: the backend is gone, though what runs on it may go on for long.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.idle.take();
    }

    /// Closes the `count` oldest; returns how many there were.
    pub fn evict(&self, count: usize) -> usize {
        let mut idle = self.idle.borrow_mut();
        let count = count.min(idle.len());
        idle.drain(..count);
        count
    }

    /// Connections kept.
    pub fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
    }
}
