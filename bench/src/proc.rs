//! What the kernel says about a process and the machine: CPU time, memory, slab.
//!
//! Owns the reading of `/proc`. Never changes anything.

use crate::error::{Error, Result, Trying};
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Duration;

/// What a process tree took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in ns: the sum over all threads of `/proc/PID/task/*/schedstat`.
    pub cpu_ns: u64,
    /// `RssAnon + RssShmem + VmSwap` in bytes.
    pub user_bytes: u64,
}

/// What this process and its descendants took so far. Threads that have ended are not counted any more.
///
/// # Errors
/// When there is no such process.
pub fn usage(pid: u32) -> Result<Usage> {
    let mut sum = Usage { cpu_ns: cpu_ns(pid)?, user_bytes: user_bytes(pid)? };
    for child in children(pid) {
        // One that ended meanwhile takes nothing.
        let of_child = usage(child).unwrap_or_default();
        sum.cpu_ns += of_child.cpu_ns;
        sum.user_bytes += of_child.user_bytes;
    }
    Ok(sum)
}

/// CPU time of the calling process, its ended threads included.
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Kernel memory in slabs, of the whole machine, in bytes.
pub fn slab_bytes() -> u64 {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_field(&text, "Slab:")).unwrap_or(0) * 1024
}

/// The model of the first CPU, or what is known.
pub fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or(": unknown CPU");
    line.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// The congestion control that sockets have unless they choose: `bbr` paces, and costs, also on loopback.
pub fn congestion_control() -> String {
    let name = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    if name.is_empty() { "unknown".to_owned() } else { name.trim().to_owned() }
}

fn cpu_ns(pid: u32) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).trying(|| format!("reading process {pid}"))?;
    let of_task = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Ok(tasks.flatten().filter_map(|task| of_task(task.path())).sum())
}

fn user_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).trying(|| format!("reading process {pid}"))?;
    let fields = ["RssAnon:", "RssShmem:", "VmSwap:"];
    let kib: Option<u64> = fields.iter().map(|name| kib_field(&text, name)).sum();
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::Failed(format!("process {pid} has no memory any more")))
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    listed.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// A field like `Slab:   123 kB`.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_can_be_read() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.user_bytes > 0);
        assert!(slab_bytes() > 0);
    }

    #[test]
    fn fields_are_read_in_kib() {
        assert_eq!(kib_field("RssAnon:\t     116 kB\nVmSwap:\t  0 kB\n", "RssAnon:"), Some(116));
        assert_eq!(kib_field("RssAnon:\t     116 kB\n", "VmSwap:"), None);
    }
}
