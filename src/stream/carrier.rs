//! A connection of the data path as the HTTP/2 codec wants it.
//!
//! Owns the shape only: each call is one call of the connection's. Never buffers.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;

/// Most bytes one read asks for: a frame of usual size and its head. The room has to be filled with zeros first.
const READ_BYTES_MAX: usize = 16 * 1024 + 9;

/// A connection that carries the frames of HTTP/2.
#[derive(Debug)]
pub struct Carrier {
    stream: Stream,
    /// Reads that brought something.
    heard: Rc<Cell<u64>>,
}

impl Carrier {
    /// Counts in `heard` how often something comes.
    pub fn new(stream: Stream, heard: Rc<Cell<u64>>) -> Carrier {
        Carrier { stream, heard }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = buf.remaining().min(READ_BYTES_MAX);
        let read = std::task::ready!(self.stream.poll_recv(cx, buf.initialize_unfilled_to(room)))?;
        buf.advance(read);
        self.heard.set(self.heard.get() + 1);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_send(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.stream.poll_flush(cx))?;
        self.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}
