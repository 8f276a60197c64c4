//! A body on its way through: taken off one side's framing, put into the other's.
//!
//! Owns how much of a body is still to come. Never reads a socket and never holds a byte of the body.

use std::ops::Range;

use crate::error::{Fault, Reason};
use crate::http::chunked::ChunkDecoder;
use crate::http::framing::{BodyFraming, Sender};
use crate::http::trailers::Passing;

/// Where a body comes from.
#[derive(Debug, Default)]
pub enum Source {
    /// All of it came.
    #[default]
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks are still to come.
    Chunked(ChunkDecoder),
    /// It ends with the connection.
    UntilClose,
}

/// What one buffer held of a body.
#[derive(Debug)]
pub struct Piece {
    /// Where in the buffer its bytes are now.
    pub data: Range<usize>,
    /// How much of the buffer was framing or body; what follows belongs to whatever comes next.
    pub consumed: usize,
}

impl Source {
    /// The source of a request's body; `passing` says which of its trailers go on.
    pub fn new(framing: BodyFraming, passing: Passing) -> Source {
        match framing {
            BodyFraming::None | BodyFraming::Length(0) => Source::Done,
            BodyFraming::Length(n) => Source::Length(n),
            BodyFraming::Chunked => Source::chunked(Sender::Client, passing),
        }
    }

    /// The source of a body in chunks.
    pub fn chunked(sender: Sender, passing: Passing) -> Source {
        Source::Chunked(ChunkDecoder::new(sender, passing))
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, Source::Done)
    }

    /// Takes what `buf` holds of the body; chunks are joined to one piece in place. On completion the trailers, if any
    /// came, are handed to `trailers`.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn take(&mut self, buf: &mut [u8], trailers: &mut Vec<u8>) -> Result<Piece, Fault> {
        match self {
            Source::Done => Ok(Piece { data: 0..0, consumed: 0 }),
            Source::UntilClose => Ok(Piece { data: 0..buf.len(), consumed: buf.len() }),
            Source::Length(left) => {
                let n = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                if *left == 0 {
                    *self = Source::Done;
                }
                Ok(Piece { data: 0..n, consumed: n })
            }
            Source::Chunked(decoder) => {
                let decoded = decoder.decode(buf)?;
                if decoded.done {
                    trailers.extend_from_slice(decoder.trailers());
                    *self = Source::Done;
                }
                Ok(Piece { data: decoded.data, consumed: decoded.consumed })
            }
        }
    }

    /// The sender's side ended.
    ///
    /// # Errors
    /// [`Reason::BackendTruncated`] when more was announced.
    pub fn end(&mut self) -> Result<(), Fault> {
        match self {
            Source::Done => Ok(()),
            Source::UntilClose => {
                *self = Source::Done;
                Ok(())
            }
            Source::Length(_) | Source::Chunked(_) => Err(Reason::BackendTruncated.into()),
        }
    }
}

/// How a body goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// As it is: its length was announced, or the connection's end ends it.
    #[default]
    Identity,
    /// As chunks.
    Chunked,
}

/// The bytes before and after a piece of a body.
#[derive(Debug, Default)]
pub struct Framed {
    head: [u8; 18],
    head_len: usize,
}

impl Sink {
    /// What goes before `len` bytes of body.
    pub fn frame(self, len: usize) -> Framed {
        let mut framed = Framed::default();
        if self == Sink::Chunked && len > 0 {
            let mut room = [0; 18];
            let head = crate::http::chunked::write_chunk_head(len as u64, &mut room);
            framed.head[..head.len()].copy_from_slice(head);
            framed.head_len = head.len();
        }
        framed
    }

    /// What goes behind a piece of `len` bytes, in three parts: with the last piece the end of the body, trailers in it.
    pub fn behind(self, len: usize, is_last: bool, trailers: &[u8]) -> [&[u8]; 3] {
        match (self, is_last, len) {
            (Sink::Identity, _, _) | (Sink::Chunked, false, 0) => [b"", b"", b""],
            (Sink::Chunked, false, _) => [b"\r\n", b"", b""],
            (Sink::Chunked, true, 0) => [b"0\r\n", trailers, b"\r\n"],
            (Sink::Chunked, true, _) => [b"\r\n0\r\n", trailers, b"\r\n"],
        }
    }
}

impl Framed {
    /// The bytes before the piece.
    pub fn head(&self) -> &[u8] {
        &self.head[..self.head_len]
    }
}
