//! The one door to the balancing rules.
//!
//! Owns which rule is which. Never says who is eligible (active, healthy, connected, below `max_conn`, not yet tried
//! for this request): the caller's `load` does.

use super::load::Load;
use super::rng::Rng;
use super::roster::Roster;
use super::rotation::{self, Rotation};
use super::{Algorithm, hash, least_conn, random_two, score, weighted};

/// Picks the backend for a request by its index in `roster`, or `None` when none is eligible.
///
/// `load(i)` is what backend `i` carries, or `None` when it isn't eligible now; it is asked at most once for each
/// backend, except where backends are drawn by luck. `key` is looked at by the hash rules only:
/// [`client_key`](super::ip_hash::client_key) for [`Algorithm::IpHash`], and for [`Algorithm::Hash`] that or
/// [`of_bytes`](super::key::of_bytes) of the header, cookie or URI. A `state` that was made for other backends
/// or weights begins anew.
pub fn pick<L>(
    algorithm: Algorithm,
    roster: &Roster,
    state: &mut Rotation,
    key: u64,
    rng: &mut Rng,
    load: L,
) -> Option<usize>
where
    L: FnMut(usize) -> Option<Load>,
{
    state.follow(roster, rng);
    match algorithm {
        Algorithm::IpHash | Algorithm::Hash => hash::pick(roster, key, load),
        Algorithm::LeastConnections => least_conn::pick(algorithm, roster, state, rng, |_, _| 1.0, load),
        Algorithm::LeastConnectionsWeight => {
            least_conn::pick(algorithm, roster, state, rng, |weight, load| load.ramped(weight), load)
        }
        Algorithm::PerformanceLeastConnectionsWeight => score::pick(roster, state, rng, load),
        Algorithm::Weight => weighted::pick(roster, state, load),
        Algorithm::RoundRobin => rotation::pick(state, load),
        Algorithm::RandomTwo => random_two::pick(roster, rng, load),
    }
}
