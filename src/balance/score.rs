//! The performance rule: utilisation as backends report it, and headroom as the rule uses it.
//!
//! Owns the smoothing, the fading and the floor. Never takes a report off the wire's framing and never keeps the time.

use super::Algorithm;
use super::least_conn::{self, SCAN_MAX};
use super::load::Load;
use super::rng::Rng;
use super::roster::Roster;
use super::rotation::Rotation;

/// A report counts in full for so long, in milliseconds.
pub const FRESH_MS: u64 = 30_000;
/// And then fades to no influence over so long, in milliseconds.
pub const FADE_MS: u64 = 30_000;
/// The smallest headroom.
pub const HEADROOM_MIN: f32 = 0.05;
/// Time constant of the smoothing, in milliseconds: a report that comes so long after the last moves the utilisation
/// by 63 % of the difference, so that ten reports a second are smoothed and one in half a minute counts almost whole.
const SMOOTHING_MS: f32 = 5_000.0;
/// A backend's share never falls under its weight's share divided by this.
const FLOOR_DIVISOR: f64 = 20.0;

/// What a backend says about itself; each part within 0..=1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    cpu: f32,
    memory: f32,
    load: f32,
}

impl Report {
    /// CPU and memory in use as fractions, and the load average per CPU; above 1 counts as 1. `None` when a value is
    /// negative or not a number.
    pub fn new(cpu: f32, memory: f32, load: f32) -> Option<Self> {
        let part = |value: f32| (value >= 0.0).then(|| value.min(1.0));
        Some(Report { cpu: part(cpu)?, memory: part(memory)?, load: part(load)? })
    }

    /// From the value of `X-Backend-Load`: `cpu=0.42,mem=0.6,load=0.8`, in any order, with optional spaces. A part
    /// that is missing counts as 0, an unknown one is passed over; `None` when no known part is there, one is there
    /// twice, or a value makes no sense.
    pub fn parse(field: &str) -> Option<Self> {
        let mut parts = [None; 3];
        for item in field.split(',') {
            let (name, value) = item.split_once('=')?;
            let part = match name.trim() {
                "cpu" => &mut parts[0],
                "mem" => &mut parts[1],
                "load" => &mut parts[2],
                _ => continue,
            };
            if part.replace(value.trim().parse::<f32>().ok()?).is_some() {
                return None;
            }
        }
        parts.iter().any(Option::is_some).then_some(())?;
        let [cpu, memory, load] = parts.map(|part| part.unwrap_or(0.0));
        Report::new(cpu, memory, load)
    }

    /// 0.4 CPU + 0.4 memory + 0.2 load, within 0..=1.
    pub fn utilisation(self) -> f32 {
        0.4 * self.cpu + 0.4 * self.memory + 0.2 * self.load
    }
}

/// The smoothed utilisation of a backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Within 0..=1.
    pub utilisation: f32,
    /// When the last report came.
    pub reported_ms: u64,
}

impl Score {
    /// The score after `report`. Begins afresh when there was none or it has faded.
    pub fn after(last: Option<Score>, now_ms: u64, report: Report) -> Score {
        let sample = report.utilisation();
        let utilisation = match last {
            Some(last) if now_ms.saturating_sub(last.reported_ms) < FRESH_MS + FADE_MS => {
                let age_ms = now_ms.saturating_sub(last.reported_ms) as f32;
                last.utilisation + (sample - last.utilisation) * (1.0 - (-age_ms / SMOOTHING_MS).exp())
            }
            _ => sample,
        };
        Score { utilisation, reported_ms: now_ms }
    }

    /// 1 − utilisation within 0.05..=1; from 30 s to 60 s after the last report it goes back to 1.
    pub fn headroom(self, now_ms: u64) -> f32 {
        let headroom = (1.0 - self.utilisation).clamp(HEADROOM_MIN, 1.0);
        let stale_ms = now_ms.saturating_sub(self.reported_ms).saturating_sub(FRESH_MS).min(FADE_MS);
        headroom + (1.0 - headroom) * (stale_ms as f32 / FADE_MS as f32)
    }
}

/// Picks the smallest (in flight + 1) / (weight × headroom), unless a backend is due by the floor.
///
/// With many requests in flight the least headroom alone keeps the floor: requests in flight settle in proportion to
/// weight × headroom, and with headroom between 1/20 and 1 that is at least a twentieth of the weight's share. With
/// few it doesn't: an idle backend with headroom 1 always beats an idle one with 0.05. So each pick puts a backend's
/// weight to its account, being picked takes twenty times the weights of all off it, and who has so much is due.
pub(super) fn pick<L>(roster: &Roster, state: &mut Rotation, rng: &mut Rng, mut load: L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
{
    let mut owed = std::mem::take(&mut state.owed);
    let mut floor = Floor { owed: &mut owed, total: 0.0, most: None };
    // Above SCAN_MAX looks come by weight already, so a look counts 1 there.
    let stake = |i, load: Load| load.ramped(if roster.len() > SCAN_MAX { 1.0 } else { roster.weight(i) });
    let power = |weight, load: Load| load.ramped(weight) * f64::from(load.headroom);
    let least = least_conn::pick(Algorithm::PerformanceLeastConnectionsWeight, roster, state, rng, power, |i| {
        load(i).inspect(|&load| floor.accrue(i, stake(i, load)))
    });
    let picked = least.map(|least| floor.settle(least));
    state.owed = owed;
    picked
}

/// The accounts of the floor during one pick.
struct Floor<'a> {
    owed: &'a mut [f64],
    total: f64,
    /// The backend with the most in its account, of those seen.
    most: Option<usize>,
}

impl Floor<'_> {
    fn accrue(&mut self, i: usize, stake: f64) {
        self.owed[i] += stake;
        self.total += stake;
        if self.most.is_none_or(|most| self.owed[i] > self.owed[most]) {
            self.most = Some(i);
        }
    }

    /// Who takes the request: the one that is due, else `least`. An account never goes below zero: what a backend had
    /// in good times doesn't take its floor away later.
    fn settle(self, least: usize) -> usize {
        let price = FLOOR_DIVISOR * self.total;
        let picked = self.most.filter(|&most| self.owed[most] >= price).unwrap_or(least);
        self.owed[picked] = (self.owed[picked] - price).max(0.0);
        picked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(utilisation: f32) -> Score {
        Score { utilisation, reported_ms: 1_000 }
    }

    #[test]
    fn the_field_is_read_in_any_order() {
        let utilisation = |field| Report::parse(field).map(Report::utilisation);
        assert_eq!(utilisation("cpu=0.5,mem=0.25,load=1"), Some(0.5));
        assert_eq!(utilisation(" load = 3 , mem=0.25, cpu=0.5, gpu=x"), Some(0.5));
        assert_eq!(utilisation("mem=1"), Some(0.4));
        for nonsense in ["", "cpu", "cpu=", "cpu=-1", "cpu=NaN", "cpu=0.1,cpu=0.2", "gpu=1", "cpu=0.5;mem=1"] {
            assert_eq!(utilisation(nonsense), None, "{nonsense}");
        }
        assert_eq!(utilisation("cpu=inf,mem=1e9,load=2"), Some(1.0));
    }

    #[test]
    fn headroom_stays_in_bounds_and_fades() {
        for (utilisation, age_s, headroom) in
            [(0.0, 0, 1.0), (0.6, 0, 0.4), (1.0, 30, 0.05), (0.6, 30, 0.4), (0.6, 45, 0.7), (0.6, 60, 1.0)]
        {
            let now = score(utilisation).headroom(1_000 + age_s * 1_000);
            assert!((now - headroom).abs() < 1e-6, "{utilisation} after {age_s} s: {now}");
        }
        assert_eq!(score(1.0).headroom(0), HEADROOM_MIN, "a clock that is a little behind");
        assert_eq!(score(1.0).headroom(u64::MAX), 1.0);
    }

    #[test]
    fn reports_are_smoothed_by_time() {
        let idle = Report::new(0.0, 0.0, 0.0).unwrap();
        let busy = Report::new(1.0, 1.0, 1.0).unwrap();
        let first = Score::after(None, 1_000, busy);
        assert_eq!(first.utilisation, 1.0, "nothing to smooth with");
        let second = Score::after(Some(first), 6_000, idle);
        assert!((second.utilisation - 0.3679).abs() < 1e-3);
        // Ten reports in that time come to the same as one.
        let many = (1..=10).fold(first, |last, i| Score::after(Some(last), 1_000 + i * 500, idle));
        assert!((many.utilisation - second.utilisation).abs() < 1e-3);
        assert_eq!(Score::after(Some(first), 61_000, idle).utilisation, 0.0, "the last one has faded");
    }
}
