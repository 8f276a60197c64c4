//! A connection of the data path as the HTTP/2 codec wants it, without what a backend must not make the codec hold or choke on.
//!
//! Owns the shape, and a look at the heads of the frames that come in. DATA frames that are empty and end nothing are taken out:
//! they say nothing, but the codec ends a connection after a hundred of them in its life. Heads that nobody asked for, and frames
//! without end from a backend that reads nothing, end the connection: what answers them would pile up. Never buffers more than
//! a frame's head, and never understands a payload.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use crate::http::frame::{DATA, FRAME_HEAD_BYTES, FieldBlock, FrameHead, FrameWalk, HEADERS};
use crate::limits::{
    TRUNK_BLOCK_BYTES_MAX, TRUNK_HEADS_COUNT_MAX, TRUNK_STREAM_HEADS_COUNT_MAX, TRUNK_STUCK_FRAMES_COUNT_MAX,
};

/// Most bytes one read asks for: a frame of usual size and its head. The room has to be filled with zeros first.
const READ_BYTES_MAX: usize = 16 * 1024 + FRAME_HEAD_BYTES;
/// Reads in one go that bring nothing for the codec; then other tasks get their turn.
const READS_IN_A_GO_MAX: u32 = 16;

/// What the connection and its carrier tell each other.
#[derive(Debug, Default)]
pub struct Signs {
    reads: Cell<u64>,
    /// Heads of answers that may come still.
    heads: Cell<usize>,
}

impl Signs {
    /// Reads that brought something, so far.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// A request goes out: heads may come for it.
    pub fn asked(&self) {
        self.heads.set((self.heads.get() + TRUNK_STREAM_HEADS_COUNT_MAX).min(TRUNK_HEADS_COUNT_MAX));
    }
}

/// A connection that carries the frames of HTTP/2.
#[derive(Debug)]
pub struct Carrier {
    stream: Stream,
    signs: Rc<Signs>,
    walk: FrameWalk,
    block: FieldBlock,
    /// A head that came in pieces, for the codec, and how many bytes at its end it has not taken.
    head: [u8; FRAME_HEAD_BYTES],
    head_left: usize,
    /// Frames that came since the other side takes nothing; `None` while it does.
    stuck: Option<usize>,
}

impl Carrier {
    /// Tells `signs` what comes.
    pub fn new(stream: Stream, signs: Rc<Signs>) -> Carrier {
        let walk = FrameWalk::behind(0);
        Carrier {
            stream,
            signs,
            walk,
            block: FieldBlock::default(),
            head: [0; FRAME_HEAD_BYTES],
            head_left: 0,
            stuck: None,
        }
    }

    fn hand_over_head(&mut self, buf: &mut ReadBuf<'_>) {
        let from = FRAME_HEAD_BYTES - self.head_left;
        let n = self.head_left.min(buf.remaining());
        buf.put_slice(&self.head[from..from + n]);
        self.head_left -= n;
    }

    /// Reads the rest of a head that came in part.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut rest = [0; FRAME_HEAD_BYTES];
        let rest = &mut rest[..self.walk.missing()];
        let n = ready!(self.stream.poll_recv(cx, rest))?;
        if let Some(head) = self.walk.step(&rest[..n]).head
            && self.admit(&head)?
        {
            (self.head, self.head_left) = (head.bytes, FRAME_HEAD_BYTES);
        }
        Poll::Ready(Ok(n))
    }

    /// Reads frames into `buf` from the beginning of a head or within a payload; takes out what the codec is not to see,
    /// and what came of a head at the end.
    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let room = buf.remaining().min(READ_BYTES_MAX);
        let bytes = buf.initialize_unfilled_to(room);
        let n = ready!(self.stream.poll_recv(cx, bytes))?;
        let kept = self.sift(&mut bytes[..n])?;
        buf.advance(kept);
        Poll::Ready(Ok(n))
    }

    /// Moves what is kept of `bytes` to the front; returns how much that is.
    fn sift(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() {
            let step = self.walk.step(&bytes[at..]);
            let is_kept = match &step.head {
                Some(head) => self.admit(head)?,
                None => false,
            };
            let len = step.payload + if is_kept { step.head_bytes } else { 0 };
            if kept < at {
                bytes.copy_within(at..at + len, kept);
            }
            kept += len;
            at += step.payload + step.head_bytes;
        }
        Ok(kept)
    }

    /// Whether the codec is to see a frame.
    fn admit(&mut self, head: &FrameHead) -> io::Result<bool> {
        if head.kind == HEADERS && !head.is_end_stream() {
            let left = self.signs.heads.get().checked_sub(1).ok_or_else(|| broken("heads that nobody asked for"))?;
            self.signs.heads.set(left);
        }
        if self.block.add(head) > TRUNK_BLOCK_BYTES_MAX {
            return Err(broken("a list of fields that is far too large"));
        }
        if let Some(frames) = &mut self.stuck {
            *frames += 1;
            if *frames > TRUNK_STUCK_FRAMES_COUNT_MAX {
                return Err(broken("the backend sends and takes nothing"));
            }
        }
        Ok(head.kind != DATA || head.len > 0 || head.is_end_stream())
    }

    fn wrote<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &written {
            Poll::Ready(_) => self.stuck = None,
            Poll::Pending => self.stuck = self.stuck.or(Some(0)),
        }
        written
    }
}

fn broken(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl AsyncRead for Carrier {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        for _ in 0..READS_IN_A_GO_MAX {
            self.hand_over_head(buf);
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            let within_head = self.walk.is_within_head();
            let read = if within_head { self.poll_head(cx) } else { self.poll_frames(cx, buf) };
            if ready!(read)? == 0 {
                return Poll::Ready(Ok(()));
            }
            self.signs.reads.set(self.signs.reads.get() + 1);
        }
        if buf.filled().len() == before {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.stream.poll_send(cx, &[IoSlice::new(buf)]);
        self.wrote(sent)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.stream.poll_send(cx, bufs);
        self.wrote(sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.poll_flush(cx);
        self.wrote(flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream.poll_flush(cx))?;
        self.stream.shutdown_write();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::frame::END_STREAM;
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        out.extend_from_slice(payload);
        out
    }

    fn pair() -> (Carrier, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("a socket that does not block");
        (Carrier::new(Stream::new(near.into()).expect("a connection"), Rc::default()), far)
    }

    /// Reads up to the end, at most `room` bytes at a time.
    async fn all_of(carrier: &mut Carrier, room: usize) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let (mut bytes, before) = (vec![0; room], all.len());
            poll_fn(|cx| {
                let mut buf = ReadBuf::new(&mut bytes);
                ready!(Pin::new(&mut *carrier).poll_read(cx, &mut buf))?;
                all.extend_from_slice(buf.filled());
                Poll::Ready(io::Result::Ok(()))
            })
            .await
            .expect("bytes");
            if all.len() == before {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn empty_frames_are_taken_out_however_they_come() {
        let (empty, data) = (frame(DATA, 0, b""), frame(DATA, 0, b"abc"));
        let (end, other) = (frame(DATA, END_STREAM, b""), frame(4, 0, &[1; 12]));
        let came = [&empty, &data, &empty, &empty, &other, &data, &empty, &end].map(|frame| &frame[..]).concat();
        let kept = [&data, &other, &data, &end].map(|frame| &frame[..]).concat();
        for room in [1, 2, 5, 9, 10, 13, 64, 1000] {
            let (mut carrier, mut far) = pair();
            far.write_all(&came).expect("frames sent");
            drop(far);
            assert_eq!(all_of(&mut carrier, room).await, kept, "by {room} bytes");
        }
    }

    #[tokio::test]
    async fn heads_have_to_be_asked_for() {
        let (mut carrier, _far) = pair();
        let mut head = frame(HEADERS, 4, &[0x88]);
        assert!(carrier.sift(&mut head).is_err());
        let (mut carrier, _far) = pair();
        carrier.signs.asked();
        assert!((0..TRUNK_STREAM_HEADS_COUNT_MAX).all(|_| carrier.sift(&mut head).is_ok()));
        assert!(carrier.sift(&mut head).is_err());
        (0..2 * TRUNK_HEADS_COUNT_MAX).for_each(|_| carrier.signs.asked());
        assert_eq!(carrier.signs.heads.get(), TRUNK_HEADS_COUNT_MAX);
    }

    #[tokio::test]
    async fn who_takes_nothing_sends_no_more_than_so_many_frames() {
        let (mut carrier, _far) = pair();
        let mut ping = frame(6, 0, &[0; 8]);
        let mut flood = |carrier: &mut Carrier| {
            (0..=TRUNK_STUCK_FRAMES_COUNT_MAX).try_for_each(|_| carrier.sift(&mut ping).map(drop))
        };
        assert!(flood(&mut carrier).is_ok());
        let _ = carrier.wrote::<()>(Poll::Pending);
        let _ = carrier.wrote(Poll::Ready(Ok(1)));
        assert!(flood(&mut carrier).is_ok());
        let _ = carrier.wrote::<()>(Poll::Pending);
        assert!(flood(&mut carrier).is_err());
    }
}
