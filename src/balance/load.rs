//! What a backend carries at the moment of a choice, and how two backends compare.
//!
//! Owns the two value types. Never counts: the caller reads its counters and hands the numbers in.

/// What changes from request to request about an eligible backend. The configured weight is in the
/// [`Roster`](super::Roster).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Exchanges and tunnels of the whole process on it now.
    pub in_flight: u32,
    /// Factor on its weight in the weighted and least-rules, above 0 up to 1
    /// ([`ramp`](crate::health::verdict::ramp)); the hash rules and plain rotation don't look at it.
    pub ramp: f32,
    /// [`Score::headroom`](super::score::Score::headroom), 0.05..=1; only the performance rule looks at it.
    pub headroom: f32,
}

impl Load {
    /// The load of a backend that was never down and has reported nothing.
    pub const fn new(in_flight: u32) -> Self {
        Load { in_flight, ramp: 1.0, headroom: 1.0 }
    }

    /// `weight` with the ramp taken into account.
    pub(super) fn ramped(self, weight: f32) -> f64 {
        f64::from(weight) * f64::from(self.ramp)
    }
}

/// Work for each unit of power; the cheapest takes the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) work: f64,
    pub(super) power: f64,
}

impl Cost {
    /// Whether this is strictly cheaper. Multiplied crosswise and not divided: 3/300 and 1/100 are an exact tie.
    pub(super) fn beats(self, other: Cost) -> bool {
        self.work * other.power < other.work * self.power
    }
}
