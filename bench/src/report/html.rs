//! A report as one HTML file that needs nothing else: tables, and plots as SVG. Readable in the dark and on a phone.
//!
//! Owns the page. Never a figure of its own: the tables are those of `markdown`.

use super::plot::{Plot, Scale, Series};
use super::words::{latency, round};
use super::{Lang, Report, Stage, markdown};
use crate::load::Slice;
use std::fmt::Write as _;

const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fff;--text:#1c2024;--dim:#5c6670;--rule:#d8dde2;--card:#f6f8fa;
--c0:#0b66c2;--c1:#c2410c;--c2:#0f7a52;--c3:#9d2d86;--c4:#8a6a00;--c5:#3c6e8f}
@media (prefers-color-scheme:dark){:root{--back:#14181c;--text:#e4e8ec;--dim:#9aa5b0;--rule:#333b43;--card:#1c2228;
--c0:#6bb2ff;--c1:#ff9a62;--c2:#4fd6a0;--c3:#f08bdc;--c4:#e8c35a;--c5:#8fc7ea}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:84rem;background:var(--back);color:var(--text);
font:16px/1.5 system-ui,-apple-system,'Segoe UI','Noto Sans','Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif}
h1{font-size:1.6rem;margin:.5rem 0 1rem}h2{font-size:1.2rem;margin:2rem 0 .6rem}h3{font-size:1rem;margin:.2rem 0 .4rem}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;min-width:100%}
th,td{padding:.35rem .7rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th{color:var(--dim);font-weight:600}
th:first-child,td:first-child,.left th,.left td{text-align:left}
.left td{white-space:normal;overflow-wrap:anywhere}
.plots{margin-top:1.2rem;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem}
figure{margin:0;padding:.8rem;background:var(--card);border:1px solid var(--rule);border-radius:.5rem}
figcaption{font-weight:600;margin-bottom:.3rem}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--dim);font-size:12px}
.grid{stroke:var(--rule);stroke-width:1}
.line{fill:none;stroke-width:2}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1);stroke-dasharray:7 3}.s2{stroke:var(--c2);stroke-dasharray:2 3}
.s3{stroke:var(--c3);stroke-dasharray:9 3 2 3}.s4{stroke:var(--c4);stroke-dasharray:4 4}.s5{stroke:var(--c5)}
.dot{fill:var(--card);stroke-width:2;stroke-dasharray:none}
pre{padding:.8rem;background:var(--card);border:1px solid var(--rule);border-radius:.5rem;overflow-x:auto}
.end{padding:.6rem .8rem;border-left:4px solid var(--c1);background:var(--card)}
";

/// The whole page.
pub fn render(report: &Report, lang: Lang) -> String {
    let words = lang.words();
    let mut page = page_head(words.title, words.code);
    let _ = write!(page, "<h2>{}</h2>\n{}", words.results, markdown_table(&markdown::summary(report, lang)));
    if let Some(end) = lang.end(report.end) {
        let _ = writeln!(page, "<p class=\"end\">{}</p>", escape(end));
    }
    page.push_str(&plots(report, lang));
    let rows = |row: fn(&Stage, Lang) -> Vec<String>| report.stages.iter().map(move |stage| row(stage, lang));
    let _ = write!(
        page,
        "<h2>{}</h2>\n{}",
        words.details,
        table(&markdown::detail_heads(words), rows(markdown::detail_row), "")
    );
    if report.stages.iter().any(|stage| stage.open_loop.is_some()) {
        let kept = report.stages.iter().filter_map(|stage| markdown::open_row(stage, lang));
        let _ = write!(page, "<h2>{}</h2>\n{}", words.open_loop, table(&markdown::open_heads(words), kept, ""));
    }
    if report.stages.iter().any(|stage| stage.total.failed > 0) {
        let failed = table(&markdown::failure_heads(words), rows(markdown::failure_row), "");
        let _ = write!(page, "<h2>{}</h2>\n{failed}", words.failures);
    }
    let facts = markdown::facts(report, words).into_iter().map(|(name, value)| vec![name, value]);
    let facts = table(&[words.setting, words.value], facts, "left");
    let command = escape(&markdown::command(&report.command));
    let _ = write!(page, "<h2>{}</h2>\n{facts}", words.environment);
    let _ = writeln!(page, "<h2>{}</h2>\n<pre>{command}</pre>", words.repeat);
    if !report.notes.is_empty() {
        let list: String = report.notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        let _ = writeln!(page, "<h2>{}</h2>\n<ul>\n{list}</ul>", words.notes);
    }
    page + "</body>\n</html>\n"
}

/// Everything up to the first heading, that included.
pub(super) fn page_head(title: &str, lang: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"{lang}\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n",
        title = escape(title)
    )
}

/// What stands for itself in HTML, attributes included.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A table of Markdown as one of HTML; no cell in it has a bar.
pub(super) fn markdown_table(text: &str) -> String {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let mut lines = text.lines();
    let head = cells(lines.next().unwrap_or_default());
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    table(&head, lines.skip(1).map(cells), "")
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>, class: &str) -> String {
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| -> String {
        cells.map(|cell| format!("<{tag}>{}</{tag}>", escape(&cell))).collect()
    };
    let head = cells("th", &mut head.iter().map(|name| (*name).to_owned()));
    let body: String = rows.map(|row| format!("<tr>{}</tr>\n", cells("td", &mut row.into_iter()))).collect();
    format!(
        "<div class=\"wide {class}\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
    )
}

fn plots(report: &Report, lang: Lang) -> String {
    let words = lang.words();
    let over = |value: &dyn Fn(&Stage) -> Option<f64>| -> Vec<(f64, f64)> {
        report.stages.iter().filter_map(|stage| Some((stage.concurrency as f64, value(stage)?))).collect()
    };
    let one = |name: &str, points| vec![Series { name: name.to_owned(), points }];
    let stages = |title, y_scale, y_range, y_text, series| Plot {
        title,
        x_name: words.connections_axis,
        x_scale: Scale::Log,
        x_marks: marks(report),
        y_scale,
        y_range,
        y_text,
        series,
    };
    let success = over(&|stage| Some(stage.success_percent));
    let rps = over(&|stage| Some(stage.rps));
    // In MiB, so that the axis has round numbers of them.
    let memory = over(&|stage| stage.memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20)));
    type Of = fn(&Stage) -> f64;
    let percentiles: [(&str, Of); 5] = [
        ("p50", |stage| stage.latency_us.p50),
        ("p95", |stage| stage.latency_us.p95),
        ("p99", |stage| stage.latency_us.p99),
        ("p99.9", |stage| stage.latency_us.p99_9),
        (words.max, |stage| stage.latency_us.max),
    ];
    let latencies = percentiles
        .into_iter()
        .map(|(name, of)| Series { name: name.into(), points: over(&|stage| Some(of(stage)).filter(|us| *us > 0.0)) });
    let mut all = vec![
        stages(words.success_plot, Scale::Linear, Some((0.0, 100.0)), round, one("", success)),
        stages(words.rps_plot, Scale::Linear, None, compact, one("", rps)),
        stages(words.latency_plot, Scale::Log, None, latency, latencies.collect()),
    ];
    if !memory.is_empty() {
        all.push(stages(words.memory_plot, Scale::Linear, None, mebibytes, one("", memory)));
    }
    let figure = |title: &str, plot: &Plot| -> String {
        format!("<figure><figcaption>{}</figcaption>\n{}</figure>\n", escape(title), plot.svg())
    };
    let mut html: String = all.iter().map(|plot| figure(plot.title, plot)).collect();
    for stage in report.stages.iter().filter(|stage| stage.slices.len() > 1) {
        let title = format!("{} · {}", words.time_plot, markdown::row_name(stage, lang));
        html.push_str(&figure(&title, &over_time(stage, &title, words.seconds_axis, words.max)));
    }
    format!("<div class=\"plots\">\n{html}</div>\n")
}

/// Where stages are on the axis: all of them, unless they are too many to be told apart.
fn marks(report: &Report) -> Vec<(f64, String)> {
    let every = report.stages.len().div_ceil(8).max(1);
    let stages = report.stages.iter().step_by(every);
    stages.map(|stage| (stage.concurrency as f64, compact(stage.concurrency as f64))).collect()
}

fn mebibytes(number: f64) -> String {
    format!("{} MiB", round(number))
}

/// `25k`, `1.5M`.
fn compact(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", round(n / 1e6)),
        n if n >= 1e3 => format!("{}k", round(n / 1e3)),
        n => round(n),
    }
}

fn over_time<'a>(stage: &Stage, title: &'a str, x_name: &'a str, max: &str) -> Plot<'a> {
    type Of = fn(&Slice) -> f64;
    let lines: [(&str, Of); 3] =
        [("p50", |slice| slice.p50_us), ("p99", |slice| slice.p99_us), (max, |slice| slice.max_us)];
    let series = lines.map(|(name, of)| {
        let mut end = 0.0;
        let mut points = Vec::new();
        for slice in &stage.slices {
            end += slice.seconds;
            if of(slice) > 0.0 {
                points.push((end, of(slice)));
            }
        }
        Series { name: name.to_owned(), points }
    });
    Plot {
        title,
        x_name,
        x_scale: Scale::Linear,
        x_marks: Vec::new(),
        y_scale: Scale::Log,
        y_range: None,
        y_text: latency,
        series: series.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_page_needs_nothing_else_and_has_all_plots() {
        let page = render(&report(), Lang::En);
        // Four over the stages, and one over time for each stage.
        assert_eq!(page.matches("<svg ").count(), 8);
        for piece in ["<link", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(piece), "{piece}");
        }
        assert!(page.contains("<html lang=\"en\">") && page.contains("prefers-color-scheme:dark"));
        assert!(page.contains("A &lt;CPU&gt; &amp; more") && !page.contains("<CPU>"));
        assert!(page.contains("<td>5,000</td><td>97.35%</td><td>6,149</td><td>866ms</td><td>🟡 good</td>"), "{page}");
    }

    #[test]
    fn chinese_pages_have_the_forerunners_columns() {
        let page = render(&report(), Lang::Zh);
        let head = "<th>并发数</th><th>成功率</th><th>RPS</th><th>平均延迟</th><th>性能等级</th><th>结论</th>";
        assert!(page.contains("<html lang=\"zh-CN\">") && page.contains(head), "{page}");
        assert!(page.contains("<figcaption>延迟随时间的变化 · 10万并发</figcaption>"));
    }

    #[test]
    fn every_tag_is_closed() {
        let page = render(&report(), Lang::Zh);
        for tag in ["table", "tr", "td", "th", "div", "figure", "svg", "ul", "li", "pre", "h2", "p"] {
            let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
