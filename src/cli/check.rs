//! `speedmimi check`: reads a configuration file and prints every fault in it.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use super::ExitStatus;
use crate::config::document::Document;
use crate::config::load;
use crate::config::plan::Plan;
use crate::control::certificates;
use crate::tls::{Loaded, Reading};

/// Checks the named file, or the one that `run` would find, and tells the result.
///
/// Ends with [`ExitStatus::BadConfig`] when there is a fault.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(path: Option<&Path>, out: &mut impl Write) -> io::Result<ExitStatus> {
    let result = load::find(path).and_then(|path| load::load(&path).map(|(_, document)| (path, document)));
    let (path, document) = match result {
        Ok(found) => found,
        Err(faults) => return print_faults(&faults, out).map(|()| ExitStatus::BadConfig),
    };
    match Loaded::load(document.plan(), &Loaded::default(), Reading::All) {
        Ok(loaded) => print_valid(&path, &document, &loaded, out).map(|()| ExitStatus::Fine),
        Err(faults) => print_faults(&faults, out).map(|()| ExitStatus::BadConfig),
    }
}

/// Every fault on a line of its own, and how many there are.
///
/// # Errors
/// Those of writing to `out`.
pub fn print_faults(faults: &[impl Display], out: &mut impl Write) -> io::Result<()> {
    for fault in faults {
        writeln!(out, "{fault}")?;
    }
    writeln!(out, "{}", counted(faults.len(), "fault"))
}

fn print_valid(path: &Path, document: &Document, loaded: &Loaded, out: &mut impl Write) -> io::Result<()> {
    for notice in document.notices() {
        writeln!(out, "notice: {notice}")?;
    }
    for notice in certificates::notices(loaded, certificates::unix_seconds()) {
        writeln!(out, "notice: {notice}")?;
    }
    writeln!(out, "{}: configuration is valid ({})", path.display(), summary(document.plan(), loaded))
}

fn summary(plan: &Plan, loaded: &Loaded) -> String {
    let backends = plan.upstreams.iter().map(|upstream| upstream.backends.len()).sum();
    let listen: Vec<String> = plan.server.listen.iter().map(ToString::to_string).collect();
    let (routes, upstreams) = (counted(plan.routes.len(), "route"), counted(plan.upstreams.len(), "upstream"));
    let certificates = match loaded.certificates().len() {
        0 => String::new(),
        count => format!(", {}", counted(count, "certificate")),
    };
    let backends = counted(backends, "backend");
    format!("{routes}, {upstreams}, {backends}{certificates}, listening on {}", listen.join(", "))
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
