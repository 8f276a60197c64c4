//! `speedmimi-bench attack`: an abusive client of a proxy on this machine, and what it costs everybody else.
//!
//! Owns the order of events: a quiet phase, the attack, and what a well-behaved client, the proxy's memory and the origin
//! say meanwhile. Never attacks another machine, never for longer than it was told.

mod flood;
mod kind;
mod raw;
mod shake;
mod steady;

pub use kind::Kind;

use crate::amount;
use crate::clients::Speech;
use crate::error::{Error, Result, Trying};
use crate::origin;
use crate::pin;
use crate::proc;
use crate::sys;
use crate::target::Target;
use crate::tls::ClientSide;
use clap::ValueEnum;
use flood::Flood;
use raw::Raw;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// An attack lasts at most so long.
const DURATION_MAX: Duration = Duration::from_secs(600);
/// Connections of an attack at most.
const CONNECTIONS_MAX: usize = 10_000;
/// Memory may grow by less than so many bytes.
const GROWTH_BYTES_MAX: u64 = 64 << 20;
/// A well-behaved client's p99 stays under so many times its quiet value.
const SLOWDOWN_MAX: f64 = 3.0;
/// A quiet p99 below this counts as this, in ms: noise of the scheduler is no attack.
const QUIET_P99_MS_MIN: f64 = 0.5;
/// How long the well-behaved client may wait for its first answer.
const FIRST_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an attack may take to begin: attackers give way to everybody else on their CPU.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const BEGIN_TICK: Duration = Duration::from_millis(1);
/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Pause before the next connection when one was refused or ended.
const REOPEN_PAUSE: Duration = Duration::from_millis(1);

/// What to attack, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The attacks, one after the other; `all` for all that fit the target, `list` prints them
    #[arg(long, value_delimiter = ',', required = true, value_name = "KIND")]
    pub kind: Vec<String>,
    /// http(s)://ADDRESS:PORT[/PATH] on this machine; the path is what requests ask for, else /100?delay=1s
    #[arg(long, value_name = "URL")]
    pub target: Option<Target>,
    /// How long each lasts, from when it has begun
    #[arg(long, short = 'd', default_value = "30s", value_parser = amount::duration)]
    pub duration: Duration,
    /// How long the well-behaved client is alone before each
    #[arg(long, default_value = "5s", value_parser = amount::duration)]
    pub quiet: Duration,
    /// Pause between two attacks: what is left of one must not make the next one's quiet phase loud
    #[arg(long, default_value = "5s", value_parser = amount::duration)]
    pub rest: Duration,
    /// The attacked process, for its memory
    #[arg(long)]
    pub pid: Option<u32>,
    /// The `speedmimi-bench origin` behind it, for the requests in flight
    #[arg(long, value_name = "URL")]
    pub origin: Option<Target>,
    /// Streams that the target allows one connection: a tenth more may be in flight
    #[arg(long, default_value_t = 100)]
    pub streams: u64,
    /// Connections of the attacker; 0: as many as the attack takes, 1 for those on HTTP/2
    #[arg(long, default_value_t = 0)]
    pub connections: usize,
    /// Run on this CPU alone
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Print every outcome as JSON instead of a line
    #[arg(long)]
    pub json: bool,
    /// What the well-behaved client speaks; the attacks on HTTP/2 always speak that.
    #[command(flatten)]
    pub speech: Speech,
}

/// What one attack did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which.
    pub kind: String,
    /// Bytes by which the process grew at most, when it was known.
    pub growth_bytes: Option<u64>,
    /// The well-behaved client's p99 before it, in ms.
    pub quiet_p99_ms: f64,
    /// Its p99 during it, in ms.
    pub attack_p99_ms: f64,
    /// Good answers of the well-behaved client during it.
    pub answered: u64,
    /// Requests of the well-behaved client that failed during it.
    pub failed: u64,
    /// The most requests in flight at the origin at once, those of the well-behaved client included, when it was asked.
    pub in_flight_max: Option<u64>,
    /// The most that the origin would have worked on if it did not notice that nobody waits any more.
    pub working_max: Option<u64>,
    /// As many in flight may be.
    pub in_flight_allowed: u64,
    /// Units of the attack: requests, frames, handshakes, bytes of them.
    pub units: u64,
    /// Connections that the attacker opened.
    pub connections: u64,
    /// Streams that the target reset.
    pub resets: u64,
    /// Connections that the target ended with GOAWAY.
    pub goaways: u64,
}

impl Outcome {
    /// The p99 during it over the quiet one.
    pub fn slowdown(&self) -> f64 {
        self.attack_p99_ms / self.quiet_p99_ms.max(QUIET_P99_MS_MIN)
    }

    /// Which goals do not hold, in words.
    pub fn missed(&self) -> Vec<&'static str> {
        let goals = [
            (self.growth_bytes.is_some_and(|bytes| bytes >= GROWTH_BYTES_MAX), "memory"),
            (self.slowdown() >= SLOWDOWN_MAX || self.answered == 0, "p99"),
            (self.failed > 0, "failed requests"),
            (self.in_flight_max.is_some_and(|n| n > self.in_flight_allowed), "in flight"),
            (self.units == 0, "nothing was attacked"),
        ];
        goals.into_iter().filter_map(|(missed, name)| missed.then_some(name)).collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:15} memory ", self.kind)?;
        match self.growth_bytes {
            Some(bytes) => write!(f, "+{:.1} MiB", bytes as f64 / f64::from(1 << 20))?,
            None => f.write_str("?")?,
        }
        let (quiet, attack) = (self.quiet_p99_ms, self.attack_p99_ms);
        write!(f, ", p99 {attack:.2} ms to {quiet:.2} ({:.2}), {} failed, in flight ", self.slowdown(), self.failed)?;
        match self.in_flight_max {
            Some(max) => write!(f, "{max} of {}", self.in_flight_allowed)?,
            None => f.write_str("?")?,
        }
        if let Some(working) = self.working_max {
            write!(f, " (work {working})")?;
        }
        write!(f, "; {} units on {} connections, ", self.units, self.connections)?;
        write!(f, "{} resets and {} GOAWAY came back: ", self.resets, self.goaways)?;
        match &self.missed()[..] {
            [] => f.write_str("the goals hold"),
            missed => write!(f, "MISSED: {}", missed.join(", ")),
        }
    }
}

/// Attacks and prints a line each.
///
/// # Errors
/// When the options make no sense, the target does not answer before the attack, or a goal does not hold.
pub fn run(options: &Options) -> Result<()> {
    let mut out = std::io::stdout();
    if options.kind.iter().any(|name| name == "list") {
        let list: String = Kind::ALL.iter().map(|kind| format!("{:15} {}\n", kind.name(), kind.purpose())).collect();
        return out.write_all(list.as_bytes()).trying(|| "writing the list".into());
    }
    let Some(target) = &options.target else { return Err(Error::Usage("--target is needed".into())) };
    let kinds = kinds(options, target)?;
    check(options)?;
    if let Some(cpu) = options.cpu {
        pin::stay_on(cpu)?;
    }
    let mut missed = Vec::new();
    for (at, kind) in kinds.into_iter().enumerate() {
        if at > 0 {
            thread::sleep(options.rest);
        }
        let outcome = attack(kind, target, options)?;
        if !outcome.missed().is_empty() {
            missed.push(kind.name());
        }
        let line = match options.json {
            true => serde_json::to_string(&outcome).map_err(std::io::Error::from).trying(|| "JSON".into())?,
            false => outcome.to_string(),
        };
        writeln!(out, "{line}").trying(|| "writing the outcome".into())?;
    }
    if missed.is_empty() { Ok(()) } else { Err(Error::Failed(format!("goals missed under {}", missed.join(", ")))) }
}

fn kinds(options: &Options, target: &Target) -> Result<Vec<Kind>> {
    if options.kind == ["all"] {
        return Ok(Kind::ALL.into_iter().filter(|kind| target.tls || !kind.is_of_tls()).collect());
    }
    let parse = |name: &String| {
        let kind = Kind::from_str(name, false)
            .map_err(|_| Error::Usage(format!("--kind {name}: not known; --kind list tells which there are")))?;
        match kind.is_of_tls() && !target.tls {
            true => Err(Error::Usage(format!("--kind {name}: needs an https target"))),
            false => Ok(kind),
        }
    };
    options.kind.iter().map(parse).collect()
}

fn check(options: &Options) -> Result<()> {
    if options.duration.is_zero() || options.duration > DURATION_MAX || options.quiet.is_zero() {
        return Err(Error::Usage("--duration has to be 1ms..=10m, --quiet above 0".into()));
    }
    if options.connections > CONNECTIONS_MAX {
        return Err(Error::Usage(format!("--connections {}: above {CONNECTIONS_MAX}", options.connections)));
    }
    if options.origin.as_ref().is_some_and(|origin| origin.tls) {
        return Err(Error::Usage("--origin is asked in the clear".into()));
    }
    Ok(())
}

/// What all attackers of one attack share.
#[derive(Default)]
pub struct Attacking {
    stop: AtomicBool,
    units: AtomicU64,
    connections: AtomicU64,
    resets: AtomicU64,
    goaways: AtomicU64,
}

impl Attacking {
    /// Whether it is not over yet.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    /// Counts units of the attack.
    pub fn did(&self, units: u64) {
        self.units.fetch_add(units, Relaxed);
    }

    /// Counts a connection.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }
}

fn attack(kind: Kind, target: &Target, options: &Options) -> Result<Outcome> {
    let order = Arc::new(steady::Order::default());
    let steady = {
        let (target, speech, order) = (target.clone(), options.speech.clone(), Arc::clone(&order));
        thread::spawn(move || steady::run(&target, &speech, &order))
    };
    let patience = Instant::now() + FIRST_ANSWER_TIME_MAX;
    while order.answered.load(Relaxed) == 0 && Instant::now() < patience && !steady.is_finished() {
        thread::sleep(SAMPLE_EVERY);
    }
    if order.answered.load(Relaxed) > 0 {
        thread::sleep(options.quiet);
    }
    let answers_before = order.answered.load(Relaxed);
    let measured = match answers_before {
        0 => Err(Error::Failed("the target does not answer a well-behaved client".into())),
        _ => under_attack(kind, target, options, &order),
    };
    let answered = order.answered.load(Relaxed) - answers_before;
    order.stop.store(true, Relaxed);
    let phases = steady.join().map_err(|_| Error::Failed("the well-behaved client panicked".into()))??;
    let (attacking, growth_bytes, counted) = measured?;
    Ok(Outcome {
        kind: kind.name().to_owned(),
        growth_bytes,
        quiet_p99_ms: phases[0].p99_ms(),
        attack_p99_ms: phases[1].p99_ms(),
        answered,
        failed: phases[1].failed,
        in_flight_max: counted.map(|stats| stats.in_flight_max),
        working_max: counted.map(|stats| stats.working_max),
        in_flight_allowed: in_flight_allowed(options),
        units: attacking.units.load(Relaxed),
        connections: attacking.connections.load(Relaxed),
        resets: attacking.resets.load(Relaxed),
        goaways: attacking.goaways.load(Relaxed),
    })
}

/// A tenth more than the target allows each of the attacker's connections, and the well-behaved client's own.
fn in_flight_allowed(options: &Options) -> u64 {
    (options.streams + options.streams / 10) * options.connections.max(1) as u64 + steady::SLOTS as u64
}

type Measured = (Arc<Attacking>, Option<u64>, Option<origin::Stats>);

/// The attack itself: its counts, the process's growth, what the origin counted.
fn under_attack(kind: Kind, target: &Target, options: &Options, order: &steady::Order) -> Result<Measured> {
    let memory = || options.pid.map(proc::usage).transpose().map(|usage| usage.map(|usage| usage.user_bytes));
    let counted = || options.origin.as_ref().map(|origin| origin::ask_stats_anew(origin.address)).transpose();
    let before = memory()?;
    counted()?;
    order.phase.store(1, Relaxed);
    let attacking = Arc::new(Attacking::default());
    let attackers = start(kind, target, options, &attacking)?;
    let patience = Instant::now() + BEGIN_TIME_MAX;
    while attacking.units.load(Relaxed) == 0 && Instant::now() < patience {
        thread::sleep(BEGIN_TICK);
    }
    let end = Instant::now() + options.duration;
    let mut most = before;
    let mut sampled = Ok(());
    while Instant::now() < end && sampled.is_ok() {
        thread::sleep(SAMPLE_EVERY.min(end.saturating_duration_since(Instant::now())));
        sampled = memory().map(|now| most = most.max(now));
    }
    attacking.stop.store(true, Relaxed);
    for attacker in attackers {
        attacker.join().map_err(|_| Error::Failed("an attacker panicked".into()))??;
    }
    sampled?;
    let growth = before.zip(most).map(|(before, most)| most - before);
    Ok((attacking, growth, counted()?))
}

fn start(
    kind: Kind,
    target: &Target,
    options: &Options,
    attacking: &Arc<Attacking>,
) -> Result<Vec<thread::JoinHandle<Result<()>>>> {
    let connections = if options.connections == 0 { kind.connections() } else { options.connections };
    let speech = Speech { http2: !kind.is_of_tls(), ..options.speech.clone() };
    let side = speech.client_side(target)?;
    // The attacks on TLS drive all their connections from one thread.
    let (threads, each) = if kind.is_of_tls() { (1, connections) } else { (connections, 1) };
    let spawn = |_| {
        let (target, side, attacking) = (target.clone(), side.clone(), Arc::clone(attacking));
        thread::spawn(move || {
            // They give way to the well-behaved client and the origin: else the scheduler of their CPU is what is measured.
            // Without that, these wait a little longer.
            let _ = sys::become_idle_priority();
            match (kind, side) {
                (Kind::SlowHandshake, _) => shake::drip(&target, each, &attacking),
                (Kind::HandshakeFlood, Some(side)) => shake::flood(&target, side, each, &attacking),
                (_, side) => over_and_over(kind, &target, side.as_ref(), &attacking),
            }
        })
    };
    Ok((0..threads).map(spawn).collect())
}

/// One connection after the other, as soon as the target ends one.
fn over_and_over(kind: Kind, target: &Target, side: Option<&ClientSide>, attacking: &Attacking) -> Result<()> {
    while attacking.goes_on() {
        if let Some(raw) = Raw::open(target, side, kind.is_deaf())? {
            attacking.connected();
            let mut flood = Flood::new(kind, raw, target);
            let mut alive = true;
            while alive && attacking.goes_on() && !flood.is_spent() {
                let before = flood.units;
                let rest = flood.step();
                attacking.did(flood.units - before);
                alive = flood.raw.turn(rest)?;
            }
            attacking.resets.fetch_add(flood.seen().resets, Relaxed);
            attacking.goaways.fetch_add(flood.seen().goaway.into(), Relaxed);
        }
        thread::sleep(REOPEN_PAUSE);
    }
    Ok(())
}
