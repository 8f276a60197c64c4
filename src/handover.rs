//! New connections from a worker that has too many to one that has few: the kernel spreads them by hash, unevenly.
//!
//! Owns one socket pair a worker, opened before any descriptor table is unshared, so that each end has the same number in
//! every table; a connection goes through it as a descriptor (`SCM_RIGHTS`, unix(7)) with what was known of it. Never
//! moves a connection that has been served.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use tokio::io::unix::AsyncFd;

use crate::shared::stats::WorkerStats;

/// A worker with this many per mille of the mean is over it.
const OVER_PER_MILLE: u64 = 1250;
/// And it has at least so many connections more than the mean: below that nobody notices.
const OVER_MIN: u64 = 8;
/// Address, port, listener.
const MESSAGE_BYTES: usize = 16 + 2 + 2;

/// A connection on its way to another worker.
#[derive(Debug)]
pub struct Handed {
    /// The socket.
    pub fd: OwnedFd,
    /// Its peer.
    pub peer: SocketAddr,
    /// Index of the listener it came in by.
    pub listener: u16,
}

/// The sending ends of all workers, by index.
#[derive(Debug)]
pub struct Doors {
    doors: Vec<OwnedFd>,
    stats: Vec<Arc<WorkerStats>>,
    /// Handed over and not taken in yet, by receiver.
    under_way: Vec<AtomicU64>,
}

impl Doors {
    /// A door and its inside for each worker.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(stats: &[Arc<WorkerStats>]) -> io::Result<(Arc<Doors>, Vec<OwnedFd>)> {
        let pairs = stats.iter().map(|_| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        });
        let (doors, insides) = pairs.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let under_way = stats.iter().map(|_| AtomicU64::new(0)).collect();
        Ok((Arc::new(Doors { doors, stats: stats.to_vec(), under_way }), insides))
    }

    /// The worker that should have `own`'s next new connection, if that is another one: the one with the fewest, once `own` has
    /// a quarter more than the mean of `all`. Only then are the counters of the others read: of a hundred workers, that costs
    /// more than accepting.
    pub fn better_than(&self, own: usize, all: u64) -> Option<usize> {
        let is_over = is_over(self.open(own), all / self.stats.len() as u64);
        if is_over { self.fewer(own, Self::open) } else { None }
    }

    /// The worker with the fewest in its table, unless that is `own`, or it has `max` too: for one whose table fills up.
    pub fn emptier_than(&self, own: usize, max: u64) -> Option<usize> {
        self.fewer(own, Self::in_table).filter(|&to| self.in_table(to) < max)
    }

    fn fewer(&self, own: usize, count: fn(&Doors, usize) -> u64) -> Option<usize> {
        let (fewest, to) = (0..self.stats.len()).map(|i| (count(self, i), i)).min()?;
        (fewest < count(self, own)).then_some(to)
    }

    fn open(&self, worker: usize) -> u64 {
        self.stats[worker].connections_active.get().saturating_add(self.under_way[worker].load(Ordering::Relaxed))
    }

    /// As of the last tick.
    fn in_table(&self, worker: usize) -> u64 {
        self.open(worker).saturating_sub(self.stats[worker].connections_shelved.get())
    }

    /// Worker `own` has taken in, and counted, a connection that was handed to it.
    pub fn taken_in(&self, own: usize) {
        self.under_way[own].fetch_sub(1, Ordering::Relaxed);
    }

    /// Hands a connection to worker `to`.
    ///
    /// # Errors
    /// The connection back, when it can't be handed over now (that worker has not taken earlier ones yet).
    pub fn hand(&self, to: usize, handed: Handed) -> Result<(), Handed> {
        let Some(door) = self.doors.get(to) else { return Err(handed) };
        let mut message = [0u8; MESSAGE_BYTES];
        let ip = match handed.peer.ip() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        message[..16].copy_from_slice(&ip.octets());
        message[16..18].copy_from_slice(&handed.peer.port().to_be_bytes());
        message[18..].copy_from_slice(&handed.listener.to_be_bytes());
        let fds = [handed.fd.as_fd()];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(handed);
        }
        // Counted first: the other worker may have taken it in before this call returns.
        self.under_way[to].fetch_add(1, Ordering::Relaxed);
        match rustix::net::sendmsg(door, &[IoSlice::new(&message)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.taken_in(to);
                Err(handed)
            }
        }
    }
}

fn is_over(mine: u64, mean: u64) -> bool {
    mine.saturating_mul(1000) > mean.saturating_mul(OVER_PER_MILLE) && mine >= mean + OVER_MIN
}

/// Where a worker takes in what others hand it.
#[derive(Debug)]
pub struct Inside {
    fd: AsyncFd<OwnedFd>,
}

impl Inside {
    /// Registers the inside of this worker's door with the current runtime.
    ///
    /// # Errors
    /// When the event loop can't take it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Inside { fd: crate::sys::register_for_reading(fd)? })
    }

    /// The next connection that another worker handed over.
    ///
    /// # Errors
    /// What the socket says; of kind `Other` when the table has no room for the descriptor: the connection waits where
    /// it is and may be asked for again.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<io::Result<Handed>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match take(self.fd.get_ref()) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                done => return Poll::Ready(done),
            }
        }
    }
}

/// Looks at the next message first: taken without room for its descriptor (unix(7), `MSG_CTRUNC`) it would be gone, and
/// the connection with it.
fn take(fd: &OwnedFd) -> io::Result<Handed> {
    let handed = look(fd)?;
    // Without a place for descriptors the kernel closes the message's own copy.
    let mut message = [0u8; MESSAGE_BYTES];
    rustix::net::recv(fd, &mut message, RecvFlags::empty())?;
    Ok(handed)
}

fn look(fd: &OwnedFd) -> io::Result<Handed> {
    let mut message = [0u8; MESSAGE_BYTES];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK;
    rustix::net::recvmsg(fd, &mut [IoSliceMut::new(&mut message)], &mut control, flags)?;
    let fds = control.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.flatten().next().ok_or_else(|| io::Error::other("no descriptor is left for a hand-over"))?;
    let mut ip = [0u8; 16];
    ip.copy_from_slice(&message[..16]);
    let peer = SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([message[16], message[17]]));
    Ok(Handed { fd, peer, listener: u16::from_be_bytes([message[18], message[19]]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn only_who_is_well_over_the_mean_hands_over() {
        let better = |own: usize, counts: &[u64]| {
            let stats: Vec<Arc<WorkerStats>> = counts.iter().map(|_| Arc::default()).collect();
            stats.iter().zip(counts).for_each(|(stats, count)| stats.connections_active.add(*count));
            let (doors, _insides) = Doors::new(&stats).unwrap();
            doors.better_than(own, counts.iter().sum())
        };
        assert_eq!(better(0, &[60, 40]), None, "within a quarter");
        assert_eq!(better(0, &[70, 30]), Some(1));
        assert_eq!(better(1, &[70, 30]), None);
        assert_eq!(better(0, &[5, 0]), None, "too few to matter");
        assert_eq!(better(2, &[10, 3, 40, 7]), Some(1), "to the one with the fewest");
        assert_eq!(better(0, &[1000]), None);
    }

    #[test]
    fn who_fills_up_looks_for_the_emptiest() {
        let stats: [Arc<WorkerStats>; 3] = std::array::from_fn(|_| Arc::default());
        let (doors, _insides) = Doors::new(&stats).unwrap();
        (0..5).for_each(|_| stats[0].connections_active.inc());
        (0..3).for_each(|_| stats[1].connections_active.inc());
        doors.under_way[2].store(4, Ordering::Relaxed);
        assert_eq!((doors.emptier_than(0, 9), doors.emptier_than(1, 9)), (Some(1), None));
        assert_eq!(doors.emptier_than(0, 3), None, "all are full");
    }

    #[test]
    fn a_connection_arrives_as_it_was() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (doors, mut insides) = Doors::new(&[Arc::default(), Arc::default()]).unwrap();
            let inside = Inside::new(insides.remove(1)).unwrap();
            let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
            let peer = "192.0.2.7:4711".parse().unwrap();
            doors.hand(1, Handed { fd: far.into(), peer, listener: 3 }).unwrap();
            let handed = std::future::poll_fn(|cx| inside.poll_take(cx)).await.unwrap();
            assert_eq!((handed.peer, handed.listener), (peer, 3));
            let mut there = std::os::unix::net::UnixStream::from(handed.fd);
            near.write_all(b"x").unwrap();
            let mut byte = [0];
            there.read_exact(&mut byte).unwrap();
            drop(there);
            assert_eq!(near.read(&mut byte).unwrap(), 0, "no other copy of it is left open");
        });
    }
}
