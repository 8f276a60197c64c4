//! Bytes on their way into a socket that did not take them yet.
//!
//! Owns at most what one read brought (back-pressure: nobody reads on before it is empty). Never decides what to send.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::client::Input;
use super::local::Local;
use crate::stream::Stream;

/// Most slices one write takes: what waits, head, chunk head, data, chunk end, trailers, empty line.
pub const PARTS_MAX: usize = 7;

/// What a socket still has to take.
#[derive(Debug, Default)]
pub struct Outflow {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outflow {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Adds bytes behind those that wait.
    pub fn append(&mut self, local: &Local, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes = local.take_buffer();
        }
        local.extend_buffer(&mut self.bytes, bytes);
    }

    /// Adds what a client sent and nobody used yet.
    pub fn append_input(&mut self, local: &Local, input: &mut Input) {
        if !input.is_empty() {
            self.append(local, input.unread());
            input.clear(local);
        }
    }

    /// Writes all that waits, in the connection too. Ready when it is all gone; the buffer is given back then. Adds to
    /// `sent` what the connection took, also when some is left: a slow peer makes progress.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        stream: &Stream,
        local: &Local,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let n = ready!(stream.poll_send(cx, &[IoSlice::new(&self.bytes[self.sent..])]))?;
            self.sent += n;
            *sent += n as u64;
        }
        self.clear(local);
        stream.poll_flush(cx)
    }

    /// One attempt to write what waits and then `parts`; what the socket does not take waits. Returns how many bytes
    /// it took.
    ///
    /// # Errors
    /// What the socket says, but never `WouldBlock`.
    pub fn send(&mut self, stream: &Stream, local: &Local, parts: &[&[u8]]) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PARTS_MAX];
        let mut count = 0;
        for part in std::iter::once(&self.bytes[self.sent..]).chain(parts.iter().copied()) {
            if !part.is_empty() && count < PARTS_MAX {
                slices[count] = IoSlice::new(part);
                count += 1;
            }
        }
        if count == 0 {
            return Ok(0);
        }
        let sent = match stream.send(&slices[..count]) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
            Err(e) => return Err(e),
        };
        self.keep_unsent(local, sent, parts);
        Ok(sent)
    }

    fn keep_unsent(&mut self, local: &Local, sent: usize, parts: &[&[u8]]) {
        let waiting = self.bytes.len() - self.sent;
        self.sent += sent.min(waiting);
        let mut sent = sent - sent.min(waiting);
        for part in parts {
            let gone = sent.min(part.len());
            sent -= gone;
            if gone < part.len() {
                self.append(local, &part[gone..]);
            }
        }
        if self.is_empty() {
            self.clear(local);
        }
    }

    /// Forgets what waits and gives the buffer back.
    pub fn clear(&mut self, local: &Local) {
        self.sent = 0;
        if self.bytes.capacity() > 0 {
            local.give_buffer(std::mem::take(&mut self.bytes));
        }
    }
}
