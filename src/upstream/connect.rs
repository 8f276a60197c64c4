//! Opening one connection to one address of a backend.
//!
//! Owns the non-blocking connect. Never resolves names, never retries, and leaves the deadline to its caller, who drops
//! the future.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::stream::{self, Stream};

/// Where to connect to.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix(&'a Path),
}

/// Connects, from `local` if given (with the port left to the kernel until the connect, so that one local address
/// serves 64k connections to each backend and not 64k in all).
///
/// # Errors
/// What the socket says: refused, unreachable, `EMFILE`, `EADDRNOTAVAIL` when the ports of `local` are used up.
pub async fn connect(peer: Peer<'_>, local: Option<IpAddr>) -> io::Result<Stream> {
    let socket = stream::Socket::new(start(peer, local)?)?;
    poll_fn(|cx| socket.poll_writable(cx)).await?;
    socket.take_error()?;
    Ok(Stream::Socket(socket))
}

fn start(peer: Peer<'_>, local: Option<IpAddr>) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let (socket, addr) = match peer {
        Peer::Tcp(addr) => {
            let socket = Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            if let Some(local) = local.filter(|local| local.is_ipv4() == addr.is_ipv4()) {
                crate::sys::bind_without_port(&socket)?;
                socket.bind(&SocketAddr::new(local, 0).into())?;
            }
            (socket, SockAddr::from(addr))
        }
        Peer::Unix(path) => (Socket::new(Domain::UNIX, kind, None)?, SockAddr::unix(path)?),
    };
    match socket.connect(&addr) {
        Ok(()) => Ok(socket.into()),
        Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok(socket.into()),
        Err(e) => Err(e),
    }
}
