//! Tasks that wait until a shared connection has room.
//!
//! Owns their order. Never knows how much room there is: whoever is woken looks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Tasks that wait for room on a connection, first come first served.
#[derive(Debug, Default)]
pub struct Waiters {
    queue: RefCell<VecDeque<(u64, Waker)>>,
    tickets: Cell<u64>,
}

impl Waiters {
    /// A task that may have to wait.
    pub fn join(self: &Rc<Self>) -> Waiting {
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        Waiting { waiters: self.clone(), ticket, is_served: false }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// There is room for one.
    pub fn wake_one(&self) {
        let first = self.queue.borrow_mut().pop_front();
        first.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// All are to look anew.
    pub fn wake_all(&self) {
        let all = self.queue.take();
        all.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// One of [`Waiters`]. Dropped unserved after it was woken, it lets the next one have the room.
#[derive(Debug)]
pub struct Waiting {
    waiters: Rc<Waiters>,
    ticket: u64,
    is_served: bool,
}

impl Waiting {
    /// Is woken when there may be room.
    pub fn wait(&self, cx: &Context<'_>) {
        let mut queue = self.waiters.queue.borrow_mut();
        match queue.iter_mut().find(|(ticket, _)| *ticket == self.ticket) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => queue.push_back((self.ticket, cx.waker().clone())),
        }
    }

    /// Needs no room any more.
    pub fn serve(&mut self) {
        self.is_served = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queue = self.waiters.queue.borrow_mut();
        match queue.iter().position(|(ticket, _)| *ticket == self.ticket) {
            Some(at) => drop(queue.remove(at)),
            None => {
                drop(queue);
                if !self.is_served {
                    self.waiters.wake_one();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits, and counts how often it is woken.
    fn waiting(waiters: &Rc<Waiters>) -> (Waiting, Arc<Count>) {
        let (waiting, count) = (waiters.join(), Arc::new(Count::default()));
        let waker = Waker::from(count.clone());
        waiting.wait(&Context::from_waker(&waker));
        waiting.wait(&Context::from_waker(&waker));
        (waiting, count)
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_woken() {
        let waiters = Rc::<Waiters>::default();
        let all: Vec<_> = (0..3).map(|_| waiting(&waiters)).collect();
        let woken = || -> Vec<usize> { all.iter().map(|(_, count)| count.0.load(Ordering::Relaxed)).collect() };
        waiters.wake_one();
        assert_eq!((woken(), waiters.len()), (vec![1, 0, 0], 2));
        waiters.wake_all();
        assert_eq!((woken(), waiters.is_empty()), (vec![1, 1, 1], true));
    }

    #[test]
    fn room_that_somebody_leaves_is_the_next_ones() {
        let waiters = Rc::<Waiters>::default();
        let (first, _) = waiting(&waiters);
        let (gone, _) = waiting(&waiters);
        let (mut last, count) = waiting(&waiters);
        drop(gone);
        waiters.wake_one();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        // Woken and not served: its client left.
        drop(first);
        assert_eq!((count.0.load(Ordering::Relaxed), waiters.len()), (1, 0));
        let (_other, count) = waiting(&waiters);
        last.serve();
        drop(last);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }
}
