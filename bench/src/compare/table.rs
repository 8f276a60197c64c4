//! The result as Markdown: facts, CPU per request, growth, memory.
//!
//! Owns the layout and which ratios are shown. Never measures.

use super::{Idle, IdleKind, Measure, Program, Results, Round, Scenario};
use crate::stats::{median, paired_ratio};
use std::collections::BTreeSet;
use std::fmt::Write;

/// The whole report.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    facts(&mut text, results);
    cpu(&mut text, results);
    growth(&mut text, results);
    idle(&mut text, results);
    text
}

fn facts(text: &mut String, results: &Results) {
    for fact in &results.facts {
        line(text, format_args!("- {fact}"));
    }
}

/// All rounds of one program in one scenario.
struct Series<'a>(Vec<&'a Round>);

impl<'a> Series<'a> {
    fn of(results: &'a Results, scenario: Scenario, program: Program) -> Series<'a> {
        let Scenario { measure, connections, body } = scenario;
        let mine = |r: &&Round| (r.measure, r.connections, r.body, r.program) == (measure, connections, body, program);
        Series(results.rounds.iter().filter(mine).collect())
    }

    fn cpu_us(&self) -> Vec<f64> {
        self.0.iter().filter_map(|r| r.load.process.as_ref()).map(|p| p.cpu_us_per_request).collect()
    }

    fn median_of(&self, figure: impl Fn(&Round) -> f64) -> f64 {
        median(&self.0.iter().map(|r| figure(r)).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    }
}

fn cpu(text: &mut String, results: &Results) {
    if results.rounds.is_empty() {
        return;
    }
    text.push_str("\nCPU time per answered request, medians; ratios are medians of those of each round.\n\n");
    text.push_str(
        "| measure | body | connections | program | µs | to the better of nginx and HAProxy | to the bare relay ",
    );
    text.push_str("| requests/s | mean ms | p99 ms | CPU busy | load's share | resumed | failed | violations |\n");
    text.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for scenario in scenarios(results) {
        let Scenario { measure, connections, body } = scenario;
        let better = better_peer(results, scenario);
        let relay = cpu_of(results, scenario, Program::Relay);
        for program in Program::ALL {
            let series = Series::of(results, scenario, program);
            if series.0.is_empty() {
                continue;
            }
            let us = series.cpu_us();
            line(
                text,
                format_args!(
                    "| {measure} | {body} | {connections} | {} | {} | {} | {} | {:.0} | {:.2} | {:.2} | {:.0} % | {:.0} % | {} | {} | {} |",
                    program.name(),
                    two_digits(median(&us)),
                    two_digits(paired_ratio(&us, &better)),
                    two_digits(paired_ratio(&us, &relay)),
                    series.median_of(|r| r.load.rps),
                    series.median_of(|r| r.load.latency_us.mean / 1e3),
                    series.median_of(|r| r.load.latency_us.p99 / 1e3),
                    series.median_of(|r| 100.0 * r.load.process.as_ref().map_or(f64::NAN, |p| p.utilisation)),
                    series.median_of(|r| 100.0 * r.load.load_utilisation),
                    resumed(&series),
                    series.0.iter().map(|r| r.load.total.failed).sum::<u64>(),
                    series.0.iter().map(|r| r.violations).sum::<u64>(),
                ),
            );
        }
    }
}

/// The share of handshakes that resumed an earlier session.
fn resumed(series: &Series) -> String {
    let sum = |figure: fn(&Round) -> u64| series.0.iter().map(|r| figure(r)).sum::<u64>();
    match sum(|r| r.load.handshakes) {
        0 => "–".to_owned(),
        all => format!("{:.0} %", 100.0 * sum(|r| r.load.resumed) as f64 / all as f64),
    }
}

fn cpu_of(results: &Results, scenario: Scenario, program: Program) -> Vec<f64> {
    Series::of(results, scenario, program).cpu_us()
}

/// The rounds of whichever of nginx and HAProxy took less at the median.
fn better_peer(results: &Results, scenario: Scenario) -> Vec<f64> {
    let peers = [Program::Nginx, Program::Haproxy].map(|program| cpu_of(results, scenario, program));
    let measured = peers.into_iter().filter(|us| !us.is_empty());
    let by_median = |us: &Vec<f64>| median(us).unwrap_or(f64::INFINITY);
    measured.min_by(|a, b| by_median(a).total_cmp(&by_median(b))).unwrap_or_default()
}

fn growth(text: &mut String, results: &Results) {
    for measure in results.rounds.iter().map(|r| r.measure).collect::<BTreeSet<_>>() {
        growth_of(text, results, measure);
    }
}

fn growth_of(text: &mut String, results: &Results, measure: Measure) {
    let rounds = || results.rounds.iter().filter(|r| r.measure == measure);
    let all: BTreeSet<u64> = rounds().map(|r| r.connections).collect();
    let (Some(&few), Some(&many)) = (all.first(), all.last()) else { return };
    if few == many {
        return;
    }
    line(
        text,
        format_args!("\n{measure}: growth of CPU time per request from {few} to {many} connections, medians.\n"),
    );
    text.push_str("| body | program | growth |\n|---|---|---|\n");
    let bodies: BTreeSet<usize> = rounds().map(|r| r.body).collect();
    for body in bodies {
        for program in Program::ALL {
            let at = |connections| cpu_of(results, Scenario { measure, connections, body }, program);
            if let Some(ratio) = paired_ratio(&at(many), &at(few)) {
                line(text, format_args!("| {body} | {} | {ratio:.2} |", program.name()));
            }
        }
    }
}

fn idle(text: &mut String, results: &Results) {
    if results.idle.is_empty() {
        return;
    }
    text.push_str("\nMemory per idle connection, in bytes: held while idle, less held after all were closed.\n\n");
    text.push_str("| kind | program | connections | user bytes each | against the fresh process ");
    text.push_str(
        "| kernel slab each, both ends | all busy at once | answered once more |\n|---|---|---|---|---|---|---|---|\n",
    );
    for Idle { program, kind, report } in &results.idle {
        line(
            text,
            format_args!(
                "| {} | {} | {} | {:.0} | {:.0} | {:.0} | {} | {} |",
                kind.name(),
                program.name(),
                report.answered,
                report.user_bytes_each,
                report.user_bytes_each_over_fresh,
                report.slab_bytes_each,
                match (kind, report.all_busy_at_once) {
                    (IdleKind::BusyAtOnce, true) => "yes",
                    (IdleKind::BusyAtOnce, false) => "NO",
                    _ => "–",
                },
                report.answered_again,
            ),
        );
    }
}

/// In the order that they were measured in.
fn scenarios(results: &Results) -> Vec<Scenario> {
    let mut seen: Vec<Scenario> = Vec::new();
    for round in &results.rounds {
        let scenario = Scenario { measure: round.measure, connections: round.connections, body: round.body };
        if !seen.contains(&scenario) {
            seen.push(scenario);
        }
    }
    seen
}

fn two_digits(figure: Option<f64>) -> String {
    figure.map_or_else(|| "–".to_owned(), |f| format!("{f:.2}"))
}

fn line(text: &mut String, content: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{content}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    fn round(connections: u64, round: usize, program: Program, cpu_us_per_request: f64) -> Round {
        let process = load::ProcessReport { cpu_us_per_request, utilisation: 0.9, user_bytes: 0 };
        let load = load::Report {
            connections,
            answered_connections: connections,
            total: load::Counts::default(),
            answered_percent: 100.0,
            statuses: Default::default(),
            window: load::Counts::default(),
            window_seconds: 1.0,
            rps: 1000.0,
            latency_us: load::Latency::default(),
            load_utilisation: 0.5,
            load_cpu_us_per_request: 5.0,
            handshakes: 0,
            resumed: 0,
            certificates: 0,
            handshake_failure: None,
            process: Some(process),
            open_loop: None,
            partial: false,
        };
        Round { measure: Measure::Http, connections, body: 100, round, program, load, violations: 0 }
    }

    #[test]
    fn ratios_are_of_the_same_round_and_to_the_better_peer() {
        let mut results = Results::default();
        // The second round is slow for everybody.
        for (i, factor) in [1.0, 3.0, 1.0].into_iter().enumerate() {
            for (program, us) in
                [(Program::Speedmimi, 9.0), (Program::Nginx, 12.0), (Program::Haproxy, 15.0), (Program::Relay, 6.0)]
            {
                results.rounds.push(round(64, i, program, us * factor));
                results.rounds.push(round(5000, i, program, 2.0 * us * factor));
            }
        }
        let text = markdown(&results);
        assert!(text.contains("| 100 | 64 | SpeedMimi | 9.00 | 0.75 | 1.50 |"), "{text}");
        assert!(text.contains("| 100 | 5000 | HAProxy | 30.00 | 1.25 | 2.50 |"), "{text}");
        assert!(text.contains("| 100 | SpeedMimi | 2.00 |"), "{text}");
    }
}
