//! `speedmimi-bench load`: so many connections, each asking again as soon as it was answered (closed loop), or asking at
//! times that don't depend on the answers (open loop).
//!
//! Owns phases (ramp, warm-up, window, drain) and threads. Never touches a socket itself: that is [`crate::clients`]. With
//! HTTP/2 each stream is such a loop. It stops by itself: what is under way at the end is waited for, at most for the
//! timeout.

mod book;
mod closed;
mod open;
mod reading;
mod report;
mod shared;

pub use report::{Counts, Latency, Measured, OpenLoop, ProcessReport, Report, Slice};
pub use shared::Phase;

use crate::amount;
use crate::clients::{Ask, Clients, Count};
use crate::error::{Error, Result, Trying};
use crate::net::descriptors_max;
use crate::proc::{self, Usage};
use crate::sys;
use crate::target::{Target, Url};
use crate::tls::ClientSide;
use crate::traffic::{SOURCES_MAX, Traffic};
pub(crate) use book::RAMP_COUNT_MAX;
use book::{Book, Manner, Outcome, Pace};
use closed::Closed;
use hdrhistogram::Histogram;
use open::{Open, Schedule};
use reading::Reading;
pub(crate) use shared::histogram;
use shared::{Shared, Working};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Connections of one load at most.
pub const CONNECTIONS_MAX: u64 = 1_000_000;
/// Connections from one source address at most: it has 28,232 ports by default, some of them still closing.
pub const PER_SOURCE_MAX: usize = 10_000;
/// Descriptors of a thread that are not connections, at most.
const DESCRIPTORS_RESERVE: usize = 64;
/// How long all connections may take to be answered once, before the warm-up begins without the rest: at least this.
const RAMP_TIME_MIN: Duration = Duration::from_secs(60);
/// And at least this for each connection.
const RAMP_TIME_EACH: Duration = Duration::from_millis(1);
/// How often timeouts are looked for.
const EXPIRE_EVERY: Duration = Duration::from_millis(250);
/// Longest turn of a thread's loop that nothing happens in.
const TURN_TIME_MAX: Duration = Duration::from_millis(5);
/// Requests that are sent in a turn before answers are read again: who is asked first must not wait for the last.
const ASK_COUNT_MAX: usize = 1_000;
/// Parts that the window has, at most.
const SLICE_COUNT_MAX: u32 = 60;
/// Shortest part of the window.
const SLICE_TIME_MIN: Duration = Duration::from_millis(250);
/// How long what is under way is waited for after an interrupt.
const HURRY: Duration = Duration::from_millis(500);
/// How often the phases, and who interrupts them, are looked after.
const TICK: Duration = Duration::from_millis(2);

/// What to load, and how much.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// http(s)://ADDRESS:PORT[/PATH] on this machine; without a path, the body's size is it
    #[arg(long, value_name = "URL")]
    pub target: Url,
    /// Connections at once
    #[arg(long, short = 'c', default_value = "64", value_parser = amount::count)]
    pub connections: u64,
    /// How long to measure, after all connections were answered once and the warm-up
    #[arg(long, short = 'd', default_value = "5s", value_parser = amount::duration)]
    pub duration: Duration,
    /// Ask exactly so many requests and measure all of them, instead of a duration
    #[arg(long, short = 'n', value_parser = amount::count, conflicts_with_all = ["rate", "events"])]
    pub requests: Option<u64>,
    /// Threads; more are used when one descriptor table can't hold the connections
    #[arg(long, short = 't', default_value_t = 1)]
    pub threads: usize,
    /// What is asked.
    #[command(flatten)]
    pub traffic: Traffic,
}

impl Options {
    /// As on the command line without a further option.
    pub fn new(target: Url) -> Options {
        Options {
            target,
            connections: 64,
            duration: Duration::from_secs(5),
            requests: None,
            threads: 1,
            traffic: Traffic::default(),
        }
    }

    /// Loops in all.
    fn loops(&self) -> usize {
        self.connections as usize * self.traffic.streams
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// Which does not, and what is allowed.
    pub fn check(&self) -> Result<()> {
        let wrong = |text: String| Err(Error::Usage(text));
        self.traffic.check()?;
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return wrong(format!("--connections {}: outside 1..={CONNECTIONS_MAX}", self.connections));
        }
        if self.loops() > CONNECTIONS_MAX as usize {
            return wrong(format!("--connections times --streams: above {CONNECTIONS_MAX}"));
        }
        if self.threads == 0 || self.threads > 1024 {
            return wrong(format!("--threads {}: outside 1..=1024", self.threads));
        }
        if self.requests == Some(0) || self.duration.is_zero() {
            return wrong("--duration and --requests have to be above 0".into());
        }
        Ok(())
    }
}

/// How far a load has come, for whoever watches.
#[derive(Clone, Debug)]
pub struct Glimpse {
    /// What all threads are in.
    pub phase: Phase,
    /// Loops that were answered once, and all of them.
    pub settled: usize,
    /// The same.
    pub loops: usize,
    /// Share of the phase that is over, 0..=1.
    pub share: f64,
    /// Over the whole run.
    pub counts: Counts,
}

/// Who watches a load, and may end it early.
pub struct Watch<'a> {
    /// Once set, the load ends as soon as what is under way is answered.
    pub stop: &'a AtomicBool,
    /// Told every few milliseconds.
    pub glimpse: &'a mut dyn FnMut(&Glimpse),
}

/// Runs a load to its end.
///
/// # Errors
/// When the options make no sense or a thread can't work; failed requests are in the report.
pub fn run(options: &Options) -> Result<Report> {
    let stop = AtomicBool::new(false);
    Ok(measure(options, &mut Watch { stop: &stop, glimpse: &mut |_| () })?.report)
}

/// Runs a load to its end while somebody watches.
///
/// # Errors
/// When the options make no sense or a thread can't work; failed requests are in the report.
pub fn measure(options: &Options, watch: &mut Watch) -> Result<Measured> {
    options.check()?;
    let target = options.target.target(options.traffic.i_own_this_target)?;
    if options.traffic.sources > 0 && !target.has_sources() {
        let why = "--sources needs a target on 127.0.0.0/8: only there has this machine addresses to spare";
        return Err(Error::Usage(why.into()));
    }
    // Now it has to be there; that it ends while it is loaded is a result.
    options.traffic.pid.map(proc::usage).transpose()?;
    let count = options.connections as usize;
    let per_table = per_table();
    let threads = thread_count(count, options.threads);
    let side = options.traffic.speech.client_side(&target)?;
    let asks: Arc<[Ask]> = options.traffic.asks(&target)?.into();
    let shared = Arc::new(Shared::new(threads, options.requests));
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let work = Work {
                options: options.clone(),
                target: target.clone(),
                asks: Arc::clone(&asks),
                mine: count * index / threads..count * (index + 1) / threads,
                share: (index, threads),
                private: count > per_table,
            };
            let (shared, side) = (Arc::clone(&shared), side.clone());
            thread::spawn(move || {
                let _working = Working(&shared);
                work.run(&shared, side)
            })
        })
        .collect();
    let led = lead(&shared, options, watch);
    // Who interrupted it does not want to wait for what is under way.
    shared.hurry.store(led.partial, Relaxed);
    shared.enter(Phase::Drain);
    let mut outcomes = Vec::new();
    for worker in workers {
        outcomes.push(worker.join().map_err(|_| Error::Failed("a load thread panicked".into()))??);
    }
    sum_up(options, &shared, outcomes, &led)
}

/// Connections that one descriptor table holds.
fn per_table() -> usize {
    descriptors_max().saturating_sub(DESCRIPTORS_RESERVE).max(1)
}

/// How many threads so many connections have, when so many are wanted.
pub(crate) fn thread_count(connections: usize, wanted: usize) -> usize {
    wanted.max(connections.div_ceil(per_table())).min(connections)
}

/// The source address of a connection, when more than one is used.
pub(crate) fn source(slot: usize, sources: usize) -> Option<IpAddr> {
    (sources > 1).then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + (slot % sources) as u8)))
}

/// How many source addresses so many connections need.
pub(crate) fn sources_for(target: &Target, connections: usize, wanted: usize) -> usize {
    if wanted == 0 && target.has_sources() {
        return connections.div_ceil(PER_SOURCE_MAX).min(SOURCES_MAX);
    }
    wanted
}

/// The state of everything at one moment.
#[derive(Clone)]
struct Sample {
    at: Instant,
    counts: Counts,
    own_cpu: Duration,
    process: Option<Usage>,
}

fn sample(shared: &Shared, pid: Option<u32>) -> Sample {
    let process = pid.and_then(|pid| proc::usage(pid).ok());
    Sample { at: Instant::now(), counts: shared.counts(), own_cpu: proc::own_cpu(), process }
}

/// What the leader saw: the window's samples, one at each border of its slices.
struct Led {
    samples: Vec<Sample>,
    partial: bool,
}

/// Leads the threads through the phases and samples the window's borders.
fn lead(shared: &Shared, options: &Options, watch: &mut Watch) -> Led {
    let pid = options.traffic.pid;
    let mut stage = Stage { shared, loops: options.loops(), watch };
    if options.requests.is_some() {
        let begin = sample(shared, pid);
        let partial = !stage.wait(Phase::Window, None, || false);
        return Led { samples: vec![begin, sample(shared, pid)], partial };
    }
    let settled = || shared.settled.load(Relaxed) >= options.loops();
    let ramp_time_max = RAMP_TIME_MIN.max(RAMP_TIME_EACH * options.connections as u32);
    if !stage.wait(Phase::Ramp, Some(ramp_time_max), settled) {
        let end = sample(shared, pid);
        return Led { samples: vec![end.clone(), end], partial: true };
    }
    // Before the phase is entered, so that whoever sees that sees this.
    let _ = shared.schedule_from.set(Instant::now());
    shared.enter(Phase::Warmup);
    let mut whole = stage.wait(Phase::Warmup, Some(options.traffic.warmup), || false);
    // It is the load that was asked for only once all ask.
    let all_ask = || shared.waiting.load(Relaxed) == 0;
    whole = whole && stage.wait(Phase::Warmup, Some(ramp_time_max), all_ask);
    shared.enter(Phase::Window);
    let mut samples = vec![sample(shared, pid)];
    let count = (options.duration.as_nanos() / SLICE_TIME_MIN.as_nanos()).clamp(1, u128::from(SLICE_COUNT_MAX)) as u32;
    for slice in 0..count {
        if whole {
            let end = samples[0].at + options.duration * (slice + 1) / count;
            whole = stage.wait_until(Phase::Window, samples[0].at, end, options.duration);
            // Answers that come after the window go into a slice behind it.
            shared.slice.store(slice + 1, Relaxed);
            samples.push(sample(shared, pid));
        }
    }
    if samples.len() == 1 {
        shared.slice.store(1, Relaxed);
        samples.push(sample(shared, pid));
    }
    Led { samples, partial: !whole }
}

/// Waits for the ends of phases and tells the watch.
struct Stage<'a, 'w> {
    shared: &'a Shared,
    loops: usize,
    watch: &'a mut Watch<'w>,
}

impl Stage<'_, '_> {
    /// Waits until the time is over, `done`, or no thread works any more; `false` when it was interrupted.
    fn wait(&mut self, phase: Phase, time: Option<Duration>, done: impl Fn() -> bool) -> bool {
        let begin = Instant::now();
        let over = |now: Instant| time.is_some_and(|time| now >= begin + time);
        while self.shared.running.load(Relaxed) > 0 && !done() && !over(Instant::now()) {
            if self.watch.stop.load(Relaxed) {
                return false;
            }
            let share = time.map_or(0.0, |time| begin.elapsed().as_secs_f64() / time.as_secs_f64().max(1e-9));
            self.tell(phase, share);
            thread::sleep(TICK);
        }
        true
    }

    /// Waits until a slice of the window ends; `false` when it was interrupted.
    fn wait_until(&mut self, phase: Phase, begin: Instant, end: Instant, whole: Duration) -> bool {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.running.load(Relaxed) == 0 {
                return true;
            }
            if self.watch.stop.load(Relaxed) {
                return false;
            }
            self.tell(phase, begin.elapsed().as_secs_f64() / whole.as_secs_f64());
            thread::sleep(left.min(TICK));
        }
    }

    fn tell(&mut self, phase: Phase, share: f64) {
        let settled = self.shared.settled.load(Relaxed);
        let (loops, counts) = (self.loops, self.shared.counts());
        (self.watch.glimpse)(&Glimpse { phase, settled, loops, share: share.min(1.0), counts });
    }
}

/// What one thread is given.
struct Work {
    options: Options,
    target: Target,
    asks: Arc<[Ask]>,
    /// Its connections.
    mine: Range<usize>,
    /// Which of how many threads it is.
    share: (usize, usize),
    /// A descriptor table of its own.
    private: bool,
}

impl Work {
    /// One thread, to the end of the load.
    fn run(&self, shared: &Shared, side: Option<ClientSide>) -> Result<Outcome> {
        if self.private {
            sys::private_descriptor_table().trying(|| "unshare(CLONE_FILES)".into())?;
        }
        let traffic = &self.options.traffic;
        let streams = traffic.streams;
        let manner = Manner {
            slots: self.mine.len() * streams,
            streams,
            first: self.mine.start,
            sources: sources_for(&self.target, self.options.connections as usize, traffic.sources),
            one_each: traffic.new_connections,
            upgrades: traffic.websocket,
        };
        let book = Book::new(shared, &shared.tallies[self.share.0], manner)?;
        let clients = self.clients(side)?;
        if traffic.events {
            return self.turns(clients, Reading::new(book));
        }
        match traffic.rate {
            Some(rate) => {
                // A thread sleeps until a request is due: the usual 50 µs of grace would be in every latency.
                let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
                let schedule = Schedule::new(traffic.arrivals, rate, self.share, traffic.seed);
                self.turns(clients, Open::new(book, schedule, traffic.timeout()))
            }
            None => self.turns(clients, Closed::new(book)),
        }
    }

    fn clients(&self, side: Option<ClientSide>) -> Result<Clients> {
        let (traffic, conns) = (&self.options.traffic, self.mine.len());
        if traffic.events {
            return Clients::subscribing(&self.target, side, conns, &self.asks[0], traffic.timeout());
        }
        let count = Count { conns, streams: traffic.streams };
        Clients::new(&self.target, &traffic.speech, side, count, &self.asks, traffic.timeout())
    }

    fn turns<'a>(&self, mut clients: Clients, mut pace: impl Pace<'a>) -> Result<Outcome> {
        let (mut expire_at, mut drain_end) = (Instant::now() + EXPIRE_EVERY, None);
        let timeout = self.options.traffic.timeout();
        loop {
            let now = Instant::now();
            pace.book().look()?;
            pace.turn(&mut clients, now);
            if pace.is_done() {
                break;
            }
            if pace.book().phase == Phase::Drain {
                let hurries = pace.book().shared.hurry.load(Relaxed);
                let patience = if hurries { HURRY } else { 2 * timeout + 4 * EXPIRE_EVERY };
                // `expire` ends what is under way before this, and a queue is given up after as long; the deadline is for
                // what neither can see.
                let end = *drain_end.get_or_insert(now + patience);
                if now > end {
                    if !hurries {
                        pace.book().give_up();
                    }
                    break;
                }
            }
            clients.poll(pace.wait(Instant::now()), &mut pace)?;
            if now >= expire_at {
                clients.expire(now, &mut pace);
                expire_at = now + EXPIRE_EVERY;
            }
        }
        pace.close(&clients)
    }
}

fn sum_up(options: &Options, shared: &Shared, outcomes: Vec<Outcome>, led: &Led) -> Result<Measured> {
    let mut slices = shared.take_slices();
    let mut latency = histogram()?;
    for slice in &slices {
        latency.add(slice).map_err(|e| Error::Failed(e.to_string()))?;
    }
    slices.resize(led.samples.len() - 1, histogram()?);
    let report = report(options, shared, outcomes, led, &latency);
    let slices = led.samples.windows(2).zip(&slices).map(|(border, latency)| slice(border, latency)).collect();
    Ok(Measured { report, latency, slices })
}

fn slice(border: &[Sample], latency: &Histogram<u32>) -> Slice {
    let counts = border[1].counts.since(&border[0].counts);
    let at = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
    Slice {
        seconds: (border[1].at - border[0].at).as_secs_f64(),
        ok: counts.ok,
        failed: counts.failed,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: latency.max() as f64 / 1e3,
        user_bytes: border[1].process.map(|usage| usage.user_bytes),
    }
}

fn report(options: &Options, shared: &Shared, outcomes: Vec<Outcome>, led: &Led, latency: &Histogram<u32>) -> Report {
    let (begin, end) = (&led.samples[0], &led.samples[led.samples.len() - 1]);
    let total = shared.counts();
    let window = end.counts.since(&begin.counts);
    let seconds = (end.at - begin.at).as_secs_f64().max(1e-9);
    let own_cpu = end.own_cpu.saturating_sub(begin.own_cpu).as_secs_f64();
    let all = (total.ok + total.failed).max(1);
    let process = begin.process.zip(end.process).map(|(before, after)| {
        let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns) as f64;
        ProcessReport {
            cpu_us_per_request: cpu_ns / 1e3 / window.ok.max(1) as f64,
            utilisation: cpu_ns / 1e9 / seconds,
            user_bytes: after.user_bytes,
        }
    });
    let (mut statuses, mut handshakes) = (std::collections::BTreeMap::new(), crate::conns::Handshakes::default());
    let mut open = OpenLoop { rate: options.traffic.rate.unwrap_or(0) as f64, ..OpenLoop::default() };
    for outcome in outcomes {
        for (status, count) in outcome.statuses {
            *statuses.entry(status).or_default() += count;
        }
        handshakes.add(outcome.handshakes);
        open.add(&outcome.open);
    }
    Report {
        connections: options.connections,
        answered_connections: (shared.settled.load(Relaxed) / options.traffic.streams) as u64,
        answered_percent: 100.0 * total.ok as f64 / all as f64,
        total,
        statuses,
        rps: window.ok as f64 / seconds,
        window: window.clone(),
        window_seconds: seconds,
        latency_us: Latency::of(latency),
        load_utilisation: own_cpu / seconds,
        load_cpu_us_per_request: own_cpu * 1e6 / window.ok.max(1) as f64,
        handshakes: handshakes.done,
        resumed: handshakes.resumed,
        certificates: handshakes.certificates.len() as u64,
        handshake_failure: handshakes.failure,
        process,
        open_loop: options.traffic.rate.map(|_| open),
        partial: led.partial,
    }
}
