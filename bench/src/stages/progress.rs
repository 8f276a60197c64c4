//! Progress on stderr: a bar where there is a terminal, lines where there is none.
//!
//! Owns how it looks. Never anything that a script should read: that is stdout, and the report.

use crate::load::{Glimpse, Phase};
use crate::report::words::percent;
use crate::report::{Lang, Stage, markdown};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;

/// Steps of a bar.
const STEPS: u64 = 1_000;

/// Where progress is shown.
pub(super) struct Progress {
    bars: bool,
}

/// That of one stage.
pub(super) struct Bar {
    bar: Option<ProgressBar>,
    connections: u64,
    /// What was shown last, where there is no bar.
    shown: Cell<Option<Phase>>,
}

impl Progress {
    /// As stderr is.
    pub fn new() -> Progress {
        Progress { bars: std::io::stderr().is_terminal() }
    }

    /// A line.
    pub fn say(&self, text: &str) {
        eprintln!("speedmimi-bench: {text}");
    }

    /// Begins a stage.
    pub fn stage(&self, connections: u64) -> Bar {
        let bar = self.bars.then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr_with_hz(10));
            // The template is fixed: if it were wrong, the plain bar would do.
            if let Ok(style) = ProgressStyle::with_template("{prefix:>9} {bar:30} {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(connections.to_string());
            bar
        });
        Bar { bar, connections, shown: Cell::new(None) }
    }

    /// Tells what came of a stage.
    pub fn result(&self, stage: &Stage, lang: Lang) {
        let us = stage.latency_us;
        eprintln!(
            "{}: {} of {} answered, {:.0} a second, mean {:.1} ms, p99 {:.1} ms, {}",
            markdown::row_name(stage, lang),
            percent(stage.success_percent),
            stage.total.ok + stage.total.failed,
            stage.rps,
            us.mean / 1e3,
            us.p99 / 1e3,
            lang.grade(stage.grade),
        );
    }
}

impl Bar {
    /// Shows how far it has come.
    pub fn show(&self, glimpse: &Glimpse) {
        let Some(bar) = &self.bar else {
            if self.shown.replace(Some(glimpse.phase)) != Some(glimpse.phase) {
                eprintln!("{} connections: {}", self.connections, name(glimpse.phase));
            }
            return;
        };
        let share = match glimpse.phase {
            Phase::Ramp => glimpse.settled as f64 / glimpse.loops.max(1) as f64,
            Phase::Warmup | Phase::Window | Phase::Drain => glimpse.share,
        };
        bar.set_position((share * STEPS as f64) as u64);
        let failed = glimpse.counts.failed;
        bar.set_message(format!("{}, {} answered, {failed} failed", name(glimpse.phase), glimpse.counts.ok));
    }

    /// Clears it.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Ramp => "opening",
        Phase::Warmup => "warming up",
        Phase::Window => "measuring",
        Phase::Drain => "ending",
    }
}
