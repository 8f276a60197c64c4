//! The backends of an upstream as the balancing rules see them: key and configured weight, fixed with the plan.
//!
//! Owns the alias table that draws a backend by weight in constant time (Walker 1977, in Vose's form of 1991). Never
//! knows who is eligible: the caller's load says so.

use super::key;
use super::load::Load;
use super::rng::Rng;

/// How often a draw is repeated that hits a backend which isn't eligible, before all are looked at.
const TRIES_MAX: usize = 16;

/// Backends of one upstream, by index. Built once for each plan, shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    entries: Box<[Entry]>,
    slots: Box<[Slot]>,
    fingerprint: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: u64,
    weight: f32,
}

/// One column of the alias table: `keep` in 2^32 of its draws stay, the others go to `alias`.
#[derive(Clone, Copy, Debug)]
struct Slot {
    keep: u32,
    alias: u32,
}

impl Roster {
    /// From the id and the weight (at least 1) of each backend, in the order of the plan.
    pub fn new<'a>(backends: impl IntoIterator<Item = (&'a str, u16)>) -> Self {
        let entries: Box<[Entry]> = backends
            .into_iter()
            .map(|(id, weight)| Entry { key: key::of_bytes(id.as_bytes()), weight: f32::from(weight) })
            .collect();
        let slots = alias_table(&entries);
        let fingerprint = entries.iter().fold(0, |all, e| key::mix(all ^ e.key).wrapping_add(e.weight as u64));
        Roster { entries, slots, fingerprint }
    }

    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no backend at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tells rosters of other ids, weights or order apart.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The stable key of the id of backend `i`.
    pub(super) fn key(&self, i: usize) -> u64 {
        self.entries[i].key
    }

    /// The configured weight of backend `i`.
    pub(super) fn weight(&self, i: usize) -> f32 {
        self.entries[i].weight
    }

    /// One backend drawn by weight and ramp; `None` when the draw hits one that isn't eligible.
    pub(super) fn draw<L>(&self, rng: &mut Rng, load: &mut L) -> Option<(usize, Load)>
    where
        L: FnMut(usize) -> Option<Load>,
    {
        let i = self.draw_configured(rng)?;
        let load = load(i)?;
        // Thinning: a ramped backend gives back the part of its draws that its full weight would not have had.
        (load.ramp >= 1.0 || rng.unit() < load.ramp).then_some((i, load))
    }

    /// One eligible backend other than `except`, drawn by weight and ramp; `None` when there is none.
    pub(super) fn draw_eligible<L>(&self, rng: &mut Rng, except: Option<usize>, load: &mut L) -> Option<(usize, Load)>
    where
        L: FnMut(usize) -> Option<Load>,
    {
        let mut load = |i| if Some(i) == except { None } else { load(i) };
        for _ in 0..TRIES_MAX.min(self.len()) {
            if let Some(drawn) = self.draw(rng, &mut load) {
                return Some(drawn);
            }
        }
        self.draw_from_all(rng, &mut load)
    }

    /// An index by configured weight alone.
    fn draw_configured(&self, rng: &mut Rng) -> Option<usize> {
        let luck = rng.next_u64();
        let column = ((luck >> 32) * self.slots.len() as u64) >> 32;
        let slot = self.slots.get(column as usize)?;
        Some(if (luck as u32) < slot.keep { column as usize } else { slot.alias as usize })
    }

    /// Looks at all backends and keeps one with the chance of its part in what was seen so far.
    fn draw_from_all<L>(&self, rng: &mut Rng, load: &mut L) -> Option<(usize, Load)>
    where
        L: FnMut(usize) -> Option<Load>,
    {
        let (mut kept, mut seen) = (None, 0.0);
        for i in 0..self.len() {
            let Some(load) = load(i) else { continue };
            let weight = load.ramped(self.weight(i));
            seen += weight;
            if kept.is_none() || f64::from(rng.unit()) * seen < weight {
                kept = Some((i, load));
            }
        }
        kept
    }
}

/// Vose's construction: columns with too little are filled up from one with too much.
fn alias_table(entries: &[Entry]) -> Box<[Slot]> {
    let total: f64 = entries.iter().map(|e| f64::from(e.weight)).sum();
    let scale = entries.len() as f64 / total;
    let mut part: Vec<f64> = entries.iter().map(|e| f64::from(e.weight) * scale).collect();
    let mut slots: Box<[Slot]> = (0..entries.len() as u32).map(|i| Slot { keep: u32::MAX, alias: i }).collect();
    let (mut short, mut long): (Vec<usize>, Vec<usize>) = (0..entries.len()).partition(|&i| part[i] < 1.0);
    while let (Some(&giver), Some(taker)) = (long.last(), short.pop()) {
        slots[taker] = Slot { keep: (part[taker] * 4_294_967_296.0) as u32, alias: giver as u32 };
        part[giver] -= 1.0 - part[taker];
        if part[giver] < 1.0 {
            long.pop();
            short.push(giver);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(weights: &[u16]) -> Roster {
        let ids: Vec<String> = (0..weights.len()).map(|i| format!("b{i}")).collect();
        Roster::new(ids.iter().map(String::as_str).zip(weights.iter().copied()))
    }

    fn shares(picks: usize, n: usize, mut draw: impl FnMut() -> usize) -> Vec<f64> {
        let mut counts = vec![0; n];
        for _ in 0..picks {
            counts[draw()] += 1;
        }
        counts.iter().map(|&c| f64::from(c) / picks as f64).collect()
    }

    #[test]
    fn draws_follow_weights_and_ramps() {
        let roster = roster(&[1, 10, 200, 789]);
        let mut rng = Rng::new(1);
        let full = shares(100_000, 4, || roster.draw_eligible(&mut rng, None, &mut |_| Some(Load::new(0))).unwrap().0);
        for (share, expected) in full.iter().zip([0.001, 0.010, 0.200, 0.789]) {
            assert!((share - expected).abs() < 0.005, "{full:?}");
        }
        // The last one at a tenth of its weight, the first not eligible: 10, 200 and 78.9 of 288.9.
        let mut load = |i| match i {
            0 => None,
            3 => Some(Load { ramp: 0.1, ..Load::new(0) }),
            _ => Some(Load::new(0)),
        };
        let ramped = shares(100_000, 4, || roster.draw_eligible(&mut rng, None, &mut load).unwrap().0);
        for (share, expected) in ramped.iter().zip([0.0, 0.0346, 0.6923, 0.2731]) {
            assert!((share - expected).abs() < 0.01, "{ramped:?}");
        }
    }

    #[test]
    fn a_draw_finds_the_only_eligible_one() {
        let mut weights = vec![1000; 300];
        weights[123] = 1;
        let (roster, mut rng) = (roster(&weights), Rng::new(2));
        let mut load = |i| (i == 123).then_some(Load { ramp: 0.1, ..Load::new(0) });
        assert_eq!(roster.draw_eligible(&mut rng, None, &mut load).map(|d| d.0), Some(123));
        assert!(roster.draw_eligible(&mut rng, Some(123), &mut load).is_none());
        assert!(Roster::default().draw_eligible(&mut rng, None, &mut |_| Some(Load::new(0))).is_none());
    }
}
