//! Event streams: nothing is asked after the first request, each event counts.
//!
//! Owns opening, and opening again what ended. Never reads an event: that is [`crate::events`].

use super::TURN_TIME_MAX;
use super::book::{Book, Outcome, Pace, open_slot};
use super::shared::Phase;
use crate::clients::Clients;
use crate::conns::{Event, Failure, Next, Script};
use crate::error::Result;
use std::time::{Duration, Instant};

/// Reads.
pub(super) struct Reading<'a> {
    book: Book<'a>,
    /// Slots that were opened and have not had an event yet.
    fresh: Vec<bool>,
}

impl<'a> Reading<'a> {
    pub fn new(book: Book<'a>) -> Reading<'a> {
        let fresh = vec![false; book.manner.slots];
        Reading { book, fresh }
    }

    fn ended(&mut self, slot: usize, verdict: std::result::Result<(), Failure>) {
        if std::mem::take(&mut self.fresh[slot]) {
            self.book.ended(slot, verdict);
        } else {
            self.book.count(verdict);
        }
    }
}

impl<'a> Pace<'a> for Reading<'a> {
    fn book(&mut self) -> &mut Book<'a> {
        &mut self.book
    }

    fn turn(&mut self, clients: &mut Clients, now: Instant) {
        while self.book.phase != Phase::Drain
            && let Some(slot) = self.book.next_closed(now)
        {
            self.book.begin(slot);
            self.fresh[slot] = true;
            open_slot(clients, slot, self.book.manner, self);
        }
    }

    fn is_done(&self) -> bool {
        self.book.phase == Phase::Drain // A stream never ends by itself.
    }

    fn wait(&self, now: Instant) -> Duration {
        let reopen = self.book.reopen_at().map(|at| at.saturating_duration_since(now));
        reopen.unwrap_or(TURN_TIME_MAX).min(TURN_TIME_MAX)
    }

    fn close(self, clients: &Clients) -> Result<Outcome> {
        self.book.close(clients)
    }
}

impl Script for Reading<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            Event::Connected => {}
            Event::Answered { latency, status, verdict, .. } => {
                self.book.count_status(status);
                if self.book.phase == Phase::Window {
                    self.book.record(latency);
                }
                self.ended(slot, verdict);
            }
            Event::Lost { failure, asked } => {
                if asked || failure == Failure::Connect {
                    self.ended(slot, Err(failure));
                } else if std::mem::take(&mut self.fresh[slot]) {
                    // A stream that ended in order, without an event.
                    self.book.ended(slot, Err(Failure::Closed));
                }
                self.book.closed(slot, true);
            }
        }
        Next::Hold
    }
}
