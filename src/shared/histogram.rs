//! Latencies as log-linear histograms: counted by one worker, read by anybody, added up and taken apart as plain values.
//!
//! Owns the buckets and what can be told from them. Never reads a clock, never keeps history: whoever wants "the last
//! ten seconds" keeps [`Delta`]s.
//!
//! # The sum
//! Each doubling of the time has 8 buckets of equal width, and times under 8 µs are counted exactly: 8 + 29 · 8 = 240
//! buckets reach from 1 µs to 2³² µs (71 minutes; what is longer counts there). A bucket's middle is off by at most
//! half of an eighth: 6.25 %. With 4 bytes a bucket, the sum of all times and the longest one, a histogram takes 976
//! bytes, so that the two of a [`Latency`] stay under the 2 KiB that a worker may spend on a backend. Buckets wrap
//! around; [`Snapshot::catch_up`] makes 64-bit counts of them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Buckets of a histogram.
pub const BUCKETS_COUNT: usize = 240;
/// Buckets of each doubling, as a power of two.
const SUB_BITS: u32 = 3;

const _: () = assert!(BUCKETS_COUNT as u32 == (32 - SUB_BITS + 1) << SUB_BITS);
const _: () = assert!(size_of::<Latency>() <= 2048);

/// Where a time in microseconds is counted.
const fn bucket_of(us: u32) -> usize {
    if us < 1 << SUB_BITS {
        return us as usize;
    }
    let shift = us.ilog2() - SUB_BITS;
    ((shift << SUB_BITS) + (us >> shift)) as usize
}

/// The shortest time that is counted in `bucket`, in microseconds; for [`BUCKETS_COUNT`] the end of the last one.
const fn lower_us(bucket: usize) -> u64 {
    let per_doubling = 1 << SUB_BITS;
    if bucket < per_doubling {
        return bucket as u64;
    }
    let shift = bucket / per_doubling - 1;
    ((per_doubling + bucket % per_doubling) as u64) << shift
}

/// The middle of `bucket`, in microseconds.
const fn middle_us(bucket: usize) -> u64 {
    (lower_us(bucket) + lower_us(bucket + 1) - 1) / 2
}

/// A histogram that one thread writes and any may read; a record is a few loads and stores and no locked instruction.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU32; BUCKETS_COUNT],
    sum_us: AtomicU64,
    max_us: AtomicU32,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            buckets: [const { AtomicU32::new(0) }; BUCKETS_COUNT],
            sum_us: AtomicU64::new(0),
            max_us: AtomicU32::new(0),
        }
    }
}

impl Histogram {
    /// Counts one time, in microseconds. Less than one counts as one, so that the sum tells whether anything was
    /// counted. Only by the worker it belongs to.
    pub fn record(&self, us: u64) {
        let us = us.clamp(1, u64::from(u32::MAX)) as u32;
        let bucket = &self.buckets[bucket_of(us)];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let sum_us = self.sum_us.load(Ordering::Relaxed);
        self.sum_us.store(sum_us.wrapping_add(u64::from(us)), Ordering::Relaxed);
        if us > self.max_us.load(Ordering::Relaxed) {
            self.max_us.store(us, Ordering::Relaxed);
        }
    }

    /// All times together, in microseconds; it stands still when nothing is counted.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.load(Ordering::Relaxed)
    }
}

/// What one worker counts of the times of one backend's exchanges.
#[derive(Debug, Default)]
pub struct Latency {
    /// From the try's begin to the answer's head.
    pub first_byte: Histogram,
    /// From the try's begin to the answer's end; no tunnels and no event streams.
    pub total: Histogram,
}

/// What the histograms of all workers stand at together, with buckets that wrap around as theirs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    buckets: [u32; BUCKETS_COUNT],
    sum_us: u64,
    max_us: u32,
}

impl Default for Reading {
    fn default() -> Self {
        Reading { buckets: [0; BUCKETS_COUNT], sum_us: 0, max_us: 0 }
    }
}

impl Reading {
    /// Adds what one worker's histogram stands at. Bucket by bucket: what is counted meanwhile is in or not.
    pub fn add(&mut self, histogram: &Histogram) {
        self.sum_us = self.sum_us.wrapping_add(histogram.sum_us.load(Ordering::Relaxed));
        self.max_us = self.max_us.max(histogram.max_us.load(Ordering::Relaxed));
        for (count, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *count = count.wrapping_add(bucket.load(Ordering::Relaxed));
        }
    }
}

/// What was counted between two looks: the few buckets that moved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    moved: Box<[(u16, u32)]>,
    sum_us: u64,
}

impl Delta {
    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.moved.iter().map(|&(_, count)| u64::from(count)).sum()
    }
}

/// A histogram as a plain value: what is shown, added up and compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    buckets: Box<[u64; BUCKETS_COUNT]>,
    sum_us: u64,
    max_us: u32,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot { buckets: Box::new([0; BUCKETS_COUNT]), sum_us: 0, max_us: 0 }
    }
}

impl From<&Histogram> for Snapshot {
    fn from(histogram: &Histogram) -> Self {
        let (mut reading, mut snapshot) = (Reading::default(), Snapshot::default());
        reading.add(histogram);
        snapshot.catch_up(&reading);
        snapshot
    }
}

impl Snapshot {
    /// Takes in what `reading` has more, and returns that. The snapshot has to begin empty, with the histograms behind
    /// the reading; then its buckets are theirs without the wrap, if no bucket counts 2³² between two calls.
    pub fn catch_up(&mut self, reading: &Reading) -> Delta {
        let mut moved = Vec::new();
        for (at, (have, now)) in self.buckets.iter_mut().zip(&reading.buckets).enumerate() {
            let more = now.wrapping_sub(*have as u32);
            if more != 0 {
                *have += u64::from(more);
                moved.push((at as u16, more));
            }
        }
        let sum_us = reading.sum_us.wrapping_sub(self.sum_us);
        self.sum_us = reading.sum_us;
        self.max_us = self.max_us.max(reading.max_us);
        Delta { moved: moved.into(), sum_us }
    }

    /// Adds what was counted between two looks. The longest time of it is known by its bucket only.
    pub fn add(&mut self, delta: &Delta) {
        for &(at, count) in &delta.moved {
            self.buckets[usize::from(at)] += u64::from(count);
            let longest = (lower_us(usize::from(at) + 1) - 1) as u32;
            self.max_us = self.max_us.max(longest);
        }
        self.sum_us = self.sum_us.wrapping_add(delta.sum_us);
    }

    /// Adds another snapshot, of another worker or backend.
    pub fn merge(&mut self, other: &Snapshot) {
        self.buckets.iter_mut().zip(other.buckets.iter()).for_each(|(own, more)| *own += more);
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// What was counted since `earlier`, an earlier snapshot of the same. The longest time of it is known by its
    /// bucket only.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        let mut buckets = self.buckets.clone();
        buckets.iter_mut().zip(earlier.buckets.iter()).for_each(|(own, less)| *own = own.saturating_sub(*less));
        let last = buckets.iter().rposition(|&count| count > 0);
        let longest = last.map_or(0, |at| (lower_us(at + 1) - 1) as u32);
        Snapshot { buckets, sum_us: self.sum_us.wrapping_sub(earlier.sum_us), max_us: longest.min(self.max_us) }
    }

    /// Narrows the longest time to at most `us`: what is known from elsewhere to be the longest.
    pub fn limit_max(&mut self, us: u64) {
        self.max_us = self.max_us.min(u32::try_from(us).unwrap_or(u32::MAX));
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All times together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest time, in microseconds; 0 when nothing was counted.
    pub fn max_us(&self) -> u64 {
        u64::from(self.max_us)
    }

    /// The mean, in microseconds, exact; `None` when nothing was counted.
    pub fn mean_us(&self) -> Option<f64> {
        match self.count() {
            0 => None,
            count => Some(self.sum_us as f64 / count as f64),
        }
    }

    /// The time that a part `q` (within 0..=1) of all is not above, in microseconds, to within 6.25 %; `None` when
    /// nothing was counted.
    pub fn quantile_us(&self, q: f64) -> Option<u64> {
        let count = self.count();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        let holds = |&count: &u64| {
            seen += count;
            seen >= rank
        };
        let at = self.buckets.iter().position(holds)?;
        Some(middle_us(at).min(self.max_us()))
    }

    /// How many were shorter than `us`, to the bucket: exact where a bucket begins at `us`, as it does at the powers of
    /// two.
    pub fn count_below(&self, us: u64) -> u64 {
        let end = match u32::try_from(us) {
            Ok(us) => bucket_of(us),
            Err(_) => BUCKETS_COUNT,
        };
        self.buckets[..end].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUANTILES: [f64; 7] = [0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0];

    /// Times of every size: as many of a few microseconds as of an hour.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let time = (0u32..33, any::<u64>()).prop_map(|(bits, luck)| luck & ((1u64 << bits) - 1));
        proptest::collection::vec(time, 1..400)
    }

    fn counted(times: &[u64]) -> Histogram {
        let histogram = Histogram::default();
        times.iter().for_each(|&us| histogram.record(us));
        histogram
    }

    fn sorted(times: &[u64]) -> Vec<u64> {
        let mut sorted: Vec<u64> = times.iter().map(|&us| us.clamp(1, u64::from(u32::MAX))).collect();
        sorted.sort_unstable();
        sorted
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..BUCKETS_COUNT {
            let (first, last) = (lower_us(bucket), lower_us(bucket + 1) - 1);
            assert!(first <= last, "bucket {bucket} is empty");
            assert_eq!(bucket_of(first as u32), bucket);
            assert_eq!(bucket_of(last as u32), bucket);
        }
        assert_eq!(lower_us(BUCKETS_COUNT), 1 << 32);
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_sixteenth_of_sorting(times in times()) {
            let (snapshot, sorted) = (Snapshot::from(&counted(&times)), sorted(&times));
            prop_assert_eq!(snapshot.count(), sorted.len() as u64);
            prop_assert_eq!(snapshot.sum_us(), sorted.iter().sum::<u64>());
            prop_assert_eq!(snapshot.max_us(), *sorted.last().unwrap());
            for q in QUANTILES {
                let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
                let (told, exact) = (snapshot.quantile_us(q).unwrap(), sorted[rank - 1]);
                prop_assert!(told.abs_diff(exact) as f64 <= exact as f64 / 16.0, "p{}: {told}, not {exact}", q * 100.0);
            }
        }

        #[test]
        fn what_is_counted_apart_adds_up(a in times(), b in times()) {
            let all = [a.clone(), b.clone()].concat();
            let whole = Snapshot::from(&counted(&all));
            let mut merged = Snapshot::from(&counted(&a));
            merged.merge(&Snapshot::from(&counted(&b)));
            prop_assert_eq!(&merged, &whole);
            let mut reading = Reading::default();
            [&a, &b].into_iter().for_each(|times| reading.add(&counted(times)));
            let mut caught_up = Snapshot::default();
            let delta = caught_up.catch_up(&reading);
            prop_assert_eq!(&caught_up, &whole);
            prop_assert_eq!(delta.count(), all.len() as u64);
        }

        #[test]
        fn what_came_since_is_the_difference(a in times(), b in times()) {
            let histogram = counted(&a);
            let before = Snapshot::from(&histogram);
            let mut follower = before.clone();
            b.iter().for_each(|&us| histogram.record(us));
            let mut reading = Reading::default();
            reading.add(&histogram);
            let mut window = Snapshot::default();
            window.add(&follower.catch_up(&reading));
            window.limit_max(follower.max_us());
            let since = Snapshot::from(&histogram).since(&before);
            prop_assert_eq!(&since, &window);
            let alone = Snapshot::from(&counted(&b));
            prop_assert_eq!(since.count(), alone.count());
            prop_assert_eq!(since.sum_us(), alone.sum_us());
            for q in QUANTILES {
                let (told, exact) = (since.quantile_us(q).unwrap(), alone.quantile_us(q).unwrap());
                // At the far end `alone` knows the longest exactly and the difference its bucket.
                prop_assert!(told.abs_diff(exact) as f64 <= exact as f64 / 8.0 + 1.0, "{told}, not {exact}");
            }
        }

        #[test]
        fn counts_below_a_power_of_two_are_exact(times in times(), bits in 3u32..32) {
            let below = times.iter().filter(|&&us| us < 1 << bits).count() as u64;
            prop_assert_eq!(Snapshot::from(&counted(&times)).count_below(1 << bits), below);
        }
    }

    #[test]
    fn a_bucket_may_wrap_between_two_looks() {
        let histogram = Histogram::default();
        let at = bucket_of(100);
        histogram.buckets[at].store(u32::MAX - 1, Ordering::Relaxed);
        let mut reading = Reading::default();
        reading.add(&histogram);
        let mut snapshot = Snapshot::default();
        snapshot.catch_up(&reading);
        (0..5).for_each(|_| histogram.record(100));
        let mut reading = Reading::default();
        reading.add(&histogram);
        assert_eq!(snapshot.catch_up(&reading).count(), 5);
        assert_eq!(snapshot.count(), u64::from(u32::MAX) + 4);
    }

    #[test]
    fn nothing_counted_tells_nothing() {
        let empty = Snapshot::default();
        assert_eq!((empty.count(), empty.max_us(), empty.mean_us(), empty.quantile_us(0.5)), (0, 0, None, None));
        assert_eq!(Snapshot::from(&counted(&[u64::MAX])).quantile_us(0.5), Some(middle_us(BUCKETS_COUNT - 1)));
    }
}
