//! `speedmimi plan`: how many machines of which size a load takes, with each term of the sum shown.
//!
//! Owns the options. Never measures and never looks at a machine: constants are built in, or come from a file that
//! `speedmimi-bench calibrate` wrote.

pub mod constants;
pub mod picture;
pub mod sum;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use self::constants::Constants;
use self::picture::{Basis, Language};
use self::sum::{Demand, Fleet, Need, Rule};
use super::{ExitStatus, amount};

/// Between two frames of a WebSocket, when nobody says how many there are.
const FRAME_EVERY_SECONDS: f64 = 30.0;

/// Its part of the command line.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Client connections at once, as 50k or 10m
    #[arg(long, value_name = "N", value_parser = amount::count)]
    connections: u64,
    /// Requests a second
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    rps: u64,
    /// Part of the connections over TLS, as 50%
    #[arg(long, value_name = "PART", default_value = "0%", value_parser = amount::part)]
    tls: f64,
    /// Part of the connections that speak HTTP/2; taken from those over TLS first
    #[arg(long, value_name = "PART", default_value = "0%", value_parser = amount::part)]
    http2: f64,
    /// Part of the connections that are WebSockets
    #[arg(long, value_name = "PART", default_value = "0%", value_parser = amount::part)]
    websocket: f64,
    /// Frames a second over all WebSockets, both ways together; else one each 30 s on each
    #[arg(long, value_name = "N", value_parser = amount::count_or_none)]
    frames: Option<u64>,
    /// Size of an answer's body
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = amount::size)]
    body: u64,
    /// Size of a request's body
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = amount::size)]
    request_body: u64,
    /// How long a connection lasts
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = amount::duration)]
    lifetime: Duration,
    /// How long backends take to answer
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = amount::duration)]
    latency: Duration,
    /// CPU cores of the largest machine; else 32 for the minimum, 64 for the recommended one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    machine_cores: Option<u64>,
    /// Memory of the largest machine in GiB; else 128 and 256
    #[arg(long, value_name = "GIB", value_parser = clap::value_parser!(u64).range(4..=2048))]
    machine_memory: Option<u64>,
    /// Constants that `speedmimi-bench calibrate` measured
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Of the words
    #[arg(long, value_enum, default_value_t = Language::En)]
    lang: Language,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    demand: Demand,
    /// `built-in`, or the file.
    calibration: String,
    constants: &'a Constants,
    need: &'a Need,
    minimum: Fleet,
    recommended: Fleet,
}

/// Adds up and tells.
///
/// Ends with [`ExitStatus::Usage`] for parts that are more than the whole, and with [`ExitStatus::Failed`] for a file of
/// constants that can't be read.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<ExitStatus> {
    let demand = match options.demand() {
        Ok(demand) => demand,
        Err(told) => return refuse(told, ExitStatus::Usage),
    };
    let (constants, facts) = match options.constants() {
        Ok(read) => read,
        Err(told) => return refuse(&told, ExitStatus::Failed),
    };
    let need = sum::need(&demand, &constants);
    let [minimum, recommended] =
        [Rule::LEAST, Rule::RECOMMENDED].map(|rule| sum::fleet(&demand, &need, &options.within(rule)));
    let file = options.calibration.as_ref().map(|path| path.display().to_string());
    if options.json {
        let calibration = file.unwrap_or_else(|| "built-in".to_owned());
        let report = Report { demand, calibration, constants: &constants, need: &need, minimum, recommended };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        let basis = Basis { file, facts: &facts };
        out.write_all(picture::text(options.lang, &demand, &need, [&minimum, &recommended], &basis).as_bytes())?;
    }
    Ok(ExitStatus::Fine)
}

impl Options {
    fn demand(&self) -> Result<Demand, &'static str> {
        if self.http2 + self.websocket > 1.0 {
            return Err("--http2 and --websocket together are more than all connections");
        }
        if self.websocket == 1.0 && self.rps > 0 {
            return Err("all connections are WebSockets: there is none for --rps");
        }
        if self.websocket == 0.0 && self.frames.is_some_and(|frames| frames > 0) {
            return Err("--frames needs a part of the connections to be WebSockets: --websocket");
        }
        let connections = self.connections as f64;
        let usual = connections * self.websocket / FRAME_EVERY_SECONDS;
        Ok(Demand {
            connections,
            rps: self.rps as f64,
            tls: self.tls,
            http2: self.http2,
            websocket: self.websocket,
            frames: self.frames.map_or(usual, |frames| frames as f64),
            body: self.body as f64,
            request_body: self.request_body as f64,
            lifetime: self.lifetime.as_secs_f64(),
            latency: self.latency.as_secs_f64(),
        })
    }

    fn constants(&self) -> Result<(Constants, Vec<String>), String> {
        let Some(path) = &self.calibration else { return Ok((Constants::BUILT_IN, Vec::new())) };
        let text = fs::read_to_string(path).map_err(|error| error.to_string());
        text.and_then(|text| constants::read(&text)).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn within(&self, rule: Rule) -> Rule {
        Rule {
            cpus_max: self.machine_cores.unwrap_or(rule.cpus_max),
            memory_gib_max: self.machine_memory.unwrap_or(rule.memory_gib_max),
            ..rule
        }
    }
}

fn refuse(told: &str, status: ExitStatus) -> io::Result<ExitStatus> {
    writeln!(io::stderr(), "speedmimi: {told}")?;
    Ok(status)
}
