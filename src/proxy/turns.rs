//! Turns: how many new requests a worker begins before it looks at the event loop again.
//!
//! Owns the order in which requests that are ready wait for their turn. With thousands of clients ready at once, beginning
//! all of them before the first answer is fetched would spread a worker over as many backend connections and buffers,
//! none of them warm in a cache; begun a few at a time, answers come first and the few are used again and again. Never
//! holds a request back while the worker has nothing better to do: a turn is one pass of the loop, not a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Requests begun in one turn. Measured at 1,000 and 5,000 busy connections: see docs/performance.md.
const TURN_REQUESTS_MAX: u32 = 64;

/// TLS handshake steps in one turn: a full one takes as long as a dozen requests.
const TURN_HANDSHAKES_MAX: u32 = 1;

/// The turns of one worker.
#[derive(Debug)]
pub struct Turns {
    max: u32,
    left: Cell<u32>,
    waiting: RefCell<VecDeque<Waker>>,
    dealer: RefCell<Option<Waker>>,
}

impl Turns {
    /// The turns of requests.
    pub fn of_requests() -> Self {
        Turns::of(TURN_REQUESTS_MAX)
    }

    /// The turns of TLS handshakes: while others are ready, a flood of them gets one step in each pass of the loop.
    pub fn of_handshakes() -> Self {
        Turns::of(TURN_HANDSHAKES_MAX)
    }

    fn of(max: u32) -> Self {
        Turns { max, left: Cell::new(max), waiting: RefCell::default(), dealer: RefCell::default() }
    }

    /// Takes a place in this turn for one request. `has_waited`: it was told to wait before. Pending: it is woken in a
    /// later turn.
    pub fn poll_take(&self, cx: &mut Context<'_>, has_waited: &mut bool) -> Poll<()> {
        let left = self.left.get();
        let mut waiting = self.waiting.borrow_mut();
        if left > 0 && (*has_waited || waiting.is_empty()) {
            self.left.set(left - 1);
            *has_waited = false;
            return Poll::Ready(());
        }
        *has_waited = true;
        waiting.push_back(cx.waker().clone());
        if let Some(dealer) = self.dealer.borrow_mut().take() {
            dealer.wake();
        }
        Poll::Pending
    }

    /// Deals a new turn in each pass of the loop in which somebody waits. Never ends.
    pub async fn deal(&self) {
        loop {
            poll_fn(|cx| {
                if !self.waiting.borrow().is_empty() {
                    return Poll::Ready(());
                }
                *self.dealer.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            // Resumed only after the event loop was asked for what has become ready meanwhile.
            tokio::task::yield_now().await;
            self.left.set(self.max);
            let mut waiting = self.waiting.borrow_mut();
            let count = waiting.len().min(self.max as usize);
            waiting.drain(..count).for_each(Waker::wake);
            if waiting.is_empty() && waiting.capacity() > 1024 {
                *waiting = VecDeque::new();
            }
        }
    }
}
