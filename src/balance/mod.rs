//! Which backend takes a request. Pure: loads, time and luck are handed in.
//!
//! [`policy::pick`] is the one door: the caller keeps a [`Roster`] for each upstream (made once a plan) and a
//! [`Rotation`] for each worker and upstream, and tells per backend its [`Load`], or that it is not eligible. Never
//! holds a connection count and never decides on health.

pub mod hash;
pub mod ip_hash;
pub mod key;
mod least_conn;
pub mod load;
pub mod policy;
mod random_two;
pub mod rng;
pub mod roster;
pub mod rotation;
pub mod score;
mod weighted;

pub use load::Load;
pub use policy::pick;
pub use rng::Rng;
pub use roster::Roster;
pub use rotation::Rotation;

/// A balancing rule (`load_balancer`, `protocols`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Weighted rendezvous hash of the client address.
    IpHash,
    /// Fewest exchanges at once; ties in rotation.
    LeastConnections,
    /// Smooth weighted round robin.
    Weight,
    /// Smallest (in flight + 1) / weight.
    LeastConnectionsWeight,
    /// Smallest (in flight + 1) / (weight × headroom).
    PerformanceLeastConnectionsWeight,
    /// Plain rotation.
    RoundRobin,
    /// Better of two drawn by weight.
    RandomTwo,
    /// Weighted rendezvous hash of `hash_on`.
    Hash,
}

impl Algorithm {
    /// How many there are; the length of an array indexed by rule.
    pub const COUNT: usize = Algorithm::ALL.len();

    /// All rules, in the order of their discriminants.
    pub const ALL: [Algorithm; 8] = [
        Algorithm::IpHash,
        Algorithm::LeastConnections,
        Algorithm::Weight,
        Algorithm::LeastConnectionsWeight,
        Algorithm::PerformanceLeastConnectionsWeight,
        Algorithm::RoundRobin,
        Algorithm::RandomTwo,
        Algorithm::Hash,
    ];

    /// The name used in configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::IpHash => "ip_hash",
            Algorithm::LeastConnections => "least_connections",
            Algorithm::Weight => "weight",
            Algorithm::LeastConnectionsWeight => "least_connections_weight",
            Algorithm::PerformanceLeastConnectionsWeight => "performance_least_connections_weight",
            Algorithm::RoundRobin => "round_robin",
            Algorithm::RandomTwo => "random_two",
            Algorithm::Hash => "hash",
        }
    }
}

#[cfg(test)]
mod tests;
