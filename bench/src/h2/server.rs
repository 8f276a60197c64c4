//! The server's end of a connection: takes requests, and sends answers as the windows allow.
//!
//! Owns streams. Never decides what to answer.

use super::frame::{self, PREFACE, code, flag, kind, setting};
use super::link::{Item, Link, State};
use crate::http::Malformed;
use crate::http::request::{self, Ask, Framing, Request};
use std::rc::Rc;

/// Bytes that wait to be sent, at most, before further ones are made.
const OUT_BYTES_MAX: usize = 256 * 1024;
/// A gRPC request that is echoed is at most so large, in bytes.
const ECHO_BYTES_MAX: usize = 4 << 20;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole request, with its body when it is to be echoed.
    Asked(u32, Request, Vec<u8>),
    /// Nobody waits for this stream's answer any more.
    GivenUp(u32),
    /// A request that breaks the rules; its stream is reset.
    Malformed,
}

/// What is answered.
pub struct Answer {
    /// The block of its fields.
    pub head: Rc<Vec<u8>>,
    /// Its body.
    pub body: Rc<Vec<u8>>,
    /// The block of its trailers.
    pub trailers: Option<&'static [u8]>,
}

struct Call {
    stream: u32,
    /// Until it was reported.
    request: Option<Request>,
    /// Bytes of the request's body so far, kept only when it is to be echoed.
    got: u64,
    echo: Vec<u8>,
    window: i64,
    /// What of the answer's body is not sent yet, from this index on.
    answer: Option<(Answer, usize)>,
}

/// The server's end of one connection.
pub struct Server {
    link: Link,
    calls: Calls,
    /// How much of the preface came.
    preface: usize,
}

struct Calls {
    open: Vec<Call>,
    last: u32,
    streams_max: usize,
}

impl Server {
    /// One that allows so many streams at once.
    pub fn new(streams_max: u32) -> Server {
        let link = Link::new(b"", &[(setting::MAX_CONCURRENT_STREAMS, streams_max)]);
        Server { link, calls: Calls { open: Vec::new(), last: 0, streams_max: streams_max as usize }, preface: 0 }
    }

    /// What is to be sent; the caller takes from the front, then calls [`Server::pump`].
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.link.state.out
    }

    /// The streams that are not done.
    pub fn streams(&self) -> impl Iterator<Item = u32> {
        self.calls.open.iter().map(|call| call.stream)
    }

    /// Takes bytes as they came.
    ///
    /// # Errors
    /// When they break the rules of the connection.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Malformed> {
        let expected = &PREFACE[self.preface..];
        if !expected.is_empty() {
            let len = expected.len().min(bytes.len());
            if bytes[..len] != expected[..len] {
                return Err(Malformed("a preface that is none"));
            }
            self.preface += len;
            bytes = &bytes[len..];
        }
        let calls = &mut self.calls;
        self.link.feed(bytes, |state, item| calls.item(state, item, events))?;
        self.pump();
        Ok(())
    }

    /// Answers a request; nothing happens when it was given up.
    pub fn answer(&mut self, stream: u32, answer: Answer) {
        let Some(at) = self.calls.position(stream) else { return };
        let end = answer.body.is_empty() && answer.trailers.is_none();
        self.link.state.put_headers(stream, end, &answer.head);
        if end {
            self.calls.open.swap_remove(at);
            return;
        }
        self.calls.open[at].answer = Some((answer, 0));
        self.pump();
    }

    /// Gives a request up without an answer.
    pub fn reset(&mut self, stream: u32, code: u32) {
        if let Some(at) = self.calls.position(stream) {
            self.calls.open.swap_remove(at);
            frame::put_reset(self.out(), stream, code);
        }
    }

    /// Makes as much of the answers' bodies ready as windows allow: a frame of each in turn.
    pub fn pump(&mut self) {
        let state = &mut self.link.state;
        loop {
            let before = state.out.len();
            self.calls.open.retain_mut(|call| call.send(state));
            if state.out.len() == before || state.out.len() >= OUT_BYTES_MAX {
                return;
            }
        }
    }
}

impl Calls {
    fn position(&self, stream: u32) -> Option<usize> {
        self.open.iter().position(|call| call.stream == stream)
    }

    fn item(&mut self, state: &mut State, item: Item, events: &mut Vec<Event>) -> Result<(), Malformed> {
        match item {
            Item::Headers { stream, end, fields } if stream > self.last => {
                self.last = stream;
                if stream % 2 == 0 {
                    return Err(Malformed("a stream of the wrong parity"));
                }
                if self.open.len() >= self.streams_max {
                    events.push(Event::Malformed);
                    frame::put_reset(&mut state.out, stream, code::REFUSED_STREAM);
                    return Ok(());
                }
                let Ok(request) = request::from_fields(fields) else {
                    events.push(Event::Malformed);
                    frame::put_reset(&mut state.out, stream, code::PROTOCOL_ERROR);
                    return Ok(());
                };
                let window = state.peer.window;
                let call = Call { stream, request: Some(request), got: 0, echo: Vec::new(), window, answer: None };
                self.open.push(call);
                if end {
                    self.ended(self.open.len() - 1, state, events);
                }
            }
            Item::Headers { stream, end, .. } => {
                let Some(at) = self.position(stream) else { return Ok(()) };
                if !end {
                    return Err(Malformed("trailers that end nothing"));
                }
                self.ended(at, state, events);
            }
            Item::Data { stream, end, bytes } => {
                let Some(at) = self.position(stream) else { return Ok(()) };
                let call = &mut self.open[at];
                call.got += bytes.len() as u64;
                if call.request.as_ref().is_some_and(|r| r.ask == Ask::Grpc) && call.got <= ECHO_BYTES_MAX as u64 {
                    call.echo.extend_from_slice(bytes);
                }
                if end {
                    self.ended(at, state, events);
                }
            }
            Item::Reset { stream, .. } => {
                if let Some(at) = self.position(stream) {
                    self.open.swap_remove(at);
                    events.push(Event::GivenUp(stream));
                }
            }
            Item::GoAway { .. } => {}
            Item::Window { stream, by } => {
                for call in self.open.iter_mut().filter(|call| call.stream == stream) {
                    call.window += by;
                    if call.window > frame::WINDOW_BYTES_MAX {
                        return Err(Malformed("a window above its limit"));
                    }
                }
            }
            Item::Settings { window_change } => self.open.iter_mut().for_each(|call| call.window += window_change),
        }
        Ok(())
    }

    /// A request is whole.
    fn ended(&mut self, at: usize, state: &mut State, events: &mut Vec<Event>) {
        let call = &mut self.open[at];
        let Some(request) = call.request.take() else { return };
        if matches!(request.framing, Framing::Length(length) if length != call.got) {
            frame::put_reset(&mut state.out, call.stream, code::PROTOCOL_ERROR);
            self.open.swap_remove(at);
            return events.push(Event::Malformed);
        }
        events.push(Event::Asked(call.stream, request, std::mem::take(&mut call.echo)));
    }
}

impl Call {
    /// Makes the next frame of the answer ready; false when that was the last.
    fn send(&mut self, state: &mut State) -> bool {
        let Some((answer, sent)) = &mut self.answer else { return true };
        let left = answer.body.len() - *sent;
        let len = state.allowance(self.window, left);
        if left > 0 && len == 0 {
            return true;
        }
        let last = len == left;
        let flags = if last && answer.trailers.is_none() { flag::END_STREAM } else { 0 };
        if left > 0 {
            frame::put(&mut state.out, kind::DATA, flags, self.stream, &answer.body[*sent..*sent + len]);
        }
        *sent += len;
        self.window -= len as i64;
        state.window -= len as i64;
        if let (true, Some(trailers)) = (last, answer.trailers) {
            state.put_headers(self.stream, true, trailers);
        }
        !last
    }
}
