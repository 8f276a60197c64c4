//! Figures as messages: the same names and units as in JSON.
//!
//! Owns the shapes, and looking them up on the board. Never counts.

use std::collections::{BTreeMap, HashMap};

use super::v1::{self, backend_stats, proxy_stats};
use crate::control::board::Board;
use crate::control::figures::{self, BackendFigures, ProxyFigures, ServerFigures, State};
use crate::control::machine::{Container, Process};
use crate::control::verb::BackendName;

/// The server's figures of now.
pub(super) fn server(board: &Board) -> v1::ServerStats {
    (&board.watch.server()).into()
}

/// One backend's; `None` when there is none of that name.
pub(super) fn backend(board: &Board, name: &BackendName) -> Option<v1::BackendStats> {
    board.watch.backend(&name.upstream, &name.id).as_ref().map(Into::into)
}

/// Those of all backends, or of one upstream's, in the order of the configuration.
pub(super) fn backends(board: &Board, upstream: Option<&str>) -> Vec<v1::BackendStats> {
    board.watch.backends(upstream).iter().map(Into::into).collect()
}

impl From<&ServerFigures> for v1::ServerStats {
    fn from(figures: &ServerFigures) -> Self {
        let machine = &figures.machine;
        let container = match machine.container {
            Container::None => "none",
            Container::Cgroup1 => "cgroup1",
            Container::Cgroup2 => "cgroup2",
        };
        v1::ServerStats {
            cpu_usage: figures.cpu_usage,
            memory_usage: figures.memory_usage,
            disk_usage: figures.disk_usage,
            load_avg_1: figures.load_avg_1,
            load_avg_5: figures.load_avg_5,
            load_avg_15: figures.load_avg_15,
            network_in: figures.network_in,
            network_out: figures.network_out,
            timestamp: figures.timestamp,
            machine: Some(v1::MachineStats {
                container: container.to_owned(),
                cpus: machine.cpus,
                memory_used_bytes: machine.memory_used_bytes,
                memory_limit_bytes: machine.memory_limit_bytes,
            }),
            process: Some(figures.process.into()),
            proxy: Some((&figures.proxy).into()),
        }
    }
}

impl From<Process> for v1::ProcessStats {
    fn from(process: Process) -> Self {
        v1::ProcessStats {
            cpu_usage: process.cpu_usage,
            cpu_seconds: process.cpu_seconds,
            rss_bytes: process.rss_bytes,
            rss_anon_bytes: process.rss_anon_bytes,
            rss_shmem_bytes: process.rss_shmem_bytes,
            threads: process.threads,
            open_descriptors: process.open_descriptors,
        }
    }
}

impl From<&ProxyFigures> for v1::ProxyStats {
    fn from(proxy: &ProxyFigures) -> Self {
        v1::ProxyStats {
            version: proxy.version.to_owned(),
            uptime: proxy.uptime,
            connections: Some(proxy.connections.into()),
            requests: Some(proxy.requests.into()),
            responses: counts(&proxy.responses),
            reasons: counts(&proxy.reasons),
            bytes: Some(proxy.bytes.into()),
            latency: Some(proxy.latency.into()),
            queue: Some(proxy_stats::Queue { waiting: proxy.queue.waiting, waited: proxy.queue.waited }),
            backend_connections: Some(proxy_stats::BackendConnections {
                reused: proxy.backend_connections.reused,
                opened: proxy.backend_connections.opened,
            }),
            access_log: Some(proxy_stats::AccessLog {
                written: proxy.access_log.written,
                dropped: proxy.access_log.dropped,
            }),
            memory: Some(proxy.memory.into()),
            tls: Some((&proxy.tls).into()),
            workers: proxy.workers.iter().copied().map(Into::into).collect(),
        }
    }
}

impl From<figures::Connections> for proxy_stats::Connections {
    fn from(connections: figures::Connections) -> Self {
        proxy_stats::Connections {
            active: connections.active,
            parked: connections.parked,
            tunnels: connections.tunnels,
            event_streams: connections.event_streams,
            accepted: connections.accepted,
            max: connections.max,
        }
    }
}

impl From<figures::Requests> for proxy_stats::Requests {
    fn from(requests: figures::Requests) -> Self {
        proxy_stats::Requests {
            total: requests.total,
            per_second: requests.per_second,
            per_second_10s: requests.per_second_10s,
            in_flight: requests.in_flight,
            retries: requests.retries,
        }
    }
}

impl From<figures::Bytes> for proxy_stats::Bytes {
    fn from(bytes: figures::Bytes) -> Self {
        proxy_stats::Bytes {
            client_in: bytes.client_in,
            client_out: bytes.client_out,
            backend_in: bytes.backend_in,
            backend_out: bytes.backend_out,
        }
    }
}

impl From<&figures::TlsFigures> for proxy_stats::Tls {
    fn from(tls: &figures::TlsFigures) -> Self {
        proxy_stats::Tls {
            sessions: tls.sessions,
            full: tls.full,
            resumed: tls.resumed,
            failed: tls.failed,
            expires_first: tls.expires_first.as_ref().map(Into::into),
        }
    }
}

impl From<&figures::Expiry> for proxy_stats::Expiry {
    fn from(expiry: &figures::Expiry) -> Self {
        proxy_stats::Expiry {
            cert_file: expiry.cert_file.clone(),
            state: expiry.state.name().to_owned(),
            not_after: expiry.not_after,
            days_left: expiry.days_left,
        }
    }
}

impl From<figures::Memory> for proxy_stats::Memory {
    fn from(memory: figures::Memory) -> Self {
        proxy_stats::Memory {
            buffers: memory.buffers,
            exchanges: memory.exchanges,
            connections: memory.connections,
            parked: memory.parked,
            tunnels: memory.tunnels,
            queues: memory.queues,
            tls: memory.tls,
        }
    }
}

impl From<figures::WorkerFigures> for proxy_stats::Worker {
    fn from(worker: figures::WorkerFigures) -> Self {
        proxy_stats::Worker {
            worker: worker.worker as u64,
            active: worker.active,
            parked: worker.parked,
            tunnels: worker.tunnels,
            accepted: worker.accepted,
            requests: worker.requests,
            in_flight: worker.in_flight,
        }
    }
}

impl From<figures::LatencyFigures> for v1::Latency {
    fn from(latency: figures::LatencyFigures) -> Self {
        v1::Latency { last_10s: Some(latency.last_10s.into()), since_start: Some(latency.since_start.into()) }
    }
}

impl From<figures::Quantiles> for v1::Quantiles {
    fn from(quantiles: figures::Quantiles) -> Self {
        v1::Quantiles {
            count: quantiles.count,
            mean_ms: quantiles.mean_ms,
            p50_ms: quantiles.p50_ms,
            p90_ms: quantiles.p90_ms,
            p95_ms: quantiles.p95_ms,
            p99_ms: quantiles.p99_ms,
            p999_ms: quantiles.p999_ms,
            max_ms: quantiles.max_ms,
        }
    }
}

impl From<State> for v1::BackendState {
    fn from(state: State) -> Self {
        match state {
            State::Active => v1::BackendState::Active,
            State::Draining => v1::BackendState::Draining,
            State::Disconnected => v1::BackendState::Disconnected,
            State::Ejected => v1::BackendState::Ejected,
            State::Down => v1::BackendState::Down,
        }
    }
}

impl From<&BackendFigures> for v1::BackendStats {
    fn from(backend: &BackendFigures) -> Self {
        v1::BackendStats {
            upstream: backend.upstream.clone(),
            backend_id: backend.backend_id.clone(),
            name: backend.name.clone(),
            address: backend.address.clone(),
            state: v1::BackendState::from(backend.state).into(),
            healthy: backend.healthy,
            weight: backend.weight.into(),
            max_conn: backend.max_conn,
            in_flight: backend.in_flight,
            waiting: backend.waiting,
            requests: Some(backend_stats::Requests {
                total: backend.requests.total,
                per_second: backend.requests.per_second,
                per_second_10s: backend.requests.per_second_10s,
            }),
            failures: backend.failures,
            failures_in_a_row: backend.failures_in_a_row,
            retries: backend.retries,
            ejections: backend.ejections,
            ejected_for_ms: backend.ejected_for_ms,
            ramp: backend.ramp,
            connections: Some(backend_stats::Connections {
                reused: backend.connections.reused,
                opened: backend.connections.opened,
                failed: backend.connections.failed,
            }),
            bytes_in: backend.bytes_in,
            bytes_out: backend.bytes_out,
            responses: counts(&backend.responses),
            first_byte: Some(backend.first_byte.into()),
            latency: Some(backend.latency.into()),
            performance: backend.performance.map(|performance| backend_stats::Performance {
                utilisation: performance.utilisation,
                headroom: performance.headroom,
            }),
            last_report: backend.last_report,
        }
    }
}

fn counts(counts: &BTreeMap<&'static str, u64>) -> HashMap<String, u64> {
    counts.iter().map(|(&name, &count)| (name.to_owned(), count)).collect()
}

/// Backends that were removed while something still runs there.
pub(super) fn removed(board: &Board, upstream: Option<&str>) -> Vec<v1::RemovedBackend> {
    let leaving = board.leaving();
    let leaving = leaving.iter().filter(|l| upstream.is_none_or(|name| l.identity.upstream == name));
    let told = leaving.map(|l| v1::RemovedBackend {
        upstream: l.identity.upstream.clone(),
        backend_id: l.identity.id.clone(),
        state: v1::BackendState::Draining.into(),
        in_flight: l.state.in_flight(),
    });
    told.collect()
}
