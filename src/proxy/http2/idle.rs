//! The HTTP/2 connections of a worker that have no stream, in the order in which they became so.
//!
//! Owns that order: who has been idle longest is asked to go when descriptors or places for clients run out. Never closes
//! a connection: its own task does, with a GOAWAY.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::Waker;

/// The idle ones.
#[derive(Debug, Default)]
pub struct Idlers {
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next: Cell<u64>,
    /// Asked, and not gone yet.
    leaving: Cell<usize>,
}

impl Idlers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks the `count` longest idle ones to go; how many were there to be asked.
    pub fn ask(&self, count: usize) -> usize {
        let mut waiting = self.waiting.borrow_mut();
        let mut asked = 0;
        while asked < count
            && let Some((_, waker)) = waiting.pop_first()
        {
            waker.wake();
            asked += 1;
        }
        self.leaving.set(self.leaving.get() + asked);
        asked
    }

    /// Whether one of those that were asked is still on its way out.
    pub fn is_leaving(&self) -> bool {
        self.leaving.get() > 0
    }

    /// A connection becomes idle; `waker` is its task's.
    pub fn enter(self: &Rc<Idlers>, waker: &Waker) -> Idler {
        let id = self.next.get();
        self.next.set(id + 1);
        self.waiting.borrow_mut().insert(id, waker.clone());
        Idler { idlers: self.clone(), id }
    }
}

/// A connection's place in the order. Dropped when it is idle no more.
#[derive(Debug)]
pub struct Idler {
    idlers: Rc<Idlers>,
    id: u64,
}

impl Idler {
    /// Whether it was asked to go.
    pub fn is_asked(&self) -> bool {
        !self.idlers.waiting.borrow().contains_key(&self.id)
    }
}

impl Drop for Idler {
    fn drop(&mut self) {
        if self.idlers.waiting.borrow_mut().remove(&self.id).is_none() {
            self.idlers.leaving.set(self.idlers.leaving.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_are_asked_first() {
        let idlers = Rc::new(Idlers::default());
        let [a, b, c] = [(); 3].map(|()| idlers.enter(Waker::noop()));
        drop(a);
        assert_eq!(idlers.ask(1), 1);
        assert!(b.is_asked() && !c.is_asked());
        assert_eq!((idlers.ask(5), idlers.is_empty()), (1, true));
        drop(b);
        assert!(idlers.is_leaving());
        drop(c);
        assert!(!idlers.is_leaving());
    }
}
