//! Active checks: from good and bad answers in a row to up and down, and the ramp of one that comes back.
//!
//! Owns the verdict on one backend. Never sends a check (that is `health::probe`) and knows nothing of failed requests
//! (that is [`crate::shared::backend`]'s).

/// How long a backend that came back is ramped, in milliseconds.
pub const RAMP_MS: u64 = 10_000;
/// The part of its weight that it begins with.
pub const RAMP_MIN: f32 = 0.10;

/// A change of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It may be used again.
    Up,
    /// It must not be used.
    Down,
}

/// The state of one backend as its checks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Bad checks in a row that take it down; at least 1.
    failures: u32,
    /// Good checks in a row that bring it up; at least 1.
    successes: u32,
    is_up: bool,
    /// Checks in a row that speak against `is_up`.
    against: u32,
    /// Whether there was a check at all.
    is_checked: bool,
    came_back_ms: Option<u64>,
}

impl Verdict {
    /// A backend that was never checked: it counts as up until a check fails. So the first check, when it is bad,
    /// takes it down alone: there is nothing that speaks for it. After a good one, `failures` in a row are needed.
    pub fn new(failures: u32, successes: u32) -> Self {
        Verdict { failures, successes, is_up: true, against: 0, is_checked: false, came_back_ms: None }
    }

    /// Takes over new thresholds from a reload; what was seen stays.
    pub fn set_thresholds(&mut self, failures: u32, successes: u32) {
        self.failures = failures;
        self.successes = successes;
    }

    /// Takes in a check that ended at `now_ms`; the change if it made one.
    pub fn observe(&mut self, now_ms: u64, ok: bool) -> Option<Change> {
        let is_first = !std::mem::replace(&mut self.is_checked, true);
        if ok == self.is_up {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (self.is_up, is_first) {
            (true, true) => 1,
            (true, false) => self.failures,
            (false, _) => self.successes,
        };
        (self.against >= needed).then(|| self.turn(now_ms))
    }

    fn turn(&mut self, now_ms: u64) -> Change {
        self.against = 0;
        self.is_up = !self.is_up;
        self.came_back_ms = self.is_up.then_some(now_ms);
        if self.is_up { Change::Up } else { Change::Down }
    }

    /// Whether the backend may be used.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Since when it is up again; `None` when it is down or never was.
    pub fn came_back_ms(&self) -> Option<u64> {
        self.came_back_ms
    }
}

/// The factor on the weight of a backend that came back at `since_ms`: from 0.10 to 1.0 over 10 s.
pub fn ramp(now_ms: u64, since_ms: u64) -> f32 {
    let passed_ms = now_ms.saturating_sub(since_ms).min(RAMP_MS);
    RAMP_MIN + (1.0 - RAMP_MIN) * (passed_ms as f32 / RAMP_MS as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(verdict: &mut Verdict, checks: &str) -> Vec<(usize, Change)> {
        let seen = checks.bytes().enumerate();
        seen.filter_map(|(i, check)| Some((i, verdict.observe(i as u64, check == b'+')?))).collect()
    }

    #[test]
    fn only_checks_in_a_row_count() {
        let mut verdict = Verdict::new(3, 2);
        assert_eq!(changes(&mut verdict, "+--+--+---"), [(9, Change::Down)]);
        assert_eq!(changes(&mut verdict, "-+-+-++"), [(6, Change::Up)]);
        assert_eq!(verdict.came_back_ms(), Some(6));
        assert_eq!(changes(&mut verdict, "--+---"), [(5, Change::Down)]);
        assert_eq!(verdict.came_back_ms(), None);
    }

    #[test]
    fn a_backend_that_never_passed_is_up_until_a_check_fails() {
        let mut verdict = Verdict::new(3, 2);
        assert!(verdict.is_up());
        assert_eq!(changes(&mut verdict, "-"), [(0, Change::Down)]);
        assert_eq!(changes(&mut verdict, "++"), [(1, Change::Up)]);
        assert_eq!(changes(&mut verdict, "--+"), []);
    }

    #[test]
    fn the_ramp_goes_from_a_tenth_to_the_whole() {
        assert_eq!(ramp(1_000, 1_000), 0.10);
        assert!((ramp(6_000, 1_000) - 0.55).abs() < 1e-6);
        assert_eq!(ramp(11_000, 1_000), 1.0);
        assert_eq!(ramp(u64::MAX, 1_000), 1.0);
        assert_eq!(ramp(0, 1_000), 0.10, "a clock that is a little behind");
    }
}
