//! The figures as they come from `GET /api/v1/stats/stream`, as far as they are shown.
//!
//! Owns the shapes. Tolerant: another version may tell more, which is passed over, or less, which then is zero.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One event of the stream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Figures {
    pub server: Server,
    #[serde(default)]
    pub backends: Vec<Backend>,
    /// Gone from the configuration, with something still under way.
    #[serde(default)]
    pub removed: Vec<Removed>,
    #[serde(default)]
    pub ready: bool,
    /// Keys of the configuration.
    #[serde(default)]
    pub restart_required: Vec<String>,
    #[serde(default)]
    pub file_refused: Option<String>,
}

/// Machine, process and proxy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Percent of the CPUs that may be used.
    pub cpu_usage: f64,
    /// Percent of the memory that may be used.
    pub memory_usage: f64,
    pub load_avg_1: f64,
    pub load_avg_5: f64,
    pub load_avg_15: f64,
    /// KB (1024 bytes) a second.
    pub network_in: f64,
    /// KB (1024 bytes) a second.
    pub network_out: f64,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    pub machine: Machine,
    pub process: Process,
    pub proxy: Proxy,
}

/// What the percentages are of.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub cpus: f64,
    pub memory_limit_bytes: u64,
}

/// The proxy's process.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Percent of one CPU.
    pub cpu_usage: f64,
    pub rss_bytes: u64,
    pub open_descriptors: u64,
}

/// What the proxy does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Proxy {
    pub version: String,
    /// Seconds since its start.
    pub uptime: f64,
    pub connections: Connections,
    pub requests: Requests,
    pub responses: BTreeMap<String, u64>,
    pub reasons: BTreeMap<String, u64>,
    pub latency: Latency,
    pub queue: Queue,
    pub tls: Tls,
    pub workers: Vec<Worker>,
}

/// Client connections.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Open now, parked ones and tunnels included.
    pub active: u64,
    pub parked: u64,
    pub tunnels: u64,
    pub event_streams: u64,
    pub max: u64,
}

/// Requests of the proxy or tries with a backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Requests {
    pub total: u64,
    pub per_second: f64,
    pub per_second_10s: f64,
    pub in_flight: u64,
    pub retries: u64,
}

/// Times of the last ten seconds and since the start.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Latency {
    pub last_10s: Quantiles,
    pub since_start: Quantiles,
}

/// Milliseconds; `None` when nothing was counted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Quantiles {
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

/// Requests that wait for a backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Queue {
    pub waiting: u64,
}

/// TLS with clients.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Open now, parked ones included.
    pub sessions: u64,
    /// Handshakes since the start.
    pub full: u64,
    pub resumed: u64,
    pub failed: u64,
    /// Of the certificate that ends first; `None` without any.
    pub expires_first: Option<Expiry>,
}

/// When a certificate ends.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Expiry {
    pub cert_file: String,
    pub state: String,
    /// Below zero when they are over.
    pub days_left: i64,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Worker {
    pub worker: u64,
    pub active: u64,
    pub parked: u64,
    pub requests: u64,
    pub in_flight: u64,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Backend {
    pub upstream: String,
    pub backend_id: String,
    pub address: String,
    pub state: String,
    pub weight: u64,
    /// 0 = no limit.
    pub max_conn: u64,
    pub in_flight: u64,
    /// In the queue of its upstream.
    pub waiting: u64,
    pub requests: Requests,
    pub failures: u64,
    pub retries: u64,
    pub ejected_for_ms: Option<u64>,
    /// The part of its weight that counts, 0.1 to 1; `None` = 1.
    pub ramp: Option<f64>,
    pub latency: Latency,
    /// Milliseconds since 1970.
    pub last_report: Option<u64>,
}

/// A backend that is gone and still has something under way.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Removed {
    pub upstream: String,
    pub backend_id: String,
    pub in_flight: u64,
}
