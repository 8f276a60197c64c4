//! Turns: how many new requests a worker begins before it looks at the event loop again.
//!
//! Owns the order in which requests that are ready wait for their turn. With thousands of clients ready at once, beginning
//! all of them before the first answer is fetched would spread a worker over as many backend connections and buffers,
//! none of them warm in a cache; begun a few at a time, answers come first and the few are used again and again. Never
//! holds a request back while the worker has nothing better to do: a turn is one pass of the loop, not a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZeroU64;
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
    /// The place of the first one in `waiting`; all before it were dealt a turn.
    first: Cell<u64>,
    dealer: RefCell<Option<Waker>>,
}

/// Somebody's place among those that wait for a turn.
#[derive(Debug, Default)]
pub struct Wait(Option<NonZeroU64>);

impl Wait {
    /// Whether a turn is waited for.
    pub fn is_waiting(&self) -> bool {
        self.0.is_some()
    }
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
        let (waiting, dealer) = Default::default();
        Turns { max, left: Cell::new(max), waiting, first: Cell::new(1), dealer }
    }

    /// Takes a place in this turn. Pending: `wait` has its place in line now, and it is woken in its turn, in which a place
    /// is kept for it.
    pub fn poll_take(&self, cx: &mut Context<'_>, wait: &mut Wait) -> Poll<()> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(place) = wait.0 {
            let Some(ahead) = place.get().checked_sub(self.first.get()) else {
                *wait = Wait::default();
                return Poll::Ready(());
            };
            // Something else woke it: it stands in line once.
            if let Some(waker) = waiting.get_mut(ahead as usize) {
                waker.clone_from(cx.waker());
            }
            return Poll::Pending;
        }
        let left = self.left.get();
        if left > 0 && waiting.is_empty() {
            self.left.set(left - 1);
            return Poll::Ready(());
        }
        *wait = Wait(NonZeroU64::new(self.first.get() + waiting.len() as u64));
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
            self.deal_once();
        }
    }

    /// A new turn: those that have waited longest first, and what they leave is for whoever comes.
    fn deal_once(&self) {
        let mut waiting = self.waiting.borrow_mut();
        let count = waiting.len().min(self.max as usize);
        self.left.set(self.max - count as u32);
        self.first.set(self.first.get() + count as u64);
        waiting.drain(..count).for_each(Waker::wake);
        if waiting.is_empty() && waiting.capacity() > 1024 {
            *waiting = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// Somebody who may have to wait.
    #[derive(Default)]
    struct One {
        wait: Wait,
        woken: Arc<Woken>,
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl One {
        fn takes(&mut self, turns: &Turns) -> bool {
            let waker = Waker::from(self.woken.clone());
            turns.poll_take(&mut Context::from_waker(&waker), &mut self.wait).is_ready()
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn one_a_turn_goes_in_the_order_of_coming_and_nobody_barges() {
        let turns = Turns::of(1);
        assert!(One::default().takes(&turns));
        let mut all: Vec<One> = (0..5).map(|_| One::default()).collect();
        assert!(all.iter_mut().all(|one| !one.takes(&turns)));
        for at in 0..all.len() {
            turns.deal_once();
            assert!(!One::default().takes(&turns), "the place of this turn is kept");
            for (other, one) in all.iter_mut().enumerate() {
                assert_eq!(one.woken(), usize::from(other <= at), "{other} in turn {at}");
                if other > at {
                    assert!(!one.takes(&turns), "{other} in turn {at}");
                }
            }
            assert!(all[at].takes(&turns) && !all[at].wait.is_waiting());
        }
    }

    #[test]
    fn a_turn_of_several_is_for_those_who_waited_and_the_rest_for_who_comes() {
        let turns = Turns::of(3);
        assert!((0..3).all(|_| One::default().takes(&turns)));
        let mut waiting = [One::default(), One::default()];
        assert!(waiting.iter_mut().all(|one| !one.takes(&turns)));
        turns.deal_once();
        assert!(One::default().takes(&turns) && !One::default().takes(&turns));
        assert!(waiting.iter_mut().all(|one| one.takes(&turns)));
    }

    #[test]
    fn who_is_woken_by_something_else_stands_in_line_once() {
        let turns = Turns::of(1);
        assert!(One::default().takes(&turns));
        let (mut busy, mut next) = (One::default(), One::default());
        assert!(!busy.takes(&turns) && !next.takes(&turns) && !busy.takes(&turns));
        // Another task polls for it from now on.
        let before = std::mem::take(&mut busy.woken);
        assert!(!busy.takes(&turns));
        assert_eq!(turns.waiting.borrow().len(), 2);
        turns.deal_once();
        assert_eq!((before.0.load(Ordering::Relaxed), busy.woken(), next.woken()), (0, 1, 0));
        turns.deal_once();
        assert!(busy.takes(&turns) && next.takes(&turns));
    }

    #[test]
    fn all_get_their_turn_also_behind_those_who_gave_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(tokio::task::LocalSet::new().run_until(async {
            let turns = Rc::new(Turns::of(1));
            let began = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..100)
                .map(|n| {
                    let (turns, began) = (turns.clone(), began.clone());
                    tokio::task::spawn_local(async move {
                        let mut wait = Wait::default();
                        poll_fn(|cx| turns.poll_take(cx, &mut wait)).await;
                        began.borrow_mut().push(n);
                    })
                })
                .collect();
            let dealer = tokio::task::spawn_local(async move { turns.deal().await });
            // All but the first stand in line now; every third one goes away.
            tokio::task::yield_now().await;
            tasks.iter().skip(1).step_by(3).for_each(tokio::task::JoinHandle::abort);
            for (n, task) in tasks.into_iter().enumerate() {
                assert_eq!(task.await.is_ok(), n % 3 != 1, "{n}");
            }
            dealer.abort();
            assert!(began.borrow().is_sorted() && began.borrow().len() == 67, "{began:?}");
        }));
    }
}
