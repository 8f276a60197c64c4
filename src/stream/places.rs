//! How much work the request streams of one HTTP/2 connection may make at once.
//!
//! Owns the count. A stream that its client resets is gone for HTTP/2, and another may be opened at once; the backend may
//! still be at work for it. So what is counted is not open streams but exchanges that have not ended, and the place of
//! one that was cut stays taken for a while after. Owns the sum of what their answers make the connection hold, too. Never
//! resets a stream itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;

use crate::limits::{
    HTTP2_CUTS_COUNT_MIN, HTTP2_HELD_TICKS, HTTP2_SMALL_READ_BYTES, HTTP2_STREAMS_COUNT_MAX, HTTP2_WAITING_BYTES_MAX,
    HTTP2_WINDOW_TICKS, SCRATCH_BYTES,
};
use crate::wheel::Wheel;

/// The places of one connection.
#[derive(Debug)]
pub struct Places {
    wheel: Rc<Wheel>,
    taken: Cell<usize>,
    /// When each place of an exchange that was cut comes free, in ticks; in order.
    held: RefCell<VecDeque<u32>>,
    /// Of the running window: since when, streams that came, streams that were cut.
    window: Cell<(u32, u32, u32)>,
    /// Pieces of answers that went out since the last look.
    progress: Cell<u32>,
    /// Bytes of answers that their streams' client has no room for.
    waiting: Cell<usize>,
    /// The same over all connections of the worker.
    waiting_in_all: Rc<Cell<usize>>,
    /// The connection's task, which wants to know when the last one leaves.
    waker: RefCell<Option<Waker>>,
}

impl Places {
    /// All of them free. What waits in their streams is added to `waiting_in_all`, in bytes.
    pub fn new(wheel: &Rc<Wheel>, waiting_in_all: &Rc<Cell<usize>>) -> Rc<Places> {
        Rc::new(Places {
            wheel: wheel.clone(),
            taken: Cell::new(0),
            held: RefCell::default(),
            window: Cell::new((wheel.now(), 0, 0)),
            progress: Cell::new(0),
            waiting: Cell::new(0),
            waiting_in_all: waiting_in_all.clone(),
            waker: RefCell::new(None),
        })
    }

    /// A place for a new stream; `None` when all are taken.
    pub fn take(self: &Rc<Places>) -> Option<Place> {
        let now = self.wheel.now();
        let mut held = self.held.borrow_mut();
        while held.front().is_some_and(|until| *until <= now) {
            held.pop_front();
        }
        self.count(1, 0);
        if self.taken.get() + held.len() >= HTTP2_STREAMS_COUNT_MAX {
            // A client that knows what it may have open gets here by resetting.
            self.count(0, 1);
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        Some(Place { places: self.clone(), is_cut: Cell::new(false), waiting: Cell::new(0) })
    }

    /// Streams whose exchanges have not ended.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Pieces of answers that went out since the last call.
    pub fn take_progress(&self) -> u32 {
        self.progress.take()
    }

    /// Whether so many streams were cut lately, and so large a part of all, that it is no use but an attack.
    pub fn is_abused(&self) -> bool {
        let (_, came, cut) = self.window.get();
        cut >= HTTP2_CUTS_COUNT_MIN && cut >= came / 2
    }

    /// Whom to wake when the last stream's exchange ends.
    pub fn register(&self, waker: &Waker) {
        match &mut *self.waker.borrow_mut() {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    fn count(&self, came: u32, cut: u32) {
        let (since, all, cuts) = self.window.get();
        let now = self.wheel.now();
        let window = if now >= since + HTTP2_WINDOW_TICKS { (now, came, cut) } else { (since, all + came, cuts + cut) };
        self.window.set(window);
    }
}

/// A stream's place. Dropping it gives it back, at once or after a while.
#[derive(Debug)]
pub struct Place {
    places: Rc<Places>,
    is_cut: Cell<bool>,
    /// Of the connection's `waiting`, what is this stream's.
    waiting: Cell<usize>,
}

impl Place {
    /// A piece of the answer went out.
    pub fn progressed(&self) {
        self.places.progress.set(self.places.progress.get().saturating_add(1));
    }

    /// So many bytes of the answer are held for a client that has no room for them.
    pub fn hold(&self, bytes: usize) {
        let before = self.waiting.replace(bytes);
        for sum in [&self.places.waiting, &*self.places.waiting_in_all] {
            sum.set(sum.get() + bytes - before);
        }
    }

    /// How much a read for this stream should bring at most, in bytes: little when the connection's client has much to take
    /// already.
    pub fn room(&self) -> usize {
        if self.places.waiting.get() < HTTP2_WAITING_BYTES_MAX { SCRATCH_BYTES } else { HTTP2_SMALL_READ_BYTES }
    }

    /// The client gave the stream up before its answer ended.
    pub fn cut(&self) {
        self.is_cut.set(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hold(0);
        let places = &self.places;
        places.taken.set(places.taken.get() - 1);
        if self.is_cut.get() {
            places.count(0, 1);
            places.held.borrow_mut().push_back(places.wheel.now() + HTTP2_HELD_TICKS);
        }
        if let Some(waker) = &*places.waker.borrow()
            && (places.taken.get() == 0 || places.is_abused())
        {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_stream_keeps_its_place_for_a_while() {
        let wheel = Wheel::new();
        let places = Places::new(&wheel, &Rc::default());
        let all: Vec<Place> = std::iter::from_fn(|| places.take()).collect();
        assert_eq!(all.len(), HTTP2_STREAMS_COUNT_MAX);
        all.iter().take(30).for_each(Place::cut);
        drop(all);
        assert_eq!(places.taken(), 0);
        assert_eq!(
            std::iter::repeat_with(|| places.take()).map_while(|p| p).collect::<Vec<_>>().len(),
            HTTP2_STREAMS_COUNT_MAX - 30
        );
        wheel.advance_to(HTTP2_HELD_TICKS);
        assert_eq!(std::iter::from_fn(|| places.take()).collect::<Vec<_>>().len(), HTTP2_STREAMS_COUNT_MAX);
    }

    #[test]
    fn only_many_cuts_that_are_most_of_all_are_abuse() {
        let wheel = Wheel::new();
        let places = Places::new(&wheel, &Rc::default());
        let run = |cut: bool| {
            let place = places.take();
            if let Some(place) = &place
                && cut
            {
                place.cut();
            }
        };
        (0..3 * HTTP2_CUTS_COUNT_MIN).for_each(|i| {
            run(i % 3 == 0);
            wheel.advance_to(wheel.now() + u32::from(i % 20 == 0));
        });
        assert!(!places.is_abused(), "a third is no abuse");
        wheel.advance_to(wheel.now() + HTTP2_WINDOW_TICKS);
        (0..HTTP2_CUTS_COUNT_MIN).for_each(|_| run(true));
        assert!(places.is_abused());
        wheel.advance_to(wheel.now() + HTTP2_WINDOW_TICKS);
        run(false);
        assert!(!places.is_abused());
    }

    #[test]
    fn who_holds_much_is_read_little_for() {
        let (wheel, all) = (Wheel::new(), Rc::default());
        let (places, others) = (Places::new(&wheel, &all), Places::new(&wheel, &all));
        let (one, two, other) = (places.take().unwrap(), places.take().unwrap(), others.take().unwrap());
        one.hold(HTTP2_WAITING_BYTES_MAX - 1);
        assert_eq!(two.room(), SCRATCH_BYTES);
        two.hold(1);
        assert_eq!(
            (one.room(), two.room(), other.room()),
            (HTTP2_SMALL_READ_BYTES, HTTP2_SMALL_READ_BYTES, SCRATCH_BYTES)
        );
        other.hold(7);
        assert_eq!(all.get(), HTTP2_WAITING_BYTES_MAX + 7);
        one.hold(3);
        assert_eq!((two.room(), all.get()), (SCRATCH_BYTES, 11));
        drop((one, two, other));
        assert_eq!(all.get(), 0);
    }
}
