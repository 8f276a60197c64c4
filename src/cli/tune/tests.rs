//! What is set, on made-up machines; and the state file, under a made-up root.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::apply::{self, Entry, Persisted, State, Undone};
use super::change::{self, Change, Step};
use super::lock::Lock;
use super::{later, left, notrack};
use crate::cli::snapshot::files::Files;
use crate::cli::snapshot::interfaces::{Interface, Interrupt};
use crate::cli::snapshot::{Memory, Snapshot};
use crate::cli::wanted::Wanted;
use crate::config::document::Document;

/// A machine as a distribution leaves it, with a network card of two queues on eight CPUs.
fn fresh() -> Snapshot {
    let sysctls = [
        ("fs.file-max", "2466170"),
        ("fs.nr_open", "1048576"),
        ("net.core.default_qdisc", "fq_codel"),
        ("net.core.netdev_max_backlog", "1000"),
        ("net.core.somaxconn", "4096"),
        ("net.ipv4.ip_local_port_range", "32768 60999"),
        ("net.ipv4.tcp_available_congestion_control", "reno cubic bbr"),
        ("net.ipv4.tcp_congestion_control", "cubic"),
        ("net.ipv4.tcp_ehash_entries", "262144"),
        ("net.ipv4.tcp_max_tw_buckets", "262144"),
        ("net.ipv4.tcp_mem", "287898 383867 575796"),
        ("net.ipv4.tcp_moderate_rcvbuf", "1"),
        ("net.ipv4.tcp_rmem", "4096 131072 6291456"),
        ("net.ipv4.tcp_sack", "1"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.ipv4.tcp_timestamps", "1"),
        ("net.ipv4.tcp_tw_reuse", "2"),
        ("net.ipv4.tcp_window_scaling", "1"),
        ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
    ];
    let interrupt = |number| Interrupt { number, cpus: vec![0] };
    Snapshot {
        sysctls: sysctls.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        interfaces: vec![Interface {
            name: "eth0".into(),
            receive: vec![vec![]; 2],
            send: vec![Some(vec![]); 2],
            interrupts: vec![interrupt(40), interrupt(41)],
            ..Interface::default()
        }],
        cpus: (0..8).collect(),
        allowed: (0..8).collect(),
        memory: Memory { total: 64 << 30, ..Memory::default() },
        ..Snapshot::default()
    }
}

fn wanted_of(connections: u64, snapshot: &Snapshot) -> Wanted {
    let text = "server: {port: 8080, listen: [\"0.0.0.0:20443\"], fd_tables: shared}\n\
                backends: {u: [{id: a, host: a, port: 81, max_conn: 500}]}\nrouting: {any: {upstream: u}}\n";
    let plan = Document::from_text(text, "", |_| None).unwrap().into_parts().0;
    Wanted::new(Some(connections), &plan, snapshot)
}

fn changes(snapshot: &Snapshot, connections: u64) -> Vec<(String, String)> {
    let all = change::all(snapshot, &wanted_of(connections, snapshot));
    assert!(all.iter().all(|change| change::is_settable(&change.key) && change.now != change.wanted), "{all:?}");
    all.into_iter().map(|change| (change.key, change.wanted)).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_fresh_machine_for_ten_million() {
    let expected = [
        ("fs.nr_open", "10066000"),
        ("fs.file-max", "20065536"),
        ("net.core.somaxconn", "65535"),
        ("net.core.netdev_max_backlog", "16384"),
        ("net.ipv4.tcp_tw_reuse", "1"),
        ("net.ipv4.tcp_mem", "625000 937500 1250000"),
        ("net.core.default_qdisc", "fq"),
        ("net.ipv4.tcp_congestion_control", "bbr"),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "ff"),
        ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "ff"),
        ("/sys/class/net/eth0/queues/tx-0/xps_cpus", "55"),
        ("/sys/class/net/eth0/queues/tx-1/xps_cpus", "aa"),
        ("/proc/irq/41/smp_affinity_list", "1"),
    ];
    assert_eq!(changes(&fresh(), 10_000_000), pairs(&expected));
}

#[test]
fn what_was_set_is_not_set_again() {
    let mut snapshot = fresh();
    for (key, value) in changes(&fresh(), 10_000_000).into_iter().filter(|(key, _)| !key.starts_with('/')) {
        snapshot.sysctls.insert(key, value);
    }
    snapshot.interfaces.clear();
    assert_eq!(changes(&snapshot, 10_000_000), []);
    // For fewer nothing is lowered.
    assert_eq!(changes(&snapshot, 1000), []);
}

#[test]
fn nothing_is_ever_lowered() {
    let mut snapshot = fresh();
    let mut set = |key: &str, value: &str| snapshot.sysctls.insert(key.into(), value.into());
    // More ports than a backend's connections need, but for those of one backend.
    set("net.ipv4.ip_local_port_range", "1024 65535");
    set("net.ipv4.tcp_mem", "900000 1000000 1100000");
    let text = "backends: {u: [{id: a, host: a, port: 81}]}\nrouting: {any: {upstream: u}}\n";
    let plan = Document::from_text(text, "", |_| None).unwrap().into_parts().0;
    let all = change::all(&snapshot, &Wanted::new(Some(10_000_000), &plan, &snapshot));
    let of = |key: &str| all.iter().find(|change| change.key == key).map(|change| change.wanted.as_str());
    assert_eq!((of("net.ipv4.ip_local_port_range"), of("net.ipv4.tcp_mem")), (None, Some("900000 1000000 1250000")));
}

#[test]
fn what_is_tracked_gets_room_and_short_chains() {
    let mut snapshot = fresh();
    for (key, value) in [("count", "5"), ("max", "262144"), ("buckets", "65536")] {
        snapshot.sysctls.insert(format!("net.netfilter.nf_conntrack_{key}"), value.into());
    }
    let found = changes(&snapshot, 1_000_000);
    let expected = [("net.netfilter.nf_conntrack_max", "2065536"), ("net.netfilter.nf_conntrack_buckets", "524288")];
    assert!(pairs(&expected).iter().all(|pair| found.contains(pair)), "{found:?}");
    // Where nothing is tracked, none is needed.
    snapshot.sysctls.insert("net.netfilter.nf_conntrack_count".into(), "0".into());
    assert!(!changes(&snapshot, 1_000_000).iter().any(|(key, _)| key.contains("conntrack")));
}

#[test]
fn a_congestion_control_that_the_configuration_names_is_not_overruled() {
    for (named, is_set) in [("bbr", true), ("cubic", false)] {
        let text = format!("server: {{congestion_control: {named}}}\nrouting: {{any: {{respond: {{}}}}}}\n");
        let plan = Document::from_text(&text, "", |_| None).unwrap().into_parts().0;
        let (snapshot, has) = (fresh(), |change: &Change| change.key == "net.ipv4.tcp_congestion_control");
        let wanted = Wanted::new(None, &plan, &snapshot);
        assert_eq!(change::all(&snapshot, &wanted).iter().any(has), is_set, "{named}");
        let told = left::elsewhere(&snapshot, &wanted).join("\n");
        assert_eq!(told.contains("names cubic for clients"), !is_set, "{told}");
        assert_eq!(told.contains("fair queueing on eth0"), is_set, "{told}");
    }
}

#[test]
fn packets_are_passed_on_within_a_node() {
    let mut snapshot = fresh();
    snapshot.nodes = vec![(0..4).collect(), (4..8).collect()];
    snapshot.interfaces[0].node = Some(1);
    let found = changes(&snapshot, 1000);
    for pair in pairs(&[
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "f0"),
        ("/proc/irq/40/smp_affinity_list", "4"),
        ("/proc/irq/41/smp_affinity_list", "5"),
    ]) {
        assert!(found.contains(&pair), "{pair:?} of {found:?}");
    }
}

#[test]
fn a_small_number_needs_little() {
    let keys: Vec<String> = changes(&fresh(), 1000).into_iter().map(|(key, _)| key).collect();
    assert!(!keys.iter().any(|key| key.starts_with("fs.") || key == "net.ipv4.tcp_mem"), "{keys:?}");
}

#[test]
fn what_somebody_switched_off_is_switched_on() {
    let mut snapshot = fresh();
    for (key, value) in [
        ("net.ipv4.tcp_sack", "0"),
        ("net.ipv4.tcp_timestamps", "0"),
        ("net.ipv4.tcp_window_scaling", "0"),
        ("net.ipv4.tcp_syncookies", "0"),
        ("net.ipv4.tcp_rmem", "8192 16777216 16777216"),
        ("net.ipv4.tcp_wmem", "4096 16384 65536"),
        ("net.ipv4.ip_local_port_range", "60000 60999"),
        ("net.ipv4.ip_local_reserved_ports", "20440-20442,30000"),
    ] {
        snapshot.sysctls.insert(key.into(), value.into());
    }
    snapshot.irqbalance = true;
    let found = changes(&snapshot, 1000);
    for pair in pairs(&[
        ("net.ipv4.tcp_sack", "1"),
        ("net.ipv4.tcp_timestamps", "1"),
        ("net.ipv4.tcp_window_scaling", "1"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.ipv4.tcp_tw_reuse", "1"),
        ("net.ipv4.tcp_rmem", "8192 131072 16777216"),
        ("net.ipv4.tcp_wmem", "4096 16384 4194304"),
        ("net.ipv4.ip_local_port_range", "10240 65535"),
        // The listener is in the new range: it joins what was set aside before.
        ("net.ipv4.ip_local_reserved_ports", "20440-20443,30000"),
    ]) {
        assert!(found.contains(&pair), "{pair:?} of {found:?}");
    }
    assert!(!found.iter().any(|(key, _)| key.starts_with("/proc/irq")), "irqbalance would undo it");
}

#[test]
fn only_what_is_set_here_is_settable() {
    for key in [
        "kernel.core_pattern",
        "net.ipv4.../../kernel/core_pattern",
        "/etc/passwd",
        "/sys/class/net/../../../etc/queues/rx-0/rps_cpus",
        "/sys/class/net/eth0/queues/rx-/rps_cpus",
        "/sys/class/net/eth0/queues/rx-0/../../x",
        "/proc/irq/../smp_affinity_list",
        "/proc/irq/7/smp_affinity",
    ] {
        assert!(!change::is_settable(key), "{key}");
    }
    assert!(change::is_settable("/sys/class/net/eth0.7/queues/tx-12/xps_cpus"));
    // What is set is looked at before.
    assert!(change::SETTABLE.iter().all(|key| crate::cli::snapshot::SYSCTLS.contains(key)));
}

#[test]
fn tracking_leaves_out_both_sides() {
    let snapshot = Snapshot::default();
    let expected = "table inet speedmimi_notrack {\n    chain prerouting {\n        type filter hook prerouting priority raw;\n        \
                    tcp dport { 8080, 9091, 20443 } notrack\n        tcp sport { 81 } notrack\n    }\n\
                    \x20   chain output {\n        \
                    type filter hook output priority raw;\n        tcp sport { 8080, 9091, 20443 } notrack\n        \
                    tcp dport { 81 } notrack\n    }\n}\n";
    assert_eq!(notrack::rules(&wanted_of(1, &snapshot)).as_deref(), Some(expected));
}

/// A root with keys in it, that goes with its test.
struct Root(PathBuf);

impl Root {
    fn new(test: &str, keys: &[(&str, &str)]) -> Root {
        // Tests of one process may take the same word.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("speedmimi-tune-{test}-{}-{number}", std::process::id());
        let root = Root(std::env::temp_dir().join(name));
        // Of a process that was killed and had the same number.
        let _ = fs::remove_dir_all(&root.0);
        keys.iter().for_each(|(key, value)| root.put(key, value));
        root
    }

    fn put(&self, key: &str, value: &str) {
        let path = self.0.join(change::path_of(key));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{value}\n")).unwrap();
    }

    fn get(&self, key: &str) -> String {
        fs::read_to_string(self.0.join(change::path_of(key))).unwrap().trim().to_owned()
    }

    fn files(&self) -> Files {
        Files::at(&self.0)
    }

    fn state(&self) -> PathBuf {
        self.0.join("var/tune.json")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn change_of(step: Step, key: &str, wanted: &str) -> Change {
    let (key, wanted) = (key.to_owned(), wanted.to_owned());
    Change { step, key, now: String::new(), wanted, why: "", cost: "" }
}

fn apply_to(root: &Root, changes: &[Change]) -> (State, Vec<Option<String>>) {
    let mut state = State::load(&root.state()).unwrap();
    let outcomes = apply::apply(&root.files(), changes, &mut state, &root.state()).unwrap();
    assert_eq!(State::load(&root.state()).unwrap(), state);
    (state, outcomes.into_iter().map(|outcome| outcome.failure.map(|failure| failure.why)).collect())
}

const SOMAXCONN: &str = "net.core.somaxconn";
const PACKETS: &str = "net.core.netdev_max_backlog";
const NR_OPEN: &str = "fs.nr_open";

#[test]
fn a_step_is_set_whole_or_not_at_all() {
    let root = Root::new("whole", &[(SOMAXCONN, "128"), (NR_OPEN, "1000")]);
    // The second key of the step is not there.
    let changes = [
        change_of(Step::Descriptors, NR_OPEN, "2000"),
        change_of(Step::Backlog, SOMAXCONN, "65535"),
        change_of(Step::Backlog, PACKETS, "65535"),
    ];
    let (state, failures) = apply_to(&root, &changes);
    assert!(
        failures[0].is_none() && failures[1].as_deref().is_some_and(|why| why.starts_with(PACKETS)),
        "{failures:?}"
    );
    assert_eq!((root.get(NR_OPEN), root.get(SOMAXCONN)), ("2000".into(), "128".into()));
    assert_eq!(state.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), [NR_OPEN]);
}

#[test]
fn the_first_value_is_what_comes_back_however_often_it_is_set() {
    let root = Root::new("often", &[(SOMAXCONN, "128"), (PACKETS, "256")]);
    apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "1000")]);
    apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "2000"), change_of(Step::Backlog, PACKETS, "3000")]);
    let mut state = State::load(&root.state()).unwrap();
    let undone = apply::undo(&root.files(), &mut state, &root.state(), false).unwrap();
    assert!(undone.iter().all(|undone| matches!(undone, Undone::Restored { .. })), "{undone:?}");
    assert_eq!((root.get(SOMAXCONN), root.get(PACKETS)), ("128".into(), "256".into()));
    assert!(!root.state().exists());
}

#[test]
fn a_step_that_fails_later_keeps_what_was_known_before() {
    let root = Root::new("later", &[(SOMAXCONN, "128")]);
    apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "1000")]);
    let (state, failures) =
        apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "2000"), change_of(Step::Backlog, PACKETS, "1")]);
    assert!(failures[0].is_some());
    let entry = |after: &str| Entry {
        step: Step::Backlog,
        key: SOMAXCONN.into(),
        before: "128".into(),
        after: after.into(),
        next: None,
    };
    assert_eq!((root.get(SOMAXCONN), state.entries), ("1000".into(), vec![entry("1000")]));
}

/// The second of two runs ended between what it wrote down and what it set.
#[test]
fn a_second_run_that_was_cut_short_can_be_undone() {
    for (at_the_end, is) in [("before it was set", "1000"), ("after", "2000")] {
        let root = Root::new("second", &[(SOMAXCONN, "128")]);
        let (mut state, _) = apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "1000")]);
        state.entries[0].next = Some("2000".into());
        state.save(&root.state()).unwrap();
        root.put(SOMAXCONN, is);
        let mut state = State::load(&root.state()).unwrap();
        let undone = apply::undo(&root.files(), &mut state, &root.state(), false).unwrap();
        assert_eq!(undone, [Undone::Restored { key: SOMAXCONN.into(), value: "128".into() }], "{at_the_end}");
    }
}

#[test]
fn what_somebody_set_between_two_runs_comes_back() {
    let root = Root::new("between", &[(SOMAXCONN, "128")]);
    apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "1000")]);
    root.put(SOMAXCONN, "8192");
    apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "65535")]);
    let mut state = State::load(&root.state()).unwrap();
    apply::undo(&root.files(), &mut state, &root.state(), false).unwrap();
    assert_eq!(root.get(SOMAXCONN), "8192");
}

#[test]
fn a_boot_ends_what_was_set_but_for_what_it_set_again() {
    const BOOT: &str = "proc/sys/kernel/random/boot_id";
    const IRQ: &str = "/proc/irq/41/smp_affinity_list";
    let root = Root::new("boot", &[(SOMAXCONN, "128"), (PACKETS, "1000"), (IRQ, "0-7")]);
    let boots = |id: &str| {
        fs::create_dir_all(root.0.join(BOOT).parent().unwrap()).unwrap();
        fs::write(root.0.join(BOOT), id).unwrap();
    };
    boots("one");
    let mut state = State::default();
    assert_eq!(state.enter_boot(&root.files()), 0);
    let changes = [
        change_of(Step::Backlog, SOMAXCONN, "65535"),
        change_of(Step::Backlog, PACKETS, "16384"),
        change_of(Step::Interrupts, IRQ, "1"),
    ];
    apply::apply(&root.files(), &changes, &mut state, &root.state()).unwrap();
    state.nft = true;
    assert_eq!(state.clone().enter_boot(&root.files()), 0, "the same boot");
    boots("two");
    // What sysctl.d has is as it was set, another key as a newer kernel has it, the interrupt's number is another device's.
    root.put(PACKETS, "2000");
    assert_eq!(state.enter_boot(&root.files()), 3);
    let keys: Vec<&str> = state.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((keys, state.nft, state.boot.as_str()), (vec![SOMAXCONN], false, "two"));
}

#[test]
fn two_runs_at_once_are_one_too_many() {
    let root = Root::new("lock", &[]);
    let held = Lock::take(&root.state()).unwrap();
    assert!(Lock::take(&root.state()).unwrap_err().to_string().contains("at work"));
    drop(held);
    Lock::take(&root.state()).unwrap();
}

#[test]
fn files_that_are_read_later_are_told_of() {
    let root = Root::new("later", &[]);
    let put = |path: &str, text: &str| {
        let path = root.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("etc/sysctl.d/10-early.conf", "net.core.somaxconn = 1\n");
    put("usr/lib/sysctl.d/99-vendor.conf", "net.core.somaxconn = 2\n");
    // A file of the same name in /etc stands in for it.
    put("etc/sysctl.d/99-vendor.conf", "net.core.somaxconn = 3\nnet.core.netdev_max_backlog = 16384\n");
    let entry = |key: &str, after: &str| Entry {
        step: Step::Backlog,
        key: key.into(),
        before: String::new(),
        after: after.into(),
        next: None,
    };
    let entries = [entry(SOMAXCONN, "65535"), entry(PACKETS, "16384")];
    let told = || later::overridden(&root.files(), Path::new("/etc/sysctl.d/90-x.conf"), &entries.each_ref());
    assert_eq!(told(), [(SOMAXCONN, "/etc/sysctl.d/99-vendor.conf".to_owned(), "3".to_owned())]);
    put("etc/sysctl.conf", "net.core.somaxconn = 65535\n");
    assert_eq!(told(), []);
}

#[test]
fn a_state_is_empty_once_nothing_is_left_to_put_back() {
    let persisted = Persisted { file: "/etc/sysctl.d/90.conf".into(), text: String::new() };
    assert!(State { boot: "one".into(), ..State::default() }.is_empty());
    assert!(!State { nft: true, ..State::default() }.is_empty());
    assert!(!State { persisted: Some(persisted), ..State::default() }.is_empty());
}

#[test]
fn masks_with_leading_zeros_are_the_same() {
    let key = "/sys/class/net/eth0/queues/rx-0/rps_cpus";
    let root = Root::new("masks", &[(key, "00000000,00000000")]);
    apply_to(&root, &[change_of(Step::Queues, key, "ff")]);
    root.put(key, "00000000,000000ff");
    let mut state = State::load(&root.state()).unwrap();
    let undone = apply::undo(&root.files(), &mut state, &root.state(), false).unwrap();
    assert_eq!(undone, [Undone::Restored { key: key.into(), value: "00000000,00000000".into() }]);
}

#[test]
fn what_is_gone_is_told_and_forgotten() {
    let root = Root::new("gone", &[(SOMAXCONN, "128")]);
    apply_to(&root, &[change_of(Step::Backlog, SOMAXCONN, "1000")]);
    fs::remove_file(root.0.join(change::path_of(SOMAXCONN))).unwrap();
    let mut state = State::load(&root.state()).unwrap();
    let undone = apply::undo(&root.files(), &mut state, &root.state(), false).unwrap();
    assert_eq!(undone, [Undone::Gone { key: SOMAXCONN.into() }]);
    assert!(!root.state().exists());
}

#[test]
fn a_state_that_leads_elsewhere_is_refused() {
    let root = Root::new("elsewhere", &[(SOMAXCONN, "128")]);
    let refused = |text: &str| {
        fs::create_dir_all(root.state().parent().unwrap()).unwrap();
        fs::write(root.state(), text).unwrap();
        State::load(&root.state()).unwrap_err().to_string()
    };
    let text = r#"{"entries": [{"step": "backlog", "key": "/etc/passwd", "before": "x", "after": "y"}]}"#;
    assert_eq!(refused(text), "`/etc/passwd` is nothing that is set here");
    assert!(!refused("not JSON").is_empty());
    fs::remove_file(root.state()).unwrap();
    std::os::unix::fs::symlink(Path::new("/dev/null"), root.state()).unwrap();
    assert!(State::load(&root.state()).is_err(), "a link is not followed");
}
