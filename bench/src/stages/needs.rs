//! What so many connections need of the kernel: looked at and told before, never set.
//!
//! Owns the arithmetic of ports, backlogs and memory, and the wait for ports between stages.

use crate::load::{self, PER_SOURCE_MAX, RAMP_COUNT_MAX, sources_for};
use crate::machine::{sysctl, sysctl_numbers};
use crate::proc;
use crate::target::Target;
use crate::traffic::Traffic;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Kernel memory of both ends of a connection that is in use, and what a proxy holds for it, in bytes: sockets of 4.3 KB and
/// a few packets on their way.
const CONNECTION_BYTES: u64 = 16 << 10;
/// Pages that both ends of a busy connection take of `tcp_mem`.
const CONNECTION_PAGES: u64 = 2;
/// Between stages at least: the target closes what it held, and ports become free after a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for ports: a socket is in TIME_WAIT for 60 s.
const PORTS_TIME_MAX: Duration = Duration::from_secs(65);
const TICK: Duration = Duration::from_millis(20);

/// What the kernel has.
#[derive(Clone, Debug)]
struct Has {
    ports: u64,
    somaxconn: u64,
    syn_backlog: u64,
    /// Pages of TCP above which buffers shrink.
    tcp_pages: u64,
    files: u64,
    memory_bytes: u64,
}

impl Has {
    fn now() -> Has {
        let number = |name: &str, at: usize| sysctl_numbers(name).get(at).copied().unwrap_or(u64::MAX);
        Has {
            ports: port_count(),
            somaxconn: number("net.core.somaxconn", 0),
            syn_backlog: number("net.ipv4.tcp_max_syn_backlog", 0),
            tcp_pages: number("net.ipv4.tcp_mem", 1),
            files: number("fs.file-max", 0),
            memory_bytes: proc::memory_bytes("MemAvailable:"),
        }
    }
}

fn port_count() -> u64 {
    match sysctl_numbers("net.ipv4.ip_local_port_range")[..] {
        [from, to] if to >= from => to - from + 1,
        _ => u64::MAX,
    }
}

/// What to know before: one line for each thing that there is too little of.
pub(super) fn notes(target: &Target, load: &load::Options) -> Vec<String> {
    let connections = load.connections;
    let sources = load::sources_for(target, connections as usize, load.traffic.sources).max(1) as u64;
    let threads = load::thread_count(connections as usize, load.threads) as u64;
    lacks(&Has::now(), connections, sources, threads)
}

fn lacks(has: &Has, connections: u64, sources: u64, threads: u64) -> Vec<String> {
    let mut notes = Vec::new();
    // Half of them may be closing from the stage before.
    let each = connections.div_ceil(sources);
    if each.saturating_mul(2) > has.ports {
        notes.push(format!(
            "{each} connections from a source address, of {} ports: set net.ipv4.ip_local_port_range to '1024 65535', or \
             give --sources (one per {PER_SOURCE_MAX} connections)",
            has.ports
        ));
    }
    // As many as may be opening at once.
    let opening = connections.min(RAMP_COUNT_MAX as u64 * threads);
    for (name, value) in [("net.core.somaxconn", has.somaxconn), ("net.ipv4.tcp_max_syn_backlog", has.syn_backlog)] {
        if value < opening {
            notes.push(format!("{name} is {value}: up to {opening} connections open at once; set it to 65535"));
        }
    }
    let pages = connections * CONNECTION_PAGES;
    if pages > has.tcp_pages {
        notes.push(format!(
            "net.ipv4.tcp_mem: {connections} busy connections may take {pages} pages, and from {} on the kernel saves: raise \
             its second and third number",
            has.tcp_pages
        ));
    }
    if connections * 3 > has.files {
        notes.push(format!(
            "fs.file-max is {}: both ends and the backends take up to {}; raise it",
            has.files,
            connections * 3
        ));
    }
    let bytes = connections * CONNECTION_BYTES;
    if bytes > has.memory_bytes {
        let mib = |bytes: u64| bytes >> 20;
        notes.push(format!(
            "{connections} connections take about {} MiB, {} are free",
            mib(bytes),
            mib(has.memory_bytes)
        ));
    }
    notes
}

/// Waits until the ports of the stage before are free enough for the next one.
pub(super) fn wait_for_ports(target: &Target, connections: u64, traffic: &Traffic, stop: &AtomicBool) {
    let (begin, end) = (Instant::now(), Instant::now() + PORTS_TIME_MAX);
    let sources = sources_for(target, connections as usize, traffic.sources).max(1) as u64;
    let room = port_count().saturating_mul(sources).saturating_sub(connections);
    // With these, a port in TIME_WAIT can be used again after a second: 1 always, 2 on loopback.
    let reused = match sysctl("net.ipv4.tcp_tw_reuse").as_deref() {
        Some("1") => true,
        Some("2") => target.address.ip().is_loopback(),
        _ => false,
    };
    let ready = || begin.elapsed() >= PAUSE && (reused || proc::time_wait_count() <= room);
    while !ready() && Instant::now() < end && !stop.load(Relaxed) {
        thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Has = Has {
        ports: 60_000,
        somaxconn: 65_535,
        syn_backlog: 65_535,
        tcp_pages: 1_000_000,
        files: 10_000_000,
        memory_bytes: 64 << 30,
    };

    #[test]
    fn plenty_needs_no_word() {
        assert_eq!(lacks(&PLENTY, 100_000, 10, 6), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_too_little_is_named() {
        for (word, has) in [
            ("ip_local_port_range", Has { ports: 15_000, ..PLENTY }),
            ("somaxconn", Has { somaxconn: 128, ..PLENTY }),
            ("tcp_max_syn_backlog", Has { syn_backlog: 512, ..PLENTY }),
            ("tcp_mem", Has { tcp_pages: 100_000, ..PLENTY }),
            ("file-max", Has { files: 150_000, ..PLENTY }),
            ("MiB", Has { memory_bytes: 1 << 30, ..PLENTY }),
        ] {
            let notes = lacks(&has, 100_000, 10, 6);
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert!(notes[0].contains(word), "{notes:?}");
        }
    }
}
