//! What both ends of a connection do alike (RFC 9113, sections 5 and 6): settings, windows, pings, blocks in pieces.
//!
//! Owns the connection's state. Never knows requests from answers.

use super::fields::Fields;
use super::frame::{self, Frames, Head, flag, kind, setting};
use super::hpack::{Decoder, TABLE_BYTES};
use crate::http::Malformed;

/// Window that is given to each stream of the peer, and to all together, in bytes: never what holds a transfer back.
pub const OWN_WINDOW_BYTES: u32 = 1 << 30;
/// Received bytes after which the connection's window is filled up again.
const CREDIT_BYTES: usize = 16 << 20;
/// Largest block in pieces, in bytes.
const BLOCK_BYTES_MAX: usize = 256 * 1024;

/// What came.
pub enum Item<'a> {
    /// A whole block.
    Headers {
        /// On which stream.
        stream: u32,
        /// Whether the stream's other side has ended.
        end: bool,
        /// Decoded.
        fields: &'a Fields,
    },
    /// A piece of a body.
    Data {
        /// On which stream.
        stream: u32,
        /// Whether the stream's other side has ended.
        end: bool,
        /// Without padding.
        bytes: &'a [u8],
    },
    /// The peer gave a stream up.
    Reset {
        /// Which.
        stream: u32,
        /// Why: one of [`frame::code`], or unknown.
        code: u32,
    },
    /// The peer takes no further streams.
    GoAway {
        /// The last one that it cares for.
        last: u32,
    },
    /// A stream's window grew.
    Window {
        /// Which stream's.
        stream: u32,
        /// By so many bytes.
        by: i64,
    },
    /// The peer's settings changed all streams' windows by so many bytes, maybe none.
    Settings {
        /// Negative when they shrank.
        window_change: i64,
    },
}

/// What the peer allows.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// A new stream's window.
    pub window: i64,
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// Streams at once.
    pub streams_max: usize,
    /// Bytes of its table.
    pub table_bytes: usize,
}

/// One end of a connection.
pub struct Link {
    frames: Frames,
    /// Everything but the cutting.
    pub state: State,
}

/// One end of a connection, without the cutting into frames.
pub struct State {
    decoder: Decoder,
    fields: Fields,
    /// A block in pieces, and of which stream.
    block: Vec<u8>,
    block_of: Option<(u32, bool)>,
    /// Received bytes of bodies, not given back yet.
    uncredited: usize,
    /// To be sent.
    pub out: Vec<u8>,
    /// What may be sent on all streams together.
    pub window: i64,
    /// What the peer allows.
    pub peer: Peer,
}

impl Link {
    /// One that has its SETTINGS ready to be sent, after `preface`.
    pub fn new(preface: &[u8], settings: &[(u16, u32)]) -> Link {
        let mut out = preface.to_vec();
        let mut all = vec![(setting::INITIAL_WINDOW_SIZE, OWN_WINDOW_BYTES)];
        all.extend_from_slice(settings);
        frame::put_settings(&mut out, &all);
        frame::put_window(&mut out, 0, OWN_WINDOW_BYTES - frame::WINDOW_BYTES as u32);
        let state = State {
            decoder: Decoder::default(),
            fields: Fields::default(),
            block: Vec::new(),
            block_of: None,
            uncredited: 0,
            out,
            window: frame::WINDOW_BYTES,
            peer: Peer {
                window: frame::WINDOW_BYTES,
                payload_bytes_max: frame::PAYLOAD_BYTES_MAX,
                streams_max: usize::MAX,
                table_bytes: TABLE_BYTES,
            },
        };
        Link { frames: Frames::default(), state }
    }

    /// Takes bytes as they came and hands over what they mean.
    ///
    /// # Errors
    /// When they break the rules of the connection, or `each` says so.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&mut State, Item) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let state = &mut self.state;
        self.frames.feed(bytes, |head, payload| state.frame(head, payload, &mut each))
    }
}

impl State {
    fn frame(
        &mut self,
        head: Head,
        payload: &[u8],
        each: &mut impl FnMut(&mut State, Item) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if self.block_of.is_some() && head.kind != kind::CONTINUATION {
            return Err(Malformed("a block that is interrupted"));
        }
        let stream = head.stream;
        match head.kind {
            kind::DATA => {
                self.credit(payload.len());
                let bytes = unpadded(head, payload)?;
                each(self, Item::Data { stream, end: head.has(flag::END_STREAM), bytes })
            }
            kind::HEADERS => {
                let mut fragment = unpadded(head, payload)?;
                if head.has(flag::PRIORITY) {
                    fragment = fragment.get(5..).ok_or(Malformed("a priority that is cut off"))?;
                }
                self.block_of = Some((stream, head.has(flag::END_STREAM)));
                self.block.clear();
                self.more_block(head, fragment, each)
            }
            kind::CONTINUATION => match self.block_of {
                Some((of, _)) if of == stream => self.more_block(head, payload, each),
                _ => Err(Malformed("a continuation of nothing")),
            },
            kind::RST_STREAM => each(self, Item::Reset { stream, code: frame::number(payload)? }),
            kind::SETTINGS if !head.has(flag::ACK) => {
                let window_change = self.settings(payload)?;
                frame::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, b"");
                each(self, Item::Settings { window_change })
            }
            kind::PING if !head.has(flag::ACK) => {
                frame::put(&mut self.out, kind::PING, flag::ACK, 0, payload);
                Ok(())
            }
            kind::GOAWAY => each(self, Item::GoAway { last: frame::number(payload)? }),
            kind::WINDOW_UPDATE => {
                let by = frame::number(payload)?.into();
                if stream == 0 {
                    self.window += by;
                    if self.window > frame::WINDOW_BYTES_MAX {
                        return Err(Malformed("a window above its limit"));
                    }
                }
                each(self, Item::Window { stream, by })
            }
            kind::PUSH_PROMISE => Err(Malformed("a push that was not allowed")),
            _ => Ok(()), // Acknowledgements, priorities, and what is not known.
        }
    }

    fn more_block(
        &mut self,
        head: Head,
        fragment: &[u8],
        each: &mut impl FnMut(&mut State, Item) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let whole_at_once = self.block.is_empty() && head.has(flag::END_HEADERS);
        let mut fields = std::mem::take(&mut self.fields);
        if whole_at_once {
            self.decoder.decode(fragment, &mut fields)?;
        } else {
            self.block.extend_from_slice(fragment);
            if self.block.len() > BLOCK_BYTES_MAX {
                return Err(Malformed("a block that is too large"));
            }
            if !head.has(flag::END_HEADERS) {
                self.fields = fields;
                return Ok(());
            }
            self.decoder.decode(&self.block, &mut fields)?;
            self.block.clear();
        }
        let (stream, end) = self.block_of.take().unwrap_or((head.stream, false));
        let seen = each(self, Item::Headers { stream, end, fields: &fields });
        self.fields = fields;
        seen
    }

    fn settings(&mut self, payload: &[u8]) -> Result<i64, Malformed> {
        let (settings, []) = payload.as_chunks::<6>() else {
            return Err(Malformed("settings that are cut off"));
        };
        let before = self.peer.window;
        for &[a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([a, b]) {
                setting::HEADER_TABLE_SIZE => self.peer.table_bytes = value as usize,
                setting::MAX_CONCURRENT_STREAMS => self.peer.streams_max = value as usize,
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > frame::WINDOW_BYTES_MAX => {
                    return Err(Malformed("a window above its limit"));
                }
                setting::INITIAL_WINDOW_SIZE => self.peer.window = value.into(),
                setting::MAX_FRAME_SIZE => self.peer.payload_bytes_max = value as usize,
                _ => {}
            }
        }
        Ok(self.peer.window - before)
    }

    /// Gives the connection's window back, many bytes at a time. Streams have all that a body can need.
    fn credit(&mut self, bytes: usize) {
        self.uncredited += bytes;
        if self.uncredited >= CREDIT_BYTES {
            frame::put_window(&mut self.out, 0, self.uncredited as u32);
            self.uncredited = 0;
        }
    }

    /// How much of `left` bytes may go out on a stream with this window, in one frame.
    pub fn allowance(&self, stream_window: i64, left: usize) -> usize {
        let window = usize::try_from(self.window.min(stream_window)).unwrap_or(0);
        left.min(window).min(self.peer.payload_bytes_max)
    }

    /// Sends a block, in pieces when it is large.
    pub fn put_headers(&mut self, stream: u32, end: bool, block: &[u8]) {
        let end_stream = if end { flag::END_STREAM } else { 0 };
        let mut pieces = block.chunks(self.peer.payload_bytes_max.max(1)).peekable();
        let mut kind = kind::HEADERS;
        let mut flags = end_stream;
        loop {
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            frame::put(&mut self.out, kind, flags | if last { flag::END_HEADERS } else { 0 }, stream, piece);
            if last {
                return;
            }
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }
}

fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Malformed> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let cut = || {
        let (&padding, rest) = payload.split_first()?;
        rest.get(..rest.len().checked_sub(padding.into())?)
    };
    cut().ok_or(Malformed("more padding than payload"))
}

/// Whether a field may stand in a message of HTTP/2 at all (RFC 9113, section 8.2), pseudo-fields apart.
pub fn is_allowed(name: &[u8], value: &[u8]) -> bool {
    const CONNECTION: [&[u8]; 5] =
        [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];
    !name.is_empty()
        && !name.iter().any(|b| b.is_ascii_uppercase() || *b <= b' ' || *b == b':' || *b >= 0x7f)
        && !value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n'))
        && !CONNECTION.contains(&name)
        && (name != b"te" || value == b"trailers")
}
