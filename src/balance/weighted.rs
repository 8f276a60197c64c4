//! Smooth weighted round robin: over one cycle each backend gets exactly its weight, spread evenly.
//!
//! Each pick gives every eligible backend its weight in credit; the one with the most takes the request and pays what
//! was given out. Never looks at connections.

use super::Algorithm;
use super::load::Load;
use super::rng::Rng;
use super::roster::Roster;
use super::rotation::{self, Rotation};

/// Parts of a unit of weight, so that a ramp of one tenth of weight 1 is still a whole number: credits are integers
/// because a cycle is exact only when sums are.
const PARTS: f64 = 256.0;
/// Steps times backends that finding a random start may cost.
const BEGIN_WORK_MAX: u64 = 16_384;

/// Picks the eligible backend with the most credit.
pub(super) fn pick<L>(roster: &Roster, state: &mut Rotation, mut load: L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
{
    let (mut given, mut most, mut picked) = (0, i64::MIN, None);
    for i in rotation::from(state.next(Algorithm::Weight), roster.len()) {
        let Some(load) = load(i) else { continue };
        let share = ((load.ramped(roster.weight(i)) * PARTS) as i64).max(1);
        let credit = state.current[i] + share;
        state.current[i] = credit;
        given += share;
        if credit > most {
            (most, picked) = (credit, Some(i));
        }
    }
    state.current[picked?] -= given;
    picked
}

/// Goes a random part of the cycle, or as far as [`BEGIN_WORK_MAX`] allows. (Where the look begins is random as well,
/// which alone does it for many backends of the same weight.)
pub(super) fn begin_anywhere(roster: &Roster, state: &mut Rotation, rng: &mut Rng) {
    let steps_max = BEGIN_WORK_MAX / (roster.len() as u64).max(1);
    for _ in 0..rng.below(cycle(roster).min(steps_max)) {
        pick(roster, state, |_| Some(Load::new(0)));
    }
}

/// Picks until the pattern repeats: the sum of weights, in units of their common divisor.
fn cycle(roster: &Roster) -> u64 {
    let weights = || (0..roster.len()).map(|i| roster.weight(i) as u64);
    let divisor = weights().fold(0, common_divisor);
    weights().sum::<u64>() / divisor.max(1)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
