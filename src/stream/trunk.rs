//! One HTTP/2 connection to a backend, which carries the exchanges of many clients at once.
//!
//! Owns the connection's task, how many streams it carries, and whether it takes another. Never chooses among
//! connections, never dials, and never sees what a stream carries.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ::h2::client::{Builder, Connection, SendRequest};
use ::h2::{Ping, PingPong};
use bytes::Bytes;

use super::Stream;
use super::carrier::{Carrier, Signs};
use super::pulse::{Beat, PONG_TICKS, Pulse};
use super::waiters::Waiters;
use crate::limits::{
    TRUNK_LIST_BYTES_MAX, TRUNK_SEND_BUFFER_BYTES_MAX, TRUNK_STREAM_WINDOW_BYTES, TRUNK_STREAMS_COUNT_MAX,
    TRUNK_UNHEARD_SECONDS_MAX, TRUNK_WINDOW_BYTES,
};
use crate::wheel::{Deadline, Wheel, ticks};

/// Streams that we reset and whose last frames may still come, in streams; they are told from a fault for a moment.
const RESET_STREAMS_COUNT_MAX: usize = 1024;

/// An HTTP/2 connection to a backend. It ends once nobody holds it and its streams are done.
#[derive(Debug)]
pub struct Trunk {
    sender: RefCell<SendRequest<Bytes>>,
    streams: Cell<usize>,
    /// As many streams as the backend's settings allow; 0 until they came.
    allowed: Cell<usize>,
    /// As many streams as it is given.
    streams_max: Cell<usize>,
    /// Streams that ended since that was changed, as long as it is less than the backend's settings allow.
    ended: Cell<usize>,
    is_closing: Cell<bool>,
    idle_since: Cell<u32>,
    signs: Rc<Signs>,
    unheard: Cell<Option<Unheard>>,
    /// The connection's task. The codec does not wake it for those that leave while it waits for room to write.
    task: RefCell<Option<Waker>>,
    peer: Option<SocketAddr>,
    wheel: Rc<Wheel>,
    waiters: Rc<Waiters>,
}

/// Since when a request is out, and how much had been heard then.
#[derive(Clone, Copy, Debug)]
struct Unheard {
    reads: u64,
    since: u32,
}

/// Streams that end before a connection that refused one is given one more at once, in streams.
const STREAMS_FOR_ONE_MORE: usize = 100;
const UNHEARD_TICKS: u32 = ticks(Duration::from_secs(TRUNK_UNHEARD_SECONDS_MAX));

impl Trunk {
    /// Begins to speak HTTP/2 over `stream`, and waits for the backend's settings: they tell how many streams it takes.
    /// `waiters` are woken when there may be room for another stream.
    ///
    /// # Errors
    /// What the connection says, or that the other side doesn't speak HTTP/2.
    pub async fn open(stream: Stream, wheel: &Rc<Wheel>, waiters: &Rc<Waiters>) -> io::Result<Rc<Trunk>> {
        let (signs, peer) = (Rc::new(Signs::default()), stream.peer());
        let carrier = Carrier::new(stream, signs.clone());
        let (sender, mut connection) = builder().handshake(carrier).await.map_err(into_io)?;
        let watch = Watch {
            ping: connection.ping_pong(),
            signs: signs.clone(),
            heard_before: 0,
            pulse: Pulse::default(),
            leave_by: None,
            deadline: Deadline::new(wheel),
        };
        let trunk = Rc::new(Trunk {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            allowed: Cell::new(0),
            streams_max: Cell::new(0),
            ended: Cell::new(0),
            is_closing: Cell::new(false),
            idle_since: Cell::new(wheel.now()),
            signs,
            unheard: Cell::new(None),
            task: RefCell::new(None),
            peer,
            wheel: wheel.clone(),
            waiters: waiters.clone(),
        });
        let mut drive = Box::pin(drive(connection, Rc::downgrade(&trunk), watch));
        poll_fn(|cx| match drive.as_mut().poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Err(ended.err().unwrap_or(io::ErrorKind::UnexpectedEof.into()))),
            Poll::Pending if trunk.streams_max.get() > 0 => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        tokio::task::spawn_local(drive);
        Ok(trunk)
    }

    /// A place for one more stream, while there is room.
    pub fn place(self: &Rc<Self>) -> Option<Place> {
        if self.is_closing.get() || self.streams.get() >= self.streams_max.get() {
            return None;
        }
        self.streams.set(self.streams.get() + 1);
        Some(Place { trunk: self.clone() })
    }

    /// Most streams at once.
    pub fn capacity(&self) -> usize {
        self.streams_max.get()
    }

    /// Whether it takes no stream any more: the backend said so, or it is gone.
    pub fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// The tick since which it carries no stream; `None` while it does.
    pub fn idle_since(&self) -> Option<u32> {
        (self.streams.get() == 0).then_some(self.idle_since.get())
    }

    /// Whom it leads to; `None` for a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Looks at what the last frames changed.
    fn observe(&self, cx: &mut Context<'_>) {
        self.task.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        let mut sender = self.sender.borrow_mut();
        let is_closing = matches!(sender.poll_ready(cx), Poll::Ready(Err(_)));
        let allowed = sender.current_max_send_streams();
        if allowed != self.allowed.replace(allowed) {
            self.streams_max.set(allowed.min(TRUNK_STREAMS_COUNT_MAX));
            self.waiters.wake_all();
        }
        if is_closing && !self.is_closing.get() {
            self.end();
        }
    }

    /// It is given one more stream at once for every so many that end, up to what the backend's settings allow.
    fn regain(&self) {
        if self.streams_max.get() >= self.allowed.get().min(TRUNK_STREAMS_COUNT_MAX) {
            return;
        }
        self.ended.set(self.ended.get() + 1);
        if self.ended.get() >= STREAMS_FOR_ONE_MORE {
            self.ended.set(0);
            self.streams_max.set(self.streams_max.get() + 1);
            self.waiters.wake_one();
        }
    }

    /// Takes no stream any more; those that it has go on.
    fn end(&self) {
        self.is_closing.set(true);
        self.waiters.wake_all();
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

/// What h2 bears of small DATA frames that nobody has read, in bytes by its own reckoning: each counts as what it lacks to 256.
const DATA_FRAME_BUDGET_BYTES: usize = 32 * 1024 * 1024;

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(0)
        .initial_window_size(TRUNK_STREAM_WINDOW_BYTES as u32)
        .initial_connection_window_size(TRUNK_WINDOW_BYTES as u32)
        .max_header_list_size(TRUNK_LIST_BYTES_MAX as u32)
        .max_send_buffer_size(TRUNK_SEND_BUFFER_BYTES_MAX)
        .max_concurrent_reset_streams(RESET_STREAMS_COUNT_MAX)
        // Counted over the life of a connection: frames that cross our resets would end it for all others.
        .max_local_error_reset_streams(None)
        // Small frames of streams that are read slowly or were given up, too.
        .data_frame_budget(DATA_FRAME_BUDGET_BYTES);
    builder
}

fn into_io(error: ::h2::Error) -> io::Error {
    match error.is_io() {
        true => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()),
        false => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// Moves the frames of a connection until it ends. Holds it weakly: it ends when nobody wants it any more.
async fn drive(mut connection: Connection<Carrier, Bytes>, trunk: Weak<Trunk>, mut watch: Watch) -> io::Result<()> {
    let ended = poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx).map_err(into_io);
        let trunk = trunk.upgrade();
        trunk.iter().for_each(|trunk| trunk.observe(cx));
        if ended.is_ready() {
            return ended;
        }
        let overdue = match trunk {
            Some(trunk) => watch.poll(cx, trunk.streams.get() > 0),
            None => watch.poll_left(cx),
        };
        overdue.map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await;
    if let Some(trunk) = trunk.upgrade() {
        trunk.end();
    }
    ended
}

/// What a connection's task looks after beside its frames.
struct Watch {
    ping: Option<PingPong>,
    signs: Rc<Signs>,
    heard_before: u64,
    pulse: Pulse,
    /// The tick by which it ends, once nobody wants it any more.
    leave_by: Option<u32>,
    deadline: Deadline,
}

impl Watch {
    /// Ready when the other side gives no sign of life.
    fn poll(&mut self, cx: &mut Context<'_>, is_busy: bool) -> Poll<()> {
        loop {
            let heard = self.signs.reads();
            let was_heard = std::mem::replace(&mut self.heard_before, heard) != heard;
            match self.pulse.beat(self.deadline.now(), was_heard, is_busy) {
                Beat::Dead => return Poll::Ready(()),
                Beat::Ask => self.ask(cx),
                Beat::Wait(until) => {
                    self.deadline.set(until);
                    return self.deadline.poll_expired(cx);
                }
            }
        }
    }

    /// Ready when its last bytes take too long: the other side need not read them, nor close.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let by = *self.leave_by.get_or_insert(self.deadline.now().saturating_add(PONG_TICKS));
        self.deadline.set(by);
        self.deadline.poll_expired(cx)
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        if let Some(ping) = &mut self.ping {
            // The last answer is taken, so that another may be asked for. That it came was heard as any frame is.
            let _ = ping.poll_pong(cx);
            let _ = ping.send_ping(Ping::opaque());
        }
    }
}

/// A stream's place on its connection; given back on drop.
#[derive(Debug)]
pub struct Place {
    trunk: Rc<Trunk>,
}

impl Place {
    /// The backend refused the stream unseen. It gets no more at once than it took; and nothing when it took none.
    pub fn refused(&self) {
        let trunk = &self.trunk;
        match trunk.streams.get() {
            0 | 1 => trunk.end(),
            streams => trunk.streams_max.set(trunk.streams_max.get().min(streams - 1)),
        }
        trunk.ended.set(0);
    }

    /// A request goes out.
    pub fn asked(&self) {
        let (trunk, reads) = (&self.trunk, self.trunk.signs.reads());
        if trunk.unheard.get().is_none_or(|unheard| unheard.reads != reads) {
            trunk.unheard.set(Some(Unheard { reads, since: trunk.wheel.now() }));
        }
        trunk.signs.asked();
    }

    /// Nobody waits any more for an answer that has not begun. If nothing at all came meanwhile, the connection may be
    /// dead without a sign: others are not sent after.
    pub fn given_up(&self) {
        let trunk = &self.trunk;
        let unheard = trunk.unheard.get().filter(|unheard| unheard.reads == trunk.signs.reads());
        if unheard.is_some_and(|unheard| trunk.wheel.now().saturating_sub(unheard.since) >= UNHEARD_TICKS) {
            trunk.end();
        }
    }

    /// Makes requests on the connection.
    pub fn sender(&self) -> SendRequest<Bytes> {
        self.trunk.sender.borrow().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let trunk = &self.trunk;
        trunk.streams.set(trunk.streams.get() - 1);
        trunk.idle_since.set(trunk.wheel.now());
        trunk.regain();
        trunk.waiters.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Outgoing;
    use std::io::{IoSlice, Write};
    use std::os::unix::net::UnixStream;

    async fn let_others_run() {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_refusal_took_comes_back() {
        let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("a socket that does not block");
        far.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("settings sent");
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                let stream = Stream::new(near.into()).expect("a connection");
                let trunk = Trunk::open(stream, &Wheel::new(), &Rc::default()).await.expect("HTTP/2");
                let places = [trunk.place(), trunk.place()].map(|place| place.expect("a place"));
                places[1].refused();
                assert_eq!(trunk.capacity(), 1);
                drop(places);
                let serve = |count: usize| (0..count).for_each(|_| drop(trunk.place().expect("a place")));
                serve(STREAMS_FOR_ONE_MORE);
                assert_eq!(trunk.capacity(), 2);
                serve(TRUNK_STREAMS_COUNT_MAX * STREAMS_FOR_ONE_MORE);
                assert_eq!(trunk.capacity(), TRUNK_STREAMS_COUNT_MAX);
            })
            .await;
    }

    #[tokio::test]
    async fn a_connection_that_nobody_wants_ends_though_the_other_side_reads_nothing() {
        let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("a socket that does not block");
        // SETTINGS with a window of 1 MiB, and as much for the connection.
        far.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 16, 0, 0]).expect("settings sent");
        far.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 16, 0, 0]).expect("a window sent");
        let tasks = tokio::task::LocalSet::new();
        tasks
            .run_until(async {
                let (wheel, stream) = (Wheel::new(), Stream::new(near.into()).expect("a connection"));
                let trunk = Trunk::open(stream, &wheel, &Rc::default()).await.expect("HTTP/2");
                let outgoing = Outgoing::new(trunk.place().expect("a place"), false);
                let head = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n";
                outgoing.send(&[IoSlice::new(head)]).expect("a head taken");
                for _ in 0..100 {
                    let _ = outgoing.send(&[IoSlice::new(&[b'x'; 8192])]);
                    let_others_run().await;
                }
                assert!(outgoing.unsent() > 0, "the socket is full");
                drop((outgoing, trunk));
                let_others_run().await;
                assert!(!wheel.is_empty(), "it still hopes to say its last");
                wheel.advance_to(PONG_TICKS + 1);
                let_others_run().await;
                assert!(wheel.is_empty(), "its task has ended");
            })
            .await;
    }
}
