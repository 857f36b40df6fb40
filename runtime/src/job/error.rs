//! How a job ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Closing;
use crate::id::{Epoch, SubtaskId};
use crate::operator::TaskError;
use crate::sink::SinkError;
use crate::state::log::{CommitError, RecoveryError};

/// How a job ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// All sources ended; everything is committed and delivered.
    Finished {
        /// The last committed epoch.
        epoch: Epoch,
    },
    /// It was drained: everything that had been read is committed and delivered.
    Drained {
        /// The last committed epoch.
        epoch: Epoch,
    },
    /// It was stopped; the next start goes on from here without reading anything twice.
    Stopped {
        /// The last committed epoch.
        epoch: Epoch,
    },
}

impl Ended {
    /// The last committed epoch.
    pub const fn epoch(self) -> Epoch {
        match self {
            Self::Finished { epoch } | Self::Drained { epoch } | Self::Stopped { epoch } => epoch,
        }
    }

    pub(super) const fn new(closing: Option<Closing>, epoch: Epoch) -> Self {
        match closing {
            Some(Closing::Finished) => Self::Finished { epoch },
            Some(Closing::Drained) => Self::Drained { epoch },
            None => Self::Stopped { epoch },
        }
    }
}

/// Why a job failed. Cheap to clone. What was committed stays committed: a new start goes on from there.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A task failed, and the restart policy allows no further attempt.
    #[error("subtask {subtask} failed; {restarts} restarts did not help")]
    Task {
        /// Which one.
        subtask: SubtaskId,
        /// How often the job was restarted before.
        restarts: u64,
        /// What happened.
        source: Arc<TaskError>,
    },
    /// A sink failed for good, or too often.
    #[error("a sink failed; {restarts} restarts did not help")]
    Sink {
        /// How often the job was restarted before.
        restarts: u64,
        /// What happened.
        source: Arc<SinkError>,
    },
    /// The pipeline cannot be built or its sources cannot be opened.
    #[error("cannot start the job")]
    Build {
        /// What happened.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The store cannot be used.
    #[error("cannot recover the job's state")]
    Recovery {
        /// What happened.
        source: Arc<RecoveryError>,
    },
    /// Epochs cannot be written.
    #[error("cannot commit")]
    Commit {
        /// What happened.
        source: Arc<CommitError>,
    },
    /// The store says that the job has ended for good: its input is used up, or it was drained.
    #[error(
        "the pipeline of the store at {} {how} at epoch {epoch}; to run it again, start it on another store, or allow it with \
         Runtime::builder().restart_finished(true)",
        place.display()
    )]
    AlreadyEnded {
        /// `finished` or `was drained`.
        how: &'static str,
        /// Where the store is.
        place: PathBuf,
        /// Its last epoch.
        epoch: Epoch,
    },
    /// Some subtask did not hand in its part in time.
    #[error(
        "epoch {epoch} is not complete after {after:?}: {missing:?} did not report; look for user code that blocks"
    )]
    EpochTimeout {
        /// The epoch.
        epoch: Epoch,
        /// How long it was waited for.
        after: Duration,
        /// Who is missing.
        missing: Vec<SubtaskId>,
    },
    /// `stop` or `drain` did not end in time: {waiting_for}.
    #[error(
        "the job did not end by its deadline: {waiting_for}; epoch {epoch} is committed, a new start goes on there"
    )]
    Deadline {
        /// What was still going on.
        waiting_for: String,
        /// The last committed epoch.
        epoch: Epoch,
    },
    /// The runtime is gone.
    #[error("the job's runtime is gone")]
    Gone,
}
