//! What the HTTP/2 codec reads from and writes to: a client's connection, behind a scan of the frames that come in.
//!
//! Owns what was read and not taken by the codec yet, and the watch on frames that cost much and bring nothing: pings,
//! settings, window updates, resets, empty DATA, frames of unknown types. The codec answers or drops each of them without
//! a bound of its own in time. Never understands a frame beyond its nine bytes of head.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::frame::{
    ACK, DATA, FieldBlock, FrameHead, FrameWalk, GOAWAY, HEADERS, PADDED, PING, PRIORITIZED, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE,
};
use crate::limits::{
    HTTP2_BLOCK_TIMES, HTTP2_IDLE_FRAME_BYTES, HTTP2_IDLE_FRAMES_COUNT_MAX, HTTP2_IDLE_FRAMES_COUNT_PER_PIECE,
    HTTP2_IDLE_FRAMES_COUNT_PER_TICK, HTTP2_SENT_BYTES_PER_FRAME, HTTP2_TURN_BYTES_MAX,
};
use crate::proxy::local::Local;
use crate::stream::Stream;

/// What the connection's task wants to know of it.
#[derive(Debug, Default)]
pub struct Traffic {
    /// When a byte came last, in ticks.
    pub read_at: Cell<u32>,
    /// Since when the client takes nothing of what is to be sent, in ticks.
    pub stuck_since: Cell<Option<u32>>,
    /// What is wrong with the frames that came: too many idle ones, or one that the codec gives another code.
    pub fault: Cell<Option<Reason>>,
    /// What the codec may still be handed in this turn, in bytes.
    turn_left: Cell<usize>,
    /// Idle frames that are borne for answers that went out.
    earned: Cell<u32>,
}

/// A client's connection for the codec.
#[derive(Debug)]
pub struct Carrier {
    stream: Rc<Stream>,
    local: Rc<Local>,
    traffic: Rc<Traffic>,
    /// Read, and not taken yet.
    rest: Vec<u8>,
    taken: usize,
    scan: Scan,
}

impl Traffic {
    /// So many pieces of answers went out: a client may say of each that it has it, make room, and ask how far away we are,
    /// as gRPC's clients do.
    pub fn earn(&self, pieces: u32) {
        self.earned.set(self.earned.get().saturating_add(pieces.saturating_mul(HTTP2_IDLE_FRAMES_COUNT_PER_PIECE)));
    }

    /// [`HTTP2_TURN_BYTES_MAX`] may come before the task yields.
    pub fn begin_turn(&self) {
        self.turn_left.set(HTTP2_TURN_BYTES_MAX);
    }
}

impl Carrier {
    /// `first` is what was read of the connection before: it begins with the preface, or is empty.
    pub fn new(stream: Rc<Stream>, local: Rc<Local>, traffic: Rc<Traffic>, first: &[u8]) -> Carrier {
        let mut carrier =
            Carrier { stream, traffic, rest: Vec::new(), taken: 0, scan: Scan::new(local.wheel.now()), local };
        carrier.scan.block_bytes_max = HTTP2_BLOCK_TIMES * carrier.local.view().server.max_header_bytes;
        carrier.traffic.begin_turn();
        carrier.traffic.read_at.set(carrier.local.wheel.now());
        carrier.keep(first);
        carrier
    }

    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.rest.capacity() == 0 {
            self.rest = self.local.take_buffer();
        }
        self.local.extend_buffer(&mut self.rest, bytes);
    }

    fn take_rest(&mut self, buf: &mut ReadBuf<'_>) {
        let n = (self.rest.len() - self.taken).min(buf.remaining());
        let bytes = &self.rest[self.taken..self.taken + n];
        self.scan.look(bytes, self.local.wheel.now());
        buf.put_slice(bytes);
        self.taken += n;
        if self.taken == self.rest.len() {
            self.taken = 0;
            self.local.give_buffer(std::mem::take(&mut self.rest));
        }
    }

    /// Reads into the worker's scratch, and hands on what fits.
    fn poll_fetch(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let local = self.local.clone();
        let mut scratch = local.scratch.borrow_mut();
        let n = ready!(self.stream.poll_recv(cx, &mut scratch[..HTTP2_TURN_BYTES_MAX]))?;
        let now = local.wheel.now();
        self.traffic.read_at.set(now);
        let fits = n.min(buf.remaining());
        self.scan.look(&scratch[..fits], now);
        buf.put_slice(&scratch[..fits]);
        self.keep(&scratch[fits..n]);
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, cx: &mut Context<'_>, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &sent {
            Poll::Ready(Ok(n)) => {
                self.scan.sent(*n);
                self.look_for_room(cx);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let since = self.traffic.stuck_since.get().unwrap_or(self.local.wheel.now());
                self.traffic.stuck_since.set(Some(since));
            }
        }
        sent
    }

    /// The client takes something again once the event loop says so. That the kernel took a few bytes more, as of the reset
    /// of the very stream that was stuck, tells nothing of that.
    fn look_for_room(&self, cx: &mut Context<'_>) {
        if self.traffic.stuck_since.get().is_some() && self.stream.poll_writable(cx).is_ready() {
            self.traffic.stuck_since.set(None);
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if self.rest.capacity() > 0 {
            self.local.give_buffer(std::mem::take(&mut self.rest));
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (filled, earned) = (buf.filled().len(), self.traffic.earned.take());
        self.scan.bear(earned);
        let left = self.traffic.turn_left.get();
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            ready!(self.poll_fetch(cx, buf))?;
        } else {
            self.take_rest(buf);
        }
        self.traffic.turn_left.set(left.saturating_sub(buf.filled().len() - filled));
        if let Some(fault) = self.scan.fault() {
            // The codec never sees it: the connection's task, which asks, ends the connection.
            self.traffic.fault.set(Some(fault));
            buf.set_filled(filled);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.stream.poll_send(cx, &[IoSlice::new(buf)]);
        self.wrote(cx, sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.stream.poll_send(cx, bufs);
        self.wrote(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.poll_flush(cx);
        match flushed {
            Poll::Ready(_) => self.look_for_room(cx),
            Poll::Pending if self.traffic.stuck_since.get().is_none() => {
                self.traffic.stuck_since.set(Some(self.local.wheel.now()));
            }
            Poll::Pending => {}
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_flush(cx))?;
        self.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

/// Where in the frames the bytes are, and how many idle frames are still borne.
#[derive(Debug)]
struct Scan {
    walk: FrameWalk,
    block: FieldBlock,
    /// A larger list of fields ends the connection.
    block_bytes_max: usize,
    left: u32,
    counted_at: u32,
    /// Whether no frame has come.
    is_first: bool,
    /// A frame that breaks its own rules.
    broken: Option<Reason>,
    /// Sent since the last frame that was borne for it, in bytes.
    sent: usize,
}

const PREFACE_BYTES: usize = 24;

impl Scan {
    fn new(now: u32) -> Scan {
        Scan {
            walk: FrameWalk::behind(PREFACE_BYTES),
            block: FieldBlock::default(),
            block_bytes_max: usize::MAX,
            left: HTTP2_IDLE_FRAMES_COUNT_MAX,
            counted_at: now,
            is_first: true,
            broken: None,
            sent: 0,
        }
    }

    fn fault(&self) -> Option<Reason> {
        if self.left == 0 { Some(Reason::ENHANCE_YOUR_CALM) } else { self.broken }
    }

    /// A client that takes much says so with many window updates.
    fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        let frames = self.sent / HTTP2_SENT_BYTES_PER_FRAME;
        self.sent %= HTTP2_SENT_BYTES_PER_FRAME;
        self.bear(u32::try_from(frames).unwrap_or(u32::MAX));
    }

    fn bear(&mut self, frames: u32) {
        self.left = self.left.saturating_add(frames).min(HTTP2_IDLE_FRAMES_COUNT_MAX);
    }

    fn look(&mut self, mut bytes: &[u8], now: u32) {
        self.bear(now.saturating_sub(self.counted_at).saturating_mul(HTTP2_IDLE_FRAMES_COUNT_PER_TICK));
        self.counted_at = now;
        while !bytes.is_empty() {
            let step = self.walk.step(bytes);
            bytes = &bytes[step.payload + step.head_bytes..];
            if let Some(head) = step.head {
                self.frame(head);
            }
        }
    }

    fn frame(&mut self, head: FrameHead) {
        if std::mem::take(&mut self.is_first) && head.kind != SETTINGS {
            self.broken = Some(Reason::PROTOCOL_ERROR);
        }
        if !has_right_size(&head) {
            self.broken = Some(Reason::FRAME_SIZE_ERROR);
        }
        if self.block.add(&head) > self.block_bytes_max {
            self.broken = Some(Reason::ENHANCE_YOUR_CALM);
        }
        let moves_on = match head.kind {
            DATA => head.len > 0 || head.is_end_stream(),
            HEADERS => true,
            _ => false,
        };
        if !moves_on {
            let cost = 1 + head.len / HTTP2_IDLE_FRAME_BYTES;
            self.left = self.left.saturating_sub(u32::try_from(cost).unwrap_or(u32::MAX));
        }
    }
}

/// What PRIORITY holds, and HEADERS may hold in front: a stream it depends on, and a weight.
const PRIORITY_BYTES: usize = 5;

/// The sizes that RFC 9113, section 6 gives to frames, and those that what their flags promise has room in (section 4.2); the
/// codec calls a wrong one a PROTOCOL_ERROR.
fn has_right_size(head: &FrameHead) -> bool {
    let padding = usize::from(head.flags & PADDED != 0);
    match head.kind {
        DATA => head.len >= padding,
        HEADERS => head.len >= padding + if head.flags & PRIORITIZED != 0 { PRIORITY_BYTES } else { 0 },
        PRIORITY => head.len == PRIORITY_BYTES,
        GOAWAY => head.len >= 8,
        RST_STREAM | WINDOW_UPDATE => head.len == 4,
        PING => head.len == 8,
        SETTINGS => head.len.is_multiple_of(6) && (head.len == 0 || head.flags & ACK == 0),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use super::*;
    use crate::balance::rng::Rng;
    use crate::park::shelf::Size;
    use crate::route::RouteTable;
    use crate::shared::command::Published;
    use crate::shared::open::OpenCount;
    use crate::upstream::view::View;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        let mut out = len.to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    fn started() -> Scan {
        let mut scan = Scan::new(0);
        scan.look(&[b'P'; PREFACE_BYTES], 0);
        scan.look(&frame(SETTINGS, 0, b""), 0);
        scan
    }

    #[test]
    fn idle_frames_are_told_from_others_however_they_are_cut() {
        let bytes: Vec<u8> = [
            frame(6, 0, &[6; 8]),
            frame(0, 0, &[0; 70]),
            frame(0, 0, b""),
            frame(0, 1, b""),
            frame(1, 4, &[1; 9]),
            frame(9, 0, b""),
        ]
        .concat();
        for piece in [1, 2, 8, 9, 10, 200] {
            let mut scan = started();
            bytes.chunks(piece).for_each(|piece| scan.look(piece, 0));
            assert_eq!(scan.left, HTTP2_IDLE_FRAMES_COUNT_MAX - 4, "in pieces of {piece}");
        }
    }

    fn local() -> Rc<Local> {
        let text = "routing: {r: {respond: {status: 200}}}\n";
        let plan = Arc::new(crate::config::file::read(text, "test.yaml", |_| None).unwrap());
        let table = Arc::new(RouteTable::build(&plan.routes));
        let published = Published { plan, table, upstreams: Vec::new(), tls: None };
        let mut rng = Rng::new(1);
        let view = View::new(&published, 0, 1, None, &mut rng);
        Rc::new(Local::new(0, 1, view, Arc::default(), Arc::new(OpenCount::new(9, 9)), Size::NONE, rng).unwrap())
    }

    /// What the codec is handed before it has to wait, in bytes.
    fn handed(carrier: &mut Carrier) -> usize {
        let (mut bytes, mut sum) = ([0; 8192], 0);
        loop {
            let mut buf = ReadBuf::new(&mut bytes);
            let polled = Pin::new(&mut *carrier).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
            match polled {
                Poll::Ready(read) => read.unwrap(),
                Poll::Pending => return sum,
            }
            sum += buf.filled().len();
        }
    }

    #[test]
    fn a_turn_has_an_end_however_much_there_is() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let (near, far) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let large = frame(0, 0, &[0; 16_000]);
        let mut sent = far.send(&[b'P'; PREFACE_BYTES]).unwrap() + far.send(&frame(SETTINGS, 0, b"")).unwrap();
        while let Ok(n) = far.send(&large[..]) {
            sent += n;
            if n < large.len() {
                break;
            }
        }
        assert!(sent > HTTP2_TURN_BYTES_MAX + 16_000, "{sent}");
        let (local, traffic) = (local(), Rc::new(Traffic::default()));
        let stream = Rc::new(Stream::new(near.into()).unwrap());
        let mut carrier = Carrier::new(stream, local, traffic.clone(), b"");
        runtime.block_on(async {
            let (mut came, mut turns) = (0, 0);
            while came < sent {
                traffic.begin_turn();
                let n = handed(&mut carrier);
                assert!(n < HTTP2_TURN_BYTES_MAX + 8192, "{n} bytes in a turn");
                (came, turns) = (came + n, turns + 1);
                // The event loop's turn.
                tokio::task::yield_now().await;
            }
            assert!(turns <= 2 + sent / HTTP2_TURN_BYTES_MAX, "{turns} turns for {sent} bytes");
        });
    }

    #[test]
    fn a_flood_is_one_by_time_and_by_what_was_sent() {
        let ping = frame(6, 0, &[0; 8]);
        let mut scan = started();
        for tick in 0..100 {
            (0..HTTP2_IDLE_FRAMES_COUNT_PER_TICK).for_each(|_| scan.look(&ping, tick));
        }
        assert_eq!(scan.fault(), None);
        (0..HTTP2_IDLE_FRAMES_COUNT_MAX).for_each(|_| scan.look(&ping, 100));
        assert_eq!(scan.fault(), Some(Reason::ENHANCE_YOUR_CALM));
        let mut scan = started();
        for _ in 0..2 * HTTP2_IDLE_FRAMES_COUNT_MAX {
            scan.sent(HTTP2_SENT_BYTES_PER_FRAME);
            scan.look(&ping, 0);
        }
        assert_eq!(scan.fault(), None);
    }
}
