//! Checks of CPUs: NUMA nodes, who serves which queue, the clock, and what a container may have.

use std::collections::BTreeSet;

use super::finding::Finding;
use crate::cli::snapshot::Snapshot;
use crate::cli::snapshot::interfaces::{Interface, mask_of_cpus};
use crate::cli::wanted::Wanted;
use crate::config::plan::{CpuAffinity, Steering};

/// The first kernel that gives connections to the worker of `SO_INCOMING_CPU`.
const KERNEL_THAT_STEERS: (u32, u32) = (6, 2);
/// Clocks that are read without a system call.
const FAST_CLOCKS: &[&str] =
    &["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen", "timebase"];

pub fn nodes(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "cpu.nodes";
    let nodes = || snapshot.nodes.iter().filter(|node| !node.is_empty());
    let used = nodes().filter(|node| node.iter().any(|cpu| snapshot.allowed.contains(cpu))).count();
    let found = match nodes().count() {
        0 | 1 => return Finding::ok(NAME, "one NUMA node"),
        all => format!("{used} of {all} NUMA nodes"),
    };
    if snapshot.number("vm.zone_reclaim_mode").is_some_and(|mode| mode != 0) {
        return Finding::warning(NAME, format!("{found}, vm.zone_reclaim_mode is on"))
            .wanted("vm.zone_reclaim_mode = 0")
            .cost("a node that is full reclaims its file cache while the other has memory free")
            .cure("sysctl -w vm.zone_reclaim_mode=0");
    }
    if used > 1 && wanted.server.cpu_affinity == CpuAffinity::Off {
        return Finding::warning(NAME, format!("{found}, and server.cpu_affinity is off"))
            .wanted("a worker's CPU and memory on one node")
            .cost("a worker that moves finds its memory behind the other node: each miss costs half as much again or more")
            .cure("server.cpu_affinity: auto; or a proxy a node: CPUAffinity= and NUMAPolicy=local in its unit");
    }
    Finding::ok(NAME, found)
}

/// Whether one CPU takes the interrupts of several queues while others take none.
pub fn interrupts(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "cpu.interrupts";
    if snapshot.interfaces.is_empty() {
        return Finding::ok(NAME, "no network interface with hardware behind it");
    }
    let balanced = if snapshot.irqbalance { "irqbalance runs; " } else { "" };
    let crowded: Vec<&Interface> = snapshot.interfaces.iter().filter(|it| is_crowded(snapshot, it)).collect();
    if crowded.is_empty() || snapshot.irqbalance {
        let all: Vec<String> =
            snapshot.interfaces.iter().map(|it| format!("{} {}", it.name, it.interrupts.len())).collect();
        return Finding::ok(NAME, format!("{balanced}interrupts of queues: {}", all.join(", ")));
    }
    let told = |it: &&Interface| format!("{}: {} on {}", it.name, it.interrupts.len(), taking(it).len());
    let found: Vec<String> = crowded.iter().map(told).collect();
    let mut finding = Finding::warning(NAME, format!("interrupts of queues on CPUs: {}", found.join(", ")))
        .wanted("spread over the CPUs")
        .cost("the CPU that takes them all is the first to be full, and its worker's connections wait");
    for it in crowded {
        for (interrupt, cpu) in it.interrupts.iter().zip(spread(snapshot, it)) {
            finding = finding.cure(format!("echo {cpu} > /proc/irq/{}/smp_affinity_list", interrupt.number));
        }
    }
    finding
}

/// CPUs that take an interrupt of the interface, each interrupt's first.
fn taking(interface: &Interface) -> Vec<usize> {
    let mut cpus: Vec<usize> = interface.interrupts.iter().filter_map(|irq| irq.cpus.first().copied()).collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// Whether fewer CPUs take its interrupts than could, of those near it. One that may go to many CPUs goes to the first of them.
pub fn is_crowded(snapshot: &Snapshot, interface: &Interface) -> bool {
    let could = interface.interrupts.len().min(near(snapshot, interface).len());
    // Receiving and sending of a queue may well be on one CPU.
    let queues = interface.receive.len().max(interface.send.len()).min(could).max(1);
    interface.interrupts.len() > 1 && taking(interface).len() < queues
}

/// The CPUs of the interface's own node; all where that can't be told.
pub fn near<'a>(snapshot: &'a Snapshot, interface: &Interface) -> &'a [usize] {
    let near = interface.node.and_then(|node| snapshot.nodes.get(node)).filter(|cpus| !cpus.is_empty());
    near.unwrap_or(&snapshot.cpus)
}

/// A CPU for each interrupt in turn, near the interface.
pub fn spread<'a>(snapshot: &'a Snapshot, interface: &Interface) -> impl Iterator<Item = usize> + 'a {
    near(snapshot, interface).iter().copied().cycle()
}

/// Whether received packets reach more than one CPU.
pub fn steering(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "cpu.receiving";
    let narrow: Vec<&Interface> = snapshot.interfaces.iter().filter(|it| is_narrow(snapshot, it)).collect();
    if narrow.is_empty() {
        let all: Vec<String> =
            snapshot.interfaces.iter().map(|it| format!("{} {}", it.name, it.receive.len())).collect();
        let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        return Finding::ok(NAME, format!("receiving queues: {all}"));
    }
    let found = narrow
        .iter()
        .map(|it| format!("{} has {} for {} CPUs", it.name, queues(it.receive.len()), near(snapshot, it).len()));
    let mut finding = Finding::warning(NAME, format!("{}, and no RPS", found.collect::<Vec<_>>().join(", ")))
        .wanted("as many queues as CPUs of its node, or packets passed on to the others of these (RPS)")
        .cost("all packets go through few CPUs before a worker sees them");
    for it in narrow {
        finding = finding.cure(format!(
            "ethtool -L {} combined {}   (where the hardware has them)",
            it.name,
            near(snapshot, it).len()
        ));
        let mask = mask_of_cpus(near(snapshot, it));
        let rps = (0..it.receive.len())
            .map(|queue| format!("echo {mask} > /sys/class/net/{}/queues/rx-{queue}/rps_cpus", it.name));
        finding.cure.extend(rps);
    }
    finding
}

/// Whether it has at most half as many receiving queues as there are CPUs near it, and its packets stay where they come in.
pub fn is_narrow(snapshot: &Snapshot, interface: &Interface) -> bool {
    let (queues, cpus) = (interface.receive.len(), near(snapshot, interface).len());
    queues > 0 && queues * 2 <= cpus && interface.receive.iter().any(|passed_on| passed_on.len() < 2)
}

/// `server.steering: cpu`: the kernel has to keep to it, and packets have to come in on the CPU of every worker.
pub fn steered(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "cpu.steering";
    if wanted.server.steering == Steering::Hash {
        return Finding::ok(NAME, "server.steering is hash");
    }
    let Some(version) = snapshot.kernel() else { return Finding::unknown(NAME, "the kernel's version") };
    if version < KERNEL_THAT_STEERS {
        let release = snapshot.text("kernel.osrelease").unwrap_or_default();
        return Finding::warning(NAME, format!("server.steering is cpu, on Linux {release}"))
            .wanted("Linux 6.2 or later")
            .cost("the kernel does not keep to it: connections go to any worker, as with hash")
            .cure("a newer kernel, or server.steering: hash");
    }
    let receiving = receiving(snapshot);
    let idle: Vec<String> =
        cpus_of_workers(snapshot, wanted).filter(|cpu| !receiving.contains(cpu)).map(|cpu| cpu.to_string()).collect();
    if receiving.is_empty() || idle.is_empty() {
        return Finding::ok(NAME, "server.steering is cpu, and the kernel keeps to it");
    }
    Finding::warning(NAME, format!("server.steering is cpu, and no packets come in on CPUs {}", idle.join(",")))
        .wanted("a receiving queue on the CPU of every worker, or packets passed on there (RPS)")
        .cost("their workers get no new connection while the others get them all")
        .cure("see cpu.receiving and cpu.interrupts; server.cpu_affinity with the CPUs that take packets; or server.steering: hash")
}

/// CPUs that received packets reach; none where no interface has hardware behind it.
fn receiving(snapshot: &Snapshot) -> BTreeSet<usize> {
    let of = |it: &Interface| match it.receive.iter().any(|passed_on| !passed_on.is_empty()) {
        true => it.receive.concat(),
        false => taking(it),
    };
    snapshot.interfaces.iter().flat_map(of).collect()
}

fn cpus_of_workers<'a>(snapshot: &'a Snapshot, wanted: &'a Wanted) -> impl Iterator<Item = usize> + 'a {
    let cpus = match &wanted.server.cpu_affinity {
        CpuAffinity::Off => &[][..],
        CpuAffinity::Auto => &snapshot.allowed,
        CpuAffinity::List(list) => list,
    };
    cpus.iter().copied().take(wanted.workers)
}

/// Whether CPUs that send have queues of their own.
pub fn sending(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "cpu.sending";
    let unset: Vec<&Interface> = snapshot.interfaces.iter().filter(|it| lacks_xps(it)).collect();
    if unset.is_empty() {
        let all: Vec<String> = snapshot.interfaces.iter().map(|it| format!("{} {}", it.name, it.send.len())).collect();
        let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
        return Finding::ok(NAME, format!("sending queues: {all}"));
    }
    let found: Vec<String> =
        unset.iter().map(|it| format!("{} has {} without CPUs", it.name, queues(it.send.len()))).collect();
    let mut finding = Finding::warning(NAME, found.join(", "))
        .wanted("each queue with CPUs of its own (XPS)")
        .cost("CPUs take turns at one queue's lock");
    for it in unset {
        for (queue, cpus) in shares(&snapshot.cpus, it.send.len()).iter().enumerate() {
            let mask = mask_of_cpus(cpus);
            finding = finding.cure(format!("echo {mask} > /sys/class/net/{}/queues/tx-{queue}/xps_cpus", it.name));
        }
    }
    finding
}

/// Whether it has several sending queues and none says which CPUs are its own.
pub fn lacks_xps(interface: &Interface) -> bool {
    interface.send.len() > 1 && interface.send.iter().all(|cpus| cpus.as_ref().is_some_and(Vec::is_empty))
}

/// The CPUs shared out to so many queues.
pub fn shares(cpus: &[usize], queues: usize) -> Vec<Vec<usize>> {
    let share = |queue| match queue < cpus.len() {
        true => cpus.iter().copied().skip(queue).step_by(queues).collect(),
        false => vec![cpus[queue % cpus.len().max(1)]],
    };
    if cpus.is_empty() { Vec::new() } else { (0..queues).map(share).collect() }
}

pub fn clock(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "cpu.clock";
    let Some((current, available)) = &snapshot.clock else { return Finding::unknown(NAME, "the clock source") };
    if FAST_CLOCKS.contains(&current.as_str()) {
        return Finding::ok(NAME, current.as_str());
    }
    let better = FAST_CLOCKS.iter().find(|fast| available.split(' ').any(|one| one == **fast));
    let finding = Finding::warning(NAME, format!("{current}; there are {available}"))
        .wanted("tsc or kvm-clock")
        .cost("reading the time is a system call of a microsecond or more, several times a request, not 25 ns");
    match better {
        Some(fast) => {
            finding.cure(format!("echo {fast} > /sys/devices/system/clocksource/clocksource0/current_clocksource"))
        }
        None => finding.cure("dmesg | grep -i tsc   (tells why the kernel gave it up; tsc=reliable if that is wrong)"),
    }
}

/// The quota of a container against the number of workers.
pub fn quota(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "container.cpus";
    let Some(cpus) = snapshot.group.cpus else { return Finding::ok(NAME, "no limit") };
    let found = format!("a quota of {} CPUs for {} workers", (cpus * 100.0).round() / 100.0, wanted.workers);
    let workers = cpus.ceil().max(1.0) as usize;
    if wanted.workers <= workers {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted(format!("{workers} workers"))
        .cost("they use the quota up early in each period and all stand still for the rest of it")
        .cure(format!("server.workers: {workers}, or a cpuset instead of a quota (AllowedCPUs= of the unit)"))
}

/// How often the quota held the container up.
pub fn throttling(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "container.throttling";
    let Some((periods, throttled)) = snapshot.group.throttled else { return Finding::ok(NAME, "no limit") };
    let found = format!("held up in {throttled} of {periods} periods");
    if throttled * 100 <= periods {
        return Finding::ok(NAME, found);
    }
    Finding::bad(NAME, throttled * 10 > periods, found)
        .wanted("under one in a hundred")
        .cost("each time all connections stand still for up to a tenth of a second")
        .cure("a larger CPUQuota= (cpu.max), or fewer server.workers")
}

fn queues(count: usize) -> String {
    if count == 1 { "1 queue".to_owned() } else { format!("{count} queues") }
}
