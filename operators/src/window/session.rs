//! Windows that end when a key has had nothing for a while.

use std::fmt;
use std::time::Duration;

use millstream_runtime::time::Timestamp;

use crate::window::error::micros;
use crate::window::{TimeWindow, WindowAssigner, WindowError, WindowKind};

/// Sessions: records of one key of which none is more than a gap behind the one before it. Each record is the session
/// `[time, time + gap)`, and sessions that touch become one, from the first start to the last end.
///
/// | gap 5 s | sessions |
/// |---|---|
/// | 0 s, 5 s, 11 s | `[0 s, 10 s)`, `[11 s, 16 s)` |
/// | 0 s, 5 s, 11 s, 8 s | `[0 s, 16 s)` |
#[derive(Clone)]
pub struct Session<G>(G);

/// One gap for all records: what [`Session::gap`] makes.
#[derive(Clone, Copy, Debug)]
pub struct FixedGap(Duration);

impl Session<FixedGap> {
    /// Makes sessions with this gap: whole microseconds, above zero.
    pub const fn gap(gap: Duration) -> Self {
        Self(FixedGap(gap))
    }
}

impl<F> Session<F> {
    /// Makes sessions whose gap each record says for itself, down to whole microseconds. A record with a gap of zero is in no session: it
    /// is left out and counted.
    pub const fn gap_of(gap: F) -> Self {
        Self(gap)
    }
}

impl<G> fmt::Debug for Session<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

fn assign(gap: Duration, time: Timestamp, windows: &mut Vec<TimeWindow>) {
    if gap >= Duration::from_micros(1) {
        windows.push(TimeWindow::new(time, time.saturating_add(gap)));
    }
}

impl<T> WindowAssigner<T> for Session<FixedGap> {
    fn kind(&self) -> WindowKind {
        WindowKind::Session
    }

    fn check(&self) -> Result<(), WindowError> {
        let gap = self.0.0;
        if micros(gap).is_some_and(|micros| micros > 0) {
            return Ok(());
        }
        let range = "whole microseconds, above zero and within the range of time";
        Err(WindowError::Size { what: "gap", given: format!("{gap:?}"), range })
    }

    fn assign(&self, _record: &T, time: Timestamp, windows: &mut Vec<TimeWindow>) {
        assign(self.0.0, time, windows);
    }
}

impl<T, F> WindowAssigner<T> for Session<F>
where
    F: Fn(&T) -> Duration + Clone + Send + Sync + 'static,
{
    fn kind(&self) -> WindowKind {
        WindowKind::Session
    }

    fn assign(&self, record: &T, time: Timestamp, windows: &mut Vec<TimeWindow>) {
        assign(self.0(record), time, windows);
    }
}
