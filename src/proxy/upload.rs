//! The request on its way to a backend: the head as rewritten, and the body as it comes.
//!
//! Owns what was sent so far for as long as it fits the retry buffer, so that another backend can be sent the same.
//! Never decides whether a retry is safe.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use super::client::Input;
use super::local::Local;
use super::outflow::Outflow;
use crate::error::{Fault, Reason};
use crate::http::body::{Sink, Source};
use crate::stream::Stream;

/// Who broke an upload.
#[derive(Debug)]
pub enum UploadFault {
    /// The client: framing, size, or it went away.
    Client(Fault),
    /// The backend does not take it any more.
    Backend,
}

/// Whom an upload waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    Client,
    Backend,
}

/// One request's bytes towards a backend.
#[derive(Debug)]
pub struct Upload {
    /// The head, and behind it the body so far while `is_replayable`.
    kept: Vec<u8>,
    sent: usize,
    is_replayable: bool,
    /// How large `kept` may get, in bytes.
    kept_max: usize,
    /// What the backend did not take yet, once nothing is kept any more.
    rest: Outflow,
    source: Source,
    sink: Sink,
    is_ended: bool,
    trailers: Vec<u8>,
    /// Bytes of body that came, against `max_body_bytes`.
    pub received: u64,
    body_max: u64,
    /// Bytes the backend took in the current try.
    pub sent_in_try: u64,
    /// Whom it waits for.
    pub waits_for: WaitsFor,
}

impl Default for Upload {
    fn default() -> Self {
        Upload {
            kept: Vec::new(),
            sent: 0,
            is_replayable: true,
            kept_max: 0,
            rest: Outflow::default(),
            source: Source::Done,
            sink: Sink::Identity,
            is_ended: true,
            trailers: Vec::new(),
            received: 0,
            body_max: u64::MAX,
            sent_in_try: 0,
            waits_for: WaitsFor::Backend,
        }
    }
}

impl Upload {
    /// Begins with the head that `write` puts down. Of the body up to `retry_bytes` are kept, and no more than `body_max`
    /// are taken (0 = no limit).
    pub fn begin(
        &mut self,
        local: &Local,
        source: Source,
        retry_bytes: usize,
        body_max: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.kept.capacity() == 0 {
            self.kept = local.take_buffer();
        }
        let before = self.kept.capacity();
        write(&mut self.kept);
        local.buffer_grew(before, &self.kept);
        self.sink = if matches!(source, Source::Chunked(_)) { Sink::Chunked } else { Sink::Identity };
        self.is_ended = source.is_done();
        self.source = source;
        self.kept_max = self.kept.len() + retry_bytes;
        self.is_replayable = true;
        self.body_max = if body_max == 0 { u64::MAX } else { body_max };
        self.received = 0;
        self.sent = 0;
        self.sent_in_try = 0;
    }

    /// Lets go of everything.
    pub fn clear(&mut self, local: &Local) {
        if self.kept.capacity() > 0 {
            local.give_buffer(std::mem::take(&mut self.kept));
        }
        self.rest.clear(local);
        self.source = Source::Done;
        self.is_ended = true;
        self.trailers = Vec::new();
        self.sent = 0;
    }

    /// Whether the whole request came in from the client.
    pub fn is_received(&self) -> bool {
        self.source.is_done()
    }

    /// Begins anew for another try; false when what was sent is not all there any more.
    pub fn rewind(&mut self) -> bool {
        self.sent = 0;
        self.sent_in_try = 0;
        self.is_replayable
    }

    /// Takes in what is unread already, so that head and body go out in one write.
    ///
    /// # Errors
    /// [`UploadFault::Client`] when the body's framing is broken or it is too large.
    pub fn absorb(&mut self, input: &mut Input, local: &Local) -> Result<(), UploadFault> {
        let fits = self.is_replayable && self.kept.len() + input.len() + FRAMING_BYTES_MAX <= self.kept_max;
        if self.source.is_done() || input.is_empty() || !fits {
            return Ok(());
        }
        self.take_from(input, local, None)
    }

    /// Moves bytes until the backend has them all. What came behind the body is left in `input`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &Stream,
        input: &mut Input,
        backend: &Stream,
        local: &Local,
        moved: &mut bool,
    ) -> Poll<Result<(), UploadFault>> {
        loop {
            self.waits_for = WaitsFor::Backend;
            ready!(self.poll_flush(cx, backend, local, moved)).map_err(|_| UploadFault::Backend)?;
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            self.waits_for = WaitsFor::Client;
            if !input.is_empty() {
                self.take_from(input, local, Some(backend))?;
                continue;
            }
            let mut scratch = local.scratch.borrow_mut();
            let n = match ready!(client.poll_recv(cx, &mut scratch)) {
                Ok(n @ 1..) => n,
                _ => return Poll::Ready(Err(UploadFault::Client(Reason::ClientClosed.into()))),
            };
            *moved = true;
            let used = self.take(&mut scratch[..n], local, Some(backend))?;
            input.append(&scratch[used..n], local);
        }
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        backend: &Stream,
        local: &Local,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.kept.len() {
            let n = ready!(backend.poll_send(cx, &[IoSlice::new(&self.kept[self.sent..])]))?;
            self.sent += n;
            self.sent_in_try += n as u64;
            *moved = true;
        }
        let before = (self.sent_in_try, backend.unsent());
        let flushed = self.rest.poll_flush(cx, backend, local, &mut self.sent_in_try);
        *moved |= self.sent_in_try > before.0 || backend.unsent() < before.1;
        flushed
    }

    fn take_from(&mut self, input: &mut Input, local: &Local, backend: Option<&Stream>) -> Result<(), UploadFault> {
        let used = self.take(input.unread(), local, backend)?;
        input.consume(used, local);
        Ok(())
    }

    /// Takes the body's part of `bytes`; returns how many bytes were used.
    fn take(&mut self, bytes: &mut [u8], local: &Local, backend: Option<&Stream>) -> Result<usize, UploadFault> {
        let piece = self.source.take(bytes, &mut self.trailers).map_err(UploadFault::Client)?;
        self.received += piece.data.len() as u64;
        if self.received > self.body_max {
            return Err(UploadFault::Client(Reason::BodyTooLarge.into()));
        }
        self.is_ended = self.source.is_done();
        self.pass_on(&bytes[piece.data], local, backend)?;
        Ok(piece.consumed)
    }

    /// Keeps a piece of body and lets the next flush send it, or sends it at once when it can't be kept.
    fn pass_on(&mut self, data: &[u8], local: &Local, backend: Option<&Stream>) -> Result<(), UploadFault> {
        let framed = self.sink.frame(data.len());
        let trailers = std::mem::take(&mut self.trailers);
        let [end, trailers, empty_line] = self.sink.behind(data.len(), self.is_ended, &trailers);
        let parts = [framed.head(), data, end, trailers, empty_line];
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.is_replayable && (self.kept.len() + len <= self.kept_max || backend.is_none()) {
            self.keep(local, &parts, len);
            return Ok(());
        }
        if self.is_replayable {
            // All of it was flushed before this piece was read.
            self.is_replayable = false;
            self.sent = 0;
            local.give_buffer(std::mem::take(&mut self.kept));
        }
        let Some(backend) = backend else { return Ok(()) };
        let sent = self.rest.send(backend, local, &parts).map_err(|_| UploadFault::Backend)?;
        self.sent_in_try += sent as u64;
        Ok(())
    }

    /// Adds `len` bytes in parts to what is kept. Grows to no more than may be kept in all: what grew further by doubling
    /// would be too large a buffer to use again, so that each upload would make one anew.
    fn keep(&mut self, local: &Local, parts: &[&[u8]], len: usize) {
        let needed = self.kept.len() + len;
        let before = self.kept.capacity();
        if needed > before {
            let room = needed.max(self.kept_max.min(2 * before));
            self.kept.reserve_exact(room - self.kept.len());
        }
        parts.iter().for_each(|part| self.kept.extend_from_slice(part));
        local.buffer_grew(before, &self.kept);
    }
}

/// What chunk framing may add to one read's worth of body, in bytes.
const FRAMING_BYTES_MAX: usize = 18 + 2 + 5 + 2;
