//! Which keys come, and what is kept with them. `loadtest/peers/flink` has the same functions.

pub(crate) use crate::support::payload::{mix, payload};

/// A key of `keys`, which are fewer than 2³², all of them alike.
#[inline]
pub(crate) const fn uniform(mixed: u64, keys: u64) -> u64 {
    ((mixed >> 32) * keys) >> 32
}

/// Zipf's law with exponent 0.99: Gray et al., Quickly generating billion-record synthetic databases, 1994, as in YCSB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZipfKeys {
    keys: u64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl ZipfKeys {
    pub(crate) fn new(keys: u64) -> Self {
        let zeta: f64 = (1..=keys).map(|rank| (rank as f64).powf(-THETA)).sum();
        let two = 1.0 + 2_f64.powf(-THETA);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self { keys, zeta, eta }
    }

    pub(crate) fn key(&self, mixed: u64) -> u64 {
        let share = (mixed >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = share * self.zeta;
        let rank = if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5_f64.powf(THETA) {
            1
        } else {
            let rank = self.keys as f64 * (self.eta * share - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
            (rank as u64).min(self.keys - 1)
        };
        // The popular ones are not neighbours.
        uniform(mix(rank), self.keys)
    }
}
