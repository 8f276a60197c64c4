//! What came of a load: counts, latencies, the process, and how the schedule was kept.
//!
//! Owns their form in JSON. Never measures.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Connections asked for.
    pub connections: u64,
    /// Connections that were answered at least once.
    pub answered_connections: u64,
    /// Over the whole run, ramp and drain included.
    pub total: Counts,
    /// Share of `total` that was answered as expected, in percent.
    pub answered_percent: f64,
    /// Answers by status, over the whole run.
    pub statuses: BTreeMap<u16, u64>,
    /// Within the window.
    pub window: Counts,
    /// The window's length in s.
    pub window_seconds: f64,
    /// Good answers per second of the window.
    pub rps: f64,
    /// Latencies of good answers in the window, and of those that were under way at its end.
    pub latency_us: Latency,
    /// CPU time of the load generator itself over the window's length.
    pub load_utilisation: f64,
    /// CPU time of the load generator itself per good answer in µs.
    #[serde(default)]
    pub load_cpu_us_per_request: f64,
    /// TLS handshakes over the whole run.
    #[serde(default)]
    pub handshakes: u64,
    /// Those of them that resumed an earlier session.
    #[serde(default)]
    pub resumed: u64,
    /// Different certificates that the server showed in them.
    #[serde(default)]
    pub certificates: u64,
    /// Why the first handshake that failed did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_failure: Option<String>,
    /// What the measured process took in the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessReport>,
    /// How the schedule of an open loop was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    /// It was interrupted: the window is shorter than was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// How the schedule of an open loop was kept, of the requests that were due in the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenLoop {
    /// Requests per second that were to be asked.
    pub rate: f64,
    /// Requests that were due.
    pub due: u64,
    /// Those of them that waited because no connection was free.
    pub late: u64,
    /// Those that were given up after waiting so long as the timeout; they count as failed.
    pub unsent: u64,
    /// How far the load generator itself was behind its schedule at most, in µs.
    pub behind_us_max: f64,
}

impl OpenLoop {
    /// Adds another thread's.
    pub(super) fn add(&mut self, other: &OpenLoop) {
        self.due += other.due;
        self.late += other.late;
        self.unsent += other.unsent;
        self.behind_us_max = self.behind_us_max.max(other.behind_us_max);
    }
}

/// A part of the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Its length in s.
    pub seconds: f64,
    /// Good answers.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Latencies of the good answers in µs.
    pub p50_us: f64,
    /// The same.
    pub p99_us: f64,
    /// The same.
    pub max_us: f64,
    /// `RssAnon + RssShmem + VmSwap` of the measured process at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_bytes: Option<u64>,
}

/// All that was measured.
pub struct Measured {
    /// The figures.
    pub report: Report,
    /// The latencies of [`Report::latency_us`], in ns.
    pub latency: Histogram<u32>,
    /// The window in parts of equal length.
    pub slices: Vec<Slice>,
}

/// Requests by how they ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Answered as expected.
    pub ok: u64,
    /// Not answered as expected, in all.
    pub failed: u64,
    /// No connection came about.
    pub connect: u64,
    /// The connection ended before the answer was whole.
    pub closed: u64,
    /// No whole answer within the timeout.
    pub timeout: u64,
    /// Another status.
    pub status: u64,
    /// Another body.
    pub body: u64,
    /// Not HTTP, or more than was asked for.
    pub malformed: u64,
    /// Streams that the server refused, by GOAWAY or REFUSED_STREAM, without having looked at them.
    #[serde(default)]
    pub refused: u64,
}

/// Latencies in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// What the measured process took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ProcessReport {
    /// CPU time per good answer in µs.
    pub cpu_us_per_request: f64,
    /// CPU time over the window's length: 1.0 is one CPU.
    pub utilisation: f64,
    /// `RssAnon + RssShmem + VmSwap` at the window's end.
    pub user_bytes: u64,
}

impl Counts {
    /// What was counted since `begin`.
    pub(super) fn since(&self, begin: &Counts) -> Counts {
        Counts {
            ok: self.ok - begin.ok,
            failed: self.failed - begin.failed,
            connect: self.connect - begin.connect,
            closed: self.closed - begin.closed,
            timeout: self.timeout - begin.timeout,
            status: self.status - begin.status,
            body: self.body - begin.body,
            malformed: self.malformed - begin.malformed,
            refused: self.refused - begin.refused,
        }
    }
}

impl Latency {
    /// Of latencies in ns.
    pub fn of(histogram: &Histogram<u32>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}
