//! What the job actor is told.

use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

use crate::channel::Bell;
use crate::fault::Crashed;
use crate::id::{Attempt, Epoch, SubtaskId};
use crate::job::{JobError, JobEvent};
use crate::operator::TaskError;
use crate::plan::AttemptSeed;
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// One message for all, so that what one sender says arrives in its order.
pub(super) enum ToJob {
    /// Something for the machine.
    Event(JobEvent),
    /// The pieces of an attempt are there, or cannot be made.
    Seeded { attempt: Attempt, seed: Result<AttemptSeed, JobError> },
    /// A subtask's machine was built on its worker, or cannot be.
    Grown { attempt: Attempt, subtask: SubtaskId, error: Option<TaskError> },
    /// A data loop is over and its machine dropped.
    LoopEnded { attempt: Attempt, subtask: SubtaskId, error: Option<TaskError> },
    /// A reader thread is about to end; a panic ends its attempt.
    ReaderEnded { attempt: Attempt, subtask: SubtaskId, panic: Option<String> },
    /// A test host ended the world, and came back from it.
    Crashed(Crashed),
    /// The committer panicked: a bug in this library or in a store.
    CommitterPanicked(String),
    /// Ring a task's bell at this time: a timer of its is due.
    WakeTask { at: Timestamp, bell: Bell },
    /// Somebody wants the job ended.
    End { drain: bool, within: Duration },
    /// Epochs are to begin by another trigger.
    SetTrigger(Trigger),
    /// Somebody wants to know when an epoch that begins to close now is committed.
    Checkpoint(oneshot::Sender<Result<Epoch, JobError>>),
    /// The runtime is gone: end without another commit.
    Quit,
}

impl Message for ToJob {
    type Result = ();
}
