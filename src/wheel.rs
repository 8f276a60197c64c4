//! Deadlines of one worker: a coarse wheel of 100 ms slots, armed by a store and checked when a slot comes round.
//!
//! Owns the entries of all running tasks of a worker. Never knows what a deadline means, and never holds one for a
//! parked connection (the parking lot orders those by age).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// One tick of the wheel.
pub const TICK: Duration = Duration::from_millis(100);

/// Slots; a later deadline hops round. Few, so that the stale marks that re-arming leaves behind are few too.
const SLOTS: usize = 32;
const NEVER: u32 = u32::MAX;

/// How many ticks a duration takes, rounded up, at least one.
pub const fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(TICK.as_millis());
    if ticks == 0 {
        1
    } else if ticks > (NEVER / 4) as u128 {
        NEVER / 4
    } else {
        ticks as u32
    }
}

#[derive(Debug)]
struct Entry {
    deadline: u32,
    /// The tick of the slot that holds the mark that counts; other marks of this entry are stale.
    marked: u32,
    waker: Option<Waker>,
}

/// The wheel of one worker.
#[derive(Debug, Default)]
pub struct Wheel {
    now: Cell<u32>,
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    entries: Vec<Entry>,
    free: Vec<u32>,
    slots: [Vec<u32>; SLOTS],
}

impl Default for Inner {
    fn default() -> Self {
        Inner { entries: Vec::new(), free: Vec::new(), slots: std::array::from_fn(|_| Vec::new()) }
    }
}

impl Inner {
    fn mark(&mut self, key: u32, now: u32, deadline: u32) {
        let tick = deadline.clamp(now + 1, now + SLOTS as u32 - 1);
        self.entries[key as usize].marked = tick;
        self.slots[tick as usize % SLOTS].push(key);
    }
}

impl Wheel {
    /// A wheel that stands at tick 0.
    pub fn new() -> Rc<Wheel> {
        Rc::new(Wheel::default())
    }

    /// Ticks since the wheel was made.
    pub fn now(&self) -> u32 {
        self.now.get()
    }

    /// Deadlines that exist.
    pub fn len(&self) -> usize {
        let inner = self.inner.borrow();
        inner.entries.len() - inner.free.len()
    }

    /// Whether no deadline exists.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Turns the wheel to `tick`, and wakes the tasks whose deadlines came.
    pub fn advance_to(&self, tick: u32) {
        while self.now.get() < tick {
            let now = self.now.get() + 1;
            self.now.set(now);
            self.turn(now);
        }
    }

    /// Wakes every task that has a deadline, due or not: they are to look at a changed world.
    pub fn wake_all(&self) {
        let wakers: Vec<Waker> = self.inner.borrow_mut().entries.iter_mut().filter_map(|e| e.waker.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn turn(&self, now: u32) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let mut due = std::mem::take(&mut inner.slots[now as usize % SLOTS]);
        for key in due.drain(..) {
            let entry = &mut inner.entries[key as usize];
            if entry.marked != now {
                continue;
            }
            entry.marked = NEVER;
            if entry.deadline == NEVER {
                continue;
            }
            if entry.deadline > now {
                let deadline = entry.deadline;
                inner.mark(key, now, deadline);
            } else if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
        // Marks can't have come in meanwhile: waking only queues tasks. A burst's room is given back.
        if due.capacity() <= 1024 {
            inner.slots[now as usize % SLOTS] = due;
        }
        if inner.free.len() == inner.entries.len() && inner.entries.capacity() > 1024 {
            inner.entries = Vec::new();
            inner.free = Vec::new();
            inner.slots.iter_mut().for_each(|slot| *slot = Vec::new());
        }
    }

    fn insert(&self) -> u32 {
        let mut inner = self.inner.borrow_mut();
        let entry = Entry { deadline: NEVER, marked: NEVER, waker: None };
        match inner.free.pop() {
            Some(key) => {
                inner.entries[key as usize] = entry;
                key
            }
            None => {
                inner.entries.push(entry);
                (inner.entries.len() - 1) as u32
            }
        }
    }
}

/// One task's deadline. Dropping it forgets it.
#[derive(Debug)]
pub struct Deadline {
    wheel: Rc<Wheel>,
    key: u32,
}

impl Deadline {
    /// A deadline that never comes, until it is set.
    pub fn new(wheel: &Rc<Wheel>) -> Self {
        Deadline { wheel: wheel.clone(), key: wheel.insert() }
    }

    /// Ticks since the wheel was made.
    pub fn now(&self) -> u32 {
        self.wheel.now()
    }

    /// Comes at tick `at` (`u32::MAX`: never). Costs a store unless `at` is earlier than what was set before.
    pub fn set(&self, at: u32) {
        let mut inner = self.wheel.inner.borrow_mut();
        let entry = &mut inner.entries[self.key as usize];
        entry.deadline = at;
        if at != NEVER && entry.marked > at {
            let now = self.wheel.now.get();
            inner.mark(self.key, now, at);
        }
    }

    /// Comes after `ticks` ticks from now; the running tick does not count.
    pub fn set_after(&self, ticks: u32) {
        self.set(self.wheel.now().saturating_add(ticks).saturating_add(1));
    }

    /// Ready once the deadline came; the task is woken then.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.wheel.inner.borrow_mut();
        let entry = &mut inner.entries[self.key as usize];
        if entry.deadline <= self.wheel.now.get() {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut inner = self.wheel.inner.borrow_mut();
        // A mark may still stand in a slot: it is stale, as `marked` of a freed or reused entry tells another tick.
        let entry = &mut inner.entries[self.key as usize];
        *entry = Entry { deadline: NEVER, marked: NEVER, waker: None };
        inner.free.push(self.key);
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

    fn poll(deadline: &Deadline, count: &Arc<Count>) -> bool {
        let waker = Waker::from(count.clone());
        deadline.poll_expired(&mut Context::from_waker(&waker)).is_ready()
    }

    #[test]
    fn a_deadline_comes_on_its_tick_even_beyond_the_horizon() {
        for after in [1, 2, 31, 32, 33, 300] {
            let wheel = Wheel::new();
            wheel.advance_to(7);
            let deadline = Deadline::new(&wheel);
            let count = Arc::new(Count::default());
            deadline.set(7 + after);
            assert!(!poll(&deadline, &count));
            wheel.advance_to(7 + after - 1);
            assert_eq!(count.0.load(Ordering::Relaxed), 0, "after {after}");
            wheel.advance_to(7 + after);
            assert_eq!(count.0.load(Ordering::Relaxed), 1, "after {after}");
            assert!(poll(&deadline, &count));
        }
    }

    #[test]
    fn setting_it_later_or_earlier_moves_it() {
        let wheel = Wheel::new();
        let deadline = Deadline::new(&wheel);
        let count = Arc::new(Count::default());
        deadline.set(5);
        deadline.set(100);
        assert!(!poll(&deadline, &count));
        wheel.advance_to(20);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        deadline.set(22);
        wheel.advance_to(22);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_reused_entry_does_not_inherit_marks() {
        let wheel = Wheel::new();
        let first = Deadline::new(&wheel);
        first.set(3);
        drop(first);
        let second = Deadline::new(&wheel);
        let count = Arc::new(Count::default());
        second.set(10);
        assert!(!poll(&second, &count));
        wheel.advance_to(9);
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        wheel.advance_to(10);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
