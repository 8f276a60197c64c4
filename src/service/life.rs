//! Whether the threads that have to go on do go on: the decision behind the watchdog.
//!
//! Owns what was last seen of each. Pure: numbers and the time are handed in. Never counts for them and never does
//! anything about it.

/// One that counts as long as it lives.
#[derive(Clone, Copy, Debug)]
struct Seen {
    pulse: u64,
    /// When it was seen to have moved.
    moved_at_ms: u64,
}

/// What was seen of each, by place.
#[derive(Debug)]
pub struct Life {
    patience_ms: u64,
    seen: Vec<Seen>,
}

impl Life {
    /// Counts as stuck who has not moved for `patience_ms`.
    pub fn new(patience_ms: u64) -> Self {
        Life { patience_ms, seen: Vec::new() }
    }

    /// Looks at where each stands at `now_ms`; `None` for one that has ended as it should. The places of those that are
    /// stuck. One that is seen for the first time has moved.
    pub fn stuck(&mut self, now_ms: u64, pulses: &[Option<u64>]) -> Vec<usize> {
        let known = self.seen.len();
        let first = |pulse: &Option<u64>| Seen { pulse: pulse.unwrap_or(0), moved_at_ms: now_ms };
        self.seen.extend(pulses.iter().skip(known).map(first));
        let mut stuck = Vec::new();
        for (place, (seen, pulse)) in self.seen.iter_mut().zip(pulses).enumerate() {
            let Some(pulse) = *pulse else { continue };
            if pulse != seen.pulse {
                *seen = Seen { pulse, moved_at_ms: now_ms };
            } else if now_ms.saturating_sub(seen.moved_at_ms) >= self.patience_ms {
                stuck.push(place);
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_move_for_the_whole_patience_is_stuck_until_it_moves() {
        let mut life = Life::new(10);
        assert_eq!(life.stuck(0, &[Some(1), Some(1)]), [0; 0]);
        assert_eq!(life.stuck(9, &[Some(1), Some(2)]), [0; 0]);
        assert_eq!(life.stuck(10, &[Some(1), Some(2)]), [0]);
        assert_eq!(life.stuck(19, &[Some(1), Some(2)]), [0, 1]);
        assert_eq!(life.stuck(20, &[Some(2), Some(2)]), [1]);
        assert_eq!(life.stuck(29, &[Some(2), Some(3)]), [0; 0]);
    }

    #[test]
    fn who_has_ended_is_not_missed() {
        let mut life = Life::new(10);
        assert_eq!(life.stuck(0, &[Some(1)]), [0; 0]);
        assert_eq!(life.stuck(100, &[None]), [0; 0]);
        // A counter may come round to where it was; that is a look, not a life, apart.
        assert_eq!(life.stuck(101, &[Some(1)]), [0]);
    }

    #[test]
    fn a_late_look_is_not_held_against_who_moved_meanwhile() {
        let mut life = Life::new(10);
        assert_eq!(life.stuck(0, &[Some(u64::MAX)]), [0; 0]);
        assert_eq!(life.stuck(1_000_000, &[Some(0)]), [0; 0]);
        assert_eq!(life.stuck(1_000_009, &[Some(0)]), [0; 0]);
        assert_eq!(life.stuck(1_000_010, &[Some(0)]), [0]);
    }
}
