//! Checks of how much there may be: descriptors, files, threads; and of the kernel that says so.

use super::finding::Finding;
use crate::cli::snapshot::Snapshot;
use crate::cli::top::say::whole;
use crate::cli::wanted::Wanted;
use crate::park::shelf::Size;
use crate::server::Descriptors;

/// The first kernel with close_range(2): descriptor tables of their own need it.
const KERNEL_MIN: (u32, u32) = (5, 9);
/// The first with `tcp_child_ehash_entries`.
const KERNEL_GOOD: (u32, u32) = (6, 1);
/// Threads beside workers: control, management, logs, and those that look up names.
const THREADS_BESIDE: u64 = 24;

pub fn kernel(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "kernel.version";
    let Some(version) = snapshot.kernel() else { return Finding::unknown(NAME, "its version") };
    let found = snapshot.text("kernel.osrelease").unwrap_or_default();
    let needs_tables = snapshot.limits.hard.is_some_and(|limit| wanted.clients_of(limit).is_private);
    if version < KERNEL_MIN {
        let finding = Finding::bad(NAME, needs_tables, found).wanted("5.9, better 6.1 or later");
        return finding.cost("no descriptor tables of workers' own (close_range(2))").cure("a newer kernel");
    }
    if version < KERNEL_GOOD {
        let finding = Finding::warning(NAME, found).wanted("6.1 or later");
        return finding.cost("a network namespace can't have a hash table of its own size").cure("a newer kernel");
    }
    Finding::ok(NAME, found)
}

/// `RLIMIT_NOFILE`, against all clients.
pub fn descriptors(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "descriptors.limit";
    let (Some(soft), Some(hard)) = (snapshot.limits.soft, snapshot.limits.hard) else {
        return Finding::unknown(NAME, "RLIMIT_NOFILE");
    };
    let held = wanted.clients_of(hard.min(1 << 40));
    let tables = if held.is_private { format!(" in each of {} tables", wanted.workers) } else { String::new() };
    let found = format!("{} (soft {}){tables}: {}", limit(hard), limit(soft), fit(&held, wanted));
    if held.clients_max >= wanted.connections {
        return Finding::ok(NAME, found);
    }
    let needed = wanted.descriptors_needed();
    Finding::fault(NAME, found)
        .wanted(format!("{} clients", whole(wanted.connections)))
        .cost("accepting pauses at that number, and the longest idle are closed for those that knock")
        .cure(format!("LimitNOFILE={needed} in the unit of systemd; in a shell: ulimit -n {needed}"))
        .cure("or more server.workers with server.fd_tables: private, each with a table of its own")
        .cure("or Linux 6.8 with kernel.io_uring_disabled=0, where parked connections need no descriptor")
}

/// How many clients the tables hold, and how many of them awake where the others need no descriptor.
fn fit(held: &Descriptors, wanted: &Wanted) -> String {
    let all = format!("{} clients fit", whole(held.clients_of_tables));
    if held.shelf == Size::NONE {
        return all;
    }
    let awake = held.clients_per_table.saturating_mul(wanted.workers as u64);
    format!("{all}, {} of them awake", whole(awake))
}

/// `fs.nr_open`: what `RLIMIT_NOFILE` may be raised to.
pub fn descriptors_ceiling(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "descriptors.ceiling";
    let Some(ceiling) = snapshot.number("fs.nr_open") else { return Finding::unknown(NAME, "fs.nr_open") };
    let ceiling = ceiling.unsigned_abs();
    let found = format!("fs.nr_open = {}", whole(ceiling));
    let fit = wanted.clients_of(ceiling);
    if fit.clients_max >= wanted.connections {
        return Finding::ok(NAME, found);
    }
    let needed = wanted.descriptors_needed();
    Finding::fault(NAME, format!("{found}: no table may be larger, {} clients fit", whole(fit.clients_of_tables)))
        .wanted(whole(needed))
        .cost("RLIMIT_NOFILE can't be raised as far as it is needed")
        .cure(format!("sysctl -w fs.nr_open={needed}"))
}

/// `fs.file-max`: open files of the whole machine.
pub fn files(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "descriptors.files";
    let Some(max) = snapshot.number("fs.file-max") else { return Finding::unknown(NAME, "fs.file-max") };
    let (max, open) = (max.unsigned_abs(), snapshot.number("fs.file-nr").unwrap_or(0).unsigned_abs());
    let found = format!("fs.file-max = {}, {} open", limit(max), whole(open));
    let needed = files_needed(wanted);
    if max >= needed && open < max / 10 * 9 {
        return Finding::ok(NAME, found);
    }
    let needed = needed.max(open.saturating_mul(2));
    Finding::fault(NAME, found)
        .wanted(format!("{}: every client, and as much again for backends and everything else", whole(needed)))
        .cost("accepting and connecting fail with ENFILE, in every program of the machine")
        .cure(format!("sysctl -w fs.file-max={needed}"))
}

/// Open files of the machine that so many clients may lead to.
pub fn files_needed(wanted: &Wanted) -> u64 {
    wanted.connections.saturating_mul(2).saturating_add(65_536)
}

/// `pids.max` of the control group.
pub fn threads(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "container.threads";
    let Some((max, used)) = snapshot.group.threads else { return Finding::ok(NAME, "no limit") };
    let needed = wanted.workers as u64 + THREADS_BESIDE;
    let found = format!("{} of {} threads used", whole(used), whole(max));
    if max.saturating_sub(used) >= needed || max >= needed && used >= wanted.workers as u64 && used < max / 10 * 9 {
        return Finding::ok(NAME, found);
    }
    Finding::fault(NAME, found)
        .wanted(format!("room for {}: {} workers and a few beside", whole(needed), wanted.workers))
        .cost("the proxy does not start, or can't look up names")
        .cure(format!("TasksMax={} in the unit, --pids-limit for a container", used + 2 * needed))
}

/// A limit as people read it.
fn limit(limit: u64) -> String {
    if limit >= 1 << 60 { "unlimited".to_owned() } else { whole(limit) }
}
