//! `speedmimi-bench idle`: what an idle kept-alive connection costs the proxy that holds it.
//!
//! Owns the order of events: all connections opened and busy at once, then idle, measured, asked once more, closed,
//! and measured again. Never judges: it reports bytes. The measured figure is what the process holds with its idle
//! connections, less what the same process holds after the same load without them.

use crate::amount;
use crate::body;
use crate::clients::{Ask, Clients, Count, Speech};
use crate::conns::{Connections, Event, Next, Script};
use crate::error::{Error, Result, Trying};
use crate::load;
use crate::proc;
use crate::sys;
use crate::target::Target;
use crate::tls::ClientSide;
use crate::traffic::SOURCES_MAX;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Connections of a thread that may be connecting, or asked once more, at once.
const PACE_COUNT_MAX: usize = 200;
const TICK: Duration = Duration::from_millis(5);
/// The body that is asked for, in bytes.
const BODY_BYTES: usize = 100;

/// What to open, and where to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// http(s)://ADDRESS:PORT on this machine, with `speedmimi-bench origin` behind it
    #[arg(long, value_name = "URL")]
    pub target: Target,
    /// The process that holds the connections
    #[arg(long)]
    pub pid: u32,
    /// Connections at once
    #[arg(long, short = 'c', default_value = "15k", value_parser = amount::count)]
    pub connections: u64,
    /// How long the origin holds back its answers, so that all are busy at once
    #[arg(long, default_value = "5s", value_parser = amount::duration)]
    pub busy: Duration,
    /// How long after the last answer is measured
    #[arg(long, default_value = "10s", value_parser = amount::duration)]
    pub settle: Duration,
    /// Idle WebSockets (upgraded, one frame echoed) instead of idle HTTP connections
    #[arg(long, conflicts_with = "http2")]
    pub websocket: bool,
    /// Source addresses to connect from; 0: one per 10,000 connections
    #[arg(long, default_value_t = 0)]
    pub sources: usize,
    /// The protocol.
    #[command(flatten)]
    pub speech: Speech,
}

/// Bytes at one moment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bytes {
    /// `RssAnon + RssShmem + VmSwap` of the process and its descendants.
    pub user: u64,
    /// `Slab` of the whole machine.
    pub slab: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections asked for.
    pub connections: u64,
    /// Connections answered as expected at first, then idle.
    pub answered: u64,
    /// Connections answered once more as expected, after they were idle.
    pub answered_again: u64,
    /// Whether the last request was sent before the first answer came; always false for WebSockets.
    pub all_busy_at_once: bool,
    /// Before the first connection.
    pub before: Bytes,
    /// With all idle.
    pub idle: Bytes,
    /// After all were closed.
    pub after: Bytes,
    /// `(idle − after) / answered`: user bytes per idle connection.
    pub user_bytes_each: f64,
    /// `(idle − before) / answered`: the same against the fresh process, what the load left behind included.
    pub user_bytes_each_over_fresh: f64,
    /// `(idle − after) / answered` of the kernel's slab: the sockets of both ends.
    pub slab_bytes_each: f64,
}

/// Opens, measures, closes.
///
/// # Errors
/// When the options make no sense or the process can't be read; connections that fail are in the report.
pub fn run(options: &Options) -> Result<Report> {
    if !(1..=load::CONNECTIONS_MAX).contains(&options.connections) || options.sources > SOURCES_MAX {
        let (most, sources) = (load::CONNECTIONS_MAX, SOURCES_MAX);
        return Err(Error::Usage(format!("--connections has to be 1..={most} and --sources 0..={sources}")));
    }
    let count = options.connections as usize;
    let threads = load::thread_count(count, 1);
    let shared = Arc::new(Shared::default());
    shared.running.store(threads, Relaxed);
    let side = options.speech.client_side(&options.target)?;
    let before = sample(options.pid)?;
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let (shared, options, side) = (Arc::clone(&shared), options.clone(), side.clone());
            let mine = count * index / threads..count * (index + 1) / threads;
            thread::spawn(move || {
                let worked = work(&shared, (&options, side), mine, threads > 1);
                shared.running.fetch_sub(1, Relaxed);
                worked
            })
        })
        .collect();
    let measured = lead(&shared, options);
    shared.phase.store(Phase::Close as u8, Relaxed);
    for worker in workers {
        worker.join().map_err(|_| Error::Failed("an idle thread panicked".into()))??;
    }
    let idle = measured?;
    thread::sleep(options.settle);
    Ok(report(options, &shared, before, idle, sample(options.pid)?))
}

fn sample(pid: u32) -> Result<Bytes> {
    Ok(Bytes { user: proc::usage(pid)?.user_bytes, slab: proc::slab_bytes() })
}

/// Leads the threads through the phases and measures while all is idle.
fn lead(shared: &Shared, options: &Options) -> Result<Bytes> {
    let count = options.connections as usize;
    let wait = |done: &AtomicUsize| {
        while done.load(Relaxed) + shared.lost.load(Relaxed) < count && shared.running.load(Relaxed) > 0 {
            thread::sleep(TICK);
        }
    };
    wait(&shared.answered);
    thread::sleep(options.settle);
    let idle = sample(options.pid)?;
    shared.phase.store(Phase::Again as u8, Relaxed);
    wait(&shared.again);
    Ok(idle)
}

fn report(options: &Options, shared: &Shared, before: Bytes, idle: Bytes, after: Bytes) -> Report {
    let answered = shared.answered.load(Relaxed) as u64;
    let each = |with: u64, without: u64| (with as f64 - without as f64) / answered.max(1) as f64;
    Report {
        connections: options.connections,
        answered,
        answered_again: shared.again.load(Relaxed) as u64,
        all_busy_at_once: shared.all_busy.load(Relaxed),
        before,
        idle,
        after,
        user_bytes_each: each(idle.user, after.user),
        user_bytes_each_over_fresh: each(idle.user, before.user),
        slab_bytes_each: each(idle.slab, after.slab),
    }
}

/// What all threads are in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Opened, asked once, then idle.
    Open = 0,
    /// Each asked once more.
    Again = 1,
    /// All closed.
    Close = 2,
}

#[derive(Default)]
struct Shared {
    phase: AtomicU8,
    running: AtomicUsize,
    /// Requests sent.
    asked: AtomicUsize,
    /// Connections answered once, as expected.
    answered: AtomicUsize,
    /// Connections answered once more, as expected.
    again: AtomicUsize,
    /// Connections that will not be answered (again).
    lost: AtomicUsize,
    all_busy: AtomicBool,
}

impl Shared {
    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Open,
            1 => Phase::Again,
            _ => Phase::Close,
        }
    }
}

/// One thread, from opening to closing.
fn work(
    shared: &Shared,
    (options, side): (&Options, Option<ClientSide>),
    mine: Range<usize>,
    private: bool,
) -> Result<()> {
    if private {
        sys::private_descriptor_table().trying(|| "unshare(CLONE_FILES)".into())?;
    }
    let sources = load::sources_for(&options.target, options.connections as usize, options.sources);
    let (first, count) = (mine.start, mine.len());
    let timeout = options.busy + Duration::from_secs(30);
    let mut clients = clients(options, side, count, timeout)?;
    let mut script = OnceMore {
        shared,
        total: options.connections as usize,
        websocket: options.websocket,
        pacing: 0,
        states: vec![State::Closed; count],
    };
    let (mut opened, mut asked_again) = (0, 0);
    let mut expire_at = Instant::now();
    loop {
        match shared.phase() {
            Phase::Open => {
                while opened < count && script.pacing < PACE_COUNT_MAX {
                    script.pacing += 1;
                    clients.open(opened, load::source(first + opened, sources), &mut script);
                    opened += 1;
                }
            }
            Phase::Again => {
                while asked_again < count && script.pacing < PACE_COUNT_MAX {
                    if script.states[asked_again] == State::Idle {
                        script.pacing += 1;
                        script.states[asked_again] = State::AskedAgain;
                        clients.ask(asked_again, 1, &mut script);
                    }
                    asked_again += 1;
                }
            }
            Phase::Close => return Ok(()), // Dropping closes all.
        }
        clients.poll(TICK, &mut script)?;
        if Instant::now() >= expire_at {
            clients.expire(Instant::now(), &mut script);
            expire_at = Instant::now() + Duration::from_secs(1);
        }
    }
}

/// Clients that know what to ask first, and what to ask then and once more.
fn clients(options: &Options, side: Option<ClientSide>, count: usize, timeout: Duration) -> Result<Clients> {
    let target = &options.target;
    if options.websocket {
        let jobs = Ask::websocket().iter().map(|ask| ask.http1(target)).collect::<Result<_>>()?;
        let conns = Connections::new(target.address, side, count, jobs, timeout)?;
        return Ok(Clients::Http1(conns));
    }
    let held_back = format!("/{BODY_BYTES}?delay={}ms", options.busy.as_millis());
    let asks = [held_back, format!("/{BODY_BYTES}")].map(|path| {
        let expect = body::pattern(BODY_BYTES);
        Ask::Get { path, expect, last: false }
    });
    Clients::new(target, &options.speech, side, Count { conns: count, streams: 1 }, &asks, timeout)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// The first request (of a WebSocket: the upgrade) is under way.
    Asked,
    /// The first frame is under way.
    Echoing,
    Idle,
    AskedAgain,
    Done,
    Lost,
}

/// Asks once, is idle, asks once more.
struct OnceMore<'a> {
    shared: &'a Shared,
    total: usize,
    websocket: bool,
    /// Connecting, or asked once more.
    pacing: usize,
    states: Vec<State>,
}

impl OnceMore<'_> {
    fn good_answer(&mut self, slot: usize) -> Next {
        match self.states[slot] {
            State::Asked if self.websocket => {
                self.states[slot] = State::Echoing;
                return Next::Send(1);
            }
            State::Asked | State::Echoing => {
                if self.shared.answered.fetch_add(1, Relaxed) == 0 && !self.websocket {
                    self.shared.all_busy.store(self.shared.asked.load(Relaxed) == self.total, Relaxed);
                }
                self.states[slot] = State::Idle;
            }
            State::AskedAgain => {
                self.pacing -= 1;
                self.shared.again.fetch_add(1, Relaxed);
                self.states[slot] = State::Done;
            }
            State::Closed | State::Idle | State::Done | State::Lost => {}
        }
        Next::Hold
    }

    /// This connection will not do what is left to do.
    fn lose(&mut self, slot: usize) {
        if matches!(self.states[slot], State::Closed | State::AskedAgain) {
            self.pacing -= 1;
        }
        match self.states[slot] {
            State::Done | State::Lost => {}
            // It was counted as answered; it can't be answered once more.
            State::Closed | State::Asked | State::Echoing | State::Idle | State::AskedAgain => {
                self.shared.lost.fetch_add(1, Relaxed);
            }
        }
        self.states[slot] = State::Lost;
    }
}

impl Script for OnceMore<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            Event::Connected => {
                self.pacing -= 1;
                self.states[slot] = State::Asked;
                self.shared.asked.fetch_add(1, Relaxed);
                Next::Send(0)
            }
            Event::Answered { verdict: Ok(()), keep: true, .. } => self.good_answer(slot),
            Event::Answered { .. } | Event::Lost { .. } => {
                self.lose(slot);
                Next::Close
            }
        }
    }
}
