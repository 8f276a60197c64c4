//! The control group of a process and those above it, as far as they can be seen, and what the tightest of them grants
//! (cgroups(7), both versions).
//!
//! Owns their directories and the look at their files. Never keeps a figure.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Container, parse};

/// One group's directories for one controller: its own first, then those above it.
#[derive(Debug, Default)]
pub struct Levels {
    /// [`Container::None`] only in a default one, which has no directories.
    pub version: Container,
    pub directories: Vec<PathBuf>,
}

impl Levels {
    /// Of the process whose `/proc/PID/cgroup` is `own` and whose `/proc/PID/mountinfo` is `mounts`, below `root`.
    pub fn find(own: &str, mounts: &str, controller: &str, root: &Path) -> Levels {
        let levels = |controller| parse::group_levels(own, mounts, controller, root);
        // Where both versions are in use, a controller is in one of them.
        match levels(Some(controller)) {
            none if none.is_empty() => Levels { version: Container::Cgroup2, directories: levels(None) },
            directories => Levels { version: Container::Cgroup1, directories },
        }
    }

    /// The name of a file that both versions have under different ones.
    pub fn either<'a>(&self, v2: &'a str, v1: &'a str) -> &'a str {
        if self.version == Container::Cgroup1 { v1 } else { v2 }
    }

    /// The tightest quota, in CPUs, and the level that has it, 0 for the group's own.
    pub fn quota(&self) -> Option<(usize, f64)> {
        let quota = |dir: &Path| match self.version {
            Container::Cgroup1 => {
                parse::cfs_quota(&read(&dir.join("cpu.cfs_quota_us")), &read(&dir.join("cpu.cfs_period_us")))
            }
            _ => parse::cpu_max(&read(&dir.join("cpu.max"))),
        };
        let quotas = self.directories.iter().enumerate().filter_map(|(level, dir)| Some((level, quota(dir)?)));
        quotas.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// The smallest number in a file of that name, and the directory that it is in; `max` is none.
    pub fn smallest(&self, name: &str) -> Option<(&Path, u64)> {
        let numbers = self.directories.iter().filter_map(|dir| Some((dir.as_path(), number(&dir.join(name))?)));
        numbers.min_by_key(|&(_, number)| number)
    }
}

/// The number that a file holds; `None` for a word such as `max`.
pub fn number(path: &Path) -> Option<u64> {
    read(path).trim().parse().ok()
}

/// A file's text; empty when it can't be read.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
