//! The chunked transfer coding (RFC 9112, section 7.1).
//!
//! Owns decoding in place, whatever way the input is split, and the bytes around an encoded chunk. Never holds body
//! bytes; only a trailer section is kept, and that is bounded.

use std::ops::Range;

use crate::error::Fault;
use crate::http::fields::{is_token, parse_fields};
use crate::http::framing::Sender;
use crate::http::head::{FieldTable, Fields};
use crate::http::trailers::Passing;
use crate::limits::{
    CHUNK_LINE_BYTES_MAX, REQUEST_TRAILER_BYTES_MAX, REQUEST_TRAILERS_COUNT_MAX, RESPONSE_TRAILER_BYTES_MAX,
    RESPONSE_TRAILERS_COUNT_MAX,
};

/// Most digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: u16 = 16;

/// What one call of [`ChunkDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Where in the buffer the decoded bytes now are, in one piece.
    pub data: Range<usize>,
    /// How many bytes of the buffer were read; all of them unless the body ended.
    pub consumed: usize,
    /// Whether the last chunk and its trailer section were read.
    pub done: bool,
}

/// Decodes a chunked body piece by piece.
#[derive(Debug)]
pub struct ChunkDecoder {
    /// Bytes of the current chunk still to come; the size while it is read.
    remaining: u64,
    /// Raw trailer section while it comes in, canonical field lines once it is whole.
    trailers: Option<Box<Trailers>>,
    /// Bytes of the current chunk line so far.
    line_len: u16,
    state: State,
    sender: Sender,
    passing: Passing,
}

/// Boxed, because few bodies have any and every decoder would carry its size.
#[derive(Debug, Default)]
struct Trailers {
    lines: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    SizeStart,
    Size,
    /// Behind `;`: optional whitespace, then a name.
    ExtStart,
    ExtName,
    /// Whitespace behind a name: `=` or `;` has to follow.
    ExtNameEnd,
    /// Behind `=`.
    ExtValueStart,
    ExtValue,
    Quoted,
    QuotedPair,
    /// Behind the closing quote.
    QuotedEnd,
    /// Whitespace behind a value: `;` has to follow.
    ExtValueEnd,
    /// Behind the CR of a chunk line.
    LineLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    TrailerStart,
    /// Behind a CR at the start of such a line.
    TrailerEndLf,
    TrailerLine,
    Done,
}

impl ChunkDecoder {
    /// A decoder for the body that `sender` sends; `passing` says which of its trailers go on.
    pub const fn new(sender: Sender, passing: Passing) -> ChunkDecoder {
        ChunkDecoder { remaining: 0, trailers: None, line_len: 0, state: State::SizeStart, sender, passing }
    }

    /// Whether the body ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields that may be passed on, as lines `name: value CRLF`; empty until the body ended.
    pub fn trailers(&self) -> &[u8] {
        match &self.trailers {
            Some(trailers) if self.is_done() => &trailers.lines,
            _ => &[],
        }
    }

    /// Reads `buf` and moves the data of all chunks in it together.
    ///
    /// Refuses sizes that overflow, have whitespace, signs or prefixes, lines over [`CHUNK_LINE_BYTES_MAX`], malformed
    /// extensions, missing line ends and malformed or too large trailer sections. After an error the body is lost.
    pub fn decode(&mut self, buf: &mut [u8]) -> Result<Decoded, Fault> {
        let mut at = 0;
        let mut data = 0..0;
        while at < buf.len() && self.state != State::Done {
            if self.state == State::Data {
                let len = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buf.len() - at);
                if data.is_empty() {
                    data = at..at + len;
                } else {
                    buf.copy_within(at..at + len, data.end);
                    data.end += len;
                }
                at += len;
                self.remaining -= len as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.step(buf[at])?;
                at += 1;
            }
        }
        Ok(Decoded { data, consumed: at, done: self.is_done() })
    }

    /// Reads one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<(), Fault> {
        self.state = match self.state {
            State::DataCr if byte == b'\r' => State::DataLf,
            State::DataLf if byte == b'\n' => State::SizeStart,
            State::DataCr | State::DataLf => {
                return self.malformed("the data of a chunk is not followed by CRLF (RFC 9112 7.1)");
            }
            State::TrailerStart | State::TrailerEndLf | State::TrailerLine => self.trailer_step(byte)?,
            State::Data | State::Done => self.state,
            _ => self.line_step(byte)?,
        };
        Ok(())
    }

    /// Reads one byte of `chunk-size [ chunk-ext ] CRLF`.
    fn line_step(&mut self, byte: u8) -> Result<State, Fault> {
        self.line_len += 1;
        if usize::from(self.line_len) > CHUNK_LINE_BYTES_MAX {
            return self.malformed("the line of a chunk is too long (RFC 9112 7.1.1)");
        }
        match self.state {
            State::LineLf if byte == b'\n' => {
                self.line_len = 0;
                Ok(if self.remaining == 0 { State::TrailerStart } else { State::Data })
            }
            State::LineLf => self.malformed("a bare CR in the line of a chunk (RFC 9112 2.2)"),
            State::SizeStart | State::Size => self.size_step(byte),
            state => match extension_step(state, byte) {
                Some(next) => Ok(next),
                None => self.malformed("a malformed chunk extension (RFC 9112 7.1.1)"),
            },
        }
    }

    fn size_step(&mut self, byte: u8) -> Result<State, Fault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.state == State::Size => return Ok(State::LineLf),
            b';' if self.state == State::Size => return Ok(State::ExtStart),
            _ => return self.malformed("a chunk size is not 1*HEXDIG (RFC 9112 7.1)"),
        };
        // A size has to leave room for sums: below 2^60.
        if self.line_len > SIZE_DIGITS_MAX || self.remaining >> 56 != 0 {
            return self.malformed("a chunk size overflows (RFC 9112 7.1)");
        }
        self.remaining = self.remaining << 4 | u64::from(digit);
        Ok(State::Size)
    }

    /// Reads one byte of the trailer section.
    fn trailer_step(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => return Ok(State::TrailerEndLf),
            (State::TrailerEndLf, b'\n') => return self.end_trailers(),
            (State::TrailerEndLf, _) => return self.malformed("a bare CR in the trailer section (RFC 9112 2.2)"),
            _ => {}
        }
        let (bytes_max, _) = trailers_max(self.sender, self.passing);
        let lines = &mut self.trailers.get_or_insert_default().lines;
        if (byte == b'\n') != (lines.last() == Some(&b'\r')) {
            return self.malformed("a bare CR or LF in the trailer section (RFC 9112 2.2)");
        }
        if lines.len() >= bytes_max {
            return Err(self.sender.too_large("the trailer section is too large (RFC 9110 6.5)"));
        }
        lines.push(byte);
        Ok(if byte == b'\n' { State::TrailerStart } else { State::TrailerLine })
    }

    fn end_trailers(&mut self) -> Result<State, Fault> {
        if let Some(Trailers { lines }) = self.trailers.as_deref_mut() {
            lines.extend_from_slice(b"\r\n");
            *lines = kept_trailers(lines, self.sender, self.passing)?;
        }
        Ok(State::Done)
    }

    #[cold]
    fn malformed<T>(&self, detail: &'static str) -> Result<T, Fault> {
        Err(self.sender.malformed(detail))
    }
}

/// `*( ";" BWS name [ BWS "=" BWS value ] )`; whitespace directly behind the size is refused by the caller.
fn extension_step(state: State, byte: u8) -> Option<State> {
    let is_space = matches!(byte, b' ' | b'\t');
    Some(match (state, byte) {
        (State::ExtStart, _) if is_space => State::ExtStart,
        (State::ExtStart | State::ExtName, _) if is_token(byte) => State::ExtName,
        (State::ExtName | State::ExtNameEnd, b'=') => State::ExtValueStart,
        (State::ExtName | State::ExtNameEnd, _) if is_space => State::ExtNameEnd,
        (State::ExtValueStart, _) if is_space => State::ExtValueStart,
        (State::ExtValueStart, b'"') => State::Quoted,
        (State::ExtValueStart | State::ExtValue, _) if is_token(byte) => State::ExtValue,
        (State::Quoted, b'"') => State::QuotedEnd,
        (State::Quoted, b'\\') => State::QuotedPair,
        (State::Quoted | State::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => State::Quoted,
        (State::ExtValue | State::QuotedEnd | State::ExtValueEnd, _) if is_space => State::ExtValueEnd,
        (State::ExtName | State::ExtNameEnd | State::ExtValue | State::QuotedEnd | State::ExtValueEnd, b';') => {
            State::ExtStart
        }
        (State::ExtName | State::ExtValue | State::QuotedEnd, b'\r') => State::LineLf,
        _ => return None,
    })
}

/// How large a trailer section may be: its bytes, and its fields.
fn trailers_max(sender: Sender, passing: Passing) -> (usize, usize) {
    match (passing, sender) {
        // Bounded when it came in.
        (Passing::Ours, _) => (usize::MAX, usize::MAX),
        (_, Sender::Client) => (REQUEST_TRAILER_BYTES_MAX, REQUEST_TRAILERS_COUNT_MAX),
        (_, Sender::Backend) => (RESPONSE_TRAILER_BYTES_MAX, RESPONSE_TRAILERS_COUNT_MAX),
    }
}

/// Checks a whole trailer section and writes those of its fields that may be passed on.
fn kept_trailers(section: &[u8], sender: Sender, passing: Passing) -> Result<Vec<u8>, Fault> {
    let (_, fields_max) = trailers_max(sender, passing);
    let mut table = FieldTable::default();
    let end = parse_fields(section, 0, fields_max, sender, &mut table)?;
    if end != Some(section.len()) {
        return Err(sender.malformed("a malformed trailer section (RFC 9112 7.1.2)"));
    }
    let mut lines = Vec::new();
    for field in (Fields { head: section, entries: &table.entries }).iter() {
        if passing.takes(&field) {
            for part in [field.name, b": ", field.value, b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }
    Ok(lines)
}

/// The end of a chunked body without trailer fields.
pub const LAST_CHUNK: &[u8; 5] = b"0\r\n\r\n";

/// What follows the data of each chunk.
pub const CHUNK_END: &[u8; 2] = b"\r\n";

/// The line that opens a chunk of `len` bytes, which must not be 0 (that would end the body).
pub fn write_chunk_head(len: u64, room: &mut [u8; 18]) -> &[u8] {
    debug_assert!(len > 0, "a chunk of no bytes ends the body");
    let mut start = 16;
    let mut rest = len;
    room[16] = b'\r';
    room[17] = b'\n';
    loop {
        start -= 1;
        room[start] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 || start == 0 {
            return &room[start..];
        }
    }
}

/// The end of a chunked body with the lines of [`ChunkDecoder::trailers`].
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    out.extend_from_slice(trailers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use proptest::prelude::*;

    /// What is decoded when the input comes in pieces that end at `cuts`: data, trailers, unread bytes.
    fn decode(input: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, Vec<u8>, usize), Fault> {
        let mut decoder = ChunkDecoder::new(Sender::Client, Passing::Http);
        let mut data = Vec::new();
        let mut start = 0;
        for &cut in cuts.iter().chain([&input.len()]) {
            let mut piece = input[start..cut].to_vec();
            let decoded = decoder.decode(&mut piece)?;
            data.extend_from_slice(&piece[decoded.data]);
            start += decoded.consumed;
            if decoded.done {
                return Ok((data, decoder.trailers().to_vec(), input.len() - start));
            }
        }
        Err(Fault::new(Reason::ClientClosed, "not whole"))
    }

    fn is_refused(body: &str) -> bool {
        let fault = decode(body.as_bytes(), &[]).unwrap_err();
        fault.reason == Reason::BadRequest || fault.reason == Reason::HeadTooLarge
    }

    #[test]
    fn a_decoder_is_small_while_it_waits() {
        assert!(size_of::<ChunkDecoder>() <= 32);
    }

    #[test]
    fn every_split_gives_the_same() {
        let input =
            b"5;a=b;c=\"d\\\" e\";f\r\nhello\r\n1\r\n \r\n0A\r\n0123456789\r\n000\r\nX-Sum:1 \r\nHost: a\r\n\r\nGET /";
        let whole = decode(input, &[]).unwrap();
        assert_eq!(whole, (b"hello 0123456789".to_vec(), b"X-Sum: 1\r\n".to_vec(), 5));
        for a in 0..input.len() - 5 {
            assert_eq!(decode(input, &[a]).unwrap().0, whole.0, "split at {a}");
        }
        let bytewise: Vec<usize> = (1..input.len() - 4).collect();
        let (data, trailers, _) = decode(input, &bytewise).unwrap();
        assert_eq!((data, trailers), (whole.0, whole.1));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in [
            "\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t\r\n",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            "1_0\r\n",
            "g\r\n",
            ";a\r\n",
            "5\n",
            "5\rh",
            "FFFFFFFFFFFFFFFF0\r\n",
            "ffffffffffffffff\r\n",
            "1000000000000000\r\n",
            "00000000000000005\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello!!\r\n",
            "5\r\nhello\n",
            "5\r\nhello\r0",
            "5;\r\n",
            "5;\n",
            "5;;a\r\n",
            "5 ;a\r\n",
            "5;a \r\n",
            "5;a= \r\n",
            "5;a=\r\n",
            "5;a=\"b\r\n",
            "5;a=\"b\"c\r\n",
            "5;bad[=x\r\n",
            "5;a\rX",
            "5;a\0\r\n",
            "5;=a\r\n",
            "5;a=\"\x7f\"\r\n",
            "0\r\n\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA: \0\r\n\r\n",
            "0\r\n\rx",
        ] {
            assert!(is_refused(body), "{body:?}");
        }
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let long = "a".repeat(CHUNK_LINE_BYTES_MAX);
        assert!(is_refused(&format!("5;{long}\r\n")));
        let line = "A: b\r\n";
        assert!(decode(format!("0\r\n{}\r\n", line.repeat(REQUEST_TRAILERS_COUNT_MAX)).as_bytes(), &[]).is_ok());
        assert!(is_refused(&format!("0\r\n{}\r\n", line.repeat(REQUEST_TRAILERS_COUNT_MAX + 1))));
        assert!(is_refused(&format!("0\r\nA: {}\r\n\r\n", "b".repeat(REQUEST_TRAILER_BYTES_MAX))));
    }

    #[test]
    fn a_backend_may_say_as_much_in_trailers_as_in_a_head() {
        let body = |bytes: usize| format!("0\r\nA: {}\r\n\r\n", "b".repeat(bytes));
        let decode = |body: String, passing| ChunkDecoder::new(Sender::Backend, passing).decode(&mut body.into_bytes());
        let line = "A: \r\n".len();
        assert!(decode(body(RESPONSE_TRAILER_BYTES_MAX - line), Passing::Grpc).is_ok());
        let refused = decode(body(RESPONSE_TRAILER_BYTES_MAX - line + 1), Passing::Grpc);
        assert_eq!(refused.unwrap_err().reason, Reason::BackendProtocol);
        // What was shortest as it came is longer as we write it.
        assert!(decode(body(RESPONSE_TRAILER_BYTES_MAX), Passing::Ours).is_ok());
    }

    #[test]
    fn trailers_go_on_by_their_rule() {
        let body = b"0\r\ngrpc-status: 0\r\nhost: a\r\ndate: b\r\n\r\n";
        for (passing, kept) in [
            (Passing::Http, &b"grpc-status: 0\r\n"[..]),
            (Passing::Grpc, b"grpc-status: 0\r\ndate: b\r\n"),
            (Passing::Ours, b"grpc-status: 0\r\nhost: a\r\ndate: b\r\n"),
        ] {
            let mut decoder = ChunkDecoder::new(Sender::Backend, passing);
            assert!(decoder.decode(&mut body.to_vec()).unwrap().done);
            assert_eq!(decoder.trailers(), kept, "{passing:?}");
        }
    }

    #[test]
    fn chunk_heads_read_back() {
        let mut room = [0; 18];
        assert_eq!(write_chunk_head(1, &mut room), b"1\r\n");
        assert_eq!(write_chunk_head(0xab_cdef, &mut room), b"abcdef\r\n");
        assert_eq!(write_chunk_head(u64::MAX, &mut room), b"ffffffffffffffff\r\n");
    }

    /// What a body decodes to in pieces of `step` bytes: data, trailers and bytes taken, or `None` when refused.
    fn in_pieces(body: &[u8], step: usize) -> Option<(Vec<u8>, Vec<u8>, usize, bool)> {
        let mut decoder = ChunkDecoder::new(Sender::Backend, Passing::Http);
        let (mut data, mut taken) = (Vec::new(), 0);
        for piece in body.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = decoder.decode(&mut piece).ok()?;
            data.extend_from_slice(&piece[decoded.data]);
            taken += decoded.consumed;
            if decoded.done {
                break;
            }
        }
        Some((data, decoder.trailers().to_vec(), taken, decoder.is_done()))
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6), step in 1usize..64,
        ) {
            let mut encoded = Vec::new();
            for chunk in &chunks {
                encoded.extend_from_slice(write_chunk_head(chunk.len() as u64, &mut [0; 18]));
                encoded.extend_from_slice(chunk);
                encoded.extend_from_slice(CHUNK_END);
            }
            write_last_chunk(&mut encoded, b"X-Sum: 1\r\n");
            let len = encoded.len();
            encoded.extend_from_slice(b"GET /");
            prop_assert_eq!(in_pieces(&encoded, step), Some((chunks.concat(), b"X-Sum: 1\r\n".to_vec(), len, true)));
        }

        #[test]
        fn any_bytes_decode_the_same_in_any_pieces(
            body in prop::collection::vec(prop::sample::select(b"0123a;=\"\\ \t\r\n:Xg\x80\x00".to_vec()), 0..40),
            step in 1usize..8,
        ) {
            prop_assert_eq!(in_pieces(&body, step), in_pieces(&body, body.len().max(1)));
        }
    }
}
