//! What the figures of a stage are worth.
//!
//! Owns the bounds. Never knows a language: its names are in `words`.

use serde::{Deserialize, Serialize};

/// A stage's grade, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// At least 99 % answered, and more than 10,000 a second.
    Excellent,
    /// At least 95 %, and more than 5,000.
    Good,
    /// At least 90 %, and more than 1,000.
    Fair,
    /// Less.
    Poor,
}

impl Grade {
    /// Of the share that was answered, in percent, and the good answers per second.
    pub fn of(success_percent: f64, rps: f64) -> Grade {
        let reaches = |percent_min: f64, rps_above: f64| success_percent >= percent_min && rps > rps_above;
        match () {
            () if reaches(99.0, 10_000.0) => Grade::Excellent,
            () if reaches(95.0, 5_000.0) => Grade::Good,
            () if reaches(90.0, 1_000.0) => Grade::Fair,
            () => Grade::Poor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_have_to_be_reached() {
        for (percent, rps, grade) in [
            (100.0, 10_001.0, Grade::Excellent),
            (99.0, 10_001.0, Grade::Excellent),
            (100.0, 10_000.0, Grade::Good),
            (98.99, 50_000.0, Grade::Good),
            (95.0, 5_000.0, Grade::Fair),
            (97.35, 1_149.0, Grade::Fair),
            (90.0, 1_000.0, Grade::Poor),
            (13.38, 49.0, Grade::Poor),
        ] {
            assert_eq!(Grade::of(percent, rps), grade, "{percent} %, {rps} a second");
        }
    }
}
