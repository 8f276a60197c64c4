//! The closed loop: each slot asks again as soon as it was answered.
//!
//! Owns that decision, and the wait of the first ones for the last ones. Never counts: that is the [`Book`].

use super::book::{Book, Outcome, Pace, open_slot};
use super::shared::Phase;
use super::{ASK_COUNT_MAX, TURN_TIME_MAX};
use crate::clients::Clients;
use crate::conns::{Event, Failure, Next, Script};
use crate::error::Result;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Asks again as soon as it was answered.
pub(super) struct Closed<'a> {
    book: Book<'a>,
    /// Answered once, until all are.
    waiting: Vec<usize>,
    /// When each slot's connection began to be opened, where that is a part of its request.
    began: Vec<Instant>,
}

impl<'a> Closed<'a> {
    pub fn new(book: Book<'a>) -> Closed<'a> {
        let began = if book.manner.one_each { vec![Instant::now(); book.manner.slots] } else { Vec::new() };
        Closed { book, waiting: Vec::new(), began }
    }

    /// The next slot that waited for the ramp's end, once that has come.
    fn take_waiting(&mut self) -> Option<usize> {
        if matches!(self.book.phase, Phase::Ramp | Phase::Drain) {
            return None;
        }
        let slot = self.waiting.pop()?;
        self.book.shared.waiting.fetch_sub(1, Relaxed);
        self.book.begin(slot);
        Some(slot)
    }

    /// The next slot to open now, with the right to ask on it taken.
    fn take_closed(&mut self, now: Instant) -> Option<usize> {
        if self.book.phase == Phase::Drain || !self.book.has_closed(now) || !self.book.shared.take_ticket() {
            return None;
        }
        let slot = self.book.next_closed(now)?;
        self.book.begin(slot);
        if let Some(began) = self.began.get_mut(slot) {
            *began = Instant::now();
        }
        Some(slot)
    }

    fn ask_again(&mut self, slot: usize, keep: bool) -> Next {
        let book = &mut self.book;
        if !keep && book.manner.one_each {
            return Next::Hold; // For its end: closing first would leave the address in use here.
        }
        if !keep || book.manner.one_each {
            book.closed(slot, false);
            return Next::Close;
        }
        if book.phase == Phase::Ramp && book.is_settled(slot) {
            self.waiting.push(slot);
            book.shared.waiting.fetch_add(1, Relaxed);
            return Next::Hold;
        }
        if book.phase == Phase::Drain || !book.shared.take_ticket() {
            return Next::Hold;
        }
        book.begin(slot);
        Next::Send(book.job(slot))
    }
}

impl<'a> Pace<'a> for Closed<'a> {
    fn book(&mut self) -> &mut Book<'a> {
        &mut self.book
    }

    fn turn(&mut self, clients: &mut Clients, now: Instant) {
        for _ in 0..ASK_COUNT_MAX {
            let Some(slot) = self.take_waiting() else { break };
            clients.ask(slot, self.book.job(slot), self);
        }
        while let Some(slot) = self.take_closed(now) {
            open_slot(clients, slot, self.book.manner, self);
        }
    }

    fn is_done(&self) -> bool {
        self.book.under_way == 0 && (self.book.phase == Phase::Drain || self.book.shared.tickets_gone())
    }

    fn wait(&self, _now: Instant) -> Duration {
        let more = !self.waiting.is_empty() && matches!(self.book.phase, Phase::Warmup | Phase::Window);
        if more { Duration::ZERO } else { TURN_TIME_MAX }
    }

    fn close(self, clients: &Clients) -> Result<Outcome> {
        self.book.close(clients)
    }
}

impl Script for Closed<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            // The ticket was taken when opening began.
            Event::Connected => Next::Send(self.book.job(slot)),
            Event::Answered { verdict, status, .. } if self.book.is_upgrade(slot, verdict) => {
                self.book.count_status(status);
                Next::Send(self.book.job(slot))
            }
            Event::Answered { latency, status, verdict, keep } => {
                self.book.count_status(status);
                // What was under way at the window's end counts: without it the slowest would be left out.
                if verdict.is_ok() && matches!(self.book.phase, Phase::Window | Phase::Drain) {
                    self.book.record(self.began.get(slot).map_or(latency, Instant::elapsed));
                }
                self.book.ended(slot, verdict);
                // An upgrade that was refused leaves a connection of HTTP.
                let keep = keep && !(self.book.manner.upgrades && self.book.job(slot) == 0);
                self.ask_again(slot, keep)
            }
            Event::Lost { failure, asked } => {
                // One that was opening holds a ticket as well; one that was idle (no ticket left) does not.
                if asked || failure == Failure::Connect {
                    self.book.ended(slot, Err(failure));
                    self.book.closed(slot, true);
                } else if self.book.manner.one_each {
                    self.book.closed(slot, false);
                } else if let Some(at) = self.waiting.iter().position(|waiting| *waiting == slot) {
                    // Closed while it waited for the ramp's end: no request was lost.
                    self.waiting.swap_remove(at);
                    self.book.shared.waiting.fetch_sub(1, Relaxed);
                    self.book.closed(slot, false);
                }
                Next::Close
            }
        }
    }
}
