//! What the rules remember from pick to pick, for one worker and upstream, and plain rotation itself.
//!
//! Owns all state of balancing that isn't a load. Never shared between workers: each starts at a random place, so
//! that workers which start together don't march in step.

use super::load::Load;
use super::rng::Rng;
use super::roster::Roster;
use super::{Algorithm, weighted};

/// The state of one worker for one upstream: 16 bytes a backend.
#[derive(Clone, Debug, Default)]
pub struct Rotation {
    /// [`Roster::fingerprint`] of the roster it is for.
    roster: u64,
    /// Where the next look begins, for each rule its own: two rules that shared one could each meet always the same
    /// backend.
    next: [u32; Algorithm::COUNT],
    /// What smooth weighted round robin owes each backend.
    pub(super) current: Box<[i64]>,
    /// How far each backend is behind the floor of the performance rule.
    pub(super) owed: Box<[f64]>,
}

impl Rotation {
    /// A state for `roster` that begins anywhere.
    pub fn new(roster: &Roster, rng: &mut Rng) -> Self {
        let n = roster.len();
        let mut next = [0; Algorithm::COUNT];
        next.fill_with(|| rng.below(n as u64) as u32);
        let mut rotation =
            Rotation { roster: roster.fingerprint(), next, current: vec![0; n].into(), owed: vec![0.0; n].into() };
        weighted::begin_anywhere(roster, &mut rotation, rng);
        rotation
    }

    /// Begins anew unless it is for `roster` or one that is the same: after a reload that changed something else,
    /// rotations go on.
    pub(super) fn follow(&mut self, roster: &Roster, rng: &mut Rng) {
        if self.roster != roster.fingerprint() || self.len() != roster.len() {
            *self = Rotation::new(roster, rng);
        }
    }

    /// How many backends it is for.
    pub(super) fn len(&self) -> usize {
        self.current.len()
    }

    /// Where `algorithm` begins to look; below [`Rotation::len`] unless that is 0.
    pub(super) fn next(&self, algorithm: Algorithm) -> usize {
        self.next[algorithm as usize] as usize
    }

    /// Lets `algorithm` begin behind `picked` the next time.
    pub(super) fn step_over(&mut self, algorithm: Algorithm, picked: usize) {
        let behind = picked + 1;
        self.next[algorithm as usize] = if behind < self.len() { behind as u32 } else { 0 };
    }
}

/// All of 0..`n`, beginning at `first`.
pub(super) fn from(first: usize, n: usize) -> impl Iterator<Item = usize> {
    (first..n).chain(0..first)
}

/// Plain rotation: the next eligible one.
pub(super) fn pick<L>(state: &mut Rotation, mut load: L) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
{
    let picked = from(state.next(Algorithm::RoundRobin), state.len()).find(|&i| load(i).is_some())?;
    state.step_over(Algorithm::RoundRobin, picked);
    Some(picked)
}
