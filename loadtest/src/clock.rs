//! The one clock of a run.

use std::time::{Duration, Instant};

/// Nanoseconds of the monotonic clock since the run began; the same for senders, probes and the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a load tester measures real time, on one clock for source and sink")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(crate) fn nanos(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Whole nanoseconds; what does not fit is longer than any run.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
