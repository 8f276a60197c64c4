//! `speedmimi-bench hold`: so many connections open at once, nearly all of them idle, with a trickle of requests over them.
//!
//! Owns the order of events: all opened and asked once, left alone, measured, asked now and then on a schedule that
//! does not wait for answers, closed. Never opens a connection a second time: one that is refused or lost is a result.

mod trickle;

use crate::amount;
use crate::clients::Speech;
use crate::error::{Error, Result, Trying};
use crate::kernel::{self, Kernel};
use crate::load::{self, Latency};
use crate::proc;
use crate::sys;
use crate::target::Target;
use crate::traffic::{SOURCES_MAX, TIMEOUT_MAX};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Opened and not answered yet, over all threads: enough to keep everybody busy, far below any backlog.
const PACE_COUNT: usize = 1024;
const TICK: Duration = Duration::from_millis(50);
/// How often is told how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What to open, and how to use it.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// http(s)://ADDRESS:PORT on this machine, with `speedmimi-bench origin` behind it
    #[arg(long, value_name = "URL")]
    pub target: Target,
    /// The process that holds the connections, to tell its memory and CPU time
    #[arg(long)]
    pub pid: Option<u32>,
    /// Connections at once
    #[arg(long, short = 'c', default_value = "10k", value_parser = amount::count)]
    pub connections: u64,
    /// WebSockets (upgraded, one frame echoed; then a frame each time) instead of HTTP connections
    #[arg(long)]
    pub websocket: bool,
    /// Requests a second over all connections, each in its turn in a shuffled order; several are run one after the other
    #[arg(long, short = 'r', default_value = "1k", value_delimiter = ',', value_parser = amount::count)]
    pub rate: Vec<u64>,
    /// How long to ask: for all rates, or for each
    #[arg(long, short = 'd', default_value = "30s", value_delimiter = ',', value_parser = amount::duration)]
    pub duration: Vec<Duration>,
    /// How long nothing is asked before memory is measured, and asking begins
    #[arg(long, default_value = "5s", value_parser = amount::duration)]
    pub settle: Duration,
    /// What is not whole after so long has failed
    #[arg(long, default_value = "30s", value_parser = amount::duration)]
    pub timeout: Duration,
    /// Threads; more are used when one descriptor table can't hold the connections
    #[arg(long, short = 't', default_value_t = 1)]
    pub threads: usize,
    /// Source addresses to connect from; 0: one per 10,000 connections
    #[arg(long, default_value_t = 0)]
    pub sources: usize,
    /// What has to do with TLS.
    #[command(flatten)]
    pub tls: crate::tls::Options,
}

impl Default for Options {
    /// As on the command line, without a process.
    fn default() -> Self {
        Options {
            target: Target::local(80),
            pid: None,
            connections: 10_000,
            websocket: false,
            rate: vec![1000],
            duration: vec![Duration::from_secs(30)],
            settle: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            threads: 1,
            sources: 0,
            tls: crate::tls::Options::default(),
        }
    }
}

impl Options {
    fn threads(&self) -> usize {
        load::thread_count(self.connections as usize, self.threads)
    }

    fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Usage(text));
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return wrong(format!("--connections {}: outside 1..={CONNECTIONS_MAX}", self.connections));
        }
        if !(1..=1024).contains(&self.threads) || self.sources > SOURCES_MAX {
            return wrong(format!("--threads has to be 1..=1024 and --sources 0..={SOURCES_MAX}"));
        }
        if self.rate.is_empty() || !self.rate.iter().all(|rate| (1..=RATE_MAX).contains(rate)) {
            return wrong(format!("--rate has to be 1..={RATE_MAX}"));
        }
        if self.timeout.is_zero() || self.timeout > TIMEOUT_MAX {
            return wrong(format!("--timeout has to be above 0, and {TIMEOUT_MAX:?} at most"));
        }
        if ![1, self.rate.len()].contains(&self.duration.len()) {
            return wrong("--duration is one for all of --rate, or as many".into());
        }
        Ok(())
    }

    fn duration_of(&self, round: usize) -> Duration {
        self.duration.get(round).or(self.duration.first()).copied().unwrap_or_default()
    }
}

/// Connections of one run at most: what the source addresses and their ports are enough for.
pub const CONNECTIONS_MAX: u64 = 2_500_000;
/// Requests a second at most.
const RATE_MAX: u64 = 1_000_000;

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections asked for.
    pub connections: u64,
    /// Connections that were opened and answered once.
    pub opened: u64,
    /// From the first connect to the last of these answers, in s.
    pub open_seconds: f64,
    /// `opened / open_seconds`.
    pub accepts_per_second: f64,
    /// From connect to the first answer.
    pub open_latency_us: Latency,
    /// Why the others were not opened.
    pub open_failures: Failures,
    /// Connections that ended while nothing was asked on them.
    pub lost_idle: u64,
    /// Threads of the load generator.
    pub threads: usize,
    /// What was asked then, by rate.
    pub trickles: Vec<Trickle>,
    /// Before the first connection.
    pub before: Moment,
    /// With all idle, before anything was asked again.
    pub idle: Moment,
    /// After the last answer, all open still.
    pub used: Moment,
    /// After all were closed.
    pub after: Moment,
    /// User bytes of the process per idle connection, over those before the first one.
    #[serde(default)]
    pub user_bytes_each: f64,
    /// The same against what the process holds after all were closed.
    #[serde(default)]
    pub user_bytes_each_over_after: f64,
    /// Bytes of the kernel per idle connection, of both its ends, over those before the first one.
    #[serde(default)]
    pub kernel_bytes_each: f64,
    /// Second by second.
    pub seconds: Vec<Second>,
}

impl Report {
    /// Fills in what a connection takes, from the moments.
    pub(crate) fn with_each(mut self) -> Report {
        let (before, idle, after) = (&self.before, &self.idle, &self.after);
        self.user_bytes_each = self.each(idle.user as f64 - before.user as f64);
        self.user_bytes_each_over_after = self.each(idle.user as f64 - after.user as f64);
        self.kernel_bytes_each = self.each(idle.kernel.bytes() as f64 - before.kernel.bytes() as f64);
        self
    }

    /// The slabs that grew, per connection, the largest first.
    pub fn slabs_each(&self) -> Vec<(String, f64)> {
        let before = &self.before.kernel.slabs;
        let grown = |(name, bytes): (&String, &u64)| {
            (name.clone(), self.each(*bytes as f64 - before.get(name).copied().unwrap_or(0) as f64))
        };
        let mut slabs: Vec<_> = self.idle.kernel.slabs.iter().map(grown).filter(|(_, each)| *each >= 1.0).collect();
        slabs.sort_by(|a, b| b.1.total_cmp(&a.1));
        slabs
    }

    /// Whether every connection and every request came off.
    pub fn is_whole(&self) -> bool {
        self.opened == self.connections
            && self.lost_idle == 0
            && self.trickles.iter().all(|one| one.failures.sum() == 0)
    }

    fn each(&self, bytes: f64) -> f64 {
        bytes / self.opened.max(1) as f64
    }
}

/// Why something did not come off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// No connection came about.
    pub connect: u64,
    /// The connection ended before the answer was whole.
    pub closed: u64,
    /// Not whole within the timeout.
    pub timeout: u64,
    /// Another answer than the expected one, or one that ends the connection.
    pub answer: u64,
}

impl Failures {
    /// All of them.
    pub fn sum(&self) -> u64 {
        self.connect + self.closed + self.timeout + self.answer
    }

    fn add(&mut self, other: &Failures) {
        self.connect += other.connect;
        self.closed += other.closed;
        self.timeout += other.timeout;
        self.answer += other.answer;
    }
}

/// Requests over connections that were idle.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Trickle {
    /// Asked for, per second.
    pub rate: u64,
    /// How long, in s.
    pub seconds: f64,
    /// Answered as expected.
    pub ok: u64,
    /// Not answered so.
    pub failures: Failures,
    /// Good answers per second.
    pub rps: f64,
    /// From when the request was due.
    pub latency_us: Latency,
    /// Requests whose connection was busy still and that went over the next one.
    pub skipped: u64,
    /// CPU time of the process per good answer in µs; 0 when it was not given.
    pub cpu_us_per_request: f64,
    /// CPU time of the process over the time that passed: 1.0 is one CPU.
    pub utilisation: f64,
    /// CPU time of the load generator itself per good answer in µs.
    pub load_cpu_us_per_request: f64,
}

/// Memory at one moment, in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// `RssAnon + RssShmem + VmSwap` of the process and its descendants.
    pub user: u64,
    /// What the process has for itself: `Private_*` and `Swap`.
    pub private: u64,
    /// CPU time of the process so far, in ns.
    pub cpu_ns: u64,
    /// What the kernel holds.
    pub kernel: Kernel,
}

/// The state at the end of one second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// Since the first connect, in s.
    pub at: f64,
    /// Connections open and answered once.
    pub open: u64,
    /// Good answers of the trickle so far.
    pub answered: u64,
    /// What failed so far, of any kind.
    pub failed: u64,
    /// CPU time of the process so far, in ms.
    pub cpu_ms: u64,
    /// `RssAnon + RssShmem + VmSwap` of the process, in bytes.
    pub user: u64,
}

/// Opens, holds, asks, closes; ends early, with an error, once `stop` is set.
///
/// # Errors
/// When the options make no sense, a thread can't work, the process can't be read, or it is interrupted; what fails on a
/// connection is in the report.
pub fn run(options: &Options, stop: &AtomicBool) -> Result<Report> {
    options.check()?;
    let shared = Arc::new(Shared::new(options.threads(), options.rate.len()));
    let before = moment(options.pid)?;
    let workers = spawn(&shared, options)?;
    let mut guide =
        Guide { shared: &shared, options, stop, began: Instant::now(), told: Instant::now(), seconds: Vec::new() };
    let led = guide.lead();
    shared.enter(Phase::Close);
    let seconds = std::mem::take(&mut guide.seconds);
    let mut sum = Outcome::new(options.rate.len())?;
    for worker in workers {
        sum.add(&worker.join().map_err(|_| Error::Failed("a thread panicked".into()))??)?;
    }
    let led = led?;
    thread::sleep(options.settle);
    Ok(report(options, &shared, (before, led, moment(options.pid)?), &sum, seconds))
}

fn spawn(shared: &Arc<Shared>, options: &Options) -> Result<Vec<JoinHandle<Result<Outcome>>>> {
    let (count, threads) = (options.connections as usize, shared.threads);
    let speech = Speech { http2: false, tls: options.tls.clone() };
    let side = speech.client_side(&options.target)?;
    let worker = |index: usize| {
        let (shared, options, side) = (Arc::clone(shared), options.clone(), side.clone());
        let mine = count * index / threads..count * (index + 1) / threads;
        thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            let _working = Working(&shared);
            if threads > 1 {
                sys::private_descriptor_table().trying(|| "unshare(CLONE_FILES)".into())?;
            }
            trickle::work(&shared, (&options, side), index, mine)
        })
    };
    (0..threads).map(worker).collect::<std::io::Result<_>>().trying(|| "starting a thread".into())
}

/// A thread at work, until it ends, however that is.
struct Working<'a>(&'a Shared);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

/// Histograms and poll buffers live on the heap.
const STACK_BYTES: usize = 256 * 1024;

fn moment(pid: Option<u32>) -> Result<Moment> {
    let usage = pid.map(proc::usage).transpose()?.unwrap_or_default();
    let private = pid.and_then(kernel::private_bytes).unwrap_or(0);
    Ok(Moment { user: usage.user_bytes, private, cpu_ns: usage.cpu_ns, kernel: Kernel::read() })
}

/// What all threads are in; they look once a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Opened and asked once each.
    Open = 0,
    /// Left alone.
    Rest = 1,
    /// Asked on a schedule.
    Ask = 2,
    /// Closed.
    Close = 3,
}

struct Shared {
    phase: AtomicU8,
    threads: usize,
    running: AtomicUsize,
    opened: AtomicU64,
    lost_idle: AtomicU64,
    open_failed: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    under_way: AtomicU64,
    skipped: AtomicU64,
    /// Which of the rates is run.
    round: AtomicUsize,
    /// Threads that have not asked all that is due in this round.
    asking: AtomicUsize,
    /// When the asking begins, by rate; set before the phase is.
    ask_from: Vec<OnceLock<Instant>>,
}

impl Shared {
    fn new(threads: usize, rounds: usize) -> Shared {
        Shared {
            phase: AtomicU8::new(Phase::Open as u8),
            threads,
            running: AtomicUsize::new(threads),
            opened: AtomicU64::new(0),
            lost_idle: AtomicU64::new(0),
            open_failed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            round: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            ask_from: (0..rounds).map(|_| OnceLock::new()).collect(),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Acquire) {
            0 => Phase::Open,
            1 => Phase::Rest,
            2 => Phase::Ask,
            _ => Phase::Close,
        }
    }

    fn enter(&self, phase: Phase) {
        // Whoever sees the phase sees what was set for it.
        self.phase.store(phase as u8, Release);
    }
}

/// What a thread brings home beside the counters.
struct Outcome {
    opening: Histogram<u32>,
    open_failures: Failures,
    /// By rate.
    asking: Vec<Asking>,
}

/// What came of one rate.
struct Asking {
    latency: Histogram<u32>,
    failures: Failures,
}

impl Outcome {
    fn new(rounds: usize) -> Result<Outcome> {
        let asking = |_| Ok(Asking { latency: load::histogram()?, failures: Failures::default() });
        let asking = (0..rounds).map(asking).collect::<Result<_>>()?;
        Ok(Outcome { opening: load::histogram()?, open_failures: Failures::default(), asking })
    }

    fn add(&mut self, other: &Outcome) -> Result<()> {
        let failed = |e: hdrhistogram::AdditionError| Error::Failed(e.to_string());
        self.opening.add(&other.opening).map_err(failed)?;
        self.open_failures.add(&other.open_failures);
        for (own, other) in self.asking.iter_mut().zip(&other.asking) {
            own.latency.add(&other.latency).map_err(failed)?;
            own.failures.add(&other.failures);
        }
        Ok(())
    }
}

/// What was measured on the way.
struct Led {
    open_seconds: f64,
    idle: Moment,
    rounds: Vec<Round>,
    used: Moment,
}

/// One rate.
struct Round {
    seconds: f64,
    ok: u64,
    skipped: u64,
    cpu_ns: u64,
    own_cpu: Duration,
}

/// Leads the threads through the phases.
struct Guide<'a> {
    shared: &'a Shared,
    options: &'a Options,
    stop: &'a AtomicBool,
    began: Instant,
    told: Instant,
    seconds: Vec<Second>,
}

impl Guide<'_> {
    fn lead(&mut self) -> Result<Led> {
        let (shared, options) = (self.shared, self.options);
        let all = options.connections;
        self.wait(|| shared.opened.load(Relaxed) + shared.open_failed.load(Relaxed) >= all)?;
        let open_seconds = self.began.elapsed().as_secs_f64();
        shared.enter(Phase::Rest);
        let rested = Instant::now() + options.settle;
        self.wait(|| Instant::now() >= rested)?;
        let idle = moment(options.pid)?;
        let rounds = (0..options.rate.len()).map(|round| self.ask(round)).collect::<Result<_>>()?;
        let used = moment(options.pid)?;
        Ok(Led { open_seconds, idle, rounds, used })
    }

    /// One rate, to its last answer.
    fn ask(&mut self, round: usize) -> Result<Round> {
        let (shared, options) = (self.shared, self.options);
        let usage = || Ok(options.pid.map(proc::usage).transpose()?.unwrap_or_default().cpu_ns);
        let counted = || (shared.answered.load(Relaxed), shared.skipped.load(Relaxed));
        let (cpu_ns, own_cpu, (ok, skipped)) = (usage()?, proc::own_cpu(), counted());
        // A moment ahead, so that every thread is there when its first request is due.
        let from = Instant::now() + TICK;
        let _ = shared.ask_from[round].set(from);
        shared.round.store(round, Relaxed);
        shared.asking.store(shared.threads, Relaxed);
        shared.enter(Phase::Ask);
        // A thread that is late asks all the same what was due until the end; what it can't within the timeout has failed.
        let patience = from + options.duration_of(round) + options.timeout;
        self.wait(|| shared.asking.load(Acquire) == 0 || Instant::now() > patience)?;
        let seconds = from.elapsed().as_secs_f64();
        shared.enter(Phase::Rest);
        let patience = Instant::now() + options.timeout + 4 * TICK;
        let is_done = || shared.asking.load(Acquire) == 0 && shared.under_way.load(Relaxed) == 0;
        self.wait(|| is_done() || Instant::now() > patience)?;
        Ok(Round {
            seconds,
            ok: counted().0 - ok,
            skipped: counted().1 - skipped,
            cpu_ns: usage()?.saturating_sub(cpu_ns),
            own_cpu: proc::own_cpu().saturating_sub(own_cpu),
        })
    }

    /// Waits, notes each second what is, and tells now and then how far it is. A thread that ends before it is told to has
    /// failed, and all that is waited for may then never be.
    fn wait(&mut self, done: impl Fn() -> bool) -> Result<()> {
        while !done() && self.shared.running.load(Relaxed) == self.shared.threads {
            if self.stop.load(Relaxed) {
                return Err(Error::Failed("interrupted: nothing is reported".into()));
            }
            thread::sleep(TICK / 10);
            if self.began.elapsed().as_secs_f64() >= (self.seconds.len() + 1) as f64 {
                self.note()?;
            }
        }
        Ok(())
    }

    fn note(&mut self) -> Result<()> {
        let shared = self.shared;
        let usage = self.options.pid.map(proc::usage).transpose()?.unwrap_or_default();
        let second = Second {
            at: self.began.elapsed().as_secs_f64(),
            open: shared.opened.load(Relaxed) - shared.lost_idle.load(Relaxed),
            answered: shared.answered.load(Relaxed),
            failed: shared.failed.load(Relaxed) + shared.open_failed.load(Relaxed) + shared.lost_idle.load(Relaxed),
            cpu_ms: usage.cpu_ns / 1_000_000,
            user: usage.user_bytes,
        };
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let Second { at, open, answered, failed, .. } = second;
            eprintln!("{at:.0} s: {open} connections open, {answered} requests answered, {failed} failed");
        }
        self.seconds.push(second);
        Ok(())
    }
}

fn report(
    options: &Options,
    shared: &Shared,
    (before, led, after): (Moment, Led, Moment),
    sum: &Outcome,
    seconds: Vec<Second>,
) -> Report {
    let opened = shared.opened.load(Relaxed);
    let rounds = led.rounds.iter().zip(&sum.asking).zip(&options.rate);
    let trickles = rounds.map(|((round, asking), &rate)| trickle_of(rate, round, asking)).collect();
    Report {
        connections: options.connections,
        opened,
        open_seconds: led.open_seconds,
        accepts_per_second: opened as f64 / led.open_seconds,
        open_latency_us: Latency::of(&sum.opening),
        open_failures: sum.open_failures.clone(),
        lost_idle: shared.lost_idle.load(Relaxed),
        threads: shared.threads,
        trickles,
        before,
        idle: led.idle,
        used: led.used,
        after,
        user_bytes_each: 0.0,
        user_bytes_each_over_after: 0.0,
        kernel_bytes_each: 0.0,
        seconds,
    }
    .with_each()
}

fn trickle_of(rate: u64, round: &Round, asking: &Asking) -> Trickle {
    let each = |us: f64| us / round.ok.max(1) as f64;
    Trickle {
        rate,
        seconds: round.seconds,
        ok: round.ok,
        failures: asking.failures.clone(),
        rps: round.ok as f64 / round.seconds,
        latency_us: Latency::of(&asking.latency),
        skipped: round.skipped,
        cpu_us_per_request: each(round.cpu_ns as f64 / 1e3),
        utilisation: round.cpu_ns as f64 / 1e9 / round.seconds,
        load_cpu_us_per_request: each(round.own_cpu.as_secs_f64() * 1e6),
    }
}
