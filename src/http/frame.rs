//! Frames of HTTP/2 (RFC 9113, section 4.1) as whoever looks on sees them: their heads, among bytes that come in pieces.
//!
//! Owns where in the frames a piece is. Never looks into a payload, and never judges a frame.

/// Bytes of a frame before its payload.
pub const FRAME_HEAD_BYTES: usize = 9;

/// The kind of a frame of content (RFC 9113, section 6.1).
pub const DATA: u8 = 0;
/// Of one that begins a list of fields (section 6.2).
pub const HEADERS: u8 = 1;
/// Of one that ranks a stream, which nobody looks at any more (section 6.3).
pub const PRIORITY: u8 = 2;
/// Of one that ends a stream at once (section 6.4).
pub const RST_STREAM: u8 = 3;
/// Of one with settings, or that takes them (section 6.5).
pub const SETTINGS: u8 = 4;
/// Of one that asks for a sign of life, or gives it (section 6.7).
pub const PING: u8 = 6;
/// Of one that ends the connection with the streams it has (section 6.8).
pub const GOAWAY: u8 = 7;
/// Of one that makes room (section 6.9).
pub const WINDOW_UPDATE: u8 = 8;
/// Of one that goes on with a list of fields (section 6.10).
pub const CONTINUATION: u8 = 9;
/// The flag of the last DATA or HEADERS of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of a SETTINGS or PING that answers one.
pub const ACK: u8 = 1;
/// The flag of a DATA or HEADERS with padding.
pub const PADDED: u8 = 8;
/// The flag of a HEADERS that ranks its stream.
pub const PRIORITIZED: u8 = 32;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// As it came.
    pub bytes: [u8; FRAME_HEAD_BYTES],
    /// Bytes of payload behind it.
    pub len: usize,
    /// Such as [`DATA`].
    pub kind: u8,
    /// Such as [`END_STREAM`].
    pub flags: u8,
}

impl FrameHead {
    fn new(bytes: [u8; FRAME_HEAD_BYTES]) -> FrameHead {
        let [a, b, c, kind, flags, ..] = bytes;
        FrameHead { bytes, len: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c), kind, flags }
    }

    /// Whether it ends its stream, if it is of a kind that can.
    pub fn is_end_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// How large a list of fields is as it comes: a HEADERS and whatever continues it.
#[derive(Debug, Default)]
pub struct FieldBlock {
    bytes: usize,
}

impl FieldBlock {
    /// Takes note of a frame; how many bytes the list has with it, 0 for a frame of another kind.
    pub fn add(&mut self, head: &FrameHead) -> usize {
        match head.kind {
            HEADERS => self.bytes = head.len,
            CONTINUATION => self.bytes = self.bytes.saturating_add(head.len),
            _ => return 0,
        }
        self.bytes
    }
}

/// Where in the frames the bytes so far end.
#[derive(Debug)]
pub struct FrameWalk {
    /// Bytes of payload still to come.
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_len: usize,
}

/// What the beginning of a piece holds: the rest of a payload, the bytes of a head behind it, and that head if it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Bytes of payload.
    pub payload: usize,
    /// Bytes of the head behind it, up to its end or that of the piece.
    pub head_bytes: usize,
    /// The head, once it is whole.
    pub head: Option<FrameHead>,
}

impl FrameWalk {
    /// From before the first frame, behind so many bytes that are none.
    pub fn behind(bytes: usize) -> FrameWalk {
        FrameWalk { skip: bytes, head: [0; FRAME_HEAD_BYTES], head_len: 0 }
    }

    /// Looks at the beginning of the next piece, up to the end of a head. Called again with what the step leaves of it.
    pub fn step(&mut self, piece: &[u8]) -> Step {
        let payload = self.skip.min(piece.len());
        self.skip -= payload;
        let head_bytes = self.missing().min(piece.len() - payload);
        let came = &piece[payload..payload + head_bytes];
        self.head[self.head_len..self.head_len + head_bytes].copy_from_slice(came);
        self.head_len += head_bytes;
        let is_whole = self.head_len == FRAME_HEAD_BYTES;
        if is_whole {
            self.head_len = 0;
        }
        let head = is_whole.then(|| FrameHead::new(self.head));
        self.skip += head.map_or(0, |head| head.len);
        Step { payload, head_bytes, head }
    }

    /// Whether some bytes of a head came, and not all.
    pub fn is_within_head(&self) -> bool {
        self.head_len > 0
    }

    /// Bytes that the head lacks.
    pub fn missing(&self) -> usize {
        FRAME_HEAD_BYTES - self.head_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_however_they_are_cut() {
        let bytes = [b"xyz".as_slice(), &[0, 0, 2, 0, 1, 0, 0, 0, 1, 7, 7], &[0, 0, 0, 1, 4, 0, 0, 0, 3]].concat();
        for size in 1..=bytes.len() {
            let (mut walk, mut heads, mut payload) = (FrameWalk::behind(3), Vec::new(), 0);
            for mut piece in bytes.chunks(size) {
                while !piece.is_empty() {
                    let step = walk.step(piece);
                    piece = &piece[step.payload + step.head_bytes..];
                    payload += step.payload;
                    heads.extend(step.head);
                }
            }
            let told: Vec<_> = heads.iter().map(|head| (head.kind, head.len, head.is_end_stream())).collect();
            assert_eq!((told, payload), (vec![(DATA, 2, true), (HEADERS, 0, false)], 5), "in pieces of {size}");
            assert!(!walk.is_within_head());
        }
    }
}
