//! The picture: a view drawn into cells. The same view, size and moment make the same picture.
//!
//! Owns the layout. Never waits, and needs no terminal. What a server sends is drawn cell by cell, so that no byte of it
//! reaches the terminal as a command.

use std::time::Instant;

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, RenderDirection, Row as Cells, Sparkline, Table, Widget};

use super::figures::{Backend, Expiry, Figures, Latency, Proxy, Quantiles, Server, Tls};
use super::history::{CLASSES, History};
use super::rows::{Member, Order, Row, Upstream, rows};
use super::say;
use super::view::{Known, Page, View};

/// Columns of the names at the left.
const LABEL_COLUMNS: u16 = 13;
/// The table has to have so many rows before anything optional is drawn above it.
const TABLE_ROWS_MIN: u16 = 5;
/// Columns of the panel at the right.
const SIDE_COLUMNS: u16 = 40;
/// From this size on there is one.
const SIDE_FROM: (u16, u16) = (120, 30);
/// From so many columns on the table tells more of each backend.
const WIDE_TABLE_COLUMNS: u16 = 110;

/// How things stand out. Colour only adds to what words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ink {
    /// False with `NO_COLOR`: bold, dim and reverse only.
    pub is_coloured: bool,
}

impl Ink {
    /// As the environment variable `NO_COLOR` says: set and not empty, no colour.
    pub fn from_environment() -> Ink {
        Ink { is_coloured: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn loud(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::REVERSED)
    }

    fn coloured(self, color: Color) -> Style {
        if self.is_coloured { Style::new().fg(color) } else { Style::new() }
    }

    fn state(self, state: &str) -> Style {
        match state {
            "active" => self.coloured(Color::Green),
            "down" | "ejected" => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
            _ => self.coloured(Color::Yellow),
        }
    }

    /// Something that should be zero.
    fn fault(self, count: u64) -> Style {
        if count > 0 { self.coloured(Color::Red).add_modifier(Modifier::BOLD) } else { Style::new() }
    }
}

/// Draws `view` as it is at `now` over the whole of `area`; tells how much of the table was drawn.
pub fn draw(view: &View, ink: Ink, now: Instant, area: Rect, buf: &mut Buffer) -> Page {
    let mut rest = Strips(area);
    let foot = rest.bottom();
    let page = match view.shown() {
        Some(known) => Picture { view, known, ink, is_live: true }.draw(&mut rest, buf),
        None => {
            let text = format!("Waiting for figures from {}", view.target());
            Paragraph::new(text).render(rest.top(1), buf);
            Page::default()
        }
    };
    draw_foot(view, page, ink, now, foot, buf);
    if view.has_help() {
        draw_help(view, ink, area, buf);
    }
    page
}

/// Rows that are still free; what is not there has no height.
struct Strips(Rect);

impl Strips {
    fn top(&mut self, height: u16) -> Rect {
        let height = height.min(self.0.height);
        let strip = Rect { height, ..self.0 };
        self.0.y += height;
        self.0.height -= height;
        strip
    }

    fn bottom(&mut self) -> Rect {
        let height = self.0.height.min(1);
        self.0.height -= height;
        Rect { y: self.0.bottom(), height, ..self.0 }
    }
}

struct Picture<'v> {
    view: &'v View,
    known: &'v Known,
    ink: Ink,
    /// Figures come one after the other.
    is_live: bool,
}

/// What stands above the table, besides the title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Requests,
    Sparkline,
    Answers,
    Connections,
    Tls,
    Cpu,
    Memory,
    Workers,
    Reasons,
    Gap,
}

impl Section {
    /// In the order in which they are given up last.
    const BY_WEIGHT: [Section; 10] = [
        Section::Requests,
        Section::Answers,
        Section::Connections,
        Section::Tls,
        Section::Cpu,
        Section::Reasons,
        Section::Memory,
        Section::Sparkline,
        Section::Workers,
        Section::Gap,
    ];

    /// In the order in which they stand.
    const BY_PLACE: [Section; 10] = [
        Section::Requests,
        Section::Sparkline,
        Section::Answers,
        Section::Connections,
        Section::Tls,
        Section::Cpu,
        Section::Memory,
        Section::Workers,
        Section::Reasons,
        Section::Gap,
    ];

    fn rows(self, has_side: bool, height: u16) -> u16 {
        match self {
            Section::Sparkline => 2 + height.saturating_sub(24) / 4,
            Section::Answers => 3,
            Section::Workers | Section::Reasons if has_side => 0,
            _ => 1,
        }
    }
}

impl<'v> Picture<'v> {
    fn draw(&self, rest: &mut Strips, buf: &mut Buffer) -> Page {
        let has_side = rest.0.width >= SIDE_FROM.0 && rest.0.height >= SIDE_FROM.1;
        let height = rest.0.height;
        self.draw_title(rest.top(1), buf);
        let mut free = rest.0.height.saturating_sub(TABLE_ROWS_MIN);
        let mut chosen = Vec::new();
        for section in Section::BY_WEIGHT {
            let rows = section.rows(has_side, height).min(6);
            let is_wanted = match section {
                Section::Sparkline => self.is_live,
                Section::Tls => self.proxy().tls != Tls::default(),
                _ => true,
            };
            if is_wanted && (1..=free).contains(&rows) {
                free -= rows;
                chosen.push((section, rows));
            }
        }
        for section in Section::BY_PLACE {
            if let Some(&(_, rows)) = chosen.iter().find(|(other, _)| *other == section) {
                self.draw_section(section, rest.top(rows), buf);
            }
        }
        let mut table = rest.0;
        if has_side {
            table.width -= SIDE_COLUMNS;
            self.draw_side(Rect { x: table.right() + 2, width: SIDE_COLUMNS - 2, ..table }, buf);
        }
        self.draw_table(table, buf)
    }

    fn figures(&self) -> &'v Figures {
        &self.known.figures
    }

    fn server(&self) -> &'v Server {
        &self.known.figures.server
    }

    fn proxy(&self) -> &'v Proxy {
        &self.known.figures.server.proxy
    }

    fn history(&self) -> &'v History {
        &self.known.history
    }

    fn draw_title(&self, area: Rect, buf: &mut Buffer) {
        let (proxy, ink) = (self.proxy(), self.ink);
        let mut title = vec![
            Span::styled(format!("SpeedMimi {}", proxy.version), ink.strong()),
            Span::raw(format!("  {}  up {}  ", self.view.target(), say::span(proxy.uptime as u64))),
        ];
        title.push(if self.figures().ready {
            Span::styled("ready", ink.state("active"))
        } else {
            Span::styled("NOT READY", ink.state("down"))
        });
        if !self.figures().restart_required.is_empty() {
            title.extend([Span::raw("  "), Span::styled("RESTART NEEDED", ink.state("draining"))]);
        }
        if self.figures().file_refused.is_some() {
            title.extend([Span::raw("  "), Span::styled("FILE REFUSED", ink.state("down"))]);
        }
        let first = self.proxy().tls.expires_first.as_ref();
        match first.map(|first| first.state.as_str()) {
            Some("expired") => title.extend([Span::raw("  "), Span::styled("CERTIFICATE EXPIRED", ink.state("down"))]),
            Some("expires_soon") => {
                title.extend([Span::raw("  "), Span::styled("CERTIFICATE EXPIRES", ink.state("draining"))]);
            }
            _ => {}
        }
        if self.view.is_held() {
            title.extend([Span::raw("  "), Span::styled("HELD STILL", ink.strong().add_modifier(Modifier::REVERSED))]);
        }
        let clock = say::time_of_day(self.server().timestamp);
        draw_ends(Line::from(title), Line::styled(clock, ink.quiet()), area, buf);
    }

    fn draw_section(&self, section: Section, area: Rect, buf: &mut Buffer) {
        match section {
            Section::Requests => self.draw_facts("Requests", self.requests(area.width), area, buf),
            Section::Sparkline => self.draw_sparkline(area, buf),
            Section::Answers => self.draw_answers(area, buf),
            Section::Connections => self.draw_facts("Connections", self.connections(), area, buf),
            Section::Tls => self.draw_facts("TLS", self.tls(), area, buf),
            Section::Cpu => self.draw_facts("CPU", self.cpu(), area, buf),
            Section::Memory => self.draw_facts("Memory", self.memory(), area, buf),
            Section::Workers => self.draw_facts("Workers", self.workers(), area, buf),
            Section::Reasons => self.draw_facts("Own answers", self.reasons(), area, buf),
            Section::Gap => {}
        }
    }

    /// A name and as many facts as there is room for; each is what it is about, and the figure.
    fn draw_facts(&self, name: &str, facts: Vec<(String, String)>, area: Rect, buf: &mut Buffer) {
        let mut line = Line::from(Span::styled(format!("{name:<0$}", usize::from(LABEL_COLUMNS)), self.ink.strong()));
        let mut has_fact = false;
        for (about, figure) in facts {
            let apart = if has_fact { "  " } else { "" };
            let about = format!("{apart}{about}{}", if about.is_empty() || figure.is_empty() { "" } else { " " });
            let (about, figure) = (Span::styled(about, self.ink.quiet()), Span::raw(figure));
            if line.width() + about.width() + figure.width() > usize::from(area.width) {
                break;
            }
            line.extend([about, figure]);
            has_fact = true;
        }
        line.render(area, buf);
    }

    fn requests(&self, width: u16) -> Vec<(String, String)> {
        let (requests, queue) = (&self.proxy().requests, &self.proxy().queue);
        let seen = self.history().per_second(chart_columns(width));
        let highest = seen.into_iter().flatten().fold(0.0, f64::max);
        // Over the chart's time.
        vec![
            fact("", say::per_second(Some(requests.per_second))),
            fact("10 s", say::per_second(Some(requests.per_second_10s))),
            fact("highest", say::per_second(Some(highest))),
            fact("in flight", say::count(requests.in_flight)),
            fact("waiting", say::count(queue.waiting)),
            fact("retries", say::count(requests.retries)),
            fact("total", say::count(requests.total)),
        ]
    }

    fn draw_sparkline(&self, area: Rect, buf: &mut Buffer) {
        let columns = chart_columns(area.width);
        let seen = self.history().per_second(columns);
        let highest = seen.iter().flatten().fold(1.0, |highest: f64, &n| highest.max(n));
        // In thousandths of the highest: a bar's height is a whole number.
        let bars = seen.into_iter().map(|n| (n.unwrap_or(0.0) / highest * 1000.0).round() as u64);
        let width = columns as u16;
        let place = Rect { x: area.right() - width, width, ..area };
        let chart = Sparkline::default().data(bars.collect::<Vec<_>>()).max(1000);
        chart.direction(RenderDirection::RightToLeft).style(self.ink.coloured(Color::Cyan)).render(place, buf);
        if area.height > 0 && area.width > LABEL_COLUMNS {
            let since = format!(" last {columns} s");
            buf.set_stringn(area.x, area.bottom() - 1, since, usize::from(LABEL_COLUMNS) - 1, self.ink.quiet());
        }
    }

    /// Times and statuses, of the last ten seconds and since the start.
    fn draw_answers(&self, area: Rect, buf: &mut Buffer) {
        let (proxy, history) = (self.proxy(), self.history());
        let Latency { last_10s, since_start } = &proxy.latency;
        let recent = CLASSES.map(|class| say::per_second(history.answers_per_second(class)));
        let ever = CLASSES.map(|class| say::count(proxy.responses.get(class).copied().unwrap_or(0)));
        let has_longest = area.width >= 90;
        let mut strips = Strips(area);
        let names = ["p50", "p99", "p99.9", "longest"].map(|name| format!("{name} ms"));
        let head = columns("Answers", names, CLASSES.map(str::to_owned), has_longest);
        buf_line(Line::styled(head, self.ink.strong()), strips.top(1), buf);
        for (name, times, answers) in [(" last 10 s", last_10s, recent), (" since start", since_start, ever)] {
            buf_line(Line::raw(columns(name, told(times), answers, has_longest)), strips.top(1), buf);
        }
    }

    fn connections(&self) -> Vec<(String, String)> {
        let c = &self.proxy().connections;
        let working = c.active.saturating_sub(c.parked).saturating_sub(c.tunnels);
        vec![
            fact("active", say::count(working)),
            fact("parked", say::count(c.parked)),
            fact("tunnels", say::count(c.tunnels)),
            fact("event streams", say::count(c.event_streams)),
            fact("open", format!("{} of {}", say::count(c.active), say::count(c.max))),
        ]
    }

    fn tls(&self) -> Vec<(String, String)> {
        let tls = &self.proxy().tls;
        let resumed = tls.full + tls.resumed > 0;
        let resumed = resumed.then(|| tls.resumed as f64 * 100.0 / (tls.full + tls.resumed) as f64);
        let first = tls.expires_first.as_ref();
        let mut facts = vec![fact("sessions", say::count(tls.sessions))];
        facts.extend(first.map(|first| fact("certificate", expiry(first))));
        facts.extend([
            fact("failed", say::count(tls.failed)),
            fact("handshakes", say::count(tls.full + tls.resumed)),
            fact("resumed", say::percent(resumed)),
        ]);
        facts.extend(first.map(|first| fact("first to end", first.cert_file.clone())));
        facts
    }

    fn cpu(&self) -> Vec<(String, String)> {
        let s = self.server();
        let own = (s.machine.cpus > 0.0).then(|| s.process.cpu_usage / s.machine.cpus);
        let cpus = (s.machine.cpus * 100.0).round() / 100.0;
        let of = if cpus == 1.0 { "1 CPU".to_owned() } else { format!("{cpus} CPUs") };
        vec![
            fact("SpeedMimi", say::percent(own)),
            fact("machine", format!("{} of {of}", say::percent(Some(s.cpu_usage)))),
            fact("load", format!("{:.2} {:.2} {:.2}", s.load_avg_1, s.load_avg_5, s.load_avg_15)),
        ]
    }

    fn memory(&self) -> Vec<(String, String)> {
        let s = self.server();
        let limit = say::bytes(s.machine.memory_limit_bytes as f64);
        let network = [s.network_in, s.network_out].map(|kib| format!("{}/s", say::bytes(kib * 1024.0)));
        vec![
            fact("SpeedMimi", say::bytes(s.process.rss_bytes as f64)),
            fact("machine", format!("{} of {limit}", say::percent(Some(s.memory_usage)))),
            fact("descriptors", say::count(s.process.open_descriptors)),
            fact("network in", network[0].clone()),
            fact("out", network[1].clone()),
        ]
    }

    fn workers(&self) -> Vec<(String, String)> {
        let workers = self.proxy().workers.iter().enumerate();
        let told = workers.map(|(at, worker)| {
            let rate = say::per_second(self.history().worker_per_second(at));
            fact(&worker.worker.to_string(), format!("{rate}, {} open", say::count(worker.active)))
        });
        told.collect()
    }

    fn reasons(&self) -> Vec<(String, String)> {
        let reasons = self.history().reasons(self.proxy());
        if reasons.is_empty() {
            return vec![fact("", "none so far".to_owned())];
        }
        let told = reasons.into_iter().map(|(code, total, recent)| {
            let more = if recent > 0 { format!(" (+{})", say::count(recent)) } else { String::new() };
            fact(code, format!("{}{more}", say::count(total)))
        });
        told.collect()
    }

    /// Workers and reasons, one below the other.
    fn draw_side(&self, area: Rect, buf: &mut Buffer) {
        let mut rest = Strips(area);
        let half = usize::from(area.height / 2).saturating_sub(2);
        let head = format!("{:<8}{:>10}{:>10}{:>10}", "WORKER", "REQ/S", "OPEN", "PARKED");
        buf_line(Line::styled(head, self.ink.strong()), rest.top(1), buf);
        let workers = &self.proxy().workers;
        for (at, worker) in workers.iter().enumerate().take(half) {
            let rate = say::rate(self.history().worker_per_second(at));
            let (open, parked) = (say::count(worker.active), say::count(worker.parked));
            buf_line(Line::raw(format!("{:<8}{rate:>10}{open:>10}{parked:>10}", worker.worker)), rest.top(1), buf);
        }
        if workers.len() > half {
            let more = format!("and {} more", workers.len() - half);
            buf_line(Line::styled(more, self.ink.quiet()), rest.top(1), buf);
        }
        rest.top(1);
        let recent = format!("{} S", self.history().seconds());
        let head = format!("{:<20}{recent:>9}{:>9}", "OWN ANSWERS", "TOTAL");
        buf_line(Line::styled(head, self.ink.strong()), rest.top(1), buf);
        let reasons = self.history().reasons(self.proxy());
        if reasons.is_empty() {
            buf_line(Line::raw("none so far"), rest.top(1), buf);
        }
        for (code, total, recent) in reasons {
            let (total, told) = (say::count(total), say::count(recent));
            let line = Line::styled(format!("{code:<20}{told:>9}{total:>9}"), self.ink.fault(recent));
            buf_line(line, rest.top(1), buf);
        }
    }

    fn draw_table(&self, area: Rect, buf: &mut Buffer) -> Page {
        let rows = rows(self.figures(), self.view.order());
        let page = Page { shown: usize::from(area.height.saturating_sub(1)).min(rows.len()), all: rows.len() };
        let top = self.view.top(page);
        let is_wide = area.width >= WIDE_TABLE_COLUMNS;
        let names: Vec<_> = COLUMNS.iter().filter(|column| is_wide || !column.is_extra).collect();
        let lines = rows[top..top + page.shown].iter().map(|row| {
            let cells = self.cells(row);
            let told = COLUMNS.iter().zip(cells).filter(|(column, _)| is_wide || !column.is_extra);
            Cells::new(told.map(|(column, cell)| Line::from(cell).alignment(column.alignment)).collect::<Vec<_>>())
        });
        let head = names.iter().map(|column| Line::raw(column.name).alignment(column.alignment));
        let head = Cells::new(head.collect::<Vec<_>>()).style(self.ink.strong());
        let widths = names.iter().map(|column| column.width).collect::<Vec<_>>();
        Widget::render(Table::new(lines, widths).header(head).column_spacing(1), area, buf);
        if rows.is_empty() && area.height > 1 {
            buf.set_stringn(area.x, area.y + 1, "no backends", usize::from(area.width), self.ink.quiet());
        }
        page
    }

    /// In the order of [`COLUMNS`].
    fn cells(&self, row: &Row<'_>) -> [Span<'static>; COLUMNS.len()] {
        match row {
            Row::Upstream(upstream) => self.upstream_cells(upstream),
            Row::Below(member) => self.member_cells(format!("  {}", member.id()), member),
            Row::Among(member) => self.member_cells(format!("{}/{}", member.upstream(), member.id()), member),
        }
    }

    fn upstream_cells(&self, upstream: &Upstream<'_>) -> [Span<'static>; COLUMNS.len()] {
        let style = if upstream.active == 0 && upstream.all > 0 { self.ink.state("down") } else { self.ink.strong() };
        let queue = if upstream.waiting > 0 { format!(" +{} q", say::count(upstream.waiting)) } else { String::new() };
        [
            Span::styled(upstream.name.to_owned(), self.ink.strong()),
            Span::styled(format!("{} of {} up", upstream.active, upstream.all), style),
            Span::raw(say::per_second(Some(upstream.per_second))),
            Span::raw(""),
            Span::raw(format!("{}{queue}", say::count(upstream.in_flight))),
            Span::raw(""),
            Span::raw(""),
            Span::styled(say::count(upstream.failures), self.ink.fault(upstream.failures)),
            Span::raw(""),
            Span::raw(""),
            Span::raw(""),
        ]
    }

    fn member_cells(&self, name: String, member: &Member<'_>) -> [Span<'static>; COLUMNS.len()] {
        let state = member.state().to_owned();
        let Member::Backend(backend, share) = member else {
            let mut cells = std::array::from_fn(|_| Span::raw(say::NONE));
            cells[0] = Span::raw(name);
            cells[1] = Span::styled(state, self.ink.state(member.state()));
            cells[4] = Span::raw(say::count(member.in_flight()));
            return cells;
        };
        let Quantiles { p50_ms, p99_ms, .. } = backend.latency.last_10s;
        let max = if backend.max_conn > 0 { format!("/{}", say::count(backend.max_conn)) } else { String::new() };
        [
            Span::raw(name),
            Span::styled(with_time(backend), self.ink.state(&backend.state)),
            Span::raw(share.map_or(say::NONE.to_owned(), |share| format!("{share:.1}%"))),
            Span::raw(weight(backend)),
            Span::raw(format!("{}{max}", say::count(backend.in_flight))),
            Span::raw(say::ms(p50_ms)),
            Span::raw(say::ms(p99_ms)),
            Span::styled(say::count(backend.failures), self.ink.fault(backend.failures)),
            Span::raw(say::count(backend.retries)),
            Span::raw(backend.address.clone()),
            Span::raw(reported(backend, self.server().timestamp)),
        ]
    }
}

/// A column of the table.
struct Column {
    name: &'static str,
    width: Constraint,
    alignment: Alignment,
    /// Only where there is room.
    is_extra: bool,
}

const fn column(name: &'static str, width: u16) -> Column {
    Column { name, width: Constraint::Length(width), alignment: Alignment::Right, is_extra: false }
}

const COLUMNS: [Column; 11] = [
    Column { width: Constraint::Fill(1), alignment: Alignment::Left, ..column("UPSTREAM/BACKEND", 0) },
    Column { alignment: Alignment::Left, ..column("STATE", 12) },
    column("SHARE", 7),
    column("WEIGHT", 7),
    column("FLIGHT/MAX", 10),
    column("P50 MS", 6),
    column("P99 MS", 6),
    column("FAIL", 5),
    Column { is_extra: true, ..column("RETRIES", 7) },
    Column { is_extra: true, alignment: Alignment::Left, ..column("ADDRESS", 22) },
    Column { is_extra: true, ..column("REPORT", 10) },
];

fn fact(about: &str, figure: String) -> (String, String) {
    (about.to_owned(), figure)
}

/// Columns of the sparkline: a second each.
fn chart_columns(width: u16) -> usize {
    usize::from(width.saturating_sub(LABEL_COLUMNS)).min(300)
}

/// Its state, and for how long where that is known.
fn with_time(backend: &Backend) -> String {
    match backend.ejected_for_ms {
        Some(ms) if backend.state == "ejected" => format!("ejected {}s", ms.div_ceil(1000)),
        _ => backend.state.clone(),
    }
}

/// Its weight, behind the part of it that counts while it comes back.
fn weight(backend: &Backend) -> String {
    match backend.ramp {
        Some(ramp) if ramp < 1.0 && backend.state == "active" => {
            format!("{:.0}/{}", ramp * backend.weight as f64, backend.weight)
        }
        _ => backend.weight.to_string(),
    }
}

/// How long the certificate that ends first is good for.
fn expiry(first: &Expiry) -> String {
    match first.days_left {
        ..=-1 => "expired".to_owned(),
        1 => "1 day left".to_owned(),
        days => format!("{} days left", say::whole(days.unsigned_abs())),
    }
}

fn reported(backend: &Backend, now_ms: u64) -> String {
    let ago = |at: u64| format!("{} ago", say::span(now_ms.saturating_sub(at) / 1000));
    backend.last_report.map_or(say::NONE.to_owned(), ago)
}

fn told(times: &Quantiles) -> [String; 4] {
    [times.p50_ms, times.p99_ms, times.p999_ms, times.max_ms].map(say::ms)
}

/// A line of the table of answers.
fn columns(name: &str, times: [String; 4], answers: [String; 5], has_longest: bool) -> String {
    let mut line = format!("{name:<0$}", usize::from(LABEL_COLUMNS) - 1);
    let [p50, p99, p999, longest] = times;
    [p50, p99, p999].iter().for_each(|time| line.push_str(&format!("{time:>9}")));
    if has_longest {
        line.push_str(&format!("{longest:>12}"));
    }
    answers.iter().for_each(|count| line.push_str(&format!("{count:>8}")));
    line
}

fn buf_line(line: Line<'_>, area: Rect, buf: &mut Buffer) {
    line.render(area, buf);
}

/// One line at the left end, and one at the right if there is room for both.
fn draw_ends(left: Line<'_>, right: Line<'_>, area: Rect, buf: &mut Buffer) {
    if left.width() + right.width() + 2 <= usize::from(area.width) {
        right.right_aligned().render(area, buf);
    }
    left.render(area, buf);
}

/// What keys do, or why the figures are old.
fn draw_foot(view: &View, page: Page, ink: Ink, now: Instant, area: Rect, buf: &mut Buffer) {
    if let Some((why, seconds)) = view.trouble(now) {
        let text = format!(" NO FIGURES FOR {} from {}: {why}; trying again ", say::span(seconds), view.target());
        buf.set_style(area, ink.loud());
        return Line::styled(text, ink.loud()).render(area, buf);
    }
    let keys = format!("q quit  ? help  s order: {}  p hold still  arrows scroll", view.order().name());
    let top = view.top(page);
    let rows = match page {
        Page { all: 0, .. } => String::new(),
        Page { shown, all } => format!("{}-{} of {all}", (top + 1).min(all), top + shown),
    };
    draw_ends(Line::styled(keys, ink.quiet()), Line::raw(rows), area, buf);
}

const HELP: &str = "\
It only looks: no key changes anything in the proxy. Changes are
made on the dashboard, by the API or in the file.

q  Esc  Ctrl-C   quit
?  h             this help, and back
s  S             next order of the backends, the one before
p  Space         hold the figures still, go on
arrows  j  k     a row down or up
PgUp  PgDn       a page
Home  End  g  G  to the begin, to the end

SHARE       part of its upstream's requests of the last 10 s
WEIGHT      20/100: coming back, and 20 of 100 count
FLIGHT/MAX  exchanges and tunnels under way, and max_conn
P50 P99     of its answers of the last 10 s
FAIL        exchanges that failed by its fault
Own answers by reason: since its start (+ since this began)";

fn draw_help(view: &View, ink: Ink, area: Rect, buf: &mut Buffer) {
    let lines = HELP.lines().count() as u16;
    let columns = HELP.lines().map(str::len).max().unwrap_or(0) as u16;
    let place = area.centered(Constraint::Length(columns + 4), Constraint::Length(lines + 2));
    Clear.render(place, buf);
    let title = format!(" Help; the order is: {} ", view.order().name());
    let block = Block::bordered().title(Line::styled(title, ink.strong()));
    let inner = block.inner(place);
    block.render(place, buf);
    let inner = Rect { x: inner.x + 1, width: inner.width.saturating_sub(2), ..inner };
    Paragraph::new(HELP).render(inner, buf);
}

/// The picture as text, without what is only looks: what `--once` prints.
pub fn text(view: &View, width: u16) -> String {
    let all = view.shown().map_or(0, |known| rows(&known.figures, Order::Plan).len());
    // Whole, however many backends there are; the buffer's area is bounded by the type.
    let height =
        (all as u64).max(u64::from(TABLE_ROWS_MIN) - 1).saturating_add(13).min(u64::from(u16::MAX / width.max(1)))
            as u16;
    let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
    if let Some(known) = view.shown() {
        let ink = Ink { is_coloured: false };
        Picture { view, known, ink, is_live: false }.draw(&mut Strips(buf.area), &mut buf);
    }
    format!("{}\n", lines(&buf).trim_end())
}

/// Cells as text.
pub fn lines(buf: &Buffer) -> String {
    let mut text = String::new();
    for y in 0..buf.area.height {
        let mut line = String::new();
        let mut skipped = 0;
        for x in 0..buf.area.width {
            let symbol = buf[(x, y)].symbol();
            // The cells behind a wide character are its own.
            if skipped > 0 {
                skipped -= 1;
                continue;
            }
            skipped = Span::raw(symbol).width().saturating_sub(1);
            line.push_str(symbol);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
