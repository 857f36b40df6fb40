//! The latencies of the last ten seconds, so fine that a quantile is right to two digits.
//!
//! A sink's subtask counts into a histogram of its own, which is no one else's: no lock, no atomic. Once a second it hands that over
//! behind a lock, for whoever collects, and takes an empty one. What is older than ten seconds is let go.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::time::Timestamp;

/// Microseconds that go into one histogram.
const SLOT: i64 = 1_000_000;
/// Of how many of them quantiles are made.
const SLOTS: i64 = 10;
/// Longer latencies count as this one.
const LONGEST_MICROS: u64 = 3_600_000_000;
const DIGITS: u8 = 2;

#[expect(clippy::expect_used, reason = "the bounds are constants, and the test below makes one")]
fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).expect("bounds that a histogram may have")
}

/// Which slot a time is in.
const fn slot(now: Timestamp) -> i64 {
    now.as_micros().div_euclid(SLOT)
}

/// The slots of a subtask that are full, oldest first.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<VecDeque<(i64, Histogram<u32>)>>);

impl Slots {
    fn push(&self, number: i64, counts: Histogram<u32>) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.push_back((number, counts));
        while slots.front().is_some_and(|(old, _)| *old <= number - SLOTS) {
            slots.pop_front();
        }
    }

    /// What the ten full seconds before this one have.
    pub(super) fn read(&self, now: Timestamp) -> Recent {
        let mut recent = Recent::default();
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, counts) in slots.iter() {
            if (slot(now) - SLOTS..slot(now)).contains(number) {
                recent.take(counts);
            }
        }
        recent
    }
}

/// The writing end.
#[derive(Debug)]
pub(super) struct SlotWriter {
    counts: Histogram<u32>,
    number: i64,
    /// When its slot is full; never while it is empty.
    full_at: Timestamp,
}

impl Default for SlotWriter {
    fn default() -> Self {
        Self { counts: empty(), number: i64::MIN, full_at: Timestamp::MAX }
    }
}

impl SlotWriter {
    /// Counts the same latency several times.
    pub(super) fn record(&mut self, micros: u64, times: u64, now: Timestamp, slots: &Slots) {
        self.turn(now, slots);
        if self.full_at == Timestamp::MAX {
            self.number = slot(now);
            self.full_at = Timestamp::from_micros((self.number + 1).saturating_mul(SLOT));
        }
        self.counts.saturating_record_n(micros, u32::try_from(times).unwrap_or(u32::MAX));
    }

    /// Hands a slot over if its second is over.
    #[inline]
    pub(super) fn turn(&mut self, now: Timestamp, slots: &Slots) {
        if now >= self.full_at {
            slots.push(self.number, std::mem::replace(&mut self.counts, empty()));
            self.full_at = Timestamp::MAX;
        }
    }
}

/// Latencies of the last ten full seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recent(Option<Histogram<u32>>);

impl Recent {
    /// The quantiles that are exported.
    pub const QUANTILES: [f64; 6] = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];

    /// The latency that this share of the records did not exceed, to two digits; nothing if there was no record.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let counts = self.0.as_ref().filter(|counts| !counts.is_empty())?;
        Some(Duration::from_micros(counts.value_at_quantile(share)))
    }

    /// How many records there were.
    pub fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, Histogram::len)
    }

    /// Adds those of another subtask.
    pub(super) fn add(&mut self, other: &Self) {
        if let Some(counts) = &other.0 {
            self.take(counts);
        }
    }

    fn take(&mut self, counts: &Histogram<u32>) {
        // Both have the same bounds, so nothing is left out.
        let added = self.0.get_or_insert_with(empty).add(counts);
        debug_assert!(added.is_ok(), "{added:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn micros(recent: &Recent, share: f64) -> Option<u128> {
        recent.quantile(share).map(|latency| latency.as_micros())
    }

    #[test]
    fn a_second_is_shown_when_it_is_over_and_for_ten_seconds() {
        let (slots, mut writer) = (Slots::default(), SlotWriter::default());
        writer.record(40, 99, at(5_100), &slots);
        writer.record(9_000, 1, at(5_999), &slots);
        assert_eq!(slots.read(at(5_999)), Recent::default());
        writer.turn(at(6_000), &slots);
        let recent = slots.read(at(6_000));
        assert_eq!((recent.count(), micros(&recent, 0.5), micros(&recent, 0.99)), (100, Some(40), Some(40)));
        let highest = micros(&recent, 1.0).unwrap();
        assert!((8_950..9_100).contains(&highest), "right to two digits: {highest}");
        assert_eq!(slots.read(at(15_999)).count(), 100);
        assert_eq!(slots.read(at(16_000)).count(), 0);
        writer.turn(at(60_000), &slots);
        writer.record(7, 2, at(60_000), &slots);
        writer.turn(at(61_000), &slots);
        assert_eq!(slots.0.lock().unwrap().len(), 1, "what is old is let go");
    }

    #[test]
    fn memory_is_that_of_ten_seconds_however_long_it_counts_and_nobody_asks() {
        let (slots, mut writer) = (Slots::default(), SlotWriter::default());
        for second in 0..1_000 {
            writer.record(u64::MAX, u64::MAX, at(second * 1_000), &slots);
        }
        let slots = slots.0.lock().unwrap();
        assert_eq!(slots.len(), 10);
        let sizes: Vec<_> = slots.iter().map(|(_, counts)| counts.distinct_values()).collect();
        assert!(sizes.iter().all(|size| *size == empty().distinct_values()), "{sizes:?}");
    }

    #[test]
    fn subtasks_are_added_up() {
        let (slots, mut writer) = (Slots::default(), SlotWriter::default());
        writer.record(10, 3, at(0), &slots);
        writer.record(20, 1, at(1_000), &slots);
        writer.turn(at(2_000), &slots);
        let mut recent = slots.read(at(2_000));
        recent.add(&slots.read(at(2_000)));
        recent.add(&Recent::default());
        assert_eq!((recent.count(), micros(&recent, 0.75), micros(&recent, 0.76)), (8, Some(10), Some(20)));
    }
}
