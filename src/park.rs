//! The parking lot of a worker: idle client connections as a few dozen bytes of plain data each.
//!
//! Owns the descriptors of connections that wait for a request, in an epoll of their own whose descriptor is one entry
//! of the worker's event loop, and the order in which they came. A parked connection has no task, no buffer and no
//! deadline of its own: the lists are ordered by age, so expiring looks at their heads only. Never reads a byte of
//! a request and never decides how long is too long.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;

use crate::stream::Idle;

/// Connections taken out of the lot in one go; then other tasks get their turn.
pub const WAKE_BATCH: usize = 64;

const CHUNK: usize = 1024;
const NONE: u32 = u32::MAX;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its first request, since it was accepted.
    First = 0,
    /// A further request, since the last answer.
    Next = 1,
    /// Its first request, since it was accepted; its PROXY header came already.
    Announced = 2,
}

/// An idle connection as plain data, which any worker could pick up.
#[derive(Debug)]
pub struct Parked {
    /// The socket, off every event loop.
    pub fd: OwnedFd,
    /// The peer, as accepted or as a PROXY header told.
    pub peer: SocketAddr,
    /// Index of the listener it came in by.
    pub listener: u16,
    /// What it waits for.
    pub waiting: Waiting,
    /// The worker's tick at which it began to wait.
    pub since: u32,
    /// Its TLS session, if it has one already.
    pub session: Option<Idle>,
}

/// 44 bytes: what "a few dozen bytes" is.
#[derive(Debug)]
struct Entry {
    fd: Option<OwnedFd>,
    since: u32,
    prev: u32,
    next: u32,
    ip: [u8; 16],
    port: u16,
    listener: u16,
    is_v6: bool,
    waiting: Waiting,
}

const _: () = assert!(size_of::<Entry>() <= 48);

const VACANT: Entry = Entry {
    fd: None,
    since: 0,
    prev: NONE,
    next: NONE,
    ip: [0; 16],
    port: 0,
    listener: 0,
    is_v6: false,
    waiting: Waiting::First,
};

impl Entry {
    fn new(parked: Parked) -> (Entry, Option<Idle>) {
        let (ip, is_v6) = match parked.peer.ip() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), false),
            IpAddr::V6(v6) => (v6.octets(), true),
        };
        let entry = Entry {
            fd: Some(parked.fd),
            since: parked.since,
            ip,
            is_v6,
            port: parked.peer.port(),
            listener: parked.listener,
            waiting: parked.waiting,
            ..VACANT
        };
        (entry, parked.session)
    }

    fn into_parked(self, session: Option<Idle>) -> Option<Parked> {
        let v6 = Ipv6Addr::from(self.ip);
        let ip = if self.is_v6 { IpAddr::V6(v6) } else { v6.to_canonical() };
        Some(Parked {
            fd: self.fd?,
            peer: SocketAddr::new(ip, self.port),
            listener: self.listener,
            waiting: self.waiting,
            since: self.since,
            session,
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    newest: u32,
}

/// The lot. Dropping it closes every connection in it.
#[derive(Debug)]
pub struct Lot {
    epoll: AsyncFd<OwnedFd>,
    /// Chunks, so that growing never copies and never doubles the memory of a million entries.
    chunks: Vec<Box<[Entry]>>,
    free: u32,
    len: usize,
    lists: [List; 3],
    /// Beside the entries, as most connections have none.
    sessions: HashMap<u32, Idle>,
}

impl Lot {
    /// An empty lot on the current runtime.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Lot> {
        let epoll = crate::sys::register_for_reading(epoll::create(CreateFlags::CLOEXEC)?)?;
        let empty = List { oldest: NONE, newest: NONE };
        Ok(Lot { epoll, chunks: Vec::new(), free: NONE, len: 0, lists: [empty; 3], sessions: HashMap::new() })
    }

    /// Connections in the lot.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry>()
    }

    /// Whether the lot is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a connection in. `since` must not be earlier than that of the last one with the same `waiting` by more than
    /// what expiring may be late.
    ///
    /// # Errors
    /// When the kernel has no room for another watch; the connection is closed then.
    pub fn park(&mut self, parked: Parked) -> io::Result<()> {
        let key = self.vacant();
        let list = parked.waiting as usize;
        let flags = EventFlags::IN | EventFlags::RDHUP;
        epoll::add(self.epoll.get_ref(), &parked.fd, EventData::new_u64(u64::from(key)), flags).inspect_err(|_| {
            self.entry(key).next = self.free;
            self.free = key;
        })?;
        let (entry, session) = Entry::new(parked);
        *self.entry(key) = entry;
        session.into_iter().for_each(|session| drop(self.sessions.insert(key, session)));
        self.append(list, key);
        self.len += 1;
        Ok(())
    }

    /// Takes out up to [`WAKE_BATCH`] connections that have something to read. Those that merely ended are closed here,
    /// without a task; their number is returned.
    ///
    /// # Errors
    /// When the event loop is gone.
    pub fn poll_wake(&mut self, cx: &mut Context<'_>, woken: &mut Vec<Parked>) -> Poll<io::Result<usize>> {
        loop {
            let mut events: [MaybeUninit<epoll::Event>; WAKE_BATCH] = [const { MaybeUninit::uninit() }; WAKE_BATCH];
            let mut guard = ready!(self.epoll.poll_read_ready(cx))?;
            let (events, _) = epoll::wait(self.epoll.get_ref(), &mut events, Some(&ZERO))?;
            if events.is_empty() {
                guard.clear_ready();
                continue;
            }
            let mut ended = 0;
            for event in events.iter() {
                let (data, flags) = (event.data, event.flags);
                let Some(parked) = self.take(data.u64() as u32) else { continue };
                if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) && !has_bytes(&parked.fd) {
                    ended += 1;
                    continue;
                }
                let _ = epoll::delete(self.epoll.get_ref(), &parked.fd);
                woken.push(parked);
            }
            return Poll::Ready(Ok(ended));
        }
    }

    /// Closes the connections of one kind that have waited since before `before` (a tick), at most `max`; returns how
    /// many.
    pub fn expire(&mut self, waiting: Waiting, before: u32, max: usize) -> usize {
        let mut closed = 0;
        while closed < max {
            let oldest = self.lists[waiting as usize].oldest;
            if oldest == NONE || self.entry(oldest).since >= before {
                break;
            }
            if let Some(Parked { fd, session: Some(session), .. }) = self.take(oldest) {
                session.say_end(&fd);
            }
            closed += 1;
        }
        closed
    }

    /// Closes up to `count` of the connections that have waited longest for a further request, then of those that never
    /// sent one; returns how many.
    pub fn evict(&mut self, count: usize) -> usize {
        let next = self.expire(Waiting::Next, u32::MAX, count);
        let first = self.expire(Waiting::First, u32::MAX, count - next);
        next + first + self.expire(Waiting::Announced, u32::MAX, count - next - first)
    }

    fn entry(&mut self, key: u32) -> &mut Entry {
        &mut self.chunks[key as usize / CHUNK][key as usize % CHUNK]
    }

    /// A free key; makes a chunk when there is none.
    fn vacant(&mut self) -> u32 {
        if self.free == NONE {
            let first = (self.chunks.len() * CHUNK) as u32;
            let chunk: Vec<Entry> = (0..CHUNK as u32)
                .map(|i| Entry { next: if i + 1 < CHUNK as u32 { first + i + 1 } else { NONE }, ..VACANT })
                .collect();
            self.chunks.push(chunk.into_boxed_slice());
            self.free = first;
        }
        let key = self.free;
        self.free = self.entry(key).next;
        key
    }

    fn append(&mut self, list: usize, key: u32) {
        let newest = std::mem::replace(&mut self.lists[list].newest, key);
        let entry = self.entry(key);
        entry.prev = newest;
        entry.next = NONE;
        match newest {
            NONE => self.lists[list].oldest = key,
            before => self.entry(before).next = key,
        }
    }

    /// Takes an entry out of its list and frees its key.
    fn take(&mut self, key: u32) -> Option<Parked> {
        let free = self.free;
        let entry = self.chunks.get_mut(key as usize / CHUNK)?.get_mut(key as usize % CHUNK)?;
        entry.fd.as_ref()?;
        let entry = std::mem::replace(entry, Entry { next: free, ..VACANT });
        self.free = key;
        self.len -= 1;
        let list = entry.waiting as usize;
        match entry.prev {
            NONE => self.lists[list].oldest = entry.next,
            prev => self.entry(prev).next = entry.next,
        }
        match entry.next {
            NONE => self.lists[list].newest = entry.prev,
            next => self.entry(next).prev = entry.prev,
        }
        let session = if self.sessions.is_empty() { None } else { self.sessions.remove(&key) };
        let parked = entry.into_parked(session);
        // One chunk stays: a worker whose only client comes and goes would make and free it each time.
        if self.len == 0 && self.chunks.len() > 1 {
            self.chunks = Vec::new();
            self.sessions = HashMap::new();
            self.free = NONE;
        }
        parked
    }
}

const ZERO: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// Whether a connection that ended left bytes to read first.
fn has_bytes(fd: &OwnedFd) -> bool {
    let mut one = [0u8; 1];
    matches!(rustix::net::recv(fd, &mut one, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, n)) if n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn pair(listener: &TcpListener) -> (TcpStream, OwnedFd) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0.into())
    }

    fn parked(fd: OwnedFd, since: u32) -> Parked {
        let peer = "[2001:db8::1]:5000".parse().unwrap();
        Parked { fd, peer, listener: 3, waiting: Waiting::Next, since, session: None }
    }

    fn on_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_byte_wakes_and_an_end_closes_without_waking() {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut lot = Lot::new().unwrap();
            let (mut speaks, fd) = pair(&listener);
            lot.park(parked(fd, 7)).unwrap();
            let (leaves, fd) = pair(&listener);
            lot.park(parked(fd, 8)).unwrap();
            let (_stays, fd) = pair(&listener);
            lot.park(parked(fd, 9)).unwrap();
            drop(leaves);
            speaks.write_all(b"x").unwrap();
            let (mut woken, mut ended) = (Vec::new(), 0);
            while ended == 0 || woken.is_empty() {
                ended += std::future::poll_fn(|cx| lot.poll_wake(cx, &mut woken)).await.unwrap();
            }
            assert_eq!((woken.len(), ended, lot.len()), (1, 1, 1));
            assert_eq!((woken[0].since, woken[0].listener), (7, 3));
            assert_eq!(woken[0].peer, "[2001:db8::1]:5000".parse().unwrap());
        });
    }

    #[test]
    fn the_oldest_go_first() {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut lot = Lot::new().unwrap();
            let mut clients = Vec::new();
            for since in 0..10 {
                let (client, fd) = pair(&listener);
                clients.push(client);
                lot.park(parked(fd, since)).unwrap();
            }
            assert_eq!(lot.expire(Waiting::Next, 4, 100), 4);
            assert_eq!(lot.expire(Waiting::First, 100, 100), 0);
            assert_eq!(lot.evict(2), 2);
            assert_eq!(lot.expire(Waiting::Next, 100, 3), 3);
            assert_eq!((lot.expire(Waiting::Next, 100, 100), lot.len()), (1, 0));
            assert_eq!(lot.chunks.len(), 1);
        });
    }

    #[test]
    fn an_empty_lot_gives_its_memory_back() {
        on_runtime(async {
            crate::sys::descriptor_limit();
            let mut lot = Lot::new().unwrap();
            // The lot does not care what it waits for, and these need no other end.
            let anything = || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            for since in 0..CHUNK as u32 + 1 {
                lot.park(parked(anything(), since)).unwrap();
            }
            assert_eq!(lot.chunks.len(), 2);
            assert_eq!(lot.evict(usize::MAX), CHUNK + 1);
            assert!(lot.chunks.is_empty());
            lot.park(parked(anything(), 0)).unwrap();
            assert_eq!(lot.len(), 1);
        });
    }
}
