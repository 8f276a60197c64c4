//! `speedmimi-bench load`: so many connections, each asking again as soon as it was answered (closed loop).
//!
//! Owns phases (ramp, warm-up, window, drain), counting and the report. Never touches a socket itself: that is
//! [`crate::clients`]. With HTTP/2 each stream is such a loop. It stops by itself: what is under way at the end is
//! waited for, at most for the timeout.

use crate::amount;
use crate::body::{self, BODY_BYTES_MAX};
use crate::clients::{Ask, Clients, Count, Speech};
use crate::conns::{Event, Failure, Handshakes, Next, Script};
use crate::error::{Error, Result, Trying};
use crate::net::descriptors_max;
use crate::proc::{self, Usage};
use crate::sys;
use crate::target::Target;
use crate::tls::ClientSide;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Connections of one load at most.
pub const CONNECTIONS_MAX: u64 = 1_000_000;
/// Connections of a thread that may be opening, or waiting for their first answer, at once: under any backlog.
const RAMP_COUNT_MAX: usize = 200;
/// Connections from one source address at most: it has 28,232 ports by default, some of them still closing.
const PER_SOURCE_MAX: usize = 10_000;
/// Descriptors of a thread that are not connections, at most.
const DESCRIPTORS_RESERVE: usize = 64;
/// How long all connections may take to be answered once, before the warm-up begins without the rest.
const RAMP_TIME_MAX: Duration = Duration::from_secs(60);
/// Pause before a connection that was refused or lost is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(10);
/// How often timeouts are looked for.
const EXPIRE_EVERY: Duration = Duration::from_millis(250);
/// Largest latency that is told apart, in ns.
const LATENCY_NS_MAX: u64 = 120_000_000_000;

/// What to load, and how much.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// http(s)://ADDRESS:PORT[/PATH] on this machine; without a path, the body's size is it
    #[arg(long, value_name = "URL")]
    pub target: Target,
    /// Connections at once
    #[arg(long, short = 'c', default_value = "64", value_parser = amount::count)]
    pub connections: u64,
    /// Bytes of the expected body
    #[arg(long, default_value = "100", value_parser = amount::size)]
    pub body: usize,
    /// How long to measure, after all connections were answered once and the warm-up
    #[arg(long, short = 'd', default_value = "5s", value_parser = amount::duration)]
    pub duration: Duration,
    /// How long to load before measuring
    #[arg(long, default_value = "500ms", value_parser = amount::duration)]
    pub warmup: Duration,
    /// Ask exactly so many requests and measure all of them, instead of a duration
    #[arg(long, short = 'n', value_parser = amount::count)]
    pub requests: Option<u64>,
    /// Threads; more are used when one descriptor table can't hold the connections
    #[arg(long, short = 't', default_value_t = 1)]
    pub threads: usize,
    /// A request without a whole answer after so long has failed
    #[arg(long, default_value = "10s", value_parser = amount::duration)]
    pub timeout: Duration,
    /// Source addresses (127.0.0.1 and up) to connect from; 0: one per 10,000 connections
    #[arg(long, default_value_t = 0)]
    pub sources: usize,
    /// Also measure CPU time and memory of this process and its descendants
    #[arg(long)]
    pub pid: Option<u32>,
    /// One request a connection
    #[arg(long, conflicts_with = "http2")]
    pub new_connections: bool,
    /// Requests at once on each connection of HTTP/2
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// Unary gRPC calls, each with a message of --body bytes that has to come back
    #[arg(long, requires = "http2")]
    pub grpc: bool,
    /// The protocol.
    #[command(flatten)]
    pub speech: Speech,
}

impl Options {
    /// Closed loops in all.
    fn loops(&self) -> usize {
        self.connections as usize * self.streams
    }

    fn ask(&self) -> Ask {
        let body = body::pattern(self.body);
        if self.grpc {
            return Ask::Call { message: body };
        }
        let path = self.target.path.clone().unwrap_or_else(|| format!("/{}", self.body));
        Ask::Get { path, expect: body, last: self.new_connections }
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections asked for.
    pub connections: u64,
    /// Connections that were answered at least once.
    pub answered_connections: u64,
    /// Over the whole run, ramp and drain included.
    pub total: Counts,
    /// Share of `total` that was answered as expected, in percent.
    pub answered_percent: f64,
    /// Answers by status, over the whole run.
    pub statuses: BTreeMap<u16, u64>,
    /// Within the window.
    pub window: Counts,
    /// The window's length in s.
    pub window_seconds: f64,
    /// Good answers per second of the window.
    pub rps: f64,
    /// Latencies of good answers in the window.
    pub latency_us: Latency,
    /// CPU time of the load generator itself over the window's length.
    pub load_utilisation: f64,
    /// CPU time of the load generator itself per good answer in µs.
    #[serde(default)]
    pub load_cpu_us_per_request: f64,
    /// TLS handshakes over the whole run.
    #[serde(default)]
    pub handshakes: u64,
    /// Those of them that resumed an earlier session.
    #[serde(default)]
    pub resumed: u64,
    /// Different certificates that the server showed in them.
    #[serde(default)]
    pub certificates: u64,
    /// Why the first handshake that failed did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_failure: Option<String>,
    /// What the measured process took in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessReport>,
}

/// Requests by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered as expected.
    pub ok: u64,
    /// Not answered as expected, in all.
    pub failed: u64,
    /// No connection came about.
    pub connect: u64,
    /// The connection ended before the answer was whole.
    pub closed: u64,
    /// No whole answer within the timeout.
    pub timeout: u64,
    /// Another status.
    pub status: u64,
    /// Another body.
    pub body: u64,
    /// Not HTTP, or more than was asked for.
    pub malformed: u64,
    /// Streams that the server refused, by GOAWAY or REFUSED_STREAM, without having looked at them.
    #[serde(default)]
    pub refused: u64,
}

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// What the measured process took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ProcessReport {
    /// CPU time per good answer in µs.
    pub cpu_us_per_request: f64,
    /// CPU time over the window's length: 1.0 is one CPU.
    pub utilisation: f64,
    /// `RssAnon + RssShmem + VmSwap` at the window's end.
    pub user_bytes: u64,
}

/// Runs a load to its end.
///
/// # Errors
/// When the options make no sense or a thread can't work; failed requests are in the report.
pub fn run(options: &Options) -> Result<Report> {
    check(options)?;
    let count = options.connections as usize;
    let per_table = descriptors_max().saturating_sub(DESCRIPTORS_RESERVE).max(1);
    let threads = options.threads.max(count.div_ceil(per_table)).min(count);
    let side = options.speech.client_side(&options.target)?;
    let shared = Arc::new(Shared::new(threads, options.requests));
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let (shared, options, side) = (Arc::clone(&shared), options.clone(), side.clone());
            let mine = count * index / threads..count * (index + 1) / threads;
            thread::spawn(move || {
                // Joined by `run`: a thread that fails must not leave the others waiting.
                let outcome = work(&shared, index, (&options, side), mine, count > per_table);
                shared.running.fetch_sub(1, Relaxed);
                outcome
            })
        })
        .collect();
    let window = watch(&shared, options);
    shared.phase.store(Phase::Drain as u8, Relaxed);
    let mut sum = Outcome::new()?;
    for worker in workers {
        let outcome = worker.join().map_err(|_| Error::Failed("a load thread panicked".into()))??;
        sum.latency.add(&outcome.latency).map_err(|e| Error::Failed(e.to_string()))?;
        for (status, n) in outcome.statuses {
            *sum.statuses.entry(status).or_default() += n;
        }
        sum.handshakes.add(outcome.handshakes);
    }
    let (begin, end) = window?;
    Ok(report(options, &shared, &sum, begin, end))
}

fn check(options: &Options) -> Result<()> {
    let wrong = |text: String| Err(Error::Usage(text));
    if !(1..=CONNECTIONS_MAX).contains(&options.connections) {
        return wrong(format!("--connections {}: outside 1..={CONNECTIONS_MAX}", options.connections));
    }
    if options.body > BODY_BYTES_MAX {
        return wrong(format!("--body {}: above {BODY_BYTES_MAX}", options.body));
    }
    if options.streams == 0 || options.streams > 1 && !options.speech.http2 {
        return wrong("--streams is at least 1, and more than 1 with --http2 only".into());
    }
    if options.loops() > CONNECTIONS_MAX as usize {
        return wrong(format!("--connections times --streams: above {CONNECTIONS_MAX}"));
    }
    if options.threads == 0 || options.threads > 1024 {
        return wrong(format!("--threads {}: outside 1..=1024", options.threads));
    }
    if options.timeout.is_zero() || options.requests == Some(0) || options.duration.is_zero() {
        return wrong("--timeout, --duration and --requests have to be above 0".into());
    }
    if options.sources > 0 && !options.target.address.is_ipv4() {
        return wrong("--sources needs an IPv4 target: ::1 is the only loopback address of IPv6".into());
    }
    if options.sources > 250 {
        return wrong(format!("--sources {}: outside 0..=250", options.sources));
    }
    Ok(())
}

/// The source address of a connection, when more than one is used.
pub(crate) fn source(slot: usize, sources: usize) -> Option<IpAddr> {
    (sources > 1).then(|| IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + (slot % sources) as u8)))
}

/// How many source addresses so many connections need.
pub(crate) fn sources_for(target: &Target, connections: usize, wanted: usize) -> usize {
    match (wanted, target.address) {
        (0, std::net::SocketAddr::V4(_)) => connections.div_ceil(PER_SOURCE_MAX).min(250),
        (wanted, _) => wanted,
    }
}

/// What all threads are in; they look once a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Connections are opened, answered a first time and wait for the others: a proxy that is saturated by the first
    /// ones would accept the last ones late, and the load would not be what was asked for.
    Ramp = 0,
    /// All ask.
    Warmup = 1,
    /// All ask, and latencies are recorded.
    Window = 2,
    /// Nothing new is asked.
    Drain = 3,
}

/// One thread's counters, each written by that thread alone.
#[derive(Default)]
#[repr(align(128))]
struct Tally {
    ok: AtomicU64,
    failed: [AtomicU64; Failure::ALL.len()],
}

impl Tally {
    fn count(&self, verdict: std::result::Result<(), Failure>) {
        let counter = match verdict {
            Ok(()) => &self.ok,
            Err(failure) => &self.failed[failure as usize],
        };
        counter.store(counter.load(Relaxed) + 1, Relaxed);
    }
}

struct Shared {
    phase: AtomicU8,
    /// Threads still at work.
    running: AtomicUsize,
    /// Connections answered at least once.
    settled: AtomicUsize,
    /// Requests still to be asked, when their number is given.
    tickets: Option<AtomicU64>,
    tallies: Vec<Tally>,
}

impl Shared {
    fn new(threads: usize, requests: Option<u64>) -> Shared {
        // A load of so many requests has no ramp: all of them count.
        let phase = if requests.is_some() { Phase::Window } else { Phase::Ramp };
        Shared {
            phase: AtomicU8::new(phase as u8),
            running: AtomicUsize::new(threads),
            settled: AtomicUsize::new(0),
            tickets: requests.map(AtomicU64::new),
            tallies: (0..threads).map(|_| Tally::default()).collect(),
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Ramp,
            1 => Phase::Warmup,
            2 => Phase::Window,
            _ => Phase::Drain,
        }
    }

    /// Takes the right to ask once.
    fn take_ticket(&self) -> bool {
        let Some(tickets) = &self.tickets else { return true };
        tickets.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn tickets_gone(&self) -> bool {
        self.tickets.as_ref().is_some_and(|tickets| tickets.load(Relaxed) == 0)
    }

    fn counts(&self) -> Counts {
        let of = |f: Failure| self.tallies.iter().map(|t| t.failed[f as usize].load(Relaxed)).sum();
        Counts {
            ok: self.tallies.iter().map(|t| t.ok.load(Relaxed)).sum(),
            failed: Failure::ALL.map(of).iter().sum(),
            connect: of(Failure::Connect),
            closed: of(Failure::Closed),
            timeout: of(Failure::Timeout),
            status: of(Failure::Status),
            body: of(Failure::Body),
            malformed: of(Failure::Malformed),
            refused: of(Failure::Refused),
        }
    }
}

/// The state of everything at one moment.
struct Sample {
    at: Instant,
    counts: Counts,
    own_cpu: Duration,
    process: Option<Usage>,
}

fn sample(shared: &Shared, pid: Option<u32>) -> Result<Sample> {
    let process = pid.map(proc::usage).transpose()?;
    Ok(Sample { at: Instant::now(), counts: shared.counts(), own_cpu: proc::own_cpu(), process })
}

/// Leads the threads through the phases and samples the window's begin and end.
fn watch(shared: &Shared, options: &Options) -> Result<(Sample, Sample)> {
    let tick = Duration::from_millis(2);
    let running = || shared.running.load(Relaxed) > 0;
    if options.requests.is_some() {
        let begin = sample(shared, options.pid)?;
        while running() {
            thread::sleep(tick);
        }
        return Ok((begin, sample(shared, options.pid)?));
    }
    let ramp_end = Instant::now() + RAMP_TIME_MAX;
    while running() && shared.settled.load(Relaxed) < options.loops() && Instant::now() < ramp_end {
        thread::sleep(tick);
    }
    shared.phase.store(Phase::Warmup as u8, Relaxed);
    thread::sleep(options.warmup);
    shared.phase.store(Phase::Window as u8, Relaxed);
    let begin = sample(shared, options.pid)?;
    thread::sleep(options.duration);
    Ok((begin, sample(shared, options.pid)?))
}

/// What a thread brings home beside its tally.
struct Outcome {
    latency: Histogram<u32>,
    statuses: BTreeMap<u16, u64>,
    handshakes: Handshakes,
}

impl Outcome {
    fn new() -> Result<Outcome> {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(|e| Error::Failed(e.to_string()))?;
        Ok(Outcome { latency, statuses: BTreeMap::new(), handshakes: Handshakes::default() })
    }
}

/// One thread, to the end of the load.
fn work(
    shared: &Shared,
    index: usize,
    (options, side): (&Options, Option<ClientSide>),
    mine: Range<usize>,
    private: bool,
) -> Result<Outcome> {
    if private {
        sys::private_descriptor_table().trying(|| "unshare(CLONE_FILES)".into())?;
    }
    let sources = sources_for(&options.target, options.connections as usize, options.sources);
    let first = mine.start;
    let count = Count { conns: mine.len(), streams: options.streams };
    let asks = [options.ask()];
    let mut clients = Clients::new(&options.target, &options.speech, side, count, &asks, options.timeout)?;
    let mut script = Closed::new(shared, &shared.tallies[index], mine.len() * options.streams)?;
    script.one_each = options.new_connections;
    let (mut expire_at, mut drain_end) = (Instant::now() + EXPIRE_EVERY, None);
    loop {
        let now = Instant::now();
        script.phase = shared.phase();
        while let Some(slot) = script.take_waiting() {
            clients.ask(slot, 0, &mut script);
        }
        while let Some(slot) = script.take_closed(now) {
            clients.open(slot, source(first + slot / options.streams, sources), &mut script);
        }
        if script.is_done() {
            break;
        }
        if script.phase == Phase::Drain {
            // `expire` ends what is under way before this; the deadline is for what it can't see.
            let end = *drain_end.get_or_insert(now + options.timeout + 4 * EXPIRE_EVERY);
            if now > end {
                break;
            }
        }
        clients.poll(Duration::from_millis(5), &mut script)?;
        if now >= expire_at {
            clients.expire(now, &mut script);
            expire_at = now + EXPIRE_EVERY;
        }
    }
    script.outcome.handshakes = clients.handshakes();
    Ok(script.outcome)
}

/// Asks again as soon as it was answered.
struct Closed<'a> {
    shared: &'a Shared,
    tally: &'a Tally,
    outcome: Outcome,
    phase: Phase,
    /// One request a connection: the server ends it, then it is opened again.
    one_each: bool,
    /// Opening, or waiting for a first answer.
    ramping: usize,
    /// Requests under way, connections being opened included.
    under_way: usize,
    /// Whether each connection was answered already.
    settled: Vec<bool>,
    /// Never opened so far: from this index on.
    unopened: usize,
    /// Answered once, until all are.
    waiting: Vec<usize>,
    /// Closed ones, in the order of when they may be opened again.
    reopen: std::collections::VecDeque<(Instant, usize)>,
}

impl<'a> Closed<'a> {
    fn new(shared: &'a Shared, tally: &'a Tally, count: usize) -> Result<Self> {
        Ok(Closed {
            shared,
            tally,
            outcome: Outcome::new()?,
            phase: shared.phase(),
            one_each: false,
            ramping: 0,
            under_way: 0,
            settled: vec![false; count],
            unopened: 0,
            waiting: Vec::new(),
            reopen: std::collections::VecDeque::new(),
        })
    }

    /// The next connection that waited for the ramp's end, once that has come.
    fn take_waiting(&mut self) -> Option<usize> {
        if matches!(self.phase, Phase::Ramp | Phase::Drain) {
            return None;
        }
        let slot = self.waiting.pop()?;
        self.under_way += 1;
        Some(slot)
    }

    /// The next connection to open now, with the right to ask on it taken.
    fn take_closed(&mut self, now: Instant) -> Option<usize> {
        if self.phase == Phase::Drain || self.ramping >= RAMP_COUNT_MAX {
            return None;
        }
        let again = self.reopen.front().is_some_and(|&(at, _)| at <= now);
        let any = again || self.unopened < self.settled.len();
        if !any || !self.shared.take_ticket() {
            return None;
        }
        let slot = if again {
            self.reopen.pop_front().map(|(_, slot)| slot)?
        } else {
            self.unopened += 1;
            self.unopened - 1
        };
        self.under_way += 1;
        self.ramping += usize::from(!self.settled[slot]);
        Some(slot)
    }

    fn is_done(&self) -> bool {
        self.under_way == 0 && (self.phase == Phase::Drain || self.shared.tickets_gone())
    }

    /// The request of this connection has ended.
    fn ended(&mut self, slot: usize, verdict: std::result::Result<(), Failure>) {
        self.under_way -= 1;
        self.tally.count(verdict);
        if !self.settled[slot] {
            self.ramping -= 1;
            if verdict.is_ok() {
                self.settled[slot] = true;
                self.shared.settled.fetch_add(1, Relaxed);
            }
        }
    }

    fn ask_again(&mut self, slot: usize, keep: bool) -> Next {
        if !keep && self.one_each {
            return Next::Hold; // For its end: closing first would leave the address in use here.
        }
        if !keep || self.one_each {
            self.reopen.push_front((Instant::now(), slot));
            return Next::Close;
        }
        if self.phase == Phase::Ramp && self.settled[slot] {
            self.waiting.push(slot);
            return Next::Hold;
        }
        if self.phase == Phase::Drain || !self.shared.take_ticket() {
            return Next::Hold;
        }
        self.under_way += 1;
        self.ramping += usize::from(!self.settled[slot]);
        Next::Send(0)
    }
}

impl Script for Closed<'_> {
    fn next(&mut self, slot: usize, event: Event) -> Next {
        match event {
            // The ticket was taken when opening began.
            Event::Connected => Next::Send(0),
            Event::Answered { latency, status, verdict, keep } => {
                *self.outcome.statuses.entry(status).or_default() += 1;
                if verdict.is_ok() && self.phase == Phase::Window {
                    self.outcome.latency.saturating_record(latency.as_nanos() as u64);
                }
                self.ended(slot, verdict);
                self.ask_again(slot, keep)
            }
            Event::Lost { failure, asked } => {
                // One that was opening holds a ticket as well; one that was idle (no ticket left) does not.
                if asked || failure == Failure::Connect {
                    self.ended(slot, Err(failure));
                    self.reopen.push_back((Instant::now() + REOPEN_PAUSE, slot));
                } else if self.one_each {
                    self.reopen.push_back((Instant::now(), slot));
                } else if let Some(at) = self.waiting.iter().position(|waiting| *waiting == slot) {
                    // Closed while it waited for the ramp's end: no request was lost.
                    self.waiting.swap_remove(at);
                    self.reopen.push_back((Instant::now(), slot));
                }
                Next::Close
            }
        }
    }
}

fn report(options: &Options, shared: &Shared, sum: &Outcome, begin: Sample, end: Sample) -> Report {
    let total = shared.counts();
    let window = minus(&end.counts, &begin.counts);
    let seconds = (end.at - begin.at).as_secs_f64();
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
    Report {
        connections: options.connections,
        answered_connections: (shared.settled.load(Relaxed) / options.streams) as u64,
        answered_percent: 100.0 * total.ok as f64 / all as f64,
        total,
        statuses: sum.statuses.clone(),
        rps: window.ok as f64 / seconds,
        window: window.clone(),
        window_seconds: seconds,
        latency_us: latency(&sum.latency),
        load_utilisation: own_cpu / seconds,
        load_cpu_us_per_request: own_cpu * 1e6 / window.ok.max(1) as f64,
        handshakes: sum.handshakes.done,
        resumed: sum.handshakes.resumed,
        certificates: sum.handshakes.certificates.len() as u64,
        handshake_failure: sum.handshakes.failure.clone(),
        process,
    }
}

fn minus(end: &Counts, begin: &Counts) -> Counts {
    Counts {
        ok: end.ok - begin.ok,
        failed: end.failed - begin.failed,
        connect: end.connect - begin.connect,
        closed: end.closed - begin.closed,
        timeout: end.timeout - begin.timeout,
        status: end.status - begin.status,
        body: end.body - begin.body,
        malformed: end.malformed - begin.malformed,
        refused: end.refused - begin.refused,
    }
}

pub(crate) fn latency(histogram: &Histogram<u32>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Latency {
        mean: histogram.mean() / 1e3,
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p99_9: at(0.999),
        max: histogram.max() as f64 / 1e3,
    }
}
