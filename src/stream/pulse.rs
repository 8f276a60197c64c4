//! Whether the other side of a shared connection still lives: asked when it is silent for long while it owes answers.
//!
//! Owns the rule. Never reads a clock and never sends: ticks and signs of life are handed in.

use std::time::Duration;

use crate::limits::{TRUNK_PONG_SECONDS_MAX, TRUNK_SILENT_SECONDS_MAX};
use crate::wheel::ticks;

const SILENT_TICKS: u32 = ticks(Duration::from_secs(TRUNK_SILENT_SECONDS_MAX));
/// How long a sign of life may take, in ticks.
pub const PONG_TICKS: u32 = ticks(Duration::from_secs(TRUNK_PONG_SECONDS_MAX));

/// What a connection does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Looks again at this tick; `u32::MAX` is never.
    Wait(u32),
    /// Sends a PING (RFC 9113, section 6.7).
    Ask,
    /// Is given up.
    Dead,
}

/// One connection's signs of life.
#[derive(Debug, Default)]
pub struct Pulse {
    since: u32,
    asked: Option<u32>,
    was_busy: bool,
}

impl Pulse {
    /// What to do at tick `now`, when something `was_heard` since the last call and streams are open (`is_busy`).
    pub fn beat(&mut self, now: u32, was_heard: bool, is_busy: bool) -> Beat {
        if was_heard || !std::mem::replace(&mut self.was_busy, is_busy) {
            self.since = now;
            self.asked = None;
        }
        if !is_busy {
            return Beat::Wait(u32::MAX);
        }
        let due = match self.asked {
            Some(asked) => asked.saturating_add(PONG_TICKS),
            None => self.since.saturating_add(SILENT_TICKS),
        };
        match self.asked {
            _ if now < due => Beat::Wait(due),
            Some(_) => Beat::Dead,
            None => {
                self.asked = Some(now);
                Beat::Ask
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_is_asked_once_and_then_given_up() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.beat(7, false, true), Beat::Wait(7 + SILENT_TICKS));
        assert_eq!(pulse.beat(9, true, true), Beat::Wait(9 + SILENT_TICKS));
        let asked = 9 + SILENT_TICKS;
        assert_eq!(pulse.beat(asked, false, true), Beat::Ask);
        assert_eq!(pulse.beat(asked + 1, false, true), Beat::Wait(asked + PONG_TICKS));
        assert_eq!(pulse.beat(asked + PONG_TICKS, false, true), Beat::Dead);
    }

    #[test]
    fn any_byte_is_a_sign_of_life_and_idle_ones_are_left_alone() {
        let mut pulse = Pulse::default();
        pulse.beat(0, false, true);
        assert_eq!(pulse.beat(SILENT_TICKS, false, true), Beat::Ask);
        let later = SILENT_TICKS + 1;
        assert_eq!(pulse.beat(later, true, true), Beat::Wait(later + SILENT_TICKS));
        assert_eq!(pulse.beat(later + 9 * SILENT_TICKS, false, false), Beat::Wait(u32::MAX));
        let busy = later + 99 * SILENT_TICKS;
        assert_eq!(pulse.beat(busy, false, true), Beat::Wait(busy + SILENT_TICKS));
    }
}
