//! The figures as the management API shows them: `GET /api/v1/stats/server` and `/stats/backend`.
//!
//! Owns the shapes and how they are put together from counters, history and machine. Never counts and never samples;
//! what it reads of other threads are single loads.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::history::{History, Latencies, Rate};
use super::machine::{Container, Machine, Process};
use crate::balance::score::Score;
use crate::config::plan;
use crate::error::Reason;
use crate::health::verdict::ramp;
use crate::shared::backend::{BackendState, Mark};
use crate::shared::command::{Published, PublishedUpstream, WorkersStats};
use crate::shared::histogram::Snapshot;
use crate::shared::stats::{BackendTotals, CLASSES_COUNT, Sums, Totals, WorkerStats};
use crate::tls::Standing;

/// Where figures come from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// What the proxy runs by.
    pub published: &'a Published,
    /// By index of the worker.
    pub workers: &'a [Arc<WorkerStats>],
    /// Looked at about once a second.
    pub history: &'a History,
    /// Sampled about once a second.
    pub machine: &'a Machine,
    /// Client connections that may be open at once.
    pub connections_max: u64,
    /// Descriptors that all tables of the process may hold.
    pub descriptors_max: u64,
    /// Lines of the access log that were taken and could not be written.
    pub log_lines_lost: u64,
    /// Milliseconds of the process clock.
    pub now_ms: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// When the process began, milliseconds since 1970: the same at every look.
    pub began_unix_ms: u64,
}

/// `GET /api/v1/stats/server`: the machine's figures as they always were, and everything else beside them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerFigures {
    /// Of the CPUs that this container or machine may use, percent.
    pub cpu_usage: f64,
    /// Of the memory that this container or machine may use, percent.
    pub memory_usage: f64,
    /// Of the root file system, percent.
    pub disk_usage: f64,
    /// Load average of the last minute.
    pub load_avg_1: f64,
    /// Load average of the last five minutes.
    pub load_avg_5: f64,
    /// Load average of the last 15 minutes.
    pub load_avg_15: f64,
    /// Received, KB (1024 bytes) a second.
    pub network_in: f64,
    /// Sent, KB (1024 bytes) a second.
    pub network_out: f64,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// What the percentages are of.
    pub machine: MachineFigures,
    /// The proxy's own process.
    pub process: Process,
    /// What the proxy does.
    pub proxy: ProxyFigures,
}

/// What the machine's percentages are of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MachineFigures {
    /// Whose limits count.
    pub container: Container,
    /// CPUs that may be used; a quota may make it a fraction.
    pub cpus: f64,
    /// Memory in use, bytes, page cache that can be given back not counted.
    pub memory_used_bytes: u64,
    /// Memory that may be used, bytes.
    pub memory_limit_bytes: u64,
}

/// What the proxy does, all workers together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProxyFigures {
    pub version: &'static str,
    /// Seconds since the start.
    pub uptime: f64,
    pub connections: Connections,
    pub requests: Requests,
    /// Answers by class of status, `1xx` to `5xx`.
    pub responses: BTreeMap<&'static str, u64>,
    /// Exchanges that the proxy answered or ended itself, by reason; those that happened.
    pub reasons: BTreeMap<&'static str, u64>,
    pub bytes: Bytes,
    /// From a request's head to its answer's end; no tunnels and no event streams.
    pub latency: LatencyFigures,
    pub queue: QueueFigures,
    pub backend_connections: PoolFigures,
    pub tls: TlsFigures,
    pub access_log: LogFigures,
    pub memory: Memory,
    /// By index of the worker.
    pub workers: Vec<WorkerFigures>,
}

/// Client connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Connections {
    /// Open now, parked ones and tunnels included.
    pub active: u64,
    /// Idle and parked.
    pub parked: u64,
    /// Tunnels (WebSocket).
    pub tunnels: u64,
    /// Event streams under way.
    pub event_streams: u64,
    /// Ever accepted.
    pub accepted: u64,
    /// How many may be open.
    pub max: u64,
}

/// Requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Requests {
    /// Since the start.
    pub total: u64,
    /// In the last second.
    pub per_second: f64,
    /// A second, over the last ten.
    pub per_second_10s: f64,
    /// Under way now, queued ones included and tunnels not.
    pub in_flight: u64,
    /// Tries after the first that the budget counts, since the start: none that a stale kept connection made necessary.
    pub retries: u64,
}

/// Bytes since the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bytes {
    pub client_in: u64,
    pub client_out: u64,
    /// From the backends of the plan.
    pub backend_in: u64,
    /// To the backends of the plan.
    pub backend_out: u64,
}

/// Requests that wait for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct QueueFigures {
    /// Now.
    pub waiting: u64,
    /// Ever waited.
    pub waited: u64,
}

/// How exchanges came to their backend connection, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PoolFigures {
    /// By one that was kept.
    pub reused: u64,
    /// By connecting.
    pub opened: u64,
}

/// TLS with clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TlsFigures {
    /// Open now, parked ones included.
    pub sessions: u64,
    /// Handshakes since the start that made a new session.
    pub full: u64,
    /// Handshakes since the start that took up an earlier session.
    pub resumed: u64,
    /// Handshakes since the start that failed or took too long.
    pub failed: u64,
    /// Of all certificates in use, those shown to backends too, the one that ends first; `None` without any.
    pub expires_first: Option<Expiry>,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// Its file.
    pub cert_file: String,
    /// Whether it is valid.
    pub state: Standing,
    /// Its last second, in seconds since 1970.
    pub not_after: i64,
    /// Whole days that are left; below zero when they are over.
    pub days_left: i64,
}

impl Expiry {
    /// Of the one that ends first, as of `now` in seconds since 1970.
    fn first(published: &Published, now: i64) -> Option<Expiry> {
        let for_clients = published.tls.iter().flat_map(|acceptor| acceptor.certificates());
        let connectors = published.upstreams.iter().filter_map(|upstream| upstream.connector.as_ref());
        let for_backends = connectors.filter_map(|connector| connector.certificate());
        let first = for_clients.chain(for_backends).min_by_key(|certificate| certificate.validity.not_after)?;
        Some(Expiry {
            cert_file: first.files.cert_file.display().to_string(),
            state: first.validity.standing(now),
            not_after: first.validity.not_after,
            days_left: first.validity.days_left(now),
        })
    }
}

/// Lines of the access log since the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LogFigures {
    pub written: u64,
    /// Lost, as the writer had fallen behind or could not write.
    pub dropped: u64,
}

/// Bytes by use, as far as the proxy itself asked for them; the event loop's and the kernel's parts are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Buffers, in use and spare.
    pub buffers: u64,
    /// Exchanges under way and room kept for the next.
    pub exchanges: u64,
    /// Connections that are neither parked nor tunnels.
    pub connections: u64,
    /// Parked connections.
    pub parked: u64,
    /// Tunnels.
    pub tunnels: u64,
    /// Requests that wait for a backend.
    pub queues: u64,
    /// TLS sessions, parked ones included.
    pub tls: u64,
}

/// One worker.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WorkerFigures {
    pub worker: usize,
    pub active: u64,
    pub parked: u64,
    pub tunnels: u64,
    pub accepted: u64,
    pub requests: u64,
    pub in_flight: u64,
}

/// Times of the last ten seconds and since the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyFigures {
    pub last_10s: Quantiles,
    pub since_start: Quantiles,
}

/// What a histogram tells, in milliseconds, to within 6.25 % (the mean exactly); `None` when nothing was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean_ms: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

/// Whether and how a backend is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// New requests go there.
    Active,
    /// Taken out, and exchanges or tunnels are still under way.
    Draining,
    /// Taken out, and nothing is under way.
    Disconnected,
    /// Out for a while after failures in a row.
    Ejected,
    /// Its active check fails.
    Down,
}

impl State {
    /// The state at `now_ms`. What an operator said comes before what was found out.
    pub fn of(backend: &BackendState, now_ms: u64) -> State {
        let is_out = [Mark::Inactive, Mark::Disconnected, Mark::Draining].into_iter().any(|mark| backend.is(mark));
        if is_out && backend.in_flight() > 0 {
            State::Draining
        } else if is_out {
            State::Disconnected
        } else if backend.is(Mark::CheckDown) {
            State::Down
        } else if backend.is_ejected(now_ms) {
            State::Ejected
        } else {
            State::Active
        }
    }

    /// The name used in the management API and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Draining => "draining",
            State::Disconnected => "disconnected",
            State::Ejected => "ejected",
            State::Down => "down",
        }
    }

    /// All of them.
    pub const ALL: [State; 5] = [State::Active, State::Draining, State::Disconnected, State::Ejected, State::Down];
}

/// `GET /api/v1/stats/backend`: one backend, all workers together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendFigures {
    pub upstream: String,
    pub backend_id: String,
    pub name: String,
    /// `host:port`, or the path of a Unix socket.
    pub address: String,
    pub state: State,
    /// Neither down by its check nor ejected.
    pub healthy: bool,
    pub weight: u16,
    /// 0 = no limit.
    pub max_conn: u32,
    /// Exchanges and tunnels under way now.
    pub in_flight: u32,
    /// Requests that wait in the upstream's queue, for any of its backends.
    pub waiting: u64,
    pub requests: BackendRequests,
    /// Exchanges that failed by its fault.
    pub failures: u64,
    /// Since the last success or ejection.
    pub failures_in_a_row: u32,
    /// Exchanges tried with it after another try had failed.
    pub retries: u64,
    pub ejections: u64,
    /// Milliseconds until it is used again, if it is ejected.
    pub ejected_for_ms: Option<u64>,
    /// The part of its weight that counts while it comes back, 0.1 to 1.
    pub ramp: f64,
    pub connections: BackendConnections,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Its answers by class of status.
    pub responses: BTreeMap<&'static str, u64>,
    /// From the try's begin to the answer's head.
    pub first_byte: LatencyFigures,
    /// From the try's begin to the answer's end; no tunnels and no event streams.
    pub latency: LatencyFigures,
    /// What its reports come to; `None` before the first.
    pub performance: Option<Performance>,
    /// When it reported last, milliseconds since 1970.
    pub last_report: Option<u64>,
}

/// Tries with a backend, retries and tunnels included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BackendRequests {
    /// Since the start.
    pub total: u64,
    /// In the last second.
    pub per_second: f64,
    /// A second, over the last ten.
    pub per_second_10s: f64,
}

/// Connections to a backend, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BackendConnections {
    /// Exchanges on one that was kept.
    pub reused: u64,
    /// Exchanges that had to connect.
    pub opened: u64,
    /// That could not be made.
    pub failed: u64,
}

/// A backend's reports as the performance rule uses them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Performance {
    /// Smoothed, 0 to 1.
    pub utilisation: f64,
    /// Factor on its weight, 0.05 to 1; goes back to 1 as the last report ages.
    pub headroom: f64,
}

/// The server's figures.
pub fn server(sources: &Sources<'_>) -> ServerFigures {
    let machine = sources.machine;
    ServerFigures {
        cpu_usage: rounded(machine.cpu_usage),
        memory_usage: rounded(machine.memory_usage()),
        disk_usage: rounded(machine.disk_usage),
        load_avg_1: machine.load_avg[0],
        load_avg_5: machine.load_avg[1],
        load_avg_15: machine.load_avg[2],
        network_in: rounded(machine.network_in),
        network_out: rounded(machine.network_out),
        timestamp: sources.unix_ms,
        machine: MachineFigures {
            container: machine.container,
            cpus: machine.cpus,
            memory_used_bytes: machine.memory_used_bytes,
            memory_limit_bytes: machine.memory_limit_bytes,
        },
        process: machine.process,
        proxy: proxy(sources),
    }
}

fn proxy(sources: &Sources<'_>) -> ProxyFigures {
    let mut backends = BackendTotals::default();
    let stats = sources.published.upstreams.iter().flat_map(|upstream| &upstream.stats);
    stats.flat_map(|workers| workers.iter()).for_each(|stats| backends += &**stats);
    let totals = Totals::sum(sources.workers);
    let Rate { last_1s, last_10s } = sources.history.requests();
    ProxyFigures {
        version: env!("CARGO_PKG_VERSION"),
        uptime: sources.now_ms as f64 / 1e3,
        connections: Connections {
            active: totals.connections_active,
            parked: totals.connections_parked,
            tunnels: totals.tunnels_active,
            event_streams: totals.event_streams_active,
            accepted: totals.connections_accepted,
            max: sources.connections_max,
        },
        requests: Requests {
            total: totals.requests,
            per_second: rounded(last_1s),
            per_second_10s: rounded(last_10s),
            in_flight: totals.exchanges_active,
            retries: totals.retries,
        },
        responses: classes(&totals.statuses),
        reasons: reasons(&totals),
        bytes: Bytes {
            client_in: totals.client_bytes_in,
            client_out: totals.client_bytes_out,
            backend_in: backends.bytes_in,
            backend_out: backends.bytes_out,
        },
        latency: LatencyFigures::from(&sources.history.latency()),
        queue: QueueFigures { waiting: totals.queue_waiting, waited: totals.queue_waits },
        backend_connections: PoolFigures { reused: totals.pool_hits, opened: totals.pool_misses },
        tls: TlsFigures {
            sessions: totals.tls_sessions,
            full: totals.handshakes_full,
            resumed: totals.handshakes_resumed,
            failed: totals.handshakes_failed,
            expires_first: Expiry::first(sources.published, (sources.unix_ms / 1000) as i64),
        },
        access_log: LogFigures {
            written: totals.log_lines_written.saturating_sub(sources.log_lines_lost),
            dropped: totals.log_lines_dropped + sources.log_lines_lost,
        },
        memory: Memory::from(&totals),
        workers: sources.workers.iter().enumerate().map(|(worker, stats)| WorkerFigures::new(worker, stats)).collect(),
    }
}

/// The figures of one backend; `None` when the plan has no such backend.
pub fn backend(sources: &Sources<'_>, upstream: &str, id: &str) -> Option<BackendFigures> {
    let upstream = sources.published.upstreams.iter().find(|u| u.conf.name == upstream)?;
    let at = upstream.conf.backends.iter().position(|backend| backend.id == id)?;
    one(sources, upstream, at)
}

/// The figures of all backends in the order of the plan, or those of one upstream.
pub fn backends(sources: &Sources<'_>, upstream: Option<&str>) -> Vec<BackendFigures> {
    let upstreams = sources.published.upstreams.iter();
    let wanted = upstreams.filter(|u| upstream.is_none_or(|name| u.conf.name == name));
    wanted.flat_map(|u| (0..u.conf.backends.len()).filter_map(move |at| one(sources, u, at))).collect()
}

fn one(sources: &Sources<'_>, upstream: &PublishedUpstream, at: usize) -> Option<BackendFigures> {
    let conf: &plan::Backend = upstream.conf.backends.get(at)?;
    let (state, stats): (&BackendState, &WorkersStats) = (upstream.backends.get(at)?, upstream.stats.get(at)?);
    let (now_ms, totals) = (sources.now_ms, BackendTotals::sum(stats));
    let Rate { last_1s, last_10s } = sources.history.backend_requests(stats);
    let occupancy = state.occupancy();
    let score = state.load().map(Score::from);
    let standing = State::of(state, now_ms);
    Some(BackendFigures {
        upstream: upstream.conf.name.clone(),
        backend_id: conf.id.clone(),
        name: conf.name.clone(),
        address: address(&conf.addr),
        state: standing,
        healthy: !state.is(Mark::CheckDown) && !state.is_ejected(now_ms),
        weight: conf.weight,
        max_conn: occupancy.limit(),
        in_flight: occupancy.in_flight(),
        waiting: upstream.state.waiting() as u64,
        requests: BackendRequests {
            total: totals.requests,
            per_second: rounded(last_1s),
            per_second_10s: rounded(last_10s),
        },
        failures: totals.failures,
        failures_in_a_row: state.failures_in_a_row(),
        retries: totals.retries,
        ejections: state.ejections(),
        ejected_for_ms: Some(state.ejected_until_ms().saturating_sub(now_ms)).filter(|&ms| ms > 0),
        ramp: rounded(state.ramp_start_ms().map_or(1.0, |since| f64::from(ramp(now_ms, since)))),
        connections: BackendConnections {
            reused: totals.pool_hits,
            opened: totals.pool_misses,
            failed: totals.connect_failures,
        },
        bytes_in: totals.bytes_in,
        bytes_out: totals.bytes_out,
        responses: classes(&totals.statuses),
        first_byte: LatencyFigures::from(&sources.history.backend_first_byte(stats)),
        latency: LatencyFigures::from(&sources.history.backend_latency(stats)),
        performance: score.map(|score| Performance {
            utilisation: rounded(f64::from(score.utilisation)),
            headroom: rounded(f64::from(score.headroom(now_ms))),
        }),
        last_report: score.map(|score| sources.unix_ms.saturating_sub(now_ms.saturating_sub(score.reported_ms))),
    })
}

fn address(addr: &plan::BackendAddr) -> String {
    match addr {
        plan::BackendAddr::Unix(path) => path.display().to_string(),
        other => other.authority(),
    }
}

impl WorkerFigures {
    fn new(worker: usize, stats: &WorkerStats) -> WorkerFigures {
        WorkerFigures {
            worker,
            active: stats.connections_active.get(),
            parked: stats.connections_parked.get(),
            tunnels: stats.tunnels_active.get(),
            accepted: stats.connections_accepted.get(),
            requests: stats.requests.get(),
            in_flight: stats.exchanges_active.get(),
        }
    }
}

impl From<&Totals> for Memory {
    fn from(totals: &Totals) -> Self {
        Memory {
            buffers: totals.memory_buffers,
            exchanges: totals.memory_exchanges,
            connections: totals.memory_connections,
            parked: totals.memory_parked,
            tunnels: totals.memory_tunnels,
            queues: totals.memory_queues,
            tls: totals.memory_tls,
        }
    }
}

impl From<&Latencies> for LatencyFigures {
    fn from(latencies: &Latencies) -> Self {
        LatencyFigures {
            last_10s: Quantiles::from(&latencies.last_10s),
            since_start: Quantiles::from(&latencies.since_start),
        }
    }
}

impl From<&Snapshot> for Quantiles {
    fn from(snapshot: &Snapshot) -> Self {
        let quantile_ms = |q| snapshot.quantile_us(q).map(|us| us as f64 / 1e3);
        let count = snapshot.count();
        Quantiles {
            count,
            mean_ms: snapshot.mean_us().map(|us| us.round() / 1e3),
            p50_ms: quantile_ms(0.5),
            p90_ms: quantile_ms(0.9),
            p95_ms: quantile_ms(0.95),
            p99_ms: quantile_ms(0.99),
            p999_ms: quantile_ms(0.999),
            max_ms: (count > 0).then(|| snapshot.max_us() as f64 / 1e3),
        }
    }
}

/// Names of the classes of status, by index.
pub const CLASSES: [&str; CLASSES_COUNT] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

fn classes(sums: &Sums<CLASSES_COUNT>) -> BTreeMap<&'static str, u64> {
    CLASSES.into_iter().zip(sums.0).collect()
}

fn reasons(totals: &Totals) -> BTreeMap<&'static str, u64> {
    let counted = Reason::ALL.iter().map(|&reason| (reason.code(), totals.reasons.of(reason)));
    counted.filter(|&(_, count)| count > 0).collect()
}

/// Three decimals: what comes behind is noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
