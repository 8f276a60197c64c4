//! One try of one exchange with one backend: the request goes up, the answer comes down, both at once.
//!
//! Owns the two directions, their deadlines and what ended them. Never chooses a backend, never retries, never looks
//! into a field (heads are translated by `answer`).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::answer::{self, HeadTaken};
use super::client::Client;
use super::exchange::Exchange;
use super::local::Local;
use super::outflow::Outflow;
use super::select::Admitted;
use super::upload::{UploadFault, WaitsFor};
use crate::error::{Fault, Reason};
use crate::http::body::{Sink, Source};
use crate::http::parse::HeadEnd;
use crate::limits::{INTERIM_COUNT_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::shared::backend::Mark;
use crate::stream::Stream;
use crate::upstream::view::{BackendView, UpstreamView};
use crate::wheel::ticks;

/// Reads of one direction in one go; then other tasks get their turn.
const READS_IN_A_GO_MAX: u32 = 16;

/// How a try ended well.
#[derive(Debug)]
pub enum Ended {
    /// The answer was passed on to its last byte.
    Complete { keep_client: bool, keep_backend: bool },
    /// A 101 was taken in: both connections are a tunnel from now on.
    Switched,
}

/// How a try ended badly.
#[derive(Debug)]
pub enum Broken {
    /// By the client.
    Client(Fault),
    /// By the backend, before a whole head of a final answer.
    Backend { fault: Fault, sent: bool, got_bytes: bool },
    /// After the answer's head was sent, so that nothing can be said any more. It has been recorded.
    Answered,
}

/// What is awaited of the backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Body,
    Flush,
    Switched,
}

/// The answer on its way to the client.
#[derive(Debug, Default)]
pub struct Download {
    stage: Stage,
    /// What came of a head that is not whole yet.
    partial: Vec<u8>,
    got_bytes: bool,
    interims: usize,
    /// What the client did not take yet.
    pub to_client: Outflow,
    pub(super) source: Source,
    pub(super) sink: Sink,
    pub(super) trailers: Vec<u8>,
    /// Whether the client's connection can be kept after this answer.
    pub(super) keep_client: bool,
    /// Whether the backend's connection can.
    pub(super) keep_backend: bool,
    /// An event stream may be silent for long, and so may a call of gRPC.
    pub(super) may_be_silent: bool,
    /// The client could not tell a cut answer from a whole one.
    pub(super) ends_with_close: bool,
}

/// One try.
#[derive(Debug)]
pub struct Relay<'a> {
    client: &'a mut Client,
    exchange: &'a mut Exchange,
    backend: Stream,
    view: Rc<BackendView>,
    upstream: &'a UpstreamView,
    local: Rc<Local>,
    down: Download,
    is_uploading: bool,
    upload_broke: bool,
    /// Ticks of the last progress.
    up_at: u32,
    down_at: u32,
    /// Tick of the request's end: the answer's head is due so long after it, however slowly it trickles in.
    asked_at: u32,
    /// Timeouts in ticks.
    response_ticks: u32,
    set_cookie: Option<String>,
    head_end: HeadEnd,
}

impl<'a> Relay<'a> {
    /// A try over `backend`.
    pub fn new(
        client: &'a mut Client,
        exchange: &'a mut Exchange,
        backend: Stream,
        upstream: &'a UpstreamView,
        admitted: &Admitted,
    ) -> Self {
        let local = client.local.clone();
        let now = local.wheel.now();
        let view = admitted.slot.backend().clone();
        let own = exchange.route.as_ref().and_then(|r| r.conf.response_timeout);
        let set_cookie = match &upstream.sticky {
            Some(signer) if exchange.sticky != Some(view.hash) => Some(signer.set_cookie(view.hash, client.tls)),
            _ => None,
        };
        Relay {
            client,
            exchange,
            backend,
            view,
            upstream,
            local,
            down: Download::default(),
            is_uploading: true,
            upload_broke: false,
            up_at: now,
            down_at: now,
            asked_at: now,
            response_ticks: ticks(own.unwrap_or(upstream.conf.response_timeout)),
            set_cookie,
            head_end: HeadEnd::default(),
        }
    }

    /// Runs the try to its end.
    ///
    /// # Errors
    /// [`Broken`] tells by whom and whether another try is possible.
    pub async fn run(&mut self) -> Result<Ended, Broken> {
        let absorbed = self.exchange.upload.absorb(&mut self.client.input, &self.local);
        if let Err(UploadFault::Client(fault)) = absorbed {
            return Err(Broken::Client(fault));
        }
        let ended = poll_fn(|cx| self.poll(cx)).await;
        self.down.give_buffers_back(&self.local);
        self.view.stats.bytes_out.add(self.exchange.upload.sent_in_try);
        ended
    }

    /// The connection, for the next exchange.
    pub fn into_stream(self) -> Stream {
        self.backend
    }

    /// The connection and what the client still has to be sent, for a tunnel.
    pub fn into_tunnel(self) -> (Stream, Outflow) {
        (self.backend, self.down.to_client)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Broken>> {
        self.exchange.record.waited();
        if self.local.ending.get() {
            return Poll::Ready(Err(self.broken_by_others(Reason::Shutdown.into())));
        }
        if self.client.stream.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(self.broken_by_others(Reason::ClientClosed.into())));
        }
        if self.is_uploading
            && let Poll::Ready(Err(fault)) = self.poll_upload(cx)
        {
            return Poll::Ready(Err(self.broken_by_others(fault)));
        }
        if let Poll::Ready(ended) = self.poll_download(cx) {
            return Poll::Ready(ended);
        }
        if !self.is_uploading
            && let Poll::Ready(reason) = self.client.poll_gone(cx)
        {
            return Poll::Ready(Err(self.broken_by_others(reason.into())));
        }
        if self.local.is_cutting.get() && self.view.state.is(Mark::Cut) {
            return Poll::Ready(Err(self.broken_by_others(Reason::BackendCut.into())));
        }
        self.client.deadline.set(self.next_deadline());
        ready!(self.client.deadline.poll_expired(cx));
        Poll::Ready(Err(self.expired()))
    }

    // Up.

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut moved = false;
        let Client { stream, input, .. } = &mut *self.client;
        let done = self.exchange.upload.poll(cx, stream, input, &self.backend, &self.local, &mut moved);
        if moved || done.is_ready() {
            self.up_at = self.local.wheel.now();
        }
        match ready!(done) {
            Ok(()) => {
                self.is_uploading = false;
                self.asked_at = self.local.wheel.now();
                self.down_at = self.asked_at;
                Poll::Ready(Ok(()))
            }
            Err(UploadFault::Client(fault)) => Poll::Ready(Err(fault)),
            Err(UploadFault::Backend) => {
                // It may have said why before it stopped reading: its answer, if there is one, decides.
                self.is_uploading = false;
                self.upload_broke = true;
                self.asked_at = self.local.wheel.now();
                self.down_at = self.asked_at;
                Poll::Ready(Ok(()))
            }
        }
    }

    // Down.

    fn poll_download(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Broken>> {
        for _ in 0..READS_IN_A_GO_MAX {
            if self.owes_client() {
                ready!(self.poll_flush(cx))?;
            }
            match self.down.stage {
                Stage::Flush => return Poll::Ready(Ok(self.complete())),
                Stage::Switched => return Poll::Ready(Ok(Ended::Switched)),
                Stage::Head | Stage::Body => {}
            }
            let local = self.local.clone();
            let mut scratch = local.scratch.borrow_mut();
            let room = self.client.stream.room().min(scratch.len());
            match ready!(self.backend.poll_recv(cx, &mut scratch[..room])) {
                Ok(n @ 1..) => {
                    self.down_at = local.wheel.now();
                    self.down.got_bytes = true;
                    self.view.stats.bytes_in.add(n as u64);
                    self.take(&mut scratch[..n])?;
                }
                Ok(_) => self.backend_ended()?,
                Err(error) => return Poll::Ready(Err(self.broken_by_backend(self.broken_off(&error)))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let (mut sent, before) = (0, self.client.stream.unsent());
        let flushed = self.down.to_client.poll_flush(cx, &self.client.stream, &self.local, &mut sent);
        if sent > 0 || self.client.stream.unsent() < before {
            self.down_at = self.local.wheel.now();
            self.exchange.record.bytes_out += sent;
        }
        ready!(flushed).map_err(|_| self.broken_by_others(Reason::ClientClosed.into()))?;
        Poll::Ready(Ok(()))
    }

    /// Whether the client has not taken all it was sent.
    fn owes_client(&self) -> bool {
        !self.down.to_client.is_empty() || self.client.stream.unsent() > 0
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        if self.down.stage == Stage::Body {
            return self.take_body(bytes);
        }
        if self.down.partial.is_empty() {
            return match self.take_heads(bytes)? {
                0 => Ok(()),
                left => {
                    let from = bytes.len() - left;
                    self.down.partial = self.local.take_buffer();
                    self.local.extend_buffer(&mut self.down.partial, &bytes[from..]);
                    Ok(())
                }
            };
        }
        let mut partial = std::mem::take(&mut self.down.partial);
        self.local.extend_buffer(&mut partial, bytes);
        let left =
            self.take_heads(&mut partial).inspect_err(|_| self.local.give_buffer(std::mem::take(&mut partial)))?;
        if left > 0 {
            let from = partial.len() - left;
            partial.drain(..from);
            self.down.partial = partial;
        } else {
            self.local.give_buffer(partial);
        }
        Ok(())
    }

    /// Takes heads, interim and final, and what follows the final one. Returns how many bytes of a head that is not
    /// whole are left at the end.
    fn take_heads(&mut self, bytes: &mut [u8]) -> Result<usize, Broken> {
        let mut from = 0;
        while from < bytes.len() {
            let taken = answer::take_head(
                &bytes[from..],
                &mut self.head_end,
                self.client,
                self.exchange,
                &mut self.down,
                &self.view,
                self.set_cookie.as_deref(),
            );
            match taken.map_err(|fault| self.broken_by_backend(fault))? {
                HeadTaken::Partial if bytes.len() - from >= RESPONSE_HEAD_BYTES_MAX => {
                    return Err(self.broken_by_backend(Fault::new(
                        Reason::BackendProtocol,
                        "the backend's response head is larger than 64 KiB",
                    )));
                }
                HeadTaken::Partial => return Ok(bytes.len() - from),
                HeadTaken::Interim(used) => {
                    self.head_end = HeadEnd::default();
                    from += used;
                    self.down.interims += 1;
                    if self.down.interims > INTERIM_COUNT_MAX {
                        return Err(self.broken_by_backend(Fault::new(
                            Reason::BackendProtocol,
                            "the backend sent too many interim answers",
                        )));
                    }
                    self.send_head(&[])?;
                }
                HeadTaken::Switched(used) => {
                    self.down.stage = Stage::Switched;
                    self.send_head(&bytes[from + used..])?;
                    return Ok(0);
                }
                HeadTaken::Final(used) => {
                    self.view.state.record_success();
                    self.down.stage = Stage::Body;
                    self.take_body_after_head(&mut bytes[from + used..])?;
                    return Ok(0);
                }
            }
        }
        Ok(0)
    }

    /// Sends the head that was just written, and `rest` behind it.
    fn send_head(&mut self, rest: &[u8]) -> Result<(), Broken> {
        let local = self.local.clone();
        let head = local.head.borrow();
        self.send(&[&head, rest])
    }

    fn take_body_after_head(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        let local = self.local.clone();
        let head = local.head.borrow();
        self.pass_on(bytes, &head)
    }

    fn take_body(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
        self.pass_on(bytes, &[])
    }

    /// Passes a piece of body on, behind `head`.
    fn pass_on(&mut self, bytes: &mut [u8], head: &[u8]) -> Result<(), Broken> {
        let down = &mut self.down;
        let piece = match down.source.take(bytes, &mut down.trailers) {
            Ok(piece) => piece,
            Err(fault) => {
                if !head.is_empty() {
                    // Still unsent, so that this can be told.
                    down.stage = Stage::Head;
                    return Err(self.broken_by_backend(fault));
                }
                return Err(self.broken_by_backend(Reason::BackendTruncated.into()));
            }
        };
        if piece.consumed < bytes.len() {
            // More than was announced: whatever it is, it must not be taken for the next answer.
            down.keep_backend = false;
        }
        let is_last = down.source.is_done();
        let sink = down.sink;
        let data = &bytes[piece.data];
        let framed = sink.frame(data.len());
        let trailers = std::mem::take(&mut down.trailers);
        if is_last {
            down.stage = Stage::Flush;
        }
        let [end, trailers, empty_line] = sink.behind(data.len(), is_last, &trailers);
        self.send(&[head, framed.head(), data, end, trailers, empty_line])
    }

    fn send(&mut self, parts: &[&[u8]]) -> Result<(), Broken> {
        match self.down.to_client.send(&self.client.stream, &self.local, parts) {
            Ok(n) => {
                self.exchange.record.bytes_out += n as u64;
                Ok(())
            }
            Err(_) => Err(self.broken_by_others(Reason::ClientClosed.into())),
        }
    }

    fn backend_ended(&mut self) -> Result<(), Broken> {
        if self.down.stage == Stage::Head {
            return Err(self.broken_by_backend(self.early_end()));
        }
        self.down.keep_backend = false;
        if let Err(fault) = self.down.source.end() {
            return Err(self.broken_by_backend(fault));
        }
        self.down.stage = Stage::Flush;
        match self.down.sink {
            Sink::Chunked => self.send(&[b"0\r\n\r\n"]),
            Sink::Identity => Ok(()),
        }
    }

    fn complete(&mut self) -> Ended {
        let is_received = self.exchange.upload.is_received() && !self.is_uploading && !self.upload_broke;
        Ended::Complete { keep_client: self.down.keep_client, keep_backend: self.down.keep_backend && is_received }
    }

    // Ends.

    fn early_end(&self) -> Fault {
        if self.down.stage == Stage::Head { Reason::BackendClosed.into() } else { Reason::BackendTruncated.into() }
    }

    /// What a broken connection is called: what it says itself, if it knows more.
    fn broken_off(&self, error: &std::io::Error) -> Fault {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Fault>()) {
            Some(fault) if self.down.stage == Stage::Head => *fault,
            _ => self.early_end(),
        }
    }

    fn broken_by_backend(&mut self, fault: Fault) -> Broken {
        // An interim answer of which a part is out can't be followed by an answer of ours.
        if self.down.stage == Stage::Head && self.down.to_client.is_empty() {
            let sent = self.exchange.upload.sent_in_try > 0;
            return Broken::Backend { fault, sent, got_bytes: self.down.got_bytes };
        }
        self.cut(fault)
    }

    fn broken_by_others(&mut self, fault: Fault) -> Broken {
        if self.down.stage == Stage::Head && self.down.to_client.is_empty() {
            return Broken::Client(fault);
        }
        self.cut(fault)
    }

    /// Ends an answer that has begun: the client must not take what it got for the whole.
    fn cut(&mut self, fault: Fault) -> Broken {
        self.exchange.record.reason = Some(fault.reason);
        // What a client that stopped reading never takes would stay in the kernel for minutes.
        let is_given_up = matches!(fault.reason, Reason::ClientStalled | Reason::DeadlineExceeded);
        if self.down.ends_with_close || is_given_up {
            self.client.stream.reset_on_close();
        }
        Broken::Answered
    }

    // Deadlines.

    fn next_deadline(&self) -> u32 {
        self.up_deadline().min(self.down_deadline()).min(self.client.ends_at)
    }

    fn up_deadline(&self) -> u32 {
        // An answer that has begun is passed on in whole, at its own pace: who stops sending because of it (or stops
        // taking it) does right (RFC 9112, section 9.5).
        if !self.is_uploading || self.down.stage != Stage::Head {
            return u32::MAX;
        }
        let server = &self.local.view().server;
        match self.exchange.upload.waits_for {
            // A call's client may have said all for now, and wait for an answer before it says more.
            WaitsFor::Client if self.exchange.is_grpc => after(self.moved_at(), server.tunnel_timeout),
            WaitsFor::Client => after(self.up_at, server.read_timeout),
            WaitsFor::Backend => after(self.up_at, server.write_timeout),
        }
    }

    /// The tick of the last progress, either way as long as both sides speak.
    fn moved_at(&self) -> u32 {
        if self.is_uploading { self.up_at.max(self.down_at) } else { self.down_at }
    }

    fn down_deadline(&self) -> u32 {
        let view = self.local.view();
        if self.owes_client() {
            return after(self.down_at, view.server.write_timeout);
        }
        match self.down.stage {
            // Counted from the request's end.
            Stage::Head if self.is_uploading => u32::MAX,
            Stage::Head => self.asked_at.saturating_add(self.response_ticks + 1),
            _ if self.down.may_be_silent => after(self.moved_at(), view.server.tunnel_timeout),
            _ => after(self.moved_at(), self.upstream.conf.read_timeout),
        }
    }

    fn expired(&mut self) -> Broken {
        let now = self.local.wheel.now();
        if self.client.ends_at <= now {
            return self.broken_by_others(Reason::DeadlineExceeded.into());
        }
        if self.up_deadline() <= now {
            return match self.exchange.upload.waits_for {
                WaitsFor::Client => self.broken_by_others(Reason::BodyTimeout.into()),
                WaitsFor::Backend => self.broken_by_backend(Reason::BackendStalled.into()),
            };
        }
        if self.owes_client() {
            return self.broken_by_others(Reason::ClientStalled.into());
        }
        match self.down.stage {
            Stage::Head => self.broken_by_backend(Reason::ResponseTimeout.into()),
            _ => self.broken_by_backend(Reason::BackendStalled.into()),
        }
    }
}

fn after(tick: u32, patience: Duration) -> u32 {
    tick.saturating_add(ticks(patience)).saturating_add(1)
}

impl Download {
    fn give_buffers_back(&mut self, local: &Local) {
        if self.stage != Stage::Switched {
            self.to_client.clear(local);
        }
        local.give_buffer(std::mem::take(&mut self.partial));
    }
}
