//! What the sparkline and the rates are made of: a sample a second of the last five minutes.
//!
//! Owns the samples. Never reads a clock: their times are the server's.

use std::collections::{BTreeMap, VecDeque};

use super::figures::{Figures, Proxy};

/// How far back the samples go.
const SPAN_MS: u64 = 300_000;
/// Rates made from totals are over so long, as the server's own.
const WINDOW_MS: u64 = 10_000;

/// Names of the classes of status.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[derive(Clone, Debug)]
struct Sample {
    at_ms: u64,
    uptime: f64,
    per_second: f64,
    responses: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
    workers: Vec<u64>,
}

/// Samples of one process, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Sample>);

impl History {
    /// Takes in the figures of now.
    pub fn add(&mut self, figures: &Figures) {
        let (at_ms, proxy) = (figures.server.timestamp, &figures.server.proxy);
        // Another process answers, or the clock was put back: totals and times begin anew.
        if self.0.back().is_some_and(|last| proxy.uptime < last.uptime || at_ms < last.at_ms) {
            self.0.clear();
        }
        self.0.push_back(Sample {
            at_ms,
            uptime: proxy.uptime,
            per_second: proxy.requests.per_second,
            responses: proxy.responses.clone(),
            reasons: proxy.reasons.clone(),
            workers: proxy.workers.iter().map(|worker| worker.requests).collect(),
        });
        while self.0.front().is_some_and(|first| at_ms - first.at_ms > SPAN_MS) {
            self.0.pop_front();
        }
    }

    /// Requests a second, newest first, one for each of so many seconds; `None` where nothing is known of it.
    pub fn per_second(&self, seconds: usize) -> Vec<Option<f64>> {
        let mut told = vec![None; seconds];
        let Some(last) = self.0.back() else { return told };
        for sample in &self.0 {
            let ago = (last.at_ms - sample.at_ms + 500) / 1000;
            if let Some(place) = told.get_mut(ago as usize) {
                *place = Some(sample.per_second);
            }
        }
        told
    }

    /// Answers a second of a class of status, over the last ten seconds.
    pub fn answers_per_second(&self, class: &str) -> Option<f64> {
        self.per(|sample| sample.responses.get(class).copied().unwrap_or(0))
    }

    /// Requests a second of the worker at that place, over the last ten seconds.
    pub fn worker_per_second(&self, at: usize) -> Option<f64> {
        self.per(|sample| sample.workers.get(at).copied().unwrap_or(0))
    }

    fn per(&self, total: impl Fn(&Sample) -> u64) -> Option<f64> {
        let now = self.0.back()?;
        // Half a second less, as the ticks of two clocks are never the same.
        let is_old = |sample: &&Sample| now.at_ms - sample.at_ms >= WINDOW_MS - 500;
        let then = self.0.iter().rev().find(is_old).or(self.0.front())?;
        let seconds = (now.at_ms - then.at_ms) as f64 / 1000.0;
        (seconds > 0.0).then(|| total(now).saturating_sub(total(then)) as f64 / seconds)
    }

    /// The reasons of `proxy` with how often each came: since its start, and since the oldest sample. What came lately
    /// comes first.
    pub fn reasons<'p>(&self, proxy: &'p Proxy) -> Vec<(&'p str, u64, u64)> {
        let before = |code: &str| self.0.front().and_then(|first| first.reasons.get(code)).copied().unwrap_or(0);
        let told =
            proxy.reasons.iter().map(|(code, &total)| (code.as_str(), total, total.saturating_sub(before(code))));
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|&(_, total, recent)| std::cmp::Reverse((recent, total)));
        told
    }

    /// Seconds from the oldest sample to the newest.
    pub fn seconds(&self) -> u64 {
        self.0.back().zip(self.0.front()).map_or(0, |(last, first)| (last.at_ms - first.at_ms + 500) / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::figures::{Server, Worker};

    fn figures(second: u64, uptime: f64, requests: u64) -> Figures {
        let counted = |name: &str| BTreeMap::from([(name.to_owned(), requests)]);
        let proxy = Proxy {
            uptime,
            responses: counted("2xx"),
            reasons: counted("no_route"),
            workers: vec![Worker { requests, ..Worker::default() }],
            requests: crate::cli::top::figures::Requests { per_second: requests as f64, ..Default::default() },
            ..Proxy::default()
        };
        let server = Server { timestamp: 1_000_000 + second * 1000, proxy, ..Server::default() };
        Figures { server, ready: true, ..Figures::default() }
    }

    #[test]
    fn rates_are_of_the_last_ten_seconds() {
        let mut history = History::default();
        history.add(&figures(0, 5.0, 100));
        assert_eq!(history.answers_per_second("2xx"), None, "one look tells no rate");
        for second in 1..=20 {
            history.add(&figures(second, 5.0 + second as f64, 100 + second * second));
        }
        assert_eq!(history.answers_per_second("2xx"), Some((400.0 - 100.0) / 10.0));
        assert_eq!(history.answers_per_second("5xx"), Some(0.0));
        assert_eq!(history.worker_per_second(0), Some(30.0));
        assert_eq!(history.worker_per_second(7), Some(0.0));
        let last = figures(20, 25.0, 500);
        assert_eq!(history.reasons(&last.server.proxy), [("no_route", 500, 400)]);
        assert_eq!(history.seconds(), 20);
    }

    #[test]
    fn a_second_without_a_sample_stays_empty() {
        let mut history = History::default();
        [0, 1, 4].iter().for_each(|&second| history.add(&figures(second, second as f64, second)));
        assert_eq!(history.per_second(6), [Some(4.0), None, None, Some(1.0), Some(0.0), None]);
        assert_eq!(history.per_second(2), [Some(4.0), None]);
    }

    #[test]
    fn samples_end_after_five_minutes_and_with_their_process() {
        let mut history = History::default();
        (0..=400).for_each(|second| history.add(&figures(second, second as f64, second)));
        assert_eq!(history.seconds(), 300);
        history.add(&figures(401, 0.5, 3));
        assert_eq!((history.seconds(), history.answers_per_second("2xx")), (0, None));
    }
}
