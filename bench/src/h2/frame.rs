//! Frames (RFC 9113, sections 4 and 6): heads, the kinds and flags in use, and cutting a stream of bytes into them.
//!
//! Owns lengths and layout. Never knows the state of a stream.

use crate::http::Malformed;

/// What a client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// Largest payload until the peer allows more, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;
/// A window until it is changed, in bytes.
pub const WINDOW_BYTES: i64 = 65_535;
/// The largest window, in bytes.
pub const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;

/// Kinds of frames.
#[allow(missing_docs)]
pub mod kind {
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
}

/// Flags of frames.
#[allow(missing_docs)]
pub mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Names of settings.
#[allow(missing_docs)]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
}

/// Error codes.
#[allow(missing_docs)]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload, 0..2^24.
    pub len: usize,
    /// One of [`kind`], or unknown.
    pub kind: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
}

impl Head {
    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn read(bytes: &[u8; HEAD_BYTES]) -> Head {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        Head {
            len: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        }
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends SETTINGS.
pub fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let mut payload = Vec::with_capacity(6 * settings.len());
    for (name, value) in settings {
        payload.extend_from_slice(&name.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    put(out, kind::SETTINGS, 0, 0, &payload);
}

/// Appends WINDOW_UPDATE.
pub fn put_window(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// Appends RST_STREAM.
pub fn put_reset(out: &mut Vec<u8>, stream: u32, code: u32) {
    put(out, kind::RST_STREAM, 0, stream, &code.to_be_bytes());
}

/// A number of four bytes, without its reserved bit.
///
/// # Errors
/// When there are fewer.
pub fn number(payload: &[u8]) -> Result<u32, Malformed> {
    let bytes = payload.first_chunk().ok_or(Malformed("a frame that is too short"))?;
    Ok(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
}

/// Cuts what comes into frames.
#[derive(Debug, Default)]
pub struct Frames {
    /// A frame that came in pieces; empty, and without memory, nearly always.
    held: Vec<u8>,
}

impl Frames {
    /// Takes bytes as they came and hands over each whole frame.
    ///
    /// # Errors
    /// When a frame is larger than allowed, or `each` says so.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Head, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        while !self.held.is_empty() && !bytes.is_empty() {
            let wanted = wanted(&self.held)?;
            let take = (wanted - self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if let Some((head, payload, _)) = whole(&self.held)? {
                each(head, payload)?;
                self.held.clear();
            }
        }
        while let Some((head, payload, used)) = whole(bytes)? {
            each(head, payload)?;
            bytes = &bytes[used..];
        }
        match bytes {
            [] if self.held.is_empty() => self.held = Vec::new(),
            _ => self.held.extend_from_slice(bytes),
        }
        Ok(())
    }
}

type Whole<'a> = (Head, &'a [u8], usize);

/// Bytes of the head, or, once that is there, of the whole frame.
fn wanted(bytes: &[u8]) -> Result<usize, Malformed> {
    let Some(head) = bytes.first_chunk().map(Head::read) else { return Ok(HEAD_BYTES) };
    if head.len > PAYLOAD_BYTES_MAX {
        return Err(Malformed("a frame larger than allowed"));
    }
    Ok(HEAD_BYTES + head.len)
}

/// The frame at the front, and how many bytes it takes.
fn whole(bytes: &[u8]) -> Result<Option<Whole<'_>>, Malformed> {
    let wanted = wanted(bytes)?;
    let Some(head) = bytes.first_chunk().map(Head::read) else { return Ok(None) };
    Ok(bytes.get(HEAD_BYTES..wanted).map(|payload| (head, payload, wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_cuts_alike() {
        let mut wire = Vec::new();
        put_settings(&mut wire, &[(setting::ENABLE_PUSH, 0)]);
        put(&mut wire, kind::DATA, flag::END_STREAM, 7, &[5; 300]);
        put(&mut wire, kind::DATA, 0, 9, b"");
        put_window(&mut wire, 0, 1);
        for step in 1..wire.len() {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in wire.chunks(step) {
                let mut note = |head: Head, payload: &[u8]| {
                    seen.push((head.kind, head.stream, payload.len()));
                    Ok(())
                };
                frames.feed(piece, &mut note).unwrap();
            }
            assert_eq!(seen, [(4, 0, 6), (0, 7, 300), (0, 9, 0), (8, 0, 4)], "step {step}");
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_refused() {
        let head = [0, 0x40, 1, 0, 0, 0, 0, 0, 1];
        assert!(Frames::default().feed(&head, |_, _| Ok(())).is_err());
    }
}
