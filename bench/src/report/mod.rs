//! The report of a staged test: what was measured, on what, how, and what it is worth.
//!
//! Owns the data and its form in JSON, which everything else is made from: [`markdown`], [`html`] and the comparison of two
//! reports, [`versus`]. Never measures and never looks at the machine.

pub mod file;
mod grade;
pub mod html;
pub mod markdown;
mod plot;
pub mod versus;
pub(crate) mod words;

pub use file::{Form, read};
pub use grade::Grade;
pub use words::Lang;

use crate::load::{Counts, Latency, Measured, OpenLoop, Slice};
use crate::machine::Machine;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The form of the JSON; it changes when a reader would have to.
pub const FORMAT: u32 = 1;
/// A test ends when less than this is answered, in percent.
pub const SUCCESS_PERCENT_MIN: f64 = 80.0;
/// Quantiles that a report has, in percent.
const PERCENTS: [f64; 16] =
    [0.0, 1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0];

/// A whole report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The program that measured, and its version.
    pub tool: String,
    /// When it began: RFC 3339, in UTC.
    pub began: String,
    /// How long it took, in s.
    pub seconds: f64,
    /// What was typed.
    pub command: Vec<String>,
    /// The URL that was loaded.
    pub target: String,
    /// The process that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// How it was loaded, in English.
    pub load: String,
    /// Where.
    pub machine: Machine,
    /// What came of it.
    pub stages: Vec<Stage>,
    /// Why there are no more of them.
    pub end: End,
    /// What a reader should know beside the figures, in English.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The process that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// What it says of itself, when it could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Why a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// All stages were measured.
    Whole,
    /// Less than [`SUCCESS_PERCENT_MIN`] was answered in the last one.
    TooManyFailed,
    /// Somebody interrupted it; the last stage is a part of itself.
    Interrupted,
    /// The stage after the last one could not be measured; a note says why.
    Failed,
}

/// A number of connections, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Connections at once.
    pub concurrency: u64,
    /// Those that were answered at least once.
    pub answered_connections: u64,
    /// Share of all requests, those while connections were opened included, that was answered as expected, in percent. A
    /// connection that never was answered counts as a request that failed.
    pub success_percent: f64,
    /// Good answers per second of the window.
    pub rps: f64,
    /// Latencies of good answers in the window, and of those that were under way at its end, in µs.
    pub latency_us: Latency,
    /// CPU time of the process over the window's length: 1.0 is one CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// Private memory of the process in bytes, the most at the border of any slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// CPU time of the load generator over the window's length.
    pub load_cpu: f64,
    /// What it is worth.
    pub grade: Grade,
    /// Over the whole stage.
    pub total: Counts,
    /// Within the window.
    pub window: Counts,
    /// The window's length in s.
    pub window_seconds: f64,
    /// Pairs of a percentage and the latency in µs that so many answers had at most.
    pub percentiles_us: Vec<(f64, f64)>,
    /// Pairs of a latency in µs, of two digits, and how many answers had it.
    pub histogram_us: Vec<(f64, u64)>,
    /// The window in parts of equal length.
    pub slices: Vec<Slice>,
    /// How the schedule was kept, in an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_loop: Option<OpenLoop>,
    /// It was interrupted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

impl Stage {
    /// Of what was measured.
    pub fn new(measured: &Measured) -> Stage {
        let (report, latency) = (&measured.report, &measured.latency);
        // Of an interrupted stage nobody knows whether they would have been.
        let missing = if report.partial { 0 } else { report.connections - report.answered_connections };
        let all = (report.total.ok + report.total.failed + missing).max(1);
        let success_percent = 100.0 * report.total.ok as f64 / all as f64;
        let last = report.process.map(|process| process.user_bytes);
        Stage {
            concurrency: report.connections,
            answered_connections: report.answered_connections,
            success_percent,
            rps: report.rps,
            latency_us: report.latency_us,
            cpu: report.process.map(|process| process.utilisation),
            memory_bytes: measured.slices.iter().filter_map(|slice| slice.user_bytes).chain(last).max(),
            load_cpu: report.load_utilisation,
            grade: Grade::of(success_percent, report.rps),
            total: report.total.clone(),
            window: report.window.clone(),
            window_seconds: report.window_seconds,
            percentiles_us: PERCENTS
                .iter()
                .map(|percent| (*percent, latency.value_at_quantile(percent / 100.0) as f64 / 1e3))
                .collect(),
            histogram_us: two_digits(latency),
            slices: measured.slices.clone(),
            open_loop: report.open_loop.clone(),
            partial: report.partial,
        }
    }
}

/// The counts of a histogram in ns by latencies in µs of two digits.
fn two_digits(latency: &Histogram<u32>) -> Vec<(f64, u64)> {
    let mut counts: Vec<(f64, u64)> = Vec::new();
    for value in latency.iter_recorded() {
        let us = value.value_iterated_to() as f64 / 1e3;
        let scale = 10f64.powf(us.max(0.01).log10().floor() - 1.0);
        let rounded = ((us / scale).round() * scale * 1e3).round() / 1e3;
        match counts.last_mut() {
            Some((last, count)) if *last == rounded => *count += value.count_since_last_iteration(),
            _ => counts.push((rounded, value.count_since_last_iteration())),
        }
    }
    counts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stage with round figures.
    pub fn stage(concurrency: u64, success_percent: f64, rps: f64, mean_us: f64) -> Stage {
        let slice = |i: u32| Slice {
            seconds: 1.0,
            ok: rps as u64 + u64::from(i % 2),
            failed: 0,
            p50_us: mean_us,
            p99_us: mean_us * (3.0 + 0.01 * f64::from(i % 2)),
            max_us: mean_us * 5.0,
            user_bytes: Some(10_000_000 + concurrency * 1_000),
        };
        let latency_us = Latency {
            mean: mean_us,
            p50: mean_us,
            p90: mean_us * 2.0,
            p95: mean_us * 2.5,
            p99: mean_us * 3.0,
            p99_9: mean_us * 4.0,
            max: mean_us * 5.0,
        };
        let failed = (1_000.0 * (100.0 - success_percent) / 100.0) as u64;
        let total = Counts { ok: 1_000 - failed, failed, timeout: failed, ..Counts::default() };
        Stage {
            concurrency,
            answered_connections: concurrency,
            success_percent,
            rps,
            latency_us,
            cpu: Some(1.25),
            memory_bytes: Some(10_000_000 + concurrency * 1_000),
            load_cpu: 0.5,
            grade: Grade::of(success_percent, rps),
            window: total.clone(),
            total,
            window_seconds: 10.0,
            percentiles_us: vec![(0.0, 1.0), (50.0, mean_us), (100.0, mean_us * 5.0)],
            histogram_us: vec![(mean_us, 10)],
            slices: (0..10).map(slice).collect(),
            open_loop: None,
            partial: false,
        }
    }

    /// A report with a stage of each grade.
    pub fn report() -> Report {
        Report {
            format: FORMAT,
            tool: "speedmimi-bench 0.1.0".into(),
            began: "2026-01-02T03:04:05Z".into(),
            seconds: 61.0,
            command: vec!["speedmimi-bench".into(), "--target".into(), "http://127.0.0.1:8080".into()],
            target: "http://127.0.0.1:8080".into(),
            process: Some(Process { pid: 42, name: "speedmimi".into(), version: None }),
            load: "closed loop, HTTP/1.1, GET /100, 2 threads".into(),
            machine: Machine { cpu: "A <CPU> & more".into(), cpus: 2, kernel: "Linux 6".into(), ..Machine::default() },
            stages: vec![
                stage(1_000, 100.0, 25_000.0, 340.0),
                stage(5_000, 97.35, 6_149.0, 866_000.0),
                stage(25_000, 92.0, 1_149.0, 12_500_000.0),
                stage(100_000, 13.38, 49.0, 12_500_000.0),
            ],
            end: End::TooManyFailed,
            notes: vec!["a note".into()],
        }
    }

    #[test]
    fn json_keeps_everything() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
        assert!(text.contains("\"format\":1") && text.contains("\"end\":\"too_many_failed\""), "{text}");
    }

    #[test]
    fn counts_by_two_digits_lose_none() {
        let mut latency = Histogram::<u32>::new_with_bounds(1, 120_000_000_000, 3).unwrap();
        for ns in [850, 99_500, 123_456, 123_999, 7_000_000_000] {
            latency.record(ns).unwrap();
        }
        let counts = two_digits(&latency);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 5);
        assert_eq!(counts, [(0.85, 1), (100.0, 1), (120.0, 2), (7_000_000.0, 1)]);
    }
}
