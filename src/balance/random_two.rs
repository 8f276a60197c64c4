//! The better of two different backends drawn by weight.
//!
//! Better is fewer in flight for its weight; equals go to the first drawn, so that idle backends get their weight's
//! share. Never looks at more than two while most are eligible.

use super::load::{Cost, Load};
use super::rng::Rng;
use super::roster::Roster;

/// Draws two and picks one.
pub(super) fn pick<L>(roster: &Roster, rng: &mut Rng, mut load: L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
{
    let (first, first_load) = roster.draw_eligible(rng, None, &mut load)?;
    let Some((second, second_load)) = roster.draw_eligible(rng, Some(first), &mut load) else {
        return Some(first);
    };
    // Without the "+ 1" of the least-rules: with it the heavier of two idle ones would always win.
    let cost = |i, load: Load| Cost { work: f64::from(load.in_flight), power: load.ramped(roster.weight(i)) };
    Some(if cost(second, second_load).beats(cost(first, first_load)) { second } else { first })
}
