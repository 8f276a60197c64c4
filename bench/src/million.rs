//! `speedmimi-bench million`: one SpeedMimi process that holds a million connections and answers over them, all of it set
//! up, run, measured and cleaned up by one command.
//!
//! Owns the namespace, the programs and the two runs (a thousand connections, then all). Never judges more than the
//! report's table says: what was asked for, and what came of it.

mod report;

use crate::amount;
use crate::children::{self, free_address, version};
use crate::dir::Dir;
use crate::error::{Error, Result, Trying};
use crate::hold;
use crate::interrupt;
use crate::kernel::{self, Kernel};
use crate::load;
use crate::machine;
use crate::net::descriptors_max;
use crate::network::{self, Namespace, Setting};
use crate::proc;
use crate::report::markdown;
use crate::target::Target;
use serde::{Deserialize, Serialize};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Client connections that a worker of SpeedMimi takes, of the descriptors of its table: the rest is its reserve.
const CLIENTS_SHARE: f64 = 0.75;
/// How much more than the mean one worker may have: the kernel spreads connections unevenly.
const SPREAD: f64 = 1.06;
/// Bytes of one connection with both of its ends on one machine, to tell beforehand whether it fits.
const BYTES_EACH: u64 = 11_000;

/// How many, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Connections at once
    #[arg(long, short = 'c', default_value = "1m", value_parser = amount::count)]
    pub connections: u64,
    /// Connections of the run that it is compared with
    #[arg(long, default_value = "1k", value_parser = amount::count)]
    pub few: u64,
    /// Requests a second while latencies are compared: so few that every connection is parked in between
    #[arg(long, default_value = "500", value_parser = amount::count)]
    pub trickle: u64,
    /// How long the trickle lasts
    #[arg(long, default_value = "60s", value_parser = amount::duration)]
    pub trickle_time: Duration,
    /// Requests a second over all connections
    #[arg(long, short = 'r', default_value = "20k", value_parser = amount::count)]
    pub rate: u64,
    /// How long they are asked
    #[arg(long, short = 'd', default_value = "5m", value_parser = amount::duration)]
    pub duration: Duration,
    /// How long nothing is asked before memory is measured
    #[arg(long, default_value = "10s", value_parser = amount::duration)]
    pub settle: Duration,
    /// Workers of the proxy; 0: one a CPU where parked connections need no descriptors (io_uring, Linux 6.8), else as many
    /// as have descriptors for all connections
    #[arg(long, default_value_t = 0)]
    pub workers: usize,
    /// Where SpeedMimi is; else beside this program
    #[arg(long, value_name = "FILE")]
    pub speedmimi: Option<PathBuf>,
    /// Where million.md, million.zh-CN.md and million.json are written
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// As typed.
    pub command: String,
    /// Seconds since 1970.
    pub at: u64,
    /// What SpeedMimi says of itself.
    pub version: String,
    /// The machine's.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// `uname -r`.
    pub kernel: String,
    /// `MemTotal` in bytes.
    pub memory: u64,
    /// `RLIMIT_NOFILE` in effect, of one descriptor table.
    pub descriptors: usize,
    /// Workers of the proxy.
    pub workers: usize,
    /// What was set for the run.
    pub settings: Vec<Setting>,
    /// The proxy's configuration.
    pub config: String,
    /// Entries of the connection hash.
    pub hash_entries: u64,
    /// A thousand connections.
    pub few: hold::Report,
    /// All of them.
    pub many: hold::Report,
}

/// Runs all of it.
///
/// # Errors
/// When it is not allowed, something is missing, or there is not enough memory; connections and requests that fail are
/// in the report.
pub fn run(options: &Options) -> Result<()> {
    if options.connections <= options.few || options.few == 0 {
        return Err(Error::Usage("--connections has to be above --few, and that above 0".into()));
    }
    let speedmimi = children::speedmimi(options.speedmimi.as_deref())?;
    check_memory(options.connections)?;
    // Interrupted, it ends here: what the whole machine sees has to be put back.
    let stop = interrupt::flag()?;
    let space = network::enter(options.connections)?;
    for Setting { name, before, value, why } in &space.settings {
        eprintln!("{name} = {value} (was {before}): {why}");
    }
    let report = measure(options, &speedmimi, &space, &stop)?;
    let (english, chinese) = (report::markdown(&report, report::ENGLISH), report::markdown(&report, report::CHINESE));
    if let Some(dir) = &options.report {
        write(dir, "million.md", &english)?;
        write(dir, "million.zh-CN.md", &chinese)?;
        let json = serde_json::to_string_pretty(&report).map_err(std::io::Error::from);
        write(dir, "million.json", &json.trying(|| "writing JSON".into())?)?;
    }
    println!("{english}");
    Ok(())
}

fn measure(options: &Options, speedmimi: &Path, space: &Namespace, stop: &AtomicBool) -> Result<Report> {
    let descriptors = descriptors_max();
    let per_worker = (descriptors as f64 * CLIENTS_SHARE / SPREAD) as u64;
    let workers = match options.workers {
        0 if has_rings() => crate::pin::allowed_cpus()?.len(),
        0 => options.connections.div_ceil(per_worker.max(1)) as usize,
        workers => workers,
    };
    let dir = Dir::new()?;
    let own = std::env::current_exe().trying(|| "finding this program".into())?;
    let origin = free_address()?;
    let own = own.display().to_string();
    let of_origin = [own, "origin".into(), format!("--threads={ORIGIN_THREADS}"), format!("--listen={origin}")];
    let _origin = children::start(of_origin, origin, "the origin", &dir)?;
    let config = |address: SocketAddr| {
        let port = address.port();
        let (max_conn, origin) = (options.connections + options.connections / 10 + 1000, origin.port());
        format!(
            "server: {{host: 127.0.0.1, port: {port}, workers: {workers}, fd_tables: private, max_conn: {max_conn}, idle_timeout: 30m}}\n\
             upstreams: {{default: {{keepalive: {KEPT}, queue: {{size: 1000000, timeout: 60s}}}}}}\n\
             backends: {{default: [{{id: origin, host: 127.0.0.1, port: {origin}, max_conn: {AT_ONCE}}}]}}\n\
             routing: {{default: {{path: /, upstream: default}}}}\n\
             grpc: {{enabled: false}}\n"
        )
    };
    let held = |connections: u64, rates: Vec<u64>, times: Vec<Duration>| -> Result<(String, hold::Report)> {
        let address = free_address()?;
        let (text, file) = (config(address), dir.file("million.yaml"));
        fs::write(&file, &text).trying(|| format!("writing {}", file.display()))?;
        let program = speedmimi.display().to_string();
        let command = [program, "run".into(), "--config".into(), file.display().to_string()];
        let proxy = children::start(command, address, "SpeedMimi", &dir)?;
        let threads = load::thread_count(options.connections as usize, 1);
        eprintln!("{connections} connections, {workers} workers, {threads} threads of clients");
        let load = hold::Options {
            target: Target::local(address.port()),
            pid: Some(proxy.0.id()),
            connections,
            rate: rates,
            duration: times,
            settle: options.settle,
            threads,
            ..hold::Options::default()
        };
        Ok((text, hold::run(&load, stop)?))
    };
    let (_, few) = held(options.few, vec![options.trickle], vec![options.trickle_time])?;
    let rates = vec![options.trickle, options.rate];
    let (config, many) = held(options.connections, rates, vec![options.trickle_time, options.duration])?;
    Ok(Report {
        command: format!("speedmimi-bench {}", markdown::command(&std::env::args().skip(1).collect::<Vec<_>>())),
        at: std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
        version: version(speedmimi, "--version"),
        cpu: proc::cpu_model(),
        cpus: crate::pin::allowed_cpus()?.len(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        memory: proc::memory_bytes("MemTotal:"),
        descriptors,
        workers,
        settings: space.settings.clone(),
        config,
        hash_entries: kernel::hash_entries().unwrap_or(0),
        few,
        many,
    })
}

/// The scheduler is fair to threads: one alone would be starved by all those of proxy and clients.
const ORIGIN_THREADS: usize = 8;
/// Idle backend connections that the proxy may keep: a worker's part has to be more than what it has under way, or it
/// opens and closes them all the time, and each close keeps a port for a minute.
const KEPT: usize = 8192;
/// Exchanges at once, or the proxy, once behind, would open a backend connection for every request that waits.
const AT_ONCE: usize = 1024;

/// Whether the kernel has io_uring for everybody, new enough to give descriptors back (`IORING_OP_FIXED_FD_INSTALL`).
fn has_rings() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 8) && machine::sysctl("kernel.io_uring_disabled").as_deref() == Some("0")
}

fn check_memory(connections: u64) -> Result<()> {
    let (needed, available) = (connections * BYTES_EACH, Kernel::read().available);
    if needed <= available {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(Error::Failed(format!(
        "{connections} connections with both ends here take about {} MiB, and {} are available: ask for fewer",
        mib(needed),
        mib(available)
    )))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(dir).trying(|| format!("making {}", dir.display()))?;
    let path = dir.join(name);
    fs::write(&path, text).trying(|| format!("writing {}", path.display()))
}
