//! `speedmimi doctor`, `tune` and `plan`, the built program; the first two on machines that are made wrong: sysctls in a
//! network namespace of their own, other files of the kernel under a mount namespace's bind mounts, the rest below a
//! made-up root.
//!
//! Owns the namespaces and the processes in them; nothing outside them is changed. Who is not root can't make any: those
//! tests then say so and do nothing.

#[path = "it/dir.rs"]
mod dir;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use dir::Dir;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_speedmimi");
const CONFIGURATION: &str = "server: {port: 8080}\nrouting: {any: {respond: {}}}\n";

/// What a script may use: the first sets a key of this namespace, the others lay a file or a directory over one.
const PRELUDE: &str = r#"set -eu
n=0
put() { printf '%s\n' "$2" > "$1"; }
over() { n=$((n + 1)); [ -e "$1" ] || exit 77; printf '%b\n' "$2" > "$DIR/over-$n"; mount --bind "$DIR/over-$n" "$1"; }
tree() { mkdir -p "$DIR/$(dirname "$1")"; printf '%b\n' "$2" > "$DIR/$1"; }
lay() { [ -e "$2" ] || exit 77; mount --bind "$DIR/$1" "$2"; }
ipv4=/proc/sys/net/ipv4
core=/proc/sys/net/core
doctor() { "$PROGRAM" doctor --json --connections "${connections:-1m}" --config "$DIR/f.yaml" > "$DIR/$1.json" || [ $? = 1 ]; }
"#;

/// Whether namespaces can be made here.
fn may_make_namespaces() -> bool {
    let may = Command::new("unshare").args(["-n", "-m", "true"]).output().is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("SKIPPED: no network namespace can be made here (root may)");
    }
    may
}

fn in_namespaces(directory: &Dir, flags: &[&str], script: &str) -> Output {
    directory.write("f.yaml", CONFIGURATION);
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", &format!("{PRELUDE}{script}")]);
    command.env("DIR", directory.path("")).env("PROGRAM", PROGRAM).stdin(Stdio::null());
    command.output().unwrap()
}

/// The level of a check in a report of `doctor`.
fn level_of(directory: &Dir, report: &str, check: &str) -> String {
    let text = fs::read_to_string(directory.path(&format!("{report}.json"))).unwrap();
    level_in(&serde_json::from_str(&text).unwrap(), check)
}

fn level_in(report: &Value, check: &str) -> String {
    let findings = report["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.unwrap_or_else(|| panic!("no check {check}"))["level"].as_str().unwrap().to_owned()
}

/// A check, its level when it is spoilt, the script that makes it good, and the one that spoils it.
type Case = (&'static str, &'static str, &'static str, &'static str);

/// With keys of a network namespace.
const NETWORK: &[Case] = &[
    ("backlog.accept", "warning", "put $core/somaxconn 65535", "put $core/somaxconn 4096"),
    ("backlog.handshakes", "fault", "put $ipv4/tcp_syncookies 1", "put $ipv4/tcp_syncookies 0"),
    ("backlog.handshakes", "warning", "put $ipv4/tcp_syncookies 1", "put $ipv4/tcp_syncookies 2"),
    ("ports.range", "fault", ":", "put $ipv4/ip_local_port_range '60000 60400'"),
    ("ports.reserved", "warning", ":", "put $ipv4/ip_local_port_range '8000 65000'"),
    ("ports.reuse", "warning", ":", "put $ipv4/tcp_tw_reuse 0"),
    ("ports.time_wait", "warning", "put $ipv4/tcp_max_tw_buckets 262144", "put $ipv4/tcp_max_tw_buckets 500"),
    ("tcp.options", "warning", ":", "put $ipv4/tcp_sack 0"),
    ("tcp.options", "warning", ":", "put $ipv4/tcp_timestamps 0"),
    (
        "buffers.sockets",
        "warning",
        "put $ipv4/tcp_rmem '4096 131072 6291456'; put $ipv4/tcp_wmem '4096 16384 4194304'",
        "put $ipv4/tcp_rmem '4096 16777216 16777216'",
    ),
    ("tcp.congestion_control", "warning", ":", "put $ipv4/tcp_congestion_control reno"),
    // A listener whose queue is full: what is dropped is counted.
    (
        "backlog.drops",
        "warning",
        ":",
        r#"python3 - <<'END'
import fcntl, socket, struct
s = socket.socket()
fcntl.ioctl(s, 0x8914, struct.pack("16sH22x", b"lo", 1))
s.bind(("127.0.0.1", 0))
s.listen(0)
clients = []
for _ in range(8):
    c = socket.socket()
    c.setblocking(False)
    c.connect_ex(s.getsockname())
    clients.append(c)
    try:
        c.settimeout(0.05)
        c.recv(1)
    except OSError:
        pass
END"#,
    ),
];

/// With files laid over those of the kernel, which no namespace has of its own.
const LAID_OVER: &[Case] = &[
    ("kernel.version", "fault", ":", "over /proc/sys/kernel/osrelease 4.19.0"),
    (
        "descriptors.limit",
        "fault",
        "connections=9000; ulimit -n 20000",
        "ulimit -n 1000; over /proc/sys/kernel/io_uring_disabled 2",
    ),
    (
        "descriptors.ceiling",
        "fault",
        "over /proc/sys/fs/nr_open 2000000",
        "over /proc/sys/fs/nr_open 1024; over /proc/sys/kernel/io_uring_disabled 2",
    ),
    ("descriptors.files", "fault", "over /proc/sys/fs/file-max 9000000", "over /proc/sys/fs/file-max 500000"),
    (
        "buffers.memory",
        "warning",
        "over $ipv4/tcp_mem '700000 800000 900000'",
        "over $ipv4/tcp_mem '70000 80000 90000'",
    ),
    ("tcp.orphans", "warning", "over $ipv4/tcp_max_orphans 100000", "over $ipv4/tcp_max_orphans 100"),
    (
        "conntrack.table",
        "fault",
        "over /proc/sys/net/netfilter/nf_conntrack_count 0",
        "over /proc/sys/net/netfilter/nf_conntrack_count 5; over /proc/sys/net/netfilter/nf_conntrack_max 1000",
    ),
    ("tcp.hash_table", "fault", "over $ipv4/tcp_ehash_entries 1048576", "over $ipv4/tcp_ehash_entries 16384"),
    (
        "cpu.clock",
        "warning",
        "over /sys/devices/system/clocksource/clocksource0/current_clocksource tsc",
        "over /sys/devices/system/clocksource/clocksource0/current_clocksource acpi_pm",
    ),
    (
        "cpu.nodes",
        "warning",
        "tree one/node0/cpulist 0-63; lay one /sys/devices/system/node",
        "tree two/node0/cpulist 0; tree two/node1/cpulist 1-63; over /proc/sys/vm/zone_reclaim_mode 1; \
         lay two /sys/devices/system/node",
    ),
    (
        "cpu.receiving",
        "warning",
        "over /sys/devices/system/cpu/online 0-1; tree net/wire0/device/vendor x; tree net/wire0/queues/rx-0/rps_cpus 3; \
         lay net /sys/class/net",
        "tree net/wire0/queues/rx-0/rps_cpus 0",
    ),
    (
        "cpu.sending",
        "warning",
        "tree net/wire0/device/vendor x; tree net/wire0/queues/tx-0/xps_cpus 1; tree net/wire0/queues/tx-1/xps_cpus 2; \
         lay net /sys/class/net",
        "tree net/wire0/queues/tx-0/xps_cpus 0; tree net/wire0/queues/tx-1/xps_cpus 0",
    ),
    (
        "cpu.interrupts",
        "warning",
        "if grep -qsx irqbalance /proc/[0-9]*/comm; then exit 77; fi; \
         over /sys/devices/system/cpu/online 0-1; tree net/wire0/device/msi_irqs/901 msix; \
         tree net/wire0/device/msi_irqs/902 msix; \
         tree net/wire0/queues/rx-0/rps_cpus 0; tree net/wire0/queues/rx-1/rps_cpus 0; lay net /sys/class/net; \
         over /proc/interrupts ' 901: 1 1 MSI wire0-TxRx-0\\n 902: 1 1 MSI wire0-TxRx-1'; \
         tree irq/901/smp_affinity_list 0; tree irq/902/smp_affinity_list 1; lay irq /proc/irq",
        "tree irq/902/smp_affinity_list 0",
    ),
    (
        "memory.connections",
        "fault",
        // So few that what a container may have does for them.
        "connections=10k; over /proc/meminfo 'MemTotal: 67108864 kB'",
        "over /proc/meminfo 'MemTotal: 40000 kB'",
    ),
    (
        "memory.swap",
        "warning",
        "over /proc/meminfo 'MemTotal: 67108864 kB'",
        "over /proc/meminfo 'MemTotal: 67108864 kB\\nSwapTotal: 1000000 kB\\nSwapFree: 500000 kB'",
    ),
    (
        "memory.huge_pages",
        "warning",
        "over /sys/kernel/mm/transparent_hugepage/enabled 'always [madvise] never'",
        "over /sys/kernel/mm/transparent_hugepage/enabled '[always] madvise never'; \
         over /sys/kernel/mm/transparent_hugepage/defrag '[always] defer never'",
    ),
    ("memory.overcommit", "warning", "over /proc/sys/vm/overcommit_memory 0", "over /proc/sys/vm/overcommit_memory 2"),
];

fn finds_each(flags: &[&str], cases: &[Case]) {
    if !may_make_namespaces() {
        return;
    }
    for (check, level, good, bad) in cases {
        let directory = Dir::new("doctor-case");
        let output = in_namespaces(&directory, flags, &format!("{good}\ndoctor good\n{bad}\ndoctor bad\n"));
        if output.status.code() == Some(77) {
            eprintln!("SKIPPED: {check}: this kernel lacks what would be made wrong");
            continue;
        }
        assert!(output.status.success(), "{check}: {output:?}");
        assert_eq!(level_of(&directory, "good", check), "ok", "{check} by {good}");
        assert_eq!(level_of(&directory, "bad", check), *level, "{check} by {bad}");
    }
}

#[test]
fn doctor_finds_what_is_wrong_with_a_network_namespace() {
    finds_each(&["-n", "-m"], NETWORK);
}

#[test]
fn doctor_finds_what_is_wrong_with_a_machine() {
    finds_each(&["-m"], LAID_OVER);
}

/// What a container allows can't be changed from within: below a root of its own it can.
#[test]
fn doctor_finds_what_is_wrong_with_a_container() {
    let directory = Dir::new("doctor-container");
    let put = |name: &str, text: &str| {
        let path = directory.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("proc/self/status", "Name:\tspeedmimi\nCpus_allowed_list:\t0-7\n");
    put("proc/self/cgroup", "0::/a\n");
    put("proc/self/mountinfo", "26 25 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    let group = |cpu: &str, stat: &str, pids: &str, memory: &str| {
        put("sys/fs/cgroup/a/cpu.max", cpu);
        put("sys/fs/cgroup/a/cpu.stat", stat);
        put("sys/fs/cgroup/a/pids.max", pids);
        put("sys/fs/cgroup/a/pids.current", "4\n");
        put("sys/fs/cgroup/a/memory.max", memory);
        put("sys/fs/cgroup/a/memory.current", "1000000\n");
    };
    let report = || -> Value {
        let mut command = Command::new(PROGRAM);
        command.args(["doctor", "--json", "--connections=1m", "--root"]).arg(directory.path(""));
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    };
    let checks =
        ["container.cpus", "container.throttling", "container.threads", "memory.connections", "backlog.packets"];
    put("proc/net/softnet_stat", "00000001 00000000 00000000\n");
    group("800000 100000", "nr_periods 1000\nnr_throttled 3\n", "1000\n", "68719476736\n");
    let good = report();
    assert_eq!(checks.map(|check| level_in(&good, check)), ["ok"; 5], "{good}");
    put("proc/net/softnet_stat", "00000001 0000002a 00000000\n");
    group("200000 100000", "nr_periods 1000\nnr_throttled 300\n", "16\n", "1073741824\n");
    let bad = report();
    assert_eq!(checks.map(|check| level_in(&bad, check)), ["warning", "fault", "fault", "fault", "warning"], "{bad}");
    assert_eq!(bad["level"], "fault");
}

/// A proxy in a process of its own; ended, by its own id, when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(path: &str) -> Serving {
    let mut child = Command::new(PROGRAM).args(["run", "--config", path]).stderr(Stdio::piped()).spawn().unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let serving = Serving(child);
    let mut lines = log.lines();
    assert!(lines.any(|line| line.unwrap().contains("is running")), "it did not start");
    // Its log is read on, so that it never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    serving
}

#[test]
fn doctor_sees_every_table_of_a_running_proxy() {
    let directory = Dir::new("doctor-pid");
    let text = "server: {host: 127.0.0.1, port: 0, workers: 3, fd_tables: private}\ngrpc: {enabled: false}\nrouting: {any: {respond: {}}}\n";
    let serving = serve(&directory.write("f.yaml", text));
    let output =
        Command::new(PROGRAM).args(["doctor", "--json", "--pid", &serving.0.id().to_string()]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tables = report["process"]["tables"].as_array().unwrap();
    let of_workers = tables.iter().filter(|table| table["threads"].as_array().unwrap().len() == 1);
    let names: Vec<&str> = of_workers.map(|table| table["threads"][0].as_str().unwrap()).collect();
    assert_eq!((tables.len(), names), (4, vec!["worker-0", "worker-1", "worker-2"]), "{report}");
    assert!(tables.iter().all(|table| table["open"].as_u64().unwrap() > 3), "{report}");
    assert_eq!(report["process"]["sockets"]["listen"], 3, "a listener for each worker: {report}");
    for check in ["process.network", "process.tables", "process.listeners", "process.huge_pages", "process.memory"] {
        assert_eq!(level_in(&report, check), "ok", "{report}");
    }
}

#[test]
fn doctor_sees_workers_that_share_a_cpu() {
    let directory = Dir::new("doctor-shared");
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = allowed.split(['-', ',']).next().unwrap();
    let text = format!(
        "server: {{host: 127.0.0.1, port: 0, workers: 2, cpu_affinity: [{first}]}}\ngrpc: {{enabled: false}}\n\
         routing: {{any: {{respond: {{}}}}}}\n"
    );
    let serving = serve(&directory.write("f.yaml", text));
    let output =
        Command::new(PROGRAM).args(["doctor", "--json", "--pid", &serving.0.id().to_string()]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(level_in(&report, "process.workers"), "warning", "{report}");
}

#[test]
fn statuses_and_words_of_doctor() {
    let directory = Dir::new("doctor-words");
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).arg("doctor").args(arguments).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), format!("{out}{err}"))
    };
    let faulty = directory.write("f.yaml", "server: {prot: 1}\n");
    let (status, told) = run(&["--config", &faulty]);
    assert!(status == 78 && told.contains("did you mean port?"), "{status} {told}");
    let (status, told) = run(&["--pid", "4194999"]);
    assert!(status == 1 && told.contains("there is no process 4194999"), "{status} {told}");
    assert_eq!(run(&["--connections", "many"]).0, 2);
    // Docker has given containers a limit of more than a billion.
    let output =
        Command::new("sh").args(["-c", "ulimit -n 1000; exec \"$0\" doctor --connections 1000m", PROGRAM]).output();
    let output = output.unwrap();
    let (status, told) = (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap());
    assert!(
        status == 1 && told.contains("FAULT    descriptors.limit") && told.contains("cure    LimitNOFILE="),
        "{told}"
    );
    assert!(told.starts_with("judged by 1,000,000,000 client connections (--connections)\n"), "{told}");
}

mod tune {
    use super::*;

    /// Those of its steps that a network namespace has keys for.
    const STEPS: &str = "backlog,ports,options,buffers";

    /// All keys of the namespace that can be read, in order.
    const KEYS: &str = "keys() { (cd /proc/sys/net && find . -type f ! -name '*key*' ! -name 'flush' ! -name '*seed' \
                        -exec grep -aH . {} + 2>/dev/null | sort); }\n";

    fn tuned(directory: &Dir, script: &str) -> (Option<i32>, String) {
        let spoil = "put $ipv4/tcp_sack 0; put $ipv4/tcp_timestamps 0; put $ipv4/tcp_rmem '4096 16777216 16777216'\n\
                     put $core/somaxconn 128; put $ipv4/ip_local_reserved_ports 5000; put $ipv4/ip_local_port_range '60000 60999'\n";
        let tune = format!(
            "tune() {{ \"$PROGRAM\" tune --connections 1m --config \"$DIR/f.yaml\" --state \"$DIR/state/tune.json\" \
             --sysctl-file \"$DIR/90.conf\" \"$@\"; }}\nset_it() {{ tune --only {STEPS} --apply \"$@\"; }}\n"
        );
        let output =
            in_namespaces(directory, &["-n", "-m"], &format!("{KEYS}{spoil}{tune}keys > $DIR/before\n{script}"));
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code(), format!("{out}{err}"))
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn what_is_applied_is_there_and_undone_to_the_last_key() {
        if !may_make_namespaces() {
            return;
        }
        let directory = Dir::new("tune-round");
        let script = "tune > $DIR/told; keys | cmp - $DIR/before\n\
                      set_it --persist; keys > $DIR/during; set_it > $DIR/again\n\
                      doctor during\ncp $DIR/90.conf $DIR/persisted\n\
                      \"$PROGRAM\" tune --undo --state $DIR/state/tune.json; keys > $DIR/after; tune --undo > $DIR/twice\n";
        let (status, told) = tuned(&directory, script);
        assert_eq!(status, Some(0), "{told}");
        let read = |name: &str| text(&directory.path(name));
        assert_eq!(read("before"), read("after"));
        for line in [
            "./core/somaxconn:65535",
            "./ipv4/tcp_sack:1",
            "./ipv4/tcp_timestamps:1",
            "./ipv4/tcp_rmem:4096\t131072\t16777216",
            "./ipv4/ip_local_port_range:10240\t65535",
            "./ipv4/tcp_tw_reuse:1",
        ] {
            assert!(read("during").lines().any(|found| found == line), "{line}: {}", read("during"));
        }
        for check in
            ["backlog.accept", "backlog.handshakes", "tcp.options", "buffers.sockets", "ports.range", "ports.reuse"]
        {
            assert_eq!(level_of(&directory, "during", check), "ok");
        }
        assert!(read("again").starts_with("nothing to set\n"), "{}", read("again"));
        assert!(read("twice").ends_with(": nothing was set\n"), "{}", read("twice"));
        assert!(read("persisted").contains("\nnet.core.somaxconn = 65535\n"), "{}", read("persisted"));
        assert!(!directory.path("90.conf").exists() && !directory.path("state/tune.json").exists());
        assert!(read("told").contains("net.ipv4.tcp_tw_recycle: is gone since Linux 4.12"), "{}", read("told"));
        assert!(read("told").contains("net.core.somaxconn: 128 -> 65535\n    step   backlog\n    why    "));
    }

    /// The state is on the disk before the first key is set: a power cut in between can be undone.
    #[test]
    fn what_was_cut_short_can_be_undone() {
        if !may_make_namespaces() {
            return;
        }
        let directory = Dir::new("tune-cut");
        // As if it had ended after its first keys: the others are as they were.
        let script = "set_it > /dev/null; put $ipv4/tcp_tw_reuse 2; put $ipv4/tcp_sack 0; put $core/somaxconn 128\n\
                      tune --undo > $DIR/told; keys > $DIR/after\n";
        let (status, told) = tuned(&directory, script);
        assert_eq!(status, Some(0), "{told}");
        assert_eq!(text(&directory.path("before")), text(&directory.path("after")));
        assert!(text(&directory.path("told")).contains("net.core.somaxconn: is as it was\n"));
    }

    #[test]
    fn what_somebody_else_set_since_is_left_alone() {
        if !may_make_namespaces() {
            return;
        }
        let directory = Dir::new("tune-else");
        let script = "set_it > /dev/null; put $core/somaxconn 777\n\
                      tune --undo > $DIR/told && exit 9; cat $core/somaxconn; tune --undo --force; keys > $DIR/after\n";
        let (status, told) = tuned(&directory, script);
        assert!(status == Some(0) && told.starts_with("777\n"), "{status:?} {told}");
        let left =
            "net.core.somaxconn: is 777, not 65535 as it was set: left as it is (--force puts it back all the same)\n";
        assert!(text(&directory.path("told")).contains(left));
        assert_eq!(text(&directory.path("before")), text(&directory.path("after")));
    }

    /// What is asked of nft(8), by one that only writes it down.
    #[test]
    fn rules_of_nft_are_loaded_and_unloaded() {
        if !may_make_namespaces() {
            return;
        }
        let directory = Dir::new("tune-nft");
        let script = "PATH=\"$DIR/bin:$PATH\"; mkdir $DIR/bin\n\
                      printf '#!/bin/sh\\ncat >> \"$DIR/rules\"\\nexit $(cat \"$DIR/status\")\\n' > $DIR/bin/nft; chmod +x $DIR/bin/nft\n\
                      echo 1 > $DIR/status; set_it --notrack > $DIR/refused && exit 9; tune --undo > /dev/null\n\
                      echo 0 > $DIR/status; rm $DIR/rules; set_it --notrack; cp $DIR/rules $DIR/loaded; tune --undo\n";
        let (status, told) = tuned(&directory, script);
        assert_eq!(status, Some(0), "{told}");
        assert!(told.contains("nft: rules are loaded") && told.contains("nft: the rules are gone"), "{told}");
        let (loaded, all) = (text(&directory.path("loaded")), text(&directory.path("rules")));
        let emptied = "table inet speedmimi_notrack {}\ndelete table inet speedmimi_notrack\n";
        assert!(loaded.starts_with(emptied) && loaded.contains("tcp dport { 8080, 9091 } notrack\n"), "{loaded}");
        assert_eq!(all, format!("{loaded}{emptied}"));
        assert!(!directory.path("state/tune.json").exists());
    }

    #[test]
    fn a_state_file_that_others_may_write_is_refused() {
        if !may_make_namespaces() {
            return;
        }
        let directory = Dir::new("tune-others");
        let script = "set_it > /dev/null; chmod 666 $DIR/state/tune.json; keys > $DIR/during\n\
                      tune --undo && exit 9; keys | cmp - $DIR/during\n";
        let (status, told) = tuned(&directory, script);
        assert!(status == Some(0) && told.contains("only its owner, you, may write"), "{status:?} {told}");
    }
}

mod plan {
    use super::*;

    fn run(arguments: &[&str]) -> (i32, String) {
        let output = Command::new(PROGRAM).arg("plan").args(arguments).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), format!("{out}{err}"))
    }

    #[test]
    fn every_term_and_both_tables_in_both_languages() {
        let asked = ["--connections", "10m", "--rps", "500k", "--tls", "50%", "--websocket", "20%", "--http2", "30%"];
        let (status, told) = run(&asked);
        assert_eq!(status, 0, "{told}");
        for part in [
            "constants: built in",
            "clients' sockets               10,000,000 ×   3,750 B = 34.9 GiB",
            "| CPU cores each ",
            "| RPS it could bear ",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let (status, told) = run(&[&asked[..], &["--lang", "zh"]].concat());
        assert_eq!(status, 0, "{told}");
        for part in [
            "| 最小配置",
            "| 推荐配置",
            "| 每台 CPU 核数",
            "| 可承受的 RPS",
            "| 代理增加的平均延迟",
            "| CPU使用率",
            "| 内存使用",
            "| 网络使用",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn as_json_the_terms_sum_to_the_total() {
        let (status, told) = run(&["--connections=1m", "--rps=50k", "--http2=1", "--tls=1", "--json"]);
        let report: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((status, &report["calibration"]), (0, &Value::from("built-in")));
        for of in ["cpus", "memory", "network"] {
            let sum = &report["need"][of];
            let terms = sum["lines"].as_array().unwrap().iter().map(|line| line["total"]["median"].as_f64().unwrap());
            let (terms, total) = (terms.sum::<f64>(), sum["total"]["median"].as_f64().unwrap());
            assert!((terms - total).abs() <= total * 1e-9, "{of}: {terms} {total}");
        }
        assert!(
            report["minimum"]["machines"].as_u64() >= Some(1)
                && report["recommended"]["expected"]["rps"]["low"].is_f64()
        );
    }

    #[test]
    fn constants_come_from_a_file() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/tests/calibration.json");
        let (status, told) = run(&["--connections", "1m", "--rps", "100k", "--calibration", file]);
        assert!(
            status == 0 && told.contains("\n  a machine\n") && told.contains("100,000/s ×     16 µs = 1.6 CPUs"),
            "{told}"
        );
        let (status, told) = run(&["--connections", "1m", "--rps", "1", "--calibration", "/nowhere/at/all"]);
        assert!(status == 1 && told.contains("/nowhere/at/all: "), "{told}");
    }

    #[test]
    fn contradictions_are_wrong_usage() {
        for wrong in [
            &["--connections", "1m"][..],
            &["--connections", "1m", "--rps", "1", "--http2", "60%", "--websocket", "50%"],
            &["--connections", "1m", "--rps", "1", "--websocket", "100%"],
            &["--connections", "1m", "--rps", "1", "--tls", "101%"],
            &["--connections", "1m", "--rps", "1", "--frames", "10"],
            &["--connections", "0", "--rps", "1"],
            &["--connections", "1m", "--rps", "1", "--machine-cores", "0"],
        ] {
            assert_eq!(run(wrong).0, 2, "{wrong:?}");
        }
        assert_eq!(run(&["--connections", "1m", "--rps", "0", "--websocket", "100%"]).0, 0);
    }
}
