//! What is wrong with windows, found while a pipeline is described.

use std::time::Duration;

use millstream_runtime::time::Timestamp;

/// Windows that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    /// A size, gap or count that holds nothing, or more than time has.
    #[error("the {what} of the windows is {given}; it must be {range}")]
    Size {
        /// `size`, `gap` or `count`.
        what: &'static str,
        /// What was given.
        given: String,
        /// What it may be.
        range: &'static str,
    },
    /// Windows that begin too seldom, so that times lie between them, or too often.
    #[error(
        "windows of {size:?} begin every {slide:?}; that slide must be whole microseconds, above zero and not above the size, and no \
         record may be in more than {most} windows"
    )]
    Slide {
        /// The size.
        size: Duration,
        /// The slide.
        slide: Duration,
        /// Windows that a record may be in at most.
        most: i64,
    },
    /// An offset of a whole slide or more.
    #[error(
        "the offset of the windows is {offset}; it must lie less than one slide ({slide:?}) before or after 1970-01-01"
    )]
    Offset {
        /// The offset.
        offset: Timestamp,
        /// The slide.
        slide: Duration,
    },
    /// An allowed lateness that time cannot hold.
    #[error("the allowed lateness is {given:?}; it must be whole microseconds and within the range of time")]
    Lateness {
        /// What was given.
        given: Duration,
    },
    /// A trigger that would speak all the time.
    #[error("the trigger of the windows is {given}; it must be {range}")]
    Trigger {
        /// What was given.
        given: String,
        /// What it may be.
        range: &'static str,
    },
    /// Late records that are to be accepted.
    #[error(
        "`accept_late` is for operators that decide on late records themselves; a window that is closed is forgotten: keep it for longer \
         by `allowed_lateness`, or read its late records from a side output by `late_to`"
    )]
    AcceptLate,
    /// Sessions with a trigger.
    #[error(
        "session windows have no trigger: a session that grows replaces those before it, whose results nothing could take back; \
         leave the trigger out"
    )]
    SessionTrigger,
}

impl WindowError {
    /// The code of the rule, by which documents name it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Size { .. } => "E-WIN-01",
            Self::Slide { .. } => "E-WIN-02",
            Self::Offset { .. } => "E-WIN-03",
            Self::Lateness { .. } => "E-WIN-08",
            Self::SessionTrigger => "E-WIN-09",
            Self::AcceptLate => "E-WIN-10",
            Self::Trigger { .. } => "E-TRG-01",
        }
    }
}

/// Returns whole microseconds, as far as a [`Timestamp`] can hold them.
pub(super) fn micros(duration: Duration) -> Option<i64> {
    duration.subsec_nanos().is_multiple_of(1_000).then(|| i64::try_from(duration.as_micros()).ok()).flatten()
}
