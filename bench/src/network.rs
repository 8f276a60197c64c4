//! A network namespace for one run, with a connection hash, ports and backlogs for very many connections.
//!
//! Owns what is set, and puts back what the whole machine sees. Never touches the network that the machine is reached by:
//! the namespace has a loopback interface and nothing else, and goes away with the last process in it.

use crate::error::{Error, Result, Trying};
use crate::machine;
use crate::sys;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::FileExt;

/// One setting, as `sysctl` names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// E.g. `net.core.somaxconn`.
    pub name: String,
    /// What it was before.
    pub before: String,
    /// What it is now.
    pub value: String,
    /// Why.
    pub why: String,
}

/// Being in a namespace of one's own. Dropping it puts back what is not the namespace's; the thread stays inside.
pub struct Namespace {
    /// Everything that was set.
    pub settings: Vec<Setting>,
    /// Of these, what the whole machine sees.
    global: Vec<Setting>,
}

/// Where so many connections are to be opened, both of their ends here.
///
/// To be called before any thread is started: only the caller, and what it starts then, is inside.
///
/// # Errors
/// When it is not allowed: it needs root.
pub fn enter(connections: u64) -> Result<Namespace> {
    let mut space = Namespace { settings: Vec::new(), global: Vec::new() };
    let files = 2 * connections + FILES_SPARE;
    if read("fs.file-max")?.parse::<u64>().is_ok_and(|max| max < files) {
        space.set_global("fs.file-max", &files.to_string(), "two open files a connection, one an end")?;
    }
    // Only the namespace that is made next has its own hash; later ones share the machine's as before.
    let entries = (2 * connections).next_power_of_two().clamp(HASH_ENTRIES_MIN, HASH_ENTRIES_MAX).to_string();
    let name = "net.ipv4.tcp_child_ehash_entries";
    let before = read(name)?;
    // Opened outside, it stays the machine's: after the move the same path would be the new namespace's.
    let open = || fs::OpenOptions::new().write(true).open(path(name));
    let outside = open().trying(|| format!("opening {name}"))?;
    let set = |value: &str| outside.write_all_at(value.as_bytes(), 0).trying(|| format!("setting {name} to {value}"));
    set(&entries)?;
    let inside = sys::private_network().trying(|| "making a network namespace (root is needed)".into());
    set(&before)?;
    inside?;
    let why = "the namespace's connection hash: a chain of about one, where two ends of every connection are kept";
    space.settings.push(Setting { name: name.into(), before, value: entries, why: why.into() });
    sys::loopback_up().trying(|| "bringing the loopback interface up".into())?;
    for (name, value, why) in INSIDE {
        space.set(name, value, why)?;
    }
    Ok(space)
}

/// Files of everything else.
const FILES_SPARE: u64 = 500_000;
const HASH_ENTRIES_MIN: u64 = 1 << 16;
/// What the kernel takes at most.
const HASH_ENTRIES_MAX: u64 = 1 << 24;

/// Set inside the namespace, seen by nobody else.
const INSIDE: [(&str, &str, &str); 4] = [
    ("net.ipv4.ip_local_port_range", "1024 65535", "64,512 ports for each source address"),
    ("net.core.somaxconn", "65535", "the most that may wait to be accepted"),
    ("net.ipv4.tcp_max_syn_backlog", "65535", "the most that may be half open"),
    ("net.ipv4.tcp_congestion_control", "reno", "BBR paces, which costs timers and brings nothing on a loopback"),
];

impl Namespace {
    fn set(&mut self, name: &str, value: &str, why: &str) -> Result<()> {
        let before = read(name)?;
        write(name, value)?;
        let text = |text: &str| text.to_owned();
        self.settings.push(Setting { name: text(name), before, value: text(value), why: text(why) });
        Ok(())
    }

    fn set_global(&mut self, name: &str, value: &str, why: &str) -> Result<()> {
        self.set(name, value, why)?;
        self.global.extend(self.settings.last().cloned());
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        for setting in &self.global {
            if let Err(error) = write(&setting.name, &setting.before) {
                eprintln!("speedmimi-bench: {} stays {}: {error}", setting.name, setting.value);
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

fn read(name: &str) -> Result<String> {
    machine::sysctl(name).ok_or_else(|| Error::Failed(format!("{name} can't be read")))
}

fn write(name: &str, value: &str) -> Result<()> {
    fs::write(path(name), value).trying(|| format!("setting {name} to {value}"))
}
