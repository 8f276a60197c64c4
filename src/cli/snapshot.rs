//! What the kernel says of a machine, read once, so that whoever judges it needs no machine.
//!
//! Owns the values and the reading. Never changes anything and never judges; what can't be read is `None` or empty.

pub mod files;
pub mod interfaces;
pub mod process;

use std::collections::BTreeMap;

use self::files::Files;
use self::interfaces::Interface;
use self::process::Limits;
use crate::control::machine::group::{self, Levels};
use crate::control::machine::parse;

/// The keys of sysctl(8) that are looked at.
pub const SYSCTLS: &[&str] = &[
    "fs.file-max",
    "fs.file-nr",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "kernel.osrelease",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_ehash_entries",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_moderate_rcvbuf",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "vm.overcommit_memory",
    "vm.swappiness",
    "vm.zone_reclaim_mode",
];

/// A machine at one moment, as one process sees it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Values of [`SYSCTLS`], those that are there.
    pub sysctls: BTreeMap<String, String>,
    /// `ListenDrops` and the like, of this network namespace, since it began.
    pub counters: BTreeMap<String, u64>,
    /// Of all sockets in this namespace.
    pub sockets: Sockets,
    /// Packets dropped because a CPU's queue was full, since the machine started.
    pub packets_dropped: Option<u64>,
    /// Network interfaces with hardware behind them.
    pub interfaces: Vec<Interface>,
    /// CPUs that are there.
    pub cpus: Vec<usize>,
    /// CPUs that the process may run on.
    pub allowed: Vec<usize>,
    /// CPUs by the number of their NUMA node; of some there are none.
    pub nodes: Vec<Vec<usize>>,
    pub memory: Memory,
    /// The word in brackets of `transparent_hugepage/enabled` and of `defrag`.
    pub huge_pages: Option<(String, String)>,
    /// In use, and those that could be.
    pub clock: Option<(String, String)>,
    /// Of the process; of this one, a new one started from the same shell has the same.
    pub limits: Limits,
    pub group: Group,
    /// Whether irqbalance(1) runs.
    pub irqbalance: bool,
}

/// What `/proc/net/sockstat` counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    pub orphan: u64,
    pub time_wait: u64,
    /// Pages of buffered data, of the whole machine.
    pub pages: u64,
}

/// Of the machine, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub swap: u64,
    pub swap_free: u64,
    /// A page, which `tcp_mem` counts in: 4096, on some machines of ARM and IBM 65536.
    pub page: u64,
}

/// The tightest limits of the control groups that the process is in.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Group {
    /// CPUs that a quota grants.
    pub cpus: Option<f64>,
    /// Periods of that quota, and those of them in which the group was held up.
    pub throttled: Option<(u64, u64)>,
    /// Bytes: limit and use.
    pub memory: Option<(u64, u64)>,
    /// Threads: limit and use.
    pub threads: Option<(u64, u64)>,
}

impl Snapshot {
    /// Reads what `subject` sees: the directory of a process below `/proc`, or `self`.
    pub fn read(files: &Files, subject: &str) -> Snapshot {
        let proc = |path: &str| format!("proc/{subject}/{path}");
        let status = files.text(&proc("status"));
        Snapshot {
            sysctls: sysctls(files),
            counters: [proc("net/netstat"), proc("net/snmp")].iter().flat_map(|f| counters(&files.text(f))).collect(),
            sockets: sockets(&files.text(&proc("net/sockstat"))),
            packets_dropped: packets_dropped(&files.text("proc/net/softnet_stat")),
            interfaces: interfaces::read(files),
            cpus: parse::cpu_list(&files.text("sys/devices/system/cpu/online")),
            allowed: parse::field(&status, "Cpus_allowed_list").map(parse::cpu_list).unwrap_or_default(),
            nodes: nodes(files),
            memory: memory(&files.text("proc/meminfo")),
            huge_pages: huge_pages(files),
            clock: clock(files),
            limits: process::limits(&files.text(&proc("limits"))),
            group: Group::read(files, subject),
            irqbalance: is_running(files, "irqbalance"),
        }
    }

    /// The text of a sysctl.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.sysctls.get(key).map(String::as_str)
    }

    /// The first number of a sysctl.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.numbers(key).first().copied()
    }

    /// All numbers of a sysctl.
    pub fn numbers(&self, key: &str) -> Vec<i64> {
        let words = self.text(key).unwrap_or_default().split_ascii_whitespace();
        // One that is too large is as large as can be: some kernels have 2⁶⁴ - 1 for no limit.
        let number = |word: &str| word.parse::<i128>().ok().map(|n| n.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
        words.map_while(number).collect()
    }

    /// A counter; 0 when there is none of that name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Whether the kernel has io_uring, as new as parked connections need it, and for everybody.
    pub fn has_rings(&self) -> bool {
        self.kernel().is_some_and(|version| version >= (6, 8)) && self.number("kernel.io_uring_disabled") == Some(0)
    }

    /// The kernel's version, as two numbers.
    pub fn kernel(&self) -> Option<(u32, u32)> {
        let mut parts = self.text("kernel.osrelease")?.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Memory that may be used, in bytes: a group's limit or the machine's, whichever is smaller.
    pub fn memory_bytes(&self) -> u64 {
        let limit = self.group.memory.map_or(u64::MAX, |(limit, _)| limit);
        if self.memory.total == 0 { limit } else { limit.min(self.memory.total) }
    }

    /// Ports that the kernel takes for outgoing connections, without those set aside.
    pub fn local_ports(&self) -> Option<u64> {
        let range = self.numbers("net.ipv4.ip_local_port_range");
        let &[first, last] = &range[..] else { return None };
        let reserved = self.reserved_ports();
        Some((first..=last).filter(|&port| !reserved.iter().any(|r| (r.0..=r.1).contains(&port))).count() as u64)
    }

    /// Ranges of ports that are set aside.
    pub fn reserved_ports(&self) -> Vec<(i64, i64)> {
        let range = |part: &str| {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        self.text("net.ipv4.ip_local_reserved_ports").unwrap_or_default().split(',').filter_map(range).collect()
    }
}

/// The file of a sysctl, below the root.
pub fn sysctl_path(key: &str) -> String {
    format!("proc/sys/{}", key.replace('.', "/"))
}

fn sysctls(files: &Files) -> BTreeMap<String, String> {
    let value = |key: &&str| {
        let text = files.text(&sysctl_path(key));
        (!text.is_empty()).then(|| ((*key).to_owned(), words(&text)))
    };
    SYSCTLS.iter().filter_map(value).collect()
}

/// With one space between words, as people write it.
pub fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// Pairs of lines, names above numbers.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines.as_chunks::<2>().0.iter().flat_map(|[names, numbers]| {
        let (names, numbers) = (names.split_ascii_whitespace(), numbers.split_ascii_whitespace());
        names.zip(numbers).skip(1)
    });
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

fn sockets(text: &str) -> Sockets {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let of = |name: &str| words.as_chunks::<2>().0.iter().find(|pair| pair[0] == name)?[1].parse().ok();
    let of = |name| of(name).unwrap_or(0);
    Sockets { orphan: of("orphan"), time_wait: of("tw"), pages: of("mem") }
}

/// The second column of `/proc/net/softnet_stat`, over all CPUs.
fn packets_dropped(text: &str) -> Option<u64> {
    let dropped = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok();
    let all: Vec<u64> = text.lines().filter_map(dropped).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}

fn memory(text: &str) -> Memory {
    let kib = |name| parse::field(text, name).and_then(parse::kib).unwrap_or(0);
    Memory {
        total: kib("MemTotal"),
        swap: kib("SwapTotal"),
        swap_free: kib("SwapFree"),
        page: rustix::param::page_size() as u64,
    }
}

fn nodes(files: &Files) -> Vec<Vec<usize>> {
    const DIR: &str = "sys/devices/system/node";
    /// More than any kernel is built for.
    const NODES_MAX: usize = 1024;
    let number = |name: &String| name.strip_prefix("node")?.parse::<usize>().ok().filter(|&node| node < NODES_MAX);
    let mut nodes = Vec::new();
    for node in files.names(DIR).iter().filter_map(number) {
        nodes.resize(nodes.len().max(node + 1), Vec::new());
        nodes[node] = parse::cpu_list(files.text(&format!("{DIR}/node{node}/cpulist")).trim());
    }
    nodes
}

fn huge_pages(files: &Files) -> Option<(String, String)> {
    let chosen = |name: &str| {
        let text = files.text(&format!("sys/kernel/mm/transparent_hugepage/{name}"));
        Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
    };
    Some((chosen("enabled")?, chosen("defrag")?))
}

fn clock(files: &Files) -> Option<(String, String)> {
    const DIR: &str = "sys/devices/system/clocksource/clocksource0";
    let current = files.text(&format!("{DIR}/current_clocksource"));
    let available = files.text(&format!("{DIR}/available_clocksource"));
    (!current.is_empty()).then(|| (words(&current), words(&available)))
}

/// Whether a process of that name is there.
fn is_running(files: &Files, name: &str) -> bool {
    let is_process = |id: &String| id.bytes().all(|b| b.is_ascii_digit());
    files
        .names("proc")
        .iter()
        .filter(|id| is_process(id))
        .any(|id| files.text(&format!("proc/{id}/comm")).trim() == name)
}

impl Group {
    fn read(files: &Files, subject: &str) -> Group {
        let own = files.text(&format!("proc/{subject}/cgroup"));
        let mounts = files.text(&format!("proc/{subject}/mountinfo"));
        let levels = |controller| Levels::find(&own, &mounts, controller, files.root());
        // The tightest limit of all levels, with what is used of it.
        let tightest = |levels: &Levels, limit: &str, used: &str| {
            let (dir, limit) = levels.smallest(limit)?;
            Some((limit, group::number(&dir.join(used)).unwrap_or(0)))
        };
        let (cpu, memory) = (levels("cpu"), levels("memory"));
        let quota = cpu.quota().and_then(|(level, cpus)| Some((cpu.directories.get(level)?, cpus)));
        let stat = quota.map(|(dir, _)| group::read(&dir.join("cpu.stat"))).unwrap_or_default();
        let (limit, used) = (
            memory.either("memory.max", "memory.limit_in_bytes"),
            memory.either("memory.current", "memory.usage_in_bytes"),
        );
        Group {
            cpus: quota.map(|(_, cpus)| cpus),
            throttled: parse::counter(&stat, "nr_periods").zip(parse::counter(&stat, "nr_throttled")),
            // Version 1 says a number near 2⁶³ where there is no limit.
            memory: tightest(&memory, limit, used).filter(|&(limit, _)| limit < 1 << 60),
            threads: tightest(&levels("pids"), "pids.max", "pids.current"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_stand_in_pairs_of_lines() {
        let all = counters("TcpExt: A ListenDrops B\nTcpExt: 1 7 -3\nIpExt: C\nIpExt: 9\n");
        assert_eq!((all.get("ListenDrops"), all.get("C"), all.get("B")), (Some(&7), Some(&9), None));
        assert!(counters("TcpExt: A\n").is_empty());
    }

    #[test]
    fn sockets_are_read_by_name() {
        let text = "sockets: used 12\nTCP: inuse 5 orphan 1 tw 7 alloc 9 mem 185\nUDP: inuse 0 mem 0\n";
        assert_eq!(sockets(text), Sockets { orphan: 1, time_wait: 7, pages: 185 });
        assert_eq!(sockets(""), Sockets::default());
    }

    #[test]
    fn dropped_packets_are_hexadecimal() {
        assert_eq!(packets_dropped("23a6edd3 00000010 0\n23a6edd3 00000001 0\n"), Some(17));
        assert_eq!(packets_dropped(""), None);
    }

    #[test]
    fn a_number_that_is_too_large_is_as_large_as_can_be() {
        let value = ("fs.file-max".to_owned(), "18446744073709551615".to_owned());
        let snapshot = Snapshot { sysctls: [value].into(), ..Snapshot::default() };
        assert_eq!(snapshot.number("fs.file-max"), Some(i64::MAX));
    }

    #[test]
    fn reserved_ports_are_no_local_ports() {
        let mut snapshot = Snapshot::default();
        assert_eq!(snapshot.local_ports(), None);
        let mut set = |key: &str, value: &str| snapshot.sysctls.insert(key.to_owned(), value.to_owned());
        set("net.ipv4.ip_local_port_range", "1000 1009");
        set("net.ipv4.ip_local_reserved_ports", "1001,1005-1006,9000");
        set("kernel.osrelease", "6.18.44-fc");
        assert_eq!((snapshot.local_ports(), snapshot.kernel()), (Some(7), Some((6, 18))));
    }
}
