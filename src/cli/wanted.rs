//! What a machine is judged by, or made ready for: so many connections, by this configuration.
//!
//! Owns the sums of what a proxy needs for them. Never looks at a machine.

use std::path::Path;
use std::sync::Arc;

use super::check;
use super::snapshot::Snapshot;
use crate::config::document::Document;
use crate::config::load;
use crate::config::plan::{BackendAddr, FdTables, ListenAddr, Plan, Server, Workers};
use crate::limits;
use crate::server::Descriptors;

/// What the kernel has for one end of a TCP connection that is idle, in bytes: socket, entry in an epoll, descriptor.
/// Measured: 3,400 to 3,800 on 6.18, 4,300 on others.
pub const KERNEL_BYTES_PER_END: u64 = 4_300;
/// What the proxy has for an idle client connection in the clear, in bytes: see `docs/performance.md`.
pub const USER_BYTES_EACH: u64 = 128;
/// Connections when nobody says how many and nothing tells what the machine can hold.
const CONNECTIONS_DEFAULT: u64 = 10_000;
/// A configuration that routes nothing: for what is the same in all of them.
const EMPTY: &str = "routing: {any: {respond: {}}}\n";

/// Whose number of connections it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `--connections`.
    Asked,
    /// `server.max_conn`.
    Configured,
    /// What descriptors and memory hold: so many the proxy takes, when nobody sets another limit.
    Held,
}

/// Where a backend's connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// `UPSTREAM/ID`.
    pub name: String,
    /// Connections that may be open to it at once.
    pub connections: u64,
    /// Source addresses to connect from.
    pub sources: u64,
    pub port: u16,
}

/// What is wanted of a machine.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Client connections at once.
    pub connections: u64,
    pub source: Source,
    pub server: Arc<Server>,
    /// Worker threads, by the CPUs of this machine.
    pub workers: usize,
    /// Ports that are listened on.
    pub ports: Vec<u16>,
    /// Whether parked connections can do without descriptors.
    pub has_rings: bool,
    /// Backends over TCP.
    pub destinations: Vec<Destination>,
}

impl Wanted {
    /// The congestion control that the configuration names, if it is another than BBR.
    pub fn other_than_bbr(&self) -> Option<&str> {
        self.server.congestion_control.as_deref().filter(|&named| named != "bbr")
    }

    /// By the number that was asked for, else by `server.max_conn`, else by what the machine holds.
    pub fn new(asked: Option<u64>, plan: &Plan, snapshot: &Snapshot) -> Wanted {
        let configured = (plan.server.max_conn != default_max_conn()).then_some(plan.server.max_conn);
        let workers = match plan.server.workers {
            Workers::Auto => snapshot.allowed.len().clamp(1, limits::WORKERS_COUNT_MAX),
            Workers::Count(count) => count,
        };
        let (connections, source) = match (asked, configured) {
            (Some(asked), _) => (asked, Source::Asked),
            (None, Some(configured)) => (configured, Source::Configured),
            (None, None) => (held(&plan.server, workers, snapshot), Source::Held),
        };
        let connections = connections.max(1);
        Wanted {
            connections,
            source,
            server: plan.server.clone(),
            workers,
            has_rings: snapshot.has_rings(),
            ports: ports(plan),
            destinations: destinations(plan, connections),
        }
    }

    /// Whose number it is, in words.
    pub fn judged_by(&self) -> &'static str {
        match self.source {
            Source::Asked => "--connections",
            Source::Configured => "server.max_conn",
            Source::Held => {
                "what descriptors and memory hold; --connections N, or server.max_conn of --config, says another number"
            }
        }
    }

    /// Clients that tables of `limit` descriptors hold, and whether each worker then has one of its own.
    pub fn clients_of(&self, limit: u64) -> Descriptors {
        let server = Server { max_conn: self.connections, ..(*self.server).clone() };
        Descriptors::new(limit, &server, self.workers, self.has_rings)
    }

    /// The smallest limit of a table, in thousands, with which all clients fit.
    pub fn descriptors_needed(&self) -> u64 {
        let tables = if self.server.fd_tables == FdTables::Private { self.workers as u64 } else { 1 };
        let clients = self.connections.div_ceil(tables);
        // A quarter is kept, of large tables 65,536.
        let limit = (clients.saturating_mul(4) / 3 + 64).min(clients.saturating_add(65_536));
        limit.div_ceil(1000).saturating_mul(1000)
    }

    /// Memory for idle connections, in bytes: one end of each in the kernel, and what the proxy has.
    pub fn idle_bytes(&self) -> u64 {
        self.connections.saturating_mul(KERNEL_BYTES_PER_END + USER_BYTES_EACH)
    }
}

/// What the descriptors of a proxy that is started here hold, as far as seven tenths of the memory go.
fn held(server: &Server, workers: usize, snapshot: &Snapshot) -> u64 {
    let Some(limit) = snapshot.limits.hard else { return CONNECTIONS_DEFAULT };
    let by_descriptors = Descriptors::new(limit.min(1 << 40), server, workers, snapshot.has_rings()).clients_max;
    match snapshot.memory_bytes() {
        0 | u64::MAX => by_descriptors,
        memory => by_descriptors.min(memory / 10 * 7 / (KERNEL_BYTES_PER_END + USER_BYTES_EACH)),
    }
}

/// The plan of a file, or of an empty configuration.
///
/// # Errors
/// What to print of a file with faults.
pub fn plan(path: Option<&Path>) -> Result<Plan, String> {
    let document = match path {
        Some(path) => load::load(path).map(|(_, document)| document),
        None => Document::from_text(EMPTY, "", |_| None),
    };
    document.map(|document| document.into_parts().0).map_err(|faults| {
        let mut told = Vec::new();
        // Writing to memory doesn't fail.
        let _ = check::print_faults(&faults, &mut told);
        String::from_utf8_lossy(&told).into_owned()
    })
}

/// What `server.max_conn` is when nobody sets it.
fn default_max_conn() -> u64 {
    plan(None).map_or(u64::MAX, |plan| plan.server.max_conn)
}

fn ports(plan: &Plan) -> Vec<u16> {
    let listened = plan.server.listen.iter().filter_map(|listen| match &listen.addr {
        ListenAddr::Tcp(addr) => Some(addr.port()),
        ListenAddr::Unix(_) => None,
    });
    let management = plan.management.iter().map(|management| management.addr.port());
    let mut ports: Vec<u16> = listened.chain(management).filter(|&port| port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// What may be open to each backend: `max_conn`, or, without one, its share of the clients.
fn destinations(plan: &Plan, connections: u64) -> Vec<Destination> {
    let of_upstream = plan.upstreams.iter().flat_map(|upstream| {
        let share = connections.div_ceil(upstream.backends.len().max(1) as u64);
        upstream.backends.iter().map(move |backend| (upstream, backend, share))
    });
    let destination = of_upstream.filter_map(|(upstream, backend, share)| {
        let port = match &backend.addr {
            BackendAddr::Ip(addr) => addr.port(),
            BackendAddr::Name(_, port) => *port,
            BackendAddr::Unix(_) => return None,
        };
        let limit = if backend.max_conn > 0 { u64::from(backend.max_conn) } else { u64::MAX };
        Some(Destination {
            name: format!("{}/{}", upstream.name, backend.id),
            connections: share.min(limit),
            sources: upstream.local_addresses.len().max(1) as u64,
            port,
        })
    });
    destination.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(text: &str) -> Plan {
        Document::from_text(text, "", |_| None).unwrap().into_parts().0
    }

    #[test]
    fn who_says_how_many() {
        let of = |asked, text| {
            let wanted = Wanted::new(asked, &plan_of(text), &Snapshot::default());
            (wanted.connections, wanted.source)
        };
        let configured = "server: {max_conn: 7000}\nrouting: {any: {respond: {}}}\n";
        assert_eq!(of(Some(5), configured), (5, Source::Asked));
        assert_eq!(of(None, configured), (7000, Source::Configured));
        assert_eq!(of(None, EMPTY), (CONNECTIONS_DEFAULT, Source::Held));
        assert_eq!(default_max_conn(), plan_of(EMPTY).server.max_conn);
    }

    #[test]
    fn what_nobody_says_is_what_the_machine_holds() {
        let mut snapshot = Snapshot { allowed: vec![0, 1], ..Snapshot::default() };
        let of = |snapshot: &Snapshot| Wanted::new(None, &plan_of(EMPTY), snapshot).connections;
        snapshot.limits.hard = Some(20_000);
        assert_eq!(of(&snapshot), 30_000, "two tables, a quarter of each kept");
        snapshot.limits.hard = Some(u64::MAX);
        assert_eq!(of(&snapshot), 10_000_000, "the default of server.max_conn");
        snapshot.memory.total = 8 << 30;
        assert_eq!(of(&snapshot), (8 << 30) / 10 * 7 / (KERNEL_BYTES_PER_END + USER_BYTES_EACH));
    }

    #[test]
    fn the_needed_descriptors_suffice_and_hardly_fewer_do() {
        for tables in ["auto", "private"] {
            let text = format!("server: {{fd_tables: {tables}, workers: 3}}\n{EMPTY}");
            for connections in [1, 50, 1000, 15_000, 200_000, 1_000_000, 10_000_000] {
                let wanted = Wanted::new(Some(connections), &plan_of(&text), &Snapshot::default());
                let needed = wanted.descriptors_needed();
                assert_eq!(wanted.clients_of(needed).clients_max, connections, "{tables} {connections} {needed}");
                assert!(
                    tables == "auto"
                        || connections < 10_000
                        || wanted.clients_of(needed * 9 / 10).clients_max < connections
                );
            }
        }
    }

    #[test]
    fn each_backend_gets_its_share_or_its_limit() {
        let text = "upstreams: {u: {local_addresses: [127.0.0.1, 127.0.0.2]}}\n\
                    backends: {u: [{id: a, host: a, port: 1}, {id: b, host: b, port: 2, max_conn: 10}, {host: \"unix:/x\"}]}\n\
                    routing: {any: {upstream: u}}\nserver: {port: 81, listen: [\"0.0.0.0:82\", \"unix:/y\"]}\n";
        let wanted = Wanted::new(Some(3000), &plan_of(text), &Snapshot::default());
        let to = |name: &str, connections, port| Destination { name: name.into(), connections, sources: 2, port };
        assert_eq!(wanted.destinations, [to("u/a", 1000, 1), to("u/b", 10, 2)]);
        assert_eq!(wanted.ports, [81, 82, 9091]);
    }
}
