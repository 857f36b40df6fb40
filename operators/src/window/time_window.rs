//! A stretch of event time, and which of them a time belongs to.

use std::fmt;

use millstream_runtime::state::key_group::{StreamKey, StreamKeyRef};
use millstream_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A stretch of event time: from `start`, inclusive, to `end`, exclusive. Times are UTC.
///
/// Where a window would reach beyond the range of [`Timestamp`], it ends at that limit: the last window holds the last time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TimeWindow {
    /// The first time in it.
    pub start: Timestamp,
    /// The first time behind it.
    pub end: Timestamp,
}

impl TimeWindow {
    /// All of time: the window of [`Global`](crate::window::Global) and of counts. It ends with the stream.
    pub const ALL: Self = Self { start: Timestamp::MIN, end: Timestamp::MAX };

    /// Makes the window `[start, end)`.
    pub const fn new(start: Timestamp, end: Timestamp) -> Self {
        Self { start, end }
    }

    /// The time of the window's results, and the last that it can hold: `end` - 1 µs, as Spark's `window_time`. So a window of
    /// windows puts a result where its records were.
    pub const fn time(&self) -> Timestamp {
        Timestamp::from_micros(self.end.as_micros().saturating_sub(1))
    }

    /// Says whether the windows share a time or follow each other without a gap.
    pub fn touches(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Returns the smallest window around both.
    #[must_use]
    pub fn cover(&self, other: &Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// Windows are elements of state. Their bytes, an on-disk format, sort as they do: both bounds big-endian, with the sign bit flipped.
impl StreamKey for TimeWindow {
    type Borrowed = Self;

    fn read_key(bytes: &[u8]) -> Option<Self> {
        let (start, end) = bytes.split_first_chunk::<8>()?;
        Some(Self::new(read(*start), read(end.try_into().ok()?)))
    }
}

impl StreamKeyRef for TimeWindow {
    type Owned = Self;

    fn write_key(&self, out: &mut Vec<u8>) {
        for bound in [self.start, self.end] {
            out.extend_from_slice(&(bound.as_micros() ^ i64::MIN).to_be_bytes());
        }
    }

    fn to_key(&self) -> Self {
        *self
    }
}

const fn read(bytes: [u8; 8]) -> Timestamp {
    Timestamp::from_micros(i64::from_be_bytes(bytes) ^ i64::MIN)
}

/// Windows of one size that begin every `slide`, in microseconds: `[s, s + size)` for every *s* that is `offset` modulo `slide`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub(super) size: i64,
    pub(super) slide: i64,
    pub(super) offset: i64,
}

impl Grid {
    /// How many windows a time belongs to at most.
    pub(super) const fn overlap(self) -> i64 {
        self.size / self.slide + (self.size % self.slide > 0) as i64
    }

    /// The one window of a time, where windows do not overlap and neither end is near the limits of time: the usual case, in few
    /// instructions.
    pub(super) fn only_window(self, time: Timestamp) -> Option<TimeWindow> {
        let past = time.as_micros().checked_sub(self.offset)?.checked_rem_euclid(self.slide)?;
        let start = time.as_micros().checked_sub(past)?;
        let end = start.checked_add(self.size).filter(|_| self.size == self.slide)?;
        Some(TimeWindow::new(Timestamp::from_micros(start), Timestamp::from_micros(end)))
    }

    /// Returns the windows that a time belongs to, the earliest first.
    pub(super) fn windows(self, time: Timestamp) -> impl Iterator<Item = TimeWindow> {
        // Sums of three times and sizes may leave 64 bits, never 128.
        let [size, slide, offset] = [self.size, self.slide, self.offset].map(i128::from);
        let time = i128::from(time.as_micros());
        let last = time - (time - offset).rem_euclid(slide);
        // The first start behind time - size.
        let first = last - (last - (time - size) - 1) / slide * slide;
        let starts = std::iter::successors(Some(first), move |start| Some(start + slide));
        let window = move |start| TimeWindow::new(clamped(start), clamped(start + size));
        starts.take_while(move |start| *start <= last).map(window)
    }
}

fn clamped(micros: i128) -> Timestamp {
    let limit = if micros < 0 { i64::MIN } else { i64::MAX };
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(limit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn windows(grid: (i64, i64, i64), micros: i64) -> Vec<(i64, i64)> {
        let (size, slide, offset) = grid;
        let windows = Grid { size, slide, offset }.windows(Timestamp::from_micros(micros));
        windows.map(|window| (window.start.as_micros(), window.end.as_micros())).collect()
    }

    fn in_seconds((size, slide, offset): (i64, i64, i64), seconds: i64) -> Vec<(i64, i64)> {
        let found = windows((size * SECOND, slide * SECOND, offset * SECOND), seconds * SECOND);
        found.into_iter().map(|(start, end)| (start / SECOND, end / SECOND)).collect()
    }

    /// S-WIN-01
    #[test]
    fn a_window_begins_with_its_start_and_ends_before_its_end() {
        let ten = 10 * SECOND;
        assert_eq!(windows((ten, ten, 0), 9_999_999), [(0, ten)]);
        assert_eq!(windows((ten, ten, 0), 10_000_000), [(ten, 2 * ten)]);
        assert_eq!(windows((ten, ten, 0), -1), [(-ten, 0)]);
    }

    /// S-WIN-02, S-WIN-03
    #[test]
    fn windows_slide_from_an_offset_and_negative_times_floor() {
        assert_eq!(in_seconds((10, 5, 2), 7), [(2, 12), (7, 17)]);
        assert_eq!(in_seconds((10, 5, 2), -3), [(-8, 2), (-3, 7)]);
        assert_eq!(in_seconds((12, 5, 0), 4), [(-5, 7), (0, 12)]);
        assert_eq!(in_seconds((10, 5, -1), 7), [(-1, 9), (4, 14)]);
    }

    /// S-WIN-05: 12:07 in windows of ten minutes every five.
    #[test]
    fn a_time_is_in_every_window_that_is_open_then() {
        let minutes = |clock: i64| clock * 60;
        let noon = 12 * 60;
        let found = in_seconds((minutes(10), minutes(5), 0), minutes(noon + 7));
        assert_eq!(found, [noon, noon + 5].map(|start| (minutes(start), minutes(start + 10))));
    }

    /// S-WIN-06
    #[test]
    fn the_time_of_a_window_is_its_last_microsecond() {
        let window = TimeWindow::new(Timestamp::from_micros(0), Timestamp::from_millis(10_000));
        assert_eq!(window.time(), Timestamp::from_micros(9_999_999));
        assert_eq!(TimeWindow::ALL.time().as_micros(), i64::MAX - 1);
    }

    #[test]
    fn at_the_limits_of_time_a_window_is_cut_and_not_lost() {
        let (min, max) = (i64::MIN, i64::MAX);
        assert_eq!(windows((10, 10, 0), max), [(max - 7, max)]);
        assert_eq!(windows((10, 10, 0), min + 1), [(min, min + 8)]);
        assert_eq!(windows((max, max, max - 1), max), [(max - 1, max)]);
        assert_eq!(windows((max, max, 0), min + 1), [(-max, 0)]);
        assert_eq!(windows((max, max, 1), min + 1), [(min, 1 - max)]);
        assert_eq!(windows((max, max, 1 - max), 0), [(1 - max, 1)]);
    }

    #[test]
    fn the_bytes_of_windows_sort_as_they_do() {
        let bounds = [i64::MIN, -1, 0, 1, i64::MAX];
        let mut last: Option<(TimeWindow, Vec<u8>)> = None;
        for (start, end) in bounds.into_iter().flat_map(|start| bounds.map(|end| (start, end))) {
            let window = TimeWindow::new(Timestamp::from_micros(start), Timestamp::from_micros(end));
            let mut bytes = Vec::new();
            window.write_key(&mut bytes);
            assert_eq!((bytes.len(), TimeWindow::read_key(&bytes)), (16, Some(window)));
            assert!(last.is_none_or(|(before, earlier)| before < window && earlier < bytes));
            last = Some((window, bytes));
        }
        assert_eq!(TimeWindow::read_key(&[0; 15]), None);
        assert_eq!(TimeWindow::read_key(&[0; 17]), None);
    }

    /// Any number, and more often one at a limit.
    fn micros() -> impl Strategy<Value = i64> {
        let near = |limit: i64| (-30_i64..=30).prop_map(move |by| limit.saturating_add(by));
        prop_oneof![any::<i64>(), near(0), near(i64::MIN), near(i64::MAX), -1_000_000_i64..1_000_000]
    }

    proptest! {
        /// By the definition, in numbers that cannot overflow: all starts that are near, and no other.
        #[test]
        fn a_time_is_in_the_windows_that_the_definition_says(
            time in micros(),
            slide in micros().prop_map(|slide| slide.max(1)),
            share in 1_i64..=40,
            rest in micros(),
            shift in micros(),
        ) {
            let time = time.max(i64::MIN + 1);
            // Up to 40 windows a time.
            let size = slide.saturating_mul(share - 1).saturating_add(rest.rem_euclid(slide)).max(slide);
            let offset = shift % slide;
            let found = windows((size, slide, offset), time);
            let most = Grid { size, slide, offset }.overlap();
            let [t, size, slide, offset] = [time, size, slide, offset].map(i128::from);
            let base = (t - offset).div_euclid(slide);
            let starts = (base - 45..=base + 45).map(|n| n * slide + offset).filter(|s| *s <= t && t < s + size);
            let cut = |micros: i128| micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
            let wanted: Vec<_> = starts.map(|s| (cut(s), cut(s + size))).collect();
            prop_assert_eq!(&found, &wanted);
            if let Some(only) = (Grid { size: size as i64, slide: slide as i64, offset: offset as i64 }).only_window(Timestamp::from_micros(time)) {
                prop_assert_eq!(&found, &[(only.start.as_micros(), only.end.as_micros())]);
            }
            prop_assert!(!found.is_empty() && found.len() as i64 <= most, "{} of at most {most}", found.len());
            prop_assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "two windows are one");
        }
    }
}
