//! What the kernel says about a process and the machine: CPU time, memory, slab.
//!
//! Owns the reading of `/proc`. Never changes anything.

use crate::error::{Error, Result, Trying};
use crate::sys;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a process tree took so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in ns, of all threads, those that have ended included.
    pub cpu_ns: u64,
    /// `RssAnon + RssShmem + VmSwap` in bytes.
    pub user_bytes: u64,
}

/// What this process and its descendants took so far, CPU time of those that have ended included.
///
/// # Errors
/// When there is no such process.
pub fn usage(pid: u32) -> Result<Usage> {
    let own_ns = sys::process_cpu_ns(pid).trying(|| format!("reading the CPU time of process {pid}"))?;
    let mut sum = Usage { cpu_ns: own_ns + waited_for_ns(pid), user_bytes: user_bytes(pid)? };
    for child in children(pid) {
        let of_child = usage(child).unwrap_or_else(|_| Usage {
            // One that has ended and was not waited for has no memory any more; one that was is the parent's.
            cpu_ns: sys::process_cpu_ns(child).unwrap_or(0),
            user_bytes: 0,
        });
        sum.cpu_ns += of_child.cpu_ns;
        sum.user_bytes += of_child.user_bytes;
    }
    Ok(sum)
}

/// CPU time of the descendants of a process that have ended and were waited for, in ns; in whole ticks.
fn waited_for_ns(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have blanks and brackets in it; what follows it begins with the third field.
    let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    (ticks(16) + ticks(17)) * (1_000_000_000 / rustix::param::clock_ticks_per_second().max(1))
}

/// CPU time of the calling process, its ended threads included.
pub fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Kernel memory in slabs, of the whole machine, in bytes.
pub fn slab_bytes() -> u64 {
    memory_bytes("Slab:")
}

/// A field of `/proc/meminfo`, like `MemTotal:`, in bytes; 0 when there is none.
pub fn memory_bytes(field: &str) -> u64 {
    fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib_field(&text, field)).unwrap_or(0) * 1024
}

/// Sockets of TCP that wait for their last packets to die out, in this network namespace.
pub fn time_wait_count() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: ")).unwrap_or_default();
    let mut words = line.split(' ').skip_while(|word| *word != "tw").skip(1);
    words.next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Name of a process, as the kernel knows it.
pub fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// The process that listens on an address, by its port: of several the one that is nobody's child among them. `None`
/// when there is none, when it may not be looked at, or when it is this process.
pub fn listening_on(address: SocketAddr) -> Option<u32> {
    let listeners = listening_sockets(address);
    let mut found: Vec<u32> = numbers("/proc").filter(|pid| holds_any(*pid, &listeners)).collect();
    found.retain(|pid| *pid != std::process::id());
    let all = found.clone();
    found.into_iter().find(|pid| parent(*pid).is_none_or(|parent| !all.contains(&parent)))
}

/// Inodes of the sockets that listen on a port, there or on all addresses.
fn listening_sockets(address: SocketAddr) -> HashSet<u64> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).filter_map(|line| listener(line, address)).collect()
}

/// The inode in a line of `/proc/net/tcp`, when it is a listener for the address.
fn listener(line: &str, address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    let (ip, port) = local.split_once(':')?;
    // Addresses are groups of four bytes as the machine has them in memory.
    let groups = |bytes: &[u8]| -> String {
        let group = |four: &[u8]| format!("{:08X}", u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
        bytes.chunks_exact(4).map(group).collect()
    };
    let own = match address.ip() {
        IpAddr::V4(v4) => [groups(&v4.octets()), groups(&v4.to_ipv6_mapped().octets())],
        IpAddr::V6(v6) => [groups(&v6.octets()), String::new()],
    };
    let fits = ip.bytes().all(|digit| digit == b'0') || own.iter().any(|own| own == ip);
    let is_it = state == LISTEN && fits && u16::from_str_radix(port, 16) == Ok(address.port());
    is_it.then(|| words.nth(5)?.parse().ok()).flatten()
}

/// Whether one of a process's descriptor tables holds one of these sockets.
fn holds_any(pid: u32, sockets: &HashSet<u64>) -> bool {
    let holds = |dir: &str| {
        let links = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let inode = |link: std::path::PathBuf| -> Option<u64> {
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        };
        links.filter_map(inode).any(|inode| sockets.contains(&inode))
    };
    if sockets.is_empty() {
        return false;
    }
    // Threads may have tables of their own.
    holds(&format!("/proc/{pid}/fd"))
        || numbers(&format!("/proc/{pid}/task"))
            .any(|task| task != pid && holds(&format!("/proc/{pid}/task/{task}/fd")))
}

fn parent(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// The entries of a directory whose names are numbers.
fn numbers(dir: &str) -> impl Iterator<Item = u32> {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
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
pub(crate) fn kib_field(text: &str, name: &str) -> Option<u64> {
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

    /// Without them a process that ends threads would seem to take less and less.
    #[test]
    fn cpu_time_of_threads_that_ended_counts() {
        const BURNT: Duration = Duration::from_millis(30);
        let before = usage(std::process::id()).unwrap().cpu_ns;
        let burn = || {
            let own = || {
                let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
            };
            while own() < BURNT {
                std::hint::spin_loop();
            }
        };
        std::thread::spawn(burn).join().unwrap();
        let took = usage(std::process::id()).unwrap().cpu_ns - before;
        assert!(took >= BURNT.as_nanos() as u64, "{took} ns");
        assert!(sys::process_cpu_ns(u32::MAX).is_err());
    }

    #[test]
    fn listeners_are_told_by_address_and_state() {
        let line = |local: &str, state: &str| {
            format!(
                "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n"
            )
        };
        let address = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(listener(&line("0100007F:1F90", "0A"), address), Some(4711));
        assert_eq!(listener(&line("00000000:1F90", "0A"), address), Some(4711));
        assert_eq!(listener(&line("0000000000000000FFFF00000100007F:1F90", "0A"), address), Some(4711));
        assert_eq!(listener(&line("0100007F:1F90", "01"), address), None);
        assert_eq!(listener(&line("0200007F:1F90", "0A"), address), None);
        assert_eq!(listener(&line("0100007F:1F91", "0A"), address), None);
        assert_eq!(listener("  sl  local_address rem_address   st", address), None);
    }

    #[test]
    fn this_process_is_not_what_is_looked_for() {
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = own.local_addr().unwrap();
        assert!(holds_any(std::process::id(), &listening_sockets(address)));
        assert_eq!(listening_on(address), None);
    }

    #[test]
    fn fields_are_read_in_kib() {
        assert_eq!(kib_field("RssAnon:\t     116 kB\nVmSwap:\t  0 kB\n", "RssAnon:"), Some(116));
        assert_eq!(kib_field("RssAnon:\t     116 kB\n", "VmSwap:"), None);
    }
}
