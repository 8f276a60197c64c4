//! The figures for Prometheus: its text format 0.0.4, and OpenMetrics 1.0 for who asks for it.
//!
//! Owns names, types, units and labels of the metrics. Names are in base units, labels are of what the plan and the
//! program name (worker, upstream, backend, reason, class, state, use, file), never of what a client sent. Never samples:
//! histograms are as of the last look, counters of now.

use std::fmt::Write as _;

use super::figures::{self, BackendFigures, CLASSES, ServerFigures, Sources, State};
use crate::error::Reason;
use crate::shared::command::WorkersStats;
use crate::shared::histogram::Snapshot;
use crate::shared::stats::{BackendTotals, Totals, WorkerStats};
use crate::tls::Loaded;

/// Upper ends of the buckets of the proxy's own histogram, in microseconds: powers of two from half a millisecond to
/// eight seconds, where the buckets counted in begin too, so that nothing is interpolated.
const PROXY_ENDS_US: [u64; 15] = ends(9, 1);
/// Certificates that are told of: those that expire first.
const CERTIFICATES_COUNT_MAX: usize = 1000;
/// The same for each backend, where every bucket is a series as often as there are backends.
const BACKEND_ENDS_US: [u64; 8] = ends(9, 2);

/// `N` powers of two from 2^`first` on, each 2^`step` of the one before.
const fn ends<const N: usize>(first: u32, step: u32) -> [u64; N] {
    let mut ends = [0; N];
    let mut at = 0;
    while at < N {
        ends[at] = 1 << (first + step * at as u32);
        at += 1;
    }
    ends
}

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, 0.0.4.
    Text,
    /// OpenMetrics, 1.0.0.
    OpenMetrics,
}

impl Format {
    /// What a request with this `Accept` field gets: OpenMetrics where it is wanted at least as much as plain text.
    pub fn accepted(accept: &str) -> Format {
        let quality = |kind: &str| {
            let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
            let matching = ranges.filter_map(|mut parts| {
                parts.next().filter(|name| name.eq_ignore_ascii_case(kind))?;
                let q = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
                Some(q.map_or(1.0, |q| q.parse::<f64>().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0)))
            });
            matching.fold(0.0, f64::max)
        };
        let open = quality("application/openmetrics-text");
        if open > 0.0 && open >= quality("text/plain") { Format::OpenMetrics } else { Format::Text }
    }

    /// The `Content-Type` of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics.
pub fn page(sources: &Sources<'_>, format: Format) -> String {
    let mut page = Page { out: String::with_capacity(32 * 1024), format, family: "", suffix: "" };
    let server = figures::server(sources);
    process(&mut page, sources, &server);
    machine(&mut page, &server);
    let totals = Totals::sum(sources.workers);
    clients(&mut page, sources, &server);
    exchanges(&mut page, sources, &totals);
    upstreams(&mut page, sources);
    backends(&mut page, sources);
    page.finish()
}

/// Certificates, for the end of a page in either format.
pub fn certificates(loaded: &Loaded) -> String {
    let mut page = Page { out: String::new(), format: Format::Text, family: "", suffix: "" };
    page.gauge("speedmimi_certificate_file_troubles", "Files of TLS that are of no use as they are now.");
    page.sample(&[], loaded.troubles.len());
    let mut all = loaded.certificates();
    all.sort_by_key(|certificate| certificate.validity.not_after);
    page.gauge("speedmimi_certificate_expiry_timestamp_seconds", "When a certificate expires, since 1970.");
    for certificate in all.iter().take(CERTIFICATES_COUNT_MAX) {
        let file = certificate.files.cert_file.display().to_string();
        page.sample(&[("file", &file)], certificate.validity.not_after);
    }
    page.out
}

fn process(page: &mut Page, sources: &Sources<'_>, server: &ServerFigures) {
    let process = &server.process;
    page.gauge("speedmimi_build_info", "The version that runs; always 1.");
    page.sample(&[("version", server.proxy.version)], 1);
    page.counter("process_cpu_seconds", "CPU time of the process.");
    page.sample(&[], process.cpu_seconds);
    page.gauge("process_start_time_seconds", "When the process started, since 1970.");
    page.sample(&[], sources.began_unix_ms as f64 / 1e3);
    page.gauge("process_resident_memory_bytes", "Resident memory of the process.");
    page.sample(&[], process.rss_bytes);
    page.gauge("process_anonymous_memory_bytes", "Resident memory without a file behind it.");
    page.sample(&[], process.rss_anon_bytes);
    page.gauge("process_open_fds", "Descriptors open in all tables of the process.");
    page.sample(&[], process.open_descriptors);
    page.gauge("process_max_fds", "Descriptors that all tables of the process may hold.");
    page.sample(&[], sources.descriptors_max);
    page.gauge("process_threads", "Threads of the process.");
    page.sample(&[], process.threads);
}

fn machine(page: &mut Page, server: &ServerFigures) {
    page.gauge("speedmimi_machine_cpus", "CPUs that may be used within the container's limits.");
    page.sample(&[], server.machine.cpus);
    page.gauge("speedmimi_machine_cpu_usage_ratio", "Use of those CPUs by everybody within the limits.");
    page.sample(&[], server.cpu_usage / 100.0);
    page.gauge("speedmimi_machine_memory_used_bytes", "Memory in use within the container's limits.");
    page.sample(&[], server.machine.memory_used_bytes);
    page.gauge("speedmimi_machine_memory_limit_bytes", "Memory that may be used within the container's limits.");
    page.sample(&[], server.machine.memory_limit_bytes);
    page.gauge("speedmimi_machine_disk_usage_ratio", "Use of the root file system.");
    page.sample(&[], server.disk_usage / 100.0);
    page.gauge("speedmimi_machine_load_average", "Load average of the machine.");
    for (minutes, load) in [("1", server.load_avg_1), ("5", server.load_avg_5), ("15", server.load_avg_15)] {
        page.sample(&[("minutes", minutes)], load);
    }
    page.gauge("speedmimi_machine_network_bytes_per_second", "Traffic of the network, without the loopback.");
    for (direction, kb) in [("in", server.network_in), ("out", server.network_out)] {
        page.sample(&[("direction", direction)], kb * 1024.0);
    }
}

fn clients(page: &mut Page, sources: &Sources<'_>, server: &ServerFigures) {
    type Read = fn(&WorkerStats) -> u64;
    let counters: [(&str, &str, Read); 3] = [
        ("speedmimi_connections_accepted", "Client connections accepted.", |w| w.connections_accepted.get()),
        ("speedmimi_requests", "Requests whose head was read.", |w| w.requests.get()),
        ("speedmimi_tunnels", "Tunnels opened.", |w| w.tunnels.get()),
    ];
    let gauges: [(&str, &str, Read); 6] = [
        ("speedmimi_connections_active", "Client connections open, parked ones and tunnels included.", |w| {
            w.connections_active.get()
        }),
        ("speedmimi_connections_parked", "Client connections parked.", |w| w.connections_parked.get()),
        ("speedmimi_connections_shelved", "Client connections parked without a descriptor.", |w| {
            w.connections_shelved.get()
        }),
        ("speedmimi_tunnels_active", "Tunnels open.", |w| w.tunnels_active.get()),
        ("speedmimi_event_streams_active", "Event streams under way.", |w| w.event_streams_active.get()),
        ("speedmimi_requests_in_flight", "Requests under way, queued ones included.", |w| w.exchanges_active.get()),
    ];
    let names: Vec<String> = (0..sources.workers.len()).map(|worker| worker.to_string()).collect();
    let each = |page: &mut Page, read: Read| {
        for (name, worker) in names.iter().zip(sources.workers) {
            page.sample(&[("worker", name)], read(worker));
        }
    };
    for (name, help, read) in counters {
        page.counter(name, help);
        each(page, read);
    }
    for (name, help, read) in gauges {
        page.gauge(name, help);
        each(page, read);
    }
    page.gauge("speedmimi_connections_limit", "Client connections that may be open.");
    page.sample(&[], server.proxy.connections.max);
    page.gauge("speedmimi_memory_bytes", "Memory that the proxy itself asked for, by use.");
    let memory = server.proxy.memory;
    for (used_for, bytes) in [
        ("buffers", memory.buffers),
        ("exchanges", memory.exchanges),
        ("connections", memory.connections),
        ("parked", memory.parked),
        ("tunnels", memory.tunnels),
        ("queues", memory.queues),
        ("tls", memory.tls),
    ] {
        page.sample(&[("use", used_for)], bytes);
    }
}

fn exchanges(page: &mut Page, sources: &Sources<'_>, totals: &Totals) {
    page.counter("speedmimi_tls_handshakes", "TLS handshakes with clients, by how they ended.");
    for (outcome, count) in
        [("full", totals.handshakes_full), ("resumed", totals.handshakes_resumed), ("failed", totals.handshakes_failed)]
    {
        page.sample(&[("outcome", outcome)], count);
    }
    page.gauge("speedmimi_tls_sessions", "TLS sessions with clients, parked ones included.");
    page.sample(&[], totals.tls_sessions);
    let lost = totals.log_lines_dropped + sources.log_lines_lost;
    page.counter("speedmimi_responses", "Answers sent to clients by class of status.");
    for (class, count) in CLASSES.into_iter().zip(totals.statuses.0) {
        page.sample(&[("class", class)], count);
    }
    page.counter("speedmimi_proxy_answers", "Exchanges that the proxy answered or ended itself.");
    for &reason in Reason::ALL {
        page.sample(&[("reason", reason.code())], totals.reasons.of(reason));
    }
    for (name, help, count) in [
        ("speedmimi_client_received_bytes", "Bytes from clients.", totals.client_bytes_in),
        ("speedmimi_client_sent_bytes", "Bytes to clients.", totals.client_bytes_out),
        ("speedmimi_retries", "Tries after the first, without those after a stale connection.", totals.retries),
        ("speedmimi_queue_waits", "Requests that had to wait in a queue.", totals.queue_waits),
        ("speedmimi_access_log_lines", "Lines handed to the access log.", totals.log_lines_written),
        ("speedmimi_access_log_lost_lines", "Lines lost: the writer had fallen behind, or could not write.", lost),
    ] {
        page.counter(name, help);
        page.sample(&[], count);
    }
    let help = "From a request's head to its answer's end, without tunnels and event streams.";
    page.histogram("speedmimi_request_duration_seconds", help);
    page.buckets(&[], &sources.history.latency().since_start, &PROXY_ENDS_US);
}

fn upstreams(page: &mut Page, sources: &Sources<'_>) {
    page.gauge("speedmimi_upstream_queue_waiting", "Requests that wait for any backend of the upstream.");
    for upstream in &sources.published.upstreams {
        page.sample(&[("upstream", &upstream.conf.name)], upstream.state.waiting());
    }
    page.gauge("speedmimi_upstream_queue_limit", "Requests that may wait.");
    for upstream in &sources.published.upstreams {
        page.sample(&[("upstream", &upstream.conf.name)], upstream.conf.queue.size);
    }
}

/// One backend with what its metrics come from.
struct Row<'a> {
    labels: [(&'static str, &'a str); 2],
    figures: &'a BackendFigures,
    totals: BackendTotals,
    stats: &'a WorkersStats,
}

impl<'a> Row<'a> {
    fn new(figures: &'a BackendFigures, stats: &'a WorkersStats) -> Self {
        let labels = [("upstream", figures.upstream.as_str()), ("backend", figures.backend_id.as_str())];
        Row { labels, figures, totals: BackendTotals::sum(stats), stats }
    }
}

fn backends(page: &mut Page, sources: &Sources<'_>) {
    let all = figures::backends(sources, None);
    let stats = sources.published.upstreams.iter().flat_map(|upstream| &upstream.stats);
    let row = |(figures, stats)| Row::new(figures, stats);
    let rows: Vec<Row<'_>> = all.iter().zip(stats).map(row).collect();
    backend_counters(page, &rows);
    backend_gauges(page, &rows);
    let help = "From the try's begin to the answer's head.";
    page.histogram("speedmimi_backend_first_byte_seconds", help);
    for row in &rows {
        let latencies = sources.history.backend_first_byte(row.stats);
        page.buckets(&row.labels, &latencies.since_start, &BACKEND_ENDS_US);
    }
    let help = "From the try's begin to the answer's end, without tunnels and event streams.";
    page.histogram("speedmimi_backend_duration_seconds", help);
    for row in &rows {
        page.buckets(&row.labels, &sources.history.backend_latency(row.stats).since_start, &BACKEND_ENDS_US);
    }
}

fn backend_counters(page: &mut Page, rows: &[Row<'_>]) {
    type Read = fn(&Row<'_>) -> u64;
    let counters: [(&str, &str, Read); 8] = [
        ("speedmimi_backend_requests", "Tries, retries and tunnels included.", |r| r.totals.requests),
        ("speedmimi_backend_retries", "Tries after another one had failed.", |r| r.totals.retries),
        ("speedmimi_backend_failures", "Tries that failed by the backend's fault.", |r| r.totals.failures),
        ("speedmimi_backend_ejections", "Ejections after failures in a row.", |r| r.figures.ejections),
        ("speedmimi_backend_connects", "Connections made.", |r| r.totals.connects),
        ("speedmimi_backend_connect_failures", "Connections that could not be made.", |r| r.totals.connect_failures),
        ("speedmimi_backend_received_bytes", "Bytes from the backend.", |r| r.totals.bytes_in),
        ("speedmimi_backend_sent_bytes", "Bytes to the backend.", |r| r.totals.bytes_out),
    ];
    for (name, help, read) in counters {
        page.counter(name, help);
        rows.iter().for_each(|row| page.sample(&row.labels, read(row)));
    }
    page.counter("speedmimi_backend_responses", "Answers of the backend by class of status.");
    for row in rows {
        for (class, count) in CLASSES.into_iter().zip(row.totals.statuses.0) {
            page.sample(&[row.labels[0], row.labels[1], ("class", class)], count);
        }
    }
}

fn backend_gauges(page: &mut Page, rows: &[Row<'_>]) {
    type Read = fn(&Row<'_>) -> Option<f64>;
    let gauges: [(&str, &str, Read); 6] = [
        ("speedmimi_backend_in_flight", "Exchanges and tunnels under way.", |r| Some(r.figures.in_flight.into())),
        ("speedmimi_backend_in_flight_limit", "How many may be under way; 0 = no limit.", |r| {
            Some(r.figures.max_conn.into())
        }),
        ("speedmimi_backend_weight", "Its weight.", |r| Some(r.figures.weight.into())),
        ("speedmimi_backend_ramp_ratio", "The part of its weight that counts while it comes back.", |r| {
            Some(r.figures.ramp)
        }),
        ("speedmimi_backend_utilisation_ratio", "What its reports come to, smoothed.", |r| {
            r.figures.performance.map(|performance| performance.utilisation)
        }),
        ("speedmimi_backend_last_report_timestamp_seconds", "When it reported last, since 1970.", |r| {
            r.figures.last_report.map(|ms| ms as f64 / 1e3)
        }),
    ];
    for (name, help, read) in gauges {
        page.gauge(name, help);
        for row in rows {
            read(row).into_iter().for_each(|value| page.sample(&row.labels, value));
        }
    }
    page.gauge("speedmimi_backend_state", "1 for the state that the backend is in, 0 for the others.");
    for row in rows {
        for state in State::ALL {
            let labels = [row.labels[0], row.labels[1], ("state", state.name())];
            page.sample(&labels, u8::from(row.figures.state == state));
        }
    }
}

/// The text under way.
struct Page {
    out: String,
    format: Format,
    /// The name of the family under way.
    family: &'static str,
    /// What stands behind it in each sample.
    suffix: &'static str,
}

impl Page {
    /// Begins a family of counters; `name` is without `_total`.
    fn counter(&mut self, name: &'static str, help: &str) {
        self.begin(name, "_total", "counter", help);
    }

    fn gauge(&mut self, name: &'static str, help: &str) {
        self.begin(name, "", "gauge", help);
    }

    fn histogram(&mut self, name: &'static str, help: &str) {
        self.begin(name, "", "histogram", help);
    }

    fn begin(&mut self, name: &'static str, suffix: &'static str, kind: &str, help: &str) {
        (self.family, self.suffix) = (name, suffix);
        // OpenMetrics names the family, the older format what stands in front of the samples.
        let told = if self.format == Format::Text { suffix } else { "" };
        let _ = writeln!(self.out, "# HELP {name}{told} {help}\n# TYPE {name}{told} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.line(self.suffix, labels, value);
    }

    /// A whole histogram: each bucket with all below it, sum and count.
    fn buckets(&mut self, labels: &[(&str, &str)], snapshot: &Snapshot, ends_us: &[u64]) {
        let bucket = |page: &mut Page, end: &str, count: u64| {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", end)]).collect();
            page.line("_bucket", &labels, count);
        };
        for &end_us in ends_us {
            bucket(self, &(end_us as f64 / 1e6).to_string(), snapshot.count_below(end_us));
        }
        bucket(self, "+Inf", snapshot.count());
        self.line("_sum", labels, snapshot.sum_us() as f64 / 1e6);
        self.line("_count", labels, snapshot.count());
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.out.push_str(self.family);
        self.out.push_str(suffix);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.out.push(if at == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(&mut self.out, value);
            self.out.push('"');
        }
        self.out.push_str(if labels.is_empty() { " " } else { "} " });
        let _ = writeln!(self.out, "{value}");
    }

    fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// A label's value, the same in both formats.
fn escape(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
