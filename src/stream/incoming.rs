//! One request that came over HTTP/2, as a connection that carries HTTP/1.1: its body comes in, its answer goes out.
//!
//! Owns the two halves of an HTTP/2 stream and what of a read or a write could not go on yet: at most one DATA frame of
//! the request, and one send's worth of the answer. Never reads a socket (the connection's task does), never sees the
//! request's head (that was translated before), and sets no deadline.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::http::body::Source;
use crate::http::head::FieldTable;
use crate::http::parse::Asked;
use crate::http::translate::{self, Answer, Body, Opening};
use crate::limits::HTTP2_PROGRESS_BYTES_MIN;
use crate::stream::places::Place;

/// Framing of a chunk beside its data, in bytes: size, two line ends.
const CHUNK_BYTES_MAX: usize = 18 + 2;

/// One request stream.
#[derive(Debug)]
pub struct Incoming {
    request: RefCell<Request>,
    answer: RefCell<Reply>,
    /// What a close before the answer's end is called.
    closes_with: Cell<Reason>,
    place: Place,
}

/// What comes in.
#[derive(Debug)]
struct Request {
    stream: RecvStream,
    body: Body,
    /// Of a DATA frame, not handed on yet; its room in the window is given back as it is.
    unread: Bytes,
    /// The end of a body in chunks.
    tail: Bytes,
    trailers_max: usize,
    has_ended: bool,
}

/// What goes out.
#[derive(Debug)]
struct Reply {
    respond: SendResponse<Bytes>,
    /// Once the head is out.
    stream: Option<SendStream<Bytes>>,
    /// What came of a head that is not whole yet.
    partial: Vec<u8>,
    asked: Opening,
    stage: Stage,
    /// Bytes of body that wait for room in the window.
    unsent: Bytes,
    end: End,
    /// Where the parser puts fields; shared by the streams of a connection.
    fields: Rc<RefCell<FieldTable>>,
}

/// What is expected of the answer.
#[derive(Debug)]
enum Stage {
    Head,
    Body(Source),
    /// Bytes go through as they are.
    Tunnel,
    /// All of it was handed to the connection.
    Done,
}

/// What follows the bytes that wait.
#[derive(Debug)]
enum End {
    /// More of them.
    Open,
    /// The stream's end.
    Stream,
    /// Trailer fields, which end the stream.
    Trailers(HeaderMap),
}

fn broken(_: h2::Error) -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Incoming {
    /// A request stream of which the head was translated. `trailers_max`: bytes of its trailers at most, 32 added a field;
    /// with more of them it is reset.
    pub fn new(
        stream: RecvStream,
        respond: SendResponse<Bytes>,
        fields: Rc<RefCell<FieldTable>>,
        trailers_max: usize,
        place: Place,
    ) -> Incoming {
        let request = Request {
            stream,
            body: Body::None,
            unread: Bytes::new(),
            tail: Bytes::new(),
            trailers_max,
            has_ended: false,
        };
        let answer = Reply {
            respond,
            stream: None,
            partial: Vec::new(),
            asked: Opening { body: Body::None, is_head: false, websocket: None },
            stage: Stage::Head,
            unsent: Bytes::new(),
            end: End::Open,
            fields,
        };
        Incoming {
            request: RefCell::new(request),
            answer: RefCell::new(answer),
            closes_with: Cell::new(Reason::INTERNAL_ERROR),
            place,
        }
    }

    /// What was asked, as its head says.
    pub fn open(&self, opening: Opening) {
        let mut request = self.request.borrow_mut();
        request.body = opening.body;
        request.has_ended = opening.body == Body::None;
        self.answer.borrow_mut().asked = opening;
    }

    /// What was asked could not be translated: only an answer follows, without a body if it `is_head`.
    pub fn refuse(&self, is_head: bool) {
        self.open(Opening { body: Body::None, is_head, websocket: None });
    }

    /// Whether a 101 with this `Sec-WebSocket-Accept` proves that the key was understood, which stands in for the client's
    /// (RFC 6455, section 4.1).
    pub fn is_proven_by(&self, accept: &[u8]) -> bool {
        self.answer.borrow().asked.websocket.as_ref().is_some_and(|wanted| wanted.fits(accept))
    }

    /// Whether the stream ends with its head.
    pub fn is_end(&self) -> bool {
        self.request.borrow().stream.is_end_stream()
    }

    /// Reads what came of the body, in HTTP/1.1's framing. Behind its end it waits: there is no other request on this
    /// stream. Reads nothing more (0) only when a tunnel's client has ended its half.
    pub fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut request = self.request.borrow_mut();
        let n = match request.poll_fill(cx, buf) {
            Poll::Ready(Err(error)) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    self.close_with(Reason::ENHANCE_YOUR_CALM);
                }
                self.place.cut();
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Ok(n)) => n,
            Poll::Pending => return Poll::Pending,
        };
        if n > 0 || matches!(self.answer.borrow().stage, Stage::Tunnel) {
            return Poll::Ready(Ok(n));
        }
        drop(request);
        ready!(self.poll_cut(cx));
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }

    /// Ready once the client gave the stream up, or its connection is gone.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut answer = self.answer.borrow_mut();
        if matches!(answer.stage, Stage::Done) {
            return Poll::Pending;
        }
        let cut = match &mut answer.stream {
            Some(stream) => stream.poll_reset(cx),
            None => answer.respond.poll_reset(cx),
        };
        ready!(cut).ok();
        self.place.cut();
        Poll::Ready(())
    }

    /// Takes a piece of the answer, whole, while nothing of an earlier one waits.
    ///
    /// # Errors
    /// `WouldBlock` then; else that the stream is gone.
    pub fn send(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut answer = self.answer.borrow_mut();
        if !answer.unsent.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut bytes = std::mem::take(&mut answer.partial);
        bytes.reserve_exact(total);
        bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        answer.take(bytes)?;
        answer.push()?;
        // All that came with what waits stays in memory with it.
        self.place.hold(if answer.unsent.is_empty() { 0 } else { total });
        self.place.progressed();
        Ok(total)
    }

    /// See [`super::Stream::room`].
    pub fn room(&self) -> usize {
        self.place.room()
    }

    /// As [`Incoming::send`], after waiting for what an earlier one left.
    pub fn poll_send(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        Poll::Ready(self.send(bufs))
    }

    /// Bytes that wait for the client to make room, in steps: a client that makes room for a byte now and then makes no
    /// progress.
    pub fn unsent(&self) -> usize {
        self.answer.borrow().unsent.len().next_multiple_of(HTTP2_PROGRESS_BYTES_MIN)
    }

    /// Ready once the client's windows had room for all that was sent.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut answer = self.answer.borrow_mut();
        loop {
            answer.push()?;
            if answer.unsent.is_empty() {
                self.place.hold(0);
                return Poll::Ready(Ok(()));
            }
            let Some(stream) = &mut answer.stream else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// Ends our half of a tunnel.
    pub fn shutdown_write(&self) {
        let mut answer = self.answer.borrow_mut();
        if matches!(answer.stage, Stage::Tunnel) {
            answer.end = End::Stream;
            // Nobody is left to be told that the stream is gone.
            let _ = answer.push();
        }
    }

    /// What the client is told when the answer stays without an end.
    pub fn close_with(&self, reason: Reason) {
        self.closes_with.set(reason);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Whether the client gave it up is asked: that a backend broke an answer off is none of his doing.
        let _ = self.poll_cut(&mut Context::from_waker(Waker::noop()));
        let mut answer = self.answer.borrow_mut();
        if !matches!(answer.stage, Stage::Done) {
            answer.respond.send_reset(self.closes_with.get());
        }
    }
}

impl Request {
    /// Fills `buf` with what there is; 0 behind the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut at = 0;
        loop {
            at += self.copy(&mut buf[at..]);
            if !self.unread.is_empty() || !self.tail.is_empty() || self.has_ended {
                return Poll::Ready(Ok(at));
            }
            match self.poll_more(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending if at > 0 => return Poll::Ready(Ok(at)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Fetches a DATA frame, or the end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            self.unread = data.map_err(broken)?;
            return Poll::Ready(Ok(()));
        }
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(broken)?;
        // The codec cuts a section short that is larger still, and does not say so.
        if trailers.as_ref().is_some_and(|trailers| translate::list_bytes(trailers) > self.trailers_max) {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        if self.body == Body::Chunked {
            let mut tail = Vec::new();
            translate::write_trailers(&mut tail, trailers.as_ref());
            self.tail = tail.into();
        }
        self.has_ended = true;
        Poll::Ready(Ok(()))
    }

    /// Hands on what fits, and gives the client as much room again.
    fn copy(&mut self, buf: &mut [u8]) -> usize {
        let framing = if self.body == Body::Chunked { CHUNK_BYTES_MAX } else { 0 };
        let n = self.unread.len().min(buf.len().saturating_sub(framing));
        let mut at = 0;
        if n > 0 {
            at = self.copy_data(n, buf);
            // Fails only for a stream that is gone, whose room is given back with it.
            let _ = self.stream.flow_control().release_capacity(n);
        }
        if self.unread.is_empty() && !self.tail.is_empty() {
            let n = self.tail.len().min(buf.len() - at);
            self.tail.copy_to_slice(&mut buf[at..at + n]);
            at += n;
        }
        at
    }

    fn copy_data(&mut self, n: usize, buf: &mut [u8]) -> usize {
        let mut room = [0; 18];
        let head = match self.body {
            Body::Chunked => crate::http::chunked::write_chunk_head(n as u64, &mut room),
            Body::None | Body::Identity => &[],
        };
        buf[..head.len()].copy_from_slice(head);
        let end = head.len() + n;
        self.unread.copy_to_slice(&mut buf[head.len()..end]);
        if head.is_empty() {
            return end;
        }
        buf[end..end + 2].copy_from_slice(b"\r\n");
        end + 2
    }
}

impl Reply {
    /// Takes what the proxy wrote for an HTTP/1.1 client.
    fn take(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        let mut used = 0;
        while matches!(self.stage, Stage::Head) && used < bytes.len() {
            match self.take_head(&bytes[used..])? {
                0 => {
                    self.partial = bytes.split_off(used);
                    return Ok(());
                }
                n => used += n,
            }
        }
        self.take_body(bytes, used)
    }

    /// One head; how many bytes it took, 0 while it is not whole.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fields = self.fields.clone();
        let mut fields = fields.borrow_mut();
        let asked = Asked { head: self.asked.is_head, upgrade: self.asked.websocket.is_some() };
        let read = translate::response_head(bytes, asked, &mut fields);
        let Some((answer, used)) = read.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))? else {
            return Ok(0);
        };
        match answer {
            Answer::Interim(response) => self.respond.send_informational(response).map_err(broken)?,
            Answer::Switched(response) => {
                self.stream = Some(self.respond.send_response(response, false).map_err(broken)?);
                self.stage = Stage::Tunnel;
            }
            Answer::Final(response, mut source) => {
                let is_whole = is_whole(&mut source, &bytes[used..]);
                let stream = self.respond.send_response(response, is_whole).map_err(broken)?;
                self.stream = Some(stream);
                self.stage = if is_whole { Stage::Done } else { Stage::Body(source) };
            }
        }
        Ok(used)
    }

    fn take_body(&mut self, mut bytes: Vec<u8>, used: usize) -> io::Result<()> {
        match &mut self.stage {
            Stage::Tunnel => {
                self.unsent = Bytes::from(bytes);
                self.unsent.advance(used);
            }
            Stage::Body(source) => {
                let mut trailers = Vec::new();
                let taken = source.take(&mut bytes[used..], &mut trailers);
                let piece = taken.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
                if source.is_done() {
                    self.end = end(&trailers)?;
                }
                self.unsent = Bytes::from(bytes).slice(used + piece.data.start..used + piece.data.end);
            }
            Stage::Head | Stage::Done => {}
        }
        Ok(())
    }

    /// Hands on what the windows have room for, and the end behind the last of it.
    fn push(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            if stream.capacity() == 0 {
                stream.reserve_capacity(self.unsent.len());
            }
            let n = stream.capacity().min(self.unsent.len());
            if n == 0 {
                return Ok(());
            }
            let piece = self.unsent.split_to(n);
            let is_last = self.unsent.is_empty() && matches!(self.end, End::Stream);
            stream.send_data(piece, is_last).map_err(broken)?;
            if is_last {
                self.end = End::Open;
                self.stage = Stage::Done;
            }
        }
        match std::mem::replace(&mut self.end, End::Open) {
            End::Open => return Ok(()),
            End::Stream => stream.send_data(Bytes::new(), true).map_err(broken)?,
            End::Trailers(trailers) => stream.send_trailers(trailers).map_err(broken)?,
        }
        self.stage = Stage::Done;
        Ok(())
    }
}

/// Whether an answer ends with its head: there is no body, or what came with the head is the end of an empty one.
fn is_whole(source: &mut Source, rest: &[u8]) -> bool {
    match source {
        Source::Done => true,
        Source::Chunked(_) => rest == crate::http::chunked::LAST_CHUNK,
        Source::Length(_) | Source::UntilClose => false,
    }
}

fn end(trailers: &[u8]) -> io::Result<End> {
    if trailers.is_empty() {
        return Ok(End::Stream);
    }
    let read = translate::read_trailers(trailers);
    Ok(End::Trailers(read.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?))
}
