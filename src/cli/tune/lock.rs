//! One `speedmimi tune` at a time: a lock on a file beside the state.
//!
//! Owns that file, which stays: who removed it could let two in. Never looks into the state.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Held for as long as the state may change; the kernel gives it back however the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the state at `path`, without waiting for whoever has it.
    ///
    /// # Errors
    /// When another process has it, or the file can't be had.
    pub fn take(path: &Path) -> io::Result<Lock> {
        fs::create_dir_all(super::apply::directory_of(path))?;
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(beside(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(io::Error::other("another `speedmimi tune` is at work; try again")),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}
