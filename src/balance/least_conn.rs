//! The least-rules: the backend with the least work for its power.
//!
//! Up to [`SCAN_MAX`] backends all are looked at and ties are taken in rotation; above, the best of [`DRAWS`] drawn by
//! weight, since reading hundreds of counters would cost more than it brings. Never weighs: what power is, the rule
//! says.

use super::Algorithm;
use super::load::{Cost, Load};
use super::rng::Rng;
use super::roster::Roster;
use super::rotation::{self, Rotation};

/// The largest number of backends that are all looked at.
pub(super) const SCAN_MAX: usize = 64;
/// How many are drawn above that.
const DRAWS: usize = 8;
/// Draws at most, those of backends that aren't eligible included.
const DRAW_TRIES_MAX: usize = 32;

/// Picks the smallest (in flight + 1) / `power(weight, load)`.
pub(super) fn pick<L, P>(
    algorithm: Algorithm,
    roster: &Roster,
    state: &mut Rotation,
    rng: &mut Rng,
    power: P,
    mut load: L,
) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
    P: Fn(f32, Load) -> f64,
{
    let cost = |i, load: Load| Cost { work: f64::from(load.in_flight) + 1.0, power: power(roster.weight(i), load) };
    if roster.len() > SCAN_MAX
        && let Some(picked) = best_drawn(roster, rng, cost, &mut load)
    {
        return Some(picked);
    }
    let picked = best_of_all(state.next(algorithm), roster.len(), cost, load)?;
    state.step_over(algorithm, picked);
    Some(picked)
}

/// The cheapest of all; of equals the first from `first` on.
fn best_of_all<L, C>(first: usize, n: usize, cost: C, mut load: L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
    C: Fn(usize, Load) -> Cost,
{
    let mut best: Option<(usize, Cost)> = None;
    for i in rotation::from(first, n) {
        let Some(load) = load(i) else { continue };
        let cost = cost(i, load);
        if best.is_none_or(|(_, least)| cost.beats(least)) {
            best = Some((i, cost));
        }
    }
    best.map(|(i, _)| i)
}

/// The cheapest of [`DRAWS`] eligible ones (fewer where most aren't eligible); `None` when no draw hit one.
fn best_drawn<L, C>(roster: &Roster, rng: &mut Rng, cost: C, load: &mut L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
    C: Fn(usize, Load) -> Cost,
{
    let mut best: Option<(usize, Cost)> = None;
    let mut drawn = 0;
    for _ in 0..DRAW_TRIES_MAX {
        let Some((i, load)) = roster.draw(rng, load) else { continue };
        let cost = cost(i, load);
        if best.is_none_or(|(_, least)| cost.beats(least)) {
            best = Some((i, cost));
        }
        drawn += 1;
        if drawn == DRAWS {
            break;
        }
    }
    best.map(|(i, _)| i)
}
