//! HTTP/2 frame by frame: a client that can say anything, and judges answers by frame type and error code.
//!
//! Owns the bytes of frames (RFC 9113, section 4) and a field encoding without compression (RFC 7541, section 6.2.2).
//! Never checks what it sends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::origin::WATCHDOG;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITIZED: u8 = 32;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).expect("a payload").to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Fields as literals without indexing.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            length(&mut out, text.len());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

fn length(out: &mut Vec<u8>, len: usize) {
    if len < 127 {
        out.push(len as u8);
        return;
    }
    out.push(127);
    let mut rest = len - 127;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    out.push(rest as u8);
}

/// The fields of a request to `a.test`, and more.
pub fn request<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<u8> {
    let mut fields = vec![(":method", method), (":scheme", "http"), (":authority", "a.test"), (":path", path)];
    fields.extend_from_slice(more);
    block(&fields)
}

/// A whole HEADERS frame of a request.
pub fn open(stream: u32, is_end: bool, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let flags = END_HEADERS | if is_end { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &request(method, path, more))
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// One connection.
pub struct Raw {
    sock: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Without a word.
    pub fn silent(addr: SocketAddr) -> Raw {
        let sock = TcpStream::connect(addr).expect("a connection");
        sock.set_read_timeout(Some(WATCHDOG)).expect("a bound");
        sock.set_write_timeout(Some(WATCHDOG)).expect("a bound");
        sock.set_nodelay(true).expect("a socket");
        Raw { sock, buffer: Vec::new() }
    }

    /// With the preface and empty settings.
    pub fn connect(addr: SocketAddr) -> Raw {
        Raw::with(addr, &[])
    }

    /// With the preface and settings.
    pub fn with(addr: SocketAddr, settings: &[(u16, u32)]) -> Raw {
        let mut raw = Raw::silent(addr);
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        raw.send(PREFACE);
        raw.send(frame(SETTINGS, 0, 0, &payload));
        raw
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("sending");
    }

    /// As [`Raw::send`], where the other side may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.sock.write_all(bytes.as_ref())
    }

    /// The next frame; `None` at the connection's end, orderly or not.
    pub fn next(&mut self) -> Option<Frame> {
        while self.buffer.len() < 9 || self.buffer.len() < 9 + self.len() {
            let mut room = [0; 16 * 1024];
            match self.sock.read(&mut room) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&room[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("no frame came in {WATCHDOG:?}"),
                Err(_) => return None,
            }
        }
        let end = 9 + self.len();
        let bytes: Vec<u8> = self.buffer.drain(..end).collect();
        let stream = u32::from_be_bytes([bytes[5] & 0x7f, bytes[6], bytes[7], bytes[8]]);
        Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() })
    }

    fn len(&self) -> usize {
        usize::from(self.buffer[0]) << 16 | usize::from(self.buffer[1]) << 8 | usize::from(self.buffer[2])
    }

    /// The first frame that is so; all others are passed over.
    pub fn find(&mut self, what: &str, mut is_it: impl FnMut(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().unwrap_or_else(|| panic!("the connection ended before {what}"));
            if is_it(&frame) {
                return frame;
            }
        }
    }

    /// Waits for a kind of frame.
    pub fn wait_for(&mut self, kind: u8) -> Frame {
        self.find(&format!("a frame of type {kind}"), |frame| frame.kind == kind)
    }

    /// What the other side made of what was sent.
    pub fn verdict(&mut self) -> Verdict {
        let mut verdict = Verdict::Ended;
        loop {
            let Some(frame) = self.next() else { return verdict };
            let code = |at: usize| {
                frame.payload.get(at..at + 4).map_or(u32::MAX, |b| u32::from_be_bytes(b.try_into().expect("four")))
            };
            match frame.kind {
                GOAWAY => verdict = Verdict::GoAway(code(4)),
                RST_STREAM => return Verdict::Reset(frame.stream, code(0)),
                HEADERS => return Verdict::Answered(frame.stream, status(&frame.payload)),
                _ => {}
            }
        }
    }

    /// Reads to the connection's end: what its GOAWAY said.
    pub fn last_word(&mut self) -> Verdict {
        let mut verdict = Verdict::Ended;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                let code =
                    frame.payload.get(4..8).map_or(u32::MAX, |b| u32::from_be_bytes(b.try_into().expect("four")));
                verdict = Verdict::GoAway(code);
            }
        }
        verdict
    }

    /// Reads to the connection's end: whether that is a reset.
    pub fn is_reset(&mut self) -> bool {
        let mut room = [0; 64 * 1024];
        loop {
            match self.sock.read(&mut room) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }

    /// Whether the connection still works: a ping comes back.
    pub fn is_alive(&mut self) -> bool {
        if self.try_send(frame(PING, 0, 0, b"are you?")).is_err() {
            return false;
        }
        loop {
            match self.next() {
                Some(frame) if frame.kind == PING && frame.flags & ACK != 0 => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }
}

/// See [`Raw::verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The stream was reset, with that code.
    Reset(u32, u32),
    /// The connection ended, with that code as its last word.
    GoAway(u32),
    /// The connection ended without a word.
    Ended,
    /// An answer came, with that status.
    Answered(u32, u16),
}

/// The status of an answer, of which it is the first field: indexed, or a literal with an indexed name. 0: not found.
pub fn status(block: &[u8]) -> u16 {
    // A change of the table's size may come first.
    let block = &block[block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count()..];
    match block {
        [byte @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(byte - 0x88)],
        [0x48 | 0x08, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).ok().and_then(|d| d.parse().ok()).unwrap_or(0)
        }
        // Huffman-coded digits: all of 0 to 9 have five or six bits.
        [0x48 | 0x08, len @ 0x82..=0x83, digits @ ..] => huffman(&digits[..usize::from(len & 0x7f)]),
        _ => 0,
    }
}

/// Three digits (RFC 7541, appendix B): 0 to 2 are 00000 to 00010, 3 to 9 are 011001 to 011111.
fn huffman(bytes: &[u8]) -> u16 {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).map(move |i| byte >> (7 - i) & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0u16, |n, bit| n * 2 + u16::from(*bit));
    let (mut at, mut out) = (0, 0);
    for _ in 0..3 {
        let five = number(&bits[at..at + 5]);
        let (digit, len) = if five <= 2 { (five, 5) } else { (number(&bits[at..at + 6]) - 0b011001 + 3, 6) };
        out = out * 10 + digit;
        at += len;
    }
    out
}
