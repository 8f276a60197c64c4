//! One side's connection as the data path sees it: bytes in, bytes out, whatever they travel in.
//!
//! Owns the choice between the kinds of connections, and nothing else: each kind is a file of its own. Never interprets a
//! byte and never sets a deadline.

mod carrier;
mod incoming;
mod outgoing;
pub mod places;
mod pulse;
mod secured;
mod socket;
mod trunk;
mod waiters;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

pub use incoming::Incoming;
pub use outgoing::{LEFT_OUT, Outgoing, RESET};
pub use secured::{Idle, Room, Secured, SessionFacts, Shaken};
pub use socket::Socket;
pub use trunk::{Place, Trunk};
pub use waiters::{Waiters, Waiting};

use crate::limits::SCRATCH_BYTES;

/// A connection of the data path.
#[derive(Debug)]
pub enum Stream {
    /// A socket: what is sent is what the peer gets.
    Socket(Socket),
    /// TLS over a socket.
    Secured(Secured),
    /// One request of a client that speaks HTTP/2.
    Incoming(Box<Incoming>),
    /// One request to a backend over an HTTP/2 connection that others share.
    Outgoing(Box<Outgoing>),
}

impl Stream {
    /// A plain connection over a non-blocking socket, registered with the current runtime.
    ///
    /// # Errors
    /// When the event loop cannot take it (`ENOMEM`, `ENOSPC` of epoll watches).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Socket::new(fd).map(Stream::Socket)
    }

    /// Takes the connection off the event loop, as plain data and what TLS has to remember; `None` for what can't leave it.
    pub fn into_parts(self) -> Option<(OwnedFd, Option<Idle>)> {
        match self {
            Stream::Socket(socket) => Some((socket.into_fd(), None)),
            Stream::Secured(secured) => {
                let (fd, idle) = secured.into_parts();
                Some((fd, Some(idle)))
            }
            Stream::Incoming(_) | Stream::Outgoing(_) => None,
        }
    }

    /// Puts it together again, registered with the current runtime.
    ///
    /// # Errors
    /// When the event loop cannot take it.
    pub fn from_parts(fd: OwnedFd, idle: Option<Idle>) -> io::Result<Self> {
        let socket = Socket::new(fd)?;
        Ok(match idle {
            None => Stream::Socket(socket),
            Some(idle) => Stream::Secured(Secured::resume(socket, idle)),
        })
    }

    /// One attempt to read; 0 is the peer's end.
    ///
    /// # Errors
    /// `WouldBlock`, or what the connection says.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => socket.recv(buf),
            Stream::Secured(secured) => secured.recv(buf),
            Stream::Incoming(_) => Err(io::ErrorKind::WouldBlock.into()),
            Stream::Outgoing(outgoing) => outgoing.recv(buf),
        }
    }

    /// Reads into `buf`, which is (a part of) a worker's scratch; 0 is the peer's end. Registers the task when there is
    /// nothing to read.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Socket(socket) => socket.poll_recv(cx, buf),
            Stream::Secured(secured) => secured.poll_recv(cx, buf),
            Stream::Incoming(stream) => stream.poll_recv(cx, buf),
            Stream::Outgoing(outgoing) => outgoing.poll_recv(cx, buf),
        }
    }

    /// Whether something (bytes, the end, an error) is known to wait. Registers the task otherwise. Makes no system
    /// call, so it may say yes to what was read since.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Socket(socket) => socket.poll_readable(cx),
            Stream::Secured(secured) => secured.poll_readable(cx),
            Stream::Incoming(_) => Poll::Ready(Ok(())),
            Stream::Outgoing(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ready while the peer is known to take what is sent; registers the task otherwise. Makes no system call.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Socket(socket) => socket.poll_writable(cx),
            Stream::Secured(secured) => secured.poll_writable(cx),
            Stream::Incoming(_) | Stream::Outgoing(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether nothing has come since the last read: a kept-alive connection for which this is false is not fit for
    /// another request.
    pub fn is_quiet(&self) -> bool {
        match self {
            Stream::Socket(socket) => socket.is_quiet(),
            Stream::Secured(secured) => secured.is_quiet(),
            Stream::Incoming(_) => false,
            // It is one exchange's alone.
            Stream::Outgoing(_) => false,
        }
    }

    /// Whom the connection leads to, by a system call; `None` for Unix sockets, and for one exchange of a shared connection.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Stream::Socket(socket) => socket.peer(),
            Stream::Secured(secured) => secured.peer(),
            Stream::Incoming(_) | Stream::Outgoing(_) => None,
        }
    }

    /// Whether it carries one exchange and no other after it, so that it is not to be kept.
    pub fn is_spent(&self) -> bool {
        matches!(self, Stream::Outgoing(_))
    }

    /// One attempt to write all of `bufs`. What was taken may wait in the connection still: see [`Stream::poll_flush`].
    ///
    /// # Errors
    /// `WouldBlock`, or what the connection says; never raises `SIGPIPE`.
    pub fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Socket(socket) => socket.send(bufs),
            Stream::Secured(secured) => secured.send(bufs),
            Stream::Incoming(stream) => stream.send(bufs),
            Stream::Outgoing(outgoing) => outgoing.send(bufs),
        }
    }

    /// Writes what fits of `bufs`. Tries at once, without asking for readiness first: most writes fit.
    pub fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Socket(socket) => socket.poll_send(cx, bufs),
            Stream::Secured(secured) => secured.poll_send(cx, bufs),
            Stream::Incoming(stream) => stream.poll_send(cx, bufs),
            Stream::Outgoing(outgoing) => outgoing.poll_send(cx, bufs),
        }
    }

    /// Ready once the peer gave up what this carries, where that can be seen without reading what it sent before.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Socket(_) | Stream::Secured(_) | Stream::Outgoing(_) => Poll::Pending,
            Stream::Incoming(stream) => stream.poll_cut(cx),
        }
    }

    /// How many bytes a read should bring at most that is made to be sent here: more would only wait.
    pub fn room(&self) -> usize {
        match self {
            Stream::Socket(_) | Stream::Secured(_) | Stream::Outgoing(_) => SCRATCH_BYTES,
            Stream::Incoming(stream) => stream.room(),
        }
    }

    /// How many bytes were taken by a send and wait in the connection itself, for the peer to make room.
    pub fn unsent(&self) -> usize {
        match self {
            Stream::Socket(_) => 0,
            Stream::Secured(secured) => secured.unsent(),
            Stream::Incoming(stream) => stream.unsent(),
            Stream::Outgoing(outgoing) => outgoing.unsent(),
        }
    }

    /// Ready when nothing waits in the connection any more.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Socket(_) => Poll::Ready(Ok(())),
            Stream::Secured(secured) => secured.poll_flush(cx),
            Stream::Incoming(stream) => stream.poll_flush(cx),
            Stream::Outgoing(outgoing) => outgoing.poll_flush(cx),
        }
    }

    /// What is known of its TLS session, once there is one.
    pub fn session(&self) -> Option<Rc<SessionFacts>> {
        match self {
            Stream::Socket(_) | Stream::Incoming(_) | Stream::Outgoing(_) => None,
            Stream::Secured(secured) => secured.facts(),
        }
    }

    /// Tells the peer in the connection's own terms that no more comes; the connection itself stays as it is.
    pub fn say_end(&self) {
        match self {
            Stream::Socket(_) | Stream::Incoming(_) | Stream::Outgoing(_) => {}
            Stream::Secured(secured) => secured.say_end(),
        }
    }

    /// Sends the end of our side; errors do not matter, as the connection is closed soon after.
    pub fn shutdown_write(&self) {
        match self {
            Stream::Socket(socket) => socket.shutdown_write(),
            Stream::Secured(secured) => secured.shutdown_write(),
            Stream::Incoming(stream) => stream.shutdown_write(),
            Stream::Outgoing(outgoing) => outgoing.shutdown_write(),
        }
    }

    /// Makes the coming close a reset instead of an orderly end, so that a cut answer can't be taken for a whole one.
    pub fn reset_on_close(&self) {
        match self {
            Stream::Socket(socket) => socket.reset_on_close(),
            Stream::Secured(secured) => secured.reset_on_close(),
            Stream::Incoming(stream) => stream.close_with(h2::Reason::CANCEL),
            // Dropped before its end, it is reset as it is.
            Stream::Outgoing(_) => {}
        }
    }
}
