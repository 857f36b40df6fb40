//! What a committer is told, and what it has to say.

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::{Delivered, EpochBundle, EpochPlan};
use crate::id::{Attempt, Epoch, OperatorId};
use crate::state::log::{CommitError, Committed, FoldError, RecoveryError, Restored};
use crate::state::store::StoreError;
use crate::state::{FoldJob, FoldedRun};
use crate::time::Timestamp;

/// What a committer is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitterOrder {
    /// Begin an attempt: open the store if it is not, raise the attempt number, restore.
    Begin,
    /// Commit complete epochs together.
    Commit {
        /// The attempt.
        attempt: Attempt,
        /// Consecutive epochs.
        bundles: Vec<EpochBundle>,
    },
    /// Make the plan of the next epoch durable.
    Plan {
        /// The attempt.
        attempt: Attempt,
        /// The plan.
        plan: EpochPlan,
    },
    /// A sink has delivered; the next commit forgets that output.
    Delivered(Delivered),
    /// Fold the log although it is not full: somebody waits for it.
    FoldSoon,
    /// A fold that was asked for has ended.
    Folded(Result<FoldedRun, FoldError>),
    /// Answer when no write of an attempt before `attempt` can happen any more.
    Fence {
        /// The next attempt.
        attempt: Attempt,
    },
}

/// What a committer has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum CommitterAnswer {
    /// An attempt may be built.
    Began {
        /// Its number.
        attempt: Attempt,
        /// The durable numbers of the declared operators, in their order.
        operators: Vec<OperatorId>,
        /// What the store holds.
        restored: Arc<Restored>,
        /// Where the store is, for messages.
        place: PathBuf,
    },
    /// The store cannot be used.
    Refused(Arc<RecoveryError>),
    /// Epochs are durable.
    Committed {
        /// Their attempt.
        attempt: Attempt,
        /// What became durable.
        committed: Committed,
    },
    /// A plan is durable.
    Planned {
        /// Its attempt.
        attempt: Attempt,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A disk is full: complete epochs wait in memory, or the attempt waits to begin. Both go on when there is room.
    Waiting {
        /// What waits, and what the disk says.
        error: Arc<WaitError>,
    },
    /// A fold is in; the next commit lets what it folded leave memory.
    FoldIn {
        /// Whether a table waits for that.
        wanted: bool,
    },
    /// Epochs could not be written; the attempt has to end.
    Failed {
        /// Their attempt.
        attempt: Attempt,
        /// Why.
        error: Arc<CommitError>,
    },
    /// See [`CommitterOrder::Fence`].
    Fenced {
        /// The next attempt.
        attempt: Attempt,
    },
}

/// What a step came to.
#[derive(Debug)]
pub enum CommitterStep {
    /// There is something to say.
    Answer(Box<CommitterAnswer>),
    /// Run this fold on another thread, one of low priority, and hand its end in as [`CommitterOrder::Folded`].
    Fold(Box<FoldJob>),
    /// Something was done; step again.
    Worked,
    /// Nothing to do before this time, or before the next order if there is none.
    Idle(Option<Timestamp>),
}

impl From<CommitterAnswer> for CommitterStep {
    fn from(answer: CommitterAnswer) -> Self {
        Self::Answer(Box::new(answer))
    }
}

/// What waits for room on a disk. Nothing is lost, and nobody has to start anything again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Complete epochs are not written yet.
    #[error(
        "epochs {first} to {last} are not written yet and wait in memory, for they need about {} KiB on disk; epoch {epoch} \
         is intact; free some space and they are written without a restart",
        bytes.div_ceil(1_024)
    )]
    Commit {
        /// The last epoch that is known to be committed.
        epoch: Epoch,
        /// The first one that waits.
        first: Epoch,
        /// The last one that waits.
        last: Epoch,
        /// Their size.
        bytes: usize,
        /// What the disk says.
        source: StoreError,
    },
    /// The plan of a micro-batch is not written yet.
    #[error(
        "the plan of epoch {epoch} is not written yet; everything before is intact; free some space and it goes on without a restart"
    )]
    Plan {
        /// The epoch.
        epoch: Epoch,
        /// What the disk says.
        source: StoreError,
    },
    /// An attempt has not begun yet.
    #[error("the job waits to begin; what was committed is intact; free some space and it goes on without a restart")]
    Begin {
        /// What the disk says.
        source: RecoveryError,
    },
}
