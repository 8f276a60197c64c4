//! Many client connections on one thread: opening, asking, reading answers, and telling a script what happened.
//!
//! Owns sockets, framing and the verdict on an answer. Never decides what to ask next: that is the [`Script`].

use crate::error::Result;
use crate::http::response::{Answer, ResponseReader};
use crate::net::{self, Interest, Poller, Received};
use crate::tls::{ClientSide, Wire};
use serde::Serialize;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Bytes read from a socket at once.
pub const READ_BYTES: usize = 256 * 1024;

/// Why a request was not answered as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection came about, or none with TLS.
    Connect,
    /// The connection, or the stream, ended before the answer was whole.
    Closed,
    /// No whole answer within the timeout.
    Timeout,
    /// Another status than the expected one.
    Status,
    /// The status is right, the body is not.
    Body,
    /// The answer is not HTTP, or bytes followed it.
    Malformed,
    /// The server refused the stream without having looked at it: it may be asked again elsewhere.
    Refused,
}

impl Failure {
    /// All of them, in the order of their counters.
    pub const ALL: [Failure; 7] = [
        Failure::Connect,
        Failure::Closed,
        Failure::Timeout,
        Failure::Status,
        Failure::Body,
        Failure::Malformed,
        Failure::Refused,
    ];
}

/// What is asked, and what has to come back.
pub struct Job {
    /// Sent as it is.
    pub request: Vec<u8>,
    /// What a good answer is.
    pub expect: Expect,
}

/// What a good answer is.
pub enum Expect {
    /// This status with this body.
    Answer {
        /// 200, or 101 for an upgrade; after a 101 only [`Expect::Bytes`] follow.
        status: u16,
        /// Every byte of it.
        body: Vec<u8>,
    },
    /// This status, with any body.
    Status(u16),
    /// Exactly these bytes, without HTTP (a WebSocket frame).
    Bytes(Vec<u8>),
}

impl Expect {
    /// What the body is compared with; of no use when any is good.
    fn body(&self) -> &[u8] {
        match self {
            Expect::Answer { body, .. } => body,
            Expect::Status(_) | Expect::Bytes(_) => &[],
        }
    }
}

/// What happened on a connection.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// It is open.
    Connected,
    /// The answer is whole.
    Answered {
        /// Since the request was sent.
        latency: Duration,
        /// Its status; 101 for an echoed frame.
        status: u16,
        /// Whether it is the expected one.
        verdict: std::result::Result<(), Failure>,
        /// Whether the connection may be used again.
        keep: bool,
    },
    /// It is closed. `asked` tells whether a request was under way.
    Lost {
        /// Why.
        failure: Failure,
        /// Whether an answer was due.
        asked: bool,
    },
}

/// What to do with a connection then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask the job of this index.
    Send(usize),
    /// Leave it as it is.
    Hold,
    /// Close it; it may be opened again with [`Connections::open`].
    Close,
}

/// Decides what every connection does.
pub trait Script {
    /// Something happened on connection `slot`. What is said after [`Event::Lost`] has no effect.
    fn next(&mut self, slot: usize, event: Event) -> Next;
}

/// TLS handshakes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Those that ended well.
    pub done: u64,
    /// Those that resumed an earlier session.
    pub resumed: u64,
    /// Digests of the servers' certificates.
    pub certificates: HashSet<u64>,
    /// Why the first one that did not end well did not.
    pub failure: Option<String>,
}

impl Handshakes {
    /// Counts the one of a connection that is open, if it has TLS.
    pub fn count(&mut self, wire: &Wire) {
        if let Wire::Secured(_) = wire {
            self.done += 1;
            self.resumed += u64::from(wire.is_resumed());
            self.certificates.extend(wire.certificate());
        }
    }

    /// Remembers why one did not end well, if it is the first.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        self.failure.get_or_insert_with(why);
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: Handshakes) {
        self.done += other.done;
        self.resumed += other.resumed;
        self.certificates.extend(other.certificates);
        self.failure = self.failure.take().or(other.failure);
    }
}

struct Slot {
    wire: Option<Wire>,
    reader: ResponseReader,
    job: usize,
    /// Bytes of the request sent, or, of a raw answer, bytes seen once all is sent.
    sent: usize,
    seen: usize,
    asked_at: Option<Instant>,
    /// Connecting, or handshaking.
    opening: bool,
    /// Answered for the last time: only its end is waited for, no longer than an answer would be.
    ending: bool,
    /// Watched for room to write.
    writing: bool,
    /// Told apart from the one that had this slot before.
    generation: u32,
}

impl Slot {
    /// Whether an answer is due.
    fn is_asked(&self) -> bool {
        self.asked_at.is_some() && !self.opening && !self.ending
    }
}

/// The connections of one thread.
pub struct Connections {
    poller: Poller,
    slots: Vec<Slot>,
    jobs: Vec<Job>,
    scratch: Vec<u8>,
    target: SocketAddr,
    tls: Option<ClientSide>,
    timeout: Duration,
    open: usize,
    handshakes: Handshakes,
}

impl Connections {
    /// `count` closed connections to `target`.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(
        target: SocketAddr,
        tls: Option<ClientSide>,
        count: usize,
        jobs: Vec<Job>,
        timeout: Duration,
    ) -> Result<Connections> {
        let slot = || Slot {
            wire: None,
            reader: ResponseReader::default(),
            job: 0,
            sent: 0,
            seen: 0,
            asked_at: None,
            opening: false,
            ending: false,
            writing: false,
            generation: 0,
        };
        Ok(Connections {
            poller: Poller::new()?,
            slots: (0..count).map(|_| slot()).collect(),
            jobs,
            scratch: vec![0; READ_BYTES],
            target,
            tls,
            timeout,
            open: 0,
            handshakes: Handshakes::default(),
        })
    }

    /// How many are open or opening.
    pub fn open_count(&self) -> usize {
        self.open
    }

    /// The handshakes so far.
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes.clone()
    }

    /// Starts to open a closed connection.
    pub fn open<S: Script>(&mut self, slot: usize, source: Option<IpAddr>, script: &mut S) {
        let Ok((fd, done)) = net::connect(self.target, source) else {
            script.next(slot, Event::Lost { failure: Failure::Connect, asked: false });
            return;
        };
        let s = &mut self.slots[slot];
        s.generation = s.generation.wrapping_add(1);
        let token = token(slot, s.generation);
        let interest = if done { Interest::Read } else { Interest::Write };
        if self.poller.add(&fd, token, interest).is_err() {
            script.next(slot, Event::Lost { failure: Failure::Connect, asked: false });
            return;
        }
        s.wire = Some(Wire::Plain(fd));
        s.reader = ResponseReader::default();
        s.opening = true;
        s.writing = false;
        s.asked_at = Some(Instant::now()); // The timeout counts while connecting, too.
        self.open += 1;
        if done {
            self.finish_connecting(slot, script);
        }
    }

    /// Asks on an open connection that has no request under way.
    pub fn ask<S: Script>(&mut self, slot: usize, job: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        (s.job, s.sent, s.seen, s.asked_at, s.ending) = (job, 0, 0, Some(Instant::now()), false);
        self.push(slot, script);
    }

    /// Closes a connection without telling the script.
    pub fn close(&mut self, slot: usize) {
        let s = &mut self.slots[slot];
        s.asked_at = None;
        (s.opening, s.ending) = (false, false);
        if s.wire.take().is_some() {
            self.open -= 1;
        }
    }

    /// Waits for events, at most so long, and tells the script.
    ///
    /// # Errors
    /// When waiting fails; what happens to one connection is an [`Event`].
    pub fn poll<S: Script>(&mut self, wait: Duration, script: &mut S) -> Result<()> {
        let count = self.poller.wait(Some(wait))?;
        for index in 0..count {
            let ready = self.poller.ready(index);
            let slot = ready.token as u32 as usize;
            let s = &mut self.slots[slot];
            if s.wire.is_none() || s.generation != (ready.token >> 32) as u32 {
                continue; // Closed by an event before this one.
            }
            match &s.wire {
                Some(Wire::Plain(_)) if s.opening => {
                    self.finish_connecting(slot, script);
                    continue;
                }
                Some(Wire::Secured(_)) if s.opening => {
                    self.shake(slot, script);
                    continue;
                }
                _ => {}
            }
            if ready.writable && self.unsent(slot) {
                self.push(slot, script);
            }
            if ready.readable {
                self.pull(slot, script);
            }
        }
        Ok(())
    }

    /// Ends what has been under way for longer than the timeout.
    pub fn expire<S: Script>(&mut self, now: Instant, script: &mut S) {
        for slot in 0..self.slots.len() {
            let s = &self.slots[slot];
            if s.asked_at.is_some_and(|at| now.saturating_duration_since(at) > self.timeout) {
                let failure = match (s.opening, s.ending) {
                    (true, _) => Failure::Connect,
                    (_, true) => Failure::Closed,
                    _ => Failure::Timeout,
                };
                self.lose(slot, failure, script);
            }
        }
    }

    fn unsent(&self, slot: usize) -> bool {
        let s = &self.slots[slot];
        let sealed = s.wire.as_ref().is_some_and(Wire::has_unsent);
        sealed || s.asked_at.is_some() && s.sent < self.jobs[s.job].request.len()
    }

    fn tell<S: Script>(&mut self, slot: usize, event: Event, script: &mut S) {
        match script.next(slot, event) {
            Next::Send(job) => self.ask(slot, job, script),
            Next::Hold => {}
            Next::Close => self.close(slot),
        }
    }

    fn lose<S: Script>(&mut self, slot: usize, failure: Failure, script: &mut S) {
        let asked = self.slots[slot].is_asked();
        self.close(slot);
        script.next(slot, Event::Lost { failure, asked });
    }

    /// The connection is open, or was refused; with TLS the handshake follows.
    fn finish_connecting<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let token = token(slot, s.generation);
        let Some(fd) = &s.wire else { return };
        let watched = || self.poller.modify(fd, token, Interest::Read);
        if net::connected(fd).is_err() || watched().is_err() {
            return self.lose(slot, Failure::Connect, script);
        }
        match (&self.tls, s.wire.take()) {
            (Some(tls), Some(Wire::Plain(fd))) => {
                // The first flight always fits.
                let Ok(wire) = tls.begin(fd) else { return self.lose(slot, Failure::Connect, script) };
                if s.wire.insert(wire).flush().is_err() {
                    self.lose(slot, Failure::Connect, script);
                }
            }
            (_, wire) => {
                s.wire = wire;
                self.opened(slot, script);
            }
        }
    }

    /// The next step of the handshake.
    fn shake<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let Some(wire) = &mut s.wire else { return };
        match wire.receive(&mut self.scratch) {
            Ok(Received::Later) if wire.is_handshaking() => {}
            Ok(Received::Later) => {
                self.handshakes.count(wire);
                self.opened(slot, script);
            }
            received => {
                self.handshakes.fail(|| match received {
                    Err(error) => error.to_string(),
                    Ok(Received::End) => "the connection ended within the handshake".to_owned(),
                    Ok(_) => "the server spoke before it was asked".to_owned(),
                });
                self.lose(slot, Failure::Connect, script);
            }
        }
    }

    fn opened<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        s.opening = false;
        s.asked_at = None;
        self.tell(slot, Event::Connected, script);
    }

    /// Sends what is left of the request.
    fn push<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let Some(wire) = &mut s.wire else { return };
        let request = &self.jobs[s.job].request;
        let Ok(len) = wire.send(&request[s.sent..]) else {
            return self.lose(slot, Failure::Closed, script);
        };
        s.sent += len;
        let whole = s.sent == request.len() && !wire.has_unsent();
        if whole != s.writing {
            return; // The usual case: nothing to change.
        }
        s.writing = !whole;
        let interest = if whole { Interest::Read } else { Interest::Both };
        if self.poller.modify(&*wire, token(slot, s.generation), interest).is_err() {
            self.lose(slot, Failure::Closed, script);
        }
    }

    /// Reads once and follows what it means.
    fn pull<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let Some(wire) = &mut s.wire else { return };
        match wire.receive(&mut self.scratch) {
            Ok(Received::Later) => {}
            Ok(Received::Bytes(len)) => self.take(slot, len, script),
            Ok(Received::End) => self.ended(slot, script),
            Err(_) => self.lose(slot, Failure::Closed, script),
        }
    }

    fn take<S: Script>(&mut self, slot: usize, len: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        if !s.is_asked() {
            return self.lose(slot, Failure::Malformed, script); // Nobody asked.
        }
        let bytes = &self.scratch[..len];
        let answer = match &self.jobs[s.job].expect {
            expect @ (Expect::Answer { .. } | Expect::Status(_)) => match s.reader.feed(bytes, expect.body()) {
                Ok((used, None)) if used == len => None,
                Ok((used, Some(answer))) if used == len => Some(answer),
                _ => return self.lose(slot, Failure::Malformed, script),
            },
            Expect::Bytes(expected) => {
                if expected.get(s.seen..s.seen + len) != Some(bytes) {
                    return self.lose(slot, Failure::Body, script);
                }
                s.seen += len;
                (s.seen == expected.len()).then_some(Answer { status: 101, body_ok: true, keep: true })
            }
        };
        if let Some(answer) = answer {
            self.answered(slot, answer, script);
        }
    }

    fn ended<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let answer = match &self.jobs[s.job].expect {
            Expect::Bytes(_) => None,
            expect if s.is_asked() => s.reader.end(expect.body()),
            _ => None,
        };
        match answer {
            Some(answer) => self.answered(slot, answer, script),
            None => self.lose(slot, Failure::Closed, script),
        }
    }

    fn answered<S: Script>(&mut self, slot: usize, answer: Answer, script: &mut S) {
        let s = &mut self.slots[slot];
        let Some(asked_at) = s.asked_at.take() else { return };
        // What is left of a request whose answer came early would be taken for the next one.
        let keep = answer.keep && s.sent == self.jobs[s.job].request.len();
        if !keep {
            (s.ending, s.asked_at) = (true, Some(Instant::now()));
        }
        let verdict = match &self.jobs[s.job].expect {
            Expect::Answer { status, .. } | Expect::Status(status) if *status != answer.status => Err(Failure::Status),
            Expect::Answer { .. } if !answer.body_ok => Err(Failure::Body),
            _ => Ok(()),
        };
        let event = Event::Answered { latency: asked_at.elapsed(), status: answer.status, verdict, keep };
        self.tell(slot, event, script);
    }
}

fn token(slot: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | slot as u64
}
