//! Checks of memory: what connections take, huge pages, swap, overcommitment.

use super::finding::Finding;
use crate::cli::snapshot::Snapshot;
use crate::cli::top::say::{bytes, whole};
use crate::cli::wanted::{KERNEL_BYTES_PER_END, USER_BYTES_EACH, Wanted};

/// Idle connections against the memory of the machine or the container.
pub fn connections(snapshot: &Snapshot, wanted: &Wanted) -> Finding {
    const NAME: &str = "memory.connections";
    let (have, need) = (snapshot.memory_bytes(), wanted.idle_bytes());
    if have == 0 || have == u64::MAX {
        return Finding::unknown(NAME, "the memory");
    }
    let whose = match snapshot.group.memory {
        Some((limit, _)) if limit == have => "the container may have",
        _ => "the machine has",
    };
    let found = format!("{} idle connections take {}, {whose} {}", whole(wanted.connections), show(need), show(have));
    if need <= have / 10 * 7 {
        return Finding::ok(NAME, found);
    }
    let fit = have / 10 * 7 / (KERNEL_BYTES_PER_END + USER_BYTES_EACH);
    Finding::bad(NAME, need > have, found)
        .wanted(format!("at most seven tenths of it: {} connections", whole(fit)))
        .cost("the kernel drops data, then ends processes; where it is the container's limit, the proxy")
        .cure(format!("server.max_conn: {fit}, or more memory (MemoryMax= of the unit); `speedmimi plan` has the sum"))
}

pub fn huge_pages(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "memory.huge_pages";
    let Some((enabled, defrag)) = &snapshot.huge_pages else {
        return Finding::ok(NAME, "the kernel has no transparent ones");
    };
    let found = format!("transparent ones: {enabled}, defrag {defrag}");
    if enabled != "always" {
        return Finding::ok(NAME, found);
    }
    if defrag == "always" {
        return Finding::warning(NAME, found)
            .wanted("madvise")
            .cost("other programs stop for compaction, which holds up the kernel's allocations for sockets too")
            .cure("echo madvise > /sys/kernel/mm/transparent_hugepage/defrag");
    }
    Finding::ok(NAME, format!("{found}; the proxy switches them off for itself"))
}

pub fn swap(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "memory.swap";
    let memory = snapshot.memory;
    if memory.swap == 0 {
        return Finding::ok(NAME, "none");
    }
    let used = memory.swap.saturating_sub(memory.swap_free);
    let swappiness = snapshot.number("vm.swappiness").unwrap_or(60);
    let found = format!("{} of {} used, vm.swappiness = {swappiness}", show(used), show(memory.swap));
    if used > memory.swap / 10 {
        return Finding::warning(NAME, found)
            .wanted("hardly any used")
            .cost("a worker whose pages are on disk stands still, and all its connections with it")
            .cure("find who takes the memory; MemorySwapMax=0 in the unit keeps the proxy's pages in memory");
    }
    if swappiness > 10 {
        return Finding::warning(NAME, found)
            .wanted("vm.swappiness = 10 or less")
            .cost("pages of idle connections go to disk before file caches are given up")
            .cure("sysctl -w vm.swappiness=10");
    }
    Finding::ok(NAME, found)
}

pub fn overcommit(snapshot: &Snapshot, _: &Wanted) -> Finding {
    const NAME: &str = "memory.overcommit";
    match snapshot.number("vm.overcommit_memory") {
        None => Finding::unknown(NAME, "vm.overcommit_memory"),
        Some(2) => Finding::warning(NAME, "vm.overcommit_memory = 2")
            .wanted("0 or 1")
            .cost("the allocator sets aside more addresses than it uses; allocations fail, and the proxy ends, with memory free")
            .cure("sysctl -w vm.overcommit_memory=0"),
        Some(policy) => Finding::ok(NAME, format!("vm.overcommit_memory = {policy}")),
    }
}

fn show(count: u64) -> String {
    bytes(count as f64)
}
