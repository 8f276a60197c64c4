//! Every check on made-up machines: a good one, and one spoilt in each way that a check is there for.

use std::collections::BTreeSet;

use super::checks;
use super::finding::Level;
use super::process;
use crate::cli::snapshot::interfaces::{Interface, Interrupt};
use crate::cli::snapshot::process::{Listener, Process, Table, Thread};
use crate::cli::snapshot::{Group, Memory, Snapshot};
use crate::cli::wanted::Wanted;
use crate::config::document::Document;

const CONFIGURATION: &str = "\
server: {port: 8080, max_conn: 1000000}
backends: {u: [{id: a, host: 10.0.0.1, port: 80, max_conn: 5000}, {id: b, host: 10.0.0.2, port: 80, max_conn: 5000}]}
routing: {any: {upstream: u}}
";

/// A machine for a million connections, with nothing wrong.
fn good() -> Snapshot {
    let sysctls = [
        ("fs.file-max", "9223372036854775807"),
        ("fs.file-nr", "5000 0 9223372036854775807"),
        ("fs.nr_open", "1200000"),
        ("kernel.osrelease", "6.12.1-generic"),
        ("net.core.default_qdisc", "fq"),
        ("net.core.netdev_max_backlog", "1000"),
        ("net.core.somaxconn", "65535"),
        ("net.ipv4.ip_local_port_range", "32768 60999"),
        ("net.ipv4.ip_local_reserved_ports", ""),
        ("net.ipv4.tcp_available_congestion_control", "reno cubic bbr"),
        ("net.ipv4.tcp_congestion_control", "bbr"),
        ("net.ipv4.tcp_ehash_entries", "1048576"),
        ("net.ipv4.tcp_max_orphans", "131072"),
        ("net.ipv4.tcp_max_tw_buckets", "262144"),
        ("net.ipv4.tcp_mem", "769572 1026097 1539144"),
        ("net.ipv4.tcp_moderate_rcvbuf", "1"),
        ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
        ("net.ipv4.tcp_sack", "1"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.ipv4.tcp_timestamps", "1"),
        ("net.ipv4.tcp_tw_reuse", "2"),
        ("net.ipv4.tcp_window_scaling", "1"),
        ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
        ("vm.overcommit_memory", "0"),
        ("vm.swappiness", "60"),
        ("vm.zone_reclaim_mode", "0"),
    ];
    let interrupt = |number| Interrupt { number, cpus: vec![number as usize % 4] };
    let counters = [("PassiveOpens", 5_000_000), ("ListenDrops", 3), ("ListenOverflows", 3)];
    let mut snapshot = Snapshot {
        sysctls: sysctls.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        counters: counters.map(|(name, count)| (name.to_owned(), count)).into(),
        packets_dropped: Some(0),
        interfaces: vec![Interface {
            name: "eth0".into(),
            node: Some(0),
            receive: vec![vec![]; 4],
            send: vec![Some(vec![0]), Some(vec![1]), Some(vec![2]), Some(vec![3])],
            interrupts: (40..44).map(interrupt).collect(),
        }],
        cpus: vec![0, 1, 2, 3],
        allowed: vec![0, 1, 2, 3],
        nodes: vec![vec![0, 1, 2, 3]],
        memory: Memory { total: 64 << 30, swap: 0, swap_free: 0, page: 4096 },
        huge_pages: Some(("madvise".into(), "madvise".into())),
        clock: Some(("tsc".into(), "tsc hpet acpi_pm".into())),
        group: Group { threads: Some((4915, 12)), ..Group::default() },
        ..Snapshot::default()
    };
    (snapshot.limits.soft, snapshot.limits.hard) = (Some(1024), Some(1_200_000));
    snapshot.sockets.time_wait = 100;
    snapshot
}

fn wanted_of(text: &str, snapshot: &Snapshot) -> Wanted {
    let plan = Document::from_text(text, "", |_| None).unwrap().into_parts().0;
    Wanted::new(None, &plan, snapshot)
}

/// What is not well, by check.
fn judged(text: &str, snapshot: &Snapshot) -> Vec<(&'static str, Level)> {
    let findings = checks::all(snapshot, &wanted_of(text, snapshot));
    for finding in findings.iter().filter(|finding| finding.level > Level::Unknown) {
        let told = !finding.wanted.is_empty() && !finding.cost.is_empty() && !finding.cure.is_empty();
        assert!(told, "what is wanted, what it costs, the cure: {finding:?}");
    }
    findings.iter().filter(|it| it.level != Level::Ok).map(|it| (it.check, it.level)).collect()
}

/// A way to spoil a machine, and what is to be found then.
type Spoilt = (&'static str, Level, fn(&mut Snapshot));

fn set(snapshot: &mut Snapshot, key: &str, value: &str) {
    snapshot.sysctls.insert(key.to_owned(), value.to_owned());
}

const SPOILT: &[Spoilt] = &[
    ("kernel.version", Level::Warning, |s| set(s, "kernel.osrelease", "5.15.0-91")),
    ("kernel.version", Level::Warning, |s| set(s, "kernel.osrelease", "4.18.0")),
    ("descriptors.limit", Level::Fault, |s| s.limits.hard = Some(20_000)),
    ("descriptors.ceiling", Level::Fault, |s| set(s, "fs.nr_open", "65536")),
    ("descriptors.files", Level::Fault, |s| set(s, "fs.file-max", "1000000")),
    ("descriptors.files", Level::Fault, |s| {
        set(s, "fs.file-max", "3000000");
        set(s, "fs.file-nr", "2900000 0 3000000");
    }),
    ("backlog.accept", Level::Warning, |s| set(s, "net.core.somaxconn", "4096")),
    ("backlog.accept", Level::Fault, |s| set(s, "net.core.somaxconn", "128")),
    ("backlog.handshakes", Level::Warning, |s| set(s, "net.ipv4.tcp_syncookies", "2")),
    ("backlog.handshakes", Level::Fault, |s| set(s, "net.ipv4.tcp_syncookies", "0")),
    ("backlog.drops", Level::Warning, |s| s.counters.extend([("ListenDrops".into(), 5000)])),
    ("backlog.packets", Level::Warning, |s| s.packets_dropped = Some(17)),
    ("ports.range", Level::Warning, |s| set(s, "net.ipv4.ip_local_port_range", "50000 60999")),
    ("ports.range", Level::Warning, |s| set(s, "net.ipv4.ip_local_port_range", "60000 60999")),
    ("ports.reserved", Level::Warning, |s| set(s, "net.ipv4.ip_local_port_range", "9090 65535")),
    ("ports.reuse", Level::Warning, |s| set(s, "net.ipv4.tcp_tw_reuse", "0")),
    ("ports.reuse", Level::Warning, |s| s.sockets.time_wait = 20_000),
    ("ports.time_wait", Level::Warning, |s| set(s, "net.ipv4.tcp_max_tw_buckets", "600")),
    ("tcp.options", Level::Warning, |s| set(s, "net.ipv4.tcp_sack", "0")),
    ("tcp.options", Level::Warning, |s| set(s, "net.ipv4.tcp_timestamps", "0")),
    ("tcp.options", Level::Warning, |s| set(s, "net.ipv4.tcp_window_scaling", "0")),
    ("buffers.sockets", Level::Warning, |s| set(s, "net.ipv4.tcp_rmem", "4096 16777216 16777216")),
    ("buffers.sockets", Level::Warning, |s| set(s, "net.ipv4.tcp_wmem", "4096 16384 65536")),
    ("buffers.sockets", Level::Warning, |s| set(s, "net.ipv4.tcp_moderate_rcvbuf", "0")),
    ("buffers.memory", Level::Warning, |s| set(s, "net.ipv4.tcp_mem", "10000 20000 30000")),
    ("buffers.memory", Level::Fault, |s| s.sockets.pages = 1_100_000),
    ("tcp.orphans", Level::Warning, |s| s.sockets.orphan = 100_000),
    ("conntrack.table", Level::Warning, |s| {
        set(s, "net.netfilter.nf_conntrack_max", "4000000");
        set(s, "net.netfilter.nf_conntrack_count", "12");
    }),
    ("conntrack.table", Level::Fault, |s| {
        set(s, "net.netfilter.nf_conntrack_max", "262144");
        set(s, "net.netfilter.nf_conntrack_count", "12");
    }),
    ("conntrack.table", Level::Fault, |s| {
        set(s, "net.netfilter.nf_conntrack_max", "4000000");
        set(s, "net.netfilter.nf_conntrack_count", "3900000");
    }),
    ("tcp.hash_table", Level::Warning, |s| set(s, "net.ipv4.tcp_ehash_entries", "262144")),
    ("tcp.hash_table", Level::Fault, |s| set(s, "net.ipv4.tcp_ehash_entries", "-16384")),
    ("tcp.congestion_control", Level::Warning, |s| set(s, "net.ipv4.tcp_congestion_control", "reno")),
    ("tcp.congestion_control", Level::Warning, |s| set(s, "net.core.default_qdisc", "pfifo_fast")),
    ("tcp.congestion_control", Level::Fault, |s| set(s, "net.ipv4.tcp_congestion_control", "vegas")),
    ("cpu.nodes", Level::Warning, |s| s.nodes = vec![vec![0, 1], vec![2, 3]]),
    ("cpu.nodes", Level::Warning, |s| {
        s.nodes = vec![vec![0, 1, 2, 3], vec![4, 5]];
        set(s, "vm.zone_reclaim_mode", "1");
    }),
    ("cpu.interrupts", Level::Warning, |s| s.interfaces[0].interrupts.iter_mut().for_each(|irq| irq.cpus = vec![0])),
    ("cpu.receiving", Level::Warning, |s| s.interfaces[0].receive = vec![vec![]]),
    // One queue for the CPUs of its own node.
    ("cpu.receiving", Level::Warning, |s| {
        s.nodes = vec![vec![], vec![0, 1, 2, 3]];
        s.interfaces[0].node = Some(1);
        s.interfaces[0].receive = vec![vec![]; 2];
    }),
    ("cpu.sending", Level::Warning, |s| s.interfaces[0].send = vec![Some(vec![]); 4]),
    ("cpu.clock", Level::Warning, |s| s.clock = Some(("hpet".into(), "hpet acpi_pm".into()))),
    ("cpu.clock", Level::Warning, |s| s.clock = Some(("acpi_pm".into(), "tsc acpi_pm".into()))),
    ("container.cpus", Level::Warning, |s| s.group.cpus = Some(1.5)),
    ("container.throttling", Level::Warning, |s| s.group.throttled = Some((1000, 50))),
    ("container.throttling", Level::Fault, |s| s.group.throttled = Some((1000, 500))),
    ("container.threads", Level::Fault, |s| s.group.threads = Some((16, 3))),
    ("memory.connections", Level::Warning, |s| s.group.memory = Some((5 << 30, 0))),
    ("memory.connections", Level::Fault, |s| s.memory.total = 4 << 30),
    ("memory.huge_pages", Level::Warning, |s| s.huge_pages = Some(("always".into(), "always".into()))),
    ("memory.swap", Level::Warning, |s| (s.memory.swap, s.memory.swap_free) = (8 << 30, 8 << 30)),
    ("memory.swap", Level::Warning, |s| (s.memory.swap, s.memory.swap_free) = (8 << 30, 4 << 30)),
    ("memory.overcommit", Level::Warning, |s| set(s, "vm.overcommit_memory", "2")),
];

#[test]
fn nothing_is_wrong_with_a_good_machine() {
    assert_eq!(judged(CONFIGURATION, &good()), []);
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    for (at, (check, level, spoil)) in SPOILT.iter().enumerate() {
        let mut snapshot = good();
        spoil(&mut snapshot);
        assert_eq!(judged(CONFIGURATION, &snapshot), [(*check, *level)], "case {at}");
    }
}

#[test]
fn every_check_can_find_something() {
    let snapshot = good();
    let findings = checks::all(&snapshot, &wanted_of(CONFIGURATION, &snapshot));
    let names: BTreeSet<&str> = findings.iter().map(|finding| finding.check).collect();
    // Steering needs a configuration that asks for it.
    let spoilt: BTreeSet<&str> = SPOILT.iter().map(|(check, ..)| *check).chain(["cpu.steering"]).collect();
    assert_eq!((&names, findings.len()), (&spoilt, names.len()));
}

#[test]
fn where_nothing_can_be_read_nothing_is_claimed() {
    let found = judged("routing: {any: {respond: {}}}\n", &Snapshot::default());
    assert!(found.iter().all(|(_, level)| *level == Level::Unknown) && found.len() > 15, "{found:?}");
}

#[test]
fn what_makes_a_cure_unneeded_is_seen() {
    let mut snapshot = good();
    // Descriptor tables of their own: more than one table holds.
    snapshot.limits.hard = Some(524_288);
    snapshot.interfaces[0].receive = vec![vec![0, 1, 2, 3]];
    snapshot.irqbalance = true;
    snapshot.interfaces[0].interrupts.iter_mut().for_each(|irq| irq.cpus = vec![0]);
    set(&mut snapshot, "net.ipv4.ip_local_port_range", "8000 65535");
    set(&mut snapshot, "net.ipv4.ip_local_reserved_ports", "8080,9000-9100");
    snapshot.huge_pages = Some(("always".into(), "madvise".into()));
    assert_eq!(judged(CONFIGURATION, &snapshot), []);
    // On a kernel without close_range they can't be had.
    set(&mut snapshot, "kernel.osrelease", "5.4.0");
    assert_eq!(judged(CONFIGURATION, &snapshot), [("kernel.version", Level::Fault)]);
}

#[test]
fn steering_wants_a_kernel_and_packets_on_every_worker() {
    let text = CONFIGURATION.replace("max_conn: 1000000", "max_conn: 1000000, cpu_affinity: auto, steering: cpu");
    assert_eq!(judged(&text, &good()), []);
    let judged = |spoil: fn(&mut Snapshot)| {
        let mut snapshot = good();
        spoil(&mut snapshot);
        judged(&text, &snapshot)
    };
    assert_eq!(judged(|s| set(s, "kernel.osrelease", "6.1.0-13-amd64")), [("cpu.steering", Level::Warning)]);
    assert_eq!(judged(|s| set(s, "kernel.osrelease", "6.2.0")), []);
    // Its queues are on CPUs 0 to 3.
    assert_eq!(judged(|s| s.allowed = (0..6).collect()), [("cpu.steering", Level::Warning)]);
    assert_eq!(judged(|s| s.interfaces[0].receive[0] = vec![0, 1]), [("cpu.steering", Level::Warning)]);
    assert_eq!(judged(|s| s.interfaces.clear()), [], "in a container nobody can tell");
}

#[test]
fn a_card_is_served_by_its_own_node() {
    let mut snapshot = good();
    (snapshot.cpus, snapshot.allowed) = ((0..8).collect(), (0..4).collect());
    // Node 1 has memory and no CPU.
    snapshot.nodes = vec![(0..4).collect(), vec![], (4..8).collect()];
    snapshot.interfaces[0].node = Some(2);
    snapshot.interfaces[0].interrupts.iter_mut().for_each(|irq| irq.cpus = vec![4]);
    let findings = checks::all(&snapshot, &wanted_of(CONFIGURATION, &snapshot));
    let finding = findings.iter().find(|finding| finding.check == "cpu.interrupts").unwrap();
    let cures = (40..44).map(|irq| format!("echo {} > /proc/irq/{irq}/smp_affinity_list", irq - 36));
    assert_eq!(finding.cure, cures.collect::<Vec<_>>());
    // Four queues do for the four CPUs there, and eight interrupts on four CPUs are spread as far as can be.
    snapshot.interfaces[0].interrupts =
        (40..48).map(|n| Interrupt { number: n, cpus: vec![n as usize % 4 + 4] }).collect();
    assert_eq!(judged(CONFIGURATION, &snapshot), []);
}

/// A cure that is what is there already, or less, is none.
#[test]
fn cures_cure() {
    let cures = |text: &str, check: &str, spoil: fn(&mut Snapshot)| {
        let mut snapshot = good();
        spoil(&mut snapshot);
        let findings = checks::all(&snapshot, &wanted_of(text, &snapshot));
        findings.into_iter().find(|finding| finding.check == check).unwrap().cure.join("\n")
    };
    let one = "backends: {u: [{id: a, host: 10.0.0.1, port: 80}]}\nrouting: {any: {upstream: u}}\nserver: {max_conn: 200000}\n";
    let told = cures(one, "ports.range", |s| set(s, "net.ipv4.ip_local_port_range", "1024 65000"));
    assert!(told.starts_with("sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"\n"), "{told}");
    let told = cures(one, "ports.range", |s| set(s, "net.ipv4.ip_local_port_range", "1024 65535"));
    assert!(told.starts_with("upstreams.NAME.local_addresses: 4 addresses"), "{told}");
    let told = cures(CONFIGURATION, "ports.time_wait", |s| s.sockets.time_wait = 250_000);
    assert!(told.starts_with("sysctl -w net.ipv4.tcp_max_tw_buckets=524288\n"), "{told}");
    let told = cures(CONFIGURATION, "buffers.memory", |s| s.sockets.pages = 1_500_000);
    assert!(told.starts_with("sysctl -w net.ipv4.tcp_mem=\"1500000 2250000 3000000\"\n"), "{told}");
}

#[test]
fn a_quota_has_two_digits() {
    let mut snapshot = good();
    snapshot.group.cpus = Some(1.0 / 3.0);
    let findings = checks::all(&snapshot, &wanted_of(CONFIGURATION, &snapshot));
    assert!(findings.iter().any(|finding| finding.found == "a quota of 0.33 CPUs for 4 workers"));
}

#[test]
fn a_backend_without_a_limit_may_need_more_ports_than_there_are() {
    let text = "server: {max_conn: 1000000}\nbackends: {u: [{id: a, host: 10.0.0.1, port: 80}]}\nrouting: {any: {upstream: u}}\n";
    assert_eq!(judged(text, &good()), [("ports.range", Level::Warning)]);
}

/// A process with nothing wrong.
fn running() -> Process {
    let worker = |id: u32| Thread {
        id,
        name: format!("worker-{id}"),
        cpus: vec![id as usize],
        ran_ns: 60_000_000_000,
        waited_ns: 1_000_000,
    };
    let table = |name: &str, open| Table { threads: vec![name.to_owned()], open };
    let mut process = Process {
        pid: 77,
        name: "speedmimi".into(),
        tables: vec![table("speedmimi", 90), table("worker-0", 15_000), table("worker-1", 14_000)],
        threads: vec![worker(0), worker(1)],
        listeners: vec![Listener { address: "0.0.0.0:8080".parse().unwrap(), waiting: 3 }],
        sockets: [("established".to_owned(), 29_000), ("listen".to_owned(), 2)].into(),
        huge_pages: Some(false),
        is_in_our_network: true,
        is_readable: true,
        ..Process::default()
    };
    process.limits.soft = Some(20_000);
    process
}

type SpoiltProcess = (&'static str, fn(&mut Process));

const SPOILT_PROCESS: &[SpoiltProcess] = &[
    ("process.network", |p| p.is_in_our_network = false),
    ("process.tables", |p| p.tables[1].open = 19_900),
    ("process.listeners", |p| p.listeners[0].waiting = 3000),
    ("process.sockets", |p| p.sockets.extend([("close_wait".into(), 20_000)])),
    ("process.workers", |p| p.threads[1].cpus = vec![0]),
    ("process.workers", |p| {
        p.threads.push(p.threads[0].clone());
        p.threads.iter_mut().for_each(|thread| thread.cpus = vec![0, 1]);
    }),
    ("process.waiting", |p| p.threads[0].waited_ns = 90_000_000_000),
    ("process.memory", |p| p.memory.swapped = 4096),
    ("process.huge_pages", |p| p.huge_pages = Some(true)),
];

#[test]
fn each_fault_of_a_process_is_found_and_nothing_else() {
    let wanted = wanted_of(CONFIGURATION, &good());
    let judged = |process: &Process| -> Vec<&'static str> {
        let findings = process::all(process, &wanted).into_iter();
        findings.filter(|finding| finding.level != Level::Ok).map(|finding| finding.check).collect()
    };
    assert_eq!(judged(&running()), Vec::<&str>::new());
    let names: BTreeSet<&str> = process::all(&running(), &wanted).iter().map(|finding| finding.check).collect();
    assert_eq!(names, SPOILT_PROCESS.iter().map(|(check, _)| *check).collect());
    for (at, (check, spoil)) in SPOILT_PROCESS.iter().enumerate() {
        let mut process = running();
        spoil(&mut process);
        assert_eq!(judged(&process), [*check], "case {at}");
    }
    assert!(judged(&Process::default()).len() > 4);
}

#[test]
fn buffered_data_is_counted_in_pages_of_the_machine() {
    let told = |page| {
        let snapshot = Snapshot { memory: Memory { page, ..good().memory }, ..good() };
        super::network::buffer_memory(&snapshot, &wanted_of(CONFIGURATION, &snapshot)).found
    };
    assert!(
        told(4096).contains("at most 5.9 GiB") && told(65536).contains("at most 93.9 GiB"),
        "{} {}",
        told(4096),
        told(65536)
    );
}
