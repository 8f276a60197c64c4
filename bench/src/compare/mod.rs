//! `speedmimi-bench compare`: SpeedMimi, nginx, HAProxy and a bare relay side by side on this machine.
//!
//! Owns the method: each program alone on one CPU, load and origin on another, both CPUs kept awake, rounds of the
//! programs interleaved, CPU time over completed requests, ratios of the same round. Never installs, and ends only what
//! it started.

mod measure;
pub(crate) mod program;
mod table;
mod template;

pub use measure::Measure;
pub use program::Program;

use crate::amount;
use crate::cert::Pair;
use crate::children::{self, Ended};
use crate::dir::Dir;
use crate::error::{Error, Result, Trying};
use crate::net::descriptors_max;
use crate::{idle, load, origin, pin};
use program::{DESCRIPTORS_RESERVE, Found, Running, Site};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// Bodies from which on the variants for large bodies are measured, too.
const LARGE_BODY_BYTES_MIN: usize = 16 * 1024;

/// What to compare, and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Only these programs
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Program>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "http")]
    pub measure: Vec<Measure>,
    /// All measures of TLS and HTTP/2: https,handshakes,resumptions,http2,grpc
    #[arg(long, conflicts_with = "measure")]
    pub tls: bool,
    /// Connections at once; else 64,1000,5000 for http and 64 for the others
    #[arg(long, short = 'c', value_delimiter = ',', value_parser = amount::count)]
    pub connections: Vec<u64>,
    /// Sizes of bodies; else 100,64KiB, and 100 for handshakes, resumptions and grpc
    #[arg(long, value_delimiter = ',', value_parser = amount::size)]
    pub bodies: Vec<usize>,
    /// Streams of each connection of HTTP/2
    #[arg(long, default_value_t = 16)]
    pub streams: usize,
    /// Rounds; each measures every program once
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long one measurement takes, after its warm-up
    #[arg(long, default_value = "3", value_parser = amount::duration)]
    pub seconds: Duration,
    /// How long each is warmed up
    #[arg(long, default_value = "1s", value_parser = amount::duration)]
    pub warmup: Duration,
    /// Idle connections whose memory is measured; 0: none. Less where a program's descriptors don't suffice
    #[arg(long, default_value = "15k", value_parser = amount::count)]
    pub idle: u64,
    /// How long connections are idle before their memory is measured
    #[arg(long, default_value = "10s", value_parser = amount::duration)]
    pub settle: Duration,
    /// Idle backend connections that each proxy may keep
    #[arg(long, default_value_t = 1024)]
    pub pool: usize,
    /// The SpeedMimi to measure; else the one beside this program
    #[arg(long, value_name = "PATH")]
    pub speedmimi: Option<PathBuf>,
    /// Leave out what is missing instead of failing
    #[arg(long)]
    pub allow_missing: bool,
    /// Two CPUs: for the compared program, and for load and origin; else the first two of this process
    #[arg(long, value_delimiter = ',', num_args = 2)]
    pub cpus: Option<Vec<usize>>,
    /// Write every measurement to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl Options {
    fn measures(&self) -> &[Measure] {
        if self.tls { &Measure::TLS } else { &self.measure }
    }
}

/// What is measured at once, with every program.
#[derive(Clone, Copy, PartialEq)]
struct Scenario {
    measure: Measure,
    connections: u64,
    body: usize,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Machine, kernel, programs, command.
    pub facts: Vec<String>,
    /// One per program, scenario and round.
    pub rounds: Vec<Round>,
    /// One per program.
    pub idle: Vec<Idle>,
}

/// One measurement of one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Round {
    /// What was asked.
    #[serde(default)]
    pub measure: Measure,
    /// Connections at once.
    pub connections: u64,
    /// Bytes of each body.
    pub body: usize,
    /// From 0.
    pub round: usize,
    /// Of which program.
    pub program: Program,
    /// What the load generator saw.
    pub load: load::Report,
    /// Requests that the origin found faulty.
    pub violations: u64,
}

/// Which connections are idle, and what they did before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdleKind {
    /// HTTP, after all had a request under way at once.
    BusyAtOnce,
    /// HTTP, each after a request that was answered at once: few were busy at any time.
    OneByOne,
    /// WebSocket, after the upgrade and one frame.
    WebSocket,
    /// HTTP/1.1 over TLS, after one request.
    Https,
    /// HTTP/2 over TLS, after one request.
    Http2,
}

impl IdleKind {
    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            IdleKind::BusyAtOnce => "HTTP, all busy at once before",
            IdleKind::OneByOne => "HTTP, busy one by one before",
            IdleKind::WebSocket => "WebSocket",
            IdleKind::Https => "HTTPS",
            IdleKind::Http2 => "HTTP/2 over TLS",
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            IdleKind::BusyAtOnce => &["--busy=5s"],
            IdleKind::OneByOne => &["--busy=0s"],
            IdleKind::WebSocket => &["--websocket"],
            IdleKind::Https => &["--busy=0s", "--insecure"],
            IdleKind::Http2 => &["--busy=0s", "--insecure", "--http2"],
        }
    }
}

/// The memory of one program's idle connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Idle {
    /// What was measured.
    pub program: Program,
    /// Which connections, and how they came to be idle.
    pub kind: IdleKind,
    /// What was seen.
    pub report: idle::Report,
}

/// Measures and prints the table on standard output, progress on standard error.
///
/// # Errors
/// When the options make no sense, a program is missing or does not start, or a measurement can't be made.
pub fn run(options: &Options) -> Result<()> {
    let bench = Bench::new(options)?;
    let mut results = Results { facts: bench.facts(), ..Results::default() };
    let measured = bench.measure(&mut results);
    // What was measured before a failure is not lost.
    if let Some(file) = &options.json {
        let json = serde_json::to_vec_pretty(&results).map_err(std::io::Error::from).trying(|| "JSON".into())?;
        fs::write(file, json).trying(|| format!("writing {}", file.display()))?;
    }
    std::io::stdout().write_all(table::markdown(&results).as_bytes()).trying(|| "writing the table".into())?;
    measured
}

/// Measures and prints nothing but progress, on standard error.
///
/// # Errors
/// Those of [`run`].
pub fn measure(options: &Options) -> Result<Results> {
    let bench = Bench::new(options)?;
    let mut results = Results { facts: bench.facts(), ..Results::default() };
    bench.measure(&mut results)?;
    Ok(results)
}

/// Everything that is the same for all measurements.
struct Bench<'a> {
    options: &'a Options,
    programs: Vec<Found>,
    proxy_cpu: usize,
    load_cpu: usize,
    descriptors: usize,
    dir: Dir,
    _spinners: Vec<Ended>,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> Result<Bench<'a>> {
        check(options)?;
        let programs = find_all(options)?;
        let (proxy_cpu, load_cpu) = cpus(options)?;
        let dir = Dir::new()?;
        Pair::generate()?.write(dir.path())?;
        let spinners = [proxy_cpu, load_cpu].into_iter().map(|cpu| spinner(cpu, &dir)).collect::<Result<_>>()?;
        let descriptors = descriptors_max();
        Ok(Bench { options, programs, proxy_cpu, load_cpu, descriptors, dir, _spinners: spinners })
    }

    fn facts(&self) -> Vec<String> {
        let system = rustix::system::uname();
        let mut facts = vec![
            format!(
                "{}; {} CPUs of this process; {} {}; {}",
                crate::proc::cpu_model(),
                pin::allowed_cpus().map_or(0, |cpus| cpus.len()),
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy(),
                system.machine().to_string_lossy()
            ),
            format!(
                "{} descriptors a table; congestion control {}; pools of {}",
                self.descriptors,
                crate::proc::congestion_control(),
                self.options.pool
            ),
        ];
        facts.extend(self.programs.iter().map(|found| format!("{}: {}", found.program.name(), found.version)));
        facts.push(format!("`{}`", std::env::args().collect::<Vec<_>>().join(" ")));
        facts
    }

    /// All scenarios, then memory.
    fn measure(&self, results: &mut Results) -> Result<()> {
        for scenario in self.scenarios() {
            self.scenario(scenario, results)?;
        }
        if self.options.idle == 0 {
            return Ok(());
        }
        let apt = |found: &&Found| found.program.is_proxy() && !found.program.is_for_large_bodies();
        for &measure in self.options.measures() {
            for &kind in measure.idle_kinds() {
                for found in self.programs.iter().filter(apt) {
                    self.idle(found, measure, kind, results)?;
                }
            }
        }
        Ok(())
    }

    fn scenarios(&self) -> Vec<Scenario> {
        let mut all = Vec::new();
        for &measure in self.options.measures() {
            let given = (&self.options.bodies[..], &self.options.connections[..]);
            let bodies = if given.0.is_empty() { measure.bodies() } else { given.0 };
            let connections = if given.1.is_empty() { measure.connections() } else { given.1 };
            let each = |&body| connections.iter().map(move |&connections| Scenario { measure, connections, body });
            all.extend(bodies.iter().flat_map(each));
        }
        all
    }

    /// Measures every program in every round of one scenario.
    fn scenario(&self, scenario: Scenario, results: &mut Results) -> Result<()> {
        let Scenario { measure, connections, body } = scenario;
        let apt = |found: &&Found| match measure {
            Measure::Http => body >= LARGE_BODY_BYTES_MIN || !found.program.is_for_large_bodies(),
            _ => found.program.is_proxy() && !found.program.is_for_large_bodies(),
        };
        let (programs, left_out): (Vec<_>, Vec<_>) =
            self.programs.iter().filter(apt).partition(|found| self.fitting(found.program, connections) == connections);
        for found in left_out {
            let name = found.program.name();
            eprintln!("{name} is left out: {connections} connections need more than {} descriptors", self.descriptors);
        }
        let strict = self.origin(true)?;
        let lax = self.origin(false)?;
        let mut running = Vec::new();
        for found in programs {
            let origin = if found.program.is_proxy() { &strict } else { &lax };
            running.extend(self.start_able(found, origin, measure, results)?.map(|it| (found.program, it)));
        }
        for round in 0..self.options.rounds {
            for turn in 0..running.len() {
                // Nobody always follows the same one.
                let (program, it) = &running[(turn + round) % running.len()];
                let before = strict.stats()?.violations();
                let load = self.load(it, scenario)?;
                let violations = strict.stats()?.violations() - before;
                let round = Round { measure, connections, body, round, program: *program, load, violations };
                progress(&round);
                results.rounds.push(round);
            }
        }
        Ok(())
    }

    /// Starts a program. One that can't do what is measured, beyond plain HTTP, is told of and left out.
    fn start_able(
        &self,
        found: &Found,
        origin: &RunningOrigin,
        measure: Measure,
        results: &mut Results,
    ) -> Result<Option<Running>> {
        let started = self.start(found, origin, measure);
        if measure == Measure::Http {
            return started.map(Some);
        }
        let name = found.program.name();
        let why = match started.and_then(|running| Ok((self.probe(&running, measure)?, running))) {
            Ok((load, running)) if load.total.ok == 1 => return Ok(Some(running)),
            Ok((load, _)) => match load.handshake_failure {
                Some(why) => format!("its TLS handshake failed: {why}"),
                None => format!("its answer is not the expected one: {:?}", load.total),
            },
            Err(error) => error.to_string(),
        };
        eprintln!("{measure}: {name} is left out: {why}");
        let first = why.lines().take(2).collect::<Vec<_>>().join(" ");
        let fact = format!("{measure}: {name} is left out: {first}");
        if !results.facts.contains(&fact) {
            results.facts.push(fact);
        }
        Ok(None)
    }

    /// Whether a program answers at all.
    fn probe(&self, running: &Running, measure: Measure) -> Result<load::Report> {
        let mut command = vec!["load".to_owned(), format!("--target={}", measure.url(running.address.port()))];
        command.extend(measure.arguments(1));
        command.extend(["--requests=1", "--connections=1", "--timeout=3s"].map(str::to_owned));
        self.own(command)
    }

    /// As many of so many connections as a program's descriptors suffice for: two each, all busy at once.
    fn fitting(&self, program: Program, connections: u64) -> u64 {
        if program.has_private_tables() {
            return connections;
        }
        connections.min((self.descriptors.saturating_sub(DESCRIPTORS_RESERVE) / 2) as u64)
    }

    fn idle(&self, found: &Found, measure: Measure, kind: IdleKind, results: &mut Results) -> Result<()> {
        let strict = self.origin(true)?;
        let Some(running) = self.start_able(found, &strict, measure, results)? else { return Ok(()) };
        let connections = self.fitting(found.program, self.options.idle);
        let mut command = vec![
            "idle".to_owned(),
            format!("--target={}", measure.url(running.address.port())),
            format!("--pid={}", running.pid),
            format!("--connections={connections}"),
            format!("--settle={}ms", self.options.settle.as_millis()),
        ];
        command.extend(kind.options().iter().map(|&option| option.to_owned()));
        let report: idle::Report = self.own(command)?;
        let name = found.program.name();
        eprintln!("{name}, idle {}: {:.0} bytes each", kind.name(), report.user_bytes_each);
        results.idle.push(Idle { program: found.program, kind, report });
        Ok(())
    }

    fn start(&self, found: &Found, origin: &RunningOrigin, measure: Measure) -> Result<Running> {
        let dir = self.dir.file(&format!("{:?}", found.program));
        let site = Site {
            cpu: self.proxy_cpu,
            front: measure.front(),
            backend: measure.backend(),
            certs: self.dir.path(),
            origin: origin.address,
            dir: &dir,
            pool: self.options.pool,
            descriptors: self.descriptors,
        };
        program::start(found, &site)
    }

    fn load(&self, running: &Running, scenario: Scenario) -> Result<load::Report> {
        let Scenario { measure, connections, body } = scenario;
        let mut command = vec![
            "load".to_owned(),
            format!("--target={}", measure.url(running.address.port())),
            format!("--pid={}", running.pid),
            format!("--connections={connections}"),
            format!("--body={body}"),
            format!("--duration={}ms", self.options.seconds.as_millis()),
            format!("--warmup={}ms", self.options.warmup.as_millis()),
        ];
        command.extend(measure.arguments(self.options.streams));
        self.own(command)
    }

    /// Runs a command of this program on the load's CPU and reads its report.
    fn own<T: for<'de> Deserialize<'de>>(&self, command: Vec<String>) -> Result<T> {
        let own = std::env::current_exe().trying(|| "finding this program".into())?.display().to_string();
        let what = command.join(" ");
        let mut pinned = children::pinned(self.load_cpu, [own].into_iter().chain(command))?;
        let output = pinned.stdin(Stdio::null()).stderr(Stdio::inherit()).output().trying(|| what.clone())?;
        if !output.status.success() {
            return Err(Error::Failed(format!("`{what}` failed")));
        }
        serde_json::from_slice(&output.stdout).map_err(std::io::Error::from).trying(|| what)
    }

    fn origin(&self, expect_forwarded: bool) -> Result<RunningOrigin> {
        let address = children::free_address()?;
        let own = std::env::current_exe().trying(|| "finding this program".into())?.display().to_string();
        let mut command = vec![own, "origin".to_owned(), format!("--listen={address}"), "--http2".to_owned()];
        command.extend(expect_forwarded.then(|| "--expect-forwarded".to_owned()));
        let log = self.dir.file(if expect_forwarded { "origin" } else { "lax-origin" });
        let child = Ended(children::spawn_pinned(self.load_cpu, command, &log)?);
        let mut origin = RunningOrigin { address, child };
        children::wait_until_accepting(&mut origin.child, address, "the origin", &log)?;
        Ok(origin)
    }
}

/// An origin in a process of its own.
struct RunningOrigin {
    address: SocketAddr,
    child: Ended,
}

impl RunningOrigin {
    fn stats(&self) -> Result<origin::Stats> {
        origin::ask_stats(self.address)
    }
}

fn check(options: &Options) -> Result<()> {
    let limit = load::CONNECTIONS_MAX;
    if options.connections.iter().any(|c| !(1..=limit).contains(c)) || options.idle > limit {
        return Err(Error::Usage(format!("--connections and --idle: outside 1..={limit}")));
    }
    if !(1..=100).contains(&options.streams) {
        return Err(Error::Usage(format!("--streams {}: outside 1..=100, what the programs allow", options.streams)));
    }
    if options.rounds == 0 || options.seconds.is_zero() {
        return Err(Error::Usage("--rounds and --seconds have to be above 0".into()));
    }
    Ok(())
}

fn find_all(options: &Options) -> Result<Vec<Found>> {
    let wanted = Program::ALL.into_iter().filter(|p| options.only.is_empty() || options.only.contains(p));
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for program in wanted {
        match program::find(program, options.speedmimi.as_deref()) {
            Ok(it) => found.push(it),
            Err(error) => missing.push(error.to_string()),
        }
    }
    for text in &missing {
        eprintln!("{text}");
    }
    if found.is_empty() || !missing.is_empty() && !options.allow_missing {
        return Err(Error::Failed("not all programs are there; --allow-missing goes on without".into()));
    }
    Ok(found)
}

fn cpus(options: &Options) -> Result<(usize, usize)> {
    let chosen = match &options.cpus {
        Some(cpus) => cpus.clone(),
        None => pin::allowed_cpus()?,
    };
    match chosen[..] {
        [proxy, load, ..] if proxy != load => Ok((proxy, load)),
        _ => Err(Error::Usage("comparing needs two CPUs: one for the program, one for load and origin".into())),
    }
}

fn spinner(cpu: usize, dir: &Dir) -> Result<Ended> {
    let own = std::env::current_exe().trying(|| "finding this program".into())?;
    let mut command = std::process::Command::new(own);
    command.args(["spin", "--cpu", &cpu.to_string(), "--parent", &std::process::id().to_string()]);
    let log = fs::File::create(dir.file(&format!("spinner-{cpu}"))).trying(|| "making a log".into())?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(Ended(command.spawn().trying(|| "starting a spinner".into())?))
}

fn progress(round: &Round) {
    let Round { measure, connections, body, round, program, load, violations } = round;
    let process = load.process.as_ref();
    eprintln!(
        "{measure}, {connections} connections, {body} B, round {}: {:18} {:6.2} µs/request, {:6.0} requests/s, utilisation {:.2}{}{}",
        round + 1,
        program.name(),
        process.map_or(f64::NAN, |p| p.cpu_us_per_request),
        load.rps,
        process.map_or(f64::NAN, |p| p.utilisation),
        if load.total.failed > 0 { format!(", {} failed", load.total.failed) } else { String::new() },
        if *violations > 0 { format!(", {violations} violations") } else { String::new() },
    );
}
