//! Which keys come, and what is kept with them. `loadtest/peers/flink` has the same functions.

/// Spreads a number over 64 bits.
#[inline]
pub(crate) const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

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

/// Letters that do not compress well.
pub(crate) fn payload(key: u64, bytes: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut mixed = 0;
    let letters = (0..bytes).map(|at| {
        if at % 10 == 0 {
            mixed = mix(key.wrapping_mul(1024).wrapping_add(at / 10));
        }
        let letter = LETTERS.get((mixed & 63) as usize).copied().unwrap_or_default();
        mixed >>= 6;
        char::from(letter)
    });
    letters.collect()
}
