//! Sockets and readiness: the thin layer over epoll that origin, load, relay and idle share.
//!
//! Owns non-blocking sockets' options and the meaning of "would block". Never knows what the bytes mean.

use crate::error::{Error, Result, Trying};
use crate::sys;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections that may wait in a listener's backlog; the system caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// How long a listener rests when no descriptor is left.
pub const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;

/// One epoll instance and the events that it reported last.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

/// What a socket is ready for.
#[derive(Clone, Copy)]
pub struct Ready {
    /// What [`Poller::add`] was given.
    pub token: u64,
    /// There are bytes, an end, or an error to read.
    pub readable: bool,
    /// There is room to write, or an error.
    pub writable: bool,
}

/// What to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read.
    Read,
    /// Room to write.
    Write,
    /// Both.
    Both,
    /// Neither; errors still show.
    Nothing,
    /// The peer's end; errors as well.
    End,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
            Interest::Both => EventFlags::IN | EventFlags::OUT,
            Interest::Nothing => EventFlags::empty(),
            Interest::End => EventFlags::RDHUP,
        }
    }
}

impl Poller {
    /// An empty one.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).trying(|| "epoll_create".into())?;
        Ok(Poller { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches `fd`, level-triggered.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token), interest.flags()).trying(|| "epoll_ctl".into())
    }

    /// Changes what `fd` is watched for.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest) -> Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(token), interest.flags()).trying(|| "epoll_ctl".into())
    }

    /// Waits for events; they are read with [`Poller::ready`], and their number is returned.
    ///
    /// # Errors
    /// What `epoll_wait(2)` says, interruption apart.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let mut timeout = timeout.map(epoll_timeout);
        if let Some(time) = timeout.as_mut().filter(|time| time.tv_nsec % 1_000_000 != 0) {
            // epoll_wait(2) rounds up to whole milliseconds; what is due earlier would be late.
            let mut own = [PollFd::new(&self.epoll, PollFlags::IN)];
            match poll(&mut own, Some(time)) {
                Ok(_) | Err(Errno::INTR) => *time = epoll_timeout(Duration::ZERO),
                Err(e) => return Err(Error::Io { what: "ppoll".into(), source: e.into() }),
            }
        }
        self.events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(e) => Err(Error::Io { what: "epoll_wait".into(), source: e.into() }),
        }
    }

    /// The event of this index.
    pub fn ready(&self, index: usize) -> Ready {
        let event = self.events[index];
        let (flags, data) = (event.flags, event.data);
        Ready {
            token: data.u64(),
            readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
            writable: flags.intersects(EventFlags::OUT | EventFlags::ERR),
        }
    }
}

fn epoll_timeout(timeout: Duration) -> rustix::event::Timespec {
    // Longer than any wait here; both fields fit.
    let timeout = timeout.min(Duration::from_secs(3600));
    rustix::event::Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() }
}

/// What reading a socket gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The peer sent its end.
    End,
    /// Nothing now.
    Later,
}

/// Reads what is there, once.
///
/// # Errors
/// What `recv(2)` says: the connection is broken.
pub fn receive(fd: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    match rustix::net::recv(fd, buffer, RecvFlags::empty()) {
        Ok((0, _)) => Ok(Received::End),
        Ok((len, _)) => Ok(Received::Bytes(len)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Later),
        Err(e) => Err(e.into()),
    }
}

/// Writes what fits now, once; 0 when nothing does.
///
/// # Errors
/// What `send(2)` says: the connection is broken.
pub fn send(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(fd, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

/// A non-blocking listener. With `shared`, others may listen on the same address (`SO_REUSEPORT`).
///
/// # Errors
/// When the address can't be bound.
pub fn listen(address: SocketAddr, shared: bool) -> Result<Socket> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    };
    open().trying(|| format!("listening on {address}"))
}

/// The address that a listener was given.
///
/// # Errors
/// When it is no address of the Internet.
pub fn local_address(listener: &Socket) -> Result<SocketAddr> {
    let address = listener.local_addr().trying(|| "getsockname".into())?;
    address.as_socket().ok_or_else(|| Error::Failed("a listener without an address".into()))
}

/// A listener in a poller, which rests for a moment when no descriptor is left: level-triggered, it would spin.
pub struct Acceptor {
    listener: Socket,
    token: u64,
    resting_until: Option<Instant>,
}

impl Acceptor {
    /// Watches a listener under `token`.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn new(listener: Socket, token: u64, poller: &Poller) -> Result<Acceptor> {
        poller.add(&listener, token, Interest::Read)?;
        Ok(Acceptor { listener, token, resting_until: None })
    }

    /// Watches again after a rest. To be called once a turn, at least every [`ACCEPT_REST`].
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn turn(&mut self, poller: &Poller) -> Result<()> {
        if self.resting_until.is_some_and(|until| until <= Instant::now()) {
            self.resting_until = None;
            poller.modify(&self.listener, self.token, Interest::Read)?;
        }
        Ok(())
    }

    /// Whether [`Acceptor::turn`] has to be called soon without an event.
    pub fn is_resting(&self) -> bool {
        self.resting_until.is_some()
    }

    /// Takes one waiting connection, non-blocking and without Nagle's delay; `None` when there is none, or none can be
    /// had.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub fn accept(&mut self, poller: &Poller) -> Result<Option<OwnedFd>> {
        use rustix::net::{SocketFlags, accept_with, sockopt};
        match accept_with(&self.listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(fd) => {
                // Only fails on a connection that is gone already, which the first read shows.
                let _ = sockopt::set_tcp_nodelay(&fd, true);
                Ok(Some(fd))
            }
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                self.resting_until = Some(Instant::now() + ACCEPT_REST);
                poller.modify(&self.listener, self.token, Interest::Nothing)?;
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }
}

/// Starts connecting, from `source` when given. Returns whether it is done already.
///
/// # Errors
/// When no socket can be had, or the peer refused at once.
pub fn connect(target: SocketAddr, source: Option<IpAddr>) -> io::Result<(OwnedFd, bool)> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        sys::choose_port_at_connect(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => Ok((socket.into(), true)),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok((socket.into(), false)),
        Err(e) => Err(e),
    }
}

/// Whether connecting, which had started, ended well.
///
/// # Errors
/// Why it did not.
pub fn connected(fd: impl AsFd) -> io::Result<()> {
    rustix::net::sockopt::socket_error(fd)??;
    Ok(())
}

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn descriptors_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // When it fails, the soft limit stays and is what counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}
