//! Listening sockets: bound by main for every worker, accepted from by the worker they were made for.
//!
//! Owns how a listening socket is set up and how one connection is taken from it. Never counts connections and never
//! decides whether one more is wanted.

pub mod given;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::config::plan::{Listen, ListenAddr, Server};
use given::Given;

/// Management is for few at once.
const MANAGEMENT_BACKLOG: i32 = 128;
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Set in the slot of a listener whose clients speak TLS. A slot goes wherever its connections go: into the parking lot,
/// and to other workers.
pub const SECURE: u16 = 0x8000;

/// The slot of the listener at `index`, which is below [`SECURE`].
pub const fn slot(index: u16, secure: bool) -> u16 {
    if secure { index | SECURE } else { index }
}

/// Whether who came in by the listener of this slot speaks TLS.
pub const fn is_secure(slot: u16) -> bool {
    slot & SECURE != 0
}

/// One address with a listening socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// As bound: the real port where port 0 was asked for.
    pub addr: ListenAddr,
    /// One per worker, in order; none where the service manager gave a socket.
    pub sockets: Vec<OwnedFd>,
    /// Of a Unix socket.
    pub file: Option<SocketFile>,
}

/// The file of a Unix socket; removed on drop, unless another process has put its own there meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Where it waits until it takes its place, in which another one of ours still is.
    beside: Option<PathBuf>,
    is_in_place: AtomicBool,
    /// Device and inode, which nobody else gets while the socket is open.
    identity: (u64, u64),
    _socket: OwnedFd,
}

impl SocketFile {
    fn new(path: &Path, socket: &Socket) -> io::Result<SocketFile> {
        let (identity, socket) = (identity(path)?, socket.try_clone()?.into());
        let is_in_place = AtomicBool::new(true);
        Ok(SocketFile { path: path.to_owned(), beside: None, is_in_place, identity, _socket: socket })
    }

    /// One that is beside `path` until it takes its place.
    fn meant_for(self, path: &Path) -> SocketFile {
        let mut file = self;
        file.beside = Some(std::mem::replace(&mut file.path, path.to_owned()));
        file.is_in_place = AtomicBool::new(false);
        file
    }

    /// Where it waits for that, it takes the place of the other one: who connects from now on comes here.
    ///
    /// # Errors
    /// What the system says.
    pub fn take_place(&self) -> io::Result<()> {
        if let Some(beside) = self.beside.as_ref().filter(|_| !self.is_in_place.load(Ordering::Relaxed)) {
            std::fs::rename(beside, &self.path)?;
            self.is_in_place.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.beside.as_ref().filter(|_| !self.is_in_place.load(Ordering::Relaxed)).unwrap_or(&self.path);
        if identity(path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct BindError {
    addr: ListenAddr,
    source: io::Error,
}

impl BindError {
    /// An error of listening on `addr`.
    pub fn new(addr: ListenAddr, source: io::Error) -> Self {
        BindError { addr, source }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cure = match self.source.kind() {
            io::ErrorKind::AddrInUse => "another program has it; choose another port or address, or stop it",
            io::ErrorKind::PermissionDenied => {
                "this user may not; take a port from 1024 up or grant CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => "this machine has no such address; `ip addr` lists those it has",
            _ => "see server.host, server.port and server.listen",
        };
        write!(f, "cannot listen on {}: {} ({cure})", self.addr, self.source)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds every address of `server` that is not `given`, `workers` sockets each.
///
/// # Errors
/// The first address that cannot be had; all sockets made so far are closed again.
pub fn bind_all(server: &Server, workers: usize, given: &Given) -> Result<Vec<Bound>, BindError> {
    server
        .listen
        .iter()
        .map(|listen| {
            let bound = match &listen.addr {
                addr if given.has(addr) => Ok(Bound { addr: addr.clone(), sockets: Vec::new(), file: None }),
                ListenAddr::Tcp(addr) => bind_tcp(*addr, server, workers),
                ListenAddr::Unix(path) => bind_unix(path, server, workers),
            };
            bound.map_err(|source| BindError { addr: listen.addr.clone(), source })
        })
        .collect()
}

fn bind_tcp(addr: SocketAddr, server: &Server, workers: usize) -> io::Result<Bound> {
    let mut addr = addr;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = open_tcp(addr, server)?;
        if let Some(actual) = rustix::net::getsockname(&socket).ok().and_then(|a| SocketAddr::try_from(a).ok()) {
            addr = actual;
        }
        sockets.push(socket);
    }
    Ok(Bound { addr: ListenAddr::Tcp(addr), sockets, file: None })
}

/// One listening socket of the group of `addr`.
///
/// # Errors
/// What the system says.
pub fn open_tcp(addr: SocketAddr, server: &Server) -> io::Result<OwnedFd> {
    let socket = reserve_tcp(addr)?;
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    if let Some(name) = &server.congestion_control {
        socket.set_tcp_congestion(name.as_bytes())?;
    }
    socket.listen(backlog(server))?;
    Ok(socket.into())
}

/// An address of which it is sure that it can be listened on while this lives; nobody connects to it yet.
#[derive(Debug)]
pub struct Reserved {
    /// The real port where port 0 was asked for.
    pub addr: SocketAddr,
    _socket: Socket,
}

/// Makes sure of an address before all workers open it.
///
/// # Errors
/// That it can't be had, and why.
pub fn reserve(addr: SocketAddr) -> Result<Reserved, BindError> {
    let reserved = reserve_tcp(addr).and_then(|socket| {
        let actual = socket.local_addr()?.as_socket().unwrap_or(addr);
        Ok(Reserved { addr: actual, _socket: socket })
    });
    reserved.map_err(|source| BindError { addr: ListenAddr::Tcp(addr), source })
}

fn reserve_tcp(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if addr.is_ipv6() {
        // So that `[::]` and `0.0.0.0` can be listened on side by side.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// As [`open_unix`], beside a socket of our own that still listens there; [`SocketFile::take_place`] puts it in its place.
///
/// # Errors
/// That it can't be had, and why.
pub fn open_unix_beside(path: &Path, server: &Server) -> Result<(OwnedFd, Option<SocketFile>), BindError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let (socket, file) = open_unix(Path::new(&beside), server)?;
    Ok((socket, file.map(|file| file.meant_for(path))))
}

/// A listening Unix socket for all workers, and its file.
///
/// # Errors
/// That the path can't be had, and why.
pub fn open_unix(path: &Path, server: &Server) -> Result<(OwnedFd, Option<SocketFile>), BindError> {
    let opened = bind_unix(path, server, 1).and_then(|bound| {
        let socket = bound.sockets.into_iter().next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok((socket, bound.file))
    });
    opened.map_err(|source| BindError { addr: ListenAddr::Unix(path.to_owned()), source })
}

/// A listening socket of management: of this process alone, so that a second program on the port is told. Where `before`,
/// whose place it takes, is in its way, that one listens no more until [`listen_again`] is called.
///
/// # Errors
/// That the address can't be had, and why; `before` listens then.
pub fn open_management(addr: SocketAddr, before: Option<&TcpListener>) -> Result<TcpListener, BindError> {
    let opened = match before.filter(|before| is_in_the_way(before, addr)) {
        Some(before) => open_instead(addr, before),
        None => open_alone(addr),
    };
    opened.map(TcpListener::from).map_err(|source| BindError { addr: ListenAddr::Tcp(addr), source })
}

/// Whether both have the same port, and one of them has it on all addresses.
fn is_in_the_way(before: &TcpListener, addr: SocketAddr) -> bool {
    let has_all = |addr: SocketAddr| addr.ip().is_unspecified();
    let is_alike = |before: SocketAddr| before.port() == addr.port() && before.is_ipv4() == addr.is_ipv4();
    before.local_addr().is_ok_and(|before| is_alike(before) && has_all(before) != has_all(addr))
}

/// A socket that doesn't listen keeps its address, and shares it with who may use it again.
fn open_instead(addr: SocketAddr, before: &TcpListener) -> io::Result<Socket> {
    let place = before.local_addr()?;
    SockRef::from(before).shutdown(Shutdown::Both)?;
    open_alone(addr).or_else(|error| listen_again(before, place).and(Err(error)))
}

/// Undoes what [`open_management`] did to the socket before, which has its place at `place`; what it opened has to be
/// closed.
///
/// # Errors
/// That somebody else has taken the address meanwhile.
pub fn listen_again(before: &TcpListener, place: SocketAddr) -> io::Result<()> {
    let socket = SockRef::from(before);
    // A port that was not asked for by its number is lost meanwhile; any other one can't be bound again, and needn't be.
    match socket.bind(&place.into()) {
        Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
        _ => socket.listen(MANAGEMENT_BACKLOG),
    }
}

fn open_alone(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(MANAGEMENT_BACKLOG)?;
    Ok(socket)
}

fn backlog(server: &Server) -> i32 {
    server.backlog.min(i32::MAX as u32) as i32
}

fn bind_unix(path: &Path, server: &Server, workers: usize) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path, &socket)?;
    socket.listen(backlog(server))?;
    // Unix sockets have no reuse-port groups: the workers share one queue.
    let sockets = (0..workers).map(|_| socket.try_clone().map(OwnedFd::from)).collect::<io::Result<_>>()?;
    Ok(Bound { addr: ListenAddr::Unix(path.to_owned()), sockets, file: Some(file) })
}

/// Removes the socket file that an ended process left behind; leaves it when somebody still listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
    }
    // Without waiting for whoever listens there and accepts nobody.
    let knock = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    match knock.connect(&SockAddr::unix(path)?) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

/// A listening socket on a worker's event loop.
#[derive(Debug)]
pub struct Listener {
    fd: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Registers a listening socket with the current runtime.
    ///
    /// # Errors
    /// When the event loop cannot take it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Listener { fd: crate::sys::register_for_reading(fd)? })
    }

    /// Takes one connection. A peer without an IP address (a Unix socket) counts as 127.0.0.1.
    ///
    /// # Errors
    /// `EMFILE`/`ENFILE`/`ENOBUFS`/`ENOMEM` when the system has no room; a connection that was reset while it
    /// waited is skipped.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(OwnedFd, SocketAddr)>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match self.accept() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ready once somebody waits to be accepted, or listening ended. Asks the kernel: the cached readiness also tells of
    /// those who were accepted since.
    ///
    /// # Errors
    /// What the event loop or the socket says.
    pub fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            let mut listener = [PollFd::new(self.fd.get_ref(), PollFlags::IN)];
            match rustix::event::poll(&mut listener, Some(&AT_ONCE)) {
                Ok(0) => guard.clear_ready(),
                Ok(_) => return Poll::Ready(Ok(())),
                Err(Errno::INTR) => {}
                Err(e) => return Poll::Ready(Err(e.into())),
            }
        }
    }

    /// One attempt; see [`Listener::poll_accept`].
    ///
    /// # Errors
    /// `WouldBlock` when nobody waits, else as `poll_accept`.
    pub fn accept(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::acceptfrom_with(self.fd.get_ref().as_fd(), flags) {
                Ok((fd, peer)) => {
                    let peer = peer.and_then(|p| SocketAddr::try_from(p).ok());
                    let peer = peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
                    return Ok((fd, SocketAddr::new(peer.ip().to_canonical(), peer.port())));
                }
                // The network errors of a connection that is gone already (accept(2), "Error handling").
                Err(
                    Errno::INTR
                    | Errno::CONNABORTED
                    | Errno::NETDOWN
                    | Errno::PROTO
                    | Errno::NOPROTOOPT
                    | Errno::HOSTDOWN
                    | Errno::NONET
                    | Errno::HOSTUNREACH
                    | Errno::OPNOTSUPP
                    | Errno::NETUNREACH,
                ) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Takes backlog and congestion control from `server`; what is accepted from now on has the latter.
    ///
    /// # Errors
    /// When the system doesn't know the congestion control.
    pub fn retune(&self, server: &Server) -> io::Result<()> {
        let socket = SockRef::from(self.fd.get_ref());
        socket.listen(backlog(server))?;
        match &server.congestion_control {
            Some(name) if socket.domain()? != Domain::UNIX => socket.set_tcp_congestion(name.as_bytes()),
            _ => Ok(()),
        }
    }

    /// Of the group of this address, takes what comes in on `cpu`; `None`: anything. Nothing of a Unix socket comes in on
    /// a CPU.
    ///
    /// The kernel keeps to it since Linux 6.2, whatever the order in which the sockets of the group were opened; of several
    /// with the same CPU it chooses by hash, and where a CPU has none, among all.
    ///
    /// # Errors
    /// What the system says.
    pub fn steer(&self, cpu: Option<usize>) -> io::Result<()> {
        const ANY: u32 = u32::MAX;
        if SockRef::from(self.fd.get_ref()).domain()? == Domain::UNIX {
            return Ok(());
        }
        let cpu = cpu.and_then(|cpu| u32::try_from(cpu).ok()).unwrap_or(ANY);
        rustix::net::sockopt::set_socket_incoming_cpu(self.fd.get_ref(), cpu).map_err(io::Error::from)
    }

    /// Ends listening on the socket itself, also for copies of it in other tables. Empty the queue first.
    pub fn end(&self) {
        let _ = rustix::net::shutdown(self.fd.get_ref(), rustix::net::Shutdown::Both);
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(addr) => write!(f, "{addr}"),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.addr, if self.secure { " (TLS)" } else { "" })
    }
}
