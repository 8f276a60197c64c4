//! Setting what is to be set, and putting back what was.
//!
//! Owns the state file: what was before is in it, on the disk, before anything is set. A step is set whole or not at
//! all. Never sets a key that [`change::is_settable`] does not know, whatever the state file says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::change::{self, Change, Step};
use crate::cli::snapshot::files::Files;
use crate::cli::snapshot::interfaces::cpus_of_mask;
use crate::cli::snapshot::words;

/// Largest state file that is read, in bytes.
const STATE_BYTES_MAX: u64 = 4 << 20;

/// What was set, by what it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub entries: Vec<Entry>,
    /// Whether rules of nft were loaded.
    #[serde(default)]
    pub nft: bool,
    /// What was written for the next boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persisted: Option<Persisted>,
    /// The boot in which all of it was set; empty where that can't be told.
    #[serde(default)]
    pub boot: String,
}

/// A file of sysctl.d(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    pub file: PathBuf,
    pub text: String,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub step: Step,
    pub key: String,
    pub before: String,
    pub after: String,
    /// What it is being set to: there from before it is set until all of its step is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Entry {
    /// Whether a value is one that was set here, as far as can be told of a run that was cut short.
    fn is_ours(&self, now: &str) -> bool {
        are_same(&self.key, now, &self.after) || self.next.as_ref().is_some_and(|next| are_same(&self.key, now, next))
    }

    /// Notes that it is about to be set, from what it is `now`.
    fn begin(&mut self, now: String, wanted: &str) {
        if self.is_ours(&now) {
            (self.after, self.next) = (now, Some(wanted.to_owned()));
        } else {
            // Somebody else has set it since, or a boot has: that is what comes back.
            (self.before, self.after, self.next) = (now, wanted.to_owned(), None);
        }
    }
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub step: Step,
    /// Keys that were set.
    pub count: usize,
    /// Why it was not.
    pub failure: Option<Failure>,
}

/// Why a step was not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub why: String,
    /// Whether all its keys are as they were.
    pub is_put_back: bool,
}

/// What became of a key that was to be put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undone {
    /// It is as it was before.
    Restored { key: String, value: String },
    /// It was so already.
    Unchanged { key: String },
    /// There is no such file any more.
    Gone { key: String },
    /// Somebody else has set it since: it was left as it is.
    Changed { key: String, now: String, set: String },
    /// It could not be set.
    Failed { key: String, why: String },
}

impl State {
    /// Reads the file; an empty state when there is none.
    ///
    /// # Errors
    /// When it can't be read, makes no sense, or belongs to somebody else: what it says is done by root.
    pub fn load(path: &Path) -> io::Result<State> {
        // Without waiting for a pipe, and looked at by the descriptor: the name may lead elsewhere a moment later.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(State::default()),
            other => other?,
        };
        let meta = file.metadata()?;
        let refused = |why: &str| Err(io::Error::new(ErrorKind::InvalidData, why));
        if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
            return refused("it is no plain file that only its owner, you, may write");
        }
        let mut text = String::new();
        file.take(STATE_BYTES_MAX).read_to_string(&mut text)?;
        let state: State = serde_json::from_str(&text)?;
        match state.entries.iter().find(|entry| !change::is_settable(&entry.key)) {
            Some(entry) => refused(&format!("`{}` is nothing that is set here", entry.key)),
            None => Ok(state),
        }
    }

    /// Whether there is nothing to put back.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && !self.nft && self.persisted.is_none()
    }

    /// Makes it one of this boot, and tells how many keys it had set that ended with an earlier one: nothing but a sysctl
    /// that was set again at the boot is still ours then. Another device may have an interrupt's number by now.
    pub fn enter_boot(&mut self, files: &Files) -> usize {
        let boot = words(&files.text("proc/sys/kernel/random/boot_id"));
        let before = std::mem::replace(&mut self.boot, boot);
        if before.is_empty() || self.boot.is_empty() || before == self.boot {
            return 0;
        }
        let count = self.entries.len() + usize::from(self.nft);
        self.nft = false;
        self.entries.retain(|entry| {
            !entry.key.starts_with('/') && read(files, &entry.key).is_ok_and(|now| entry.is_ours(&now))
        });
        count - self.entries.len()
    }

    /// Writes the file whole, or leaves what was; on the disk when this returns. An empty state is no file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let directory = directory_of(path);
        if self.is_empty() {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Err(_) => return Ok(()),
                Ok(()) => return File::open(directory)?.sync_all(),
            }
        }
        fs::create_dir_all(directory)?;
        write_whole(path, format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes(), 0o600)
    }
}

/// Writes a file whole, or leaves what was; on the disk when this returns.
///
/// # Errors
/// Those of the file system.
pub fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    // One that a crash left: in a container the same number comes again.
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        // The error of writing is the one to tell.
        let _ = fs::remove_file(&temporary);
    })?;
    File::open(directory_of(path))?.sync_all()
}

/// The directory of a file.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Sets all changes, step by step; `state` and its file know what was before, also when this is cut short.
///
/// # Errors
/// When the state can't be kept: nothing was set then. A step that fails is an [`Outcome`].
pub fn apply(files: &Files, changes: &[Change], state: &mut State, path: &Path) -> io::Result<Vec<Outcome>> {
    let earlier = state.clone();
    for change in changes {
        let now = read(files, &change.key).unwrap_or_else(|_| change.now.clone());
        match state.entries.iter_mut().find(|entry| entry.key == change.key) {
            Some(entry) => entry.begin(now, &change.wanted),
            None => state.entries.push(Entry {
                step: change.step,
                key: change.key.clone(),
                before: now,
                after: change.wanted.clone(),
                next: None,
            }),
        }
    }
    state.save(path)?;
    let mut outcomes = Vec::new();
    for step in Step::ALL {
        let of_step: Vec<&Change> = changes.iter().filter(|change| change.step == step).collect();
        if of_step.is_empty() {
            continue;
        }
        let failure = set_all(files, &of_step).err();
        if failure.is_none() {
            let of_step = state.entries.iter_mut().filter(|entry| of_step.iter().any(|change| change.key == entry.key));
            of_step
                .for_each(|entry| entry.after = entry.next.take().unwrap_or_else(|| std::mem::take(&mut entry.after)));
        }
        // Where not even that could be done, what was before has to be remembered.
        if failure.as_ref().is_some_and(|failure| failure.is_put_back) {
            // Its keys are as they were, and what was known of them before is what holds.
            state.entries.retain(|entry| !of_step.iter().any(|change| change.key == entry.key));
            let known = earlier.entries.iter().filter(|entry| of_step.iter().any(|change| change.key == entry.key));
            state.entries.extend(known.cloned());
        }
        outcomes.push(Outcome { step, count: of_step.len(), failure });
    }
    state.save(path)?;
    Ok(outcomes)
}

/// Sets all, or none.
fn set_all(files: &Files, changes: &[&Change]) -> Result<(), Failure> {
    let mut done: Vec<(&str, String)> = Vec::new();
    for change in changes {
        let set = read(files, &change.key).and_then(|now| {
            done.push((&change.key, now));
            set(files, &change.key, &change.wanted)
        });
        if let Err(error) = set {
            return Err(put_back(files, done, format!("{}: {error}", change.key)));
        }
    }
    Ok(())
}

/// Puts the keys of a step that failed back, the last first.
fn put_back(files: &Files, done: Vec<(&str, String)>, mut why: String) -> Failure {
    let mut is_put_back = true;
    for (key, before) in done.into_iter().rev() {
        if let Err(error) = set(files, key, &before) {
            is_put_back = false;
            why.push_str(&format!("; {key} could not be put back to {before}: {error}"));
        }
    }
    Failure { why, is_put_back }
}

/// Puts back what was before, the last first. What somebody else has set since stays, unless `force`.
///
/// # Errors
/// When the state can't be kept.
pub fn undo(files: &Files, state: &mut State, path: &Path, force: bool) -> io::Result<Vec<Undone>> {
    let mut all = Vec::new();
    let mut left = Vec::new();
    for entry in state.entries.drain(..).rev() {
        let undone = undo_one(files, &entry, force);
        if matches!(undone, Undone::Changed { .. } | Undone::Failed { .. }) {
            left.push(entry);
        }
        all.push(undone);
    }
    left.reverse();
    state.entries = left;
    state.save(path)?;
    Ok(all)
}

fn undo_one(files: &Files, entry: &Entry, force: bool) -> Undone {
    let key = entry.key.clone();
    let now = match read(files, &key) {
        Ok(now) => now,
        Err(error) if error.kind() == ErrorKind::NotFound => return Undone::Gone { key },
        Err(error) => return Undone::Failed { key, why: error.to_string() },
    };
    if are_same(&key, &now, &entry.before) {
        return Undone::Unchanged { key };
    }
    if !force && !entry.is_ours(&now) {
        return Undone::Changed { key, now, set: entry.after.clone() };
    }
    match set(files, &key, &entry.before) {
        Ok(()) => Undone::Restored { key, value: entry.before.clone() },
        Err(error) => Undone::Failed { key, why: error.to_string() },
    }
}

fn read(files: &Files, key: &str) -> io::Result<String> {
    Ok(words(&fs::read_to_string(files.path(&change::path_of(key)))?))
}

/// Sets a key and looks whether the kernel took it: some values it cuts without a word.
fn set(files: &Files, key: &str, value: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(files.path(&change::path_of(key)))?;
    // In one call, and with the line's end: without it an empty value is no write at all.
    file.write_all(format!("{value}\n").as_bytes())?;
    drop(file);
    let now = read(files, key)?;
    match are_same(key, &now, value) {
        true => Ok(()),
        false => Err(io::Error::other(format!("{value} was written, and it is {now}"))),
    }
}

/// Whether two texts are the same value: masks may have leading zeros.
fn are_same(key: &str, a: &str, b: &str) -> bool {
    if key.ends_with("_cpus") { cpus_of_mask(a) == cpus_of_mask(b) } else { words(a) == words(b) }
}
