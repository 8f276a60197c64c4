//! A client's connection that speaks HTTP/2.
//!
//! Owns the connection's task: it drives the codec, begins an exchange for each request stream by the same ladder as
//! every other (`proxy::exchange`), and ends the connection when it is idle, abused or drained. Never sees a byte of an
//! exchange: a stream is a kind of [`Stream`], and what goes through it is HTTP/1.1.

mod carrier;
pub mod idle;
mod request;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Ping, PingPong, Reason as Code, RecvStream};

use super::client::{Client, Facts};
use crate::config::plan::Server;
use crate::http::head::FieldTable;
use crate::limits::{
    HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_ERRORS_COUNT_MAX, HTTP2_LIST_TIMES, HTTP2_PENDING_RESETS_COUNT_MAX,
    HTTP2_SEND_BUFFER_BYTES_MAX, HTTP2_STREAM_WINDOW_BYTES, HTTP2_STREAMS_COUNT_MAX, LINGER_BYTES_MAX, LINGER_MS_MAX,
};
use crate::stream::places::Places;
use crate::stream::{Incoming, Stream};
use crate::wheel::{Deadline, ticks};
use carrier::{Carrier, Traffic};
use idle::Idler;

/// What every HTTP/2 connection of a client opens with (RFC 9113, section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection on which HTTP/2 is spoken: its preface is the first of `client.input`, or still to come. Requests
/// for hosts that it doesn't serve get 421.
pub fn spawn(client: Client) {
    tokio::task::spawn_local(serve(client));
}

async fn serve(client: Client) {
    let (facts, seat, stream, mut input, deadline) = client.into_parts();
    let stream = Rc::new(stream);
    let traffic = Rc::new(Traffic::default());
    let carrier = Carrier::new(stream.clone(), facts.local.clone(), traffic.clone(), input.unread());
    input.clear(&facts.local);
    let Some(codec) = open(carrier, &facts, &traffic, &deadline).await else { return };
    let mut connection = Serving::new(codec, facts.clone(), traffic, deadline);
    let end = poll_fn(|cx| connection.poll(cx)).await;
    let (deadline, idler) = connection.end();
    // Whose room is needed has no time to lose; it had nothing under way.
    let is_hurried = facts.local.ending.get() || idler.as_ref().is_some_and(Idler::is_asked);
    match end {
        // What such a client never takes would stay in the kernel for minutes.
        End::Gone => stream.reset_on_close(),
        End::Told if !is_hurried => linger(&facts, &stream, &deadline).await,
        End::Told => {}
    }
    drop((stream, idler, seat));
}

/// Exchanges prefaces, within `server.read_timeout`. What this takes goes with it.
async fn open(
    carrier: Carrier,
    facts: &Facts,
    traffic: &Traffic,
    deadline: &Deadline,
) -> Option<Connection<Carrier, Bytes>> {
    let server = &facts.local.view().server;
    deadline.set_after(ticks(server.read_timeout));
    let mut handshake = pin!(builder(server).handshake(carrier));
    poll_fn(|cx| {
        traffic.begin_turn();
        if facts.local.ending.get() {
            return Poll::Ready(None);
        }
        match handshake.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(opened.ok()),
            Poll::Pending => deadline.poll_expired(cx).map(|()| None),
        }
    })
    .await
}

/// The codec as we want it: its own limits are far above what one client may cost.
fn builder(server: &Server) -> Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(HTTP2_STREAMS_COUNT_MAX as u32)
        .initial_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buffer_size(HTTP2_SEND_BUFFER_BYTES_MAX)
        // Of streams that were reset, so many are remembered for a second, for frames that were on their way.
        .max_concurrent_reset_streams(HTTP2_STREAMS_COUNT_MAX)
        .reset_stream_duration(Duration::from_secs(1))
        // Opened and reset before they were looked at: more is what no client does.
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_COUNT_MAX)
        .max_local_error_reset_streams(Some(HTTP2_ERRORS_COUNT_MAX))
        .max_header_list_size(u32::try_from(HTTP2_LIST_TIMES * server.max_header_bytes).unwrap_or(u32::MAX))
        .enable_connect_protocol();
    builder
}

/// A connection being served.
struct Serving {
    codec: Connection<Carrier, Bytes>,
    pings: Option<PingPong>,
    places: Rc<Places>,
    fields: Rc<RefCell<FieldTable>>,
    /// Largest section of trailers, in bytes with 32 added a field: by the plan that the codec was made by.
    trailers_max: usize,
    facts: Rc<Facts>,
    traffic: Rc<Traffic>,
    deadline: Deadline,
    /// While there is no stream: its place among those, and since when it is so, in ticks.
    idle: Option<(Idler, u32)>,
    /// Whether there has been a stream.
    was_used: bool,
    /// When it was asked whether it is still there, in ticks.
    pinged_at: Option<u32>,
    exit: Exit,
}

/// How far it is with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    No,
    /// New streams are refused, the open ones end at their own pace.
    Draining,
    /// The last GOAWAY is on its way; in ticks until when.
    Closing(u32),
}

impl Serving {
    fn new(
        mut codec: Connection<Carrier, Bytes>,
        facts: Rc<Facts>,
        traffic: Rc<Traffic>,
        deadline: Deadline,
    ) -> Serving {
        Serving {
            pings: codec.ping_pong(),
            codec,
            places: Places::new(&facts.local.wheel, &facts.local.waiting_bytes),
            fields: Rc::default(),
            trailers_max: facts.local.view().server.max_header_bytes,
            facts,
            traffic,
            deadline,
            idle: None,
            was_used: false,
            pinged_at: None,
            exit: Exit::No,
        }
    }

    /// Lets go of the codec; what is not flushed by now never is.
    fn end(self) -> (Deadline, Option<Idler>) {
        (self.deadline, self.idle.map(|(idler, _)| idler))
    }

    /// Ready once the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.traffic.begin_turn();
        self.traffic.earn(self.places.take_progress());
        if self.facts.local.ending.get() {
            return Poll::Ready(End::Told);
        }
        if self.facts.local.draining.get() && self.exit == Exit::No {
            self.exit = Exit::Draining;
            self.codec.graceful_shutdown();
        }
        loop {
            if self.poll_codec(cx).is_ready() {
                return Poll::Ready(End::Told);
            }
            match self.verdict(cx) {
                Verdict::Stay(until) => {
                    self.deadline.set(until);
                    ready!(self.deadline.poll_expired(cx));
                }
                Verdict::Close(code) => {
                    self.codec.abrupt_shutdown(code);
                    let patience = Duration::from_millis(LINGER_MS_MAX);
                    self.exit = Exit::Closing(after(self.facts.local.wheel.now(), patience));
                }
                Verdict::Gone => return Poll::Ready(End::Gone),
            }
        }
    }

    /// Moves frames both ways. Ready once the connection has ended.
    fn poll_codec(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(accepted) = ready!(self.codec.poll_accept(cx)) {
            match accepted {
                Ok((request, respond)) => self.begin(request, respond),
                // The codec has told the client why, if it could.
                Err(_) => break,
            }
        }
        Poll::Ready(())
    }

    /// What becomes of the connection now that nothing more can be moved.
    fn verdict(&mut self, cx: &mut Context<'_>) -> Verdict {
        let now = self.facts.local.wheel.now();
        if let Exit::Closing(until) = self.exit {
            return if now >= until { Verdict::Gone } else { Verdict::Stay(until) };
        }
        if let Some(code) = self.traffic.fault.get() {
            return Verdict::Close(code);
        }
        if self.places.is_abused() {
            return Verdict::Close(Code::ENHANCE_YOUR_CALM);
        }
        let stuck = self.traffic.stuck_since.get();
        let stuck = stuck.map_or(u32::MAX, |since| after(since, self.facts.local.view().server.write_timeout));
        if stuck <= now {
            return Verdict::Gone;
        }
        self.places.register(cx.waker());
        match if self.places.taken() == 0 { self.idle_verdict(cx, now) } else { self.busy_verdict(cx, now) } {
            Verdict::Stay(until) => Verdict::Stay(until.min(stuck)),
            others => others,
        }
    }

    /// Without a stream: until the patience with idle connections ends, or their room is needed.
    fn idle_verdict(&mut self, cx: &Context<'_>, now: u32) -> Verdict {
        if self.traffic.stuck_since.get().is_some() {
            // The end of an answer is on its way still: closing would drop it.
            self.idle = None;
            return Verdict::Stay(u32::MAX);
        }
        let local = &self.facts.local;
        let (idler, since) = self.idle.get_or_insert_with(|| (local.idlers.enter(cx.waker()), now));
        let server = &local.view().server;
        let until = after(*since, if self.was_used { server.idle_timeout } else { server.read_timeout });
        if until <= now || idler.is_asked() || local.closing_idle.get() {
            return Verdict::Close(Code::NO_ERROR);
        }
        Verdict::Stay(until)
    }

    /// With streams, a client that says nothing for long is asked whether it is still there.
    fn busy_verdict(&mut self, cx: &mut Context<'_>, now: u32) -> Verdict {
        self.idle = None;
        self.was_used = true;
        let Some(pings) = &mut self.pings else { return Verdict::Stay(u32::MAX) };
        let read_at = self.traffic.read_at.get();
        if self.pinged_at.is_some_and(|at| pings.poll_pong(cx).is_ready() || read_at > at) {
            self.pinged_at = None;
        }
        let patience = self.facts.local.view().server.read_timeout;
        match self.pinged_at {
            Some(at) if after(at, patience) <= now => Verdict::Gone,
            Some(at) => Verdict::Stay(after(at, patience)),
            None if after(read_at, patience) > now => Verdict::Stay(after(read_at, patience)),
            None => {
                // Refused only while another is under way.
                let _ = pings.send_ping(Ping::opaque());
                self.pinged_at = Some(now);
                Verdict::Stay(after(now, patience))
            }
        }
    }

    /// Begins the exchange of a new stream.
    fn begin(&mut self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let Some(place) = self.places.take() else {
            respond.send_reset(Code::REFUSED_STREAM);
            return;
        };
        let (parts, body) = request.into_parts();
        let incoming = Incoming::new(body, respond, self.fields.clone(), self.trailers_max, place);
        let client = Client::of_stream(Stream::Incoming(Box::new(incoming)), &self.facts);
        tokio::task::spawn_local(request::serve(client, self.facts.clone(), parts));
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client was told, as far as anything was to be told, or went by itself.
    Told,
    /// It takes nothing, or is not there any more.
    Gone,
}

/// See [`Serving::verdict`].
enum Verdict {
    /// It stays, and is looked at again at that tick.
    Stay(u32),
    /// A GOAWAY with that code is its last word.
    Close(Code),
    /// Nothing can be said to the client any more.
    Gone,
}

fn after(tick: u32, patience: Duration) -> u32 {
    tick.saturating_add(ticks(patience)).saturating_add(1)
}

/// Reads and drops for a while what the client still sends, so that the last frames are not lost to a reset.
async fn linger(facts: &Facts, stream: &Stream, deadline: &Deadline) {
    let local = &facts.local;
    stream.shutdown_write();
    deadline.set_after(ticks(Duration::from_millis(LINGER_MS_MAX)));
    let mut left = LINGER_BYTES_MAX;
    poll_fn(|cx| {
        let mut scratch = local.scratch.borrow_mut();
        while left > 0 {
            match stream.poll_recv(cx, &mut scratch) {
                Poll::Ready(Ok(n @ 1..)) => left = left.saturating_sub(n),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return deadline.poll_expired(cx),
            }
        }
        Poll::Ready(())
    })
    .await;
}
