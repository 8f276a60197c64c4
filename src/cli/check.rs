//! `speedmimi check`: reads a configuration file and prints every fault in it.

use std::io::{self, Write};
use std::path::Path;

use super::ExitStatus;
use crate::config::ConfigFault;
use crate::config::document::Document;
use crate::config::load;
use crate::config::plan::Plan;

/// Checks the named file, or the one that `run` would find, and tells the result.
///
/// Ends with [`ExitStatus::BadConfig`] when there is a fault.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(path: Option<&Path>, out: &mut impl Write) -> io::Result<ExitStatus> {
    let result = load::find(path).and_then(|path| load::load(&path).map(|(_, document)| (path, document)));
    match result {
        Ok((path, document)) => print_valid(&path, &document, out).map(|()| ExitStatus::Fine),
        Err(faults) => print_faults(&faults, out).map(|()| ExitStatus::BadConfig),
    }
}

/// Every fault on a line of its own, and how many there are.
///
/// # Errors
/// Those of writing to `out`.
pub fn print_faults(faults: &[ConfigFault], out: &mut impl Write) -> io::Result<()> {
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    writeln!(out, "{}", counted(faults.len(), "fault"))
}

fn print_valid(path: &Path, document: &Document, out: &mut impl Write) -> io::Result<()> {
    for notice in document.notices() {
        writeln!(out, "notice: {notice}")?;
    }
    writeln!(out, "{}: configuration is valid ({})", path.display(), summary(document.plan()))
}

fn summary(plan: &Plan) -> String {
    let backends = plan.upstreams.iter().map(|upstream| upstream.backends.len()).sum();
    let listen: Vec<String> = plan.server.listen.iter().map(ToString::to_string).collect();
    let (routes, upstreams) = (counted(plan.routes.len(), "route"), counted(plan.upstreams.len(), "upstream"));
    format!("{routes}, {upstreams}, {}, listening on {}", counted(backends, "backend"), listen.join(", "))
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
