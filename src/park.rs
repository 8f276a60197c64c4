//! The parking lot of a worker: idle client connections as a few dozen bytes of plain data each.
//!
//! Owns the sockets of connections that wait for a request, in an epoll of their own whose descriptor is one entry
//! of the worker's event loop, and the order in which they came. A parked connection has no task, no buffer and no
//! deadline of its own: the lists are ordered by age, so expiring looks at their heads only. Beyond a number its socket
//! goes on the shelf, where it needs no descriptor. Never reads a byte of a request and never decides how long is too long.

pub mod shelf;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker, ready};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::RecvFlags;
use tokio::io::unix::AsyncFd;

use crate::stream::Idle;
use shelf::{Shelf, Size, Slot};

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
    /// Its place in the lot, if it has one that outlasts its waiting.
    pub berth: Option<Berth>,
}

/// The place in the lot of a connection whose socket is on the shelf. It is kept while the connection has a descriptor and
/// a task, and has to be given back when it ends: until then the socket stays open.
#[derive(Debug)]
pub struct Berth(u32);

/// Whether a socket is in the lot's epoll already.
#[derive(Clone, Copy, Debug)]
enum Watch {
    New,
    Changed,
}

/// Which of the lists an entry is in. All but the last are one list for each thing to wait for, by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// With a descriptor.
    Open = 0,
    /// On the shelf since they were parked.
    Shelved = 1,
    /// Put on the shelf later, the oldest first: older than their neighbours on the shelf would be.
    Moved = 2,
    /// On the shelf, and something happened to them: they wait for a descriptor, first come first served.
    Due = 3,
}

/// Those that are by age.
const AGED: [Group; 3] = [Group::Open, Group::Shelved, Group::Moved];
const WAITING: [Waiting; 3] = [Waiting::Next, Waiting::First, Waiting::Announced];
const DUE: usize = AGED.len() * WAITING.len();
const LISTS: usize = DUE + 1;

fn list(group: Group, waiting: Waiting) -> usize {
    if group == Group::Due { DUE } else { WAITING.len() * group as usize + waiting as usize }
}

/// Where the socket of an entry is.
#[derive(Debug)]
enum Socket {
    /// Nowhere: the entry is vacant.
    None,
    /// In the descriptor table.
    Open(OwnedFd),
    /// On the shelf alone.
    Shelved(Slot),
    /// On the shelf, and in the hands of a task.
    Away(Slot),
}

/// 44 bytes: what "a few dozen bytes" is.
#[derive(Debug)]
struct Entry {
    socket: Socket,
    since: u32,
    prev: u32,
    next: u32,
    ip: [u8; 16],
    port: u16,
    listener: u16,
    is_v6: bool,
    waiting: Waiting,
    /// Whose list it is in.
    group: Group,
    /// Something happened to the socket while it was away.
    is_stirred: bool,
}

const _: () = assert!(size_of::<Entry>() <= 44);

const VACANT: Entry = Entry {
    socket: Socket::None,
    since: 0,
    prev: NONE,
    next: NONE,
    ip: [0; 16],
    port: 0,
    listener: 0,
    is_v6: false,
    waiting: Waiting::First,
    group: Group::Open,
    is_stirred: false,
};

impl Entry {
    fn new(parked: &Parked, socket: Socket) -> Entry {
        let (ip, is_v6) = match parked.peer.ip() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), false),
            IpAddr::V6(v6) => (v6.octets(), true),
        };
        Entry {
            socket,
            since: parked.since,
            ip,
            is_v6,
            port: parked.peer.port(),
            listener: parked.listener,
            waiting: parked.waiting,
            ..VACANT
        }
    }

    fn parked(&self, fd: OwnedFd, session: Option<Idle>, berth: Option<Berth>) -> Parked {
        let v6 = Ipv6Addr::from(self.ip);
        let ip = if self.is_v6 { IpAddr::V6(v6) } else { v6.to_canonical() };
        let peer = SocketAddr::new(ip, self.port);
        let Entry { listener, waiting, since, .. } = *self;
        Parked { fd, peer, listener, waiting, since, session, berth }
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
    /// Entries in use, also those of connections that are away.
    used: usize,
    len: usize,
    shelved: usize,
    lists: [List; LISTS],
    /// Beside the entries, as most connections have none.
    sessions: HashMap<u32, Idle>,
    shelf: Shelf,
    /// So many keep their descriptors.
    open_max: usize,
    /// Of whoever wakes connections.
    waker: Option<Waker>,
}

impl Lot {
    /// An empty lot on the current runtime. Beyond `open_max` connections sockets go on a shelf of this size.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(open_max: usize, shelf: Size) -> io::Result<Lot> {
        let epoll = crate::sys::register_for_reading(epoll::create(CreateFlags::CLOEXEC)?)?;
        let empty = List { oldest: NONE, newest: NONE };
        Ok(Lot {
            epoll,
            chunks: Vec::new(),
            free: NONE,
            used: 0,
            len: 0,
            shelved: 0,
            lists: [empty; LISTS],
            sessions: HashMap::new(),
            shelf: Shelf::new(shelf),
            open_max,
            waker: None,
        })
    }

    /// Connections in the lot.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Those of them that have no descriptor.
    pub fn shelved(&self) -> usize {
        self.shelved
    }

    /// Whether there is a shelf.
    pub fn has_shelf(&self) -> bool {
        self.shelf.size() != Size::NONE
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * size_of::<Entry>() + self.shelf.bytes()
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
    pub fn park(&mut self, mut parked: Parked) -> io::Result<()> {
        let session = parked.session.take();
        let (key, group) = match parked.berth.take() {
            Some(Berth(key)) => (key, self.moor(key, &parked)),
            None => self.admit(parked)?,
        };
        session.into_iter().for_each(|session| drop(self.sessions.insert(key, session)));
        self.append(key, group);
        self.len += 1;
        Ok(())
    }

    /// A connection whose socket is on the shelf comes back.
    fn moor(&mut self, key: u32, parked: &Parked) -> Group {
        let entry = self.entry(key);
        let was_stirred = entry.is_stirred;
        if let Socket::Away(slot) = entry.socket {
            *entry = Entry::new(parked, Socket::Shelved(slot));
            self.shelved += 1;
        }
        // What its task did not read itself, nobody will be told of again.
        if was_stirred && look(&parked.fd) != Found::Nothing {
            self.waker.iter().for_each(Waker::wake_by_ref);
            return Group::Due;
        }
        Group::Shelved
    }

    fn admit(&mut self, parked: Parked) -> io::Result<(u32, Group)> {
        let key = self.vacant();
        if self.len - self.shelved >= self.open_max
            && let Ok(slot) = self.shelve_as(key, &parked.fd, Watch::New)
        {
            *self.entry(key) = Entry::new(&parked, Socket::Shelved(slot));
            return Ok((key, Group::Shelved));
        }
        let flags = EventFlags::IN | EventFlags::RDHUP;
        let watched = epoll::add(self.epoll.get_ref(), &parked.fd, EventData::new_u64(u64::from(key)), flags);
        watched.inspect_err(|_| self.release(key))?;
        let mut entry = Entry::new(&parked, Socket::None);
        entry.socket = Socket::Open(parked.fd);
        *self.entry(key) = entry;
        Ok((key, Group::Open))
    }

    /// Puts a socket on the shelf. It is watched from now on until it is closed, as who has no descriptor of it can't have the
    /// watch changed: by its edges, or what is away would be told of all the time.
    fn shelve_as(&mut self, key: u32, fd: &OwnedFd, watch: Watch) -> io::Result<Slot> {
        let slot = self.shelf.put(fd)?;
        let (data, flags) = (EventData::new_u64(u64::from(key)), EventFlags::IN | EventFlags::RDHUP | EventFlags::ET);
        // Either tells at once of what there is to read already.
        let watched = match watch {
            Watch::New => epoll::add(self.epoll.get_ref(), fd, data, flags),
            Watch::Changed => epoll::modify(self.epoll.get_ref(), fd, data, flags),
        };
        watched.inspect_err(|_| self.shelf.clear(slot))?;
        self.shelved += 1;
        Ok(slot)
    }

    /// Takes descriptors from up to `count` connections that have some still, the oldest first; returns from how many.
    pub fn shelve(&mut self, count: usize) -> usize {
        let before = self.shelved;
        while self.shelved - before < count
            && let Some(key) = self.oldest_open()
            && self.shelve_open(key).is_ok()
        {}
        self.shelved - before
    }

    fn shelve_open(&mut self, key: u32) -> io::Result<()> {
        let Socket::Open(fd) = std::mem::replace(&mut self.entry(key).socket, Socket::None) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        match self.shelve_as(key, &fd, Watch::Changed) {
            Ok(slot) => {
                self.entry(key).socket = Socket::Shelved(slot);
                self.detach(key);
                self.append(key, Group::Moved);
                Ok(())
            }
            Err(error) => {
                self.entry(key).socket = Socket::Open(fd);
                Err(error)
            }
        }
    }

    fn oldest_open(&self) -> Option<u32> {
        let mut heads = WAITING.iter().map(|&waiting| self.lists[list(Group::Open, waiting)].oldest);
        heads.find(|&key| key != NONE)
    }

    /// Takes out up to [`WAKE_BATCH`] connections that have something to read; of those on the shelf up to `room`, for which
    /// there have to be descriptors, and the others wait for [`Lot::rouse`]. Those that merely ended are closed here, without
    /// a task; their number is returned.
    ///
    /// # Errors
    /// When the event loop is gone.
    pub fn poll_wake(&mut self, cx: &mut Context<'_>, room: usize, woken: &mut Vec<Parked>) -> Poll<io::Result<usize>> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        let (mut ended, mut tried) = (0, 0);
        while tried < WAKE_BATCH && woken.len() < room && self.has_due() {
            let key = self.lists[DUE].oldest;
            ended += usize::from(self.stir(key, true, room, woken));
            if self.lists[DUE].oldest == key {
                // No descriptor after all.
                break;
            }
            tried += 1;
        }
        if tried > 0 {
            return Poll::Ready(Ok(ended));
        }
        loop {
            let mut events: [MaybeUninit<epoll::Event>; WAKE_BATCH] = [const { MaybeUninit::uninit() }; WAKE_BATCH];
            let mut guard = ready!(self.epoll.poll_read_ready(cx))?;
            let (events, _) = epoll::wait(self.epoll.get_ref(), &mut events, Some(&ZERO))?;
            if events.is_empty() {
                guard.clear_ready();
                continue;
            }
            drop(guard);
            for event in events.iter() {
                let (data, flags) = (event.data, event.flags);
                let may_have_ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                ended += usize::from(self.stir(data.u64() as u32, may_have_ended, room, woken));
            }
            return Poll::Ready(Ok(ended));
        }
    }

    /// Whether there are connections that have something to read, and wait for descriptors.
    pub fn has_due(&self) -> bool {
        self.lists[DUE].oldest != NONE
    }

    /// Has whoever wakes connections try those again for which there were no descriptors.
    pub fn rouse(&mut self) {
        self.shelf.try_again();
        if self.has_due() {
            self.waker.iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Something happened to a socket: wakes its connection, or closes it and returns true.
    fn stir(&mut self, key: u32, may_have_ended: bool, room: usize, woken: &mut Vec<Parked>) -> bool {
        let Some(entry) = self.chunks.get_mut(key as usize / CHUNK).map(|chunk| &mut chunk[key as usize % CHUNK])
        else {
            return false;
        };
        match &entry.socket {
            Socket::None => return false,
            Socket::Away(_) => entry.is_stirred = true,
            Socket::Open(fd) if may_have_ended && look(fd) == Found::End => {
                drop(self.take(key));
                return true;
            }
            Socket::Open(_) => {
                let Some(parked) = self.take(key) else { return false };
                let _ = epoll::delete(self.epoll.get_ref(), &parked.fd);
                woken.push(parked);
            }
            // To see whether it has ended takes a descriptor for a moment only.
            &Socket::Shelved(slot) if may_have_ended || woken.len() < room => match self.shelf.open(slot) {
                Ok(fd) => {
                    let found = if may_have_ended { look(&fd) } else { Found::Bytes };
                    return self.unshelve(key, slot, fd, found, room, woken);
                }
                Err(_) => self.put_off(key),
            },
            Socket::Shelved(_) => self.put_off(key),
        }
        false
    }

    fn unshelve(
        &mut self,
        key: u32,
        slot: Slot,
        fd: OwnedFd,
        found: Found,
        room: usize,
        woken: &mut Vec<Parked>,
    ) -> bool {
        match found {
            Found::End => {
                drop(fd);
                self.close(key);
                return true;
            }
            // It was about who had the key before, or what its task has read since.
            Found::Nothing => self.forgo(key),
            Found::Bytes if woken.len() >= room => self.put_off(key),
            Found::Bytes => {
                let session = self.unlist(key);
                self.shelved -= 1;
                let entry = self.entry(key);
                entry.socket = Socket::Away(slot);
                woken.push(entry.parked(fd, session, Some(Berth(key))));
            }
        }
        false
    }

    fn put_off(&mut self, key: u32) {
        if self.entry(key).group != Group::Due {
            self.detach(key);
            self.append(key, Group::Due);
        }
    }

    /// Back among those that wait, as if it had begun to when the last of them did: they are in order.
    fn forgo(&mut self, key: u32) {
        if self.entry(key).group == Group::Due {
            self.detach(key);
            let newest = self.lists[list(Group::Shelved, self.entry(key).waiting)].newest;
            let since = if newest == NONE { 0 } else { self.entry(newest).since };
            let entry = self.entry(key);
            entry.since = entry.since.max(since);
            self.append(key, Group::Shelved);
        }
    }

    /// Closes the connections of one kind that have waited since before `before` (a tick), at most `max`; returns how
    /// many.
    pub fn expire(&mut self, waiting: Waiting, before: u32, max: usize) -> usize {
        let mut closed = 0;
        while closed < max
            && let Some(oldest) = self.oldest(waiting)
            && self.entry(oldest).since < before
        {
            self.close(oldest);
            closed += 1;
        }
        closed
    }

    fn oldest(&mut self, waiting: Waiting) -> Option<u32> {
        let heads = AGED.map(|group| self.lists[list(group, waiting)].oldest);
        heads.into_iter().filter(|&key| key != NONE).min_by_key(|&key| self.entry(key).since)
    }

    /// Closes up to `count` of the connections that have waited longest for a further request, then of those that never
    /// sent one, at last of those that have something to read; returns how many.
    pub fn evict(&mut self, count: usize) -> usize {
        let mut closed = 0;
        for waiting in WAITING {
            closed += self.expire(waiting, u32::MAX, count - closed);
        }
        while closed < count && self.has_due() {
            self.close(self.lists[DUE].oldest);
            closed += 1;
        }
        closed
    }

    /// The same with those that have descriptors; returns how many of these are free now.
    pub fn evict_open(&mut self, count: usize) -> usize {
        let mut closed = 0;
        while closed < count
            && let Some(oldest) = self.oldest_open()
        {
            self.close(oldest);
            closed += 1;
        }
        closed
    }

    /// Takes the place of a connection back that has ended elsewhere.
    pub fn leave(&mut self, Berth(key): Berth) {
        if let Socket::Away(slot) = self.entry(key).socket {
            self.shelf.clear(slot);
            self.release(key);
        }
    }

    /// Says the end of a connection's TLS session, where it has one.
    fn say_end(&mut self, key: u32) {
        let Some(session) = self.sessions.remove(&key) else { return };
        match &self.chunks[key as usize / CHUNK][key as usize % CHUNK].socket {
            Socket::Open(fd) => session.say_end(fd),
            &Socket::Shelved(slot) => {
                if let Ok(fd) = self.shelf.open(slot) {
                    session.say_end(&fd);
                }
            }
            Socket::None | Socket::Away(_) => {}
        }
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
        self.used += 1;
        key
    }

    fn append(&mut self, key: u32, group: Group) {
        let at = list(group, self.entry(key).waiting);
        let newest = std::mem::replace(&mut self.lists[at].newest, key);
        let entry = self.entry(key);
        entry.group = group;
        entry.prev = newest;
        entry.next = NONE;
        match newest {
            NONE => self.lists[at].oldest = key,
            before => self.entry(before).next = key,
        }
    }

    /// Takes an entry out of its list.
    fn detach(&mut self, key: u32) {
        let &mut Entry { prev, next, waiting, group, .. } = self.entry(key);
        let at = list(group, waiting);
        match prev {
            NONE => self.lists[at].oldest = next,
            prev => self.entry(prev).next = next,
        }
        match next {
            NONE => self.lists[at].newest = prev,
            next => self.entry(next).prev = prev,
        }
    }

    /// Takes a connection with a descriptor out.
    fn take(&mut self, key: u32) -> Option<Parked> {
        let Socket::Open(fd) = std::mem::replace(&mut self.entry(key).socket, Socket::None) else { return None };
        let session = self.unlist(key);
        let parked = self.entry(key).parked(fd, session, None);
        self.release(key);
        Some(parked)
    }

    /// Closes a parked connection.
    fn close(&mut self, key: u32) {
        self.say_end(key);
        self.unlist(key);
        if let &Socket::Shelved(slot) = &self.entry(key).socket {
            self.shelf.clear(slot);
            self.shelved -= 1;
        }
        self.release(key);
    }

    /// Takes an entry out of the lot; its key stays taken.
    fn unlist(&mut self, key: u32) -> Option<Idle> {
        self.detach(key);
        self.len -= 1;
        if self.sessions.is_empty() { None } else { self.sessions.remove(&key) }
    }

    /// Frees a key, and with the last one the memory.
    fn release(&mut self, key: u32) {
        let free = std::mem::replace(&mut self.free, key);
        *self.entry(key) = Entry { next: free, ..VACANT };
        self.used -= 1;
        // One chunk stays: a worker whose only client comes and goes would make and free it each time.
        if self.used == 0 && self.chunks.len() > 1 {
            self.chunks = Vec::new();
            self.sessions = HashMap::new();
            self.free = NONE;
        }
    }
}

const ZERO: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };

/// What there is to read of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Bytes,
    /// Its end, or a fault of it.
    End,
    Nothing,
}

fn look(fd: &OwnedFd) -> Found {
    let mut one = [0u8; 1];
    match rustix::net::recv(fd, &mut one, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 1..)) => Found::Bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Found::Nothing,
        Ok(_) | Err(_) => Found::End,
    }
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
        Parked { fd, peer, listener: 3, waiting: Waiting::Next, since, session: None, berth: None }
    }

    fn on_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn a_byte_wakes_and_an_end_closes_without_waking() {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut lot = Lot::new(usize::MAX, Size::NONE).unwrap();
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
                ended += std::future::poll_fn(|cx| lot.poll_wake(cx, 0, &mut woken)).await.unwrap();
            }
            assert_eq!((woken.len(), ended, lot.len()), (1, 1, 1));
            assert_eq!((woken[0].since, woken[0].listener), (7, 3));
            assert_eq!(woken[0].peer, "[2001:db8::1]:5000".parse().unwrap());
        });
    }

    /// Against a model: many connections that speak, leave, come back and are closed, few of which keep a descriptor, with
    /// room for few at once. Nothing that was said is missed, nobody is taken for another, and whoever is closed sees it.
    #[test]
    fn whoever_is_on_the_shelf_is_told_of_everything() {
        use crate::sys::ring::Ring;
        use std::collections::BTreeMap;
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        if !Ring::is_available() {
            eprintln!("SKIPPED: no io_uring here");
            return;
        }
        struct End {
            socket: UnixStream,
            unread: usize,
        }
        /// Whether the lot, or a task, has closed the other side: an end, or a reset where something was unread there.
        fn is_closed(end: &mut End) -> bool {
            match end.socket.read(&mut [0]) {
                Ok(n) => n == 0,
                Err(error) => error.kind() != io::ErrorKind::WouldBlock,
            }
        }
        /// Peers have their number as port.
        fn peer(of: u16) -> SocketAddr {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), of)
        }
        async fn wake(lot: &mut Lot, room: usize, woken: &mut Vec<Parked>) -> usize {
            // The event loop looks; what was sent over a Unix socket is there already.
            tokio::task::yield_now().await;
            let mut ended = 0;
            while let Poll::Ready(done) = lot.poll_wake(&mut Context::from_waker(Waker::noop()), room, woken) {
                let before = ended;
                ended += done.unwrap();
                if ended == before && woken.len() >= room {
                    break;
                }
            }
            ended
        }
        on_runtime(async {
            let mut rng = crate::balance::rng::Rng::new(2026);
            let mut lot = Lot::new(3, Size { places: 5, rings: 20 }).unwrap();
            let (mut ends, mut awake) = (BTreeMap::<u16, End>::new(), BTreeMap::<u16, Parked>::new());
            let (mut next, mut shelved_most) = (1, 0);
            for since in 0..4000 {
                if ends.len() < 60 {
                    let (near, far) = UnixStream::pair().unwrap();
                    near.set_nonblocking(true).unwrap();
                    far.set_nonblocking(true).unwrap();
                    ends.insert(next, End { socket: far, unread: 0 });
                    let parked = Parked { peer: peer(next), ..parked(near.into(), since) };
                    lot.park(parked).unwrap();
                    next += 1;
                }
                let port = *ends.keys().nth(rng.next_u64() as usize % ends.len()).unwrap();
                match rng.next_u64() % 8 {
                    0..4 => {
                        let end = ends.get_mut(&port).unwrap();
                        end.socket.write_all(b"x").unwrap();
                        end.unread += 1;
                    }
                    // Ends, sometimes with bytes before it that have to be read still.
                    4 if !awake.contains_key(&port) && ends[&port].unread == 0 => drop(ends.remove(&port)),
                    5 if ends.len() > 50 => {
                        let before = lot.len();
                        assert_eq!(lot.evict(1), usize::from(before > 0));
                    }
                    6 => drop(lot.shelve(2)),
                    // Ends while it has a task.
                    7 => {
                        if let Some(mut gone) = awake.remove(&port) {
                            gone.berth.take().into_iter().for_each(|berth| lot.leave(berth));
                            drop(gone);
                            assert!(ends.remove(&port).is_some_and(|mut end| is_closed(&mut end)), "{port} is open");
                        }
                    }
                    _ => {}
                }
                let has_room = since % 20 == 19;
                let room = if has_room { usize::MAX } else { rng.next_u64() as usize % 4 };
                let mut woken = Vec::new();
                wake(&mut lot, room, &mut woken).await;
                awake.extend(woken.into_iter().map(|parked| (parked.peer.port(), parked)));
                assert!(awake.keys().all(|port| ends.contains_key(port)), "nobody wakes that has ended");
                if has_room {
                    let unheard = |(port, end): &(&u16, &End)| end.unread > 0 && !awake.contains_key(*port);
                    let unheard: Vec<_> = ends.iter().filter(unheard).map(|(port, _)| *port).collect();
                    assert!(unheard.is_empty(), "{unheard:?} said something, and nobody heard");
                }
                if !rng.next_u64().is_multiple_of(3)
                    && let Some((port, mut parked)) = awake.pop_first()
                {
                    let end = ends.get_mut(&port).unwrap();
                    let mut socket = UnixStream::from(parked.fd);
                    while let Ok(1..) = socket.read(&mut [0; 64]) {}
                    end.unread = 0;
                    // More may come after it has read for the last time, and the lot be told of it before it is back.
                    let luck = rng.next_u64();
                    if luck.is_multiple_of(2) {
                        end.socket.write_all(b"x").unwrap();
                        end.unread = 1;
                    }
                    if luck & 4 > 0 {
                        let mut woken = Vec::new();
                        wake(&mut lot, 1, &mut woken).await;
                        awake.extend(woken.into_iter().map(|parked| (parked.peer.port(), parked)));
                    }
                    parked.fd = socket.into();
                    lot.park(Parked { since, ..parked }).unwrap();
                }
                // Whom the lot has closed sees it.
                ends.retain(|_, end| !is_closed(end));
                assert!(lot.len() + awake.len() >= ends.len(), "nobody is lost");
                shelved_most = shelved_most.max(lot.shelved());
            }
            assert!(
                shelved_most > 30 && lot.len() - lot.shelved() <= 3,
                "{shelved_most}, {} of {}",
                lot.shelved(),
                lot.len()
            );
            for (_, mut parked) in awake {
                parked.berth.take().into_iter().for_each(|berth| lot.leave(berth));
            }
            lot.evict(usize::MAX);
            assert_eq!((lot.len(), lot.shelved(), lot.used), (0, 0, 0));
            ends.iter_mut().for_each(|(port, end)| assert!(is_closed(end), "{port} is open"));
        });
    }

    #[test]
    fn the_oldest_go_first() {
        on_runtime(async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut lot = Lot::new(usize::MAX, Size::NONE).unwrap();
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
            let mut lot = Lot::new(usize::MAX, Size::NONE).unwrap();
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
