//! Two reports side by side: by stage, what got better or worse by more than it wavers by itself.
//!
//! Owns that judgement. Never measures: how much a figure wavers is taken from the slices of both stages.

use super::words::{grouped, latency, percent, round, size};
use super::{Lang, Report, Stage, html, markdown};
use crate::load::Slice;
use serde::Serialize;
use std::fmt::Write as _;

/// Differences under this are none, whatever the slices say: two runs of the same differ as much.
const RATIO_NOISE_MIN: f64 = 0.05;
/// Standard errors that a difference has to be above.
const ERRORS_MIN: f64 = 3.0;
/// Groups of neighbouring slices whose means are taken as independent of each other: what slows a machine down for a
/// moment slows down several slices in a row.
const GROUP_COUNT: usize = 6;
/// Differences of memory under this are none, in bytes: the allocator's, not the program's.
const MEMORY_BYTES_MIN: f64 = (1 << 20) as f64;
/// Stands for a figure of 0 in a ratio.
const LEAST: f64 = 1e-3;
/// Differences of the success rate under this are none, in percentage points.
const SUCCESS_POINTS_MIN: f64 = 0.01;

/// Two reports compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Versus {
    /// When the first one began.
    pub a: String,
    /// When the second one began.
    pub b: String,
    /// What is not the same around them: (what, in A, in B).
    pub differs: Vec<(String, String, String)>,
    /// By stage, those that both have.
    pub rows: Vec<Row>,
    /// Stages of A alone.
    pub only_a: Vec<u64>,
    /// Stages of B alone.
    pub only_b: Vec<u64>,
}

/// One figure of one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Connections at once.
    pub concurrency: u64,
    /// Which figure.
    pub measure: Measure,
    /// Of A.
    pub a: f64,
    /// Of B.
    pub b: f64,
    /// `b / a`; of the success rate the difference in percentage points.
    pub change: f64,
    /// A change of so much, either way, may be chance.
    pub noise: f64,
    /// What it means.
    pub verdict: Verdict,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Measure {
    SuccessPercent,
    Rps,
    MeanUs,
    P50Us,
    P99Us,
    CpuUsPerRequest,
    MemoryBytes,
}

/// Whether B is better than A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Verdict {
    Better,
    Worse,
    Same,
}

impl Measure {
    const ALL: [Measure; 7] = [
        Measure::SuccessPercent,
        Measure::Rps,
        Measure::MeanUs,
        Measure::P50Us,
        Measure::P99Us,
        Measure::CpuUsPerRequest,
        Measure::MemoryBytes,
    ];

    fn of(self, stage: &Stage) -> Option<f64> {
        let positive = |value: f64| Some(value).filter(|value| *value > 0.0);
        match self {
            Measure::SuccessPercent => Some(stage.success_percent),
            Measure::Rps => Some(stage.rps),
            Measure::MeanUs => positive(stage.latency_us.mean),
            Measure::P50Us => positive(stage.latency_us.p50),
            Measure::P99Us => positive(stage.latency_us.p99),
            Measure::CpuUsPerRequest => positive(stage.cpu? * 1e6 / positive(stage.rps)?),
            Measure::MemoryBytes => stage.memory_bytes.and_then(|bytes| positive(bytes as f64)),
        }
    }

    /// What wavers from slice to slice as the figure does from run to run.
    fn of_slice(self, slice: &Slice) -> Option<f64> {
        match self {
            Measure::Rps | Measure::CpuUsPerRequest => Some(slice.ok as f64 / slice.seconds.max(1e-9)),
            Measure::MeanUs | Measure::P50Us => Some(slice.p50_us),
            Measure::P99Us => Some(slice.p99_us),
            Measure::SuccessPercent | Measure::MemoryBytes => None,
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Measure::SuccessPercent | Measure::Rps)
    }

    fn name(self, lang: Lang) -> &'static str {
        let words = lang.words();
        match self {
            Measure::SuccessPercent => words.success,
            Measure::Rps => "RPS",
            Measure::MeanUs => words.mean,
            Measure::P50Us => "p50",
            Measure::P99Us => "p99",
            Measure::CpuUsPerRequest => words.cpu_each,
            Measure::MemoryBytes => words.memory,
        }
    }

    fn text(self, value: f64) -> String {
        match self {
            Measure::SuccessPercent => percent(value),
            Measure::Rps => grouped(value.round() as u64),
            Measure::MeanUs | Measure::P50Us | Measure::P99Us | Measure::CpuUsPerRequest => latency(value),
            Measure::MemoryBytes => size(value),
        }
    }

    fn change(self, a: f64, b: f64) -> f64 {
        match self {
            Measure::SuccessPercent => b - a,
            // Nothing at all, in both: no change.
            _ if a == b => 1.0,
            // A figure of 0 has no ratio: it counts as this little.
            _ => b.max(LEAST) / a.max(LEAST),
        }
    }

    fn change_text(self, change: f64) -> String {
        if self == Measure::SuccessPercent { format!("{change:+.2}") } else { format!("{change:.2}") }
    }
}

/// How far the mean of a figure may be off by chance, as a share of it.
fn wavering(stage: &Stage, measure: Measure) -> f64 {
    let values: Vec<f64> = stage.slices.iter().filter_map(|slice| measure.of_slice(slice)).collect();
    let mean_of = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let groups: Vec<f64> = values.chunks(values.len().div_ceil(GROUP_COUNT).max(1)).map(mean_of).collect();
    let (count, mean) = (groups.len() as f64, mean_of(&groups));
    if count < 3.0 || mean <= 0.0 {
        return 0.0;
    }
    let variance = groups.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    ERRORS_MIN * (variance / count).sqrt() / mean
}

fn row(a: &Stage, b: &Stage, measure: Measure) -> Option<Row> {
    let (of_a, of_b) = (measure.of(a)?, measure.of(b)?);
    let change = measure.change(of_a, of_b);
    let (noise, above) = match measure {
        Measure::SuccessPercent => (SUCCESS_POINTS_MIN, change),
        _ => {
            let both = (wavering(a, measure).powi(2) + wavering(b, measure).powi(2)).sqrt();
            (both.max(RATIO_NOISE_MIN), change.ln())
        }
    };
    let bound = if measure == Measure::SuccessPercent { noise } else { noise.ln_1p() };
    let little = measure == Measure::MemoryBytes && (of_b - of_a).abs() < MEMORY_BYTES_MIN;
    let verdict = match above {
        x if x.abs() <= bound || little => Verdict::Same,
        x if (x > 0.0) == measure.more_is_better() => Verdict::Better,
        _ => Verdict::Worse,
    };
    Some(Row { concurrency: a.concurrency, measure, a: of_a, b: of_b, change, noise, verdict })
}

impl Versus {
    /// Of two reports.
    pub fn new(a: &Report, b: &Report) -> Versus {
        let same = |stage: &Stage, other: &Report| {
            other.stages.iter().find(|theirs| theirs.concurrency == stage.concurrency).cloned()
        };
        let pairs = a.stages.iter().filter_map(|stage| Some((stage, same(stage, b)?)));
        let only = |one: &Report, other: &Report| -> Vec<u64> {
            one.stages.iter().filter(|stage| same(stage, other).is_none()).map(|stage| stage.concurrency).collect()
        };
        Versus {
            a: a.began.clone(),
            b: b.began.clone(),
            differs: differences(a, b),
            rows: pairs
                .flat_map(|(of_a, of_b)| Measure::ALL.into_iter().filter_map(move |measure| row(of_a, &of_b, measure)))
                .collect(),
            only_a: only(a, b),
            only_b: only(b, a),
        }
    }

    /// As a table of Markdown, with what is different around it.
    pub fn markdown(&self, lang: Lang) -> String {
        let mut text =
            format!("# {}\n\nA: {}\n\nB: {}\n\n{}", lang.words().versus_title, self.a, self.b, self.table(lang));
        for line in self.remarks(lang) {
            let _ = write!(text, "\n{line}\n");
        }
        text
    }

    /// As a page.
    pub fn html(&self, lang: Lang) -> String {
        let words = lang.words();
        let mut page = html::page_head(words.versus_title, words.code);
        let _ = writeln!(page, "<p>A: {}<br>B: {}</p>", html::escape(&self.a), html::escape(&self.b));
        page.push_str(&html::markdown_table(&self.table(lang)));
        for line in self.remarks(lang) {
            let _ = writeln!(page, "<p>{}</p>", html::escape(&line));
        }
        page + "</body>\n</html>\n"
    }

    fn table(&self, lang: Lang) -> String {
        let words = lang.words();
        let head = [words.concurrency, words.measure, "A", "B", words.ratio, words.noise, words.verdict];
        let rows = self.rows.iter().map(|row| {
            let noise = match row.measure {
                Measure::SuccessPercent => format!("±{:.2}", row.noise),
                _ => format!("±{}%", round(row.noise * 100.0)),
            };
            vec![
                lang.connections(row.concurrency),
                row.measure.name(lang).to_owned(),
                row.measure.text(row.a),
                row.measure.text(row.b),
                row.measure.change_text(row.change),
                noise,
                verdict_text(row.verdict, lang).to_owned(),
            ]
        });
        markdown::table(&head, rows)
    }

    /// Stages without a partner, and what is different around the figures.
    fn remarks(&self, lang: Lang) -> Vec<String> {
        let words = lang.words();
        let mut lines = Vec::new();
        for (name, stages) in [("A", &self.only_a), ("B", &self.only_b)] {
            if !stages.is_empty() {
                let list: Vec<String> = stages.iter().map(|count| lang.connections(*count)).collect();
                lines.push(format!("{} {name}: {}", words.only_in, list.join(", ")));
            }
        }
        for (what, a, b) in &self.differs {
            lines.push(format!("{} {what}: A {a}, B {b}", words.differs));
        }
        lines
    }
}

fn verdict_text(verdict: Verdict, lang: Lang) -> &'static str {
    let words = lang.words();
    match verdict {
        Verdict::Better => words.better,
        Verdict::Worse => words.worse,
        Verdict::Same => words.same,
    }
}

/// What is not the same around two reports, so that nobody takes a machine's difference for a program's.
fn differences(a: &Report, b: &Report) -> Vec<(String, String, String)> {
    let of = |report: &Report| {
        let machine = &report.machine;
        let mut all = machine.settings.clone();
        all.insert("CPU".into(), machine.cpu.clone());
        all.insert("CPUs".into(), machine.cpus.to_string());
        all.insert("kernel".into(), machine.kernel.clone());
        all.insert("load".into(), report.load.clone());
        all.insert("tool".into(), report.tool.clone());
        let partial = report.stages.iter().filter(|stage| stage.partial).map(|stage| stage.concurrency.to_string());
        all.extend(partial.map(|count| (format!("stage {count}"), "in part".to_owned())));
        if let Some(version) = report.process.as_ref().and_then(|process| process.version.clone()) {
            all.insert("process".into(), version);
        }
        all
    };
    let (of_a, of_b) = (of(a), of(b));
    let names: std::collections::BTreeSet<&String> = of_a.keys().chain(of_b.keys()).collect();
    let text = |value: Option<&String>| value.cloned().unwrap_or_else(|| "–".into());
    let pairs = names.into_iter().map(|name| (name.clone(), text(of_a.get(name)), text(of_b.get(name))));
    pairs.filter(|(_, a, b)| a != b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{report, stage};

    fn verdict(versus: &Versus, concurrency: u64, measure: Measure) -> Verdict {
        let row = versus.rows.iter().find(|row| (row.concurrency, row.measure) == (concurrency, measure));
        row.unwrap().verdict
    }

    #[test]
    fn the_same_report_has_no_difference() {
        let versus = Versus::new(&report(), &report());
        assert_eq!(versus.rows.len(), 4 * 7);
        assert!(versus.rows.iter().all(|row| row.verdict == Verdict::Same) && versus.differs.is_empty());
    }

    #[test]
    fn better_and_worse_are_what_they_mean_for_each_figure() {
        let mut b = report();
        b.machine.kernel = "Linux 7".into();
        b.stages = vec![stage(1_000, 99.5, 30_000.0, 300.0), stage(9, 100.0, 1.0, 1.0)];
        let versus = Versus::new(&report(), &b);
        assert_eq!(verdict(&versus, 1_000, Measure::SuccessPercent), Verdict::Worse);
        assert_eq!(verdict(&versus, 1_000, Measure::Rps), Verdict::Better);
        assert_eq!(verdict(&versus, 1_000, Measure::P99Us), Verdict::Better);
        assert_eq!(verdict(&versus, 1_000, Measure::MemoryBytes), Verdict::Same);
        assert_eq!((&versus.only_a[..], &versus.only_b[..]), (&[5_000, 25_000, 100_000][..], &[9][..]));
        let text = versus.markdown(Lang::En);
        assert!(text.contains("| 1,000 | RPS | 25,000 | 30,000 | 1.20 | ±5% | better |"), "{text}");
        assert!(text.contains("| 1,000 | Success rate | 100.00% | 99.50% | -0.50 | ±0.01 | worse |"), "{text}");
        assert!(text.contains("They differ in kernel: A Linux 6, B Linux 7"), "{text}");
        assert!(text.contains("Only in A: 5,000, 25,000, 100,000"), "{text}");
        assert!(versus.html(Lang::Zh).contains("<td>1千并发</td><td>RPS</td><td>25,000</td><td>30,000</td>"));
    }

    #[test]
    fn a_stage_that_answered_nothing_is_worse_and_makes_no_figure_of_nothing() {
        let (a, mut b) = (report(), report());
        b.stages[0] = Stage { rps: 0.0, partial: true, slices: Vec::new(), ..stage(1_000, 0.0, 0.0, 0.0) };
        let versus = Versus::new(&a, &b);
        assert_eq!(verdict(&versus, 1_000, Measure::Rps), Verdict::Worse);
        assert_eq!(verdict(&Versus::new(&b, &b), 1_000, Measure::Rps), Verdict::Same);
        let of_stage = |row: &&Row| row.concurrency == 1_000;
        assert!(versus.rows.iter().filter(of_stage).all(|row| row.change.is_finite() && row.noise.is_finite()));
        assert!(!versus.rows.iter().filter(of_stage).any(|row| row.measure == Measure::CpuUsPerRequest));
        assert!(versus.markdown(Lang::En).contains("They differ in stage 1000: A –, B in part"), "{versus:?}");
    }

    #[test]
    fn what_wavers_much_has_to_change_much() {
        let (mut a, mut b) = (report(), report());
        for (report, factor) in [(&mut a, 1.0), (&mut b, 1.1)] {
            let stage = &mut report.stages[0];
            stage.rps *= factor;
            for (at, slice) in stage.slices.iter_mut().enumerate() {
                slice.ok = (stage.rps * if at % 4 < 2 { 0.6 } else { 1.4 }) as u64;
            }
        }
        assert_eq!(verdict(&Versus::new(&a, &b), 1_000, Measure::Rps), Verdict::Same);
    }
}
