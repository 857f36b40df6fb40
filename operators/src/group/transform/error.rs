//! What can go wrong in a stateful processor.

use millstream_runtime::state::keyed::KeyedError;
use millstream_runtime::time::Timestamp;

/// A mistake in a stateful processor. Every text begins with its code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransformError {
    /// A timer where there are none.
    #[error(
        "E-TWS-01: a processor has timers in `TimeMode::ProcessingTime` and `TimeMode::EventTime` only, and this one has `TimeMode::None`"
    )]
    NoTimers,
    /// A time to live that lets nothing live.
    #[error("E-TWS-02: the time to live of variable {variable} must be positive")]
    TtlNotPositive {
        /// The variable.
        variable: String,
    },
    /// A time to live where processing time does not pass.
    #[error("E-TWS-03: variable {variable} can have a time to live in `TimeMode::ProcessingTime` only")]
    TtlWithoutProcessingTime {
        /// The variable.
        variable: String,
    },
    /// A row with a time that has passed.
    #[error(
        "E-TWS-04: a row of time {time} is not above the watermark {watermark}: the next operator would drop it as late"
    )]
    LateRow {
        /// The row's time.
        time: Timestamp,
        /// The watermark.
        watermark: Timestamp,
    },
    /// A value that is nothing.
    #[error("E-TWS-06: variable {variable} cannot hold nothing (`None`, `()`); call `clear` instead")]
    Null {
        /// The variable.
        variable: String,
    },
    /// An empty list.
    #[error("E-TWS-06: variable {variable} cannot hold an empty list; call `clear` instead")]
    EmptyList {
        /// The variable.
        variable: String,
    },
    /// Two variables have one name.
    #[error("E-TWS-07: variable {variable} is asked for twice; give one of them another name")]
    Duplicate {
        /// The variable.
        variable: String,
    },
    /// Something that needs a key where there is none.
    #[error("E-TWS-08: a variable was changed in `init`, where there is no key; change it in the handlers")]
    NoKey,
    /// The state does not fit.
    #[error(transparent)]
    State(KeyedError),
}

impl From<KeyedError> for TransformError {
    fn from(error: KeyedError) -> Self {
        match error {
            KeyedError::Twice { state } => Self::Duplicate { variable: state },
            KeyedError::NoKey => Self::NoKey,
            other => Self::State(other),
        }
    }
}
