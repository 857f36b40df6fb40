//! The input of the ledger, made from a seed: whoever knows the seed knows every record, without asking the ledger.

use serde::{Deserialize, Serialize};

/// Partitions of the input; record `number` is record `number / PARTITIONS` of partition `number % PARTITIONS`.
pub(crate) const PARTITIONS: u32 = 4;
/// Accounts; the first half takes records from every partition, the others from one each.
const ACCOUNTS: u64 = 4_000;

/// How long an account rests between two spans of activity, at least: more than so many microseconds of value dates.
pub(crate) const GAP_MICROS: u64 = 700_000;

/// One numbered booking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Booking {
    /// Where it came from.
    pub(crate) partition: u32,
    /// Its number there.
    pub(crate) seq: u64,
    /// The account it belongs to: the key.
    pub(crate) account: u64,
    /// What it adds.
    pub(crate) amount: i64,
}

/// Makes the booking of a number.
pub(crate) fn booking(seed: u64, number: u64) -> Booking {
    let partition = number % u64::from(PARTITIONS);
    let drawn = mix(seed ^ mix(number));
    let account = drawn % ACCOUNTS;
    let shared = account < ACCOUNTS / 2;
    let account = if shared { account } else { account - account % u64::from(PARTITIONS) + partition };
    let amount = i64::try_from(mix(drawn) % 2_001).unwrap_or_default() - 1_000;
    Booking { partition: partition as u32, seq: number / u64::from(PARTITIONS), account, amount }
}

/// When a booking counts, in microseconds: they come in this order within a partition, and no two have the same date. Watermarks begin at
/// zero, so that whatever has that date is late.
pub(crate) fn value_date(booking: &Booking) -> i64 {
    (i64::try_from(booking.seq).unwrap_or(i64::MAX / 2_000) + 1) * 1_000 + i64::from(booking.partition)
}

/// Says whether all bookings of an account come from one partition, and so in the order of their dates.
pub(crate) const fn comes_from_one_partition(account: u64) -> bool {
    account >= ACCOUNTS / 2
}

/// Scrambles a number: the step function of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
