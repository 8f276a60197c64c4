//! How a file looks from outside, to see that it has changed.
//!
//! Owns the stamp. Never opens a file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Tells one state of a file from another without reading it. Of the file at the end of symbolic links, so that one that
/// is bent to another file is seen as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl From<Metadata> for Stamp {
    fn from(file: Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.size(),
            modified_ns: ns(file.mtime(), file.mtime_nsec()),
            changed_ns: ns(file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Stamp {
    /// That of a file; `None` when there is none.
    pub fn of(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().map(Stamp::from)
    }
}
