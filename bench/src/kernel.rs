//! Where the kernel's memory goes while connections are held: slabs by name, page tables, stacks, the connection hash.
//!
//! Owns the reading of `/proc/slabinfo`, `/proc/meminfo` and `/proc/net`. Never changes anything.

use crate::machine::sysctl;
use crate::proc::{kib_field, memory_bytes};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

/// Bytes that the kernel holds, of the whole machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Kernel {
    /// Slabs in all (`Slab`).
    pub slab: u64,
    /// Slabs by name; empty when `/proc/slabinfo` may not be read.
    pub slabs: BTreeMap<String, u64>,
    /// `PageTables`.
    pub page_tables: u64,
    /// `KernelStack`.
    pub stacks: u64,
    /// `Percpu`.
    pub per_cpu: u64,
    /// `VmallocUsed`: large tables, those of descriptors among them.
    pub vmalloc: u64,
    /// Buffers of TCP sockets: `mem` of `/proc/net/sockstat`, of this network namespace.
    pub tcp_buffers: u64,
    /// TCP sockets in use of this network namespace.
    pub tcp_sockets: u64,
    /// `MemAvailable`.
    pub available: u64,
}

impl Kernel {
    /// What it holds now; what can't be read is 0.
    pub fn read() -> Kernel {
        let sockstat = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let page = rustix::param::page_size() as u64;
        Kernel {
            slab: memory_bytes("Slab:"),
            slabs: slabs(&fs::read_to_string("/proc/slabinfo").unwrap_or_default(), page),
            page_tables: memory_bytes("PageTables:"),
            stacks: memory_bytes("KernelStack:"),
            per_cpu: memory_bytes("Percpu:"),
            vmalloc: memory_bytes("VmallocUsed:"),
            tcp_buffers: of_tcp(&sockstat, "mem") * page,
            tcp_sockets: of_tcp(&sockstat, "inuse"),
            available: memory_bytes("MemAvailable:"),
        }
    }

    /// Everything of it that grows with connections.
    pub fn bytes(&self) -> u64 {
        self.slab + self.page_tables + self.stacks + self.per_cpu + self.vmalloc + self.tcp_buffers
    }
}

/// What a process has for itself, in bytes: `Private_Clean + Private_Dirty + Swap` of `smaps_rollup`.
pub fn private_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    ["Private_Clean:", "Private_Dirty:", "Swap:"].iter().map(|name| kib_field(&text, name).map(|kib| kib * 1024)).sum()
}

/// Entries of the connection hash of this network namespace.
pub fn hash_entries() -> Option<u64> {
    let entries: i64 = sysctl("net.ipv4.tcp_ehash_entries")?.parse().ok()?;
    // Negative: shared with the first namespace.
    Some(entries.unsigned_abs())
}

/// The bytes of each slab that has any, by `num_slabs` times its pages.
fn slabs(text: &str, page: u64) -> BTreeMap<String, u64> {
    let of_line = |line: &str| -> Option<(String, u64)> {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let pages_each: u64 = fields.nth(4)?.parse().ok()?;
        let slabs: u64 = line.split_once("slabdata")?.1.split_whitespace().nth(1)?.parse().ok()?;
        (slabs > 0).then_some((name, slabs * pages_each * page))
    };
    text.lines().filter_map(of_line).collect()
}

fn of_tcp(sockstat: &str, name: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or("");
    let mut words = line.split_whitespace();
    words.by_ref().find(|word| *word == name);
    words.next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_are_counted_by_their_pages() {
        let text = "slabinfo - version: 2.1\n# name <active_objs> ...\n\
                    TCP 13 26 2432 13 8 : tunables 0 0 0 : slabdata 2 2 0\nnone 0 0 64 1 1 : tunables 0 0 0 : slabdata 0 0 0\n";
        assert_eq!(slabs(text, 4096), BTreeMap::from([("TCP".to_owned(), 2 * 8 * 4096)]));
    }

    #[test]
    fn tcp_is_told_from_the_other_protocols() {
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 6 mem 7\nUDP: inuse 1 mem 2\n";
        assert_eq!((of_tcp(text, "inuse"), of_tcp(text, "mem")), (5, 7));
    }

    #[test]
    fn this_machine_can_be_read() {
        assert!(Kernel::read().bytes() > 0);
        assert!(private_bytes(std::process::id()).is_some_and(|bytes| bytes > 0));
    }
}
