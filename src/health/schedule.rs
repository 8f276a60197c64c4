//! When a backend is checked next: never all at once.
//!
//! Owns the jitter. Never keeps a timer.

use crate::balance::Rng;

/// A check begins up to this part of the interval before or after its time.
const JITTER_DIVISOR: u64 = 10;

/// When the first check begins: soon, since a backend counts as up until one fails, but within a tenth of the
/// interval so that many backends don't get theirs in the same instant.
pub fn first_ms(now_ms: u64, interval_ms: u64, rng: &mut Rng) -> u64 {
    now_ms.saturating_add(rng.below(interval_ms / JITTER_DIVISOR + 1))
}

/// When the next check begins: an interval, give or take a tenth, after the last one began at `began_ms`; when that
/// took longer than the interval (it is `now_ms` at its end), at once.
pub fn next_ms(began_ms: u64, now_ms: u64, interval_ms: u64, rng: &mut Rng) -> u64 {
    let jitter_ms = interval_ms / JITTER_DIVISOR;
    let after_ms = interval_ms - jitter_ms + rng.below(2 * jitter_ms + 1);
    began_ms.saturating_add(after_ms).max(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_keep_their_pace_and_spread() {
        let mut rng = Rng::new(3);
        let gaps: Vec<u64> = (0..1_000).map(|_| next_ms(500, 600, 30_000, &mut rng) - 500).collect();
        assert!(gaps.iter().all(|gap| (27_000..=33_000).contains(gap)));
        assert!((29_700..=30_300).contains(&(gaps.iter().sum::<u64>() / 1_000)));
        assert!(gaps.iter().min() < Some(&27_300) && gaps.iter().max() > Some(&32_700));
        assert!((0..1_000).all(|_| (500..=3_500).contains(&first_ms(500, 30_000, &mut rng))));
    }

    #[test]
    fn a_check_that_took_too_long_is_followed_at_once() {
        let mut rng = Rng::new(4);
        assert_eq!(next_ms(0, 5_000, 1_000, &mut rng), 5_000);
        assert_eq!(next_ms(7, 7, 0, &mut rng), 7, "no interval, no panic");
        assert_eq!(next_ms(u64::MAX, 0, 10, &mut rng), u64::MAX);
    }
}
