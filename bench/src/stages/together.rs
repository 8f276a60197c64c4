//! `--all-in-one`: backends and the proxy as processes of their own, on free ports, for as long as the test takes.
//!
//! Owns their configuration and their end. Never the load.

use crate::children::{Ended, free_address, spawn_tied, version, wait_until_accepting};
use crate::error::{Error, Result, Trying};
use crate::net::descriptors_max;
use crate::pin;
use crate::target::Url;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Backends, each a process of one thread.
const BACKENDS: usize = 2;
/// Exchanges at once of each backend; more of them wait in the queue.
const BACKEND_CONNECTIONS_MAX: u64 = 512;
/// The share of a descriptor table that a worker of the proxy gives to clients.
const TABLE_SHARE: f64 = 0.75;
/// Connections of the fullest worker, in means: the kernel spreads them unevenly, and the proxy levels above a quarter.
const UNEVEN: f64 = 1.3;

/// Backends and proxy; both end when this is dropped, the proxy first.
pub(super) struct Together {
    /// What the proxy says of itself.
    pub version: String,
    address: SocketAddr,
    workers: usize,
    proxy: Ended,
    _backends: Vec<Ended>,
    _dir: Dir,
}

impl Together {
    /// Starts them for the largest of these stages.
    ///
    /// # Errors
    /// When a program is missing or does not listen, with what it said.
    pub fn start(speedmimi: Option<&Path>, stages: &[u64]) -> Result<Together> {
        let own = std::env::current_exe().trying(|| "finding this program".into())?;
        let program = speedmimi.map_or_else(|| own.with_file_name("speedmimi"), Path::to_owned);
        if !program.is_file() {
            let name = program.display();
            let cure = "build it with `cargo build --release`, or give --speedmimi PATH";
            return Err(Error::Failed(format!("{name} is missing: {cure}")));
        }
        let dir = Dir::new()?;
        let mut backends = Vec::new();
        let mut addresses = Vec::new();
        for number in 1..=BACKENDS {
            let address = free_address()?;
            let command = [own.display().to_string(), "origin".into(), format!("--listen={address}")];
            backends.push(started(command, address, &format!("backend {number}"), &dir)?);
            addresses.push(address);
        }
        let address = free_address()?;
        let connections = stages.iter().copied().max().unwrap_or(1);
        let plan = Plan::new(connections, descriptors_max() as u64, pin::allowed_cpus()?.len());
        let file = dir.0.join("speedmimi.yaml");
        std::fs::write(&file, plan.text(address, &addresses)).trying(|| format!("writing {}", file.display()))?;
        let command = [program.display().to_string(), "run".into(), "--config".into(), file.display().to_string()];
        let proxy = started(command, address, "speedmimi", &dir)?;
        let version = version(&program, "--version");
        Ok(Together { version, address, workers: plan.workers, proxy, _backends: backends, _dir: dir })
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
        format!(
            "started for this test: {BACKENDS} backends with max_conn {BACKEND_CONNECTIONS_MAX} each behind a queue of \
             200,000, and {} with {} workers",
            self.version, self.workers
        )
    }
}

fn started<const N: usize>(command: [String; N], address: SocketAddr, name: &str, dir: &Dir) -> Result<Ended> {
    let log = dir.0.join(format!("{name}.log"));
    let mut child = Ended(spawn_tied(command, &log)?);
    wait_until_accepting(&mut child, address, name, &log)?;
    Ok(child)
}

/// How the proxy is set up for so many connections.
struct Plan {
    connections: u64,
    workers: usize,
    private: bool,
}

impl Plan {
    /// With so many descriptors to a table, and so many CPUs.
    fn new(connections: u64, descriptors: u64, cpus: usize) -> Plan {
        let table = descriptors as f64 * TABLE_SHARE;
        let private = connections as f64 > table;
        let tables = (connections as f64 * UNEVEN / table.max(1.0)).ceil() as usize;
        Plan { connections, private, workers: if private { tables.max(cpus) } else { cpus.max(1) } }
    }

    fn text(&self, address: SocketAddr, backends: &[SocketAddr]) -> String {
        let mut text = format!(
            "server:\n  host: {}\n  port: {}\n  workers: {}\n  fd_tables: {}\n  max_conn: {}\n  read_timeout: 120s\n  \
             write_timeout: 120s\n  idle_timeout: 10m\nupstreams:\n  default:\n    response_timeout: 60s\n    \
             queue: {{size: 200000, timeout: 60s}}\nbackends:\n  default:\n",
            address.ip(),
            address.port(),
            self.workers,
            if self.private { "private" } else { "shared" },
            // Those of the stage before may not all be gone yet.
            self.connections * 2 + 1_000,
        );
        for (at, backend) in backends.iter().enumerate() {
            let _ = writeln!(
                text,
                "    - {{id: backend{}, host: {}, port: {}, max_conn: {BACKEND_CONNECTIONS_MAX}}}",
                at + 1,
                backend.ip(),
                backend.port()
            );
        }
        text + "routing:\n  default: {path: /, upstream: default}\ngrpc: {enabled: false}\n"
    }
}

/// A directory of its own, removed with all that is in it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Result<Dir> {
        let parent = std::env::temp_dir();
        for attempt in 0..1_000 {
            let path = parent.join(format!("speedmimi-bench-{}-{attempt}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Dir(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::Io { what: format!("making {}", path.display()), source: error }),
            }
        }
        Err(Error::Failed(format!("no name for a directory is free in {}", parent.display())))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_private_only_when_one_is_too_small() {
        let small = Plan::new(10_000, 20_000, 2);
        assert_eq!((small.private, small.workers), (false, 2));
        let large = Plan::new(100_000, 20_000, 2);
        assert_eq!((large.private, large.workers), (true, 9));
        assert_eq!(Plan::new(100_000, 1_048_576, 16).workers, 16);
    }
}
