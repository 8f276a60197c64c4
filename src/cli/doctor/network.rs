//! Checks of the network: queues before accepting, ports, buffers, connection tracking, hash tables, congestion control.

use super::finding::Finding;
use crate::cli::snapshot::Snapshot;
use crate::cli::top::say::{bytes, whole};
use crate::cli::wanted::Wanted;

/// One lost connection in so many opened ones is worth a warning.
const LOST_IN: u64 = 10_000;
/// Default of `tcp_rmem` and of `tcp_wmem` from which on each busy connection holds too much, in bytes.
pub const BUFFER_DEFAULT_MAX: i64 = 1 << 20;
/// Largest buffer below which one connection can't fill a long path, in bytes.
pub const BUFFER_LARGEST_MIN: i64 = 1 << 20;
/// Sockets in one chain of the hash table, on average: good, and too many.
const CHAIN_GOOD: f64 = 2.0;
const CHAIN_BAD: f64 = 16.0;
/// One connection in so many has data in the kernel's buffers at a moment.
const BUSY_ONE_IN: u64 = 8;

/// `net.core.somaxconn`, which cuts `server.backlog`.
pub fn accept_queue(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "backlog.accept";
    let Some(max) = snapshot.number("net.core.somaxconn") else { return Finding::unknown(NAME, "net.core.somaxconn") };
    let backlog = i64::from(wanted.server.backlog);
    let found = format!("net.core.somaxconn = {max}, server.backlog {backlog}");
    if max >= backlog {
        return Finding::ok(NAME, found);
    }
    // A queue of a thousand is full in 50 ms at 20,000 new connections a second: less than a worker's hiccup.
    Finding::bad(NAME, max < 1024, found)
        .wanted(format!("{backlog}"))
        .cost("a burst of connections beyond it is dropped; its clients try again after a second, then three")
        .cure(format!("sysctl -w net.core.somaxconn={backlog}"))
}

/// Half-open connections, of which a listener holds as many as its backlog: cookies when there are more. `tcp_max_syn_backlog`
/// counts only without them.
pub fn handshake_queue(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "backlog.handshakes";
    let Some(cookies) = snapshot.number("net.ipv4.tcp_syncookies") else {
        return Finding::unknown(NAME, "net.ipv4.tcp_syncookies");
    };
    let found = format!("net.ipv4.tcp_syncookies = {cookies}");
    if cookies == 1 {
        return Finding::ok(NAME, found);
    }
    let (is_off, cost) = match cookies {
        0 => (true, "a few thousand forged SYNs a second keep everybody out"),
        _ => (false, "every connection is opened by a cookie, without window scaling where timestamps are off"),
    };
    Finding::bad(NAME, is_off, found)
        .wanted("1: when the queue is full")
        .cost(cost)
        .cure("sysctl -w net.ipv4.tcp_syncookies=1")
}

/// Connections that were lost in full queues.
pub fn listen_drops(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "backlog.drops";
    if snapshot.counters.is_empty() {
        return Finding::unknown(NAME, "/proc/net/netstat");
    }
    let (overflows, drops) = (snapshot.counter("ListenOverflows"), snapshot.counter("ListenDrops"));
    let opened = snapshot.counter("PassiveOpens");
    let found = format!(
        "{} of {} connections since the start: ListenOverflows {}",
        whole(drops),
        whole(opened),
        whole(overflows)
    );
    if drops == 0 || drops < opened / LOST_IN {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("none")
        .cost("each made a client wait for a second or more")
        .cure("a longer queue (see backlog.accept), or more server.workers; `nstat -z TcpExtListenDrops` shows whether it grows")
}

/// Packets that wait for a CPU.
pub fn packet_queue(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "backlog.packets";
    let Some(dropped) = snapshot.packets_dropped else { return Finding::unknown(NAME, "/proc/net/softnet_stat") };
    let max = snapshot.number("net.core.netdev_max_backlog");
    let length = max.map_or_else(String::new, |max| format!(", net.core.netdev_max_backlog = {max}"));
    let found = format!("{} dropped since the start{length}", whole(dropped));
    if dropped == 0 {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("none")
        .cost("each is sent again after a round trip or a timeout")
        .cure("sysctl -w net.core.netdev_max_backlog=16384")
        .cure("if it still grows, one CPU takes too many of the packets: see cpu.receiving")
}

/// `ip_local_port_range` against what may be open to each backend.
pub fn local_ports(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "ports.range";
    let Some(ports) = snapshot.local_ports() else { return Finding::unknown(NAME, "net.ipv4.ip_local_port_range") };
    let range = snapshot.text("net.ipv4.ip_local_port_range").unwrap_or_default();
    let found = format!("net.ipv4.ip_local_port_range = {range}: {} ports to each backend", whole(ports));
    let widened = widened_ports(snapshot);
    let cure = (widened != range).then(|| format!("sysctl -w net.ipv4.ip_local_port_range=\"{widened}\""));
    let cured = |finding: Finding| cure.iter().fold(finding, |finding, cure| finding.cure(cure));
    let tight = wanted.destinations.iter().find(|to| to.connections > ports.saturating_mul(to.sources));
    if let Some(to) = tight {
        let needed = to.connections.div_ceil(ports.max(1));
        let addresses = if to.sources == 1 { "one address".to_owned() } else { format!("{} addresses", to.sources) };
        let finding = Finding::warning(
            NAME,
            format!("{found}; {}, from {addresses}, may need {}", to.name, whole(to.connections)),
        );
        return cured(
            finding
                .wanted("a port for every connection to one backend")
                .cost("503 (no_local_port) when all are in use at once, as by tunnels"),
        )
        .cure(format!("upstreams.NAME.local_addresses: {needed} addresses; or a max_conn of the backend"));
    }
    if ports < 16_384 {
        let finding = Finding::bad(NAME, ports < 1024, found).wanted("20,000 or more");
        let finding = finding.cost("503 (no_local_port) under load; the kernel searches long for a free one");
        return match cure {
            Some(_) => cured(finding),
            None => finding.cure("fewer ports in net.ipv4.ip_local_reserved_ports"),
        };
    }
    Finding::ok(NAME, found)
}

/// The range from 10240 on, or from where it begins now if that is lower.
pub fn widened_ports(snapshot: &Snapshot) -> String {
    let first = snapshot.number("net.ipv4.ip_local_port_range").unwrap_or(10_240);
    format!("{} 65535", first.min(10_240))
}

/// Ports that are listened on and may be taken for an outgoing connection.
pub fn reserved_ports(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "ports.reserved";
    if snapshot.local_ports().is_none() {
        return Finding::unknown(NAME, "net.ipv4.ip_local_port_range");
    }
    let taken = endangered_ports(snapshot, wanted);
    if taken.is_empty() {
        return Finding::ok(NAME, "no port that is listened on is in net.ipv4.ip_local_port_range");
    }
    let taken = taken.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let before = snapshot.text("net.ipv4.ip_local_reserved_ports").filter(|text| !text.is_empty());
    let all = before.map_or_else(|| taken.clone(), |before| format!("{before},{taken}"));
    Finding::warning(NAME, format!("{taken} may be taken for outgoing connections"))
        .wanted("set aside in net.ipv4.ip_local_reserved_ports")
        .cost("now and then a start fails: address already in use")
        .cure(format!("sysctl -w net.ipv4.ip_local_reserved_ports={all}"))
}

/// Those that are listened on, in the range of outgoing connections and not set aside.
pub fn endangered_ports(snapshot: &Snapshot, wanted: &Wanted) -> Vec<u16> {
    let range = snapshot.numbers("net.ipv4.ip_local_port_range");
    let &[first, last] = &range[..] else { return Vec::new() };
    let reserved = snapshot.reserved_ports();
    let is_endangered = |port: &u16| {
        let port = i64::from(*port);
        (first..=last).contains(&port) && !reserved.iter().any(|range| (range.0..=range.1).contains(&port))
    };
    wanted.ports.iter().copied().filter(is_endangered).collect()
}

/// `tcp_tw_reuse`: 1 everywhere, 2 on loopback only.
pub fn port_reuse(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "ports.reuse";
    let Some(reuse) = snapshot.number("net.ipv4.tcp_tw_reuse") else {
        return Finding::unknown(NAME, "net.ipv4.tcp_tw_reuse");
    };
    let found = format!("net.ipv4.tcp_tw_reuse = {reuse}");
    if reuse == 1 {
        return Finding::ok(NAME, found);
    }
    let waiting = snapshot.sockets.time_wait;
    if reuse == 2 && waiting < snapshot.local_ports().unwrap_or(0) / 4 {
        return Finding::ok(NAME, format!("{found} (on loopback alone); kept connections to backends hardly need it"));
    }
    Finding::warning(NAME, found)
        .wanted("1")
        .cost("a port that was closed is of no use for a minute: 470 new connections a second to one backend at most")
        .cure("sysctl -w net.ipv4.tcp_tw_reuse=1   (needs net.ipv4.tcp_timestamps=1)")
}

pub fn time_wait(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "ports.time_wait";
    let Some(max) = snapshot.number("net.ipv4.tcp_max_tw_buckets") else {
        return Finding::unknown(NAME, "net.ipv4.tcp_max_tw_buckets");
    };
    let (waiting, max) = (snapshot.sockets.time_wait, max.unsigned_abs());
    let overflows = snapshot.counter("TCPTimeWaitOverflow");
    let found = format!(
        "{} in TIME_WAIT, at most {}, {} too many since the start",
        whole(waiting),
        whole(max),
        whole(overflows)
    );
    if waiting < max / 10 * 8 && max >= 16_384 {
        return Finding::ok(NAME, found);
    }
    let more = (max * 2).max(262_144);
    Finding::warning(NAME, found)
        .wanted(format!("room for {}; usually far fewer wait", whole(more)))
        .cost("beyond it connections end without waiting: late packets can reach a new one of the same ports")
        .cure(format!("sysctl -w net.ipv4.tcp_max_tw_buckets={more}"))
        .cure("connections that are closed all the time: upstreams.NAME.keepalive, keep-alive of the backends")
}

/// What must not be switched off, however often it is recommended.
pub fn options(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "tcp.options";
    const ALL: [&str; 3] = ["net.ipv4.tcp_timestamps", "net.ipv4.tcp_sack", "net.ipv4.tcp_window_scaling"];
    if ALL.iter().all(|key| snapshot.number(key).is_none()) {
        return Finding::unknown(NAME, "net.ipv4.tcp_sack");
    }
    let off: Vec<&str> = ALL.into_iter().filter(|key| snapshot.number(key) == Some(0)).collect();
    if off.is_empty() {
        return Finding::ok(NAME, "timestamps, selective acknowledgements and window scaling are on");
    }
    let finding = Finding::warning(NAME, format!("off: {}", off.join(", "))).wanted("all three on").cost(
        "a lost packet stalls a connection for whole round trips, windows end at 64 KiB, closed ports wait a minute",
    );
    off.iter().fold(finding, |finding, key| finding.cure(format!("sysctl -w {key}=1")))
}

/// `tcp_rmem` and `tcp_wmem`: neither giant defaults nor a small maximum.
pub fn socket_buffers(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "buffers.sockets";
    let of = |key: &str| <[i64; 3]>::try_from(snapshot.numbers(key)).ok();
    let (Some(read), Some(write)) = (of("net.ipv4.tcp_rmem"), of("net.ipv4.tcp_wmem")) else {
        return Finding::unknown(NAME, "net.ipv4.tcp_rmem");
    };
    let shown = |key: &str| snapshot.text(key).unwrap_or_default().to_owned();
    let found = format!("tcp_rmem = {}, tcp_wmem = {}", shown("net.ipv4.tcp_rmem"), shown("net.ipv4.tcp_wmem"));
    if read[1] > BUFFER_DEFAULT_MAX || write[1] > BUFFER_DEFAULT_MAX {
        let each = bytes((read[1].max(0) + write[1].max(0)) as f64);
        return Finding::warning(NAME, found)
            .wanted("defaults (the middle numbers) as the kernel has them: 131072 and 16384")
            .cost(format!("each busy connection may hold {each} at once before anybody asked for it to grow"))
            .cure(format!("sysctl -w net.ipv4.tcp_rmem=\"4096 131072 {}\"", read[2].max(6 << 20)))
            .cure(format!("sysctl -w net.ipv4.tcp_wmem=\"4096 16384 {}\"", write[2].max(4 << 20)));
    }
    if read[2] < BUFFER_LARGEST_MIN || write[2] < BUFFER_LARGEST_MIN {
        return Finding::warning(NAME, found)
            .wanted("a largest size (the last numbers) of 6 MiB and 4 MiB, the kernel's own")
            .cost("a client 100 ms away gets less than 10 MB/s however fast its line is")
            .cure("sysctl -w net.ipv4.tcp_rmem=\"4096 131072 6291456\"")
            .cure("sysctl -w net.ipv4.tcp_wmem=\"4096 16384 4194304\"");
    }
    if snapshot.number("net.ipv4.tcp_moderate_rcvbuf") == Some(0) {
        return Finding::warning(NAME, "net.ipv4.tcp_moderate_rcvbuf = 0: receive buffers don't grow")
            .wanted("1")
            .cost("uploads from afar stay at the default window")
            .cure("sysctl -w net.ipv4.tcp_moderate_rcvbuf=1");
    }
    Finding::ok(NAME, found)
}

/// `tcp_mem`: the machine's buffered data.
pub fn buffer_memory(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "buffers.memory";
    let Ok([_, pressure, max]) = <[i64; 3]>::try_from(snapshot.numbers("net.ipv4.tcp_mem")) else {
        return Finding::unknown(NAME, "net.ipv4.tcp_mem");
    };
    let (pressure, max) = (pressure.unsigned_abs(), max.unsigned_abs());
    let (used, needed) = (snapshot.sockets.pages, buffer_pages(wanted));
    let size = |pages: u64| bytes(pages as f64 * snapshot.memory.page as f64);
    let found = format!("{} of buffered data, pressure from {} on, at most {}", size(used), size(pressure), size(max));
    if used < pressure && max >= needed {
        return Finding::ok(NAME, found);
    }
    let wanted_pages = needed.max(max).max(used * 2);
    Finding::bad(NAME, used >= pressure, found)
        .wanted(format!(
            "at most {} or more: a page for one connection in {BUSY_ONE_IN}, and twice what is used",
            size(wanted_pages)
        ))
        .cost("under pressure windows shrink; beyond the maximum packets are dropped and connections reset")
        .cure(format!("sysctl -w net.ipv4.tcp_mem=\"{} {} {wanted_pages}\"", wanted_pages / 2, wanted_pages / 4 * 3))
        .cure("if it is used up: clients that take nothing; server.write_timeout ends them")
}

/// Pages of buffered data that so many connections may lead to.
pub fn buffer_pages(wanted: &Wanted) -> u64 {
    wanted.connections / BUSY_ONE_IN
}

pub fn orphans(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "tcp.orphans";
    let Some(max) = snapshot.number("net.ipv4.tcp_max_orphans") else {
        return Finding::unknown(NAME, "net.ipv4.tcp_max_orphans");
    };
    let (orphans, max) = (snapshot.sockets.orphan, max.unsigned_abs());
    let found = format!("{} connections closed here that still send, at most {}", whole(orphans), whole(max));
    if orphans < max / 2 && max >= 4096 {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("room for twice as many")
        .cost("beyond it they are reset, and the ends of answers are lost")
        .cure(format!("sysctl -w net.ipv4.tcp_max_orphans={}", (max * 2).max(65_536)))
}

/// Connection tracking: a table that gets full, and work for every packet.
pub fn conntrack(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "conntrack.table";
    let Some(max) = snapshot.number("net.netfilter.nf_conntrack_max") else {
        return Finding::ok(NAME, "nothing is tracked");
    };
    let (max, count) =
        (max.unsigned_abs(), snapshot.number("net.netfilter.nf_conntrack_count").unwrap_or(0).unsigned_abs());
    let found = format!("{} of {} connections tracked", whole(count), whole(max));
    if count == 0 {
        return Finding::ok(NAME, format!("{found}: no rule of this network namespace asks for it"));
    }
    let needed = conntrack_needed(wanted);
    let is_fault = count >= max / 10 * 9 || max < wanted.connections;
    let finding = if max < needed || is_fault {
        Finding::bad(NAME, is_fault, found)
            .wanted(format!("the proxy's connections not tracked, or room for {}", whole(needed)))
            .cost("a full table drops every new connection: nf_conntrack: table full, dropping packet")
    } else {
        Finding::warning(NAME, found)
            .wanted("the proxy's connections not tracked")
            .cost("some 300 bytes a connection, and a look-up for every packet")
    };
    finding
        .cure("speedmimi tune --notrack   (prints the rules of nft that leave the proxy's ports out, and what that changes)")
        .cure(format!(
            "or room for all: sysctl -w net.netfilter.nf_conntrack_max={} net.netfilter.nf_conntrack_buckets={}",
            needed.max(max).max(count.saturating_mul(2)),
            conntrack_buckets(wanted)
        ))
}

/// Entries of connection tracking for so many clients: each end of each, and the machine's own.
pub fn conntrack_needed(wanted: &Wanted) -> u64 {
    wanted.connections.saturating_mul(2).saturating_add(65_536)
}

/// Chains of connection tracking for so many: four connections in each at the most.
pub fn conntrack_buckets(wanted: &Wanted) -> u64 {
    (conntrack_needed(wanted) / 4).next_power_of_two()
}

/// The hash table of established connections: long chains are cache misses for every packet.
pub fn hash_table(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "tcp.hash_table";
    let Some(entries) = snapshot.number("net.ipv4.tcp_ehash_entries") else {
        return Finding::unknown(NAME, "net.ipv4.tcp_ehash_entries");
    };
    // Negative: the machine's own table, from within another namespace.
    let shared = if entries < 0 { " (shared with the whole machine)" } else { "" };
    let entries = entries.unsigned_abs().max(1);
    let chain = wanted.connections as f64 / entries as f64;
    let found = format!(
        "{} entries{shared}: {chain:.1} connections in each chain at {}",
        whole(entries),
        whole(wanted.connections)
    );
    if chain <= CHAIN_GOOD {
        return Finding::ok(NAME, found);
    }
    let wanted_entries = hash_entries(wanted);
    Finding::bad(NAME, chain > CHAIN_BAD, found)
        .wanted(format!("{} entries", whole(wanted_entries)))
        .cost("each packet walks its chain: about one cache miss for every connection in it, some 0.1 µs each")
        .cure(format!("at the next boot, on the kernel's command line: thash_entries={wanted_entries}"))
        .cure(format!(
            "or a network namespace for the proxy, made after: sysctl -w net.ipv4.tcp_child_ehash_entries={}",
            wanted_entries.min(1 << 24)
        ))
}

/// A power of two with which chains are short.
pub fn hash_entries(wanted: &Wanted) -> u64 {
    wanted.connections.checked_next_power_of_two().unwrap_or(1 << 30).clamp(1 << 10, 1 << 30)
}

pub fn congestion_control(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "tcp.congestion_control";
    let Some(current) = snapshot.text("net.ipv4.tcp_congestion_control") else {
        return Finding::unknown(NAME, "net.ipv4.tcp_congestion_control");
    };
    let available = snapshot.text("net.ipv4.tcp_available_congestion_control").unwrap_or_default();
    let used = wanted.server.congestion_control.as_deref().unwrap_or(current);
    if !available.split(' ').any(|one| one == used) {
        return Finding::fault(NAME, format!("{used} is configured, there are {available}"))
            .wanted("one that is there")
            .cost("the proxy does not start")
            .cure(format!(
                "modprobe tcp_{used}   (at every boot: echo tcp_{used} > /etc/modules-load.d/speedmimi.conf)"
            ));
    }
    // In another namespace the key isn't there: then nothing can be said of it.
    let qdisc = snapshot.text("net.core.default_qdisc");
    let found = match qdisc {
        Some(qdisc) => format!("{used}, net.core.default_qdisc = {qdisc}"),
        None => used.to_owned(),
    };
    if used == "reno" {
        return Finding::warning(NAME, found)
            .wanted("cubic, or bbr with fq")
            .cost("after each loss long paths need minutes to be full again")
            .cure("sysctl -w net.ipv4.tcp_congestion_control=cubic");
    }
    if used.starts_with("bbr") && qdisc.is_some_and(|qdisc| qdisc != "fq") {
        return Finding::warning(NAME, found)
            .wanted("fq, which paces for it")
            .cost("each connection paces by a timer of its own: more CPU time for the same bytes")
            .cure("sysctl -w net.core.default_qdisc=fq   (for interfaces that come up from now on)")
            .cure("tc qdisc replace dev INTERFACE root fq   (for those that are up; with several queues: root mq)");
    }
    Finding::ok(NAME, found)
}
