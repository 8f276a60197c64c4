//! What the kernel's text files say (proc(5), cgroups(7)).
//!
//! Owns pure functions from text to numbers. Never reads a file; text that makes no sense gives `None` or nothing.

use std::path::{Path, PathBuf};

/// The value behind `name:` at the start of a line, as in `/proc/meminfo` and `/proc/self/status`.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Bytes from `123 kB`, which the kernel means in units of 1024.
pub fn kib(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number behind `name` at the start of a line, as in `cpu.stat` and `memory.stat`.
pub fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
}

/// CPUs of a list such as `0-3,8`; what makes no sense is left out.
pub fn cpu_list(list: &str) -> Vec<usize> {
    /// More than any kernel is built for.
    const CPUS_MAX: usize = 65_536;
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        Some(first..=last.min(CPUS_MAX))
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Time of CPUs in the kernel's ticks, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks {
    /// CPUs counted.
    pub cpus: usize,
    /// Not idle and not waiting for disks; what the host of a virtual machine took is not there to be used either.
    pub busy: u64,
    /// In all.
    pub all: u64,
}

/// The time of the CPUs in `wanted` (of all when it is empty) from `/proc/stat`.
pub fn ticks(stat: &str, wanted: &[usize]) -> Ticks {
    let mut sum = Ticks::default();
    for line in stat.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(cpu) = words.next().and_then(|word| word.strip_prefix("cpu")?.parse::<usize>().ok()) else { continue };
        if !wanted.is_empty() && !wanted.contains(&cpu) {
            continue;
        }
        // user nice system idle iowait irq softirq steal; what follows is part of user and nice.
        let times: Vec<u64> = words.take(8).map_while(|word| word.parse().ok()).collect();
        let all: u64 = times.iter().fold(0, |sum, &time| sum.saturating_add(time));
        let idle = times.iter().skip(3).take(2).fold(0u64, |sum, &time| sum.saturating_add(time));
        sum.cpus += 1;
        sum.all = sum.all.saturating_add(all);
        sum.busy = sum.busy.saturating_add(all - idle);
    }
    sum
}

/// The three averages of `/proc/loadavg`.
pub fn load_averages(text: &str) -> Option<[f64; 3]> {
    let mut averages = text.split_ascii_whitespace().map(|word| word.parse::<f64>().ok().filter(|n| n.is_finite()));
    Some([averages.next()??, averages.next()??, averages.next()??])
}

/// Bytes over an interface since it came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
}

impl Traffic {
    /// Both together.
    pub fn plus(self, other: Traffic) -> Traffic {
        Traffic { received: self.received.saturating_add(other.received), sent: self.sent.saturating_add(other.sent) }
    }
}

/// The interfaces of `/proc/net/dev`.
pub fn interfaces(text: &str) -> Vec<(String, Traffic)> {
    let interface = |line: &str| {
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        Some((name.trim().to_owned(), Traffic { received: *numbers.first()?, sent: *numbers.get(8)? }))
    };
    text.lines().filter_map(interface).collect()
}

/// CPUs that `cpu.max` grants (version 2); `None` when it sets no limit.
pub fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    quotient(quota, period)
}

/// CPUs that `cpu.cfs_quota_us` grants of `cpu.cfs_period_us` (version 1); `None` when they set no limit.
pub fn cfs_quota(quota: &str, period: &str) -> Option<f64> {
    quotient(quota, period)
}

fn quotient(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.trim().parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// The directories of this process's control group and of those above it, its own first, below `root`. `controller`
/// names one of version 1; `None` means version 2. `own` is `/proc/self/cgroup`, `mounts` is `/proc/self/mountinfo`.
/// Empty when there is no such hierarchy.
pub fn group_levels(own: &str, mounts: &str, controller: Option<&str>, root: &Path) -> Vec<PathBuf> {
    let levels = || {
        let path = group_path(own, controller)?;
        let (mounted, at) = mount(mounts, controller)?;
        let top = root.join(at.trim_start_matches('/'));
        // In a container the mount may begin where the group is; what it doesn't show can't be read.
        let below = Path::new(path).strip_prefix(mounted).unwrap_or(Path::new(""));
        // A path that leads out of what is mounted is none of ours.
        let is_inside = !below.components().any(|part| part.as_os_str() == "..");
        let below = if is_inside { below } else { Path::new("") };
        Some(below.ancestors().map(|level| top.join(level)).collect())
    };
    levels().unwrap_or_default()
}

/// The path of this process's group from a line such as `4:cpu,cpuacct:/path` or `0::/path`.
fn group_path<'a>(own: &'a str, controller: Option<&str>) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let is_it = match controller {
            Some(name) => controllers.split(',').any(|c| c == name),
            None => id == "0" && controllers.is_empty(),
        };
        is_it.then_some(path)
    })
}

/// What of a hierarchy is mounted, and where.
fn mount(mounts: &str, controller: Option<&str>) -> Option<(String, String)> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let (mut mount, mut kind) = (mount.split(' ').skip(3), kind.split(' '));
        let (root, at) = (mount.next()?, mount.next()?);
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let is_it = match controller {
            Some(name) => kind == "cgroup" && options.split(',').any(|option| option == name),
            None => kind == "cgroup2",
        };
        is_it.then(|| (unescaped(root), unescaped(at)))
    })
}

/// Spaces, tabs, line breaks and backslashes are written as three octal digits.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, c)| text.replace(escape, c))
}
