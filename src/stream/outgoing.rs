//! One request on an HTTP/2 connection to a backend, in the shape of a connection: it takes the bytes of one HTTP/1.1
//! request as our writers made them, and yields the bytes of one HTTP/1.1 answer.
//!
//! Owns both directions of one stream and what of them waits: at most one write's worth of the request, and one frame of
//! the answer. Never retries, never sets a deadline. Dropped before both sides ended, it resets the stream.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker, ready};

use ::h2::client::ResponseFuture;
use ::h2::{Reason as Code, RecvStream, SendStream};
use bytes::Bytes;
use http::HeaderMap;

use super::trunk::Place;
use crate::error::{Fault, Reason};
use crate::http::body::Source;
use crate::http::chunked::{CHUNK_END, write_chunk_head, write_last_chunk};
use crate::http::translate;
use crate::http::translate::request_out::{self, Carriage, Content};
use crate::http::translate::response_in::{self, Asked, Body};
use crate::limits::RESPONSE_HEAD_BYTES_MAX;

/// One exchange with a backend over HTTP/2.
#[derive(Debug)]
pub struct Outgoing {
    inner: RefCell<Inner>,
    over_tls: bool,
    // Behind `inner`: the stream is reset before its place is free.
    place: Place,
}

#[derive(Debug)]
struct Inner {
    up: Up,
    down: Down,
    /// Bytes of the answer that did not fit the reader's buffer.
    overflow: Vec<u8>,
}

/// The request on its way.
#[derive(Debug)]
enum Up {
    /// Its head is not whole.
    Head(Vec<u8>),
    Body(Box<Upward>),
}

#[derive(Debug)]
struct Upward {
    stream: SendStream<Bytes>,
    source: Source,
    is_tunnel: bool,
    /// What the backend's window has no room for.
    waiting: Bytes,
    trailers: Vec<u8>,
    is_last: bool,
    is_ended: bool,
}

/// The answer on its way.
#[derive(Debug)]
enum Down {
    /// Nothing was asked.
    Unasked,
    Head(Box<Awaited>),
    Body(Downward),
    /// All of it was taken.
    Done,
    /// It broke.
    Failed(Fault),
}

#[derive(Debug)]
struct Awaited {
    answer: ResponseFuture,
    /// What a client who asks to switch protocols gets as proof.
    accept: Option<String>,
    is_head: bool,
}

#[derive(Debug)]
struct Downward {
    stream: RecvStream,
    body: Body,
    /// The last bytes of an answer of known length, held until the backend said that it ended: else whoever takes them
    /// for the end would reset a stream that is about to end well.
    held: Bytes,
}

/// Where the bytes of an answer go: into the reader's buffer, and what doesn't fit behind it.
struct Room<'a> {
    buf: &'a mut [u8],
    len: usize,
    overflow: &'a mut Vec<u8>,
}

impl Room<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.buf.len() - self.len);
        self.buf[self.len..self.len + fits].copy_from_slice(&bytes[..fits]);
        self.len += fits;
        self.overflow.extend_from_slice(&bytes[fits..]);
    }

    fn is_full(&self) -> bool {
        self.len == self.buf.len()
    }
}

impl Outgoing {
    /// An exchange over the connection that `place` is on.
    pub fn new(place: Place, over_tls: bool) -> Outgoing {
        let inner = Inner { up: Up::Head(Vec::new()), down: Down::Unasked, overflow: Vec::new() };
        Outgoing { inner: RefCell::new(inner), over_tls, place }
    }

    /// One attempt to read; 0 is the answer's end.
    ///
    /// # Errors
    /// `WouldBlock`, or as [`Outgoing::poll_recv`].
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.poll_recv(&mut Context::from_waker(Waker::noop()), buf) {
            Poll::Ready(read) => read,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads bytes of the answer; 0 is its end. An error that the backend is to blame for holds a [`Fault`].
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.inner.borrow_mut();
        if !inner.overflow.is_empty() {
            let n = inner.overflow.len().min(buf.len());
            buf[..n].copy_from_slice(&inner.overflow[..n]);
            inner.overflow.drain(..n);
            return Poll::Ready(Ok(n));
        }
        let mut room = Room { buf, len: 0, overflow: &mut inner.overflow };
        while !room.is_full() {
            match inner.down.poll(cx, &mut room) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(room.len)),
                Poll::Ready(Err(fault)) => {
                    if fault.reason == Reason::BackendRefused && !matches!(inner.down, Down::Failed(_)) {
                        self.place.refused();
                    }
                    inner.down = Down::Failed(fault);
                    // What came before is told first.
                    return Poll::Ready(if room.len > 0 { Ok(room.len) } else { Err(io::Error::other(fault)) });
                }
                Poll::Pending if room.len > 0 => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(room.len))
    }

    /// One attempt to take all of `bufs`.
    ///
    /// # Errors
    /// `WouldBlock` while anything waits that was taken before; else that the backend takes no more.
    pub fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.poll_send(&mut Context::from_waker(Waker::noop()), bufs) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Takes all of `bufs` once nothing waits any more that was taken before.
    pub fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let inner = &mut *self.inner.borrow_mut();
        let len = bufs.iter().map(|buf| buf.len()).sum();
        match &mut inner.up {
            Up::Head(head) => {
                bufs.iter().for_each(|buf| head.extend_from_slice(buf));
                let head = std::mem::take(head);
                if let Err(fault) = inner.ask(head, self.over_tls, &self.place) {
                    inner.down = Down::Failed(fault);
                    return Poll::Ready(Err(io::Error::other(fault)));
                }
            }
            Up::Body(body) => {
                let mut bytes = Vec::with_capacity(len);
                bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
                body.take(bytes).map_err(io::Error::other)?;
                body.push()?;
            }
        }
        Poll::Ready(Ok(len))
    }

    /// Bytes of the request that the backend's window has no room for.
    pub fn unsent(&self) -> usize {
        match &self.inner.borrow().up {
            Up::Head(_) => 0,
            Up::Body(body) => body.waiting.len(),
        }
    }

    /// Ready when no byte of the request waits for the backend's window.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner.borrow_mut().up {
            Up::Head(_) => Poll::Ready(Ok(())),
            Up::Body(body) => body.poll_flush(cx),
        }
    }

    /// Ends our side of a tunnel.
    pub fn shutdown_write(&self) {
        if let Up::Body(body) = &mut self.inner.borrow_mut().up
            && body.is_tunnel
        {
            body.is_last = true;
            // Whoever reads sees what is wrong.
            let _ = body.push();
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if matches!(self.inner.get_mut().down, Down::Head(_)) {
            self.place.given_up();
        }
    }
}

impl Inner {
    /// Makes the request, once its head is whole.
    fn ask(&mut self, mut bytes: Vec<u8>, over_tls: bool, place: &Place) -> Result<(), Fault> {
        let mut sender = place.sender();
        let carriage = Carriage { over_tls, has_extended_connect: sender.is_extended_connect_protocol_enabled() };
        let Some((outbound, used)) = request_out::take(&bytes, carriage)? else {
            self.up = Up::Head(bytes);
            return Ok(());
        };
        let (source, accept) = match outbound.content {
            Content::Body(source) => (source, None),
            Content::Tunnel { key } => (Source::Done, Some(translate::accept_for(&key))),
        };
        let is_tunnel = accept.is_some();
        let is_whole = source.is_done() && !is_tunnel;
        let (answer, stream) = sender.send_request(outbound.request, is_whole).map_err(|e| fault_of(&e))?;
        place.asked();
        let awaited = Awaited { answer, accept, is_head: outbound.is_head };
        self.down = Down::Head(Box::new(awaited));
        let mut body = Upward {
            stream,
            source,
            is_tunnel,
            waiting: Bytes::new(),
            trailers: Vec::new(),
            is_last: is_whole,
            is_ended: is_whole,
        };
        bytes.drain(..used);
        let pushed = body.take(bytes).map(|()| body.push());
        self.up = Up::Body(Box::new(body));
        // That the backend takes no more is no fault by itself: it may have answered.
        pushed.map(|_| ())
    }
}

impl Upward {
    /// Takes the framing of HTTP/1.1 off `bytes`. Nothing waits meanwhile.
    fn take(&mut self, mut bytes: Vec<u8>) -> Result<(), Fault> {
        if self.is_tunnel {
            self.waiting = Bytes::from(bytes);
            return Ok(());
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let piece = self.source.take(&mut bytes, &mut self.trailers)?;
        self.is_last = self.source.is_done();
        self.waiting = Bytes::from(bytes).slice(piece.data);
        Ok(())
    }

    /// Hands on what the backend's window and the connection have room for.
    fn push(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            self.stream.reserve_capacity(self.waiting.len());
            let room = self.stream.capacity().min(self.waiting.len());
            if room == 0 {
                return Ok(());
            }
            let data = self.waiting.split_to(room);
            let is_end = self.is_last && self.waiting.is_empty() && self.trailers.is_empty();
            self.stream.send_data(data, is_end).map_err(broken_pipe)?;
            self.is_ended |= is_end;
        }
        if !self.is_last || std::mem::replace(&mut self.is_ended, true) {
            return Ok(());
        }
        if self.trailers.is_empty() {
            return self.stream.send_data(Bytes::new(), true).map_err(broken_pipe);
        }
        let trailers = request_out::trailers(&self.trailers).map_err(io::Error::other)?;
        self.stream.send_trailers(trailers).map_err(broken_pipe)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            self.push()?;
            if !self.waiting.is_empty() {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(broken_pipe(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn broken_pipe(error: ::h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

impl Down {
    /// One step: puts bytes of the answer into `room` and says whether more may follow.
    fn poll(&mut self, cx: &mut Context<'_>, room: &mut Room<'_>) -> Poll<Result<bool, Fault>> {
        match self {
            Down::Unasked => Poll::Pending,
            Down::Done => Poll::Ready(Ok(false)),
            Down::Failed(fault) => Poll::Ready(Err(*fault)),
            Down::Head(awaited) => {
                if let Some(body) = ready!(awaited.poll(cx, room))? {
                    *self = Down::Body(body);
                }
                Poll::Ready(Ok(true))
            }
            Down::Body(body) => {
                if !ready!(body.poll(cx, room))? {
                    *self = Down::Done;
                }
                Poll::Ready(Ok(true))
            }
        }
    }
}

impl Awaited {
    /// Writes one head. The final one comes with its body.
    fn poll(&mut self, cx: &mut Context<'_>, room: &mut Room<'_>) -> Poll<Result<Option<Downward>, Fault>> {
        let mut out = Vec::with_capacity(1024);
        if let Some(interim) = ready!(self.answer.poll_informational(cx)) {
            let (parts, ()) = interim.map_err(|e| fault_of(&e))?.into_parts();
            response_in::write_interim(&mut out, &parts)?;
            room.put(&out);
            return Poll::Ready(Ok(None));
        }
        let answer = ready!(std::pin::Pin::new(&mut self.answer).poll(cx)).map_err(|e| fault_of(&e))?;
        let (parts, stream) = answer.into_parts();
        check_size(&parts.headers)?;
        let asked = match &self.accept {
            Some(accept) => Asked::Tunnel { accept },
            None => Asked::Answer { is_head: self.is_head },
        };
        let body = response_in::write_head(&mut out, &parts, asked, stream.is_end_stream())?;
        let mut downward = Downward { stream, body, held: Bytes::new() };
        if body == Body::Length(0) {
            downward.held = Bytes::from(out);
        } else {
            room.put(&out);
        }
        Poll::Ready(Ok(Some(downward)))
    }
}

impl Downward {
    /// Takes one frame; false at the end.
    fn poll(&mut self, cx: &mut Context<'_>, room: &mut Room<'_>) -> Poll<Result<bool, Fault>> {
        let Some(data) = ready!(self.stream.poll_data(cx)) else {
            return self.poll_end(cx, room).map_ok(|()| false);
        };
        let data = data.map_err(|e| fault_of(&e))?;
        // All of it leaves, but for at most one frame that is held.
        let _ = self.stream.flow_control().release_capacity(data.len());
        match &mut self.body {
            _ if data.is_empty() => {}
            Body::Tunnel => room.put(&data),
            Body::Chunked => {
                room.put(write_chunk_head(data.len() as u64, &mut [0; 18]));
                room.put(&data);
                room.put(CHUNK_END);
            }
            Body::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(response_in::LONG)?;
                if *left == 0 {
                    self.held = data;
                } else {
                    room.put(&data);
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, room: &mut Room<'_>) -> Poll<Result<(), Fault>> {
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|e| fault_of(&e))?;
        trailers.as_ref().map_or(Ok(()), check_size)?;
        match self.body {
            Body::Length(0) => room.put(&self.held),
            Body::Length(_) => return Poll::Ready(Err(response_in::SHORT)),
            Body::Chunked => {
                let (mut lines, mut out) = (Vec::new(), Vec::new());
                trailers.iter().for_each(|trailers| response_in::write_trailers(&mut lines, trailers));
                write_last_chunk(&mut out, &lines);
                room.put(&out);
            }
            Body::Tunnel => {}
        }
        Poll::Ready(Ok(()))
    }
}

/// The codec reads more than is let through, as it cuts trailers short that are larger still, and does not say so.
fn check_size(fields: &HeaderMap) -> Result<(), Fault> {
    if translate::list_bytes(fields) <= RESPONSE_HEAD_BYTES_MAX {
        return Ok(());
    }
    Err(Fault::new(Reason::BackendProtocol, "the backend's field list is larger than 64 KiB (RFC 9113 6.5.2)"))
}

/// A GOAWAY (RFC 9113, section 6.8) that came before the backend looked at the request: any other connection will do.
pub const LEFT_OUT: Fault = Fault::new(Reason::BackendRefused, "the backend's GOAWAY left the request out");
/// The backend ended this stream and no other: its connection is as good as before.
pub const RESET: Fault = Fault::new(Reason::BackendClosed, "the backend reset the stream");

/// What a broken stream is called. A backend that said that it did not begin with it can be asked again whatever was asked
/// (RFC 9113, section 8.7).
fn fault_of(error: &::h2::Error) -> Fault {
    if error.is_remote() && error.is_go_away() {
        return LEFT_OUT;
    }
    if error.is_remote() && error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM) {
        return Reason::BackendRefused.into();
    }
    match (error.is_io(), error.is_remote()) {
        (true, _) => Reason::BackendClosed.into(),
        (false, true) => RESET,
        (false, false) => Fault::new(Reason::BackendProtocol, "the backend broke HTTP/2 (RFC 9113 5.4)"),
    }
}
