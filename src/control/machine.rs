//! What the machine has and how busy it is, as this process may see it: within the limits of its container where there
//! are any, else of the whole machine; and what the process itself uses.
//!
//! Owns the sampler: a few small files read once a second, by control. Never guesses: what can't be read is 0. What the
//! files say is taken apart by [`parse`].

pub mod group;
pub mod parse;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::group::{Levels, number, read};

/// Whose limits the figures are within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// Nobody's: the whole machine.
    #[default]
    None,
    /// A control group's of version 1, for CPU or memory.
    Cgroup1,
    /// A control group's of version 2, for CPU or memory.
    Cgroup2,
}

/// One sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Whose limits count.
    pub container: Container,
    /// CPUs that may be used: a quota of the container, or the CPUs that the process may run on if that is less.
    pub cpus: f64,
    /// Of `cpus`, percent, over the time since the last sample. Within a quota what the container used, else what
    /// everybody used of the CPUs that the process may run on; time stolen by the host of a virtual machine counts as
    /// used.
    pub cpu_usage: f64,
    /// Memory in use, bytes. In a container without the file cache that is inactive, on a machine all that is not
    /// available.
    pub memory_used_bytes: u64,
    /// Memory that may be used, bytes.
    pub memory_limit_bytes: u64,
    /// Of the file system, percent, as `df` has it: what is kept for root counts as neither used nor free.
    pub disk_usage: f64,
    /// Of the last 1, 5 and 15 minutes. The machine's: the kernel keeps none for a container.
    pub load_avg: [f64; 3],
    /// Received, KB (1024 bytes) a second.
    pub network_in: f64,
    /// Sent, KB (1024 bytes) a second.
    pub network_out: f64,
    /// This process.
    pub process: Process,
}

impl Machine {
    /// Memory in use, percent of what may be used.
    pub fn memory_usage(&self) -> f64 {
        percent(self.memory_used_bytes as f64, self.memory_limit_bytes as f64)
    }
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    /// Percent of one CPU, over the time since the last sample.
    pub cpu_usage: f64,
    /// CPU time since the start, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Of it, what no file stands behind, bytes.
    pub rss_anon_bytes: u64,
    /// Of it, shared memory, bytes.
    pub rss_shmem_bytes: u64,
    pub threads: u64,
    /// In all descriptor tables.
    pub open_descriptors: u64,
}

/// Where this process's descriptors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// In one table.
    Shared,
    /// Each worker, told by its thread's name, has a table of its own beside the process's.
    PerWorker,
}

/// How the names of threads with tables of their own begin.
const WORKER_THREADS: &str = "worker-";

/// Takes samples; holds what rates are counted from.
#[derive(Debug)]
pub struct Sampler {
    root: PathBuf,
    disk: PathBuf,
    tables: Tables,
    groups: Groups,
    last: Counts,
}

/// The control groups of this process that may set limits.
#[derive(Debug, Default)]
struct Groups {
    cpu: Levels,
    /// With version 1, where the time used is counted.
    cpu_time: Levels,
    memory: Levels,
}

/// Numbers that only grow, at one sample.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    at_us: u64,
    cpu: CpuTime,
    network: parse::Traffic,
    process_us: u64,
}

/// CPU time, by whose it is.
#[derive(Clone, Copy, Debug)]
enum CpuTime {
    /// That a container used, in microseconds, of its quota.
    Quota { cpus: f64, used_us: u64 },
    /// Of the machine's CPUs, in the kernel's ticks.
    Machine(parse::Ticks),
}

impl Default for CpuTime {
    fn default() -> Self {
        CpuTime::Machine(parse::Ticks::default())
    }
}

impl Sampler {
    /// A sampler of the file system at `root` (`/`, but for tests), which says how full the file system of `disk` is.
    /// Takes the first reading at `now_us` of the process clock, so that the first sample has something to count from.
    pub fn new(root: &Path, disk: &Path, tables: Tables, now_us: u64) -> Self {
        let groups = Groups::find(root);
        let disk = disk.to_owned();
        let mut sampler = Sampler { root: root.to_owned(), disk, tables, groups, last: Counts::default() };
        sampler.last = sampler.counts(now_us, &sampler.allowed_cpus());
        sampler
    }

    /// Takes a sample at `now_us` of the process clock; to be called about once a second.
    pub fn sample(&mut self, now_us: u64) -> Machine {
        let allowed = self.allowed_cpus();
        let now = self.counts(now_us, &allowed);
        let last = std::mem::replace(&mut self.last, now);
        let seconds = now_us.saturating_sub(last.at_us) as f64 / 1e6;
        let (cpus, cpu_usage) = cpu_usage(last.cpu, now.cpu, seconds);
        let (memory_used_bytes, memory_limit_bytes, limits_memory) = self.memory();
        let container = match now.cpu {
            CpuTime::Quota { .. } => self.groups.cpu.version,
            CpuTime::Machine(_) => limits_memory,
        };
        let kb_a_second = |now: u64, last: u64| per(now.saturating_sub(last) as f64 / 1024.0, seconds);
        Machine {
            container,
            cpus,
            cpu_usage,
            memory_used_bytes,
            memory_limit_bytes,
            disk_usage: disk_usage(&self.disk),
            load_avg: parse::load_averages(&self.read("proc/loadavg")).unwrap_or_default(),
            network_in: kb_a_second(now.network.received, last.network.received),
            network_out: kb_a_second(now.network.sent, last.network.sent),
            process: self.process(now.process_us, now.process_us.saturating_sub(last.process_us), seconds),
        }
    }

    /// The text of a file below the root; empty when it can't be read.
    fn read(&self, path: &str) -> String {
        read(&self.root.join(path))
    }

    fn allowed_cpus(&self) -> Vec<usize> {
        let status = self.read("proc/self/status");
        parse::field(&status, "Cpus_allowed_list").map(parse::cpu_list).unwrap_or_default()
    }

    fn counts(&self, now_us: u64, allowed: &[usize]) -> Counts {
        let ticks = parse::ticks(&self.read("proc/stat"), allowed);
        let cpu = match self.groups.quota().filter(|&(cpus, _)| ticks.cpus == 0 || cpus < ticks.cpus as f64) {
            Some((cpus, used_us)) => CpuTime::Quota { cpus, used_us },
            None => CpuTime::Machine(ticks),
        };
        Counts { at_us: now_us, cpu, network: self.traffic(), process_us: crate::sys::process_cpu_us() }
    }

    /// Used, limit, and whose limit it is.
    fn memory(&self) -> (u64, u64, Container) {
        let info = self.read("proc/meminfo");
        let kib = |name| parse::field(&info, name).and_then(parse::kib).unwrap_or(0);
        let total = kib("MemTotal");
        // The file of version 1 says a number near 2⁶³ where there is no limit.
        match self.groups.memory().filter(|&(_, limit)| total == 0 || limit < total) {
            Some((used, limit)) => (used, limit, self.groups.memory.version),
            None => (total.saturating_sub(kib("MemAvailable")), total, Container::None),
        }
    }

    /// What went over the interfaces that have hardware behind them, or, where none has, as in containers, over all but
    /// the loopback. Traffic within the machine is no network's; counting bridges and tunnels beside the interface that
    /// they use would count it twice.
    fn traffic(&self) -> parse::Traffic {
        let interfaces = parse::interfaces(&self.read("proc/net/dev"));
        let is_hardware = |name: &str| self.root.join("sys/class/net").join(name).join("device").exists();
        let hardware: Vec<_> = interfaces.iter().filter(|(name, _)| is_hardware(name)).collect();
        let others = interfaces.iter().filter(|(name, _)| name != "lo");
        let counted = if hardware.is_empty() { others.collect() } else { hardware };
        counted.into_iter().fold(parse::Traffic::default(), |sum, (_, traffic)| sum.plus(*traffic))
    }

    fn process(&self, cpu_us: u64, moved_us: u64, seconds: f64) -> Process {
        let status = self.read("proc/self/status");
        let kib = |name| parse::field(&status, name).and_then(parse::kib).unwrap_or(0);
        Process {
            cpu_usage: per(moved_us as f64 / 1e4, seconds),
            cpu_seconds: cpu_us as f64 / 1e6,
            rss_bytes: kib("VmRSS"),
            rss_anon_bytes: kib("RssAnon"),
            rss_shmem_bytes: kib("RssShmem"),
            threads: parse::field(&status, "Threads").and_then(|n| n.parse().ok()).unwrap_or(0),
            open_descriptors: self.open_descriptors(),
        }
    }

    fn open_descriptors(&self) -> u64 {
        let shared = entries_of_table(&self.root.join("proc/self/fd"));
        if self.tables == Tables::Shared {
            return shared;
        }
        let threads = fs::read_dir(self.root.join("proc/self/task")).into_iter().flatten().flatten();
        let workers = threads.map(|thread| thread.path()).filter(|t| read(&t.join("comm")).starts_with(WORKER_THREADS));
        shared + workers.map(|thread| entries_of_table(&thread.join("fd"))).sum::<u64>()
    }
}

impl Groups {
    fn find(root: &Path) -> Groups {
        let own = read(&root.join("proc/self/cgroup"));
        let mounts = read(&root.join("proc/self/mountinfo"));
        let of = |controller| Levels::find(&own, &mounts, controller, root);
        Groups { cpu: of("cpu"), cpu_time: of("cpuacct"), memory: of("memory") }
    }

    /// The tightest quota, in CPUs, and the time used in microseconds by the group that has it.
    fn quota(&self) -> Option<(f64, u64)> {
        let (level, cpus) = self.cpu.quota()?;
        let used_us = match self.cpu.version {
            Container::Cgroup1 => number(&self.cpu_time.directories.get(level)?.join("cpuacct.usage"))? / 1000,
            _ => parse::counter(&read(&self.cpu.directories.get(level)?.join("cpu.stat")), "usage_usec")?,
        };
        Some((cpus, used_us))
    }

    /// What is used and the tightest limit, in bytes, of the group that has it.
    fn memory(&self) -> Option<(u64, u64)> {
        let memory = &self.memory;
        let (dir, limit) = memory.smallest(memory.either("memory.max", "memory.limit_in_bytes"))?;
        let used = memory.either("memory.current", "memory.usage_in_bytes");
        let inactive = memory.either("inactive_file", "total_inactive_file");
        let inactive = parse::counter(&read(&dir.join("memory.stat")), inactive).unwrap_or(0);
        Some((number(&dir.join(used))?.saturating_sub(inactive), limit))
    }
}

/// CPUs that may be used and the part of them that was, in percent.
fn cpu_usage(last: CpuTime, now: CpuTime, seconds: f64) -> (f64, f64) {
    match (last, now) {
        (CpuTime::Quota { used_us: last_us, .. }, CpuTime::Quota { cpus, used_us }) => {
            let used = used_us.saturating_sub(last_us) as f64 / 1e6;
            (cpus, percent(used, cpus * seconds))
        }
        (CpuTime::Machine(last), CpuTime::Machine(now)) => {
            let (busy, all) = (now.busy.saturating_sub(last.busy), now.all.saturating_sub(last.all));
            (now.cpus as f64, percent(busy as f64, all as f64))
        }
        // A quota was set or lifted since: what was counted before doesn't compare.
        (_, CpuTime::Quota { cpus, .. }) => (cpus, 0.0),
        (_, CpuTime::Machine(now)) => (now.cpus as f64, 0.0),
    }
}

fn disk_usage(path: &Path) -> f64 {
    rustix::fs::statvfs(path).map_or(0.0, |disk| {
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        percent(used as f64, used.saturating_add(disk.f_bavail) as f64)
    })
}

/// Descriptors in a table. Kernels since 6.2 say how many as the size of the directory; before, they are counted.
fn entries_of_table(directory: &Path) -> u64 {
    match fs::metadata(directory).map_or(0, |told| told.len()) {
        0 => fs::read_dir(directory).map_or(0, |entries| entries.count() as u64),
        told => told,
    }
}

/// Within 0..=100.
fn percent(part: f64, whole: f64) -> f64 {
    (per(part, whole) * 100.0).clamp(0.0, 100.0)
}

fn per(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}
