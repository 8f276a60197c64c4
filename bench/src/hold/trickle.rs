//! One thread of `hold`: opens its connections, and asks over them when it is time.
//!
//! Owns the schedule (even steps, whatever the answers do) and each connection's state. Never measures memory.

use super::{Failures, Options, Outcome, PACE_COUNT, Phase, Shared, TICK};
use crate::body;
use crate::clients::Ask;
use crate::conns::{Connections, Event, Failure, Job, Next, Script};
use crate::error::Result;
use crate::load;
use crate::tls::ClientSide;
use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

/// The body that is asked for, in bytes.
const BODY_BYTES: usize = 100;
/// Asks again without waiting in between for the other descriptors at most so often.
const BATCH: usize = 64;
/// The jobs: what is asked first, and what then.
const FIRST: usize = 0;
const AGAIN: usize = 1;

/// Opens, asks, closes, as the phases say.
pub(super) fn work(
    shared: &Shared,
    (options, side): (&Options, Option<ClientSide>),
    index: usize,
    mine: Range<usize>,
) -> Result<Outcome> {
    // By default the kernel wakes up to 50 µs late; without leave the latencies have that, too.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let sources = load::sources_for(&options.target, options.connections as usize, options.sources);
    let jobs = jobs(options)?;
    // Timeouts are watched here: looking at every slot would cost more than all requests.
    let mut conns = Connections::new(options.target.address, side, mine.len(), jobs, Duration::MAX)?;
    let mut holder = Holder::new(shared, options, mine.len())?;
    let pace = (PACE_COUNT / shared.threads).max(4);
    let mut schedule = Schedule::new(shared, options, index, mine.len());
    let mut opened = 0;
    loop {
        let wait = match shared.phase() {
            Phase::Open => {
                while opened < mine.len() && holder.opening < pace {
                    let source = load::source(mine.start + opened, sources);
                    holder.begin(opened, State::Opening, Instant::now());
                    conns.open(opened, source, &mut holder);
                    opened += 1;
                }
                TICK / 10
            }
            Phase::Rest => {
                schedule.give_up(&mut holder);
                TICK
            }
            Phase::Ask => schedule.ask(&mut conns, &mut holder),
            Phase::Close => return Ok(holder.outcome), // Dropping closes all.
        };
        conns.poll(wait, &mut holder)?;
        holder.expire(options.timeout, &mut conns);
    }
}

fn jobs(options: &Options) -> Result<Vec<Job>> {
    let get = || Ask::Get { path: format!("/{BODY_BYTES}"), expect: body::pattern(BODY_BYTES), last: false };
    let asks = if options.websocket { Ask::websocket() } else { [get(), get()] };
    asks.iter().map(|ask| ask.http1(&options.target)).collect()
}

/// When the requests of one thread are due, and over which connections.
struct Schedule<'a> {
    shared: &'a Shared,
    /// Requests a second of all threads, and for how long, by round.
    rounds: Vec<(f64, Duration)>,
    /// The part of them that is this thread's.
    share: f64,
    index: usize,
    /// The round that is asked, or was asked last.
    round: Option<usize>,
    /// What of it is due next; `None` when all was asked.
    due: Option<Due>,
    /// The connections, shuffled once; each has its turn before one has another.
    order: Vec<u32>,
    at: usize,
}

/// The rest of a round's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    next: Instant,
    step: Duration,
    end: Instant,
}

impl Due {
    /// How many they are.
    fn count(&self) -> u64 {
        let left = self.end.saturating_duration_since(self.next);
        left.as_nanos().div_ceil(self.step.as_nanos().max(1)) as u64
    }
}

impl<'a> Schedule<'a> {
    fn new(shared: &'a Shared, options: &Options, index: usize, count: usize) -> Schedule<'a> {
        let round = |(round, rate): (usize, &u64)| (*rate as f64, options.duration_of(round));
        Schedule {
            shared,
            rounds: options.rate.iter().enumerate().map(round).collect(),
            share: count as f64 / options.connections as f64,
            index,
            round: None,
            due: None,
            order: shuffled(count as u32, index as u64 + 1),
            at: 0,
        }
    }

    /// Asks what is due, and tells how long to wait for the next.
    fn ask(&mut self, conns: &mut Connections, holder: &mut Holder) -> Duration {
        let round = self.shared.round.load(Relaxed);
        if self.round != Some(round) {
            let (Some(&from), Some(&(rate, time))) = (self.shared.ask_from[round].get(), self.rounds.get(round)) else {
                return Duration::ZERO;
            };
            let step = Duration::from_secs_f64(1.0 / (rate * self.share));
            self.give_up(holder);
            // The threads take turns.
            let offset = Duration::from_secs_f64(self.index as f64 / rate).min(step);
            (self.round, self.due) = (Some(round), Some(Due { next: from + offset, step, end: from + time }));
            holder.round = round;
        }
        let Some(mut due) = self.due else { return TICK };
        let now = Instant::now();
        for _ in 0..BATCH {
            if due.next > now || due.next >= due.end {
                break;
            }
            if let Some(slot) = self.idle_slot(holder) {
                holder.begin(slot, State::Asked, due.next);
                self.shared.under_way.fetch_add(1, Relaxed);
                conns.ask(slot, AGAIN, holder);
            }
            due.next += due.step;
        }
        self.due = Some(due);
        if due.next >= due.end {
            self.finish();
        }
        due.next.saturating_duration_since(Instant::now()).min(TICK)
    }

    /// Counts as failed what was due in the round that is over, and was not asked.
    fn give_up(&mut self, holder: &mut Holder) {
        if let Some(due) = self.due {
            (0..due.count()).for_each(|_| holder.unasked());
            self.finish();
        }
    }

    /// Nothing more is asked in this round.
    fn finish(&mut self) {
        self.due = None;
        // Whoever sees this sees what is under way.
        self.shared.asking.fetch_sub(1, Release);
    }

    /// The next one in order that is idle; `None` when none of this thread's is.
    fn idle_slot(&mut self, holder: &mut Holder) -> Option<usize> {
        for _ in 0..self.order.len() {
            let slot = self.order[self.at] as usize;
            self.at = (self.at + 1) % self.order.len();
            match holder.states[slot] {
                State::Idle => return Some(slot),
                State::Asked => drop(holder.shared.skipped.fetch_add(1, Relaxed)),
                _ => {}
            }
        }
        holder.unasked();
        None
    }
}

/// `0..count` in an order that a seed decides (Fisher and Yates, with xorshift64).
fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for last in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(last, (state % (last as u64 + 1)) as usize);
    }
    order
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Connecting, handshaking, or asked for the first time.
    Opening,
    /// Of a WebSocket: the first frame is under way.
    Echoing,
    Idle,
    Asked,
    Gone,
}

/// What each connection is at, and what was counted.
struct Holder<'a> {
    shared: &'a Shared,
    websocket: bool,
    /// Which of the rates is run.
    round: usize,
    states: Vec<State>,
    /// When what is under way was due, in ns since `epoch`.
    due: Vec<u64>,
    epoch: Instant,
    opening: usize,
    /// What is under way, and some that is not any more, in the order of when it was due.
    watched: VecDeque<(u64, u32)>,
    outcome: Outcome,
}

impl<'a> Holder<'a> {
    fn new(shared: &'a Shared, options: &Options, count: usize) -> Result<Self> {
        Ok(Holder {
            shared,
            websocket: options.websocket,
            round: 0,
            states: vec![State::Closed; count],
            due: vec![0; count],
            epoch: Instant::now(),
            opening: 0,
            watched: VecDeque::new(),
            outcome: Outcome::new(options.rate.len())?,
        })
    }

    fn begin(&mut self, slot: usize, state: State, due: Instant) {
        self.opening += usize::from(state == State::Opening);
        self.states[slot] = state;
        self.due[slot] = due.saturating_duration_since(self.epoch).as_nanos() as u64;
        self.watched.push_back((self.due[slot], slot as u32));
    }

    fn since_due(&self, slot: usize) -> u64 {
        (self.epoch.elapsed().as_nanos() as u64).saturating_sub(self.due[slot])
    }

    /// Every connection of the thread is busy or gone: nobody can be asked.
    fn unasked(&mut self) {
        self.outcome.asking[self.round].failures.timeout += 1;
        self.shared.failed.fetch_add(1, Relaxed);
    }

    /// Ends what was due longer ago than the timeout.
    fn expire(&mut self, timeout: Duration, conns: &mut Connections) {
        let now = self.epoch.elapsed().as_nanos() as u64;
        while let Some(&(due, slot)) = self.watched.front() {
            let slot = slot as usize;
            let is_over = self.due[slot] != due || matches!(self.states[slot], State::Idle | State::Gone);
            if !is_over && now.saturating_sub(due) <= timeout.as_nanos() as u64 {
                return;
            }
            self.watched.pop_front();
            if !is_over {
                conns.close(slot);
                self.lost(slot, Failure::Timeout);
            }
        }
    }

    fn answered(&mut self, slot: usize) -> Next {
        match self.states[slot] {
            State::Opening if self.websocket => {
                self.states[slot] = State::Echoing;
                return Next::Send(AGAIN);
            }
            State::Opening | State::Echoing => {
                self.outcome.opening.saturating_record(self.since_due(slot));
                self.opening -= 1;
                self.shared.opened.fetch_add(1, Relaxed);
            }
            State::Asked => {
                let since = self.since_due(slot);
                self.outcome.asking[self.round].latency.saturating_record(since);
                self.shared.under_way.fetch_sub(1, Relaxed);
                self.shared.answered.fetch_add(1, Relaxed);
            }
            State::Closed | State::Idle | State::Gone => {}
        }
        self.states[slot] = State::Idle;
        Next::Hold
    }

    /// This connection is no more.
    fn lost(&mut self, slot: usize, failure: Failure) {
        let failed = |failures: &mut Failures| match failure {
            Failure::Connect => failures.connect += 1,
            Failure::Closed | Failure::Refused => failures.closed += 1,
            Failure::Timeout => failures.timeout += 1,
            Failure::Status | Failure::Body | Failure::Malformed => failures.answer += 1,
        };
        match std::mem::replace(&mut self.states[slot], State::Gone) {
            State::Opening | State::Echoing => {
                failed(&mut self.outcome.open_failures);
                self.opening -= 1;
                self.shared.open_failed.fetch_add(1, Relaxed);
            }
            State::Asked => {
                failed(&mut self.outcome.asking[self.round].failures);
                self.shared.under_way.fetch_sub(1, Relaxed);
                self.shared.failed.fetch_add(1, Relaxed);
            }
            State::Idle => drop(self.shared.lost_idle.fetch_add(1, Relaxed)),
            State::Closed | State::Gone => {}
        }
    }
}

impl Script for Holder<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            Event::Connected => return Next::Send(FIRST),
            Event::Answered { verdict: Ok(()), keep: true, .. } => return self.answered(slot),
            Event::Answered { verdict, .. } => self.lost(slot, verdict.err().unwrap_or(Failure::Closed)),
            Event::Lost { failure, .. } => self.lost(slot, failure),
        }
        Next::Close
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_round_is_what_is_due_before_its_end() {
        let now = Instant::now();
        let due = |next_ms, end_ms| {
            let [next, end] = [next_ms, end_ms].map(|ms| now + Duration::from_millis(ms));
            Due { next, step: Duration::from_millis(10), end }.count()
        };
        assert_eq!([due(0, 100), due(1, 100), due(91, 100), due(100, 100), due(110, 100)], [10, 10, 1, 0, 0]);
    }

    #[test]
    fn a_shuffle_has_everybody_once() {
        let mut order = shuffled(1000, 7);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        assert_ne!(order, shuffled(1000, 8));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
    }
}
