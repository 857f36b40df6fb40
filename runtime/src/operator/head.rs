//! The first link of a task: where its frames come from.

use crate::operator::{Origin, TaskContext, TaskError};

/// Where a task's frames come from, with the chain behind it.
pub trait Head {
    /// Takes one frame and passes it on, or flushes if there is none.
    ///
    /// # Errors
    /// [`TaskError`] fails the attempt.
    fn poll(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError>;

    /// Goes on with what was blocked.
    ///
    /// # Errors
    /// As [`Head::poll`].
    fn resume(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError>;

    /// Encodes up to `entries` entries per state of what is frozen and says how many are left.
    ///
    /// # Errors
    /// As [`Head::poll`].
    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError>;

    /// Where the frame in work came from, if the head itself reads a source. Asked after a failure.
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// Says whether a barrier of one input waits for those of others.
    fn is_aligning(&self) -> bool {
        false
    }
}

/// What a head did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// It took a frame.
    Worked,
    /// There was none.
    Idle,
    /// An output is full.
    Blocked,
    /// The end has passed the chain.
    Ended,
}
