//! A directory that goes with its test: for configuration files, logs and sockets.
//!
//! Owns what is in it. Never holds what outlives a test.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of its own, removed at the end.
pub struct Dir(PathBuf);

impl Dir {
    /// One whose name no other test uses. In the system's place for such, as a Unix socket's path has at most 107 bytes.
    pub fn new(test: &str) -> Dir {
        // Tests of one process may use the same name at once.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("speedmimi-{test}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Dir(path)
    }

    /// Where a file of that name is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file; its path as a command line takes it.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left is in the system's temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
