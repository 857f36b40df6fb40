//! One link of a chain, as the task sees it.

use crate::channel::{Frame, GateError, IllegalFrame, SendError};
use crate::error::{BoxError, guarded};
use crate::id::Epoch;
use crate::operator::{Origins, Poison, Poisoned, TaskContext};

/// Whether a node is done with what it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Flow {
    /// It is done and takes the next frame.
    Ready,
    /// An output is full. The node keeps what is left; nothing may be offered until [`Node::resume`] says `Ready`.
    Blocked,
}

/// A consumer of frames: an operator with everything behind it, down to the outputs of the task. The defaults are those of a
/// node that never blocks, buffers nothing and keeps no state.
pub trait Node<T> {
    /// Takes one frame, and passes on what becomes of it as far as there is room.
    ///
    /// # Errors
    /// [`TaskError`] fails the attempt.
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError>;

    /// Goes on with what was blocked.
    ///
    /// # Errors
    /// As [`Node::offer`].
    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let _ = context;
        Ok(Flow::Ready)
    }

    /// Sends what is buffered: the task's input ran dry. Only called when nothing is blocked.
    ///
    /// # Errors
    /// As [`Node::offer`].
    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let _ = context;
        Ok(Flow::Ready)
    }

    /// Encodes up to `entries` entries of frozen epochs and says how many are left, here and behind.
    ///
    /// # Errors
    /// [`TaskError`] when a value cannot be encoded.
    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        let _ = (entries, context);
        Ok(0)
    }
}

/// A `Box<dyn Node<T>>` without its type, while a chain is built.
pub type AnyNode = Box<dyn std::any::Any>;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// User code returned an error, or its state or output cannot be encoded. Fix the code or the input; the attempt
    /// restarts from the last epoch.
    #[error("operator {operator} failed in epoch {epoch}")]
    Operator {
        /// The operator's name.
        operator: String,
        /// The epoch it was working on.
        epoch: Epoch,
        /// What it returned.
        source: BoxError,
    },
    /// A source could not be read.
    #[error("source {operator} failed at split {split}")]
    Source {
        /// The source's name.
        operator: String,
        /// The split.
        split: String,
        /// What it returned.
        source: BoxError,
    },
    /// A neighbour is gone: it failed first and its error is the one to look at.
    #[error("an input was lost")]
    Input(#[from] GateError),
    /// A neighbour is gone, or a bug in this library.
    #[error("an output was lost")]
    Output(#[from] SendError),
    /// A chain was put together wrongly: a bug in this library.
    #[error("cannot build operator {operator}: its neighbours carry another type")]
    Build {
        /// The operator's name.
        operator: String,
    },
    /// A frame came out of order: a bug in this library, or in a node that is not ours. Checked in debug builds.
    #[error("operator {operator} was given a frame out of order")]
    Illegal {
        /// The operator's name.
        operator: String,
        /// Which rule was broken.
        source: IllegalFrame,
    },
    /// Rows of an operator's state cannot be read from the store. The attempt restarts from the last epoch; damage stays
    /// damage and is named by the cause.
    #[error("operator {operator} cannot read its state in epoch {epoch}")]
    Read {
        /// The operator's name.
        operator: String,
        /// The epoch it was working on.
        epoch: Epoch,
        /// What the store or the state says.
        source: BoxError,
    },
    /// User code of an operator or a sink panicked. The attempt restarts from the last epoch.
    #[error("operator {operator} panicked in epoch {epoch}: {message}{}", from(origins))]
    Panicked {
        /// The operator's name.
        operator: String,
        /// The epoch it was working on.
        epoch: Epoch,
        /// The panic's message.
        message: String,
        /// The record in work, where panics are to be quarantined.
        record: Option<Box<Poison>>,
        /// Where that record came from.
        origins: Origins,
    },
    /// User code panicked outside of its calls: a reader, a factory, or what was dropped.
    #[error("a task panicked: {message}")]
    Panic {
        /// The panic's message.
        message: String,
    },
}

impl TaskError {
    /// The failure of an operator, by what its code returned.
    pub(crate) fn of(operator: &str, epoch: Epoch, source: BoxError) -> Self {
        let operator = operator.to_owned();
        match source.downcast::<Poisoned>() {
            Ok(poisoned) => {
                let Poisoned { record, message } = *poisoned;
                Self::Panicked { operator, epoch, message, record: Some(Box::new(record)), origins: Origins::default() }
            }
            Err(source) => Self::Operator { operator, epoch, source },
        }
    }

    /// Runs code of an operator: what it returns or panics with becomes the task's failure.
    pub(crate) fn catch<R>(
        operator: &str,
        epoch: Epoch,
        call: impl FnOnce() -> Result<R, BoxError>,
    ) -> Result<R, Self> {
        match guarded(call) {
            Ok(returned) => returned.map_err(|source| Self::of(operator, epoch, source)),
            Err(message) => {
                let operator = operator.to_owned();
                Err(Self::Panicked { operator, epoch, message, record: None, origins: Origins::default() })
            }
        }
    }

    /// Says where the record in work came from, if it was the one that failed.
    pub(crate) fn located(mut self, find: impl FnOnce() -> Origins) -> Self {
        if let Self::Panicked { record: Some(_), origins, .. } = &mut self {
            *origins = find();
        }
        self
    }

    /// Says whether this error only follows from the failure of a neighbour.
    pub const fn is_consequence(&self) -> bool {
        matches!(self, Self::Input(GateError::Lost { .. }) | Self::Output(SendError::Closed(_)))
    }
}

/// The end of a message: where a record came from.
fn from(origins: &Origins) -> String {
    if origins.is_empty() { String::new() } else { format!("; its record is from {origins}") }
}
