//! Event streams (WHATWG HTML, section 9.2) from bytes as they come.
//!
//! Owns the lines and the data of the event that is under way. Never reads a socket, and keeps nothing of an event but
//! its data.

/// Bytes of an event at most: the figures of some 20,000 backends.
pub const EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The event is longer than [`EVENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Takes pieces, however they are cut, and tells the data of each event that is complete.
#[derive(Debug, Default)]
pub struct EventParser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// A line feed that comes now belongs to the carriage return before it.
    is_after_cr: bool,
}

impl EventParser {
    /// Takes a piece and calls `event` with the data of each event that it completes.
    ///
    /// # Errors
    /// [`TooLong`]; what comes after it makes no sense any more.
    pub fn push(&mut self, mut piece: &[u8], mut event: impl FnMut(Vec<u8>)) -> Result<(), TooLong> {
        while let Some(&first) = piece.first() {
            if std::mem::take(&mut self.is_after_cr) && first == b'\n' {
                piece = &piece[1..];
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', piece);
            let part = &piece[..end.unwrap_or(piece.len())];
            if self.data.len() + self.line.len() + part.len() > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.is_after_cr = piece[end] == b'\r';
            piece = &piece[end + 1..];
            if let Some(data) = self.end_line() {
                event(data);
            }
        }
        Ok(())
    }

    /// Takes the line that is complete; an empty one ends the event.
    fn end_line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            return std::mem::take(&mut self.has_data).then_some(data);
        }
        let value = match line.strip_prefix(b"data:") {
            Some(value) => value.strip_prefix(b" ").unwrap_or(value),
            None if line == b"data" => b"",
            // Comments, names and ids: nothing here needs them.
            None => return None,
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b": hello\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:one\r\ndata: two\r\nid: 7\r\n\r\n\
                            data\rdata:  three\r\r:\n\ndata:\n\nretry: 5\n\ndata: unended";

    fn parsed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let (mut parser, mut events) = (EventParser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, |data| events.push(String::from_utf8(data).unwrap())).unwrap();
        }
        events
    }

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        let expected = ["{\"a\":1}", "one\ntwo", "\n three", ""];
        assert_eq!(parsed([STREAM]), expected);
        for first in 0..=STREAM.len() {
            for second in first..=STREAM.len() {
                let pieces = [&STREAM[..first], &STREAM[first..second], &STREAM[second..]];
                assert_eq!(parsed(pieces), expected, "cut at {first} and {second}");
            }
        }
        assert_eq!(parsed(STREAM.chunks(1)), expected);
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut parser = EventParser::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2];
        let none = |_| panic!("no event has ended");
        assert_eq!(parser.push(b"data: y\n", none), Ok(()));
        assert_eq!(parser.push(&piece, none), Ok(()));
        assert_eq!(parser.push(&piece, none), Err(TooLong));
    }
}
