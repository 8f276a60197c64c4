//! The staged test, `speedmimi-bench --target URL`: more and more connections, each stage measured, graded and reported.
//!
//! Owns the order of stages, when the test ends, and what goes into the report. Never measures: that is [`crate::load`].

mod needs;
mod progress;
mod together;

use crate::amount;
use crate::error::{Error, Result, Trying};
use crate::interrupt;
use crate::load::{self, Watch};
use crate::machine::{self, Machine};
use crate::pin;
use crate::proc;
use crate::report::file::{self, Place};
use crate::report::versus::Versus;
use crate::report::{End, FORMAT, Form, Lang, Process, Report, SUCCESS_PERCENT_MIN, Stage, markdown};
use crate::target::{Target, Url};
use crate::traffic::Traffic;
use progress::Progress;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use together::Together;

/// The stages of the forerunner's report, and those that it did not reach.
const STAGES: [u64; 6] = [1_000, 5_000, 10_000, 25_000, 50_000, 100_000];
/// Stages of one test at most.
const STAGE_COUNT_MAX: usize = 100;
/// How long the target may take to accept a first connection, which shows that there is one.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a request may take, unless the user says otherwise: with so many connections a queue is long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What to test, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// http(s)://ADDRESS:PORT[/PATH] on this machine; without a path, the body's size is it
    #[arg(long, value_name = "URL")]
    pub target: Option<Url>,
    /// Connections at once, in one stage
    #[arg(long, short = 'c', value_parser = amount::count, value_name = "N")]
    pub concurrency: Option<u64>,
    /// Stages, as connections at once [default: 1k,5k,10k,25k,50k,100k]
    #[arg(long, value_parser = amount::count, value_delimiter = ',', value_name = "LIST", conflicts_with = "concurrency")]
    pub stages: Vec<u64>,
    /// How long to measure each stage, after all connections were answered once and the warm-up
    #[arg(long, short = 'd', default_value = "10s", value_parser = amount::duration)]
    pub duration: Duration,
    /// Threads [default: as many as CPUs]; more are used when one descriptor table can't hold the connections
    #[arg(long, short = 't')]
    pub threads: Option<usize>,
    /// A file to write the report to, as .md, .html or .json; may be given several times
    #[arg(long, value_name = "FILE")]
    pub report: Vec<Place>,
    /// The language of the report
    #[arg(long, value_enum, default_value_t = Lang::En)]
    pub lang: Lang,
    /// Compare two reports in JSON instead of measuring
    #[arg(long, num_args = 2, value_names = ["A.json", "B.json"], conflicts_with_all = ["target", "all_in_one"])]
    pub compare: Option<Vec<PathBuf>>,
    /// Start backends and SpeedMimi on free ports, test that, and stop them
    #[arg(long, conflicts_with = "target")]
    pub all_in_one: bool,
    /// The proxy that --all-in-one starts [default: `speedmimi` beside this program]
    #[arg(long, value_name = "PROGRAM", requires = "all_in_one")]
    pub speedmimi: Option<PathBuf>,
    /// What is asked.
    #[command(flatten)]
    pub traffic: Traffic,
}

impl Options {
    /// Whether there is anything to do.
    pub fn is_empty(&self) -> bool {
        self.target.is_none() && self.compare.is_none() && !self.all_in_one
    }

    fn stages(&self) -> Result<Vec<u64>> {
        let stages = match (self.concurrency, &self.stages[..]) {
            (Some(one), _) => vec![one],
            (None, []) => STAGES.to_vec(),
            (None, given) => given.to_vec(),
        };
        if stages.len() > STAGE_COUNT_MAX {
            return Err(Error::Usage(format!("--stages: more than {STAGE_COUNT_MAX} of them")));
        }
        if let Some(wrong) = stages.iter().find(|stage| !(1..=load::CONNECTIONS_MAX).contains(*stage)) {
            return Err(Error::Usage(format!("{wrong} connections: outside 1..={}", load::CONNECTIONS_MAX)));
        }
        Ok(stages)
    }

    fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| pin::allowed_cpus().map_or(1, |cpus| cpus.len().max(1)))
    }

    /// A stage as a load of its own.
    fn load(&self, target: &Url, connections: u64, pid: Option<u32>) -> load::Options {
        let threads = self.threads();
        let timeout = Some(self.traffic.timeout.unwrap_or(TIMEOUT));
        let traffic = Traffic { pid, timeout, ..self.traffic.clone() };
        load::Options { target: target.clone(), connections, duration: self.duration, requests: None, threads, traffic }
    }
}

/// Tests and writes the reports, or compares two of them; gives the table, and what ended the test before its last stage,
/// if something did.
///
/// # Errors
/// When the options make no sense, the target may not be loaded, or a report can't be written. A bad grade is no error.
pub fn run(options: &Options, command: Vec<String>) -> Result<(String, Option<Error>)> {
    if let Some(files) = &options.compare {
        return Ok((compare(options, files)?, None));
    }
    let stop = interrupt::flag()?;
    let command = typed(command);
    let holding = options.traffic.websocket || options.traffic.events;
    let together = options
        .all_in_one
        .then(|| Together::start(options.speedmimi.as_deref(), &options.stages()?, holding))
        .transpose()?;
    let url = match (&together, &options.target) {
        (Some(together), _) => together.url()?,
        (None, Some(target)) => target.clone(),
        (None, None) => return Err(Error::Usage("--target URL or --all-in-one is needed".into())),
    };
    let (report, failed) = measure(options, &url, together.as_ref(), command, &stop)?;
    drop(together);
    for place in &options.report {
        place.put(&report, options.lang)?;
    }
    let mut text = markdown::summary(&report, options.lang);
    if let Some(end) = options.lang.end(report.end) {
        text.push_str(&format!("\n{end}\n"));
    }
    Ok((text, failed))
}

/// What was typed, with this program by its name: where it lies is of no use to others.
fn typed(mut command: Vec<String>) -> Vec<String> {
    if let Some(program) = command.first_mut() {
        *program = env!("CARGO_PKG_NAME").to_owned();
    }
    command
}

fn compare(options: &Options, files: &[PathBuf]) -> Result<String> {
    let [a, b] = files else { return Err(Error::Usage("--compare takes two reports".into())) };
    let versus = Versus::new(&file::read(a)?, &file::read(b)?);
    for place in &options.report {
        place.write(&match place.form {
            Form::Markdown => versus.markdown(options.lang),
            Form::Html => versus.html(options.lang),
            Form::Json => file::json(&versus)?,
        })?;
    }
    Ok(versus.markdown(options.lang))
}

fn measure(
    options: &Options,
    url: &Url,
    together: Option<&Together>,
    command: Vec<String>,
    stop: &AtomicBool,
) -> Result<(Report, Option<Error>)> {
    let target = url.target(options.traffic.i_own_this_target)?;
    let stages = options.stages()?;
    for connections in &stages {
        options.load(url, *connections, None).check()?;
    }
    // Better now than after an hour.
    options.report.iter().try_for_each(Place::try_out)?;
    TcpStream::connect_timeout(&target.address, CONNECT_TIME_MAX)
        .trying(|| format!("connecting to {}", target.address))?;
    let pid =
        options.traffic.pid.or_else(|| together.map(Together::pid)).or_else(|| proc::listening_on(target.address));
    let progress = Progress::new();
    let most = stages.iter().copied().max().unwrap_or(1);
    let mut notes = needs::notes(&target, &options.load(url, most, None));
    if pid.is_none() {
        notes.push("the process that listens was not found: its CPU time and memory are not measured (--pid)".into());
    }
    notes.extend(together.map(Together::note));
    notes.iter().for_each(|note| progress.say(note));
    let (began, begin) = (machine::now(), Instant::now());
    let mut report = Report {
        format: FORMAT,
        tool: format!("speedmimi-bench {}", env!("CARGO_PKG_VERSION")),
        began,
        seconds: 0.0,
        command,
        target: url.to_string(),
        process: pid.map(|pid| process(pid, together)),
        load: describe(options, &target),
        machine: Machine::now(),
        stages: Vec::new(),
        end: End::Whole,
        notes,
    };
    let mut failed = None;
    for (at, connections) in stages.iter().enumerate() {
        if at > 0 {
            needs::wait_for_ports(&target, *connections, &options.traffic, stop);
        }
        if stop.load(Relaxed) {
            report.end = End::Interrupted;
            break;
        }
        let load = options.load(url, *connections, pid);
        let stage = match one(&load, &progress, options.lang, stop) {
            Ok(stage) => stage,
            Err(error) if at == 0 => return Err(error),
            // What was measured before is not lost.
            Err(error) => {
                report.notes.push(format!("{connections} connections could not be measured: {error}"));
                (report.end, failed) = (End::Failed, Some(error));
                break;
            }
        };
        let (partial, too_few) = (stage.partial, stage.success_percent < SUCCESS_PERCENT_MIN);
        report.stages.push(stage);
        report.end = match (partial, too_few) {
            (true, _) => End::Interrupted,
            (false, true) => End::TooManyFailed,
            (false, false) => End::Whole,
        };
        if report.end != End::Whole {
            break;
        }
    }
    report.seconds = begin.elapsed().as_secs_f64();
    Ok((report, failed))
}

/// One stage.
fn one(load: &load::Options, progress: &Progress, lang: Lang, stop: &AtomicBool) -> Result<Stage> {
    let bar = progress.stage(load.connections);
    let measured = load::measure(load, &mut Watch { stop, glimpse: &mut |glimpse| bar.show(glimpse) });
    bar.end();
    let stage = Stage::new(&measured?);
    progress.result(&stage, lang);
    Ok(stage)
}

fn process(pid: u32, together: Option<&Together>) -> Process {
    Process { pid, name: proc::name(pid), version: together.map(|together| together.version.clone()) }
}

/// How it is loaded, in words.
fn describe(options: &Options, target: &Target) -> String {
    let traffic = &options.traffic;
    let mut parts = vec![match (traffic.rate, traffic.events) {
        (Some(rate), _) => format!("open loop, {rate} a second, {:?} arrivals", traffic.arrivals).to_lowercase(),
        (None, true) => "event streams".to_owned(),
        (None, false) => "closed loop".to_owned(),
    }];
    parts.push(match (traffic.speech.http2, traffic.websocket) {
        (true, _) => format!("HTTP/2, {} streams a connection", traffic.streams),
        (false, true) => format!("WebSocket, frames of {} bytes", traffic.body),
        (false, false) => "HTTP/1.1".to_owned(),
    });
    if target.tls {
        parts.push("TLS".to_owned());
    }
    if traffic.grpc {
        parts.push(format!("gRPC, messages of {} bytes", traffic.body));
    } else if !traffic.websocket && !traffic.events {
        parts.push(format!(
            "{} {}",
            traffic.method,
            target.path.clone().unwrap_or_else(|| format!("/{}", traffic.body))
        ));
    }
    if let Some(file) = &traffic.body_file {
        parts.push(format!("each with {}", file.display()));
    } else if let Some(bytes) = traffic.send {
        parts.push(format!("each with {bytes} bytes"));
    }
    if traffic.new_connections {
        parts.push("a connection a request".to_owned());
    }
    parts.push(format!("{} threads", options.threads()));
    parts.push(format!("{:?} a stage", options.duration));
    parts.join(", ")
}
