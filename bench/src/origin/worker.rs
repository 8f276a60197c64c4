//! One thread of the origin: its listener, its connections, its turn of the loop.
//!
//! Owns the states of a connection. Never reads while an answer is due: pipelined requests wait their turn.

use super::answers::{Answers, Bytes};
use super::{Counters, Options, bump};
use crate::error::{Result, Trying};
use crate::http::chunked::Chunked;
use crate::http::request::{self, Ask, Framing, Request};
use crate::http::{HEAD_BYTES_MAX, Malformed, fields};
use crate::net::{self, ACCEPT_REST, Acceptor, Interest, Poller, Received};
use crate::slab::Slab;
use crate::sys;
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
    options: Options,
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
        acceptor,
        poller,
        conns: Slab::default(),
        answers: Answers::default(),
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
    Close,
}

struct Conn {
    fd: OwnedFd,
    stage: Stage,
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

struct Answer {
    /// Nothing: the connection is closed without an answer.
    bytes: Option<Bytes>,
    after: After,
}

struct Worker {
    options: Options,
    acceptor: Acceptor,
    poller: Poller,
    conns: Slab<Conn>,
    answers: Answers,
    /// When which connection's delayed answer is due.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed: HashMap<u64, Answer>,
    counters: Arc<Counters>,
}

impl Worker {
    fn turn(&mut self, scratch: &mut [u8]) -> Result<()> {
        let until_due = self.due.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        let wait_max = if self.acceptor.is_resting() { ACCEPT_REST } else { WAIT_MAX };
        let count = self.poller.wait(Some(until_due.unwrap_or(wait_max).min(wait_max)))?;
        self.acceptor.turn(&self.poller)?;
        self.answers.tick(SystemTime::now());
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
                let conn = Conn { fd, stage: Stage::Head, held: Vec::new(), unsent: None, interest: Interest::Read };
                self.conns.insert(conn);
                bump(&self.counters.connections);
            }
        }
        Ok(())
    }

    fn seal(&mut self, token: u64, fate: Fate) {
        if let Fate::Goes = fate {
            self.conns.remove(token);
            self.delayed.remove(&token);
        }
    }

    fn serve(&mut self, token: u64, readable: bool, writable: bool, scratch: &mut [u8]) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        if conn.unsent.is_some() {
            return if writable { self.flush(token) } else { Fate::Stays };
        }
        if !readable {
            return Fate::Stays;
        }
        if let Stage::Answering(_) = conn.stage {
            return Fate::Goes; // Nothing is watched but errors.
        }
        match net::receive(&conn.fd, scratch) {
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
        if delay.is_zero() {
            return self.send(token, answer);
        }
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        conn.stage = Stage::Answering(answer.after);
        self.due.push(Reverse((Instant::now() + delay, token)));
        self.delayed.insert(token, answer);
        self.watch(token, Interest::Nothing)
    }

    fn make_answer(&mut self, request: &Request) -> Answer {
        let counters = &self.counters;
        let mut after = if request.keep { After::Head } else { After::Close };
        if self.options.expect_forwarded && request.ask != Ask::Stats {
            if !request.forwarded.client {
                bump(&counters.no_forwarded_for);
            }
            if !request.forwarded.proto {
                bump(&counters.no_forwarded_proto);
            }
        }
        let bytes = match request.ask {
            Ask::Stats => Some(self.answers.stats(&counters.stats())),
            Ask::Unknown => Some(self.answers.error("404 Not Found")),
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

    /// Sends what fits now; the rest goes when there is room.
    fn send(&mut self, token: u64, answer: Answer) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        let Some(bytes) = answer.bytes else { return Fate::Goes };
        let Ok(sent) = net::send(&conn.fd, &bytes) else { return Fate::Goes };
        if sent < bytes.len() {
            conn.stage = Stage::Answering(answer.after);
            conn.unsent = Some((bytes, sent));
            return self.watch(token, Interest::Write);
        }
        self.after(token, answer.after)
    }

    fn flush(&mut self, token: u64) -> Fate {
        let Some(conn) = self.conns.get_mut(token) else { return Fate::Stays };
        let Some((bytes, sent)) = &mut conn.unsent else { return Fate::Stays };
        let Ok(len) = net::send(&conn.fd, &bytes[*sent..]) else { return Fate::Goes };
        *sent += len;
        if *sent < bytes.len() {
            return Fate::Stays;
        }
        conn.unsent = None;
        let Stage::Answering(after) = conn.stage else { return Fate::Stays };
        self.resume(token, after)
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, token))) = self.due.peek() {
            if at > now {
                return;
            }
            self.due.pop();
            let Some(answer) = self.delayed.remove(&token) else { continue };
            let after = answer.after;
            let fate = match self.send(token, answer) {
                Fate::Stays => self.resume_if_sent(token, after),
                Fate::Goes => Fate::Goes,
            };
            self.seal(token, fate);
        }
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
        if self.poller.modify(&conn.fd, token, interest).is_ok() { Fate::Stays } else { Fate::Goes }
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
