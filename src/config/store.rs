//! Writes the configuration file: whole or not at all, and never over what somebody else wrote.
//!
//! Owns the order of the steps on disk. Never decides what is written, and never keeps the text: the caller hands in
//! what it read last. All calls block; they are for a thread that may.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Mode, Uid};

use super::difference::short_difference;
use super::tree::CONFIG_BYTES_MAX;

/// Why the file stayed as it was.
#[derive(Debug)]
pub enum StoreError {
    /// It is not what was read last. `difference` is short and without secrets; empty when only secrets differ.
    Changed { difference: String },
    /// It may not be written, or not so that owner and mode stay; with the cure.
    ReadOnly { path: PathBuf, why: String },
    /// Another process is writing it.
    Busy { path: PathBuf },
    /// A step failed.
    Failed { path: PathBuf, step: &'static str, error: io::Error },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Changed { difference } if difference.is_empty() => {
                f.write_str("the file was changed since it was read: in a secret")
            }
            StoreError::Changed { difference } => {
                write!(f, "the file was changed since it was read; reload it first:\n{difference}")
            }
            StoreError::ReadOnly { path, why } => write!(f, "{} cannot be written: {why}", path.display()),
            StoreError::Busy { path } => write!(f, "{} is being written by another process", path.display()),
            StoreError::Failed { path, step, error } => {
                write!(f, "{}: {step} failed: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Failed { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// What is left to tell of a file that was replaced.
#[derive(Debug)]
pub struct Replaced {
    /// The new file is in place, but the disk did not confirm its name: after a loss of power it may be the old one.
    pub unconfirmed: Option<io::Error>,
}

/// Replaces the file by `text`, at once for whoever reads it, and keeps the one before as `FILE.bak`. `last_read` is
/// what the caller believes to be in it. A symbolic link stays and the file that it leads to is replaced; owner and mode
/// stay, access control lists do not. What a crash left behind in an earlier call is removed.
///
/// # Errors
/// With any error the file is as it was; `FILE.bak` may be a copy of it by then.
pub fn replace(path: &Path, last_read: &str, text: &str) -> Result<Replaced, StoreError> {
    let place = Place::find(path)?;
    let lock = place.lock()?;
    let meta = place.writable()?;
    let present = place.read()?;
    place.is_unchanged(&present, last_read)?;
    place.clean()?;
    let result = place.write(&meta, &present, last_read, text, &lock);
    if result.is_err() {
        // The error that is told is the one that stopped the writing; what stays behind is removed the next time.
        let _ = place.clean();
    }
    result
}

/// Where the file really is, and the names beside it.
struct Place {
    file: PathBuf,
    directory: PathBuf,
    new: PathBuf,
    new_backup: PathBuf,
    backup: PathBuf,
}

impl Place {
    fn find(path: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Failed { path: path.to_owned(), step: "finding the file", error };
        let file = fs::canonicalize(path).map_err(failed)?;
        let (Some(directory), Some(name)) = (file.parent().map(Path::to_owned), file.file_name().map(OsString::from))
        else {
            return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
        };
        let beside = |front: &str, back: &str| {
            let mut beside = OsString::from(front);
            beside.push(&name);
            beside.push(back);
            directory.join(beside)
        };
        let (new, new_backup, backup) =
            (beside(".", ".speedmimi-new"), beside(".", ".speedmimi-bak"), beside("", ".bak"));
        Ok(Place { new, new_backup, backup, file, directory })
    }

    /// Held until the handle is closed, by the end of the process too. File systems that know no locks go without.
    fn lock(&self) -> Result<File, StoreError> {
        let directory = File::open(&self.directory).map_err(|error| self.failed("opening the directory", error))?;
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy { path: self.file.clone() }),
            _ => Ok(directory),
        }
    }

    /// What the file is like, when it may be replaced. That a rename needs no right to the file itself does not mean
    /// that whoever took the right away agrees.
    fn writable(&self) -> Result<Metadata, StoreError> {
        let meta = fs::metadata(&self.file).map_err(|error| self.failed("reading its attributes", error))?;
        if !meta.is_file() {
            return Err(self.read_only("it is no regular file"));
        }
        if self.is_projected() {
            return Err(self.read_only("it belongs to a volume that Kubernetes keeps; change the ConfigMap or Secret"));
        }
        if meta.mode() & 0o222 == 0 {
            return Err(self.read_only("nobody has the right to write it; chmod u+w allows it"));
        }
        match OpenOptions::new().write(true).open(&self.file) {
            Ok(_) => Ok(meta),
            Err(error) => Err(self.read_only(&error.to_string())),
        }
    }

    /// The layout of such volumes: `FILE -> ..data/FILE`, `..data -> ..2026_01_01`.
    fn is_projected(&self) -> bool {
        let hidden = self.directory.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
        let link = self.directory.parent().map(|above| above.join("..data"));
        hidden && link.is_some_and(|link| link.is_symlink())
    }

    fn read(&self) -> Result<Vec<u8>, StoreError> {
        let read = || {
            let mut bytes = Vec::new();
            File::open(&self.file)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|error| self.failed("reading it", error))
    }

    fn is_unchanged(&self, present: &[u8], last_read: &str) -> Result<(), StoreError> {
        if present == last_read.as_bytes() {
            return Ok(());
        }
        let difference = short_difference(last_read, &String::from_utf8_lossy(present));
        Err(StoreError::Changed { difference })
    }

    fn clean(&self) -> Result<(), StoreError> {
        for left in [&self.new, &self.new_backup] {
            match fs::remove_file(left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.failed("removing what an earlier call left", error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Everything that may fail comes before the one rename that counts.
    fn write(
        &self,
        meta: &Metadata,
        present: &[u8],
        last_read: &str,
        text: &str,
        directory: &File,
    ) -> Result<Replaced, StoreError> {
        crash::step(0);
        self.copy(&self.new, meta, text.as_bytes(), 1)?;
        self.copy(&self.new_backup, meta, present, 4)?;
        fs::rename(&self.new_backup, &self.backup).map_err(|error| self.failed("keeping the one before", error))?;
        crash::step(7);
        sync(directory).map_err(|error| self.failed("writing the directory", error))?;
        crash::step(8);
        // The writing took its time; what was changed meanwhile is not lost either.
        self.is_unchanged(&self.read()?, last_read)?;
        fs::rename(&self.new, &self.file).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => self.read_only("it is mounted by itself; mount its directory instead"),
            _ => self.failed("replacing it", error),
        })?;
        crash::step(9);
        let unconfirmed = sync(directory).err();
        crash::step(10);
        Ok(Replaced { unconfirmed })
    }

    /// A new file with the owner and mode of the old one, on disk when this returns.
    fn copy(&self, path: &Path, meta: &Metadata, content: &[u8], step: u32) -> Result<(), StoreError> {
        let failed = |error| self.failed("writing a new file beside it", error);
        // Nobody else can read it before it has its owner.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|error| {
            match error.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    self.read_only(&format!("no new file can be made in its directory: {error}"))
                }
                _ => failed(error),
            }
        })?;
        crash::step(step);
        file.write_all(content).map_err(failed)?;
        crash::step(step + 1);
        self.keep_owner(&file, meta)?;
        // After the owner: changing that takes bits of the mode away.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(meta.permissions().mode() & 0o7777))
            .map_err(|error| failed(error.into()))?;
        file.sync_all().map_err(failed)?;
        crash::step(step + 2);
        Ok(())
    }

    fn keep_owner(&self, file: &File, meta: &Metadata) -> Result<(), StoreError> {
        let own = file.metadata().map_err(|error| self.failed("reading attributes", error))?;
        if (own.uid(), own.gid()) == (meta.uid(), meta.gid()) {
            return Ok(());
        }
        rustix::fs::fchown(file, Some(Uid::from_raw(meta.uid())), Some(Gid::from_raw(meta.gid()))).map_err(|error| {
            self.read_only(&format!("its owner ({}:{}) could not be kept: {error}", meta.uid(), meta.gid()))
        })
    }

    fn failed(&self, step: &'static str, error: io::Error) -> StoreError {
        StoreError::Failed { path: self.file.clone(), step, error }
    }

    fn read_only(&self, why: &str) -> StoreError {
        StoreError::ReadOnly { path: self.file.clone(), why: why.to_owned() }
    }
}

/// Names of files last like their contents; file systems without such a thing say that the call makes no sense.
fn sync(directory: &File) -> io::Result<()> {
    match directory.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

#[cfg(not(test))]
mod crash {
    /// Nothing; tests end the process here.
    pub(super) fn step(_: u32) {}
}

#[cfg(test)]
mod crash {
    pub(super) const VARIABLE: &str = "SPEEDMIMI_TEST_CRASH_AT";

    /// Ends the process as kill -9 would, when it was started for that.
    pub(super) fn step(step: u32) {
        if std::env::var(VARIABLE).is_ok_and(|at| at == step.to_string()) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory of its own for a test, removed after it.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("speedmimi-store-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            Directory(path)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }

        /// What is in it, sorted.
        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    #[test]
    fn a_file_is_replaced_and_the_one_before_is_kept() {
        let directory = Directory::new();
        let path = directory.file("c.yaml", "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&path, Some(1234), Some(4321)).unwrap();
        }
        let before = fs::metadata(&path).unwrap();
        assert!(replace(&path, "one", "two").unwrap().unconfirmed.is_none());
        assert!(replace(&path, "two", "three").unwrap().unconfirmed.is_none());
        let backup = directory.0.join("c.yaml.bak");
        assert_eq!((text(&path), text(&backup)), ("three".to_owned(), "two".to_owned()));
        for path in [&path, &backup] {
            let after = fs::metadata(path).unwrap();
            assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
        }
        assert_eq!(directory.names(), ["c.yaml", "c.yaml.bak"]);
    }

    #[test]
    fn a_link_stays_and_what_it_leads_to_is_replaced() {
        let directory = Directory::new();
        let path = directory.file("real.yaml", "one");
        let link = directory.0.join("c.yaml");
        symlink("real.yaml", &link).unwrap();
        replace(&link, "one", "two").unwrap();
        assert!(link.is_symlink());
        assert_eq!((text(&link), text(&path)), ("two".to_owned(), "two".to_owned()));
        assert_eq!(directory.names(), ["c.yaml", "real.yaml", "real.yaml.bak"]);
    }

    #[test]
    fn a_file_that_was_changed_is_not_touched() {
        let directory = Directory::new();
        let path = directory.file("c.yaml", "a: 1\nb: 3\n");
        let error = replace(&path, "a: 1\nb: 2\n", "new").unwrap_err();
        let StoreError::Changed { difference } = &error else { panic!("{error}") };
        assert_eq!(difference, "@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n");
        assert_eq!((text(&path).as_str(), directory.names().len()), ("a: 1\nb: 3\n", 1));
    }

    #[test]
    fn what_may_not_be_written_is_refused() {
        let directory = Directory::new();
        let path = directory.file("c.yaml", "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        assert!(matches!(replace(&path, "one", "two"), Err(StoreError::ReadOnly { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        if !is_root() {
            fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o555)).unwrap();
            assert!(matches!(replace(&path, "one", "two"), Err(StoreError::ReadOnly { .. })));
            fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(matches!(replace(&directory.0, "", ""), Err(StoreError::ReadOnly { .. })));
        assert!(matches!(replace(Path::new("/proc/version"), "", ""), Err(StoreError::ReadOnly { .. })));
        assert!(matches!(replace(&directory.0.join("none"), "", ""), Err(StoreError::Failed { .. })));
        assert_eq!((text(&path).as_str(), directory.names()), ("one", vec!["c.yaml".to_owned()]));
    }

    #[test]
    fn volumes_of_kubernetes_are_refused() {
        let directory = Directory::new();
        fs::create_dir(directory.0.join("..2026_01_01")).unwrap();
        directory.file("..2026_01_01/c.yaml", "one");
        symlink("..2026_01_01", directory.0.join("..data")).unwrap();
        symlink("..data/c.yaml", directory.0.join("c.yaml")).unwrap();
        let error = replace(&directory.0.join("c.yaml"), "one", "two").unwrap_err();
        assert!(error.to_string().contains("ConfigMap"), "{error}");
    }

    #[test]
    fn nothing_is_left_when_the_last_step_fails() {
        let directory = Directory::new();
        let path = directory.file("c.yaml", "one");
        // A directory in the place of the backup, with something in it: the rename to it fails.
        fs::create_dir(directory.0.join("c.yaml.bak")).unwrap();
        directory.file("c.yaml.bak/x", "");
        assert!(matches!(replace(&path, "one", "two"), Err(StoreError::Failed { step: "keeping the one before", .. })));
        assert_eq!(
            (text(&path).as_str(), directory.names()),
            ("one", vec!["c.yaml".to_owned(), "c.yaml.bak".to_owned()])
        );
    }

    #[test]
    fn one_writes_at_a_time() {
        let directory = Directory::new();
        let path = directory.file("c.yaml", "one");
        let lock = Place::find(&path).unwrap().lock().unwrap();
        assert!(matches!(replace(&path, "one", "two"), Err(StoreError::Busy { .. })));
        drop(lock);
        replace(&path, "one", "two").unwrap();
    }

    /// The steps of [`crash::step`].
    const STEPS: u32 = 11;

    /// The file that the process below writes.
    const PATH_VARIABLE: &str = "SPEEDMIMI_TEST_CRASH_FILE";

    /// Not a test of its own: the process that `a_crash_at_any_step_leaves_one_whole_file` starts.
    #[test]
    fn the_process_that_crashes() {
        let Some(path) = std::env::var_os(PATH_VARIABLE) else { return };
        replace(Path::new(&path), &"old\n".repeat(10_000), &"new\n".repeat(20_000)).unwrap();
    }

    #[test]
    fn a_crash_at_any_step_leaves_one_whole_file() {
        let (old, new) = ("old\n".repeat(10_000), "new\n".repeat(20_000));
        for step in 0..STEPS {
            let directory = Directory::new();
            let path = directory.file("c.yaml", &old);
            directory.file("c.yaml.bak", "older");
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "config::store::tests::the_process_that_crashes"])
                .env(crash::VARIABLE, step.to_string())
                .env(PATH_VARIABLE, &path)
                .output()
                .unwrap()
                .status;
            assert_eq!(status.signal(), Some(9), "step {step} was not reached");
            let (left, backup) = (text(&path), text(&directory.0.join("c.yaml.bak")));
            assert_eq!(left == new, step >= 9, "step {step}");
            assert!(left == old || left == new, "step {step}: {} bytes", left.len());
            assert!(backup == "older" || backup == old, "step {step}: {} bytes", backup.len());
            replace(&path, &left, "next").unwrap();
            assert_eq!((text(&path), text(&directory.0.join("c.yaml.bak"))), ("next".to_owned(), left));
            assert_eq!(directory.names(), ["c.yaml", "c.yaml.bak"], "step {step}");
        }
    }
}
