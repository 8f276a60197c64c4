//! `--all-in-one`: backends and the proxy as processes of their own, on free ports, for as long as the test takes.
//!
//! Owns their configuration and their end. Never the load.

use crate::children::{self, Ended, free_address, version};
use crate::dir::Dir;
use crate::error::{Error, Result, Trying};
use crate::net::descriptors_max;
use crate::pin;
use crate::target::Url;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// Backends, each a process of one thread.
const BACKENDS: usize = 2;
/// Exchanges at once of each backend; more of them wait in the queue.
const BACKEND_CONNECTIONS_MAX: u64 = 512;
/// The share of a descriptor table that a worker of the proxy gives to clients.
const TABLE_SHARE: f64 = 0.75;
/// The same when each client's connection has one to a backend.
const TABLE_SHARE_HOLDING: f64 = 0.45;
/// Connections of the proxy from one of its addresses to one backend, at most.
const PER_ADDRESS_MAX: u64 = 10_000;
/// Connections of the fullest worker, in means: the kernel spreads them unevenly, and the proxy levels above a quarter.
const UNEVEN: f64 = 1.3;

/// Backends and proxy; both end when this is dropped, the proxy first.
pub(super) struct Together {
    /// What the proxy says of itself.
    pub version: String,
    address: SocketAddr,
    plan: Plan,
    proxy: Ended,
    _backends: Vec<Ended>,
    _dir: Dir,
}

impl Together {
    /// Starts them for the largest of these stages; `holding`: for connections that each hold an exchange for ever.
    ///
    /// # Errors
    /// When a program is missing or does not listen, with what it said.
    pub fn start(speedmimi: Option<&Path>, stages: &[u64], holding: bool) -> Result<Together> {
        let own = std::env::current_exe().trying(|| "finding this program".into())?;
        let program = children::speedmimi(speedmimi)?;
        let dir = Dir::new()?;
        let mut backends = Vec::new();
        let mut addresses = Vec::new();
        let connections = stages.iter().copied().max().unwrap_or(1);
        let plan = Plan::new(connections, holding, descriptors_max() as u64, pin::allowed_cpus()?.len());
        for number in 1..=BACKENDS {
            let address = free_address()?;
            let mut command = vec![own.display().to_string(), "origin".into(), format!("--listen={address}")];
            if plan.backend_threads > 1 {
                command.extend([format!("--threads={}", plan.backend_threads), "--private-tables".to_owned()]);
            }
            backends.push(children::start(command, address, &format!("backend {number}"), &dir)?);
            addresses.push(address);
        }
        let address = free_address()?;
        let file = dir.file("speedmimi.yaml");
        std::fs::write(&file, plan.text(address, &addresses)).trying(|| format!("writing {}", file.display()))?;
        let command = vec![program.display().to_string(), "run".into(), "--config".into(), file.display().to_string()];
        let proxy = children::start(command, address, "speedmimi", &dir)?;
        let version = version(&program, "--version");
        Ok(Together { version, address, plan, proxy, _backends: backends, _dir: dir })
    }

    /// Where the proxy listens.
    ///
    /// # Errors
    /// Never: an address makes a URL.
    pub fn url(&self) -> Result<Url> {
        format!("http://{}", self.address).parse().map_err(Error::Failed)
    }

    /// The proxy's process.
    pub fn pid(&self) -> u32 {
        self.proxy.0.id()
    }

    /// What was started.
    pub fn note(&self) -> String {
        let limit = match self.plan.max_conn() {
            0 => "without max_conn, as each connection holds an exchange".to_owned(),
            limit => format!("with max_conn {limit} each behind a queue of 200,000"),
        };
        let workers = self.plan.workers;
        format!("started for this test: {BACKENDS} backends {limit}, and {} with {workers} workers", self.version)
    }
}

/// How the proxy is set up for so many connections.
struct Plan {
    connections: u64,
    holding: bool,
    workers: usize,
    private: bool,
    /// Threads of each backend, each with a table of its own when there are several.
    backend_threads: usize,
}

impl Plan {
    /// With so many descriptors to a table, and so many CPUs.
    fn new(connections: u64, holding: bool, descriptors: u64, cpus: usize) -> Plan {
        let share = if holding { TABLE_SHARE_HOLDING } else { TABLE_SHARE };
        let table = (descriptors as f64 * share).max(1.0);
        let private = connections as f64 > table;
        let tables = |connections: f64, table: f64| (connections * UNEVEN / table).ceil() as usize;
        let workers = if private { tables(connections as f64, table).max(cpus) } else { cpus.max(1) };
        let of_backend = connections as f64 / BACKENDS as f64;
        let backend_threads = if holding { tables(of_backend, descriptors as f64 * TABLE_SHARE).max(1) } else { 1 };
        Plan { connections, holding, workers, private, backend_threads }
    }

    fn max_conn(&self) -> u64 {
        if self.holding { 0 } else { BACKEND_CONNECTIONS_MAX }
    }

    /// Addresses that the proxy connects from, for their ports.
    fn local_addresses(&self) -> String {
        let count =
            if self.holding { self.connections.div_ceil(PER_ADDRESS_MAX * BACKENDS as u64).min(250) } else { 1 };
        (1..=count).map(|last| format!("127.0.1.{last}")).collect::<Vec<_>>().join(", ")
    }

    fn text(&self, address: SocketAddr, backends: &[SocketAddr]) -> String {
        let max_conn = self.max_conn();
        let mut text = format!(
            "server:\n  host: {}\n  port: {}\n  workers: {}\n  fd_tables: {}\n  max_conn: {}\n  read_timeout: 120s\n  \
             write_timeout: 120s\n  idle_timeout: 10m\nupstreams:\n  default:\n    response_timeout: 60s\n    \
             local_addresses: [{}]\n    queue: {{size: 200000, timeout: 60s}}\nbackends:\n  default:\n",
            address.ip(),
            address.port(),
            self.workers,
            if self.private { "private" } else { "shared" },
            // Those of the stage before may not all be gone yet.
            self.connections * 2 + 1_000,
            self.local_addresses(),
        );
        for (at, backend) in backends.iter().enumerate() {
            let _ = writeln!(
                text,
                "    - {{id: backend{}, host: {}, port: {}, max_conn: {max_conn}}}",
                at + 1,
                backend.ip(),
                backend.port()
            );
        }
        text + "routing:\n  default: {path: /, upstream: default}\ngrpc: {enabled: false}\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_private_only_when_one_is_too_small() {
        let small = Plan::new(10_000, false, 20_000, 2);
        assert_eq!((small.private, small.workers), (false, 2));
        let large = Plan::new(100_000, false, 20_000, 2);
        assert_eq!((large.private, large.workers, large.backend_threads), (true, 9, 1));
        assert_eq!(Plan::new(100_000, false, 1_048_576, 16).workers, 16);
        let holding = Plan::new(100_000, true, 20_000, 2);
        assert_eq!((holding.workers, holding.backend_threads, holding.max_conn()), (15, 5, 0));
        assert_eq!(holding.local_addresses(), "127.0.1.1, 127.0.1.2, 127.0.1.3, 127.0.1.4, 127.0.1.5");
    }
}
