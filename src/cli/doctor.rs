//! `speedmimi doctor`: what of this machine, or of a running proxy, is in the way of so many connections.
//!
//! Owns the options and the report. Changes nothing: cures are commands to type, or `speedmimi tune`.

pub mod checks;
pub mod finding;
pub mod memory;
pub mod network;
pub mod process;
pub mod processors;
pub mod room;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use self::finding::{Finding, Level};
use super::snapshot::Snapshot;
use super::snapshot::files::Files;
use super::snapshot::process::Process;
use super::wanted::{self, Wanted};
use super::{ExitStatus, amount};
use crate::cli::top::say::whole;

/// Its part of the command line.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Client connections to judge by, as 50k or 10m; else server.max_conn of --config, else what the machine holds
    #[arg(long, value_name = "N", value_parser = amount::count)]
    connections: Option<u64>,
    /// The configuration that is, or will be, used here
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Look at this running proxy too, at its limits and its container
    #[arg(long)]
    pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where proc and sys of the machine are: in a container, the host's as they are mounted there
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    level: Level,
    connections: u64,
    judged_by: &'static str,
    findings: &'a [Finding],
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
}

/// Makes every check and tells what it found.
///
/// Ends with [`ExitStatus::Failed`] when there is a fault, or no such process, and with [`ExitStatus::BadConfig`] for a
/// configuration with faults.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<ExitStatus> {
    let plan = match wanted::plan(options.config.as_deref()) {
        Ok(plan) => plan,
        Err(told) => {
            write!(io::stderr(), "{told}")?;
            return Ok(ExitStatus::BadConfig);
        }
    };
    let files = Files::at(&options.root);
    let process = match options.pid.map(|pid| Process::read(&files, pid).ok_or(pid)).transpose() {
        Ok(process) => process,
        Err(pid) => {
            writeln!(io::stderr(), "speedmimi: there is no process {pid}")?;
            return Ok(ExitStatus::Failed);
        }
    };
    let subject = options.pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let snapshot = Snapshot::read(&files, &subject);
    let wanted = Wanted::new(options.connections, &plan, &snapshot);
    let mut findings = checks::all(&snapshot, &wanted);
    findings.extend(process.iter().flat_map(|process| process::all(process, &wanted)));
    let level = finding::worst(&findings);
    if options.json {
        let (connections, judged_by) = (wanted.connections, wanted.judged_by());
        let report = Report { level, connections, judged_by, findings: &findings, process };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(out, "judged by {} client connections ({})\n", whole(wanted.connections), wanted.judged_by())?;
        finding::print(&findings, out)?;
    }
    Ok(if level == Level::Fault { ExitStatus::Failed } else { ExitStatus::Fine })
}
