//! A connected socket, TCP or Unix, on the worker's event loop.
//!
//! Owns one descriptor and its registration. Never buffers, never interprets a byte, never sets a deadline. Reads clear
//! the cached readiness when they come back short, so that a kept-alive exchange needs no call that only says "not yet".

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::unix::AsyncFd;

/// A non-blocking socket registered with the current runtime.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
}

impl Socket {
    /// Registers a non-blocking socket.
    ///
    /// # Errors
    /// When the event loop cannot take it (`ENOMEM`, `ENOSPC` of epoll watches).
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Socket { fd: crate::sys::register(fd)? })
    }

    /// Takes the socket off the event loop.
    pub fn into_fd(self) -> OwnedFd {
        self.fd.into_inner()
    }

    /// One attempt to read; 0 is the peer's end.
    ///
    /// # Errors
    /// `WouldBlock`, or what the socket says.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        recv(self.fd.get_ref(), buf)
    }

    /// Reads into `buf`; 0 is the peer's end. Registers the task when there is nothing to read.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            match recv(self.fd.get_ref(), buf) {
                Ok(n) => {
                    // A short read emptied the socket: what comes later is a new edge. The end stays readable.
                    if n > 0 && n < buf.len() {
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    /// Whether something (bytes, the end, an error) is known to wait. Registers the task otherwise. Makes no system
    /// call, so it may say yes to what was read since.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_read_ready(cx).map_ok(|_| ())
    }

    /// Whether the event loop has not seen a byte, an end or an error since the last short read: a kept-alive
    /// connection for which this is false is not fit for another request. Makes no system call.
    pub fn is_quiet(&self) -> bool {
        self.fd.try_io(tokio::io::Interest::READABLE, |_| Ok(())).is_err()
    }

    /// One attempt to write all of `bufs`.
    ///
    /// # Errors
    /// `WouldBlock`, or what the socket says; never raises `SIGPIPE`.
    pub fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        send(self.fd.get_ref(), bufs)
    }

    /// Writes what fits of `bufs`. Tries at once, without asking for readiness first: most writes fit.
    pub fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            match self.send(bufs) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            // The cached readiness may be older than the attempt: clear it, and let the next edge set it.
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            guard.clear_ready();
            match self.send(bufs) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    /// Ready once the socket is writable or failed; for the end of a connect.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fd.poll_write_ready(cx).map_ok(|_| ())
    }

    /// The pending error of the socket, e.g. of a connect.
    ///
    /// # Errors
    /// That pending error.
    pub fn take_error(&self) -> io::Result<()> {
        match rustix::net::sockopt::socket_error(self.fd.get_ref()) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) | Err(e) => Err(e.into()),
        }
    }

    /// Whom it is connected to; `None` for Unix sockets.
    pub fn peer(&self) -> Option<SocketAddr> {
        rustix::net::getpeername(self.fd.get_ref()).ok()??.try_into().ok()
    }

    /// Sends the end of our side; errors do not matter, as the socket is closed soon after.
    pub fn shutdown_write(&self) {
        let _ = rustix::net::shutdown(self.fd.get_ref(), Shutdown::Write);
    }

    /// Makes the coming close a reset instead of an orderly end, so that a cut answer can't be taken for a whole one.
    pub fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(self.fd.get_ref(), Some(std::time::Duration::ZERO));
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().as_fd()
    }
}

fn recv(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::net::recv(fd, &mut *buf, RecvFlags::empty()) {
            Ok((_, n)) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn send(fd: &OwnedFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        let sent = match bufs {
            [one] => rustix::net::send(fd, one, SendFlags::NOSIGNAL),
            many => rustix::net::sendmsg(fd, many, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL),
        };
        match sent {
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
