//! HTTP/2 connections of one worker to one backend, and which of them takes the next stream.
//!
//! Owns them, first opened first filled, so that few stay busy and the rest age out. Never dials, and never counts exchanges:
//! `max_conn` is the backend's, whatever carries them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::limits::{TRUNK_STREAMS_COUNT_MAX, TRUNKS_COUNT_MAX};
use crate::stream::{Place, Trunk, Waiters};

/// The HTTP/2 connections of one worker to one backend.
#[derive(Debug)]
pub struct Trunks {
    open: RefCell<Vec<Opened>>,
    /// Connections so far.
    count: Cell<u64>,
    opening: Cell<usize>,
    /// Streams that the connection opened last takes: what the next one is reckoned with.
    expected: Cell<usize>,
    waiters: Rc<Waiters>,
    is_closed: Cell<bool>,
}

/// A connection, and how many there were before it.
#[derive(Debug)]
struct Opened {
    trunk: Rc<Trunk>,
    number: u64,
}

impl Default for Trunks {
    fn default() -> Self {
        Trunks {
            open: RefCell::default(),
            count: Cell::new(0),
            opening: Cell::new(0),
            expected: Cell::new(TRUNK_STREAMS_COUNT_MAX),
            waiters: Rc::default(),
            is_closed: Cell::new(false),
        }
    }
}

impl Trunks {
    /// A place on the first connection that has room, is none of the first `but` and went idle at tick `since` or later, if
    /// it is idle at all. When there can be no more connections, on any that has room.
    pub fn place(&self, since: u32, but: u64) -> Option<Place> {
        let mut open = self.open.borrow_mut();
        open.retain(|opened| !opened.trunk.is_closing());
        let (since, but) = if open.len() < TRUNKS_COUNT_MAX { (since, but) } else { (0, 0) };
        let is_fit = |opened: &&Opened| opened.number >= but && opened.trunk.idle_since().is_none_or(|at| at >= since);
        open.iter().filter(is_fit).find_map(|opened| opened.trunk.place())
    }

    /// Connections that were opened so far.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// Whether one is being opened.
    pub fn is_opening(&self) -> bool {
        self.opening.get() > 0
    }

    /// Leave to open another connection: unless those that are being opened are enough for all who wait, or there are as
    /// many as there may be.
    pub fn opening(self: &Rc<Self>) -> Option<Opening> {
        let opening = self.opening.get();
        // Each takes one of its places for whoever opens it.
        let suffices = self.waiters.len() < opening * (self.expected.get().max(1) - 1);
        if suffices || self.open.borrow().len() + opening >= TRUNKS_COUNT_MAX {
            return None;
        }
        self.opening.set(opening + 1);
        Some(Opening { trunks: self.clone() })
    }

    /// Who waits for a place.
    pub fn waiters(&self) -> &Rc<Waiters> {
        &self.waiters
    }

    /// Closes what carried no stream since before tick `since`.
    pub fn sweep(&self, since: u32) {
        let is_kept = |trunk: &Trunk| !trunk.is_closing() && trunk.idle_since().is_none_or(|at| at >= since);
        self.open.borrow_mut().retain(|opened| is_kept(&opened.trunk));
    }

    /// Lets go of what leads elsewhere than to `addresses`; what it carries goes on.
    pub fn keep_to(&self, addresses: &[SocketAddr]) {
        let before = self.len();
        self.open.borrow_mut().retain(|opened| opened.trunk.peer().is_none_or(|peer| addresses.contains(&peer)));
        if self.len() < before {
            self.waiters.wake_all();
        }
    }

    /// Takes no stream any more, and ends each connection with its last one: the backend is gone.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.open.take();
    }

    /// Closes up to `count` connections without a stream, the oldest first; returns how many there were.
    pub fn evict(&self, count: usize) -> usize {
        let mut evicted = 0;
        self.open.borrow_mut().retain(|opened| {
            let goes = evicted < count && opened.trunk.idle_since().is_some();
            evicted += usize::from(goes);
            !goes
        });
        evicted
    }

    /// Connections that are open.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }
}

/// Leave to open one connection. Dropped without one, it lets those who waited for it look anew.
#[derive(Debug)]
pub struct Opening {
    trunks: Rc<Trunks>,
}

impl Opening {
    /// The connection is open: the first place on it, and the others for those who wait.
    pub fn done(self, trunk: Rc<Trunk>) -> Option<Place> {
        let trunks = &self.trunks;
        trunks.expected.set(trunk.capacity());
        let (place, number) = (trunk.place(), trunks.count.get());
        trunks.count.set(number + 1);
        if !trunks.is_closed.get() && !trunk.is_closing() {
            trunks.open.borrow_mut().push(Opened { trunk, number });
        }
        place
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.trunks.opening.set(self.trunks.opening.get() - 1);
        self.trunks.waiters.wake_all();
    }
}
