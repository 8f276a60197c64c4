//! Reads answers as a client does, and compares the body with what was expected while it streams.
//!
//! Owns framing (RFC 9112, section 6.3) for answers to `GET` and to an upgrade. Never keeps a body.

use super::chunked::Chunked;
use super::{HEAD_BYTES_MAX, Malformed, fields};

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status, 101 or 200..=599: other interim answers are skipped.
    pub status: u16,
    /// Whether the body is exactly the expected one.
    pub body_ok: bool,
    /// Whether the connection may be used again.
    pub keep: bool,
}

/// How the body of the answer at hand is framed.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Head,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Stage {
    /// Hands on what belongs to the body and returns how much that was.
    fn body(&mut self, bytes: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        match self {
            Stage::Head => Ok(0),
            Stage::Length(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                sink(&bytes[..len]);
                *left -= len as u64;
                Ok(len)
            }
            Stage::Chunked(chunked) => chunked.feed(bytes, sink),
            Stage::UntilClose => {
                sink(bytes);
                Ok(bytes.len())
            }
        }
    }
}

/// Reads the answers of one connection, one after the other.
#[derive(Debug)]
pub struct ResponseReader {
    stage: Stage,
    /// A head that came in pieces; empty, and without memory, nearly always.
    held: Vec<u8>,
    answer: Answer,
    /// Body bytes so far.
    body: usize,
}

impl Default for ResponseReader {
    fn default() -> Self {
        let answer = Answer { status: 0, body_ok: true, keep: true };
        ResponseReader { stage: Stage::Head, held: Vec::new(), answer, body: 0 }
    }
}

impl ResponseReader {
    /// Whether nothing of an answer was read yet.
    pub fn is_fresh(&self) -> bool {
        matches!(self.stage, Stage::Head) && self.held.is_empty()
    }

    /// Takes bytes as they came and returns how many were used, with the answer once it is whole. Unused bytes follow
    /// it.
    ///
    /// # Errors
    /// When the answer breaks the syntax or its framing.
    pub fn feed(&mut self, bytes: &[u8], expected: &[u8]) -> Result<(usize, Option<Answer>), Malformed> {
        let Some(mut used) = self.heads(bytes)? else { return Ok((bytes.len(), None)) };
        let (body, ok) = (&mut self.body, &mut self.answer.body_ok);
        used += self.stage.body(&bytes[used..], |piece| {
            *ok = *ok && expected.get(*body..*body + piece.len()) == Some(piece);
            *body += piece.len();
        })?;
        if !self.is_whole() {
            return Ok((used, None));
        }
        Ok((used, Some(self.finish(expected))))
    }

    /// As [`ResponseReader::feed`], with each piece of the body handed on instead of compared. Returns whether the
    /// answer is whole.
    ///
    /// # Errors
    /// When the answer breaks the syntax or its framing, or bytes follow it.
    pub fn feed_to(&mut self, bytes: &[u8], sink: impl FnMut(&[u8])) -> Result<bool, Malformed> {
        let Some(mut used) = self.heads(bytes)? else { return Ok(false) };
        used += self.stage.body(&bytes[used..], sink)?;
        if used < bytes.len() {
            return Err(Malformed("bytes after the answer"));
        }
        Ok(self.is_whole())
    }

    /// The status of the answer whose body is being read; `None` before its head is whole.
    pub fn status(&self) -> Option<u16> {
        (!matches!(self.stage, Stage::Head)).then_some(self.answer.status)
    }

    /// Reads heads up to the body; `None` when more bytes are needed.
    fn heads(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut used = 0;
        while let Stage::Head = self.stage {
            let Some(took) = self.head(&bytes[used..])? else { return Ok(None) };
            used += took;
        }
        Ok(Some(used))
    }

    /// The connection ended: the answer, if its body was delimited by that.
    pub fn end(&mut self, expected: &[u8]) -> Option<Answer> {
        matches!(self.stage, Stage::UntilClose).then(|| self.finish(expected))
    }

    /// Reads one head; `None` when it is not whole yet and all bytes were kept.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        if self.held.is_empty()
            && let Some(end) = fields::head_end(bytes, 0)
        {
            self.parse_head(&bytes[..end])?;
            return Ok(Some(end));
        }
        let before = self.held.len();
        if before + bytes.len() > HEAD_BYTES_MAX {
            return Err(Malformed("a head too large"));
        }
        self.held.extend_from_slice(bytes);
        let Some(end) = fields::head_end(&self.held, before) else { return Ok(None) };
        let held = std::mem::take(&mut self.held);
        self.parse_head(&held[..end])?;
        Ok(Some(end - before))
    }

    fn parse_head(&mut self, head: &[u8]) -> Result<(), Malformed> {
        let mut rest = &head[..head.len() - 2];
        let (status, minor) = status_line(fields::line(&mut rest)?)?;
        let (mut length, mut chunked, mut keep) = (None, false, minor == 1);
        while !rest.is_empty() {
            let (name, value) = fields::field(fields::line(&mut rest)?)?;
            // Only lengths that the names at hand have are compared.
            match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => fields::only_length(&mut length, value)?,
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Malformed("a Transfer-Encoding other than chunked"));
                    }
                    chunked = true;
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    keep = if minor == 1 {
                        keep && !fields::lists(value, b"close")
                    } else {
                        fields::lists(value, b"keep-alive")
                    };
                }
                _ => {}
            }
        }
        if status < 200 && status != 101 {
            return Ok(()); // An interim answer: the next head follows.
        }
        self.stage = match (status, chunked, length) {
            (101 | 204 | 304, _, _) => Stage::Length(0),
            (_, true, Some(_)) => return Err(Malformed("both Content-Length and Transfer-Encoding")),
            (_, true, None) => Stage::Chunked(Chunked::default()),
            (_, false, Some(length)) => Stage::Length(length),
            (_, false, None) => Stage::UntilClose,
        };
        self.answer = Answer { status, body_ok: true, keep: keep && !matches!(self.stage, Stage::UntilClose) };
        self.body = 0;
        Ok(())
    }

    fn is_whole(&self) -> bool {
        match &self.stage {
            Stage::Head | Stage::UntilClose => false,
            Stage::Length(left) => *left == 0,
            Stage::Chunked(chunked) => chunked.is_done(),
        }
    }

    fn finish(&mut self, expected: &[u8]) -> Answer {
        self.stage = Stage::Head;
        Answer { body_ok: self.answer.body_ok && self.body == expected.len(), ..self.answer }
    }
}

/// Status and minor version of `HTTP/1.x NNN reason`.
fn status_line(line: &[u8]) -> Result<(u16, u8), Malformed> {
    const WRONG: Malformed = Malformed("a status line that is none");
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(WRONG)?;
    let [minor @ (b'0' | b'1'), b' ', h @ b'1'..=b'5', t, u, after @ ..] = rest else { return Err(WRONG) };
    if !t.is_ascii_digit() || !u.is_ascii_digit() || !(after.is_empty() || after[0] == b' ') {
        return Err(WRONG);
    }
    let digit = |b: &u8| u16::from(b - b'0');
    Ok((digit(h) * 100 + digit(t) * 10 + digit(u), minor - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], step: usize, expected: &[u8]) -> Result<Vec<Answer>, Malformed> {
        let (mut reader, mut answers) = (ResponseReader::default(), Vec::new());
        for mut piece in wire.chunks(step) {
            while !piece.is_empty() {
                let (used, answer) = reader.feed(piece, expected)?;
                answers.extend(answer);
                piece = &piece[used..];
            }
        }
        answers.extend(reader.end(expected));
        Ok(answers)
    }

    const OK: Answer = Answer { status: 200, body_ok: true, keep: true };

    #[test]
    fn any_split_reads_alike() {
        let wire = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
            HTTP/1.1 200\r\ntransfer-encoding: Chunked\r\nConnection: x, Close\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n";
        for step in 1..wire.len() {
            assert_eq!(read(wire, step, b"abc"), Ok(vec![OK, Answer { keep: false, ..OK }]), "step {step}");
        }
    }

    #[test]
    fn a_body_that_differs_shows() {
        for body in ["abd", "ab", "abcd", ""] {
            let wire = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            assert_eq!(read(wire.as_bytes(), 7, b"abc"), Ok(vec![Answer { body_ok: false, ..OK }]), "{body:?}");
        }
    }

    #[test]
    fn without_a_length_the_end_delimits() {
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\nabc", 5, b"abc"), Ok(vec![Answer { keep: false, ..OK }]));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", 5, b"abc"), Ok(vec![]));
    }

    #[test]
    fn ambiguous_framing_is_malformed() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 600 X\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
        ] {
            assert!(read(head.as_bytes(), 9, b"").is_err(), "{head:?}");
        }
    }
}
