//! What is kept with a key. `loadtest/peers/flink` has the same functions.

/// Spreads a number over 64 bits.
#[inline]
pub(crate) const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
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
