//! One thread of the origin: its listener, its connections, its turn of the loop.
//!
//! Owns the states of a connection. Never reads HTTP/1.1 while an answer is due: pipelined requests wait their turn.

use super::answers::{Answers, Bytes};
use super::{Counters, Options, bump, http2};
use crate::error::{Result, Trying};
use crate::events;
use crate::h2::frame::{PREFACE, code};
use crate::h2::server::{self, Event, Server};
use crate::http::chunked::Chunked;
use crate::http::request::{self, Ask, Framing, Request};
use crate::http::{HEAD_BYTES_MAX, Malformed, fields};
use crate::net::{ACCEPT_REST, Acceptor, Interest, Poller, Received};
use crate::slab::Slab;
use crate::sys;
use crate::tls::{ServerSide, Wire};
use crate::websocket;
use socket2::Socket;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Answers of a connection of HTTP/2 that wait to be sent, at most, in bytes: a peer that only asks is given up.
const UNSENT_BYTES_MAX: usize = 16 << 20;
/// Tokens of what is no connection; a slab would need 2^32 slots to reach them.
const LISTENER: u64 = u64::MAX;
const WAKER: u64 = u64::MAX - 1;
/// Connections accepted before the others are served again.
const ACCEPT_COUNT_MAX: usize = 64;
/// Longest wait for events.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Serves until `stop` is set and `waker` written.
///
/// # Errors
/// When waiting for events fails; nothing that a peer does.
pub fn run(
    (options, side): (Options, Option<ServerSide>),
    listener: Socket,
    waker: OwnedFd,
    counters: Arc<Counters>,
    stop: &AtomicBool,
) -> Result<()> {
    if options.private_tables {
        sys::private_descriptor_table().trying(|| "unshare(CLONE_FILES)".into())?;
    }
    let poller = Poller::new()?;
    let acceptor = Acceptor::new(listener, LISTENER, &poller)?;
    poller.add(&waker, WAKER, Interest::Read)?;
    let mut worker = Worker {
        options,
        side,
        acceptor,
        poller,
        conns: Slab::default(),
        answers: Answers::default(),
        http2_answers: http2::Answers::default(),
        due: BinaryHeap::new(),
        delayed: HashMap::new(),
        counters,
    };
    let mut scratch = vec![0; READ_BYTES];
    while !stop.load(Relaxed) {
        worker.turn(&mut scratch)?;
    }
    Ok(())
}

/// What a connection is doing.
enum Stage {
    /// Waiting for a head, or its rest.
    Head,
    /// Reading a body whose request is answered after it.
    Body(BodyLeft, Request),
    /// An answer is due at a time, or not sent whole.
    Answering(After),
    /// Echoing frames.
    WebSocket,
    /// Sending events, each at its time.
    Events(EventStream),
}

/// An event stream under way.
#[derive(Clone, Copy, PartialEq, Eq)]
struct EventStream {
    every: Duration,
    /// Events sent.
    sent: u64,
    /// Events in all.
    count: u64,
    /// Whether the connection goes on after the last one.
    keep: bool,
}

enum BodyLeft {
    Length(u64),
    Chunked(Chunked),
}

/// What follows an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Head,
    WebSocket,
    Events(EventStream),
    Close,
}

struct Conn {
    wire: Wire,
    stage: Stage,
    /// Instead of `stage`, `held` and `unsent`, when this is what the peer speaks.
    http2: Option<Box<Server>>,
    /// Bytes that came and could not be used yet; empty, and without memory, nearly always.
    held: Vec<u8>,
    /// What is not sent yet, from this index on.
    unsent: Option<(Bytes, usize)>,
    interest: Interest,
}

/// Whether a connection goes on.
#[must_use]
enum Fate {
    Stays,
    Goes,
}

/// An answer of HTTP/1.1.
struct Answer {
    /// Nothing: the connection is closed without an answer.
    bytes: Option<Bytes>,
    after: After,
}

/// An answer that is due later; of HTTP/2, nothing resets the stream.
enum Delayed {
    Http1(Answer),
    Http2(Option<server::Answer>),
    /// The next event of a stream.
    Event,
}

struct Worker {
    options: Options,
    side: Option<ServerSide>,
    acceptor: Acceptor,
    poller: Poller,
    conns: Slab<Conn>,
    answers: Answers,
    http2_answers: http2::Answers,
    /// When which connection's, and stream's, delayed answer is due; the stream is 0 with HTTP/1.1.
    due: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    delayed: HashMap<(u64, u32), Delayed>,
    counters: Arc<Counters>,
}

impl Worker {
    fn turn(&mut self, scratch: &mut [u8]) -> Result<()> {
        let until_due = self.due.peek().map(|Reverse((at, ..))| at.saturating_duration_since(Instant::now()));
        let wait_max = if self.acceptor.is_resting() { ACCEPT_REST } else { WAIT_MAX };
        let count = self.poller.wait(Some(until_due.unwrap_or(wait_max).min(wait_max)))?;
        self.acceptor.turn(&self.poller)?;
        self.answers.tick(SystemTime::now());
        self.http2_answers.tick(SystemTime::now());
        for index in 0..count {
            let ready = self.poller.ready(index);
            match ready.token {
                LISTENER => self.accept()?,
                WAKER => {}
                token => {
                    let fate = self.serve(token, ready.readable, ready.writable, scratch);
                    self.seal(token, fate);
                }
            }
        }
        self.send_due();
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..ACCEPT_COUNT_MAX {
            let Some(fd) = self.acceptor.accept(&self.poller)? else { break };
            if self.poller.add(&fd, self.conns.next_token(), Interest::Read).is_ok() {
                let wire = match &self.side {
                    Some(side) => side.accept(fd)?,
                    None => Wire::Plain(fd),
                };
                self.conns.insert(Conn {
                    wire,
                    stage: Stage::Head,
                    http2: None,
                    held: Vec::new(),
                    unsent: None,
                    interest: Interest::Read,
                });
                bump(&self.counters.connections);
            }
        }
        Ok(())
    }

    fn seal(&mut self, token: u64, fate: Fate) {
        if let Fate::Goes = fate {
            let streams = self.conns.remove(token).and_then(|conn| conn.http2);
            let streams = streams.iter().flat_map(|server| server.streams()).chain([0]);
            for stream in streams {
                if self.delayed.get(&(token, stream)).is_some_and(|delayed| !matches!(delayed, Delayed::Event)) {
                    self.delayed.remove(&(token, stream));
                    self.counters.abandon();
                }
            }
        }
    }

    fn serve(&mut self, token: u64, readable: bool, writable: bool, scratch: &mut [u8]) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        if conn.http2.is_some() {
            return self.serve_http2(token, readable, writable, scratch);
        }
        if conn.unsent.is_some() || conn.wire.has_unsent() {
            return if writable { self.flush(token) } else { Fate::Stays };
        }
        if !readable {
            return Fate::Stays;
        }
        if let Stage::Answering(_) = conn.stage {
            return Fate::Goes; // Nothing is watched but its end.
        }
        match conn.wire.receive(scratch) {
            Ok(Received::Later) if conn.wire.has_unsent() => self.watch(token, Interest::Write),
            Ok(Received::Later) => Fate::Stays,
            Ok(Received::Bytes(len)) if conn.held.is_empty() => self.consume(token, &scratch[..len]),
            Ok(Received::Bytes(len)) => {
                conn.held.extend_from_slice(&scratch[..len]);
                self.consume_held(token)
            }
            Ok(Received::End) | Err(_) => Fate::Goes,
        }
    }

    fn consume_held(&mut self, token: u64) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        let held = std::mem::take(&mut conn.held);
        self.consume(token, &held)
    }

    /// Uses as many bytes as there are whole requests in, and keeps the rest.
    fn consume(&mut self, token: u64, mut bytes: &[u8]) -> Fate {
        if self.is_http2(token, bytes) {
            return self.consume_http2(token, bytes);
        }
        while !bytes.is_empty() {
            match self.step(token, bytes) {
                Ok(Some((used, Fate::Stays))) => bytes = &bytes[used..],
                Ok(Some((_, Fate::Goes))) => return Fate::Goes,
                Ok(None) => break,
                Err(Malformed(_)) => return self.refuse(token),
            }
        }
        if let Some(conn) = self.conns.get_mut(token) {
            if bytes.len() > HEAD_BYTES_MAX + READ_BYTES {
                return Fate::Goes;
            }
            conn.held = bytes.to_vec();
        }
        Fate::Stays
    }

    /// Uses the bytes of one step; `None` when it needs more of them, or has to wait.
    fn step(&mut self, token: u64, bytes: &[u8]) -> std::result::Result<Option<(usize, Fate)>, Malformed> {
        let Some(conn) = self.conns.get_mut(token) else { return Ok(None) };
        match &mut conn.stage {
            Stage::Answering(_) => Ok(None),
            Stage::Head => {
                if self.options.http2 && PREFACE.starts_with(bytes) {
                    return Ok(None); // It may become HTTP/2.
                }
                let Some(end) = fields::head_end(bytes, 0) else {
                    return if bytes.len() > HEAD_BYTES_MAX { Err(Malformed("a head too large")) } else { Ok(None) };
                };
                let request = request::parse(&bytes[..end])?;
                let left = match request.framing {
                    Framing::Length(0) => return Ok(Some((end, self.answer(token, &request)))),
                    Framing::Length(length) => BodyLeft::Length(length),
                    Framing::Chunked => BodyLeft::Chunked(Chunked::default()),
                };
                conn.stage = Stage::Body(left, request);
                Ok(Some((end, Fate::Stays)))
            }
            Stage::Body(left, request) => {
                let (used, done) = more_body(left, bytes)?;
                let request = *request;
                Ok(Some((used, if done { self.answer(token, &request) } else { Fate::Stays })))
            }
            Stage::Events(_) => Ok(None),
            Stage::WebSocket => {
                let Some(echo) = websocket::echo(bytes)? else { return Ok(None) };
                let after = if echo.closes { After::Close } else { After::WebSocket };
                Ok(Some((echo.used, self.send(token, Answer { bytes: Some(Rc::new(echo.frame)), after }))))
            }
        }
    }

    fn refuse(&mut self, token: u64) -> Fate {
        bump(&self.counters.malformed);
        let answer = Answer { bytes: Some(self.answers.error("400 Bad Request")), after: After::Close };
        self.send(token, answer)
    }

    /// Answers a whole request, now or when its delay is over.
    fn answer(&mut self, token: u64, request: &Request) -> Fate {
        let answer = self.make_answer(request);
        let delay = self.options.delay.max(request.delay);
        self.counters.begin();
        if delay.is_zero() {
            self.counters.end();
            return self.send(token, answer);
        }
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        conn.stage = Stage::Answering(answer.after);
        self.counters.begin_work();
        self.due.push(Reverse((Instant::now() + delay, token, 0)));
        self.delayed.insert((token, 0), Delayed::Http1(answer));
        self.watch(token, Interest::End)
    }

    fn make_answer(&mut self, request: &Request) -> Answer {
        let counters = &self.counters;
        let mut after = if request.keep { After::Head } else { After::Close };
        self.check_forwarded(request);
        let bytes = match request.ask {
            Ask::Stats => Some(self.answers.stats(&counters.stats())),
            Ask::StatsAnew => Some(self.answers.stats(&counters.stats_anew())),
            Ask::Unknown | Ask::Grpc => Some(self.answers.error("404 Not Found")),
            Ask::Events { every, count } => {
                bump(&counters.requests);
                after = After::Events(EventStream { every, sent: 0, count, keep: request.keep });
                Some(self.answers.events())
            }
            Ask::WebSocket(key) => {
                bump(&counters.upgrades);
                after = After::WebSocket;
                Some(self.answers.upgrade(&key))
            }
            Ask::Body(len) => {
                let number = bump(&counters.requests);
                if self.options.fail_every > 0 && number.is_multiple_of(self.options.fail_every) {
                    bump(&counters.spoilt);
                    self.answers.spoilt(len, self.options.fail_with)
                } else if request.wants_body {
                    Some(self.answers.body(len))
                } else {
                    Some(self.answers.head(len))
                }
            }
        };
        Answer { bytes, after }
    }

    /// Counts what a proxy should have added and did not.
    fn check_forwarded(&self, request: &Request) {
        if self.options.expect_forwarded && !matches!(request.ask, Ask::Stats | Ask::StatsAnew) {
            if !request.forwarded.client {
                bump(&self.counters.no_forwarded_for);
            }
            if !request.forwarded.proto {
                bump(&self.counters.no_forwarded_proto);
            }
        }
    }

    /// Sends what fits now; the rest goes when there is room.
    fn send(&mut self, token: u64, answer: Answer) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        let Some(bytes) = answer.bytes else { return Fate::Goes };
        let Ok(sent) = conn.wire.send(&bytes) else { return Fate::Goes };
        if sent < bytes.len() || conn.wire.has_unsent() {
            conn.stage = Stage::Answering(answer.after);
            conn.unsent = Some((bytes, sent));
            return self.watch(token, Interest::Write);
        }
        self.after(token, answer.after)
    }

    fn flush(&mut self, token: u64) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        let Some((bytes, sent)) = &mut conn.unsent else {
            // What is left of a handshake.
            let Ok(()) = conn.wire.flush() else { return Fate::Goes };
            return if conn.wire.has_unsent() { Fate::Stays } else { self.watch(token, Interest::Read) };
        };
        let Ok(len) = conn.wire.send(&bytes[*sent..]) else { return Fate::Goes };
        *sent += len;
        if *sent < bytes.len() || conn.wire.has_unsent() {
            return Fate::Stays;
        }
        conn.unsent = None;
        let Stage::Answering(after) = conn.stage else { return Fate::Stays };
        self.resume(token, after)
    }

    /// Whether the peer has said that it speaks HTTP/2; the connection does from then on.
    fn is_http2(&mut self, token: u64, bytes: &[u8]) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        if conn.http2.is_none() && self.options.http2 && matches!(conn.stage, Stage::Head) && bytes.starts_with(PREFACE)
        {
            conn.http2 = Some(Box::new(Server::new(self.options.max_streams)));
        }
        conn.http2.is_some()
    }

    fn serve_http2(&mut self, token: u64, readable: bool, writable: bool, scratch: &mut [u8]) -> Fate {
        if writable && matches!(self.flush_http2(token), Fate::Goes) {
            return Fate::Goes;
        }
        let Some(conn) = self.conns.get_mut(token).filter(|_| readable) else { return Fate::Stays };
        match conn.wire.receive(scratch) {
            Ok(Received::Later) => Fate::Stays,
            Ok(Received::Bytes(len)) => self.consume_http2(token, &scratch[..len]),
            Ok(Received::End) | Err(_) => Fate::Goes,
        }
    }

    fn consume_http2(&mut self, token: u64, bytes: &[u8]) -> Fate {
        let Some(server) = self.conns.get_mut(token).and_then(|conn| conn.http2.as_mut()) else { return Fate::Goes };
        let mut events = Vec::new();
        let fed = server.feed(bytes, &mut events);
        for event in events {
            match event {
                Event::Asked(stream, request, echo) => self.asked_http2(token, stream, &request, echo),
                Event::GivenUp(stream) => {
                    if self.delayed.remove(&(token, stream)).is_some() {
                        self.counters.abandon();
                    }
                }
                Event::Malformed => {
                    bump(&self.counters.malformed);
                }
            }
        }
        if fed.is_err() {
            bump(&self.counters.malformed);
            return Fate::Goes;
        }
        self.flush_http2(token)
    }

    fn asked_http2(&mut self, token: u64, stream: u32, request: &Request, echo: Vec<u8>) {
        self.check_forwarded(request);
        let answer = self.http2_answers.make(&self.options, &self.counters, request, echo);
        self.counters.begin();
        let delay = self.options.delay.max(request.delay);
        if delay.is_zero() {
            self.counters.end();
            return self.answer_http2(token, stream, answer);
        }
        self.counters.begin_work();
        self.due.push(Reverse((Instant::now() + delay, token, stream)));
        self.delayed.insert((token, stream), Delayed::Http2(answer));
    }

    fn answer_http2(&mut self, token: u64, stream: u32, answer: Option<server::Answer>) {
        let Some(server) = self.conns.get_mut(token).and_then(|conn| conn.http2.as_mut()) else { return };
        match answer {
            Some(answer) => server.answer(stream, answer),
            None => server.reset(stream, code::INTERNAL_ERROR),
        }
    }

    /// Sends what fits now, and makes more ready as it goes.
    fn flush_http2(&mut self, token: u64) -> Fate {
        let Some(Conn { wire, http2: Some(server), .. }) = self.conns.get_mut(token) else { return Fate::Stays };
        loop {
            let Ok(sent) = wire.send(server.out()) else { return Fate::Goes };
            server.out().drain(..sent);
            server.pump();
            if sent == 0 || server.out().is_empty() {
                break;
            }
        }
        let left = server.out().len();
        if left > UNSENT_BYTES_MAX || wire.flush().is_err() {
            return Fate::Goes;
        }
        let interest = if left > 0 || wire.has_unsent() { Interest::Both } else { Interest::Read };
        self.watch(token, interest)
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, token, stream))) = self.due.peek() {
            if at > now {
                return;
            }
            self.due.pop();
            let Some(delayed) = self.delayed.remove(&(token, stream)) else {
                self.counters.end_work();
                continue;
            };
            if !matches!(delayed, Delayed::Event) {
                self.counters.end_work();
                self.counters.end();
            }
            let fate = match delayed {
                Delayed::Http1(answer) => {
                    let after = answer.after;
                    match self.send(token, answer) {
                        Fate::Stays => self.resume_if_sent(token, after),
                        Fate::Goes => Fate::Goes,
                    }
                }
                Delayed::Http2(answer) => {
                    self.answer_http2(token, stream, answer);
                    self.flush_http2(token)
                }
                Delayed::Event => self.send_event(token, at),
            };
            self.seal(token, fate);
        }
    }

    /// Sends the event that was due at `at`, and makes the next one due. One that finds no room ends the stream: what
    /// is held back would be stamped too early.
    fn send_event(&mut self, token: u64, at: Instant) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        let Stage::Events(stream) = &mut conn.stage else { return Fate::Stays };
        let mut bytes = String::new();
        if stream.sent < stream.count {
            let event = events::event(events::stamp(), stream.sent);
            bytes = format!("{:x}\r\n{event}\r\n", event.len());
            stream.sent += 1;
        }
        let whole = stream.sent == stream.count;
        if whole {
            bytes.push_str("0\r\n\r\n");
        }
        let stream = *stream;
        match conn.wire.send(bytes.as_bytes()) {
            Ok(sent) if sent == bytes.len() && !conn.wire.has_unsent() => {}
            _ => return Fate::Goes,
        }
        if !whole {
            self.due.push(Reverse((at + stream.every, token, 0)));
            self.delayed.insert((token, 0), Delayed::Event);
            return Fate::Stays;
        }
        if !stream.keep {
            return Fate::Goes;
        }
        conn.stage = Stage::Head;
        self.consume_held(token)
    }

    fn resume_if_sent(&mut self, token: u64, after: After) -> Fate {
        match self.conns.get_mut(token) {
            Some(conn) if conn.unsent.is_none() => self.resume(token, after),
            _ => Fate::Stays,
        }
    }

    /// Reads again after an answer that did not go out at once.
    fn resume(&mut self, token: u64, after: After) -> Fate {
        let fates = [self.after(token, after), self.watch(token, Interest::Read)];
        if fates.iter().any(|fate| matches!(fate, Fate::Goes)) {
            return Fate::Goes;
        }
        self.consume_held(token)
    }

    fn after(&mut self, token: u64, after: After) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        conn.stage = match after {
            After::Head => Stage::Head,
            After::WebSocket => Stage::WebSocket,
            After::Events(stream) => {
                self.due.push(Reverse((Instant::now() + stream.every, token, 0)));
                self.delayed.insert((token, 0), Delayed::Event);
                Stage::Events(stream)
            }
            After::Close => return Fate::Goes,
        };
        Fate::Stays
    }

    fn watch(&mut self, token: u64, interest: Interest) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        if conn.interest == interest {
            return Fate::Stays;
        }
        conn.interest = interest;
        if self.poller.modify(&conn.wire, token, interest).is_ok() { Fate::Stays } else { Fate::Goes }
    }
}

fn more_body(left: &mut BodyLeft, bytes: &[u8]) -> std::result::Result<(usize, bool), Malformed> {
    match left {
        BodyLeft::Length(left) => {
            let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= len as u64;
            Ok((len, *left == 0))
        }
        BodyLeft::Chunked(chunked) => {
            let used = chunked.feed(bytes, |_| {})?;
            Ok((used, chunked.is_done()))
        }
    }
}
