//! What can go wrong in a call with group state.

use millstream_runtime::error::BoxError;
use millstream_runtime::time::Timestamp;

use crate::interval::{BadInterval, Interval};

/// A mistake in the use of a key's state or timeout, or a function that failed. Every text begins with its code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// There is no state to get.
    #[error("E-GS-10: the key has no state; ask `exists` first, or use `get_option`")]
    NotDefined,
    /// The new state is nothing.
    #[error("E-GS-11: the state cannot be updated to nothing (`None` or `()`); call `remove` instead")]
    NullState,
    /// A timeout by processing time where that is not the kind of the operator.
    #[error("E-GS-12: `set_timeout_duration` needs `GroupTimeout::ProcessingTime`, and the operator has {kind}")]
    NotProcessingTime {
        /// What the operator has.
        kind: &'static str,
    },
    /// A timeout by event time where that is not the kind of the operator.
    #[error("E-GS-13: `set_timeout_timestamp` needs `GroupTimeout::EventTime`, and the operator has {kind}")]
    NotEventTime {
        /// What the operator has.
        kind: &'static str,
    },
    /// A timeout that lies at or before the beginning.
    #[error("E-GS-14: the timeout must be positive, not {given}")]
    NotPositive {
        /// What was given.
        given: String,
    },
    /// A text that is no length of time.
    #[error("E-GS-14: the timeout cannot be read")]
    Unreadable(#[source] BadInterval),
    /// Time is to be taken away from the timeout.
    #[error("E-GS-15: what is added to the timeout must not be negative, and it is {given}")]
    NegativeExtra {
        /// What was given.
        given: Interval,
    },
    /// The timeout has passed.
    #[error("E-GS-16: the timeout {timeout} is before the watermark {watermark}; set one that is not")]
    BeforeWatermark {
        /// The timeout.
        timeout: Timestamp,
        /// The watermark.
        watermark: Timestamp,
    },
    /// Nothing makes a watermark.
    #[error("E-GS-17: there is no watermark to report; assign event times before the operator")]
    NoWatermark,
    /// Two states for one key.
    #[error(
        "E-GS-18: the initial state has more than one row for a key, the second is row {row} (from 0); leave one of them"
    )]
    DuplicateInitial {
        /// The second one's place.
        row: usize,
    },
    /// A policy for records that fail, which group state does not have.
    #[error(
        "`skip_errors`, `dead_letters_to` and `quarantine_panics` are not for group state and stateful processors, whose errors fail the \
         attempt; deal with errors in the function itself, or before it"
    )]
    NotSkippable,
    /// The user's function failed. The attempt fails, and nothing of the open epoch is committed.
    #[error("E-GS-20: the user's function failed")]
    Function(#[source] BoxError),
}

impl From<std::convert::Infallible> for GroupError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<BadInterval> for GroupError {
    fn from(error: BadInterval) -> Self {
        Self::Unreadable(error)
    }
}
