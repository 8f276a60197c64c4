//! Listening sockets: bound by main for every worker, accepted from by the worker they were made for.
//!
//! Owns how a listening socket is set up and how one connection is taken from it. Never counts connections and never
//! decides whether one more is wanted.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

use crate::config::plan::{ListenAddr, Server};

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// One address with a listening socket for each worker.
#[derive(Debug)]
pub struct Bound {
    /// As bound: the real port where port 0 was asked for.
    pub addr: ListenAddr,
    /// One per worker, in order.
    pub sockets: Vec<OwnedFd>,
    /// Of a Unix socket.
    pub file: Option<SocketFile>,
}

/// The file of a Unix socket; removed on drop, unless another process has put its own there meanwhile.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, which nobody else gets while the socket is open.
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
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

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cure = match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program has it; choose another server.port or listen address, or stop it"
            }
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

/// Binds every address of `server`, `workers` sockets each.
///
/// # Errors
/// The first address that cannot be had; all sockets made so far are closed again.
pub fn bind_all(server: &Server, workers: usize) -> Result<Vec<Bound>, BindError> {
    server
        .listen
        .iter()
        .map(|addr| {
            let bound = match addr {
                ListenAddr::Tcp(addr) => bind_tcp(*addr, server, workers),
                ListenAddr::Unix(path) => bind_unix(path, server, workers),
            };
            bound.map_err(|source| BindError { addr: addr.clone(), source })
        })
        .collect()
}

fn bind_tcp(addr: SocketAddr, server: &Server, workers: usize) -> io::Result<Bound> {
    let mut addr = addr;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if addr.is_ipv6() {
            // So that `[::]` and `0.0.0.0` can be listened on side by side.
            socket.set_only_v6(true)?;
        }
        // Accepted sockets inherit both.
        socket.set_tcp_nodelay(true)?;
        if let Some(name) = &server.congestion_control {
            socket.set_tcp_congestion(name.as_bytes())?;
        }
        socket.bind(&addr.into())?;
        socket.listen(server.backlog.min(i32::MAX as u32) as i32)?;
        if let Some(actual) = socket.local_addr()?.as_socket() {
            addr = actual;
        }
        sockets.push(socket.into());
    }
    Ok(Bound { addr: ListenAddr::Tcp(addr), sockets, file: None })
}

fn bind_unix(path: &Path, server: &Server, workers: usize) -> io::Result<Bound> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    socket.listen(server.backlog.min(i32::MAX as u32) as i32)?;
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
    match std::os::unix::net::UnixStream::connect(path) {
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
