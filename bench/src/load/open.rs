//! The open loop: requests are due at times of their own, whatever the answers do.
//!
//! Owns the schedule, the queue of what is due and no connection is free for, and latency from the intended time, so that
//! a target that stands still is not asked less. Never skips a request: one that can't be sent within the timeout has failed.

use super::book::{Book, Outcome, Pace, open_slot};
use super::report::OpenLoop;
use super::shared::Phase;
use super::{ASK_COUNT_MAX, TURN_TIME_MAX};
use crate::clients::Clients;
use crate::conns::{Event, Failure, Next, Script};
use crate::error::Result;
use crate::traffic::Arrivals;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The times of one thread's requests, from the start of the schedule.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    arrivals: Arrivals,
    /// Mean distance in ns.
    every_ns: f64,
    /// Of the next one, in ns.
    next_ns: f64,
    luck: u64,
}

impl Schedule {
    /// Thread `index` of `threads`, which ask `rate` times a second together; constant ones take turns.
    pub fn new(arrivals: Arrivals, rate: u64, (index, threads): (usize, usize), seed: u64) -> Schedule {
        let every_ns = 1e9 * threads as f64 / rate as f64;
        // Seeds that are close make sequences that are not (SplitMix64 does so by itself).
        let mut schedule = Schedule { arrivals, every_ns, next_ns: 0.0, luck: seed ^ (index as u64) << 32 };
        schedule.next_ns = match arrivals {
            Arrivals::Constant => every_ns * index as f64 / threads as f64,
            Arrivals::Poisson => schedule.distance(),
        };
        schedule
    }

    /// When the next one is due.
    pub fn next(&self) -> Duration {
        Duration::from_nanos(self.next_ns as u64)
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        self.next_ns += match self.arrivals {
            Arrivals::Constant => self.every_ns,
            Arrivals::Poisson => self.distance(),
        };
    }

    /// An exponentially distributed distance.
    fn distance(&mut self) -> f64 {
        // 53 bits, never 0: its logarithm is finite.
        let uniform = ((self.random() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln() * self.every_ns
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.luck = self.luck.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.luck;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A request that is due, or was.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// Due within the window.
    measured: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not open, or opening, and without a request.
    Closed,
    /// Open, with nothing to do.
    Idle,
    /// Answered a first time, which no request was due for.
    Settling,
    /// With a request.
    Busy,
}

/// Asks when it is due.
pub(super) struct Open<'a> {
    book: Book<'a>,
    schedule: Schedule,
    timeout: Duration,
    /// Due, and waiting for a free slot.
    queue: VecDeque<Due>,
    /// So many at its front found no free slot.
    starved: usize,
    /// Free slots, the longest free first; entries whose state has changed are skipped.
    idle: VecDeque<usize>,
    states: Vec<State>,
    /// What each busy slot was asked for.
    asked: Vec<Due>,
    result: OpenLoop,
}

impl<'a> Open<'a> {
    pub fn new(mut book: Book<'a>, schedule: Schedule, timeout: Duration) -> Open<'a> {
        let slots = book.manner.slots;
        let mut idle = VecDeque::new();
        let mut states = vec![State::Closed; slots];
        if book.manner.one_each {
            // There is nothing to open before a request is due.
            book.settle_all();
            idle.extend(0..slots);
            states.fill(State::Idle);
        }
        let asked = vec![Due { at: Instant::now(), measured: false }; slots];
        Open {
            book,
            schedule,
            timeout,
            queue: VecDeque::new(),
            starved: 0,
            idle,
            states,
            asked,
            result: OpenLoop::default(),
        }
    }

    /// Puts in line what has become due.
    fn arrive(&mut self, now: Instant) {
        let Some(&from) = self.book.shared.schedule_from.get() else { return };
        if !matches!(self.book.phase, Phase::Warmup | Phase::Window) {
            return;
        }
        let measured = self.book.phase == Phase::Window;
        loop {
            let at = from + self.schedule.next();
            if at > now {
                return;
            }
            self.schedule.advance();
            if measured {
                self.result.due += 1;
                let behind_us = (now - at).as_nanos() as f64 / 1e3;
                self.result.behind_us_max = self.result.behind_us_max.max(behind_us);
            }
            self.queue.push_back(Due { at, measured });
        }
    }

    /// Gives up what was due longer ago than the timeout.
    fn give_up(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|due| now.saturating_duration_since(due.at) > self.timeout) {
            let due = self.queue.pop_front();
            self.starved = self.starved.saturating_sub(1);
            self.book.count(Err(Failure::Timeout));
            self.result.unsent += u64::from(due.is_some_and(|due| due.measured));
        }
    }

    fn free_slot(&mut self) -> Option<usize> {
        while let Some(slot) = self.idle.pop_front() {
            if self.states[slot] == State::Idle {
                return Some(slot);
            }
        }
        None
    }

    /// Sends what is due, as far as there are free slots.
    fn send_due(&mut self, clients: &mut Clients) {
        for _ in 0..ASK_COUNT_MAX.min(self.queue.len()) {
            let Some(slot) = self.free_slot() else {
                self.starved = self.queue.len();
                return;
            };
            let Some(due) = self.queue.pop_front() else { return };
            self.result.late += u64::from(due.measured && self.starved > 0);
            self.starved = self.starved.saturating_sub(1);
            self.states[slot] = State::Busy;
            self.asked[slot] = due;
            self.book.under_way += 1;
            if self.book.manner.one_each {
                open_slot(clients, slot, self.book.manner, self);
            } else {
                clients.ask(slot, self.book.job(slot), self);
            }
        }
    }

    fn free(&mut self, slot: usize) {
        self.states[slot] = State::Idle;
        self.idle.push_back(slot);
    }

    fn answered(&mut self, slot: usize, verdict: std::result::Result<(), Failure>) {
        if self.states[slot] == State::Busy {
            let due = self.asked[slot];
            if verdict.is_ok() && due.measured {
                self.book.record(due.at.elapsed());
            }
        }
        self.book.ended(slot, verdict);
    }

    /// A connection ended: it is opened again, unless each is opened for its request alone.
    fn gone(&mut self, slot: usize, pause: bool) {
        if self.book.manner.one_each {
            self.free(slot);
        } else {
            self.states[slot] = State::Closed;
            self.book.closed(slot, pause);
        }
    }
}

impl<'a> Pace<'a> for Open<'a> {
    fn book(&mut self) -> &mut Book<'a> {
        &mut self.book
    }

    fn turn(&mut self, clients: &mut Clients, now: Instant) {
        while self.book.phase != Phase::Drain
            && let Some(slot) = self.book.next_closed(now)
        {
            self.book.begin(slot);
            open_slot(clients, slot, self.book.manner, self);
        }
        self.give_up(now);
        self.arrive(now);
        self.send_due(clients);
    }

    fn is_done(&self) -> bool {
        self.book.phase == Phase::Drain && self.book.under_way == 0 && self.queue.is_empty()
    }

    fn wait(&self, now: Instant) -> Duration {
        if !self.queue.is_empty() && !self.idle.is_empty() {
            return Duration::ZERO;
        }
        let from = match self.book.phase {
            Phase::Warmup | Phase::Window => self.book.shared.schedule_from.get(),
            Phase::Ramp | Phase::Drain => None,
        };
        let due = from.map(|&from| (from + self.schedule.next()).saturating_duration_since(now));
        due.unwrap_or(TURN_TIME_MAX).min(TURN_TIME_MAX)
    }

    fn close(self, clients: &Clients) -> Result<Outcome> {
        Ok(Outcome { open: self.result, ..self.book.close(clients)? })
    }
}

impl Script for Open<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            Event::Connected if self.states[slot] == State::Busy => Next::Send(self.book.job(slot)),
            // A first request, which shows that the connection works; of one that was opened again it is the upgrade only.
            Event::Connected if !self.book.is_settled(slot) || self.book.manner.upgrades => {
                self.states[slot] = State::Settling;
                Next::Send(self.book.job(slot))
            }
            Event::Connected => {
                self.book.under_way -= 1;
                self.free(slot);
                Next::Hold
            }
            Event::Answered { verdict, status, .. } if self.book.is_upgrade(slot, verdict) => {
                self.book.count_status(status);
                if self.states[slot] == State::Settling && self.book.is_settled(slot) {
                    self.book.under_way -= 1;
                    self.free(slot);
                    return Next::Hold;
                }
                Next::Send(self.book.job(slot))
            }
            Event::Answered { status, verdict, keep, .. } => {
                self.book.count_status(status);
                self.answered(slot, verdict);
                let http_is_left = self.book.manner.upgrades && self.book.job(slot) == 0;
                if self.book.manner.one_each && !keep {
                    self.states[slot] = State::Closed; // Free when its end has come.
                    return Next::Hold;
                }
                if self.book.manner.one_each || !keep || http_is_left {
                    self.gone(slot, false);
                    return Next::Close;
                }
                if self.book.phase == Phase::Ramp && !self.book.is_settled(slot) {
                    self.book.begin(slot);
                    self.states[slot] = State::Settling;
                    return Next::Send(self.book.job(slot));
                }
                self.free(slot);
                Next::Hold
            }
            Event::Lost { failure, asked } => {
                let opening = failure == Failure::Connect;
                match self.states[slot] {
                    State::Busy | State::Settling => self.answered(slot, Err(failure)),
                    State::Closed if opening => self.answered(slot, Err(failure)),
                    State::Closed | State::Idle => {}
                }
                self.gone(slot, asked || opening);
                Next::Close
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, rate: u64, threads: usize, seed: u64, count: usize) -> Vec<Duration> {
        let mut schedules: Vec<_> = (0..threads).map(|i| Schedule::new(arrivals, rate, (i, threads), seed)).collect();
        let mut times: Vec<Duration> = Vec::new();
        while times.len() < count {
            for schedule in &mut schedules {
                times.push(schedule.next());
                schedule.advance();
            }
        }
        times.sort();
        times
    }

    #[test]
    fn threads_take_turns_at_a_constant_rate() {
        for threads in [1, 3] {
            let times = times(Arrivals::Constant, 1_000, threads, 1, 300);
            for (at, time) in times.iter().enumerate() {
                let wrong_ns = time.as_nanos().abs_diff(at as u128 * 1_000_000);
                assert!(wrong_ns < 1_000, "{threads} threads: {at} is due at {time:?}");
            }
        }
    }

    #[test]
    fn poisson_arrivals_keep_the_rate_and_their_seed() {
        let a = times(Arrivals::Poisson, 10_000, 1, 7, 50_000);
        assert_eq!(a, times(Arrivals::Poisson, 10_000, 1, 7, 50_000));
        assert_ne!(a, times(Arrivals::Poisson, 10_000, 1, 8, 50_000));
        let seconds = a.last().unwrap().as_secs_f64();
        assert!((4.9..5.1).contains(&seconds), "50,000 took {seconds} s");
        // Of an exponential distribution as many distances are above its mean as e says.
        let long = a.windows(2).filter(|pair| pair[1] - pair[0] > Duration::from_micros(100)).count();
        assert!((0.36..0.376).contains(&(long as f64 / 50_000.0)), "{long} distances above the mean");
    }
}
