//! [`Trigger`]: when epochs begin.

use std::time::Duration;

use crate::id::ExecutionMode;
use crate::time::Timestamp;

/// The shortest interval of [`Trigger::RealTime`].
const SHORTEST_REAL_TIME: Duration = Duration::from_secs(5);

/// When epochs begin, and with it how records pass: as they come, or in planned batches. As Spark's triggers.
///
/// Intervals can be given as text too: see [`Trigger::processing_time`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// Micro-batch: one begins at every multiple of the interval since the Unix epoch, computed when the one before *began*. One that
    /// takes longer is followed at once. With zero the next begins as soon as the one before has ended and there is something. Without
    /// new records none begins, but where event time or a timer asks for it.
    ProcessingTime(Duration),
    /// Micro-batch: one with everything there is, whatever limits say, then the job stops. Deprecated in Spark in favour of
    /// [`Trigger::AvailableNow`], which needs less memory.
    Once,
    /// Micro-batch: as many as the limits of the sources ask for, until everything is read that there was, and one more if the
    /// watermark has risen; then the job stops. A split counts as read when its reader had nothing for the first time.
    AvailableNow,
    /// Continuous, with a barrier at every interval. At least 1 ms.
    Continuous(Duration),
    /// As [`Trigger::Continuous`], for pipelines in update mode. At least 5 s.
    RealTime(Duration),
}

/// An interval of a trigger is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TriggerError {
    /// It is negative.
    #[error("E-TRG-01: the interval {given:?} is negative; give one of at least zero, as \"10 seconds\"")]
    Negative {
        /// The text.
        given: String,
    },
    /// It has months or years, which have no fixed length.
    #[error("E-TRG-02: the interval {given:?} has months or years, which have no fixed length; give days or less")]
    Months {
        /// The text.
        given: String,
    },
    /// It is none.
    #[error("the interval {given:?} is none ({reason}); give a number with a unit, as \"10 seconds\" or \"1min 30s\"")]
    Unreadable {
        /// The text.
        given: String,
        /// What does not fit.
        reason: String,
    },
}

impl Trigger {
    /// Makes a [`Trigger::ProcessingTime`] from text: numbers with units, as `"10 seconds"`, `"1min 30s"`, `"500ms"`.
    ///
    /// # Errors
    /// [`TriggerError`] for a text that is no interval.
    pub fn processing_time(interval: &str) -> Result<Self, TriggerError> {
        Ok(Self::ProcessingTime(parse(interval)?))
    }

    /// Makes a [`Trigger::Continuous`] from text, as [`Trigger::processing_time`].
    ///
    /// # Errors
    /// As [`Trigger::processing_time`].
    pub fn continuous(interval: &str) -> Result<Self, TriggerError> {
        Ok(Self::Continuous(parse(interval)?))
    }

    /// Makes a [`Trigger::RealTime`] from text, as [`Trigger::processing_time`].
    ///
    /// # Errors
    /// As [`Trigger::processing_time`].
    pub fn real_time(interval: &str) -> Result<Self, TriggerError> {
        Ok(Self::RealTime(parse(interval)?))
    }

    /// How records pass.
    pub(crate) const fn mode(self) -> ExecutionMode {
        match self {
            Self::Continuous(_) | Self::RealTime(_) => ExecutionMode::Continuous,
            Self::ProcessingTime(_) | Self::Once | Self::AvailableNow => ExecutionMode::MicroBatch,
        }
    }

    /// The time between barriers of a continuous one.
    pub(crate) const fn barriers(self) -> Option<Duration> {
        match self {
            Self::Continuous(interval) | Self::RealTime(interval) => Some(interval),
            Self::ProcessingTime(_) | Self::Once | Self::AvailableNow => None,
        }
    }

    /// Says whether it reads what there is and stops.
    pub(crate) const fn is_finite(self) -> bool {
        matches!(self, Self::Once | Self::AvailableNow)
    }

    /// Says whether a real-time interval is too short; gives the least.
    pub(crate) fn too_short(self) -> Option<(Duration, Duration)> {
        let (given, least) = match self {
            Self::RealTime(interval) => (interval, SHORTEST_REAL_TIME),
            Self::Continuous(interval) => (interval, Duration::from_millis(1)),
            _ => return None,
        };
        (given < least).then_some((given, least))
    }

    /// When the epoch after one that began at `began` begins, if that one is done by then.
    pub(crate) fn after(self, began: Timestamp) -> Timestamp {
        let Self::ProcessingTime(interval) = self else { return began };
        let interval = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
        if interval == 0 {
            return began;
        }
        let begun = began.as_micros().div_euclid(interval);
        Timestamp::from_micros(begun.saturating_mul(interval).saturating_add(interval))
    }
}

fn parse(text: &str) -> Result<Duration, TriggerError> {
    let given = || text.to_owned();
    let body = text.trim();
    if body.contains('-') {
        return Err(TriggerError::Negative { given: given() });
    }
    let months = ["M", "month", "months", "y", "yr", "yrs", "year", "years"];
    if body.split(|c: char| !c.is_ascii_alphabetic()).any(|unit| months.contains(&unit)) {
        return Err(TriggerError::Months { given: given() });
    }
    humantime::parse_duration(body)
        .map_err(|error| TriggerError::Unreadable { given: given(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn the_next_epoch_begins_at_a_multiple_of_the_interval_behind_the_begin_of_the_last() {
        let every = |seconds| Trigger::ProcessingTime(Duration::from_secs(seconds));
        // (interval, began, next): Spark's example has 100 s, an epoch of 130 s from 0 on and one of 10 s behind it.
        let table = [(100, 0, 100), (100, 130, 200), (100, 199, 200), (100, 200, 300), (100, -30, 0), (0, 7, 7)];
        for (interval, began, next) in table {
            assert_eq!(every(interval).after(at(began)), at(next), "{interval} s from {began}");
        }
        assert_eq!(every(u64::MAX / 2_000_000).after(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn intervals_are_read_as_people_write_them() {
        let table = [
            ("100 seconds", Duration::from_secs(100)),
            ("1 minute 30 seconds", Duration::from_secs(90)),
            (" 500ms ", Duration::from_millis(500)),
            ("0s", Duration::ZERO),
            ("2 days", Duration::from_secs(172_800)),
        ];
        for (text, interval) in table {
            assert_eq!(Trigger::processing_time(text), Ok(Trigger::ProcessingTime(interval)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_interval_is_refused_with_what_to_give() {
        let table = [
            (
                "-1 second",
                "E-TRG-01: the interval \"-1 second\" is negative; give one of at least zero, as \"10 seconds\"",
            ),
            (
                "2 months",
                "E-TRG-02: the interval \"2 months\" has months or years, which have no fixed length; give days or less",
            ),
            (
                "1 year",
                "E-TRG-02: the interval \"1 year\" has months or years, which have no fixed length; give days or less",
            ),
        ];
        for (text, error) in table {
            assert_eq!(Trigger::continuous(text).unwrap_err().to_string(), error);
        }
        for text in ["", "soon", "10", "10 parsecs"] {
            let error = Trigger::real_time(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the interval {text:?} is none (")), "{error}");
            assert!(error.ends_with("give a number with a unit, as \"10 seconds\" or \"1min 30s\""), "{error}");
        }
    }
}
