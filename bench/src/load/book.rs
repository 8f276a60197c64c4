//! What a thread of a load knows of its slots, whatever decides when they ask: how far each has come, and what was counted.
//!
//! Owns pacing of the ramp, reopening and recording. Never decides what is asked when.

use super::shared::{Phase, Shared, Tally, histogram};
use super::source;
use crate::clients::Clients;
use crate::conns::{Failure, Handshakes, Script};
use crate::error::Result;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Connections of a thread that may be opening, or waiting for their first answer, at once: under any backlog.
pub(crate) const RAMP_COUNT_MAX: usize = 200;
/// Pause before a connection that was refused or lost is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(10);
/// Statuses that are told apart: below this.
const STATUS_MAX: usize = 600;

/// What all slots of a thread have in common.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// Slots of the thread.
    pub slots: usize,
    /// Slots of a connection.
    pub streams: usize,
    /// The first connection's number among those of all threads.
    pub first: usize,
    /// Source addresses in use.
    pub sources: usize,
    /// One request a connection: the server ends it, then it is opened again.
    pub one_each: bool,
    /// Job 0 is an upgrade, asked once a connection; then comes job 1.
    pub upgrades: bool,
}

/// What a thread brings home.
pub(super) struct Outcome {
    pub statuses: BTreeMap<u16, u64>,
    pub handshakes: Handshakes,
    /// Of an open loop.
    pub open: super::report::OpenLoop,
}

pub(super) struct Book<'a> {
    pub shared: &'a Shared,
    pub phase: Phase,
    pub manner: Manner,
    /// Requests under way, connections being opened included.
    pub under_way: usize,
    tally: &'a Tally,
    latency: Histogram<u32>,
    slice: u32,
    statuses: Vec<u64>,
    /// Opening, or waiting for a first answer.
    ramping: usize,
    /// Whether each slot is one of those.
    is_ramping: Vec<bool>,
    /// Whether each slot was answered already.
    settled: Vec<bool>,
    /// Whether each slot's connection has what comes before its requests.
    upgraded: Vec<bool>,
    /// Never opened so far: from this index on.
    unopened: usize,
    /// Closed ones, in the order of when they may be opened again.
    reopen: VecDeque<(Instant, usize)>,
}

impl<'a> Book<'a> {
    pub fn new(shared: &'a Shared, tally: &'a Tally, manner: Manner) -> Result<Book<'a>> {
        Ok(Book {
            shared,
            phase: shared.phase(),
            manner,
            under_way: 0,
            tally,
            latency: histogram()?,
            slice: 0,
            statuses: vec![0; STATUS_MAX],
            ramping: 0,
            is_ramping: vec![false; manner.slots],
            settled: vec![false; manner.slots],
            upgraded: vec![!manner.upgrades; manner.slots],
            unopened: 0,
            reopen: VecDeque::new(),
        })
    }

    /// Looks at what all threads are in now.
    pub fn look(&mut self) -> Result<()> {
        self.phase = self.shared.phase();
        let slice = self.shared.slice.load(Relaxed);
        if slice != self.slice {
            self.bring_slice()?;
            self.slice = slice;
        }
        Ok(())
    }

    fn bring_slice(&mut self) -> Result<()> {
        self.shared.collect(self.slice, &self.latency)?;
        self.latency.reset();
        Ok(())
    }

    /// What there is to bring home at the end.
    pub fn close(mut self, clients: &Clients) -> Result<Outcome> {
        self.bring_slice()?;
        let counted = self.statuses.iter().enumerate().filter(|(_, count)| **count > 0);
        Ok(Outcome {
            statuses: counted.map(|(status, count)| (status as u16, *count)).collect(),
            handshakes: clients.handshakes(),
            open: super::report::OpenLoop::default(),
        })
    }

    /// Whether a slot that is closed should be opened now: the next one.
    pub fn next_closed(&mut self, now: Instant) -> Option<usize> {
        if self.ramping >= RAMP_COUNT_MAX {
            return None;
        }
        if self.reopen.front().is_some_and(|&(at, _)| at <= now) {
            return self.reopen.pop_front().map(|(_, slot)| slot);
        }
        (self.unopened < self.manner.slots).then(|| {
            self.unopened += 1;
            self.unopened - 1
        })
    }

    /// Whether [`Book::next_closed`] would give one.
    pub fn has_closed(&self, now: Instant) -> bool {
        let due = self.reopen.front().is_some_and(|&(at, _)| at <= now);
        self.ramping < RAMP_COUNT_MAX && (due || self.unopened < self.manner.slots)
    }

    /// Opens a slot that then asks.
    pub fn begin(&mut self, slot: usize) {
        self.under_way += 1;
        if !self.settled[slot] && !std::mem::replace(&mut self.is_ramping[slot], true) {
            self.ramping += 1;
        }
    }

    /// The request of this slot has ended.
    pub fn ended(&mut self, slot: usize, verdict: std::result::Result<(), Failure>) {
        self.under_way -= 1;
        self.count(verdict);
        if std::mem::take(&mut self.is_ramping[slot]) {
            self.ramping -= 1;
        }
        if verdict.is_ok() && !std::mem::replace(&mut self.settled[slot], true) {
            self.shared.settled.fetch_add(1, Relaxed);
        }
    }

    /// Counts what is under way as not answered: nobody waits for it any longer.
    pub fn give_up(&mut self) {
        for _ in 0..std::mem::take(&mut self.under_way) {
            self.count(Err(Failure::Timeout));
        }
    }

    pub fn count(&self, verdict: std::result::Result<(), Failure>) {
        self.tally.count(verdict);
    }

    pub fn count_status(&mut self, status: u16) {
        if let Some(count) = self.statuses.get_mut(usize::from(status)) {
            *count += 1;
        }
    }

    pub fn record(&mut self, latency: Duration) {
        self.latency.saturating_record(latency.as_nanos() as u64);
    }

    pub fn is_settled(&self, slot: usize) -> bool {
        self.settled[slot]
    }

    /// Counts all slots as settled that have nothing to be asked before.
    pub fn settle_all(&mut self) {
        self.settled.fill(true);
        self.unopened = self.manner.slots;
        self.shared.settled.fetch_add(self.manner.slots, Relaxed);
    }

    /// The job that a slot asks next.
    pub fn job(&self, slot: usize) -> usize {
        usize::from(self.manner.upgrades && self.upgraded[slot])
    }

    /// Whether an answer was that to the upgrade of its connection; it is no request's, unless it is bad.
    pub fn is_upgrade(&mut self, slot: usize, verdict: std::result::Result<(), Failure>) -> bool {
        let first = !self.upgraded[slot] && verdict.is_ok();
        self.upgraded[slot] |= first;
        first
    }

    /// The connection of a slot is gone; it may be opened again at once or after a pause.
    pub fn closed(&mut self, slot: usize, pause: bool) {
        self.upgraded[slot] = !self.manner.upgrades;
        match pause {
            true => self.reopen.push_back((Instant::now() + REOPEN_PAUSE, slot)),
            false => self.reopen.push_front((Instant::now(), slot)),
        }
    }

    /// When the next closed slot may be opened.
    pub fn reopen_at(&self) -> Option<Instant> {
        self.reopen.front().map(|&(at, _)| at)
    }
}

/// Decides when the slots of a thread ask.
pub(super) trait Pace<'a>: Script {
    /// The slots.
    fn book(&mut self) -> &mut Book<'a>;
    /// Asks what is to be asked now.
    fn turn(&mut self, clients: &mut Clients, now: Instant);
    /// Whether there is nothing left to wait for.
    fn is_done(&self) -> bool;
    /// How long to wait for events at most.
    fn wait(&self, now: Instant) -> Duration;
    /// Ends it: what there is to bring home.
    fn close(self, clients: &Clients) -> Result<Outcome>;
}

/// Opens a slot, from the source address that is its.
pub(super) fn open_slot<S: Script>(clients: &mut Clients, slot: usize, manner: Manner, script: &mut S) {
    clients.open(slot, source(manner.first + slot / manner.streams, manner.sources), script);
}
