//! `speedmimi tune`: makes a machine ready for so many connections, and can put back what was.
//!
//! Owns the options and what is told. Without `--apply`, `--undo` or `--persist` nothing is changed.

pub mod apply;
pub mod change;
pub mod later;
pub mod left;
pub mod lock;
pub mod notrack;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::apply::{Entry, Outcome, Persisted, State, Undone};
use self::change::{Change, Step};
use self::lock::Lock;
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
    let (_lock, mut state) = match Lock::take(&options.state).and_then(|lock| Ok((lock, State::load(&options.state)?)))
    {
        Ok(had) => had,
        Err(error) => return refuse(&options.state, &error),
    };
    state.enter_boot(files);
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
            Some(failure) => {
                status = ExitStatus::Failed;
                let left = if failure.is_put_back { "not set, and as it was" } else { "set in part" };
                writeln!(out, "{}: {left}: {}", step.name(), failure.why)?;
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
    if options.persist && persist(options, files, &mut state, out)? == ExitStatus::Failed {
        status = ExitStatus::Failed;
    }
    if let Some(persisted) = state.persisted.as_ref().filter(|persisted| persisted.text != for_next_boot(&state)) {
        writeln!(out, "{}: has what was set earlier; --persist writes it anew", persisted.file.display())?;
    }
    if !state.is_empty() {
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

/// The text of a file of sysctl.d(5) with all sysctls that were set.
fn for_next_boot(state: &State) -> String {
    let sysctls = state.entries.iter().filter(|entry| !entry.key.starts_with('/'));
    let lines = sysctls.map(|entry| format!("{} = {}\n", entry.key, entry.after));
    format!("{PERSISTED_HEAD}{}", lines.collect::<String>())
}

/// Writes all sysctls that were set to a file of sysctl.d(5).
fn persist(options: &Options, files: &Files, state: &mut State, out: &mut impl Write) -> io::Result<ExitStatus> {
    // It is removed by whoever stands elsewhere then.
    let path = &std::path::absolute(&options.sysctl_file)?;
    let (sysctls, others): (Vec<&Entry>, Vec<_>) = state.entries.iter().partition(|entry| !entry.key.starts_with('/'));
    let text = for_next_boot(state);
    let (covered, left) = (sysctls.len(), others.len());
    let later = later::overridden(files, path, &sysctls);
    let later: Vec<String> = later.iter().map(|(key, file, value)| format!("{key} = {value} of {file}")).collect();
    match fs::read_to_string(path) {
        Ok(found) if !found.starts_with(PERSISTED_HEAD) => {
            writeln!(out, "{}: is somebody's own and stays as it is; --sysctl-file names another", path.display())?;
            return Ok(ExitStatus::Failed);
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return refuse(path, &error),
        _ => {}
    }
    if let Some(earlier) = state.persisted.take_if(|earlier| earlier.file != *path)
        && !forget(&earlier, out)?
    {
        state.persisted = Some(earlier);
        return Ok(ExitStatus::Failed);
    }
    state.persisted = Some(Persisted { file: path.clone(), text: text.clone() });
    if let Err(error) = state.save(&options.state).and_then(|()| apply::write_whole(path, text.as_bytes(), 0o644)) {
        return refuse(path, &error);
    }
    writeln!(out, "{}: {covered} sysctls for the next boot", path.display())?;
    for setting in later {
        writeln!(out, "    but {setting} is read after it and will hold: take that line out")?;
    }
    if left > 0 || state.nft {
        let words =
            "queues, interrupts and rules of nft are not in it: run `speedmimi tune --apply` again after a boot";
        writeln!(out, "{words}, by a unit of Type=oneshot that is ordered After=network.target")?;
    }
    Ok(ExitStatus::Fine)
}

fn undo(options: &Options, files: &Files, out: &mut impl Write) -> io::Result<ExitStatus> {
    if !options.state.try_exists().unwrap_or(true) {
        writeln!(out, "{}: nothing was set", options.state.display())?;
        return Ok(ExitStatus::Fine);
    }
    let (_lock, mut state) = match Lock::take(&options.state).and_then(|lock| Ok((lock, State::load(&options.state)?)))
    {
        Ok(had) => had,
        Err(error) => return refuse(&options.state, &error),
    };
    let ended = state.enter_boot(files);
    if ended > 0 {
        writeln!(out, "{ended} of what was set ended with an earlier boot")?;
    }
    let mut status = ExitStatus::Fine;
    if state.nft {
        match notrack::unload() {
            Ok(()) => {
                writeln!(out, "nft: the rules are gone")?;
                state.nft = false;
            }
            Err(error) => {
                writeln!(out, "nft: the rules are still there: {error}")?;
                status = ExitStatus::Failed;
            }
        }
    }
    if let Some(persisted) = state.persisted.take()
        && !forget(&persisted, out)?
    {
        state.persisted = Some(persisted);
        status = ExitStatus::Failed;
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

/// Removes the file for the next boot, if it is as it was written; whether it need not be remembered any more.
fn forget(persisted: &Persisted, out: &mut impl Write) -> io::Result<bool> {
    let path = persisted.file.display();
    match fs::read_to_string(&persisted.file) {
        Ok(found) if found == persisted.text => match fs::remove_file(&persisted.file) {
            Ok(()) => writeln!(out, "{path}: removed").map(|()| true),
            Err(error) => writeln!(out, "{path}: {error}").map(|()| false),
        },
        Ok(_) => writeln!(out, "{path}: was changed since and stays").map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => writeln!(out, "{path}: {error}").map(|()| false),
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
