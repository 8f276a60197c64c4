//! The rules through their one door: shares against weights, and picks against readings of the rules without tricks.

use super::*;
use proptest::prelude::{prop, prop_assert_eq, proptest};

const PICKS: usize = 100_000;

fn roster(weights: &[u16]) -> Roster {
    let ids: Vec<String> = (0..weights.len()).map(|i| format!("backend{i}")).collect();
    Roster::new(ids.iter().map(String::as_str).zip(weights.iter().copied()))
}

/// One worker with backends whose counts, ramps and headrooms a test may set.
struct Worker {
    roster: Roster,
    state: Rotation,
    rng: Rng,
    loads: Vec<Option<Load>>,
}

impl Worker {
    fn new(weights: &[u16], seed: u64) -> Self {
        let (roster, mut rng) = (roster(weights), Rng::new(seed));
        let state = Rotation::new(&roster, &mut rng);
        Worker { roster, state, rng, loads: vec![Some(Load::new(0)); weights.len()] }
    }

    fn pick(&mut self, algorithm: Algorithm, key: u64) -> Option<usize> {
        pick(algorithm, &self.roster, &mut self.state, key, &mut self.rng, |i| self.loads[i])
    }

    /// Shares of `picks` requests with keys of their own that end at once.
    fn idle_shares(&mut self, algorithm: Algorithm, picks: usize) -> Vec<f64> {
        let mut counts = vec![0; self.loads.len()];
        for key in 0..picks as u64 {
            counts[self.pick(algorithm, key::mix(key)).unwrap()] += 1;
        }
        counts.iter().map(|&count| f64::from(count) / picks as f64).collect()
    }

    /// Shares of `picks` requests of which none ends.
    fn held_shares(&mut self, algorithm: Algorithm, picks: usize) -> Vec<f64> {
        for key in 0..picks as u64 {
            let i = self.pick(algorithm, key::mix(key)).unwrap();
            self.loads[i].as_mut().unwrap().in_flight += 1;
        }
        self.loads.iter().map(|load| f64::from(load.map_or(0, |l| l.in_flight)) / picks as f64).collect()
    }
}

fn parts(weights: &[f64]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

#[track_caller]
fn assert_near(shares: &[f64], expected: &[f64], tolerance: f64) {
    let is_near = shares.iter().zip(expected).all(|(share, part)| (share - part).abs() <= tolerance);
    assert!(is_near, "{shares:?} instead of {expected:?}");
}

const WEIGHTS: [u16; 4] = [100, 50, 30, 20];
const PARTS: [f64; 4] = [0.5, 0.25, 0.15, 0.1];

#[test]
fn shares_are_the_weights_shares() {
    for algorithm in Algorithm::ALL {
        let mut worker = Worker::new(&WEIGHTS, 11);
        let (shares, expected) = match algorithm {
            Algorithm::IpHash | Algorithm::Hash | Algorithm::Weight => (worker.idle_shares(algorithm, PICKS), PARTS),
            Algorithm::RoundRobin => (worker.idle_shares(algorithm, PICKS), [0.25; 4]),
            Algorithm::LeastConnections => (worker.held_shares(algorithm, PICKS), [0.25; 4]),
            _ => (worker.held_shares(algorithm, PICKS), PARTS),
        };
        assert_near(&shares, &expected, 0.01 * 0.5);
    }
}

#[test]
fn idle_backends_get_their_share_of_random_two() {
    assert_near(&Worker::new(&WEIGHTS, 5).idle_shares(Algorithm::RandomTwo, PICKS), &PARTS, 0.005);
}

#[test]
fn random_two_prefers_the_less_loaded() {
    let mut worker = Worker::new(&[100, 100, 1000], 6);
    worker.loads = vec![Some(Load::new(9)), Some(Load::new(8)), Some(Load::new(1000))];
    assert!((0..1_000).all(|_| worker.pick(Algorithm::RandomTwo, 0) != Some(2)));
    // Two different ones are compared however seldom one of them is drawn.
    let mut skewed = Worker::new(&[1, 1000], 6);
    skewed.loads[1] = Some(Load::new(1));
    assert!((0..1_000).all(|_| skewed.pick(Algorithm::RandomTwo, 0) == Some(0)));
}

#[test]
fn every_rule_serves_what_is_eligible_and_nothing_else() {
    for n in [1, 2, 3, 64, 65, 200] {
        for algorithm in Algorithm::ALL {
            let mut worker = Worker::new(&vec![7; n], n as u64);
            worker.loads.fill(None);
            assert_eq!(worker.pick(algorithm, 1), None, "{algorithm:?} of {n}");
            worker.loads[n / 2] = Some(Load { ramp: 0.1, ..Load::new(1_000_000) });
            assert!((0..50).all(|key| worker.pick(algorithm, key) == Some(n / 2)), "{algorithm:?} of {n}");
        }
    }
}

#[test]
fn a_state_follows_its_roster() {
    let mut rng = Rng::new(1);
    let mut state = Rotation::default();
    for n in [0, 3, 70, 2, 0, 1] {
        let roster = roster(&vec![10; n]);
        for algorithm in Algorithm::ALL {
            let picked = pick(algorithm, &roster, &mut state, 9, &mut rng, |_| Some(Load::new(0)));
            assert_eq!(picked.is_some(), n > 0, "{algorithm:?} of {n}");
        }
        assert_eq!(state.len(), n);
    }
}

#[test]
fn a_state_lives_on_with_an_equal_roster() {
    let (mut rng, mut state) = (Rng::new(2), Rotation::default());
    let mut turn =
        |roster: &Roster| pick(Algorithm::RoundRobin, roster, &mut state, 0, &mut rng, |_| Some(Load::new(0))).unwrap();
    let first = turn(&roster(&[10; 50]));
    assert!((1..200).all(|i| turn(&roster(&[10; 50])) == (first + i) % 50));
}

#[test]
fn a_load_is_asked_for_once() {
    for algorithm in [
        Algorithm::IpHash,
        Algorithm::LeastConnections,
        Algorithm::Weight,
        Algorithm::LeastConnectionsWeight,
        Algorithm::PerformanceLeastConnectionsWeight,
        Algorithm::RoundRobin,
    ] {
        let (roster, mut rng) = (roster(&[3; 10]), Rng::new(3));
        let mut state = Rotation::new(&roster, &mut rng);
        for key in 0..100 {
            let mut asked = [0; 10];
            pick(algorithm, &roster, &mut state, key, &mut rng, |i| {
                asked[i] += 1;
                (i % 3 > 0).then_some(Load::new(0))
            });
            assert!(asked.iter().all(|&times| times <= 1), "{algorithm:?}: {asked:?}");
        }
    }
}

#[test]
fn workers_begin_at_random_places() {
    for algorithm in [Algorithm::RoundRobin, Algorithm::Weight, Algorithm::LeastConnections] {
        let mut counts = [0.0; 4];
        for seed in 0..4_000 {
            counts[Worker::new(&WEIGHTS, seed).pick(algorithm, 0).unwrap()] += 1.0 / 4_000.0;
        }
        let expected = if algorithm == Algorithm::Weight { PARTS } else { [0.25; 4] };
        assert_near(&counts, &expected, 0.03);
    }
}

#[test]
fn rules_do_not_march_in_step() {
    // Two routes with different rules on one upstream, their requests taking turns.
    let mut worker = Worker::new(&[1, 1], 8);
    let mut counts = [0; 2];
    for _ in 0..100 {
        counts[worker.pick(Algorithm::RoundRobin, 0).unwrap()] += 1;
        worker.pick(Algorithm::LeastConnections, 0);
        worker.pick(Algorithm::Weight, 0);
    }
    assert_eq!(counts, [50, 50]);
}

#[test]
fn rotation_passes_over_those_that_are_not_eligible() {
    let mut worker = Worker::new(&[1; 4], 3);
    worker.loads[2] = None;
    let picks: Vec<_> = (0..9).map(|_| worker.pick(Algorithm::RoundRobin, 0).unwrap()).collect();
    assert!(picks.windows(3).all(|turn| turn.iter().sum::<usize>() == 4), "{picks:?}");
}

#[test]
fn smooth_rotation_spreads_the_heavy_one() {
    let mut worker = Worker::new(&[5, 1, 1], 0);
    worker.state.current.fill(0);
    let picks: String = (0..14).map(|_| ["a", "b", "c"][worker.pick(Algorithm::Weight, 0).unwrap()]).collect();
    assert!(["aabacaaaabacaa", "aacabaaaacabaa"].contains(&picks.as_str()), "{picks}");
}

proptest! {
    #[test]
    fn a_cycle_of_smooth_rotation_is_exact(weights in prop::collection::vec(1u16..=60, 1..12), seed: u64) {
        let mut worker = Worker::new(&weights, seed);
        for _ in 0..2 {
            let mut counts = vec![0; weights.len()];
            for _ in 0..weights.iter().sum::<u16>() {
                counts[worker.pick(Algorithm::Weight, 0).unwrap()] += 1;
            }
            prop_assert_eq!(&counts, &weights);
        }
    }

    #[test]
    fn least_rules_pick_what_reading_all_picks(
        backends in prop::collection::vec((1u16..6, prop::option::weighted(0.8, 0u32..6)), 1..9),
        seed: u64,
        which in 0..2,
    ) {
        let weights: Vec<u16> = backends.iter().map(|backend| backend.0).collect();
        let algorithm = [Algorithm::LeastConnections, Algorithm::LeastConnectionsWeight][which as usize];
        let mut worker = Worker::new(&weights, seed);
        worker.loads = backends.iter().map(|backend| backend.1.map(Load::new)).collect();
        let mut expected_first = worker.state.next(algorithm);
        for _ in 0..20 {
            let expected = naive_least(&backends, which == 1, expected_first);
            prop_assert_eq!(worker.pick(algorithm, 0), expected);
            if let Some(i) = expected {
                expected_first = (i + 1) % backends.len();
            }
        }
    }
}

/// The smallest (in flight + 1) / weight as a fraction of whole numbers; of equals the next from `first` on.
fn naive_least(backends: &[(u16, Option<u32>)], by_weight: bool, first: usize) -> Option<usize> {
    const COMMON: u32 = 60; // a multiple of every weight there is
    let cost = |i: usize| {
        let (weight, in_flight) = backends[i];
        Some((in_flight? + 1) * COMMON / if by_weight { u32::from(weight) } else { 1 })
    };
    let n = backends.len();
    (0..n)
        .filter_map(|offset| Some((cost((first + offset) % n)?, offset)))
        .min()
        .map(|(_, offset)| (first + offset) % n)
}

#[test]
fn a_ramped_backend_takes_less() {
    let expected = parts(&[10.0, 100.0, 100.0]);
    for algorithm in
        [Algorithm::Weight, Algorithm::LeastConnectionsWeight, Algorithm::RandomTwo, Algorithm::LeastConnections]
    {
        let mut worker = Worker::new(&[100; 3], 4);
        worker.loads[0].as_mut().unwrap().ramp = 0.1;
        let shares = match algorithm {
            Algorithm::LeastConnectionsWeight => worker.held_shares(algorithm, PICKS),
            _ => worker.idle_shares(algorithm, PICKS),
        };
        if algorithm == Algorithm::LeastConnections {
            assert_near(&shares, &[1.0 / 3.0; 3], 0.001);
        } else {
            assert_near(&shares, &expected, 0.005);
        }
    }
}

#[test]
fn hashes_move_only_the_clients_of_the_backend_that_goes() {
    for algorithm in [Algorithm::IpHash, Algorithm::Hash] {
        for weights in [vec![100; 7], vec![100, 200, 50, 1000, 1, 300, 100]] {
            let mut worker = Worker::new(&weights, 0);
            let homes: Vec<_> = (0..10_000).map(|client| worker.pick(algorithm, client_key(client))).collect();
            for gone in 0..weights.len() {
                worker.loads[gone] = None;
                for (client, home) in (0..).zip(&homes) {
                    let now = worker.pick(algorithm, client_key(client));
                    assert!(if *home == Some(gone) { now != *home } else { now == *home });
                }
                worker.loads[gone] = Some(Load::new(5));
            }
        }
    }
}

fn client_key(client: u32) -> u64 {
    ip_hash::client_key(std::net::Ipv4Addr::from_bits(0x0a00_0000 + client).into())
}

#[test]
fn hashes_follow_the_id_and_neither_place_nor_load() {
    let there = Roster::new([("a", 100), ("b", 300), ("c", 100)]);
    let here = Roster::new([("c", 100), ("a", 100), ("b", 300)]);
    let (mut rng, mut state) = (Rng::new(0), Rotation::default());
    for client in 0..10_000 {
        let mut picked = |roster: &Roster, load: Load| {
            pick(Algorithm::IpHash, roster, &mut state, client_key(client), &mut rng, |_| Some(load)).unwrap()
        };
        let ramped = Load { ramp: 0.1, headroom: 0.05, in_flight: 99 };
        assert_eq!(["a", "b", "c"][picked(&there, Load::new(0))], ["c", "a", "b"][picked(&here, ramped)]);
    }
}

#[test]
fn a_raised_weight_takes_clients_and_gives_none() {
    let (before, after) = (Roster::new([("a", 10), ("b", 10)]), Roster::new([("a", 20), ("b", 10)]));
    let (mut rng, mut state) = (Rng::new(0), Rotation::default());
    let mut home = |roster: &Roster, client| {
        pick(Algorithm::IpHash, roster, &mut state, client_key(client), &mut rng, |_| Some(Load::new(0)))
    };
    assert!((0..10_000).all(|client| home(&before, client) == Some(1) || home(&after, client) == Some(0)));
}

#[test]
fn many_backends_are_sampled() {
    let weights: Vec<u16> = (0..100).map(|i| if i < 50 { 300 } else { 100 }).collect();
    for algorithm in [Algorithm::LeastConnectionsWeight, Algorithm::PerformanceLeastConnectionsWeight] {
        let shares = Worker::new(&weights, 9).held_shares(algorithm, PICKS);
        let expected = parts(&weights.iter().copied().map(f64::from).collect::<Vec<_>>());
        assert_near(&shares, &expected, 0.0005);
    }
    let mut worker = Worker::new(&weights, 10);
    let mut asked = 0;
    for _ in 0..1_000 {
        let loads = &worker.loads;
        pick(Algorithm::LeastConnections, &worker.roster, &mut worker.state, 0, &mut worker.rng, |i| {
            asked += 1;
            loads[i]
        });
    }
    assert_eq!(asked, 8_000);
}

#[test]
fn the_best_of_the_sample_wins() {
    // A twentieth of the backends is idle: a sample of eight holds one with 1 - 0.95^8 = 34 %.
    let mut worker = Worker::new(&[10; 200], 12);
    worker.loads = (0..200).map(|i| Some(Load::new(if i % 20 == 0 { 0 } else { 50 }))).collect();
    let shares = worker.idle_shares(Algorithm::LeastConnections, 20_000);
    assert_near(&[shares.iter().step_by(20).sum()], &[0.3366], 0.01);
}

#[test]
fn shares_under_load_are_weight_times_headroom() {
    let mut worker = Worker::new(&[100, 200, 100], 13);
    for (load, headroom) in worker.loads.iter_mut().zip([1.0, 0.25, 0.05]) {
        load.as_mut().unwrap().headroom = headroom;
    }
    let shares = worker.held_shares(Algorithm::PerformanceLeastConnectionsWeight, PICKS);
    assert_near(&shares, &parts(&[100.0, 50.0, 5.0]), 0.005);
}

#[test]
fn no_share_falls_under_a_twentieth_of_the_weights_share() {
    for (n, tolerance) in [(3, 0.0001), (64, 0.0001), (100, 0.0002)] {
        let weights: Vec<u16> = (0..n).map(|i| 100 + i * 3).collect();
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        // The worst case for the formula alone: idle backends of which one has all the headroom. And one that is stuck
        // with requests it doesn't end.
        let mut worker = Worker::new(&weights, 14);
        for load in worker.loads.iter_mut().skip(1).flatten() {
            load.headroom = 0.05;
        }
        worker.loads[1].as_mut().unwrap().in_flight = 1_000_000;
        let shares = worker.idle_shares(Algorithm::PerformanceLeastConnectionsWeight, 2 * PICKS);
        for (share, weight) in shares.iter().zip(&weights) {
            let floor = f64::from(*weight) / total / 20.0;
            assert!(*share >= floor - tolerance, "{share} of {floor} among {n}");
        }
        assert!(n > 64 || shares[0] > 0.9, "the floor takes no more than it must: {}", shares[0]);
    }
}

#[test]
fn the_floor_is_silent_where_the_formula_keeps_it() {
    // With all reports fresh and equal the rule is least_connections_weight, pick by pick.
    let mut plain = Worker::new(&[100, 40, 10], 15);
    let mut performance = Worker::new(&[100, 40, 10], 15);
    for _ in 0..2_000 {
        let i = plain.pick(Algorithm::LeastConnectionsWeight, 0).unwrap();
        let j = performance.pick(Algorithm::PerformanceLeastConnectionsWeight, 0).unwrap();
        plain.loads[i].as_mut().unwrap().in_flight += 1;
        performance.loads[j].as_mut().unwrap().in_flight += 1;
    }
    assert_eq!(plain.loads, performance.loads);
}
