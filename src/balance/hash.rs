//! Weighted rendezvous hashing: the same key meets the same backend for as long as that one is eligible.
//!
//! Every backend bids for a key with -weight / ln(u), u being a hash of key and backend id in 0..1 (Schindelhauer and
//! Schomaker 2005); the highest bid has it. A bid depends on nothing but its own backend, so one that goes moves only
//! its own keys and one that comes takes from each of the others its share. Never looks at loads or ramps.

use super::key::mix;
use super::load::Load;
use super::roster::Roster;

/// Picks the eligible backend that bids most for `key`.
pub(super) fn pick<L>(roster: &Roster, key: u64, mut load: L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
{
    let mut best: Option<(usize, Bid)> = None;
    for i in 0..roster.len() {
        let bid = Bid::new(mix(key ^ roster.key(i)), roster.weight(i));
        // Asking for the load last spares most of its reads: only about ln(n) bids lead at their time.
        if best.is_none_or(|(_, highest)| bid.beats(highest)) && load(i).is_some() {
            best = Some((i, bid));
        }
    }
    best.map(|(i, _)| i)
}

/// What a backend offers for a key.
#[derive(Clone, Copy)]
struct Bid {
    /// 52 random bits.
    ticket: u64,
    weight: f32,
}

impl Bid {
    fn new(bits: u64, weight: f32) -> Self {
        Bid { ticket: bits >> 12, weight }
    }

    /// Whether this is higher. Where ticket and weight agree, and with equal weights they always do, no logarithm is
    /// needed.
    fn beats(self, other: Bid) -> bool {
        if self.ticket > other.ticket && self.weight >= other.weight {
            return true;
        }
        if self.ticket <= other.ticket && self.weight <= other.weight {
            return false;
        }
        self.height() > other.height()
    }

    /// -weight / ln(u), u being the middle of the ticket's one of 2^52 intervals: exact in an `f64`, never 0 or 1.
    fn height(self) -> f64 {
        let u = (self.ticket as f64 + 0.5) / (1u64 << 52) as f64;
        -f64::from(self.weight) / u.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Rng;

    #[test]
    fn the_short_cut_agrees_with_the_logarithms() {
        let mut rng = Rng::new(21);
        let mut bid = || Bid::new(rng.next_u64() >> (rng.next_u64() % 50), rng.below(4) as f32 * 25.0 + 1.0);
        for _ in 0..100_000 {
            let (one, other) = (bid(), bid());
            assert_eq!(one.beats(other), one.height() > other.height());
        }
        for bits in [0, u64::MAX] {
            let height = Bid::new(bits, 1.0).height();
            assert!(height > 0.0 && height.is_finite());
        }
    }
}
