//! What would be set for so many connections, each with why and at what cost.
//!
//! Owns the rules: only what differs, only what helps; limits are raised, never lowered. Pure: a snapshot and what is
//! wanted in, changes out. Nothing here is written anywhere.

use crate::cli::doctor::network::{
    BUFFER_DEFAULT_MAX, BUFFER_LARGEST_MIN, buffer_pages, conntrack_buckets, conntrack_needed, endangered_ports,
    widened_ports,
};
use crate::cli::doctor::processors::{is_crowded, is_narrow, lacks_xps, near, shares, spread};
use crate::cli::doctor::room::files_needed;
use crate::cli::snapshot::interfaces::{Interface, mask_of_cpus};
use crate::cli::snapshot::{Snapshot, sysctl_path};
use crate::cli::wanted::Wanted;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What belongs together: a step is set whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// How many descriptors there may be.
    Descriptors,
    /// Queues before accepting.
    Backlog,
    /// Ports for connections to backends.
    Ports,
    /// Options of TCP that somebody switched off.
    Options,
    /// Buffers, and memory for them.
    Buffers,
    /// Room for connection tracking.
    Conntrack,
    /// Fair queueing and BBR.
    Congestion,
    /// Packets passed on to other CPUs, and sending queues (RPS, XPS).
    Queues,
    /// Interrupts spread over CPUs.
    Interrupts,
}

impl Step {
    /// In the order in which they are set.
    pub const ALL: [Step; 9] = [
        Step::Descriptors,
        Step::Backlog,
        Step::Ports,
        Step::Options,
        Step::Buffers,
        Step::Conntrack,
        Step::Congestion,
        Step::Queues,
        Step::Interrupts,
    ];

    /// As it is written on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Something to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub step: Step,
    /// A key of sysctl(8), or a file below `/sys` or `/proc/irq`.
    pub key: String,
    pub now: String,
    pub wanted: String,
    pub why: &'static str,
    pub cost: &'static str,
}

/// Whether a key is one of those that are set here: the state file is not to lead anywhere else.
pub fn is_settable(key: &str) -> bool {
    let is_numbered = |word: &str, prefix: &str| {
        word.strip_prefix(prefix).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    match key.strip_prefix('/').map(|path| path.split('/').collect::<Vec<_>>()).as_deref() {
        None => SETTABLE.contains(&key),
        Some(["sys", "class", "net", name, "queues", queue, file]) => {
            let is_name = !name.is_empty() && !name.starts_with('.');
            let is_queue =
                is_numbered(queue, "rx-") && *file == "rps_cpus" || is_numbered(queue, "tx-") && *file == "xps_cpus";
            is_name && is_queue
        }
        Some(["proc", "irq", number, "smp_affinity_list"]) => is_numbered(number, ""),
        Some(_) => false,
    }
}

/// The keys of sysctl(8) among them.
pub const SETTABLE: &[&str] = &[
    "fs.file-max",
    "fs.nr_open",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_congestion_control",
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
    "net.netfilter.nf_conntrack_max",
];

/// The file of a key, below the root.
pub fn path_of(key: &str) -> String {
    key.strip_prefix('/').map_or_else(|| sysctl_path(key), str::to_owned)
}

/// Everything that differs, by step.
pub fn all(snapshot: &Snapshot, wanted: &Wanted) -> Vec<Change> {
    let mut rules = Rules { snapshot, changes: Vec::new() };
    rules.descriptors(wanted);
    rules.backlog(wanted);
    // Before the ports: what can be done about those rests on timestamps.
    rules.options();
    rules.ports(wanted);
    rules.buffers(wanted);
    rules.conntrack(wanted);
    rules.congestion(wanted);
    rules.queues();
    rules.interrupts();
    rules.changes.sort_by_key(|change| change.step);
    rules.changes
}

struct Rules<'a> {
    snapshot: &'a Snapshot,
    changes: Vec<Change>,
}

impl Rules<'_> {
    /// Sets a key that is there and has another value.
    fn set(&mut self, step: Step, key: &str, wanted: String, why: &'static str, cost: &'static str) {
        let Some(now) = self.snapshot.text(key).or_else(|| may_be_empty(key).then_some("")) else { return };
        if now != wanted {
            let (key, now) = (key.to_owned(), now.to_owned());
            self.changes.push(Change { step, key, now, wanted, why, cost });
        }
    }

    /// Raises a number that is there and too low.
    fn raise(&mut self, step: Step, key: &str, least: u64, why: &'static str, cost: &'static str) {
        if self.snapshot.number(key).is_some_and(|now| now.unsigned_abs() < least) {
            self.set(step, key, least.to_string(), why, cost);
        }
    }

    fn descriptors(&mut self, wanted: &Wanted) {
        if let Some(ceiling) = self.snapshot.number("fs.nr_open")
            && wanted.clients_of(ceiling.unsigned_abs()).clients_max < wanted.connections
        {
            let why = "RLIMIT_NOFILE can't be raised beyond it, and all clients are to fit";
            self.raise(
                Step::Descriptors,
                "fs.nr_open",
                wanted.descriptors_needed(),
                why,
                "8 bytes for each descriptor that is used",
            );
        }
        let why = "open files of the whole machine: each client, and as much again for backends and everything else";
        self.raise(
            Step::Descriptors,
            "fs.file-max",
            files_needed(wanted),
            why,
            "none until they are open, then 256 bytes each",
        );
    }

    fn backlog(&mut self, wanted: &Wanted) {
        let backlog = u64::from(wanted.server.backlog);
        let why =
            "server.backlog is cut to it: what comes in a burst waits there instead of trying again a second later";
        self.raise(Step::Backlog, "net.core.somaxconn", backlog, why, "2 KB of kernel memory for each that waits");
        let why = "with cookies forged SYNs keep nobody out";
        self.raise(Step::Backlog, "net.ipv4.tcp_syncookies", 1, why, "none until the queue is full");
        let is_narrow = self.snapshot.interfaces.iter().any(|it| is_narrow(self.snapshot, it));
        if !is_narrow && self.snapshot.packets_dropped.unwrap_or(0) == 0 {
            return;
        }
        let why = "packets that wait for a CPU: some were dropped, or RPS is to pass them on";
        self.raise(
            Step::Backlog,
            "net.core.netdev_max_backlog",
            16_384,
            why,
            "under overload packets wait longer before they are dropped",
        );
    }

    fn ports(&mut self, wanted: &Wanted) {
        let tight = |ports: u64| wanted.destinations.iter().any(|to| to.connections > ports.saturating_mul(to.sources));
        if self.snapshot.local_ports().is_some_and(|ports| ports < 20_000 || tight(ports)) {
            let why = "twice the ports to each backend; below 10240 are those that services usually listen on";
            let cost =
                "a service that listens above 10240 may find its port taken: put it into ip_local_reserved_ports";
            self.set(Step::Ports, "net.ipv4.ip_local_port_range", widened_ports(self.snapshot), why, cost);
        }
        self.reserve(wanted);
        if self.snapshot.number("net.ipv4.tcp_timestamps") != Some(0)
            || self.changes.iter().any(|c| c.step == Step::Options)
        {
            let why = "a closed port can be used for a new connection after a second instead of a minute";
            let cost = "none known where timestamps are on: they tell old packets from new (RFC 6191)";
            self.set(Step::Ports, "net.ipv4.tcp_tw_reuse", "1".to_owned(), why, cost);
        }
        let why = "closed connections that may wait; beyond it they end at once";
        self.raise(Step::Ports, "net.ipv4.tcp_max_tw_buckets", 65_536, why, "240 bytes for each that waits");
    }

    /// Sets the ports aside that are listened on, by the range as it will be.
    fn reserve(&mut self, wanted: &Wanted) {
        let mut after = self.snapshot.clone();
        let range = self.changes.iter().find(|change| change.key == "net.ipv4.ip_local_port_range");
        after.sysctls.extend(range.map(|range| (range.key.clone(), range.wanted.clone())));
        let taken = endangered_ports(&after, wanted);
        if taken.is_empty() {
            return;
        }
        let before = self.snapshot.reserved_ports();
        let ports = taken.iter().map(|&port| (i64::from(port), i64::from(port)));
        let list = merged(before.into_iter().chain(ports).collect());
        let why = "a port that the proxy listens on is not taken for an outgoing connection while it restarts";
        self.set(Step::Ports, "net.ipv4.ip_local_reserved_ports", list, why, "none");
    }

    fn options(&mut self) {
        let why = "somebody switched them off: closed ports could not be used again, nor old packets be told from new";
        self.raise(Step::Options, "net.ipv4.tcp_timestamps", 1, why, "12 bytes a packet");
        let why = "somebody switched them off: one lost packet stalls a connection for a round trip for each that was lost with it";
        self.raise(Step::Options, "net.ipv4.tcp_sack", 1, why, "none");
        let why = "somebody switched it off: no connection has more than 64 KiB under way";
        self.raise(Step::Options, "net.ipv4.tcp_window_scaling", 1, why, "none");
    }

    fn buffers(&mut self, wanted: &Wanted) {
        let why = "as the kernel has them: buffers that begin small and grow with what a connection needs";
        let cost = "none: what is larger by default is held by every busy connection, whether it helps or not";
        for (key, middle, largest) in [("net.ipv4.tcp_rmem", 131_072, 6 << 20), ("net.ipv4.tcp_wmem", 16_384, 4 << 20)]
        {
            let Ok([smallest, default, most]) = <[i64; 3]>::try_from(self.snapshot.numbers(key)) else { continue };
            if default <= BUFFER_DEFAULT_MAX && most >= BUFFER_LARGEST_MIN {
                continue;
            }
            let most = if most < BUFFER_LARGEST_MIN { largest } else { most };
            let default = if default > BUFFER_DEFAULT_MAX { middle } else { default };
            self.set(Step::Buffers, key, format!("{} {default} {most}", smallest.min(default)), why, cost);
        }
        let why = "somebody switched it off: receive buffers of uploads from afar don't grow";
        self.raise(Step::Buffers, "net.ipv4.tcp_moderate_rcvbuf", 1, why, "none");
        let needed = buffer_pages(wanted);
        if let Ok([least, pressure, most]) = <[i64; 3]>::try_from(self.snapshot.numbers("net.ipv4.tcp_mem"))
            && most.unsigned_abs() < needed
        {
            let (least, pressure) = (least.unsigned_abs(), pressure.unsigned_abs());
            let why = "buffered data of all connections: a page for one in eight; beyond it packets are dropped";
            let list = format!("{} {} {needed}", (needed / 2).max(least), (needed / 4 * 3).max(pressure));
            self.set(Step::Buffers, "net.ipv4.tcp_mem", list, why, "that memory, when so much is under way");
        }
    }

    fn conntrack(&mut self, wanted: &Wanted) {
        if self.snapshot.number("net.netfilter.nf_conntrack_count").is_none_or(|count| count == 0) {
            return;
        }
        let why = "a full table drops every new connection; better still not to track the proxy's: --notrack";
        self.raise(
            Step::Conntrack,
            "net.netfilter.nf_conntrack_max",
            conntrack_needed(wanted),
            why,
            "some 300 bytes for each that is tracked",
        );
        let why = "more than four tracked connections in a chain are cache misses for every packet";
        self.raise(
            Step::Conntrack,
            "net.netfilter.nf_conntrack_buckets",
            conntrack_buckets(wanted),
            why,
            "8 bytes each, and a moment in which the table is moved",
        );
    }

    /// Fair queueing first: BBR wants it. Where the configuration names another, that is what its connections use.
    fn congestion(&mut self, wanted: &Wanted) {
        if wanted.other_than_bbr().is_some() {
            return;
        }
        let available = self.snapshot.text("net.ipv4.tcp_available_congestion_control").unwrap_or_default();
        if !available.split(' ').any(|one| one == "bbr") {
            return;
        }
        let why = "paces for BBR, fairly between connections, without a timer for each; for interfaces that come up from now on";
        self.set(Step::Congestion, "net.core.default_qdisc", "fq".to_owned(), why, "a look-up for each packet");
        let why = "lossy and long paths keep their speed: clients on mobile networks above all";
        let cost = "a few percent of CPU for pacing; on a path shared with cubic it may take more than its part";
        self.set(Step::Congestion, "net.ipv4.tcp_congestion_control", "bbr".to_owned(), why, cost);
    }

    fn queues(&mut self) {
        let cpus = &self.snapshot.cpus;
        for interface in &self.snapshot.interfaces {
            if is_narrow(self.snapshot, interface) {
                let near = near(self.snapshot, interface);
                for queue in 0..interface.receive.len() {
                    let why = "few receiving queues for many CPUs: packets are passed on, by connection (RPS)";
                    let cost = "a call to another CPU for each batch; of no use where the hardware has queues enough";
                    self.mask(interface, ("rx", queue, "rps_cpus"), &interface.receive[queue], near, (why, cost));
                }
            }
            if lacks_xps(interface) {
                for (queue, share) in shares(cpus, interface.send.len()).iter().enumerate() {
                    let why = "CPUs have sending queues of their own (XPS)";
                    self.mask(interface, ("tx", queue, "xps_cpus"), &[], share, (why, "none"));
                }
            }
        }
    }

    fn mask(
        &mut self,
        interface: &Interface,
        (way, queue, file): (&str, usize, &str),
        now: &[usize],
        wanted: &[usize],
        (why, cost): (&'static str, &'static str),
    ) {
        let key = format!("/sys/class/net/{}/queues/{way}-{queue}/{file}", interface.name);
        let (now, wanted) = (mask_of_cpus(now), mask_of_cpus(wanted));
        if now != wanted {
            self.changes.push(Change { step: Step::Queues, key, now, wanted, why, cost });
        }
    }

    fn interrupts(&mut self) {
        // It would put them where it wants them again.
        if self.snapshot.irqbalance {
            return;
        }
        for interface in &self.snapshot.interfaces {
            if !is_crowded(self.snapshot, interface) {
                continue;
            }
            for (interrupt, cpu) in interface.interrupts.iter().zip(spread(self.snapshot, interface)) {
                if interrupt.cpus == [cpu] {
                    continue;
                }
                self.changes.push(Change {
                    step: Step::Interrupts,
                    key: format!("/proc/irq/{}/smp_affinity_list", interrupt.number),
                    now: interrupt.cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
                    wanted: cpu.to_string(),
                    why: "one CPU takes the packets of several queues and is the first to be full",
                    cost: "none; irqbalance, if it is started, puts them elsewhere again",
                });
            }
        }
    }
}

/// Keys that have no text when nothing is set.
fn may_be_empty(key: &str) -> bool {
    key == "net.ipv4.ip_local_reserved_ports"
}

/// Ranges of ports in order, as the kernel writes them: those that touch are one.
fn merged(mut ranges: Vec<(i64, i64)>) -> String {
    ranges.sort_unstable();
    let mut all: Vec<(i64, i64)> = Vec::new();
    for (first, last) in ranges {
        match all.last_mut() {
            Some(before) if first <= before.1 + 1 => before.1 = before.1.max(last),
            _ => all.push((first, last)),
        }
    }
    let shown = |(first, last): (i64, i64)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    all.into_iter().map(shown).collect::<Vec<_>>().join(",")
}
