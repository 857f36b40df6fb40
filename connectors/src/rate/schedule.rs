//! When each row is due: whole seconds of a rising rate, the rows of a second spread evenly over it.

use std::time::Duration;

const MICROS: u128 = 1_000_000;

/// Rows per second, reached after a ramp. All of it is exact: the same row is due at the same time in every life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Schedule {
    /// Rows of each second after the ramp, at least 1.
    pub(super) per_second: u64,
    /// Seconds of the ramp: second *s*, counted from 1, has `s * step` rows.
    pub(super) ramp: u64,
}

impl Schedule {
    /// Rows by which each second of the ramp has more than the one before. As in Spark it is rounded down.
    fn step(self) -> u128 {
        u128::from(self.per_second) / (u128::from(self.ramp) + 1)
    }

    /// How many rows are due before second `second` is over, counted from 0: those of the seconds before it.
    fn before(self, second: u64) -> u128 {
        let ramped = u128::from(second.min(self.ramp));
        // Below 2^64 * 2^64 / 2: the step is at most the rate divided by the length of the ramp.
        let ramp = (self.step() * ramped).saturating_mul(ramped + 1) / 2;
        ramp.saturating_add(u128::from(second.saturating_sub(self.ramp)) * u128::from(self.per_second))
    }

    /// The second in which a row is due.
    fn second_of(self, row: u64) -> u64 {
        let row = u128::from(row);
        if let Some(row) = row.checked_sub(self.before(self.ramp)) {
            let seconds = row / u128::from(self.per_second.max(1));
            return self.ramp.saturating_add(u64::try_from(seconds).unwrap_or(u64::MAX));
        }
        // The first second of the ramp whose end is beyond the row.
        let (mut low, mut high) = (0, self.ramp);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.before(middle + 1) > row { high = middle } else { low = middle + 1 }
        }
        low
    }

    /// How long after the start a row is due.
    pub(super) fn due(self, row: u64) -> Duration {
        let second = self.second_of(row);
        let first = self.before(second);
        let rows = self.before(second.saturating_add(1)) - first;
        let within = (u128::from(row) - first) * MICROS / rows.max(1);
        Duration::from_secs(second).saturating_add(Duration::from_micros(within as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(per_second: u64, ramp: u64) -> Schedule {
        Schedule { per_second, ramp }
    }

    /// How many rows are due in the first `seconds`, one by one.
    fn ends(schedule: Schedule, seconds: u64) -> Vec<u64> {
        (0..=seconds)
            .map(|second| (0..).take_while(|row| schedule.due(*row) < Duration::from_secs(second)).count() as u64)
            .collect()
    }

    #[test]
    fn has_the_rows_of_each_second_that_spark_has() {
        assert_eq!(ends(schedule(10, 0), 3), [0, 10, 20, 30]);
        assert_eq!(ends(schedule(10, 4), 6), [0, 2, 6, 12, 20, 30, 40]);
        // The step of a ramp is rounded down.
        assert_eq!(ends(schedule(10, 2), 4), [0, 3, 9, 19, 29]);
        assert_eq!(ends(schedule(3, 5), 7), [0, 0, 0, 0, 0, 0, 3, 6]);
    }

    #[test]
    fn spreads_the_rows_of_a_second_evenly_over_it() {
        let due: Vec<_> = (0..5).map(|row| schedule(4, 0).due(row).as_millis()).collect();
        assert_eq!(due, [0, 250, 500, 750, 1_000]);
        let due: Vec<_> = (0..6).map(|row| schedule(10, 4).due(row).as_millis()).collect();
        assert_eq!(due, [0, 500, 1_000, 1_250, 1_500, 1_750]);
    }

    #[test]
    fn is_never_late_and_never_overflows_at_the_limits() {
        for schedule in [schedule(u64::MAX, 0), schedule(1, 0), schedule(1, u64::MAX), schedule(u64::MAX, u64::MAX)] {
            let mut last = Duration::ZERO;
            for row in [0, 1, 2, 1 << 20, 1 << 40, u64::MAX - 1, u64::MAX] {
                let due = schedule.due(row);
                assert!(due >= last, "{schedule:?} {row}");
                last = due;
            }
        }
        assert_eq!(schedule(1, 0).due(u64::MAX), Duration::from_secs(u64::MAX));
    }
}
