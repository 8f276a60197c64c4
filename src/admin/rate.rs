//! How often management may be asked: token buckets for requests by each token and by strangers, for changes, and for
//! wrong tokens.
//!
//! Owns the buckets. Pure but for its lock: the time is handed in.

use std::sync::{Mutex, PoisonError};

use super::auth::{Denial, Role, Who};

/// So many a second, and so many at once.
#[derive(Clone, Copy, Debug)]
struct Pace {
    per_second: f64,
    burst: f64,
}

/// Requests by one token, or by whoever is on this machine where none is set. A fleet of a few thousand backends that
/// report once a second fits.
const REQUESTS: Pace = Pace { per_second: 5_000.0, burst: 10_000.0 };
/// Requests by all who have shown no token: turned away, or for what needs none.
const STRANGERS: Pace = Pace { per_second: 1_000.0, burst: 2_000.0 };
/// Changes: each is checked whole and told to every worker.
const CHANGES: Pace = Pace { per_second: 50.0, burst: 100.0 };
/// Wrong tokens: guessing one of 8 random bytes at this pace takes longer than the sun has left.
const FAILURES: Pace = Pace { per_second: 10.0, burst: 50.0 };

/// What a request counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any request by the token that allows everything.
    Full,
    /// By the token that allows looking.
    Read,
    /// By the token that allows reporting.
    Report,
    /// By anybody else: however many they are, whoever has a token doesn't wait for them.
    Stranger,
    /// One that changes something.
    Change,
    /// One with a wrong token.
    Failure,
}

impl Kind {
    /// What a request counts as that was let in so, or turned away.
    pub fn of(admission: &Result<Who, Denial>) -> Kind {
        match admission {
            Ok(Who { role: Role::Full, .. }) => Kind::Full,
            Ok(Who { role: Role::Read, .. }) => Kind::Read,
            Ok(Who { role: Role::Report, .. }) => Kind::Report,
            Ok(Who { role: Role::Nothing, .. }) | Err(_) => Kind::Stranger,
        }
    }
}

/// A bucket that fills with time and is emptied by requests.
#[derive(Debug)]
struct Bucket {
    pace: Pace,
    level: f64,
    at_ms: u64,
}

impl Bucket {
    fn full(pace: Pace) -> Self {
        Bucket { pace, level: pace.burst, at_ms: 0 }
    }

    fn take(&mut self, now_ms: u64) -> bool {
        let since = now_ms.saturating_sub(self.at_ms) as f64 / 1e3;
        self.at_ms = now_ms.max(self.at_ms);
        self.level = (self.level + since * self.pace.per_second).min(self.pace.burst);
        let is_there = self.level >= 1.0;
        if is_there {
            self.level -= 1.0;
        }
        is_there
    }
}

/// The buckets of one port, for all its peers together: the whole cost is what is bounded.
#[derive(Debug)]
pub struct Rates(Mutex<[Bucket; 6]>);

impl Default for Rates {
    fn default() -> Self {
        Rates(Mutex::new([REQUESTS, REQUESTS, REQUESTS, STRANGERS, CHANGES, FAILURES].map(Bucket::full)))
    }
}

impl Rates {
    /// Whether one more is allowed at `now_ms`.
    pub fn allow(&self, kind: Kind, now_ms: u64) -> bool {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buckets[kind as usize].take(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_pace() {
        let rates = Rates::default();
        let allowed = |n: usize, now_ms| (0..n).filter(|_| rates.allow(Kind::Change, now_ms)).count();
        assert_eq!(allowed(1000, 1_000_000), 100);
        assert_eq!(allowed(1000, 1_000_100), 5);
        // Time that goes back gives nothing.
        assert_eq!(allowed(1000, 1_000_000), 0);
        assert_eq!(allowed(1000, 2_000_000), 100);
        assert!(rates.allow(Kind::Full, 0));
    }

    #[test]
    fn whoever_has_a_token_does_not_wait_for_those_without() {
        let rates = Rates::default();
        let allowed = |admission: &Result<Who, Denial>| rates.allow(Kind::of(admission), 0);
        let by = |role| Ok(Who { role, name: "anybody" });
        let strangers =
            [Err(Denial::Host), Err(Denial::Origin), Err(Denial::Token), Err(Denial::Role), by(Role::Nothing)];
        let let_in = (0..100_000).filter(|at| allowed(&strangers[at % strangers.len()])).count();
        assert_eq!(let_in, 2_000);
        for role in [Role::Report, Role::Read, Role::Full] {
            assert_eq!((0..100_000).filter(|_| allowed(&by(role))).count(), 10_000, "nor for another token's");
        }
    }
}
