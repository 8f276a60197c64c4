//! The sum and the two tables in words, English or Chinese.
//!
//! Owns words and rounding. Never calculates anything else.

use std::fmt::Write;

use clap::ValueEnum;

use super::constants::Spread;
use super::sum::{Demand, Fleet, Need, Sum, Term};
use crate::cli::top::say::whole;

/// Of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    En,
    Zh,
}

impl Language {
    fn pick(self, en: &'static str, zh: &'static str) -> &'static str {
        match self {
            Language::En => en,
            Language::Zh => zh,
        }
    }
}

/// What the constants rest on.
pub struct Basis<'a> {
    /// The file they come from; `None`: they are built in.
    pub file: Option<String>,
    pub facts: &'a [String],
}

/// All of it.
pub fn text(language: Language, demand: &Demand, need: &Need, fleets: [&Fleet; 2], basis: &Basis) -> String {
    let mut out = String::new();
    // Writing to memory doesn't fail.
    let _ = write_all(&mut out, language, demand, need, fleets, basis);
    out
}

fn write_all(
    out: &mut String,
    l: Language,
    demand: &Demand,
    need: &Need,
    fleets: [&Fleet; 2],
    basis: &Basis,
) -> std::fmt::Result {
    writeln!(out, "{}", asked(l, demand))?;
    match &basis.file {
        Some(file) => writeln!(out, "{} {file}", l.pick("constants: measured,", "常量：实测，"))?,
        None => writeln!(out, "{}", l.pick(
            "constants: built in (docs/plan.md says where each was measured); speedmimi-bench calibrate measures this machine's",
            "常量：程序内置（各自的测量条件见 docs/plan.md）；speedmimi-bench calibrate 可测量本机",
        ))?,
    }
    basis.facts.iter().try_for_each(|fact| writeln!(out, "  {fact}"))?;
    sum(out, l, l.pick("CPU", "CPU"), &need.cpus, &Unit::Cpus)?;
    sum(out, l, l.pick("Memory", "内存"), &need.memory, &Unit::Bytes)?;
    sum(out, l, l.pick("Network, each way", "网络（单向）"), &need.network, &Unit::Bits)?;
    hardware(out, l, fleets)?;
    expected(out, l, fleets)?;
    also(out, l, demand, need, fleets[0])
}

fn asked(l: Language, d: &Demand) -> String {
    let percent = |part: f64| format!("{}%", trimmed(part * 100.0));
    match l {
        Language::En => format!(
            "for {} connections, {} requests/s ({} TLS, {} HTTP/2, {} WebSocket with {} frames/s in all), \
             bodies of {} B, requests with {} B, connections of {} s, backends that take {} ms",
            whole(d.connections as u64),
            whole(d.rps as u64),
            percent(d.tls),
            percent(d.http2),
            percent(d.websocket),
            whole(d.frames as u64),
            whole(d.body as u64),
            whole(d.request_body as u64),
            trimmed(d.lifetime),
            trimmed(d.latency * 1e3),
        ),
        Language::Zh => format!(
            "目标：{} 个连接，每秒 {} 个请求（TLS {}，HTTP/2 {}，WebSocket {}，共 {} 帧/秒），响应体 {} B，请求体 {} B，\
             连接存活 {} 秒，后端耗时 {} 毫秒",
            whole(d.connections as u64),
            whole(d.rps as u64),
            percent(d.tls),
            percent(d.http2),
            percent(d.websocket),
            whole(d.frames as u64),
            whole(d.body as u64),
            whole(d.request_body as u64),
            trimmed(d.lifetime),
            trimmed(d.latency * 1e3),
        ),
    }
}

enum Unit {
    Cpus,
    Bytes,
    Bits,
}

impl Unit {
    fn each(&self, l: Language, each: f64) -> String {
        match self {
            Unit::Cpus => format!("{} µs", trimmed(each)),
            Unit::Bytes | Unit::Bits => format!("{} {}", whole(each.round() as u64), l.pick("B", "B")),
        }
    }

    fn count(&self, l: Language, count: f64) -> String {
        let second = if matches!(self, Unit::Bytes) { "" } else { l.pick("/s", "/秒") };
        format!("{}{second}", whole(count.round() as u64))
    }

    fn total(&self, l: Language, total: f64) -> String {
        match self {
            Unit::Cpus => format!("{} {}", trimmed(total), l.pick("CPUs", "核")),
            Unit::Bytes => gib(total),
            Unit::Bits => gbit(total),
        }
    }
}

fn sum(out: &mut String, l: Language, title: &str, sum: &Sum, unit: &Unit) -> std::fmt::Result {
    writeln!(out, "\n{title}")?;
    for line in &sum.lines {
        let name = pad(name(l, line.term), 34);
        let (count, each) = (unit.count(l, line.count), unit.each(l, line.each.median));
        writeln!(out, "  {name} {count:>14} × {each:>9} = {}", unit.total(l, line.total.median))?;
    }
    let name = pad(l.pick("in all", "合计"), 34);
    let range = (unit.total(l, sum.total.low), unit.total(l, sum.total.high));
    let spread = if range.0 == range.1 { String::new() } else { format!("   ({} … {})", range.0, range.1) };
    writeln!(out, "  {name} {:>14}   {:>9} = {}{spread}", "", "", unit.total(l, sum.total.median))
}

fn name(l: Language, term: Term) -> &'static str {
    match term {
        Term::PlainRequests => l.pick("requests in the clear", "明文请求"),
        Term::TlsRequests => l.pick("requests over TLS", "TLS 请求"),
        Term::Http2Requests => l.pick("requests over HTTP/2", "HTTP/2 请求"),
        Term::PlainKib => l.pick("KiB of bodies in the clear", "明文消息体（KiB）"),
        Term::TlsKib => l.pick("KiB of bodies over TLS", "TLS 消息体（KiB）"),
        Term::Http2Kib => l.pick("KiB of bodies over HTTP/2", "HTTP/2 消息体（KiB）"),
        Term::Frames => l.pick("frames of WebSockets", "WebSocket 帧"),
        Term::SealedFrames => l.pick("frames sealed or opened", "WebSocket 帧的加解密"),
        Term::NewConnections => l.pick("new connections in the clear", "新建明文连接"),
        Term::Handshakes => l.pick("new connections over TLS", "新建 TLS 连接（握手）"),
        Term::ClientSockets => l.pick("kernel: clients' sockets", "内核：客户端套接字"),
        Term::BackendSockets => l.pick("kernel: sockets to backends", "内核：后端套接字"),
        Term::PlainIdle => l.pick("connections in the clear", "明文连接"),
        Term::TlsIdle => l.pick("connections over TLS", "TLS 连接"),
        Term::Http2Idle => l.pick("connections of HTTP/2", "HTTP/2 连接"),
        Term::WebSockets => l.pick("WebSockets", "WebSocket 隧道"),
        Term::UnderWay => l.pick("requests under way", "处理中的请求"),
        Term::Bodies => l.pick("bodies", "消息体"),
        Term::Heads => l.pick("heads", "消息头"),
        Term::PacketHeaders => l.pick("headers of packets", "报文头"),
    }
}

fn hardware(out: &mut String, l: Language, fleets: [&Fleet; 2]) -> std::fmt::Result {
    let head = ["", l.pick("minimum", "最小配置"), l.pick("recommended", "推荐配置")];
    let each = |value: fn(&Fleet) -> String| fleets.map(value);
    let machines = fleets.map(|fleet| format!("{} + 1", whole(fleet.machines)));
    let rows = [
        (l.pick("machines, and one to spare", "机器数（含 1 台备用）"), machines),
        (l.pick("CPU cores each", "每台 CPU 核数"), each(|fleet| fleet.cpus.to_string())),
        (l.pick("memory each", "每台内存"), each(|fleet| format!("{} GiB", fleet.memory_gib))),
        (l.pick("network each", "每台网卡"), each(|fleet| format!("{} GbE", fleet.network_gbit))),
    ];
    writeln!(out)?;
    table(out, head, &rows)
}

fn expected(out: &mut String, l: Language, fleets: [&Fleet; 2]) -> std::fmt::Result {
    let head = [l.pick("expected", "预期性能指标"), l.pick("minimum", "最小配置"), l.pick("recommended", "推荐配置")];
    let of = |show: &dyn Fn(&Fleet) -> String| fleets.map(show);
    let range = |spread: Spread, show: &dyn Fn(f64) -> String| {
        let (low, high) = (show(spread.low), show(spread.high));
        if low == high { low } else { format!("{low} – {high}") }
    };
    let rows = [
        (l.pick("RPS it could bear", "可承受的 RPS"), of(&|f| range(f.expected.rps, &|n| whole(three(n) as u64)))),
        (l.pick("mean latency added by the proxy", "代理增加的平均延迟"), of(&|f| range(f.expected.added_us, &time))),
        (l.pick("CPU use", "CPU使用率"), of(&|f| range(f.expected.cpu, &|part| format!("{:.0}%", part * 100.0)))),
        (l.pick("memory use, all machines", "内存使用（全部机器）"), of(&|f| range(f.expected.memory_bytes, &gib))),
        (l.pick("network use, all, each way", "网络使用（全部，单向）"), of(&|f| gbit(f.expected.network_bits))),
    ];
    writeln!(out)?;
    table(out, head, &rows)
}

fn table(out: &mut String, head: [&str; 3], rows: &[(&str, [String; 2])]) -> std::fmt::Result {
    let names = rows.iter().map(|(name, _)| width(name)).chain([width(head[0])]).max().unwrap_or(0);
    let column =
        |at: usize| rows.iter().map(|(_, values)| width(&values[at])).chain([width(head[at + 1])]).max().unwrap_or(0);
    let widths = [names, column(0), column(1)];
    let line = |cells: [&str; 3]| {
        let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| pad(cell, width)).collect();
        format!("| {} |", cells.join(" | "))
    };
    writeln!(out, "{}", line(head))?;
    writeln!(out, "|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"))?;
    rows.iter().try_for_each(|(name, [least, recommended])| writeln!(out, "{}", line([name, least, recommended])))
}

fn also(out: &mut String, l: Language, demand: &Demand, need: &Need, fleet: &Fleet) -> std::fmt::Result {
    let machines = fleet.machines as f64;
    let each = (demand.connections / machines).ceil() as u64;
    let addresses = (need.backend_connections / machines / 28_000.0).ceil().max(1.0) as u64;
    match l {
        Language::En => {
            writeln!(
                out,
                "\nThe minimum goes by the medians, with CPUs and memory used to 80 %, the network to 70 %; the"
            )?;
            writeln!(
                out,
                "recommended one by the upper quartiles, with 60, 60 and 50 %. Ranges are between the quartiles."
            )?;
            writeln!(
                out,
                "Measured over loopback: what a network card's driver takes is not in the sum, its other end is."
            )?;
            writeln!(out, "To {} connections a machine belongs: speedmimi tune --connections {each}", whole(each))?;
            writeln!(
                out,
                "To one backend address, from a machine: {addresses} × 28,000 ports (upstreams.NAME.local_addresses)"
            )
        }
        Language::Zh => {
            writeln!(
                out,
                "\n最小配置按中位数计算，CPU 与内存用到 80 %，网络用到 70 %；推荐配置按上四分位数计算，用到 60、60 和 50 %。"
            )?;
            writeln!(out, "区间为上下四分位数之间。数据在回环接口上测得：不含网卡驱动的开销，但含对端的开销。")?;
            writeln!(out, "每台 {} 个连接需要的系统设置：speedmimi tune --connections {each}", whole(each))?;
            writeln!(out, "每台到单个后端地址：{addresses} × 28,000 个端口（upstreams.NAME.local_addresses）")
        }
    }
}

/// Columns that a text takes: those of Chinese are wide.
fn width(text: &str) -> usize {
    text.chars().map(|c| if ('\u{2E80}'..='\u{FFEF}').contains(&c) { 2 } else { 1 }).sum()
}

fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

/// Three digits, or all of those before the point.
fn trimmed(value: f64) -> String {
    let digits = match value.abs() {
        big if big >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        // One digit of what two places would show as nothing.
        small if small > 0.0 && small < 0.005 => (-small.log10().floor()).min(9.0) as usize,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// To three digits.
fn three(value: f64) -> f64 {
    if value < 1.0 {
        return 0.0;
    }
    let unit = 10f64.powf((value.log10().floor() - 2.0).max(0.0));
    (value / unit).round() * unit
}

fn gib(bytes: f64) -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    if bytes < GIB / 10.0 {
        format!("{} MiB", trimmed(bytes / GIB * 1024.0))
    } else {
        format!("{} GiB", trimmed(bytes / GIB))
    }
}

fn gbit(bits: f64) -> String {
    if bits < 1e8 { format!("{} Mbit/s", trimmed(bits / 1e6)) } else { format!("{} Gbit/s", trimmed(bits / 1e9)) }
}

fn time(us: f64) -> String {
    if us < 1000.0 { format!("{} µs", trimmed(us)) } else { format!("{} ms", trimmed(us / 1000.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            (trimmed(15.68), trimmed(1234.5), trimmed(0.141), trimmed(2.0)),
            ("15.7".into(), "1234".into(), "0.14".into(), "2".into())
        );
        assert_eq!((trimmed(0.001), trimmed(0.000_157), trimmed(0.0)), ("0.001".into(), "0.0002".into(), "0".into()));
        assert_eq!((three(1_234_567.0), three(99.4), three(0.0)), (1_230_000.0, 99.0, 0.0));
        assert_eq!(
            (gib(5e7), gib(4e9), gbit(5e7), gbit(2.5e10)),
            ("47.7 MiB".into(), "3.73 GiB".into(), "50 Mbit/s".into(), "25 Gbit/s".into())
        );
    }

    #[test]
    fn columns_of_chinese_are_wide() {
        assert_eq!((width("内存"), pad("内存", 6), width("CPU")), (4, "内存  ".into(), 3));
    }
}
