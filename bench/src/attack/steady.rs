//! A well-behaved client: a request now and then, each answer checked, latencies from when the request was due.
//!
//! Owns its pace and its histograms. Never hurries: a slow answer makes the next request late, and that counts.

use crate::body;
use crate::clients::{Ask, Clients, Count, Speech};
use crate::conns::{Event, Next, Script};
use crate::error::{Error, Result};
use crate::target::Target;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Connections, or streams, of the client.
pub const SLOTS: usize = 4;
/// How often each asks.
const EVERY: Duration = Duration::from_millis(10);
/// An answer later than this is none.
const TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 100;
/// Largest latency that is told apart, in ns.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What the client is told, and tells.
#[derive(Default)]
pub struct Order {
    /// Which of the histograms latencies go to.
    pub phase: AtomicU8,
    /// Ends it.
    pub stop: AtomicBool,
    /// Good answers so far.
    pub answered: AtomicU64,
}

/// What it saw in one phase.
pub struct Phase {
    /// In ns.
    pub latency: Histogram<u32>,
    /// Answers that were not the expected ones, or none.
    pub failed: u64,
}

impl Phase {
    fn new() -> Result<Phase> {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(Phase { latency, failed: 0 })
    }

    /// In ms.
    pub fn p99_ms(&self) -> f64 {
        self.latency.value_at_quantile(0.99) as f64 / 1e6
    }
}

/// Asks until it is stopped; the phases are quiet and attack.
///
/// # Errors
/// When no descriptor is left, or there is nothing to trust.
pub fn run(target: &Target, speech: &Speech, order: &Order) -> Result<[Phase; 2]> {
    let path = format!("/{BODY_BYTES}");
    let ask = Ask::Get { path, expect: body::pattern(BODY_BYTES), last: false };
    let count = match speech.http2 {
        true => Count { conns: 1, streams: SLOTS },
        false => Count { conns: SLOTS, streams: 1 },
    };
    let mut clients = Clients::new(target, speech, speech.client_side(target)?, count, &[ask], TIMEOUT)?;
    let now = Instant::now();
    let due = std::array::from_fn(|slot| now + EVERY * slot as u32 / SLOTS as u32);
    let mut script = Steady { order, phases: [Phase::new()?, Phase::new()?], due, states: [State::Closed; SLOTS] };
    while !order.stop.load(Relaxed) {
        let now = Instant::now();
        for slot in 0..SLOTS {
            match script.states[slot] {
                _ if script.due[slot] > now => {}
                State::Closed => {
                    script.states[slot] = State::Busy;
                    clients.open(slot, None, &mut script);
                }
                State::Idle => {
                    script.states[slot] = State::Busy;
                    clients.ask(slot, 0, &mut script);
                }
                State::Busy => {}
            }
        }
        clients.poll(script.wait(Instant::now()), &mut script)?;
        clients.expire(Instant::now(), &mut script);
    }
    Ok(script.phases)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Idle,
    Busy,
}

struct Steady<'a> {
    order: &'a Order,
    phases: [Phase; 2],
    /// When each slot's next request should be sent, or should have been.
    due: [Instant; SLOTS],
    states: [State; SLOTS],
}

impl Steady<'_> {
    fn wait(&self, now: Instant) -> Duration {
        let of = |slot: usize| match self.states[slot] {
            State::Busy => EVERY,
            State::Closed | State::Idle => self.due[slot].saturating_duration_since(now),
        };
        (0..SLOTS).map(of).min().unwrap_or(EVERY).min(EVERY)
    }

    fn ended(&mut self, slot: usize, good: bool) {
        let phase = &mut self.phases[usize::from(self.order.phase.load(Relaxed)).min(1)];
        let now = Instant::now();
        if good {
            phase.latency.saturating_record((now - self.due[slot]).as_nanos() as u64);
            self.order.answered.fetch_add(1, Relaxed);
            self.due[slot] += EVERY;
        } else {
            phase.failed += 1;
            self.due[slot] = now + EVERY;
        }
    }
}

impl Script for Steady<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            Event::Connected => Next::Send(0),
            Event::Answered { verdict, keep, .. } => {
                self.ended(slot, verdict.is_ok());
                self.states[slot] = if keep { State::Idle } else { State::Closed };
                if keep { Next::Hold } else { Next::Close }
            }
            Event::Lost { asked, .. } => {
                // An idle connection may end; one that does not come about, or ends while it is asked, has failed.
                if asked || self.states[slot] == State::Busy {
                    self.ended(slot, false);
                }
                self.states[slot] = State::Closed;
                Next::Close
            }
        }
    }
}
