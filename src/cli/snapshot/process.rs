//! A running process: its descriptor tables, sockets, threads and memory.
//!
//! Owns the reading of `/proc/PID`. Never signals or traces it. A process that ends meanwhile leaves what was read.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde::Serialize;

use super::files::Files;
use crate::control::machine::parse;

/// `RLIMIT_NOFILE`: descriptors a table may hold. `None`: not known; [`u64::MAX`]: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// A process at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Process {
    pub pid: u32,
    /// As the kernel shortens it.
    pub name: String,
    pub limits: Limits,
    pub tables: Vec<Table>,
    pub threads: Vec<Thread>,
    /// Those that listen.
    pub listeners: Vec<Listener>,
    /// Its TCP sockets, counted by state.
    pub sockets: BTreeMap<String, u64>,
    pub memory: Kinds,
    /// Whether the kernel may give it huge pages unasked.
    pub huge_pages: Option<bool>,
    /// Whether it is in our network namespace: only then are the sysctls that we see its own.
    pub is_in_our_network: bool,
    /// Whether its descriptors could be read: only its user and root may.
    pub is_readable: bool,
}

/// A descriptor table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Names of the threads that have it.
    pub threads: Vec<String>,
    /// Descriptors in it.
    pub open: u64,
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    /// CPUs that it may run on.
    pub cpus: Vec<usize>,
    /// How long it ran, in ns.
    pub ran_ns: u64,
    /// How long it was ready and waited for a CPU, in ns.
    pub waited_ns: u64,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    pub address: SocketAddr,
    /// Connections that wait to be accepted (`Recv-Q` of ss(8)).
    pub waiting: u64,
}

/// Memory by kind, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kinds {
    /// What no file stands behind.
    pub anonymous: u64,
    pub file: u64,
    pub shared: u64,
    pub swapped: u64,
    pub page_tables: u64,
}

/// Names of the states, by their numbers in `/proc/net/tcp`.
const STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_received",
    "fin_wait_1",
    "fin_wait_2",
    "time_wait",
    "closed",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_received",
];
const LISTEN: usize = 10;

/// How many descriptors are compared to tell tables apart where kcmp(2) may not be asked.
const COMPARED_COUNT: usize = 64;

impl Process {
    /// Reads a process; `None` when there is none of that number.
    pub fn read(files: &Files, pid: u32) -> Option<Process> {
        let proc = |path: &str| format!("proc/{pid}/{path}");
        let status = files.text(&proc("status"));
        let name = parse::field(&status, "Name")?.to_owned();
        let kib = |name| parse::field(&status, name).and_then(parse::kib).unwrap_or(0);
        let threads = threads(files, pid);
        let grouped = grouped(files, pid, &threads);
        let mut process = Process {
            pid,
            name,
            limits: limits(&files.text(&proc("limits"))),
            memory: Kinds {
                anonymous: kib("RssAnon"),
                file: kib("RssFile"),
                shared: kib("RssShmem"),
                swapped: kib("VmSwap"),
                page_tables: kib("VmPTE"),
            },
            huge_pages: parse::field(&status, "THP_enabled").map(|word| word == "1"),
            is_in_our_network: fs::read_link(files.path(&proc("ns/net"))).ok()
                == fs::read_link(files.path("proc/self/ns/net")).ok(),
            is_readable: fs::read_dir(files.path(&proc("fd"))).is_ok(),
            ..Process::default()
        };
        let mut inodes = HashSet::new();
        for threads in &grouped {
            let dir = files.path(&proc(&format!("task/{}/fd", threads[0].id)));
            if !dir.exists() {
                continue; // It has ended meanwhile.
            }
            let open = links(&dir).inspect(|link| inodes.extend(inode(link))).count() as u64;
            process.tables.push(Table { threads: threads.iter().map(|thread| thread.name.clone()).collect(), open });
        }
        process.threads = threads;
        for table in ["net/tcp", "net/tcp6"] {
            let Ok(file) = File::open(files.path(&proc(table))) else { continue };
            BufReader::new(file).lines().map_while(Result::ok).for_each(|line| process.socket(&line, &inodes));
        }
        Some(process)
    }

    /// Takes in a line of `/proc/net/tcp`, if the socket is one of `inodes`.
    fn socket(&mut self, line: &str, inodes: &HashSet<u64>) {
        let words: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let &[_, local, _, state, queues, .., inode] = &words[..] else { return };
        if !inode.parse().is_ok_and(|inode| inodes.contains(&inode)) {
            return;
        }
        let Ok(state) = usize::from_str_radix(state, 16) else { return };
        let Some(name) = state.checked_sub(1).and_then(|at| STATES.get(at)) else { return };
        *self.sockets.entry((*name).to_owned()).or_default() += 1;
        let waiting = queues.split_once(':').and_then(|(_, received)| u64::from_str_radix(received, 16).ok());
        if let (LISTEN, Some(address), Some(waiting)) = (state, address(local), waiting) {
            self.listeners.push(Listener { address, waiting });
        }
    }
}

/// The line `Max open files` of `/proc/PID/limits`.
pub fn limits(text: &str) -> Limits {
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let mut words = line.split_ascii_whitespace().map(number);
    Limits { soft: words.next().flatten(), hard: words.next().flatten() }
}

fn threads(files: &Files, pid: u32) -> Vec<Thread> {
    let dir = format!("proc/{pid}/task");
    let thread = |id: &String| {
        let file = |name: &str| files.text(&format!("{dir}/{id}/{name}"));
        let times = file("schedstat");
        let mut times = times.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
        let cpus = parse::field(&file("status"), "Cpus_allowed_list").map(parse::cpu_list);
        Some(Thread {
            id: id.parse().ok()?,
            name: file("comm").trim().to_owned(),
            cpus: cpus.unwrap_or_default(),
            ran_ns: times.next().unwrap_or(0),
            waited_ns: times.next().unwrap_or(0),
        })
    };
    // One without a name has ended while it was read.
    files.names(&dir).iter().filter_map(thread).filter(|thread| !thread.name.is_empty()).collect()
}

/// Threads by the descriptor table that they have, in their order.
fn grouped(files: &Files, pid: u32, threads: &[Thread]) -> Vec<Vec<Thread>> {
    let mut tables: Vec<(Thread, Vec<Thread>)> = Vec::new();
    for thread in threads {
        match tables.iter_mut().find(|(first, _)| have_one_table(files, pid, (first.id, thread.id))) {
            Some((_, threads)) => threads.push(thread.clone()),
            None => tables.push((thread.clone(), vec![thread.clone()])),
        }
    }
    tables.into_iter().map(|(_, threads)| threads).collect()
}

/// Whether two threads have the same descriptor table. Where kcmp(2) says nothing, the first descriptors tell: workers
/// with tables of their own have listeners of their own.
fn have_one_table(files: &Files, pid: u32, (a, b): (u32, u32)) -> bool {
    if files.root() == Path::new("/")
        && let Ok(same) = crate::sys::have_one_descriptor_table(a, b)
    {
        return same;
    }
    let first = |id: u32| {
        let dir = format!("proc/{pid}/task/{id}/fd");
        let names = files.names(&dir).into_iter().take(COMPARED_COUNT);
        names
            .map(|name| fs::read_link(files.path(&format!("{dir}/{name}"))).ok().map(|l| (name, l)))
            .collect::<Vec<_>>()
    };
    first(a) == first(b)
}

/// What the descriptors in a directory lead to.
fn links(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| fs::read_link(entry.path()).map(|link| link.to_string_lossy().into_owned()).unwrap_or_default())
}

/// The number in `socket:[123]`.
fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// An address such as `0100007F:1F90`: words of 32 bits in the machine's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let words = (0..host.len()).step_by(8).map(|at| u32::from_str_radix(host.get(at..at + 8)?, 16).ok());
    let words = words.collect::<Option<Vec<u32>>>()?;
    let ip = match words[..] {
        [word] => IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            let parts = [a, b, c, d].into_iter().flat_map(u32::to_ne_bytes);
            bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_may_be_unlimited() {
        let text = "Limit        Soft   Hard  Units\nMax open files            1024                 unlimited            files\n";
        assert_eq!(limits(text), Limits { soft: Some(1024), hard: Some(u64::MAX) });
        assert_eq!(limits(""), Limits::default());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_are_in_the_order_of_the_machine() {
        assert_eq!(address("0100007F:1F90"), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("0100007F"), None);
        assert_eq!(address("01:50"), None);
    }

    #[test]
    fn only_its_own_sockets_are_counted() {
        let lines = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n   \
            1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 20 4 30 10 -1\n   \
            2: 0100007F:1F91 0100007F:9C41 01 00000000:00000000 00:00000000 00000000     0        0 99 1 0 20 4 30 10 -1\n";
        let mut process = Process::default();
        lines.lines().for_each(|line| process.socket(line, &HashSet::from([77, 78])));
        assert_eq!(process.sockets, BTreeMap::from([("listen".to_owned(), 1), ("established".to_owned(), 1)]));
        assert_eq!(process.listeners.iter().map(|l| (l.address.port(), l.waiting)).collect::<Vec<_>>(), [(8080, 3)]);
    }

    #[test]
    fn own_tables_are_told_apart() {
        let files = Files::at(Path::new("/"));
        let (began, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("with-a-table".into()).spawn(move || {
            began.send(crate::sys::take_own_table(&[], &[]).is_ok()).unwrap();
            let _ = ended.recv();
        });
        assert!(told.recv().unwrap());
        let process = Process::read(&files, std::process::id()).unwrap();
        drop(end);
        thread.unwrap().join().unwrap();
        let own = process.tables.iter().find(|table| table.threads == ["with-a-table"]);
        assert_eq!(own.map(|table| table.open), Some(0), "{:?}", process.tables);
        assert!(process.is_in_our_network && process.is_readable && process.memory.anonymous > 0);
    }
}
