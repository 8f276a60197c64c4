//! Checks of a running proxy (`--pid`): its tables, listeners, sockets, threads and memory.

use super::finding::Finding;
use crate::cli::snapshot::process::{Process, Table};
use crate::cli::top::say::{bytes, whole};
use crate::cli::wanted::Wanted;

/// How the kernel names the threads that serve connections.
const WORKER: &str = "worker-";
/// Tables and listeners that are told one by one.
const TOLD_COUNT_MAX: usize = 8;

/// Makes all of them.
pub fn all(process: &Process, wanted: &Wanted) -> Vec<Finding> {
    vec![
        namespace(process),
        tables(process),
        listeners(process, wanted),
        sockets(process),
        workers(process),
        waiting(process),
        memory(process),
        huge_pages(process),
    ]
}

pub fn namespace(process: &Process) -> Finding {
    const NAME: &str = "process.network";
    if process.is_in_our_network {
        return Finding::ok(NAME, "in this network namespace");
    }
    Finding::warning(NAME, "in another network namespace, or it can't be told")
        .wanted("doctor in the same")
        .cost("its sysctls are not those that were checked here")
        .cure(format!("nsenter -t {0} -n speedmimi doctor --pid {0}", process.pid))
}

/// Every descriptor table against the limit.
pub fn tables(process: &Process) -> Finding {
    const NAME: &str = "process.tables";
    if !process.is_readable {
        let finding = Finding::unknown(NAME, "what another user's process has open");
        return finding.cure(format!("sudo speedmimi doctor --pid {}", process.pid));
    }
    let Some(limit) = process.limits.soft else { return Finding::unknown(NAME, "its RLIMIT_NOFILE") };
    let name = |table: &Table| match table.threads.len() {
        1 => table.threads[0].clone(),
        more => format!("{} and {} more", table.threads[0], more - 1),
    };
    let mut fullest: Vec<&Table> = process.tables.iter().collect();
    fullest.sort_by_key(|table| std::cmp::Reverse(table.open));
    let told: Vec<String> =
        fullest.iter().take(TOLD_COUNT_MAX).map(|table| format!("{} {}", name(table), whole(table.open))).collect();
    let all: u64 = process.tables.iter().map(|table| table.open).sum();
    let found =
        format!("{} open in {} of {} each: {}", whole(all), tables_of(fullest.len()), whole(limit), told.join(", "));
    if fullest.first().is_none_or(|table| table.open < limit / 10 * 9) {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("under nine tenths")
        .cost("when one is full its worker pauses accepting, and closes the longest idle for those that knock")
        .cure("a larger LimitNOFILE= in the unit, or server.fd_tables: private with more workers")
}

fn tables_of(count: usize) -> String {
    if count == 1 { "one table".to_owned() } else { format!("{count} tables") }
}

/// How many wait to be accepted.
pub fn listeners(process: &Process, wanted: &Wanted) -> Finding {
    const NAME: &str = "process.listeners";
    if process.listeners.is_empty() {
        return Finding::unknown(NAME, "a listening TCP socket of it");
    }
    let mut addresses: Vec<String> = process.listeners.iter().map(|listener| listener.address.to_string()).collect();
    addresses.sort();
    addresses.dedup();
    let waiting = process.listeners.iter().map(|listener| listener.waiting).max().unwrap_or(0);
    addresses.truncate(TOLD_COUNT_MAX);
    let found = format!(
        "{} sockets on {}; at most {} wait in one",
        process.listeners.len(),
        addresses.join(", "),
        whole(waiting)
    );
    if waiting <= u64::from(wanted.server.backlog).min(4096) / 8 {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("hardly any")
        .cost("they have connected and nobody answers: its worker is busy, or accepting pauses")
        .cure("the log says whether accepting pauses; `speedmimi top` which worker is busy")
}

/// Sockets by state.
pub fn sockets(process: &Process) -> Finding {
    const NAME: &str = "process.sockets";
    if !process.is_readable {
        return Finding::unknown(NAME, "what another user's process has open");
    }
    let told: Vec<String> = process.sockets.iter().map(|(state, count)| format!("{state} {}", whole(*count))).collect();
    let found = if told.is_empty() { "none of TCP".to_owned() } else { told.join(", ") };
    let of = |state: &str| process.sockets.get(state).copied().unwrap_or(0);
    let (closing, open) = (of("close_wait"), of("established"));
    if closing < 1000 || closing < open / 4 {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("few in close_wait")
        .cost("their peers have gone and hold descriptors and memory here")
        .cure("if it stays so, tell us, with the output of: ss -tnp state close-wait")
}

/// Whether workers share CPUs they were pinned to.
pub fn workers(process: &Process) -> Finding {
    const NAME: &str = "process.workers";
    let workers: Vec<_> = process.threads.iter().filter(|thread| thread.name.starts_with(WORKER)).collect();
    let Some(first) = workers.first() else { return Finding::unknown(NAME, "a worker among its threads") };
    let mut pinned: Vec<usize> = workers.iter().filter(|w| w.cpus.len() == 1).map(|w| w.cpus[0]).collect();
    let count = pinned.len();
    pinned.sort_unstable();
    pinned.dedup();
    let threads = process.threads.len();
    if pinned.len() < count {
        return Finding::warning(
            NAME,
            format!("{} workers, {count} of them pinned to {} CPUs", workers.len(), pinned.len()),
        )
        .wanted("one a CPU")
        .cost("those on the same CPU take turns while others may be idle")
        .cure("server.workers: auto, or server.cpu_affinity with as many CPUs as workers");
    }
    if count == 0 && workers.len() > first.cpus.len() && !first.cpus.is_empty() {
        return Finding::warning(NAME, format!("{} workers on {} CPUs", workers.len(), first.cpus.len()))
            .wanted("one a CPU")
            .cost("they take turns; each switch costs what is in the caches")
            .cure("server.workers: auto");
    }
    Finding::ok(NAME, format!("{} workers of {threads} threads, {count} pinned", workers.len()))
}

/// How long its workers were ready to run and did not.
pub fn waiting(process: &Process) -> Finding {
    const NAME: &str = "process.waiting";
    let workers = process.threads.iter().filter(|thread| thread.name.starts_with(WORKER));
    let (ran, waited) = workers.fold((0, 0), |sum, thread| (sum.0 + thread.ran_ns, sum.1 + thread.waited_ns));
    if ran == 0 {
        return Finding::unknown(NAME, "how long its workers waited for a CPU");
    }
    let part = waited as f64 / (ran + waited) as f64;
    let found = format!(
        "workers ran {:.1} s and waited {:.1} s for a CPU, since they began",
        ran as f64 / 1e9,
        waited as f64 / 1e9
    );
    if part < 0.2 || ran < 1_000_000_000 {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("under a fifth")
        .cost("a request waits so much longer than its own work takes")
        .cure("fewer other programs on its CPUs (CPUAffinity=, AllowedCPUs= of units), or more CPUs")
}

pub fn memory(process: &Process) -> Finding {
    const NAME: &str = "process.memory";
    let kinds = process.memory;
    let size = |count: u64| bytes(count as f64);
    let found = format!(
        "{} of its own, {} files, {} shared, {} swapped out, {} page tables",
        size(kinds.anonymous),
        size(kinds.file),
        size(kinds.shared),
        size(kinds.swapped),
        size(kinds.page_tables)
    );
    if kinds.swapped == 0 {
        return Finding::ok(NAME, found);
    }
    Finding::warning(NAME, found)
        .wanted("nothing swapped out")
        .cost("a worker whose page is on disk stands still, and all its connections with it")
        .cure("MemorySwapMax=0 in its unit, and more memory")
}

pub fn huge_pages(process: &Process) -> Finding {
    const NAME: &str = "process.huge_pages";
    match process.huge_pages {
        None => Finding::unknown(NAME, "whether it gets huge pages"),
        Some(false) => Finding::ok(NAME, "it has switched them off for itself"),
        Some(true) => Finding::warning(NAME, "the kernel may give it huge pages unasked")
            .wanted("off: the proxy switches them off at its start")
            .cost("memory that was given back after a burst is filled in again")
            .cure("it is no `speedmimi run`, or prctl(2) was refused: log.level: debug tells"),
    }
}
