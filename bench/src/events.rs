//! Many connections on one thread that each read an event stream, and how old its events are when they come.
//!
//! Owns the form of an event, `data: STAMP NUMBER`, which `speedmimi-bench origin` writes and this reads: the stamp is
//! the machine's monotonic clock, so both ends have to be on one machine. Numbers go up by one, so that an event that
//! is lost, doubled or swapped shows. Never asks twice on a connection.

use crate::conns::{Event, Failure, Handshakes, READ_BYTES, Script};
use crate::error::Result;
use crate::http::response::ResponseReader;
use crate::net::{self, Interest, Poller, Received};
use crate::tls::{ClientSide, Wire};
use rustix::time::{ClockId, clock_gettime};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 256;

/// The machine's monotonic clock, in ns.
pub fn stamp() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// An event as it is sent.
pub fn event(stamp: u64, number: u64) -> String {
    format!("data: {stamp} {number}\n\n")
}

/// What a line of a stream is.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Event { stamp: u64, number: u64 },
    Other,
    Wrong,
}

fn line(bytes: &[u8]) -> Line {
    let Some(data) = bytes.strip_prefix(b"data:") else { return Line::Other };
    let numbers = std::str::from_utf8(data).ok().and_then(|text| text.trim().split_once(' '));
    let parsed = numbers.and_then(|(stamp, number)| Some((stamp.parse().ok()?, number.parse().ok()?)));
    parsed.map_or(Line::Wrong, |(stamp, number)| Line::Event { stamp, number })
}

#[derive(Default)]
struct Slot {
    wire: Option<Wire>,
    reader: ResponseReader,
    /// The start of a line whose end has not come; empty, and without memory, nearly always.
    held: Vec<u8>,
    next: u64,
    /// Of what was sent or came last.
    at: Option<Instant>,
    opening: bool,
    generation: u32,
}

impl Slot {
    /// Takes a piece of the body; tells the age of each event, or that one is wrong.
    fn piece(&mut self, mut bytes: &[u8], now: u64, mut tell: impl FnMut(std::result::Result<Duration, Failure>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let kind = if self.held.is_empty() {
                line(&bytes[..end])
            } else {
                self.held.extend_from_slice(&bytes[..end]);
                line(&std::mem::take(&mut self.held))
            };
            bytes = &bytes[end + 1..];
            match kind {
                Line::Other => {}
                Line::Event { stamp, number } if number == self.next => {
                    self.next += 1;
                    tell(Ok(Duration::from_nanos(now.saturating_sub(stamp))));
                }
                Line::Event { .. } | Line::Wrong => return tell(Err(Failure::Body)),
            }
        }
        if self.held.len() + bytes.len() > LINE_BYTES_MAX {
            return tell(Err(Failure::Body));
        }
        self.held.extend_from_slice(bytes);
    }
}

/// The connections of one thread. To the script each event is an answer; a stream that ends in order is a connection
/// that was lost without having been asked.
pub struct Subscriptions {
    poller: Poller,
    slots: Vec<Slot>,
    request: Vec<u8>,
    scratch: Vec<u8>,
    target: SocketAddr,
    tls: Option<ClientSide>,
    timeout: Duration,
    handshakes: Handshakes,
}

impl Subscriptions {
    /// `count` closed connections to `target`.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new(
        target: SocketAddr,
        tls: Option<ClientSide>,
        count: usize,
        request: Vec<u8>,
        timeout: Duration,
    ) -> Result<Subscriptions> {
        Ok(Subscriptions {
            poller: Poller::new()?,
            slots: (0..count).map(|_| Slot::default()).collect(),
            request,
            scratch: vec![0; READ_BYTES],
            target,
            tls,
            timeout,
            handshakes: Handshakes::default(),
        })
    }

    /// The handshakes so far.
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes.clone()
    }

    /// Starts to open a closed connection.
    pub fn open<S: Script>(&mut self, slot: usize, source: Option<IpAddr>, script: &mut S) {
        let s = &mut self.slots[slot];
        *s = Slot { generation: s.generation.wrapping_add(1), ..Slot::default() };
        let token = u64::from(s.generation) << 32 | slot as u64;
        let opened = net::connect(self.target, source).and_then(|(fd, _)| {
            self.poller.add(&fd, token, Interest::Write).map(|()| fd).map_err(std::io::Error::other)
        });
        match opened {
            Ok(fd) => (s.wire, s.opening, s.at) = (Some(Wire::Plain(fd)), true, Some(Instant::now())),
            Err(_) => {
                script.next(slot, Event::Lost { failure: Failure::Connect, asked: false });
            }
        }
    }

    /// Waits for events, at most so long, and tells the script.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn poll<S: Script>(&mut self, wait: Duration, script: &mut S) -> Result<()> {
        let count = self.poller.wait(Some(wait))?;
        for index in 0..count {
            let ready = self.poller.ready(index);
            let slot = ready.token as u32 as usize;
            let s = &self.slots[slot];
            if s.wire.is_none() || s.generation != (ready.token >> 32) as u32 {
                continue;
            }
            match &s.wire {
                Some(Wire::Plain(_)) if s.opening => self.finish_connecting(slot, script),
                _ => self.pull(slot, script),
            }
        }
        Ok(())
    }

    /// Ends streams that were silent for longer than the timeout.
    pub fn expire<S: Script>(&mut self, now: Instant, script: &mut S) {
        for slot in 0..self.slots.len() {
            let s = &self.slots[slot];
            if s.at.is_some_and(|at| now.saturating_duration_since(at) > self.timeout) {
                let failure = if s.opening { Failure::Connect } else { Failure::Timeout };
                self.lose(slot, failure, true, script);
            }
        }
    }

    fn lose<S: Script>(&mut self, slot: usize, failure: Failure, asked: bool, script: &mut S) {
        let s = &mut self.slots[slot];
        (s.wire, s.at, s.opening) = (None, None, false);
        script.next(slot, Event::Lost { failure, asked });
    }

    fn finish_connecting<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let token = u64::from(s.generation) << 32 | slot as u64;
        let Some(Wire::Plain(fd)) = s.wire.take() else { return };
        if net::connected(&fd).is_err() || self.poller.modify(&fd, token, Interest::Read).is_err() {
            return self.lose(slot, Failure::Connect, false, script);
        }
        let Some(tls) = &self.tls else {
            s.wire = Some(Wire::Plain(fd));
            return self.opened(slot, script);
        };
        // The first flight always fits.
        match tls.begin(fd).and_then(|mut wire| wire.flush().map(|()| wire)) {
            Ok(wire) => s.wire = Some(wire),
            Err(_) => self.lose(slot, Failure::Connect, false, script),
        }
    }

    /// The connection can be used: the stream is asked for. A request fits into an empty send buffer.
    fn opened<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        (s.opening, s.at) = (false, Some(Instant::now()));
        let Some(wire) = &mut s.wire else { return };
        if wire.send(&self.request).ok() != Some(self.request.len()) {
            return self.lose(slot, Failure::Closed, true, script);
        }
        script.next(slot, Event::Connected);
    }

    fn pull<S: Script>(&mut self, slot: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        let Some(wire) = &mut s.wire else { return };
        let received = wire.receive(&mut self.scratch);
        if s.opening {
            match received {
                Ok(Received::Later) if wire.is_handshaking() => return,
                Ok(Received::Later) => {
                    self.handshakes.count(wire);
                    return self.opened(slot, script);
                }
                received => {
                    self.handshakes.fail(|| format!("within the handshake: {received:?}"));
                    return self.lose(slot, Failure::Connect, false, script);
                }
            }
        }
        match received {
            Ok(Received::Later) => {}
            Ok(Received::Bytes(len)) => self.take(slot, len, script),
            // A close is the end of a stream only where its framing says so.
            Ok(Received::End) => {
                let whole = s.reader.end(&[]).is_some();
                self.lose(slot, Failure::Closed, !whole, script);
            }
            Err(_) => self.lose(slot, Failure::Closed, true, script),
        }
    }

    fn take<S: Script>(&mut self, slot: usize, len: usize, script: &mut S) {
        let s = &mut self.slots[slot];
        s.at = Some(Instant::now());
        let (now, mut wrong) = (stamp(), None);
        let mut reader = std::mem::take(&mut s.reader);
        let fed = reader.feed_to(&self.scratch[..len], |bytes| {
            s.piece(bytes, now, |age| match age {
                Ok(latency) => {
                    script.next(slot, Event::Answered { latency, status: 200, verdict: Ok(()), keep: true });
                }
                Err(failure) => wrong = Some(failure),
            });
        });
        let status = reader.status();
        s.reader = reader;
        match (fed, wrong) {
            (Err(_), _) => self.lose(slot, Failure::Malformed, true, script),
            (Ok(_), _) if status.is_some_and(|status| status != 200) => self.lose(slot, Failure::Status, true, script),
            (Ok(_), Some(failure)) => self.lose(slot, failure, true, script),
            (Ok(true), None) => self.lose(slot, Failure::Closed, false, script),
            (Ok(false), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_in_any_pieces() {
        let text: String = (0..5).map(|number| event(1_000 + number, number)).collect();
        for step in 1..text.len() {
            let (mut slot, mut ages) = (Slot::default(), Vec::new());
            for piece in text.as_bytes().chunks(step) {
                slot.piece(piece, 1_010, |age| ages.push(age));
            }
            let expected: Vec<_> = (0..5).map(|n| Ok(Duration::from_nanos(10 - n))).collect();
            assert_eq!(ages, expected, "in pieces of {step}");
        }
    }

    #[test]
    fn a_lost_event_and_a_strange_one_are_failures() {
        for text in [event(1, 0) + &event(1, 2), "data: x y\n\n".into(), "data: 1\n".into(), ":".repeat(300)] {
            let mut last = Ok(Duration::ZERO);
            Slot::default().piece(text.as_bytes(), 5, |age| last = age);
            assert_eq!(last, Err(Failure::Body), "{text:?}");
        }
    }
}
