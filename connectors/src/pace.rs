//! At what rate a reader hands out records: for demos and load shaping.

use std::time::Duration;

use millstream_runtime::time::{SharedClock, Timestamp};

/// The longest a reader sleeps before it answers that there is nothing: the limit of `Reader::poll`.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// Holds a reader to a schedule: record *n* is due *n* / rate after the first poll.
///
/// What back pressure held up is caught up with, but never more than one second's worth, so that a stall is not
/// followed by a burst without end.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: f64,
    clock: SharedClock,
    start: Option<Timestamp>,
    issued: f64,
}

/// What the schedule allows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Due {
    Now(usize),
    In(Duration),
}

impl Pace {
    /// Makes a schedule; `per_second` has passed [`check_rate`].
    pub(crate) fn new(per_second: f64, clock: SharedClock) -> Self {
        // Faster than any reader, and so slow that no product with a time is infinite.
        Self { per_second: per_second.min(1e15), clock, start: None, issued: 0.0 }
    }

    /// Returns how many records may go now, at most `limit`; if none, after a sleep of at most 50 ms, maybe still none.
    pub(crate) fn wait(&mut self, limit: usize) -> usize {
        match self.due(limit) {
            Due::Now(count) => count,
            Due::In(pause) => {
                std::thread::sleep(pause.min(LONGEST_SLEEP));
                match self.due(limit) {
                    Due::Now(count) => count,
                    Due::In(_) => 0,
                }
            }
        }
    }

    /// Notes that `count` records went.
    pub(crate) fn issued(&mut self, count: usize) {
        self.issued += count as f64;
    }

    fn due(&mut self, limit: usize) -> Due {
        let now = self.clock.now();
        let start = *self.start.get_or_insert(now);
        let scheduled = now.saturating_since(start).as_secs_f64() * self.per_second;
        // One record is due at the very start. Whatever lies further back than a second is written off as issued.
        self.issued = self.issued.max(scheduled - self.per_second.max(1.0));
        let open = (scheduled + 1.0 - self.issued).floor();
        if open >= 1.0 {
            return Due::Now((open as usize).min(limit));
        }
        // Not below a microsecond, the clock's grain: a shorter pause would come back to the same reading.
        let wait = ((self.issued - scheduled) / self.per_second).clamp(1e-6, LONGEST_SLEEP.as_secs_f64());
        Due::In(Duration::from_secs_f64(wait))
    }
}

/// A rate that no schedule can be made from.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "{per_second} is no rate: give records per second as a finite number above 0, or leave the rate out for no limit"
)]
pub(crate) struct RateError {
    per_second: f64,
}

/// Refuses rates that are not finite and above zero.
pub(crate) fn check_rate(per_second: Option<f64>) -> Result<(), RateError> {
    match per_second {
        Some(per_second) if !(per_second.is_finite() && per_second > 0.0) => Err(RateError { per_second }),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use millstream_runtime::time::Clock;

    use super::*;

    /// A clock that stands still until it is told.
    #[derive(Debug, Default)]
    pub(crate) struct StillClock(AtomicI64);

    impl StillClock {
        pub(crate) fn advance(&self, by: Duration) {
            self.0.fetch_add(by.as_micros() as i64, Ordering::Relaxed);
        }
    }

    impl Clock for StillClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn lets_records_go_as_they_fall_due() {
        let clock = Arc::new(StillClock::default());
        let mut pace = Pace::new(100.0, clock.clone());
        assert_eq!(pace.due(8), Due::Now(1));
        pace.issued(1);
        assert_eq!(pace.due(8), Due::In(Duration::from_millis(10)));
        clock.advance(Duration::from_millis(30));
        assert_eq!(pace.due(8), Due::Now(3));
        assert_eq!(pace.due(2), Due::Now(2));
        pace.issued(3);
        assert!(matches!(pace.due(8), Due::In(_)));
    }

    #[test]
    fn catches_up_with_at_most_a_second() {
        let clock = Arc::new(StillClock::default());
        let mut pace = Pace::new(10.0, clock.clone());
        assert_eq!(pace.due(100), Due::Now(1));
        pace.issued(1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(pace.due(100), Due::Now(11));
        pace.issued(11);
        assert!(matches!(pace.due(100), Due::In(_)));
    }

    #[test]
    fn slow_rates_wait_in_short_sleeps() {
        let clock = Arc::new(StillClock::default());
        let mut pace = Pace::new(0.1, clock.clone());
        pace.issued(1);
        assert_eq!(pace.due(1), Due::In(LONGEST_SLEEP));
        clock.advance(Duration::from_secs(10));
        assert_eq!(pace.due(1), Due::Now(1));
    }

    #[test]
    fn rates_beyond_all_measure_are_as_fast_or_slow_as_can_be() {
        let clock = Arc::new(StillClock::default());
        let (mut fast, mut slow) = (Pace::new(f64::MAX, clock.clone()), Pace::new(f64::from_bits(1), clock.clone()));
        for pace in [&mut fast, &mut slow] {
            assert_eq!(pace.due(8), Due::Now(1));
            pace.issued(1);
        }
        for pause in [Duration::from_secs(1), Duration::from_secs(1 << 30), Duration::from_micros(1)] {
            clock.advance(pause);
            assert_eq!(fast.due(8), Due::Now(8));
            fast.issued(8);
            assert_eq!(slow.due(8), Due::In(LONGEST_SLEEP));
        }
    }

    #[test]
    fn refuses_rates_that_are_none() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check_rate(Some(rate)).is_err());
        }
        assert!(check_rate(Some(0.5)).is_ok() && check_rate(None).is_ok());
    }
}
