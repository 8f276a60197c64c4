//! A directory for the files of one run: configurations, certificates and logs of what it starts.
//!
//! Owns its name and its end. Never takes one that was there before.

use crate::error::{Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Names that are tried.
const ATTEMPT_COUNT_MAX: usize = 1_000;

/// A new directory, removed with all that is in it when this is dropped.
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// Makes one among the system's temporary files.
    ///
    /// # Errors
    /// When none can be made there.
    pub fn new() -> Result<Dir> {
        let parent = std::env::temp_dir();
        for attempt in 0..ATTEMPT_COUNT_MAX {
            let path = parent.join(format!("speedmimi-bench-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Dir(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::Io { what: format!("making {}", path.display()), source: error }),
            }
        }
        Err(Error::Failed(format!("no name for a directory is free in {}", parent.display())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where a file in it is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_new_and_goes_with_its_files() {
        let (one, other) = (Dir::new().unwrap(), Dir::new().unwrap());
        assert_ne!(one.path(), other.path());
        fs::write(one.file("a"), "b").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && other.path().is_dir());
    }
}
