//! Who is connected to management, and who has to go: seats are few, and nobody may keep the operators out by taking
//! them and staying silent.
//!
//! Owns seats and their deadlines. Never looks at what is said.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::answer::{Answer, Waiting};
use crate::clock;

/// Connections at once.
const CONNECTIONS_COUNT_MAX: usize = 256;
/// From the connection to the whole head of its first request, in milliseconds; whatever version it speaks.
const FIRST_HEAD_MS: u64 = 10_000;
/// Without a byte either way, in milliseconds. Event streams and HTTP/2 pings are more often.
const SILENCE_MS: u64 = 75_000;
/// For a peer that does not read what it asked for, or one answer of several, in milliseconds.
const STUCK_MS: u64 = 30_000;
/// How long one who comes waits for a seat before somebody is asked to leave, each time.
const PATIENCE: Duration = Duration::from_millis(10);
/// Silence after which a connection may have to make room for another one, in milliseconds.
const IDLE_MS: u64 = 1_000;

/// All seats of one port.
#[derive(Debug)]
pub struct Seats {
    free: Arc<Semaphore>,
    taken: Mutex<Vec<Weak<Sitter>>>,
}

impl Default for Seats {
    fn default() -> Self {
        let free = Arc::new(Semaphore::new(CONNECTIONS_COUNT_MAX));
        Seats { free, taken: Mutex::default() }
    }
}

impl Seats {
    /// A seat for one more connection; while there is none, of those that wait for nothing the most silent one has to
    /// leave.
    pub async fn take(&self) -> Option<Seat> {
        let permit = loop {
            let free = self.free.clone().acquire_owned();
            match tokio::time::timeout(PATIENCE, free).await {
                Ok(permit) => break permit.ok()?,
                Err(_) => self.make_room(clock::now_ms()),
            }
        };
        let sitter = Arc::new(Sitter::new(clock::now_ms()));
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|other| other.strong_count() > 0);
        taken.push(Arc::downgrade(&sitter));
        Some(Seat { sitter, _permit: permit })
    }

    fn make_room(&self, now_ms: u64) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = taken.iter().filter_map(Weak::upgrade).filter(|sitter| sitter.is_idle(now_ms));
        if let Some(longest) = idle.min_by_key(|sitter| sitter.moved_ms.load(Ordering::Relaxed)) {
            longest.leave.notify_one();
        }
    }
}

/// One connection's seat, free again when this is dropped.
#[derive(Debug)]
pub struct Seat {
    /// What is known of who sits there.
    pub sitter: Arc<Sitter>,
    _permit: OwnedSemaphorePermit,
}

/// What one connection does, in milliseconds of the process clock.
#[derive(Debug)]
pub struct Sitter {
    began_ms: u64,
    moved_ms: AtomicU64,
    /// Since when it has not taken what is sent; 0: it does.
    stuck_ms: AtomicU64,
    has_asked: AtomicBool,
    under_way: AtomicUsize,
    /// Of the answers under way; HTTP/2 has several at once, each with a window of its own.
    answers: Mutex<Vec<Arc<Waiting>>>,
    leave: Notify,
}

impl Sitter {
    fn new(now_ms: u64) -> Self {
        Sitter {
            began_ms: now_ms,
            moved_ms: AtomicU64::new(now_ms),
            stuck_ms: AtomicU64::new(0),
            has_asked: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            answers: Mutex::default(),
            leave: Notify::new(),
        }
    }

    /// A request that waits for its answer's head; until the guard is dropped.
    pub fn asks(self: &Arc<Self>) -> Asking {
        self.has_asked.store(true, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Asking(self.clone())
    }

    /// The body of an answer for it, watched until it is dropped.
    pub fn is_given(&self, body: Body) -> Answer {
        let waiting = Arc::new(Waiting::default());
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|other| Arc::strong_count(other) > 1);
        answers.push(waiting.clone());
        Answer::new(body, waiting)
    }

    fn has_stuck_answer(&self, now_ms: u64) -> bool {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().any(|waiting| waiting.is_for(STUCK_MS, now_ms))
    }

    /// Resolves when somebody else needs the seat more.
    pub async fn is_asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether a deadline has passed.
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        let since = |ms: &AtomicU64| now_ms.saturating_sub(ms.load(Ordering::Relaxed));
        let is_late = !self.has_asked.load(Ordering::Relaxed) && now_ms.saturating_sub(self.began_ms) >= FIRST_HEAD_MS;
        let is_stuck = self.stuck_ms.load(Ordering::Relaxed) != 0 && since(&self.stuck_ms) >= STUCK_MS;
        is_late || is_stuck || since(&self.moved_ms) >= SILENCE_MS || self.has_stuck_answer(now_ms)
    }

    fn is_idle(&self, now_ms: u64) -> bool {
        let silent_ms = now_ms.saturating_sub(self.moved_ms.load(Ordering::Relaxed));
        self.under_way.load(Ordering::Relaxed) == 0 && silent_ms >= IDLE_MS
    }

    fn moved<T>(&self, outcome: &Poll<io::Result<T>>, has_moved: bool) {
        if outcome.is_ready() && has_moved {
            self.moved_ms.store(clock::now_ms(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, outcome: &Poll<io::Result<usize>>) {
        self.moved(outcome, true);
        let now_ms = clock::now_ms().max(1);
        match outcome {
            Poll::Ready(_) => self.stuck_ms.store(0, Ordering::Relaxed),
            Poll::Pending => {
                let _ = self.stuck_ms.compare_exchange(0, now_ms, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

/// See [`Sitter::asks`].
#[derive(Debug)]
pub struct Asking(Arc<Sitter>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that notes what moves on it.
#[derive(Debug)]
pub struct Watched {
    stream: TcpStream,
    sitter: Arc<Sitter>,
}

impl Watched {
    /// The connection of this sitter.
    pub fn new(stream: TcpStream, sitter: Arc<Sitter>) -> Self {
        Watched { stream, sitter }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.sitter.moved(&outcome, buf.filled().len() > before);
        outcome
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sitter.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sitter.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_deadline() {
        let sitter = Arc::new(Sitter::new(1_000));
        assert!(!sitter.is_overdue(10_999) && sitter.is_overdue(11_000), "it has never asked");
        drop(sitter.asks());
        assert!(!sitter.is_overdue(75_999) && sitter.is_overdue(76_000), "it is silent");
        sitter.moved_ms.store(100_000, Ordering::Relaxed);
        sitter.stuck_ms.store(90_000, Ordering::Relaxed);
        assert!(!sitter.is_overdue(119_999) && sitter.is_overdue(120_000), "it does not read");
    }

    #[test]
    fn an_answer_that_nobody_takes_has_a_deadline_whatever_else_moves() {
        let sitter = Arc::new(Sitter::new(clock::now_ms()));
        drop(sitter.asks());
        let (taken, left) = (sitter.is_given(Body::from("a")), sitter.is_given(Body::from("b")));
        drop(taken);
        let now_ms = clock::now_ms();
        let late_ms = now_ms + STUCK_MS + 1;
        sitter.moved_ms.store(late_ms, Ordering::Relaxed);
        assert!(!sitter.is_overdue(now_ms) && sitter.is_overdue(late_ms));
        drop(left);
        assert!(!sitter.is_overdue(late_ms));
    }

    #[test]
    fn who_waits_for_an_answer_does_not_make_room() {
        let sitter = Arc::new(Sitter::new(0));
        assert!(!sitter.is_idle(999) && sitter.is_idle(1_000));
        let asking = sitter.asks();
        assert!(!sitter.is_idle(1_000));
        drop(asking);
        assert!(sitter.is_idle(1_000));
    }
}
