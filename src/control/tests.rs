//! History, figures and metrics of made-up counts: no proxy, and no clock but in the test of when the process began.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::figures::{self, Quantiles, Sources, State};
use super::history::{History, Rate};
use super::machine::{Machine, Tables};
use super::metrics::{self, Format};
use super::registry::Registry;
use super::watch::Watch;
use crate::clock;
use crate::config::file;
use crate::error::Reason;
use crate::shared::backend::{LoadReport, Mark};
use crate::shared::command::Published;
use crate::shared::open::OpenCount;
use crate::shared::stats::WorkerStats;
use crate::tls::Loaded;

const SECOND_US: u64 = 1_000_000;

/// Two workers and what control keeps of them.
struct Bench {
    registry: Registry,
    published: Published,
    workers: Vec<Arc<WorkerStats>>,
    history: History,
    now_us: u64,
}

impl Bench {
    fn new(backends: &str) -> Bench {
        let mut registry = Registry::new(2);
        let published = publish(&mut registry, backends);
        let workers = vec![Arc::default(), Arc::default()];
        let mut bench = Bench { registry, published, workers, history: History::default(), now_us: SECOND_US };
        bench.history.look(bench.now_us, &bench.workers, &bench.published);
        bench
    }

    fn reload(&mut self, backends: &str) {
        self.published = publish(&mut self.registry, backends);
    }

    /// Lets seconds go by with a look at the end of each.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now_us += SECOND_US;
            self.history.look(self.now_us, &self.workers, &self.published);
        }
    }

    /// `count` requests of so many microseconds over both workers and the backend at `at` of the first upstream.
    fn serve(&self, count: usize, us: u64, at: usize) {
        for n in 0..count {
            let (worker, backend) = (&self.workers[n % 2], &self.published.upstreams[0].stats[at][n % 2]);
            worker.requests.inc();
            worker.latency().record(us);
            worker.statuses.count(200);
            backend.requests.inc();
            backend.statuses.count(200);
            backend.latency().first_byte.record(us / 2);
            backend.latency().total.record(us);
        }
    }

    fn with<R>(&self, make: impl FnOnce(&Sources<'_>) -> R) -> R {
        make(&Sources {
            published: &self.published,
            workers: &self.workers,
            history: &self.history,
            machine: &Machine { cpus: 2.0, cpu_usage: 12.5, load_avg: [0.5, 0.25, 0.125], ..Machine::default() },
            connections_max: 1000,
            descriptors_max: 3072,
            log_lines_lost: 0,
            now_ms: self.now_us / 1000,
            unix_ms: 1_700_000_000_000,
            began_unix_ms: 1_699_999_000_000,
        })
    }
}

fn publish(registry: &mut Registry, backends: &str) -> Published {
    let text = format!("backends: {{\"u\": [{backends}]}}\nrouting: {{r: {{path: /, upstream: u}}}}\n");
    let plan = file::read(&text, "test.yaml", |_| None).unwrap_or_else(|faults| panic!("{faults:?}"));
    let published = registry.apply(&Arc::new(plan), &Loaded::default(), 0);
    registry.retire(0);
    published
}

const A: &str = "{id: a, host: 127.0.0.1, port: 81, weight: 3, max_conn: 9}";
const B: &str = "{id: b, host: 127.0.0.1, port: 82}";

/// Whoever counts its changes counts starts.
#[test]
fn when_the_process_began_is_the_same_at_every_look() {
    let bench = Bench::new(A);
    let open = Arc::new(OpenCount::new(10, 10));
    let watch = Watch::new(Arc::new(bench.published), bench.workers, open, Tables::Shared);
    let began = || {
        let page = watch.with(|sources| metrics::page(sources, Format::Text));
        page.lines().find(|line| line.starts_with("process_start_time_seconds ")).map(str::to_owned)
    };
    let first = began();
    assert!(first.is_some());
    // The two clocks change their milliseconds at different moments: some look falls in between.
    let until_ms = clock::now_ms() + 20;
    while clock::now_ms() < until_ms {
        assert_eq!(began(), first);
    }
}

#[test]
fn the_last_ten_seconds_are_ten_seconds() {
    let mut bench = Bench::new(A);
    bench.serve(100, 1_000, 0);
    bench.pass(1);
    assert_eq!(bench.history.requests(), Rate { last_1s: 100.0, last_10s: 100.0 });
    bench.pass(4);
    bench.serve(20, 64_000, 0);
    bench.pass(1);
    assert_eq!(bench.history.requests(), Rate { last_1s: 20.0, last_10s: 20.0 });
    let latency = bench.history.latency();
    assert_eq!((latency.last_10s.count(), latency.since_start.count()), (120, 120));
    bench.pass(5);
    let latency = bench.history.latency();
    assert_eq!((latency.last_10s.count(), latency.since_start.count()), (20, 120), "the first ones are older now");
    assert_eq!(bench.history.requests(), Rate { last_1s: 0.0, last_10s: 2.0 });
    assert_eq!((latency.last_10s.max_us(), latency.since_start.max_us()), (64_000, 64_000));
    bench.pass(5);
    assert_eq!(bench.history.latency().last_10s.quantile_us(0.5), None);
    assert_eq!(bench.history.requests(), Rate::default());
}

#[test]
fn a_backend_keeps_its_past_through_a_reload_and_a_new_one_has_none() {
    let mut bench = Bench::new(&format!("{A}, {B}"));
    bench.serve(40, 2_000, 1);
    bench.pass(1);
    // The other way round, and a has moved to another port: that is another backend.
    bench.reload(&format!("{B}, {}", A.replace("81", "83")));
    bench.serve(10, 2_000, 0);
    bench.pass(1);
    let figures = |id| bench.with(|sources| figures::backend(sources, "u", id)).expect("of the plan");
    let (a, b) = (figures("a"), figures("b"));
    assert_eq!((b.requests.total, b.latency.since_start.count, b.requests.per_second), (50, 50, 10.0));
    assert_eq!((a.requests.total, a.latency.since_start, a.requests.per_second), (0, Quantiles::default(), 0.0));
    assert!(bench.with(|sources| figures::backend(sources, "u", "c")).is_none());
    assert!(bench.with(|sources| figures::backend(sources, "v", "a")).is_none());
}

#[test]
fn figures_have_the_shape_of_the_contract() {
    let mut bench = Bench::new(&format!("{A}, {B}"));
    bench.serve(1000, 10_000, 0);
    bench.workers[1].connections_active.add(7);
    bench.workers[0].reasons.count(Reason::NoRoute);
    bench.pass(1);
    let server = serde_json::to_value(bench.with(figures::server)).expect("JSON");
    for key in ["cpu_usage", "memory_usage", "disk_usage", "network_in", "network_out", "load_avg_15", "timestamp"] {
        assert!(server[key].is_number(), "{key}: {server:#}");
    }
    assert_eq!((server["cpu_usage"].as_f64(), server["timestamp"].as_u64()), (Some(12.5), Some(1_700_000_000_000)));
    let proxy = &server["proxy"];
    assert_eq!(proxy["connections"]["active"], 7);
    assert_eq!(proxy["connections"]["max"], 1000);
    assert_eq!(proxy["requests"]["per_second"], 1000.0);
    assert_eq!(proxy["responses"]["2xx"], 1000);
    assert_eq!(proxy["reasons"], serde_json::json!({"no_route": 1}));
    assert_eq!(proxy["workers"][1]["requests"], 500);
    let p99 = proxy["latency"]["last_10s"]["p99_ms"].as_f64().expect("a number");
    assert!((p99 - 10.0).abs() < 0.625, "{p99}");
    let idle = serde_json::to_value(bench.with(|s| figures::backend(s, "u", "b"))).expect("JSON");
    assert_eq!((&idle["state"], &idle["healthy"]), (&"active".into(), &true.into()));
    assert!(idle["latency"]["last_10s"]["p50_ms"].is_null() && idle["last_report"].is_null(), "{idle:#}");
    assert_eq!(bench.with(|sources| figures::backends(sources, None)).len(), 2);
    assert_eq!(bench.with(|sources| figures::backends(sources, Some("v"))).len(), 0);
}

#[test]
fn the_state_of_a_backend_is_told_by_what_matters_most() {
    let bench = Bench::new(A);
    let state = &bench.published.upstreams[0].backends[0];
    assert_eq!(State::of(state, 0), State::Active);
    for n in 0..5 {
        state.record_failure(n);
    }
    // Alone in its upstream it is never ejected: half of one, rounded down, is none.
    assert_eq!(State::of(state, 5), State::Active);
    state.set_mark(Mark::CheckDown, true, 0);
    assert_eq!(State::of(state, 0), State::Down);
    state.try_acquire().expect("a slot");
    state.set_mark(Mark::Disconnected, true, 0);
    assert_eq!(State::of(state, 0), State::Draining);
    state.release();
    assert_eq!(State::of(state, 0), State::Disconnected);
    let pair = Bench::new(&format!("{A}, {B}"));
    let state = &pair.published.upstreams[0].backends[1];
    let until_ms = (0..5).filter_map(|n| state.record_failure(n)).next().expect("ejected");
    assert_eq!((State::of(state, 10), State::of(state, until_ms)), (State::Ejected, State::Active));
}

#[test]
fn the_last_report_is_told_in_time_of_day() {
    let mut bench = Bench::new(A);
    bench.pass(9);
    bench.published.upstreams[0].backends[0].update_load(|_| LoadReport { utilisation: 0.5, at_ms: 4_000 });
    let figures = bench.with(|sources| figures::backend(sources, "u", "a")).expect("of the plan");
    assert_eq!(figures.last_report, Some(1_700_000_000_000 - 6_000));
    let performance = figures.performance.expect("reported");
    assert_eq!((performance.utilisation, performance.headroom), (0.5, 0.5));
}

// Metrics.

/// A page as a strict reader has it: families in order, each sample under its own.
#[derive(Debug, Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    /// By name and labels.
    samples: HashMap<(String, Labels), f64>,
}

type Labels = Vec<(String, String)>;

impl Parsed {
    /// Takes a page apart and holds it against what both formats ask for.
    fn read(page: &str, format: Format) -> Parsed {
        assert!(page.ends_with('\n'), "the last line has no end");
        let mut parsed = Parsed::default();
        let mut family: Option<(String, String)> = None;
        let mut lines: Vec<&str> = page.lines().collect();
        if format == Format::OpenMetrics {
            assert_eq!(lines.pop(), Some("# EOF"));
        }
        let mut lines = lines.into_iter();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help text");
                assert!(text.ends_with('.') && !text.contains('\\'), "{line}");
                let kind =
                    lines.next().and_then(|next| next.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
                let kind = kind.unwrap_or_else(|| panic!("no type behind {line}"));
                assert!(parsed.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
                family = Some((name.to_owned(), kind.to_owned()));
                continue;
            }
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            let (name, labels, value) = sample(line);
            let (of, kind) = family.as_ref().unwrap_or_else(|| panic!("no family for {line}"));
            let suffix = name.strip_prefix(of.as_str()).unwrap_or_else(|| panic!("{name} under {of}"));
            let suffixes: &[&str] = match (kind.as_str(), format) {
                ("counter", Format::OpenMetrics) => &["_total"],
                ("counter", Format::Text) => &[""],
                ("gauge", _) => &[""],
                ("histogram", _) => &["_bucket", "_sum", "_count"],
                _ => panic!("{kind} of {of}"),
            };
            assert!(suffixes.contains(&suffix), "{line} in a {kind}");
            if kind == "counter" {
                assert!(name.ends_with("_total") && value >= 0.0, "{line}");
            } else {
                assert!(!name.ends_with("_total"), "{line}");
            }
            assert!(value.is_finite(), "{line}");
            assert!(parsed.samples.insert((name, labels), value).is_none(), "twice: {line}");
        }
        parsed.check_histograms();
        parsed
    }

    /// Buckets go up and end with all; sum and count are there.
    fn check_histograms(&self) {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut series: HashMap<Labels, Vec<(f64, f64)>> = HashMap::new();
            for ((_, labels), count) in self.samples.iter().filter(|((n, _), _)| *n == format!("{name}_bucket")) {
                let mut labels = labels.clone();
                let (label, end) = labels.pop().expect("an end");
                assert_eq!(label, "le");
                let end = if end == "+Inf" { f64::INFINITY } else { end.parse().expect("a number") };
                series.entry(labels).or_default().push((end, *count));
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}{labels:?}: {buckets:?}");
                let last = buckets.last().expect("a bucket");
                assert_eq!((last.0, last.1), (f64::INFINITY, self.samples[&(format!("{name}_count"), labels.clone())]));
                assert!(self.samples.contains_key(&(format!("{name}_sum"), labels)));
            }
        }
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Labels = labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let found = self.samples.get(&(name.to_owned(), labels.clone()));
        *found.unwrap_or_else(|| panic!("no {name}{labels:?}"))
    }
}

/// `name{label="value",…} number`, by the letter.
fn sample(line: &str) -> (String, Labels, f64) {
    let is_name = |name: &str, colon: bool| {
        let mut chars = name.chars();
        let first = |c: char| c.is_ascii_alphabetic() || c == '_' || colon && c == ':';
        chars.next().is_some_and(first) && chars.all(|c| first(c) || c.is_ascii_digit())
    };
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name, true), "{line}");
    let (mut labels, mut names) = (Labels::new(), HashSet::new());
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label, false) && names.insert(label), "{line}");
            let (mut value, mut chars) = (String::new(), behind.char_indices());
            let end = loop {
                match chars.next().unwrap_or_else(|| panic!("{line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next() {
                        Some((_, 'n')) => '\n',
                        Some((_, c @ ('"' | '\\'))) => c,
                        other => panic!("{other:?} escaped in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &behind[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
    }
    let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(!number.contains(' '), "{line}");
    (name.to_owned(), labels, number.parse().unwrap_or_else(|_| panic!("{line}")))
}

#[test]
fn metrics_are_read_by_a_strict_reader() {
    let mut bench = Bench::new(&format!("{A}, {B}"));
    bench.serve(10, 300, 0);
    bench.serve(5, 40_000, 0);
    bench.serve(1, 9_000_000, 1);
    bench.workers[0].reasons.count(Reason::QueueFull);
    bench.pass(1);
    for format in [Format::Text, Format::OpenMetrics] {
        let parsed = Parsed::read(&bench.with(|sources| metrics::page(sources, format)), format);
        assert_eq!(parsed.get("speedmimi_requests_total", &[("worker", "0")]), 9.0, "5 + 3 + 1");
        assert_eq!(parsed.get("process_max_fds", &[]), 3072.0);
        assert_eq!(parsed.get("speedmimi_responses_total", &[("class", "2xx")]), 16.0);
        assert_eq!(parsed.get("speedmimi_proxy_answers_total", &[("reason", "queue_full")]), 1.0);
        assert_eq!(parsed.get("speedmimi_proxy_answers_total", &[("reason", "no_route")]), 0.0);
        let duration = "speedmimi_request_duration_seconds";
        let below = |end| parsed.get(&format!("{duration}_bucket"), &[("le", end)]);
        assert_eq!(
            (below("0.000512"), below("0.032768"), below("0.065536"), below("8.388608")),
            (10.0, 10.0, 15.0, 15.0)
        );
        assert_eq!(parsed.get(&format!("{duration}_count"), &[]), 16.0);
        assert!((parsed.get(&format!("{duration}_sum"), &[]) - 9.203).abs() < 1e-9);
        let b = [("upstream", "u"), ("backend", "b")];
        assert_eq!(parsed.get("speedmimi_backend_requests_total", &b), 1.0);
        assert_eq!(parsed.get("speedmimi_backend_duration_seconds_count", &b), 1.0);
        assert_eq!(parsed.get("speedmimi_backend_state", &[b[0], b[1], ("state", "active")]), 1.0);
        assert_eq!(parsed.get("speedmimi_backend_state", &[b[0], b[1], ("state", "down")]), 0.0);
        let kind = if format == Format::Text { "speedmimi_requests_total" } else { "speedmimi_requests" };
        assert_eq!(parsed.kinds[kind], "counter");
    }
}

#[test]
fn a_name_cannot_break_a_line_of_metrics() {
    let bench = Bench::new(r#"{id: "a\"}1,x={\\", host: 127.0.0.1, port: 81}"#);
    let parsed = Parsed::read(&bench.with(|sources| metrics::page(sources, Format::Text)), Format::Text);
    let labels = [("upstream", "u"), ("backend", "a\"}1,x={\\")];
    assert_eq!(parsed.get("speedmimi_backend_weight", &labels), 100.0);
}

#[test]
fn the_format_goes_by_what_is_accepted() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for (accept, format) in [
        (prometheus, Format::OpenMetrics),
        ("", Format::Text),
        ("*/*", Format::Text),
        ("text/plain, application/openmetrics-text;q=0.9", Format::Text),
        ("Application/OpenMetrics-Text", Format::OpenMetrics),
        ("application/openmetrics-text;q=0", Format::Text),
        ("application/openmetrics-text; q=x", Format::Text),
        (";;,,;q=,", Format::Text),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
}
