//! `speedmimi-bench calibrate`: what a request, a connection and a byte cost SpeedMimi on this machine, as the constants that
//! `speedmimi plan` adds up.
//!
//! Owns which figures a constant is made of. Never measures by itself: that is [`compare`]'s.

use crate::amount;
use crate::compare::{self, IdleKind, Measure, Program, Results};
use crate::error::{Error, Result, Trying};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The bodies of the rounds: nearly nothing, and a large one.
const SMALL_BYTES: usize = 100;
const LARGE_BYTES: usize = 64 << 10;
/// KiB that the large one is more.
const KIB_MORE: f64 = (LARGE_BYTES - SMALL_BYTES) as f64 / 1024.0;
/// Connections when nobody says how many: few, and so many that caches don't hold them.
const CONNECTIONS: [u64; 3] = [64, 1000, 5000];
/// All that constants are made of.
const MEASURES: [Measure; 6] =
    [Measure::Http, Measure::Connections, Measure::Frames, Measure::Https, Measure::Handshakes, Measure::Http2];

/// What to measure, and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The SpeedMimi to measure; else the one beside this program
    #[arg(long, value_name = "PATH")]
    pub speedmimi: Option<PathBuf>,
    /// Rounds: quartiles come of them
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// How long one measurement takes, after its warm-up
    #[arg(long, default_value = "500ms", value_parser = amount::duration)]
    pub seconds: Duration,
    /// How long each is warmed up
    #[arg(long, default_value = "250ms", value_parser = amount::duration)]
    pub warmup: Duration,
    /// Connections at once, of requests in the clear; everything else has the fewest of them. Else 64,1000,5000
    #[arg(long, short = 'c', value_delimiter = ',', value_parser = amount::count)]
    pub connections: Vec<u64>,
    /// Idle connections whose memory is measured
    #[arg(long, default_value = "4k", value_parser = amount::count)]
    pub idle: u64,
    /// How long connections are idle before their memory is measured: until they are parked and what a burst took is given back
    #[arg(long, default_value = "6s", value_parser = amount::duration)]
    pub settle: Duration,
    /// Two CPUs: for the proxy, and for load and origin; else the first two of this process
    #[arg(long, value_delimiter = ',', num_args = 2)]
    pub cpus: Option<Vec<usize>>,
    /// Write the constants to this file instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A measured value: lower quartile, median, upper quartile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Lower quartile.
    pub low: f64,
    /// Median.
    pub median: f64,
    /// Upper quartile.
    pub high: f64,
}

/// CPU time in µs, memory in bytes; as `speedmimi plan --calibration` reads them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Constants {
    /// At the most connections that were measured; those over TLS and HTTP/2 grow as those in the clear do.
    pub http_request_us: Spread,
    pub tls_request_us: Spread,
    pub http2_request_us: Spread,
    /// What a KiB of a body costs more.
    pub http_kib_us: Spread,
    pub tls_kib_us: Spread,
    pub http2_kib_us: Spread,
    /// One frame one way.
    pub websocket_frame_us: Spread,
    /// What a connection of its own adds to a request.
    pub connection_us: Spread,
    pub handshake_us: Spread,
    /// The proxy's memory for an idle connection.
    pub idle_bytes: Spread,
    pub tls_idle_bytes: Spread,
    pub http2_idle_bytes: Spread,
    pub websocket_idle_bytes: Spread,
    /// The kernel's for one end of it.
    pub socket_bytes: Spread,
}

/// The file.
#[derive(Debug, Serialize)]
pub struct Calibration {
    /// Machine, kernel, program, command.
    pub facts: Vec<String>,
    /// What `plan` reads.
    pub constants: Constants,
    /// What they were made of.
    pub measured: Results,
}

/// Measures, and writes the constants.
///
/// # Errors
/// When a measurement can't be made, or an answer was wrong: then the figures prove nothing.
pub fn run(options: &Options) -> Result<()> {
    if options.rounds == 0 || options.idle == 0 {
        return Err(Error::Usage("--rounds and --idle have to be above 0".into()));
    }
    let mut measured = compare::measure(&options.few())?;
    let many = options.many();
    if !many.connections.is_empty() {
        measured.rounds.extend(compare::measure(&many)?.rounds);
    }
    let mut facts = std::mem::take(&mut measured.facts);
    if let Some(bad) = measured.rounds.iter().find(|round| round.load.total.failed > 0 || round.violations > 0) {
        let (failed, violations) = (bad.load.total.failed, bad.violations);
        return Err(Error::Failed(format!("{}: {failed} failed, {violations} violations: no constants", bad.measure)));
    }
    let (constants, unmeasured) = constants(&measured)?;
    facts.extend(unmeasured);
    write(options, &Calibration { facts, constants, measured })
}

fn write(options: &Options, calibration: &Calibration) -> Result<()> {
    let json = serde_json::to_vec_pretty(calibration).map_err(std::io::Error::from).trying(|| "JSON".into())?;
    match &options.json {
        Some(file) => std::fs::write(file, json).trying(|| format!("writing {}", file.display())),
        None => std::io::stdout().write_all(&json).trying(|| "writing the constants".into()),
    }
}

impl Options {
    /// Everything with the fewest connections, then memory.
    fn few(&self) -> compare::Options {
        compare::Options { connections: vec![self.fewest()], ..self.with(&MEASURES) }
    }

    /// Requests in the clear with more of them.
    fn many(&self) -> compare::Options {
        let fewest = self.fewest();
        let connections = self.wanted().iter().copied().filter(|&count| count > fewest).collect();
        compare::Options { connections, bodies: vec![SMALL_BYTES], idle: 0, ..self.with(&[Measure::Http]) }
    }

    fn wanted(&self) -> &[u64] {
        if self.connections.is_empty() { &CONNECTIONS } else { &self.connections }
    }

    fn fewest(&self) -> u64 {
        self.wanted().iter().min().copied().unwrap_or(CONNECTIONS[0])
    }

    fn with(&self, measures: &[Measure]) -> compare::Options {
        compare::Options {
            only: vec![Program::Speedmimi],
            measure: measures.to_vec(),
            tls: false,
            connections: Vec::new(),
            bodies: Vec::new(),
            streams: 16,
            rounds: self.rounds,
            seconds: self.seconds,
            warmup: self.warmup,
            idle: self.idle,
            settle: self.settle,
            pool: 1024,
            speedmimi: self.speedmimi.clone(),
            allow_missing: false,
            cpus: self.cpus.clone(),
            json: None,
        }
    }
}

/// The constants, and what of them could not be measured, in words.
///
/// # Errors
/// When something without which there is no sum was not measured.
fn constants(measured: &Results) -> Result<(Constants, Option<String>)> {
    let rounds = Rounds(measured);
    let (fewest, most) = rounds.ends()?;
    let http = |body| rounds.cost(Measure::Http, fewest, body);
    let (few, many) = (http(SMALL_BYTES)?, rounds.cost(Measure::Http, most, SMALL_BYTES)?);
    // More connections never cost less: where it seems so, it is noise.
    let growth = (many.median - few.median).max(0.0);
    let at = |measure, body| rounds.cost(measure, fewest, body);
    let (https, http2) = (at(Measure::Https, SMALL_BYTES)?, at(Measure::Http2, SMALL_BYTES)?);
    let kib = |measure, base: Spread| Ok::<_, Error>(at(measure, LARGE_BYTES)?.over(base.median).times(1.0 / KIB_MORE));
    // A frame and its echo are two; they grow with the connections as a request does.
    let echo = at(Measure::Frames, SMALL_BYTES).ok().map(|echo| echo.over(-growth).times(0.5));
    let unmeasured = "frames of WebSockets were not measured: taken for half a request each".to_owned();
    let idle = Memory(measured);
    let constants = Constants {
        http_request_us: many,
        tls_request_us: https.over(-growth),
        http2_request_us: http2.over(-growth),
        http_kib_us: kib(Measure::Http, few)?,
        tls_kib_us: kib(Measure::Https, https)?,
        http2_kib_us: kib(Measure::Http2, http2)?,
        websocket_frame_us: echo.unwrap_or_else(|| many.times(0.5)),
        connection_us: at(Measure::Connections, SMALL_BYTES)?.over(few.median),
        handshake_us: at(Measure::Handshakes, SMALL_BYTES)?.over(https.median),
        idle_bytes: idle.user(&[IdleKind::BusyAtOnce, IdleKind::OneByOne])?,
        tls_idle_bytes: idle.user(&[IdleKind::Https])?,
        http2_idle_bytes: idle.user(&[IdleKind::Http2])?,
        websocket_idle_bytes: idle.user(&[IdleKind::WebSocket])?,
        socket_bytes: idle.socket()?,
    };
    Ok((constants, echo.is_none().then_some(unmeasured)))
}

impl Spread {
    /// Quartiles by their nearest ranks.
    fn of(figures: &[f64]) -> Option<Spread> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |part: f64| sorted.get(((sorted.len() as f64 * part).ceil() as usize).max(1) - 1).copied();
        Some(Spread { low: rank(0.25)?, median: rank(0.5)?, high: rank(0.75)? })
    }

    /// What it is more than a base; nothing where noise makes it less.
    fn over(self, base: f64) -> Spread {
        let more = |value: f64| (value - base).max(0.0);
        Spread { low: more(self.low), median: more(self.median), high: more(self.high) }
    }

    fn times(self, factor: f64) -> Spread {
        Spread { low: self.low * factor, median: self.median * factor, high: self.high * factor }
    }
}

/// CPU time of the rounds.
struct Rounds<'a>(&'a Results);

impl Rounds<'_> {
    /// The fewest and the most connections of requests in the clear.
    fn ends(&self) -> Result<(u64, u64)> {
        let all = self.0.rounds.iter().filter(|round| round.measure == Measure::Http).map(|round| round.connections);
        all.clone().min().zip(all.max()).ok_or_else(|| Error::Failed("no request was measured".into()))
    }

    fn cost(&self, measure: Measure, connections: u64, body: usize) -> Result<Spread> {
        let mine = self.0.rounds.iter().filter(|r| (r.measure, r.connections, r.body) == (measure, connections, body));
        let figures: Vec<f64> = mine.filter_map(|r| Some(r.load.process.as_ref()?.cpu_us_per_request)).collect();
        let missing =
            || Error::Failed(format!("{measure} with {connections} connections and {body} B was not measured"));
        Spread::of(&figures).ok_or_else(missing)
    }
}

/// Memory of idle connections.
struct Memory<'a>(&'a Results);

impl Memory<'_> {
    /// The proxy's: over the same process emptied, which forgets what it keeps, and over the fresh one.
    fn user(&self, kinds: &[IdleKind]) -> Result<Spread> {
        let mine = self.0.idle.iter().filter(|idle| kinds.contains(&idle.kind));
        let of = |idle: &compare::Idle| [idle.report.user_bytes_each, idle.report.user_bytes_each_over_fresh];
        let mut figures: Vec<f64> = mine.flat_map(of).map(|bytes| bytes.max(0.0)).collect();
        // Of two, the larger is the one that has everything in it.
        if let [a, b] = figures[..] {
            figures = vec![a.min(b), a.max(b), a.max(b)];
        }
        Spread::of(&figures).ok_or_else(|| Error::Failed("memory was not measured: --idle has to be above 0".into()))
    }

    /// The kernel's: both ends of each connection are on this machine, and a tunnel is two connections.
    fn socket(&self) -> Result<Spread> {
        let each = |idle: &compare::Idle| {
            let ends = if idle.kind == IdleKind::WebSocket { 4.0 } else { 2.0 };
            (idle.report.slab_bytes_each / ends).max(0.0)
        };
        let figures: Vec<f64> = self.0.idle.iter().map(each).collect();
        Spread::of(&figures).ok_or_else(|| Error::Failed("memory was not measured: --idle has to be above 0".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `compare` would have measured it.
    fn measured() -> Results {
        let round = |(measure, connections, body, us): (&str, u64, usize, f64)| {
            let window = serde_json::json!({"ok": 1, "failed": 0, "connect": 0, "closed": 0, "timeout": 0, "status": 0,
                                            "body": 0, "malformed": 0});
            let latency = serde_json::json!({"mean": 1.0, "p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 1.0, "p99_9": 1.0, "max": 1.0});
            serde_json::json!({"measure": measure, "connections": connections, "body": body, "round": 0, "program": "speedmimi",
                "violations": 0, "load": {"connections": connections, "answered_connections": connections, "total": window,
                "answered_percent": 100.0, "statuses": {}, "window": window, "window_seconds": 1.0, "rps": 1.0,
                "latency_us": latency, "load_utilisation": 0.5,
                "process": {"cpu_us_per_request": us, "utilisation": 1.0, "user_bytes": 1}}})
        };
        let idle = |(kind, each, fresh, slab): (&str, f64, f64, f64)| {
            let bytes = serde_json::json!({"user": 1, "slab": 1});
            serde_json::json!({"program": "speedmimi", "kind": kind, "report": {"connections": 9, "answered": 9, "answered_again": 9,
                "all_busy_at_once": true, "before": bytes, "idle": bytes, "after": bytes, "user_bytes_each": each,
                "user_bytes_each_over_fresh": fresh, "slab_bytes_each": slab}})
        };
        let spread =
            |measure, connections, body, us: f64| [us, us + 4.0, us + 1.0].map(|us| (measure, connections, body, us));
        let rounds = [
            spread("http", 64, 100, 10.0),
            spread("http", 5000, 100, 15.0),
            spread("http", 64, 65_536, 19.0),
            spread("connections", 64, 100, 30.0),
            spread("frames", 64, 100, 9.0),
            spread("https", 64, 100, 12.0),
            spread("https", 64, 65_536, 29.0),
            spread("handshakes", 64, 100, 113.0),
            spread("http2", 64, 100, 11.0),
            spread("http2", 64, 65_536, 58.0),
        ];
        let idles = [
            ("busy-at-once", 40.0, 140.0, 7500.0),
            ("one-by-one", -20.0, 120.0, 7400.0),
            ("https", 2600.0, 4400.0, 7280.0),
            ("http2", 26_400.0, 28_200.0, 7256.0),
            ("web-socket", 1740.0, 1840.0, 14_400.0),
        ];
        let rounds: Vec<_> = rounds.into_iter().flatten().map(round).collect();
        let idles: Vec<_> = idles.into_iter().map(idle).collect();
        serde_json::from_value(serde_json::json!({"facts": [], "rounds": rounds, "idle": idles})).unwrap()
    }

    fn near(spread: Spread, [low, median, high]: [f64; 3]) {
        let is_near = |a: f64, b: f64| (a - b).abs() < 0.01;
        assert!(is_near(spread.low, low) && is_near(spread.median, median) && is_near(spread.high, high), "{spread:?}");
    }

    #[test]
    fn constants_are_what_is_measured_less_what_is_known() {
        let (constants, unmeasured) = constants(&measured()).unwrap();
        assert_eq!(unmeasured, None);
        near(constants.http_request_us, [15.0, 16.0, 19.0]);
        // 12, 13, 16 and the 5 that many connections cost.
        near(constants.tls_request_us, [17.0, 18.0, 21.0]);
        near(constants.http2_request_us, [16.0, 17.0, 20.0]);
        near(constants.http_kib_us, [8.0 / 63.9, 9.0 / 63.9, 12.0 / 63.9]);
        near(constants.websocket_frame_us, [7.0, 7.5, 9.0]);
        near(constants.connection_us, [19.0, 20.0, 23.0]);
        near(constants.handshake_us, [100.0, 101.0, 104.0]);
        near(constants.idle_bytes, [0.0, 40.0, 120.0]);
        near(constants.tls_idle_bytes, [2600.0, 4400.0, 4400.0]);
        near(constants.socket_bytes, [3628.0, 3640.0, 3700.0]);
    }

    #[test]
    fn what_is_missing_is_told() {
        let mut results = measured();
        results.rounds.retain(|round| round.measure != Measure::Frames);
        let (told, unmeasured) = constants(&results).unwrap();
        assert!(unmeasured.unwrap().contains("WebSockets"));
        near(told.websocket_frame_us, [7.5, 8.0, 9.5]);
        results.rounds.retain(|round| round.measure != Measure::Handshakes);
        let error = constants(&results).unwrap_err().to_string();
        assert_eq!(error, "HTTPS, new connection each with 64 connections and 100 B was not measured");
        assert!(constants(&Results::default()).is_err());
    }

    /// `speedmimi plan` has a test that reads the same file. `SPEEDMIMI_BLESS=1` writes it anew.
    #[test]
    fn the_file_is_what_plan_reads() {
        let (constants, _) = constants(&measured()).unwrap();
        let calibration = Calibration { facts: vec!["a machine".into()], constants, measured: Results::default() };
        let text = serde_json::to_string_pretty(&calibration).unwrap() + "\n";
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/calibration.json");
        if std::env::var_os("SPEEDMIMI_BLESS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    }
}
