//! Which windows a record belongs to.

use std::time::Duration;

use millstream_runtime::time::Timestamp;

use crate::window::error::micros;
use crate::window::time_window::Grid;
use crate::window::{TimeWindow, Trigger, WindowError};

/// Windows that a record may be in at most.
const MOST_WINDOWS: i64 = 10_000;

/// What windows are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowKind {
    /// They follow from time alone: every record of a window's time is in it.
    Fixed,
    /// They belong to a key, and those that touch become one.
    Session,
    /// There is one, [`TimeWindow::ALL`], and no need of event time.
    Global,
}

/// Says which windows a record belongs to.
///
/// Its fields are configuration; what it returns depends on the record and its time alone, and is asked for more than once.
pub trait WindowAssigner<T>: Clone + Send + Sync + 'static {
    /// What the windows are to each other.
    fn kind(&self) -> WindowKind;

    /// Adds the windows of a record, the earliest first, to `windows`, which is empty; none leaves the record out, and it is counted.
    /// Never called for a record without event time, unless there is only one window.
    fn assign(&self, record: &T, time: Timestamp, windows: &mut Vec<TimeWindow>);

    /// Looks for mistakes. Called once, while the pipeline is described.
    ///
    /// # Errors
    /// [`WindowError`] says what is wrong.
    fn check(&self) -> Result<(), WindowError> {
        Ok(())
    }

    /// When results go out, if the user does not say. Nothing for the usual: see [`Trigger`].
    fn trigger(&self) -> Option<Trigger> {
        None
    }
}

/// The grid of durations that were checked; a slide of 0 only keeps a caller who did not check from a division by zero.
const fn grid(size: Duration, slide: Duration, offset: Timestamp) -> Grid {
    let slide = clamped(slide);
    Grid { size: clamped(size), slide: if slide > 0 { slide } else { 1 }, offset: offset.as_micros() }
}

const fn clamped(duration: Duration) -> i64 {
    let micros = duration.as_micros();
    if micros > i64::MAX as u128 { i64::MAX } else { micros as i64 }
}

fn positive(what: &'static str, given: Duration) -> Result<i64, WindowError> {
    let range = "whole microseconds, above zero and within the range of time";
    micros(given).filter(|micros| *micros > 0).ok_or_else(|| WindowError::Size {
        what,
        given: format!("{given:?}"),
        range,
    })
}

fn check(size: Duration, slide: Duration, offset: Timestamp) -> Result<(), WindowError> {
    let grid = Grid { size: positive("size", size)?, slide: micros(slide).unwrap_or(0), offset: offset.as_micros() };
    if grid.slide <= 0 || grid.slide > grid.size || grid.overlap() > MOST_WINDOWS {
        return Err(WindowError::Slide { size, slide, most: MOST_WINDOWS });
    }
    if grid.offset.unsigned_abs() >= grid.slide.unsigned_abs() {
        return Err(WindowError::Offset { offset, slide });
    }
    Ok(())
}

/// Windows of one size, one after the other, without gaps: `[0, size)`, `[size, 2 size)` … in both directions.
///
/// | size 10 s | window |
/// |---|---|
/// | 9.999999 s | `[0 s, 10 s)` |
/// | 10 s | `[10 s, 20 s)` |
/// | −3 s | `[−10 s, 0 s)` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    size: Duration,
    offset: Timestamp,
}

impl Tumbling {
    /// Makes windows of this size: whole microseconds, above zero.
    pub const fn of(size: Duration) -> Self {
        Self { size, offset: Timestamp::from_micros(0) }
    }

    /// Shifts the windows, so that one begins at this time, which is less than a window before or after 1970-01-01T00:00 UTC: days that
    /// begin at 06:00 UTC have an offset of six hours. Default: 1970-01-01T00:00 UTC.
    #[must_use]
    pub const fn offset(self, offset: Timestamp) -> Self {
        Self { offset, ..self }
    }
}

impl<T> WindowAssigner<T> for Tumbling {
    fn kind(&self) -> WindowKind {
        WindowKind::Fixed
    }

    fn check(&self) -> Result<(), WindowError> {
        check(self.size, self.size, self.offset)
    }

    fn assign(&self, _record: &T, time: Timestamp, windows: &mut Vec<TimeWindow>) {
        let grid = grid(self.size, self.size, self.offset);
        match grid.only_window(time) {
            Some(window) => windows.push(window),
            None => windows.extend(grid.windows(time)),
        }
    }
}

/// Windows of one size that overlap: one begins every `slide`. A record is in `size / slide` of them, rounded up or down.
///
/// | size 10 s, slide 5 s, offset 2 s | windows |
/// |---|---|
/// | 7 s | `[2 s, 12 s)`, `[7 s, 17 s)` |
/// | −3 s | `[−8 s, 2 s)`, `[−3 s, 7 s)` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sliding {
    size: Duration,
    slide: Duration,
    offset: Timestamp,
}

impl Sliding {
    /// Makes windows of this size, one every `slide`: whole microseconds, above zero, not above the size, and no record in more than
    /// 10,000 windows.
    pub const fn of(size: Duration, slide: Duration) -> Self {
        Self { size, slide, offset: Timestamp::from_micros(0) }
    }

    /// Shifts the windows, so that one begins at this time, which is less than a slide before or after 1970-01-01T00:00 UTC, the
    /// default.
    #[must_use]
    pub const fn offset(self, offset: Timestamp) -> Self {
        Self { offset, ..self }
    }
}

impl<T> WindowAssigner<T> for Sliding {
    fn kind(&self) -> WindowKind {
        WindowKind::Fixed
    }

    fn check(&self) -> Result<(), WindowError> {
        check(self.size, self.slide, self.offset)
    }

    fn assign(&self, _record: &T, time: Timestamp, windows: &mut Vec<TimeWindow>) {
        windows.extend(grid(self.size, self.slide, self.offset).windows(time));
    }
}

/// All records of a key in one window, which ends with the stream. Results go out by a [`Trigger`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Global;

impl<T> WindowAssigner<T> for Global {
    fn kind(&self) -> WindowKind {
        WindowKind::Global
    }

    fn assign(&self, _record: &T, _time: Timestamp, windows: &mut Vec<TimeWindow>) {
        windows.push(TimeWindow::ALL);
    }
}

/// Every so many records of a key are a window, in the order in which they come. One that is not full when the input ends gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWindow {
    records: u64,
}

impl CountWindow {
    /// Makes windows of this many records, at least 1.
    pub const fn of(records: u64) -> Self {
        Self { records }
    }
}

impl<T> WindowAssigner<T> for CountWindow {
    fn kind(&self) -> WindowKind {
        WindowKind::Global
    }

    fn check(&self) -> Result<(), WindowError> {
        if self.records == 0 {
            return Err(WindowError::Size { what: "count", given: "0".to_owned(), range: "at least 1" });
        }
        Ok(())
    }

    fn assign(&self, _record: &T, _time: Timestamp, windows: &mut Vec<TimeWindow>) {
        windows.push(TimeWindow::ALL);
    }

    fn trigger(&self) -> Option<Trigger> {
        Some(Trigger::full(self.records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn code<A: WindowAssigner<()>>(assigner: A) -> &'static str {
        assigner.check().map_or_else(|error| error.code(), |()| "")
    }

    /// S-WIN-04. Months (E-WIN-04) are no `Duration`.
    #[test]
    fn windows_that_cannot_be_are_refused_by_code() {
        let at = Timestamp::from_millis;
        assert_eq!(code(Tumbling::of(Duration::ZERO)), "E-WIN-01");
        assert_eq!(code(Tumbling::of(Duration::from_nanos(1_500))), "E-WIN-01");
        assert_eq!(code(Tumbling::of(Duration::MAX)), "E-WIN-01");
        assert_eq!(code(Sliding::of(SECOND, 2 * SECOND)), "E-WIN-02");
        assert_eq!(code(Sliding::of(SECOND, Duration::ZERO)), "E-WIN-02");
        assert_eq!(code(Sliding::of(SECOND, Duration::from_nanos(1))), "E-WIN-02");
        assert_eq!(code(Sliding::of(10_001 * SECOND, SECOND)), "E-WIN-02");
        assert_eq!(code(Tumbling::of(SECOND).offset(at(1_000))), "E-WIN-03");
        assert_eq!(code(Sliding::of(2 * SECOND, SECOND).offset(at(-1_000))), "E-WIN-03");
        assert_eq!(code(Tumbling::of(SECOND).offset(Timestamp::MIN)), "E-WIN-03");
        assert_eq!(code(CountWindow::of(0)), "E-WIN-01");
        for fine in [code(Tumbling::of(SECOND)), code(Sliding::of(10_000 * SECOND, SECOND).offset(at(-999)))] {
            assert_eq!(fine, "");
        }
        assert_eq!(code(Tumbling::of(Duration::from_micros(i64::MAX as u64))), "");
        let text = WindowAssigner::<()>::check(&Tumbling::of(Duration::ZERO)).unwrap_err().to_string();
        assert_eq!(
            text,
            "the size of the windows is 0ns; it must be whole microseconds, above zero and within the range of time"
        );
    }
}
