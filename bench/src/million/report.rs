//! The report of a million connections as Markdown, in English and in Chinese.
//!
//! Owns the words and the arithmetic of its tables. Never measures.

use super::Report;
use crate::hold::{self, Trickle};
use crate::load::Latency;
use crate::network::Setting;
use crate::report::words::grouped;
use std::fmt::Write;

/// The words of one language, in the order of the text.
#[derive(Clone, Copy)]
pub struct Words {
    title: &'static str,
    machine: &'static str,
    settings: &'static str,
    setting_columns: &'static str,
    /// Why each was set, by its name; none where the settings say so themselves, in English.
    reasons: &'static [(&'static str, &'static str)],
    opening: &'static str,
    opening_columns: &'static str,
    asking: &'static str,
    asking_columns: &'static str,
    memory: &'static str,
    memory_columns: &'static str,
    user: &'static str,
    user_after: &'static str,
    private: &'static str,
    kernel: &'static str,
    per_connection: &'static str,
    slabs: &'static str,
    slab_columns: &'static str,
    chains: &'static str,
    goals: &'static str,
    goal_columns: &'static str,
    goal_held: &'static str,
    goal_accepts: &'static str,
    goal_answered: &'static str,
    goal_user: &'static str,
    goal_private: &'static str,
    goal_p99: &'static str,
    met: [&'static str; 2],
    next: &'static str,
    next_columns: &'static str,
    next_user: &'static str,
    next_kernel: &'static str,
    next_buffers: &'static str,
    next_tables: &'static str,
    next_cpu: &'static str,
    next_sum: &'static str,
    config: &'static str,
}

/// English.
pub const ENGLISH: Words = Words {
    title: "{n} connections on one machine",
    machine: "Machine",
    settings: "What was set",
    setting_columns: "| setting | before | now | why |",
    reasons: &[],
    opening: "Opening",
    opening_columns: "| connections | opened | s | a second | refused, reset or failed | lost while idle | p50 | p99 | max |",
    asking: "Requests over them",
    asking_columns: "| connections | wanted/s | answered/s | answered | failed \
                     | p50 | p95 | p99 | p99.9 | max | proxy's µs a request | proxy's CPUs |",
    memory: "Memory",
    memory_columns: "| | bytes | a connection |",
    user: "the process, over what it had before the first connection",
    user_after: "the process, over what it had after the last one was closed",
    private: "the process, everything it has for itself",
    kernel: "the kernel, for both ends of every connection",
    per_connection: "Of the kernel's, by slab and for both ends:",
    slabs: "Kernel memory by slab",
    slab_columns: "| slab | bytes a connection |",
    chains: "The connection hash of the namespace has {entries} entries for {sockets} sockets: a chain of {chain} on average. \
             The machine's own has fewer, and every packet walks its chain.",
    goals: "Goals",
    goal_columns: "| | wanted | measured | |",
    goal_held: "connections held at once by one process",
    goal_accepts: "accepted a second while opening",
    goal_answered: "requests a second over them, failed, for how long",
    goal_user: "user memory of an idle connection",
    goal_private: "private memory of the process",
    goal_p99: "p99 of the trickle, over that with few connections",
    met: ["met", "missed"],
    next: "What ten million would take",
    next_columns: "| term | how | GB |",
    next_user: "the proxy's entries",
    next_kernel: "the kernel, one end each (half of what both took here)",
    next_buffers: "socket buffers while 1 % are busy, 16 KiB each",
    next_tables: "descriptor tables, 8 bytes a slot and their bitmaps",
    next_cpu: "At {us} µs a request one CPU answers {rps} a second; \
               500,000 a second take {cpus} CPUs at 70 % for the proxy alone, beside what the network card's interrupts take.",
    next_sum: "sum",
    config: "The proxy's configuration",
};

/// Chinese, with the words of the forerunner's report.
pub const CHINESE: Words = Words {
    title: "单机 {n} 并发连接",
    machine: "测试环境",
    settings: "系统设置",
    setting_columns: "| 设置 | 原值 | 现值 | 原因 |",
    reasons: &[
        ("fs.file-max", "每个连接两个打开的文件，两端各一个"),
        ("net.ipv4.tcp_child_ehash_entries", "命名空间自己的连接哈希表：每个连接的两端都在其中，平均链长约为一"),
        ("net.ipv4.ip_local_port_range", "每个源地址 64,512 个端口"),
        ("net.core.somaxconn", "等待接受的连接上限"),
        ("net.ipv4.tcp_max_syn_backlog", "半开连接上限"),
        ("net.ipv4.tcp_congestion_control", "BBR 要限速发送，占用定时器，在回环上没有好处"),
    ],
    opening: "建立连接",
    opening_columns: "| 并发数 | 已建立 | 秒 | 每秒 | 被拒、重置或失败 | 空闲时丢失 | p50 | p99 | 最大 |",
    asking: "在这些连接上的请求",
    asking_columns: "| 并发数 | 目标 RPS | RPS | 成功 | 失败 | p50 | p95 | p99 | p99.9 | 最大 | 代理每请求 µs | 代理占用 CPU |",
    memory: "内存",
    memory_columns: "| | 字节 | 每连接 |",
    user: "进程，与第一个连接之前相比",
    user_after: "进程，与全部关闭之后相比",
    private: "进程的全部私有内存",
    kernel: "内核，每个连接的两端合计",
    per_connection: "内核部分按 slab 划分（两端合计）：",
    slabs: "内核 slab 内存",
    slab_columns: "| slab | 每连接字节 |",
    chains: "命名空间的连接哈希表有 {entries} 项，容纳 {sockets} 个套接字：平均链长 {chain}。系统默认的表更小，而每个数据包都要走一遍链。",
    goals: "目标",
    goal_columns: "| | 目标 | 实测 | |",
    goal_held: "单进程同时保持的连接数",
    goal_accepts: "建立时每秒接受的连接数",
    goal_answered: "每秒应答的请求数、失败数、持续时间",
    goal_user: "每个空闲连接的用户态内存",
    goal_private: "进程私有内存",
    goal_p99: "少量请求的 p99，与少量连接时之比",
    met: ["达到", "未达到"],
    next: "一千万连接需要什么",
    next_columns: "| 项 | 计算 | GB |",
    next_user: "代理的连接记录",
    next_kernel: "内核，每个连接一端（此处两端合计的一半）",
    next_buffers: "1 % 的连接忙时的套接字缓冲，各 16 KiB",
    next_tables: "描述符表，每项 8 字节，另有位图",
    next_cpu: "每请求 {us} µs，即一个 CPU 每秒应答 {rps} 个；每秒 500,000 个请求，仅代理就需要 {cpus} 个 CPU（各用 70 %），网卡中断另计。",
    next_sum: "合计",
    config: "代理的配置",
};

/// The whole report.
pub fn markdown(report: &Report, words: Words) -> String {
    let title = words.title.replace("{n}", &grouped(report.many.connections));
    let mut text = format!("# {title}\n\n`{}`\n", report.command);
    // Writing to a string never fails.
    let _ = write_all(&mut text, report, words);
    text
}

fn write_all(text: &mut String, report: &Report, w: Words) -> std::fmt::Result {
    let (few, many) = (&report.few, &report.many);
    machine(text, report, w)?;
    goals(text, report, w)?;
    section(text, w.opening, w.opening_columns)?;
    for held in [few, many] {
        let Latency { p50, p99, max, .. } = held.open_latency_us;
        let failed = held.open_failures.sum();
        let (n, opened, s, rate, lost) =
            (held.connections, held.opened, held.open_seconds, held.accepts_per_second, held.lost_idle);
        let (n, opened, rate) = (grouped(n), grouped(opened), grouped(rate as u64));
        writeln!(
            text,
            "| {n} | {opened} | {s:.1} | {rate} | {failed} | {lost} | {} | {} | {} |",
            ms(p50),
            ms(p99),
            ms(max)
        )?;
    }
    section(text, w.asking, w.asking_columns)?;
    for (held, trickle) in [few, many].into_iter().flat_map(|held| held.trickles.iter().map(move |t| (held, t))) {
        asked(text, held, trickle)?;
    }
    memory(text, report, w)?;
    ten_million(text, report, w)?;
    writeln!(text, "\n## {}\n\n```yaml\n{}```", w.config, report.config)
}

fn machine(text: &mut String, report: &Report, w: Words) -> std::fmt::Result {
    writeln!(text, "\n## {}\n", w.machine)?;
    let Report { version, cpu, cpus, kernel, descriptors, workers, .. } = report;
    let gib = report.memory as f64 / f64::from(1 << 30);
    writeln!(
        text,
        "{version}, {cpus} × {cpu}, {gib:.1} GiB, Linux {kernel}, RLIMIT_NOFILE {descriptors}; workers: {workers}"
    )?;
    section(text, w.settings, w.setting_columns)?;
    for Setting { name, before, value, why } in &report.settings {
        let why = w.reasons.iter().find(|(of, _)| of == name).map_or(why.as_str(), |(_, why)| why);
        writeln!(text, "| `{name}` | {before} | {value} | {why} |")?;
    }
    Ok(())
}

fn goals(text: &mut String, report: &Report, w: Words) -> std::fmt::Result {
    let (few, many) = (&report.few, &report.many);
    let (Some(base), Some(trickle), Some(main)) = (few.trickles.first(), many.trickles.first(), many.trickles.last())
    else {
        return Ok(());
    };
    section(text, w.goals, w.goal_columns)?;
    // Where nothing was answered there is no latency, and no goal is met.
    let ratio = if base.latency_us.p99 > 0.0 { trickle.latency_us.p99 / base.latency_us.p99 } else { f64::INFINITY };
    let private = many.idle.private as f64 / 1e6;
    let user = many.user_bytes_each;
    let asked: u64 = many.trickles.iter().map(|trickle| trickle.failures.sum()).sum();
    let failed = many.open_failures.sum() + many.lost_idle + asked;
    let accepts = many.accepts_per_second;
    let rows = [
        (w.goal_held, "1,000,000".into(), grouped(many.opened), many.opened >= 1_000_000 && many.lost_idle == 0),
        (w.goal_accepts, "≥ 20,000".into(), grouped(accepts as u64), accepts >= 20_000.0),
        (
            w.goal_answered,
            "≥ 20,000, 0, 300 s".to_owned(),
            format!("{}, {failed}, {:.0} s", grouped(main.rps.round() as u64), main.seconds),
            // The clock of a round runs a few ms longer than it.
            main.rps >= 20_000.0 * 0.999 && failed == 0 && main.seconds >= 300.0,
        ),
        (w.goal_user, "≤ 128 B".into(), format!("{user:.0} B"), user <= 128.0),
        (w.goal_private, "< 300 MB".into(), format!("{private:.0} MB"), private < 300.0),
        (w.goal_p99, "≤ 2".into(), format!("{ratio:.2}"), trickle.ok > 0 && ratio <= 2.0),
    ];
    for (what, wanted, measured, is_met) in rows {
        writeln!(text, "| {what} | {wanted} | {measured} | {} |", w.met[usize::from(!is_met)])?;
    }
    Ok(())
}

fn asked(text: &mut String, held: &hold::Report, trickle: &Trickle) -> std::fmt::Result {
    let Latency { p50, p95, p99, p99_9, max, .. } = trickle.latency_us;
    let (n, wanted, ok) = (grouped(held.connections), grouped(trickle.rate), grouped(trickle.ok));
    let (rps, failed) = (grouped(trickle.rps.round() as u64), trickle.failures.sum());
    let latencies = [p50, p95, p99, p99_9, max].map(ms).join(" | ");
    let (us, cpus) = (trickle.cpu_us_per_request, trickle.utilisation);
    writeln!(text, "| {n} | {wanted} | {rps} | {ok} | {failed} | {latencies} | {us:.1} | {cpus:.2} |")
}

fn memory(text: &mut String, report: &Report, w: Words) -> std::fmt::Result {
    let many = &report.many;
    section(text, w.memory, w.memory_columns)?;
    let each = |bytes: f64| bytes / many.opened.max(1) as f64;
    let user = many.idle.user as f64 - many.before.user as f64;
    let user_after = many.idle.user as f64 - many.after.user as f64;
    let kernel = many.idle.kernel.bytes() as f64 - many.before.kernel.bytes() as f64;
    let rows = [(w.user, user), (w.user_after, user_after), (w.private, many.idle.private as f64), (w.kernel, kernel)];
    for (what, bytes) in rows {
        writeln!(text, "| {what} | {} | {:.0} |", grouped(bytes.max(0.0) as u64), each(bytes))?;
    }
    writeln!(text, "\n{}", w.per_connection)?;
    section(text, w.slabs, w.slab_columns)?;
    for (name, each) in many.slabs_each().into_iter().filter(|(_, each)| *each >= 8.0) {
        writeln!(text, "| `{name}` | {each:.0} |")?;
    }
    let (before, idle) = (&many.before.kernel, &many.idle.kernel);
    let others = [
        ("PageTables", before.page_tables, idle.page_tables),
        ("KernelStack", before.stacks, idle.stacks),
        ("Percpu", before.per_cpu, idle.per_cpu),
        ("VmallocUsed", before.vmalloc, idle.vmalloc),
        ("TCP mem", before.tcp_buffers, idle.tcp_buffers),
    ];
    for (name, before, idle) in others {
        writeln!(text, "| {name} | {:.0} |", each(idle as f64 - before as f64))?;
    }
    let sockets = idle.tcp_sockets;
    let chain = sockets as f64 / report.hash_entries.max(1) as f64;
    let chains = w.chains.replace("{entries}", &grouped(report.hash_entries));
    writeln!(text, "\n{}", chains.replace("{sockets}", &grouped(sockets)).replace("{chain}", &format!("{chain:.2}")))
}

fn ten_million(text: &mut String, report: &Report, w: Words) -> std::fmt::Result {
    const CONNECTIONS: f64 = 1e7;
    let many = &report.many;
    section(text, w.next, w.next_columns)?;
    let (user, kernel) = (many.user_bytes_each, many.kernel_bytes_each / 2.0);
    let rows = [
        (w.next_user, format!("10⁷ × {user:.0} B"), CONNECTIONS * user),
        (w.next_kernel, format!("10⁷ × {kernel:.0} B"), CONNECTIONS * kernel),
        (w.next_buffers, "10⁵ × 16 KiB".to_owned(), CONNECTIONS / 100.0 * 16_384.0),
        (w.next_tables, "10⁷ × 8.25 B × 4/3".to_owned(), CONNECTIONS * 8.25 * 4.0 / 3.0),
    ];
    let sum: f64 = rows.iter().map(|(_, _, bytes)| bytes).sum();
    for (what, how, bytes) in rows {
        writeln!(text, "| {what} | {how} | {:.1} |", bytes / 1e9)?;
    }
    writeln!(text, "| {} | | {:.1} |", w.next_sum, sum / 1e9)?;
    let us = many.trickles.last().map_or(0.0, |main| main.cpu_us_per_request);
    let cpus = 500_000.0 * us / 1e6 / 0.7;
    let sentence = w.next_cpu.replace("{us}", &format!("{us:.1}")).replace("{cpus}", &format!("{cpus:.0}"));
    writeln!(text, "\n{}", sentence.replace("{rps}", &grouped((1e6 / us.max(0.001)) as u64)))
}

fn section(text: &mut String, title: &str, columns: &str) -> std::fmt::Result {
    let rule = "|---".repeat(columns.matches('|').count() - 1);
    writeln!(text, "\n## {title}\n\n{columns}\n{rule}|")
}

/// µs as ms.
fn ms(us: f64) -> String {
    format!("{:.2} ms", us / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hold::{Failures, Moment};

    fn held(connections: u64, rates: &[u64]) -> hold::Report {
        let latency_us = Latency { p50: 100.0, p99: 200.0, max: 300.0, ..Latency::default() };
        let trickle = |&rate: &u64| Trickle {
            rate,
            seconds: 300.001,
            ok: rate * 300,
            rps: rate as f64 * 0.99999,
            latency_us,
            cpu_us_per_request: 20.0,
            ..Trickle::default()
        };
        let moment = |user, private| Moment { user, private, ..Moment::default() };
        hold::Report {
            connections,
            opened: connections,
            open_seconds: 2.0,
            accepts_per_second: connections as f64 / 2.0,
            open_latency_us: latency_us,
            open_failures: Failures::default(),
            lost_idle: 0,
            threads: 1,
            trickles: rates.iter().map(trickle).collect(),
            before: moment(1_000_000, 1_000_000),
            idle: moment(1_000_000 + connections * 100, 299_000_000),
            used: moment(0, 0),
            after: moment(1_000_000, 1_000_000),
            user_bytes_each: 0.0,
            user_bytes_each_over_after: 0.0,
            kernel_bytes_each: 0.0,
            seconds: Vec::new(),
        }
        .with_each()
    }

    fn report() -> Report {
        let text = |text: &str| text.to_owned();
        let (name, before, value, why) =
            (text("fs.file-max"), text("1"), text("2"), text("two open files a connection, one an end"));
        Report {
            command: text("speedmimi-bench million"),
            at: 0,
            version: text("speedmimi 0.1.0"),
            cpu: text("a CPU"),
            cpus: 2,
            kernel: text("6.18"),
            memory: 24 << 30,
            descriptors: 20_000,
            workers: 71,
            settings: vec![Setting { name, before, value, why }],
            config: text("server: {port: 1}\n"),
            hash_entries: 2_097_152,
            few: held(1_000, &[500]),
            many: held(1_000_000, &[500, 20_000]),
        }
    }

    #[test]
    fn every_row_has_as_many_columns_as_its_table_and_a_figure_in_each() {
        for words in [ENGLISH, CHINESE] {
            let text = markdown(&report(), words);
            let mut columns = None;
            for line in text.lines() {
                let bars = line.starts_with('|').then(|| line.matches('|').count());
                assert!(columns.is_none() || bars.is_none() || columns == bars, "{line}\nin\n{text}");
                columns = bars;
            }
            assert!(!["NaN", "inf |", "{n}", "{us}", "{chain}"].iter().any(|piece| text.contains(piece)), "{text}");
            assert_eq!(text.matches(words.met[0]).count(), 6, "{text}");
            assert!(text.contains("1,000,000") && text.contains("20,000, 0, 300 s"), "{text}");
        }
        assert!(!markdown(&report(), CHINESE).contains("two open files"));
    }

    #[test]
    fn one_that_failed_anywhere_misses_the_goal_and_so_does_nothing_at_all() {
        let missed = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            markdown(&report, ENGLISH).matches("| missed |").count()
        };
        assert_eq!(missed(|report| report.many.trickles[0].failures.timeout = 1), 1);
        assert_eq!(missed(|report| report.many.trickles[1].seconds = 60.0), 1);
        assert_eq!(missed(|report| report.many.idle.private = 301_000_000), 1);
        assert_eq!(missed(|report| report.few.trickles[0].latency_us.p99 = 0.0), 1);
    }
}
