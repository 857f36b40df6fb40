//! Distributions of times: fixed buckets, the same for every family, so that they can be added up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, inclusive. Above the last there is one bucket more.
///
/// Round numbers from 1 µs to 30 s: an objective of 5 ms or 1 s lies on a bound, so the share of what met it is exact. A
/// quantile that is read between two bounds may be off by a factor of 2.5.
pub const BOUNDS_MICROS: [u64; 23] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 30_000_000,
];
const COUNT: usize = BOUNDS_MICROS.len() + 1;

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would say so")]
/// By the highest bit of a time, the first bucket that it may be in. Bounds are a factor of two apart at least, so it is that
/// one or the next: a look-up and a comparison, for what is counted per record.
const FIRST: [u8; 64] = {
    let mut first = [0; 64];
    let mut octave = 0;
    while octave < 64 {
        let mut below = 0;
        while below < BOUNDS_MICROS.len() && BOUNDS_MICROS[below] < 1 << octave {
            below += 1;
        }
        first[octave] = below as u8;
        octave += 1;
    }
    first
};

#[inline]
fn bucket(micros: u64) -> usize {
    let Some(octave) = micros.checked_ilog2() else { return 0 };
    let first = FIRST.get(octave as usize).map_or(0, |first| usize::from(*first));
    first + BOUNDS_MICROS.get(first).map_or(0, |bound| usize::from(*bound < micros))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A distribution as plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    counts: [u64; COUNT],
    sum_micros: u64,
}

impl Buckets {
    /// Counts a time.
    pub fn record(&mut self, time: Duration) {
        let micros = micros(time);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The times added up.
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// How many times were at most as long as each of [`BOUNDS_MICROS`].
    pub fn cumulative(&self) -> impl Iterator<Item = u64> {
        let running = self.counts.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        running.take(BOUNDS_MICROS.len())
    }
}

/// A distribution that one thread writes and others read.
#[derive(Debug, Default)]
pub struct SharedBuckets {
    counts: [AtomicU64; COUNT],
    sum_micros: AtomicU64,
}

impl SharedBuckets {
    /// Counts a time. Only the owner's thread may.
    #[inline]
    pub fn record(&self, time: Duration) {
        self.record_micros(micros(time));
    }

    /// Counts a time in microseconds. Only the owner's thread may.
    #[inline]
    pub fn record_micros(&self, micros: u64) {
        self.record_as(micros, micros);
    }

    /// Counts a time in the bucket of `micros`, and adds another one to the sum.
    #[inline]
    fn record_as(&self, micros: u64, sum: u64) {
        if let Some(count) = self.counts.get(bucket(micros)) {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        self.sum_micros.store(self.sum_micros.load(Ordering::Relaxed).saturating_add(sum), Ordering::Relaxed);
    }

    /// Counts the same time in microseconds several times. Only the owner's thread may.
    #[inline]
    pub fn record_many(&self, micros: u64, times: u64) {
        if let Some(count) = self.counts.get(bucket(micros)) {
            count.store(count.load(Ordering::Relaxed) + times, Ordering::Relaxed);
        }
        let sum = self.sum_micros.load(Ordering::Relaxed).saturating_add(micros.saturating_mul(times));
        self.sum_micros.store(sum, Ordering::Relaxed);
    }

    /// What it counts now. Between two of its loads the owner may count on: no count is ever lost or doubled by that, the sum may
    /// be one time behind.
    pub fn read(&self) -> Buckets {
        let mut buckets = Buckets { sum_micros: self.sum_micros.load(Ordering::Relaxed), ..Buckets::default() };
        for (count, cell) in buckets.counts.iter_mut().zip(&self.counts) {
            *count = cell.load(Ordering::Relaxed);
        }
        buckets
    }
}

/// A distribution of means, each of several equal shares of a time, so of less than a microsecond too. One thread writes.
#[derive(Debug, Default)]
pub(super) struct SharedMeans {
    means: SharedBuckets,
    /// What the sum has not counted of the means so far, in nanoseconds; below a thousand.
    rest_nanos: AtomicU64,
}

impl SharedMeans {
    /// Counts the mean of so many shares once. Only the owner's thread may.
    pub(super) fn record(&self, time: Duration, shares: usize) {
        let mean = time.as_nanos() / shares.max(1) as u128;
        let mean = u64::try_from(mean).unwrap_or(u64::MAX);
        let nanos = self.rest_nanos.load(Ordering::Relaxed).saturating_add(mean);
        self.rest_nanos.store(nanos % 1_000, Ordering::Relaxed);
        self.means.record_as(mean.div_ceil(1_000), nanos / 1_000);
    }

    pub(super) fn read(&self) -> Buckets {
        self.means.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_a_bound_counts_as_within_it() {
        let shared = SharedBuckets::default();
        let times = [0, 1, 2, 3, 1_000, 1_001, 30_000_000, 30_000_001];
        times.iter().for_each(|micros| shared.record(Duration::from_micros(*micros)));
        let mut read = shared.read();
        let at = |read: &Buckets, micros| {
            let index = BOUNDS_MICROS.iter().position(|bound| *bound == micros).unwrap();
            read.cumulative().nth(index).unwrap()
        };
        let expected = [(1, 2), (2, 3), (5, 4), (500, 4), (1_000, 5), (2_000, 6), (30_000_000, 7)];
        for (bound, count) in expected {
            assert_eq!(at(&read, bound), count, "{bound}");
        }
        assert_eq!((read.count(), read.sum()), (8, Duration::from_micros(times.iter().sum())));
        read.add(&shared.read());
        assert_eq!((read.count(), at(&read, 1)), (16, 4));
    }

    #[test]
    fn the_quick_way_to_a_bucket_is_the_right_one() {
        let near = BOUNDS_MICROS
            .iter()
            .chain(&[0, 3, 4, 7, 8, u64::MAX - 1])
            .flat_map(|at| [at.saturating_sub(1), *at, at + 1]);
        for micros in near.chain((0..64).map(|bit| 1 << bit)) {
            assert_eq!(bucket(micros), BOUNDS_MICROS.partition_point(|bound| *bound < micros), "{micros}");
        }
    }

    #[test]
    fn means_below_a_microsecond_add_up() {
        let means = SharedMeans::default();
        for _ in 0..8 {
            means.record(Duration::from_micros(64), 256);
        }
        means.record(Duration::from_micros(9), 0);
        let read = means.read();
        assert_eq!((read.count(), read.sum()), (9, Duration::from_micros(8 / 4 + 9)));
        assert_eq!(read.cumulative().next(), Some(8), "up to a microsecond, inclusive");
    }

    #[test]
    fn a_time_beyond_all_bounds_is_counted() {
        let mut buckets = Buckets::default();
        buckets.record(Duration::MAX);
        buckets.record(Duration::MAX);
        assert_eq!(buckets.count(), 2);
        assert_eq!(buckets.cumulative().last(), Some(0));
    }
}
