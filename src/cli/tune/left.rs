//! What is not set here: what others recommend and does harm, and what can't be set in a running machine.
//!
//! Owns the words. Sets nothing.

use crate::cli::doctor::network::hash_entries;
use crate::cli::snapshot::Snapshot;
use crate::cli::snapshot::interfaces::Interface;
use crate::cli::wanted::Wanted;

/// Keys that are left alone, with the reason.
pub const ALONE: &[(&str, &str)] = &[
    (
        "net.ipv4.tcp_sack = 0",
        "without selective acknowledgements a connection that lost three packets of a window needs three round trips to mend it. \
         The flaws for which it was once switched off were mended in 2019",
    ),
    (
        "net.ipv4.tcp_timestamps = 0",
        "saves 12 bytes a packet and loses the measure of round trips, the protection against old packets, and the use of closed \
         ports after a second (tcp_tw_reuse)",
    ),
    (
        "net.ipv4.tcp_tw_recycle",
        "is gone since Linux 4.12. It dropped clients who share an address, as all do behind NAT",
    ),
    (
        "giant tcp_rmem, tcp_wmem, rmem_default",
        "the middle number is what every busy connection may take before it needs it: at 16 MiB, a thousand slow clients hold 16 GiB. \
         Buffers grow by themselves up to the last number",
    ),
    (
        "net.core.rmem_max, wmem_max",
        "bound what programs ask for by SO_RCVBUF and SO_SNDBUF. The proxy asks for nothing: a size that was asked for never grows",
    ),
    (
        "net.ipv4.tcp_max_syn_backlog",
        "counts only while tcp_syncookies is 0: with cookies the half-open connections of a listener are as many as its backlog, \
         server.backlog cut by somaxconn, and those beyond get a cookie",
    ),
    ("net.ipv4.tcp_fin_timeout", "is about FIN_WAIT_2, where hardly any connection is, not about TIME_WAIT"),
    (
        "huge pages",
        "what is hot in the proxy is small. Transparent ones, which fill memory in again that was given back, it switches off for itself",
    ),
];

/// What has to be done elsewhere.
pub fn elsewhere(snapshot: &Snapshot, wanted: &Wanted) -> Vec<String> {
    let mut all = Vec::new();
    let needed = wanted.descriptors_needed();
    let fit = snapshot.limits.hard.map(|hard| wanted.clients_of(hard).clients_max);
    if fit.is_some_and(|fit| fit < wanted.connections) {
        all.push(format!("descriptors: LimitNOFILE={needed} in the unit of systemd (a shell: ulimit -n {needed})"));
    }
    let entries = snapshot.number("net.ipv4.tcp_ehash_entries").map_or(u64::MAX, i64::unsigned_abs);
    if entries < wanted.connections / 2 {
        all.push(format!(
            "hash table: thash_entries={} on the kernel's command line, at the next boot: {:.0} connections are in each chain now",
            hash_entries(wanted),
            wanted.connections as f64 / entries as f64
        ));
    }
    all.extend(congestion(snapshot, wanted));
    if snapshot.irqbalance && !snapshot.interfaces.is_empty() {
        all.push("interrupts: irqbalance runs and places them; nothing is set".to_owned());
    }
    all
}

/// Of BBR and the fair queueing that it wants.
fn congestion(snapshot: &Snapshot, wanted: &Wanted) -> Vec<String> {
    if let Some(named) = wanted.other_than_bbr() {
        return vec![format!(
            "congestion control: server.congestion_control names {named} for clients; BBR and its fair queueing are not set"
        )];
    }
    let Some(available) = snapshot.text("net.ipv4.tcp_available_congestion_control") else { return Vec::new() };
    if !available.contains("bbr") {
        return vec!["BBR: the kernel has not loaded it. modprobe tcp_bbr, then tune again".to_owned()];
    }
    let root = |queues: usize| if queues > 1 { "mq" } else { "fq" };
    let of = |interface: &Interface| {
        format!(
            "fair queueing on {0}, which is up already, unless `tc qdisc show dev {0}` has fq: tc qdisc replace dev {0} root {1}",
            interface.name,
            root(interface.send.len())
        )
    };
    snapshot.interfaces.iter().map(of).collect()
}
