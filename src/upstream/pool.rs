//! Idle connections to one backend, kept by one worker.
//!
//! Owns them last in, first out, so that few stay warm and the rest age out. Never connects and never counts exchanges.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

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
    /// When the backend's addresses changed last, in ticks.
    moved_at: Cell<Option<u32>>,
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

    /// Keeps a connection that was taken or opened at tick `taken_at`, unless `max` are kept already; then the oldest goes.
    /// One that was out while the backend's addresses changed is not kept, wherever it leads.
    pub fn put(&self, stream: Stream, taken_at: u32, now: u32, max: usize) {
        let has_moved = self.moved_at.get().is_some_and(|moved_at| taken_at <= moved_at);
        if max == 0 || has_moved || self.is_closed.get() {
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

    /// The backend's addresses are others at tick `now`: closes what leads elsewhere.
    pub fn keep_to(&self, addresses: &[SocketAddr], now: u32) {
        self.moved_at.set(Some(now));
        self.idle.borrow_mut().retain(|kept| kept.stream.peer().is_none_or(|peer| addresses.contains(&peer)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// A connection, whom it leads to, and the other end.
    fn connection() -> (Stream, SocketAddr, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        near.set_nonblocking(true).expect("a socket that does not block");
        let peer = near.peer_addr().expect("a peer");
        (Stream::new(near.into()).expect("a stream"), peer, listener.accept().expect("the other end").0)
    }

    #[tokio::test]
    async fn connections_to_addresses_that_are_gone_are_not_kept() {
        let pool = Pool::default();
        let (stays, address, _one) = connection();
        let (goes, _, _two) = connection();
        pool.put(stays, 1, 2, 9);
        pool.put(goes, 1, 2, 9);
        pool.keep_to(&[address], 5);
        assert_eq!(pool.len(), 1);
        let kept = pool.take(0).expect("a connection");
        assert_eq!(kept.peer(), Some(address));
        pool.put(kept, 5, 6, 9);
        assert!(pool.is_empty(), "it was out at the change");
        let (new, ..) = connection();
        pool.put(new, 6, 7, 9);
        assert_eq!(pool.len(), 1);
    }
}
