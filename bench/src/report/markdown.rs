//! A report as Markdown.
//!
//! Owns the tables. Never words: those are in `words`.

use super::words::{Words, grouped, latency, percent, round, size};
use super::{Lang, Report, Stage};
use std::fmt::Write as _;

/// The whole report.
pub fn render(report: &Report, lang: Lang) -> String {
    let words = lang.words();
    let mut text = format!("# {}\n\n", words.title);
    section(&mut text, words.results, &summary(report, lang));
    if let Some(end) = lang.end(report.end) {
        let _ = writeln!(text, "{end}\n");
    }
    section(&mut text, words.details, &details(report, lang));
    if report.stages.iter().any(|stage| stage.open_loop.is_some()) {
        section(&mut text, words.open_loop, &open_loop(report, lang));
    }
    if report.stages.iter().any(|stage| stage.total.failed > 0) {
        section(&mut text, words.failures, &failures(report, lang));
    }
    section(&mut text, words.environment, &environment(report, words));
    section(&mut text, words.repeat, &format!("```\n{}\n```\n", command(&report.command)));
    if !report.notes.is_empty() {
        let list: String = report.notes.iter().map(|note| format!("- {note}\n")).collect();
        section(&mut text, words.notes, &list);
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// The table of grades alone.
pub fn summary(report: &Report, lang: Lang) -> String {
    let words = lang.words();
    let head = [words.concurrency, words.success, "RPS", words.mean, words.grade, words.verdict];
    let rows = report.stages.iter().map(|stage| {
        vec![
            row_name(stage, lang),
            percent(stage.success_percent),
            grouped(stage.rps.round() as u64),
            answered_in(stage.latency_us.mean),
            lang.grade(stage.grade).to_owned(),
            lang.verdict(stage.grade).to_owned(),
        ]
    });
    table(&head, rows)
}

/// What a stage's row is called.
pub fn row_name(stage: &Stage, lang: Lang) -> String {
    let name = lang.connections(stage.concurrency);
    if stage.partial { format!("{name} ({})", lang.words().partial) } else { name }
}

/// The heads of the details' columns.
pub(super) fn detail_heads(words: &Words) -> [&str; 12] {
    let first = [words.concurrency, words.answered_connections, words.requests];
    let latencies = [words.mean, "p50", "p95", "p99", "p99.9", words.max];
    let [a, b, c] = first;
    let [d, e, f, g, h, i] = latencies;
    [a, b, c, d, e, f, g, h, i, words.cpu, words.memory, words.load_cpu]
}

/// The details of a stage, in the order of their heads.
pub(super) fn detail_row(stage: &Stage, lang: Lang) -> Vec<String> {
    let us = &stage.latency_us;
    let mut row =
        vec![row_name(stage, lang), grouped(stage.answered_connections), grouped(stage.total.ok + stage.total.failed)];
    row.extend([us.mean, us.p50, us.p95, us.p99, us.p99_9, us.max].map(answered_in));
    row.push(stage.cpu.map_or_else(dash, round));
    row.push(stage.memory_bytes.map_or_else(dash, |bytes| size(bytes as f64)));
    row.push(round(stage.load_cpu));
    row
}

/// A latency, if anything was answered.
fn answered_in(us: f64) -> String {
    if us > 0.0 { latency(us) } else { dash() }
}

fn dash() -> String {
    "–".into()
}

fn details(report: &Report, lang: Lang) -> String {
    table(&detail_heads(lang.words()), report.stages.iter().map(|stage| detail_row(stage, lang)))
}

/// The heads of the open loop's columns.
pub(super) fn open_heads(words: &Words) -> [&str; 6] {
    [words.concurrency, words.rate, words.reached, words.due, words.late, words.unsent]
}

/// How a stage's schedule was kept: asked for and reached.
pub(super) fn open_row(stage: &Stage, lang: Lang) -> Option<Vec<String>> {
    let open = stage.open_loop.as_ref()?;
    Some(vec![
        row_name(stage, lang),
        grouped(open.rate.round() as u64),
        grouped(stage.rps.round() as u64),
        grouped(open.due),
        grouped(open.late),
        grouped(open.unsent),
    ])
}

fn open_loop(report: &Report, lang: Lang) -> String {
    table(&open_heads(lang.words()), report.stages.iter().filter_map(|stage| open_row(stage, lang)))
}

/// The heads of the failures' columns.
pub(super) fn failure_heads(words: &Words) -> Vec<&str> {
    [words.concurrency, words.failed].into_iter().chain(words.kinds).collect()
}

/// How many requests of a stage failed, and how.
pub(super) fn failure_row(stage: &Stage, lang: Lang) -> Vec<String> {
    let t = &stage.total;
    let counts = [t.failed, t.connect, t.closed, t.timeout, t.status, t.body, t.malformed, t.refused];
    std::iter::once(row_name(stage, lang)).chain(counts.map(grouped)).collect()
}

fn failures(report: &Report, lang: Lang) -> String {
    table(&failure_heads(lang.words()), report.stages.iter().map(|stage| failure_row(stage, lang)))
}

/// What was measured where, as pairs.
pub(super) fn facts(report: &Report, words: &Words) -> Vec<(String, String)> {
    let machine = &report.machine;
    let mut facts = vec![
        (words.target.to_owned(), report.target.clone()),
        (words.load.to_owned(), report.load.clone()),
        (words.began.to_owned(), report.began.clone()),
        (words.took.to_owned(), latency(report.seconds * 1e6)),
        (words.tool.to_owned(), report.tool.clone()),
        (words.machine.to_owned(), format!("{}, {}", machine.cpu, size(machine.memory_bytes as f64))),
        (words.cpus.to_owned(), machine.cpus.to_string()),
        (words.kernel.to_owned(), machine.kernel.clone()),
    ];
    if let Some(process) = &report.process {
        let version = process.version.as_ref().map_or_else(String::new, |version| format!(", {version}"));
        facts.insert(1, (words.process.to_owned(), format!("{} ({}){version}", process.name, process.pid)));
    }
    facts.extend(machine.settings.iter().map(|(name, value)| (name.clone(), value.clone())));
    facts
}

fn environment(report: &Report, words: &Words) -> String {
    table(&[words.setting, words.value], facts(report, words).into_iter().map(|(name, value)| vec![name, value]))
}

/// A command line that can be pasted.
pub(crate) fn command(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn section(text: &mut String, title: &str, content: &str) {
    let _ = writeln!(text, "## {title}\n\n{content}");
}

/// A table; bars in cells are escaped.
pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        let cells: Vec<String> = row.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_forerunners_columns_have_their_figures() {
        let text = render(&report(), Lang::Zh);
        for line in [
            "| 并发数 | 成功率 | RPS | 平均延迟 | 性能等级 | 结论 |",
            "| 1千并发 | 100.00% | 25,000 | 340µs | 🟢 优秀 | 轻松胜任 |",
            "| 5千并发 | 97.35% | 6,149 | 866ms | 🟡 良好 | 可以胜任 |",
            "| 2.5万并发 | 92.00% | 1,149 | 12.5s | 🟠 一般 | 勉强接受 |",
            "| 10万并发 | 13.38% | 49 | 12.5s | 🔴 需要优化 | 系统极限 |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(text.contains("低于 80 %"), "{text}");
    }

    #[test]
    fn details_failures_and_the_command_are_there() {
        let text = render(&report(), Lang::En);
        for line in [
            "| 5,000 | 5,000 | 1,000 | 866ms | 866ms | 2.17s | 2.6s | 3.46s | 4.33s | 1.25 | 14.3 MiB | 0.5 |",
            "| 100,000 | 866 | 0 | 0 | 866 | 0 | 0 | 0 | 0 |",
            "| Process | speedmimi (42) |",
            "speedmimi-bench --target http://127.0.0.1:8080\n",
            "Stopped: less than 80 %",
            "- a note",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
        assert!(!text.contains("Open loop"));
    }

    #[test]
    fn an_interrupted_stage_says_so() {
        let mut report = report();
        report.stages.truncate(1);
        (report.stages[0].partial, report.end) = (true, crate::report::End::Interrupted);
        report.stages[0].open_loop =
            Some(crate::load::OpenLoop { rate: 30_000.0, due: 300, late: 20, unsent: 7, behind_us_max: 1.0 });
        let text = render(&report, Lang::En);
        assert!(text.contains("| 1,000 (in part) | 100.00% |") && text.contains("Interrupted: "), "{text}");
        assert!(text.contains("| 1,000 (in part) | 30,000 | 25,000 | 300 | 20 | 7 |"), "{text}");
    }

    #[test]
    fn a_stage_without_an_answer_has_no_latency() {
        let mut report = report();
        report.stages = vec![crate::report::tests::stage(10, 0.0, 0.0, 0.0)];
        let text = render(&report, Lang::En);
        assert!(text.contains("| 10 | 0.00% | 0 | – | 🔴 poor |"), "{text}");
        assert!(text.contains("| – | – | – | – | – | – | 1.25 |"), "{text}");
    }

    #[test]
    fn commands_can_be_pasted() {
        let words = ["a", "--header", "X: it's", ""].map(str::to_owned);
        assert_eq!(command(&words), r"a --header 'X: it'\''s' ''");
    }
}
