//! `speedmimi tune`: makes a machine ready for so many connections, and can put back what was.
//!
//! Owns the options and what is told. Without `--apply`, `--undo` or `--persist` nothing is changed.

pub mod apply;
pub mod change;
pub mod left;
pub mod notrack;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::apply::{Outcome, State, Undone};
use self::change::{Change, Step};
use super::snapshot::Snapshot;
use super::snapshot::files::Files;
use super::top::say::whole;
use super::wanted::{self, Wanted};
use super::{ExitStatus, amount};

/// How the file for the next boot begins; one that begins otherwise is somebody's own.
const PERSISTED_HEAD: &str = "# Written by `speedmimi tune --persist`; `speedmimi tune --undo` removes it.\n";

/// Its part of the command line.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Client connections to make ready for, as 50k or 10m; else server.max_conn of --config, else what the machine holds
    #[arg(long, value_name = "N", value_parser = amount::count)]
    connections: Option<u64>,
    /// The configuration that is, or will be, used here: its ports, backlog and backends
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set it (root); what was before is kept in --state
    #[arg(long, conflicts_with = "undo")]
    apply: bool,
    /// Put back what was before --apply
    #[arg(long)]
    undo: bool,
    /// With --undo: also what somebody else has set since
    #[arg(long, requires = "undo")]
    force: bool,
    /// Write the sysctls that were set for the next boot too
    #[arg(long, requires = "apply")]
    persist: bool,
    /// Also leave the proxy's connections out of connection tracking, by rules of nft
    #[arg(long, conflicts_with = "undo")]
    notrack: bool,
    /// Only these steps
    #[arg(long, value_enum, value_name = "STEP", value_delimiter = ',')]
    only: Vec<Step>,
    /// All but these steps
    #[arg(long, value_enum, value_name = "STEP", value_delimiter = ',', conflicts_with = "only")]
    skip: Vec<Step>,
    /// Print what would be set as JSON
    #[arg(long, conflicts_with_all = ["apply", "undo"])]
    json: bool,
    /// Where what was before is kept
    #[arg(long, value_name = "FILE", default_value = "/var/lib/speedmimi/tune.json")]
    state: PathBuf,
    /// Where --persist writes
    #[arg(long, value_name = "FILE", default_value = "/etc/sysctl.d/90-speedmimi.conf")]
    sysctl_file: PathBuf,
    /// Where proc and sys are
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    connections: u64,
    changes: Vec<Change>,
    elsewhere: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nft: Option<String>,
}

/// Prints, sets or puts back.
///
/// Ends with [`ExitStatus::Failed`] when something could not be set or put back, and with [`ExitStatus::BadConfig`] for
/// a configuration with faults.
///
/// # Errors
/// Those of writing to `out`.
pub fn run(options: &Options, out: &mut impl Write) -> io::Result<ExitStatus> {
    let files = Files::at(&options.root);
    if options.undo {
        return undo(options, &files, out);
    }
    let plan = match wanted::plan(options.config.as_deref()) {
        Ok(plan) => plan,
        Err(told) => {
            write!(io::stderr(), "{told}")?;
            return Ok(ExitStatus::BadConfig);
        }
    };
    let snapshot = Snapshot::read(&files, "self");
    let wanted = Wanted::new(options.connections, &plan, &snapshot);
    let mut changes = change::all(&snapshot, &wanted);
    changes.retain(|change| match &options.only[..] {
        [] => !options.skip.contains(&change.step),
        only => only.contains(&change.step),
    });
    let nft = if options.notrack { notrack::rules(&wanted) } else { None };
    let elsewhere = left::elsewhere(&snapshot, &wanted);
    if options.json {
        let report = Report { connections: wanted.connections, changes, elsewhere, nft };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitStatus::Fine);
    }
    if options.apply {
        return set(options, &files, (&changes, nft), out);
    }
    writeln!(out, "for {} client connections ({})\n", whole(wanted.connections), wanted.judged_by())?;
    tell(&changes, nft.as_deref(), &elsewhere, out)?;
    Ok(ExitStatus::Fine)
}

/// What would be set, what has to be done elsewhere, and what is left alone.
fn tell(changes: &[Change], nft: Option<&str>, elsewhere: &[String], out: &mut impl Write) -> io::Result<()> {
    if changes.is_empty() {
        writeln!(out, "nothing to set")?;
    }
    for change in changes {
        let now = if change.now.is_empty() { "nothing" } else { &change.now };
        writeln!(out, "{}: {} -> {}", change.key, now, change.wanted)?;
        writeln!(out, "    step   {}", change.step.name())?;
        writeln!(out, "    why    {}", change.why)?;
        writeln!(out, "    costs  {}", change.cost)?;
    }
    if let Some(rules) = nft {
        writeln!(out, "\nrules of nft (--apply loads them where nft is there):\n{rules}    costs  {}", notrack::COST)?;
    }
    if !elsewhere.is_empty() {
        writeln!(out, "\nto be done elsewhere:")?;
        elsewhere.iter().try_for_each(|what| writeln!(out, "  {what}"))?;
    }
    writeln!(out, "\nleft alone, though often recommended:")?;
    left::ALONE.iter().try_for_each(|(key, why)| writeln!(out, "  {key}: {why}"))?;
    if !changes.is_empty() {
        writeln!(out, "\nnothing was changed: --apply sets it, --undo puts it back")?;
    }
    Ok(())
}

fn set(
    options: &Options,
    files: &Files,
    (changes, nft): (&[Change], Option<String>),
    out: &mut impl Write,
) -> io::Result<ExitStatus> {
    let mut state = match State::load(&options.state) {
        Ok(state) => state,
        Err(error) => return refuse(&options.state, &error),
    };
    let had_rules = state.nft;
    state.nft |= nft.is_some();
    let outcomes = match apply::apply(files, changes, &mut state, &options.state) {
        Ok(outcomes) => outcomes,
        Err(error) => return refuse(&options.state, &error),
    };
    if outcomes.is_empty() {
        writeln!(out, "nothing to set")?;
    }
    let mut status = ExitStatus::Fine;
    for Outcome { step, count, failure } in &outcomes {
        match failure {
            None => writeln!(out, "{}: {count} set", step.name())?,
            Some(why) => {
                status = ExitStatus::Failed;
                writeln!(out, "{}: not set, and as it was: {why}", step.name())?;
            }
        }
    }
    if let Some(rules) = nft
        && !load_rules(&rules, out)?
    {
        status = ExitStatus::Failed;
        state.nft = had_rules;
        state.save(&options.state)?;
    }
    if options.persist && persist(options, &mut state, out)? == ExitStatus::Failed {
        status = ExitStatus::Failed;
    }
    if state != State::default() {
        writeln!(out, "what was before is in {}; `speedmimi tune --undo` puts it back", options.state.display())?;
    }
    Ok(status)
}

/// Whether the rules are in use now; prints them where there is no nft, for whoever has something else.
fn load_rules(rules: &str, out: &mut impl Write) -> io::Result<bool> {
    let Err(error) = notrack::load(rules) else {
        writeln!(out, "nft: rules are loaded, until the next boot or --undo")?;
        return Ok(true);
    };
    match error.kind() {
        ErrorKind::NotFound => writeln!(out, "nft is not there; what it would have loaded:\n{rules}")?,
        _ => writeln!(out, "nft: {error}")?,
    }
    Ok(false)
}

/// Writes all sysctls that were set to a file of sysctl.d(5).
fn persist(options: &Options, state: &mut State, out: &mut impl Write) -> io::Result<ExitStatus> {
    let path = &options.sysctl_file;
    let (sysctls, others): (Vec<_>, Vec<_>) = state.entries.iter().partition(|entry| !entry.key.starts_with('/'));
    let lines = sysctls.iter().map(|entry| format!("{} = {}\n", entry.key, entry.after));
    let text = format!("{PERSISTED_HEAD}{}", lines.collect::<String>());
    let (covered, left) = (sysctls.len(), others.len());
    match fs::read_to_string(path) {
        Ok(found) if !found.starts_with(PERSISTED_HEAD) => {
            writeln!(out, "{}: is somebody's own and stays as it is; --sysctl-file names another", path.display())?;
            return Ok(ExitStatus::Failed);
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return refuse(path, &error),
        _ => {}
    }
    state.persisted = Some(text.clone());
    if let Err(error) = state.save(&options.state).and_then(|()| apply::write_whole(path, text.as_bytes(), 0o644)) {
        return refuse(path, &error);
    }
    writeln!(out, "{}: {covered} sysctls for the next boot", path.display())?;
    if left > 0 || state.nft {
        let words =
            "queues, interrupts and rules of nft are not in it: run `speedmimi tune --apply` again after a boot";
        writeln!(out, "{words}, by a unit of Type=oneshot that is ordered After=network.target")?;
    }
    Ok(ExitStatus::Fine)
}

fn undo(options: &Options, files: &Files, out: &mut impl Write) -> io::Result<ExitStatus> {
    let mut state = match State::load(&options.state) {
        Ok(state) => state,
        Err(error) => return refuse(&options.state, &error),
    };
    if state == State::default() {
        writeln!(out, "{}: nothing was set", options.state.display())?;
        return Ok(ExitStatus::Fine);
    }
    let mut status = ExitStatus::Fine;
    if state.nft {
        match notrack::unload() {
            Ok(()) => writeln!(out, "nft: the rules are gone")?,
            Err(error) => writeln!(out, "nft: {error}")?,
        }
        state.nft = false;
    }
    if let Some(text) = state.persisted.take() {
        forget(&options.sysctl_file, &text, out)?;
    }
    let all = match apply::undo(files, &mut state, &options.state, options.force) {
        Ok(all) => all,
        Err(error) => return refuse(&options.state, &error),
    };
    for undone in all {
        match undone {
            Undone::Restored { key, value } => writeln!(out, "{key}: {value} again")?,
            Undone::Unchanged { key } => writeln!(out, "{key}: is as it was")?,
            Undone::Gone { key } => writeln!(out, "{key}: is not there any more")?,
            Undone::Changed { key, now, set } => {
                status = ExitStatus::Failed;
                writeln!(
                    out,
                    "{key}: is {now}, not {set} as it was set: left as it is (--force puts it back all the same)"
                )?;
            }
            Undone::Failed { key, why } => {
                status = ExitStatus::Failed;
                writeln!(out, "{key}: could not be put back: {why}")?;
            }
        }
    }
    Ok(status)
}

/// Removes the file for the next boot, if it is as it was written.
fn forget(path: &Path, text: &str, out: &mut impl Write) -> io::Result<()> {
    match fs::read_to_string(path) {
        Ok(found) if found == text => match fs::remove_file(path) {
            Ok(()) => writeln!(out, "{}: removed", path.display()),
            Err(error) => writeln!(out, "{}: {error}", path.display()),
        },
        Ok(_) => writeln!(out, "{}: was changed since and stays", path.display()),
        Err(_) => Ok(()),
    }
}

fn refuse(path: &Path, error: &io::Error) -> io::Result<ExitStatus> {
    let mut err = io::stderr();
    writeln!(err, "speedmimi: {}: {error}", path.display())?;
    if error.kind() == ErrorKind::PermissionDenied {
        writeln!(err, "speedmimi: only root may do this: sudo speedmimi tune …")?;
    }
    Ok(ExitStatus::Failed)
}
