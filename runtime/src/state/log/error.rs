//! What can go wrong between a pipeline and its store.

use std::path::PathBuf;

use crate::checkpoint::{EpochBundle, FrameError, NameError};
use crate::codec::CodecError;
use crate::fault::Crashed;
use crate::id::{Attempt, Epoch, OperatorId, ShardId, SubtaskId};
use crate::state::store::{StoreError, StoreErrorKind};

/// What is damaged in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// There is data and no manifest: never a new store.
    #[error("it has data and no manifest")]
    NoManifest,
    /// The manifest cannot be read.
    #[error("its manifest cannot be read")]
    Manifest(#[source] FrameError),
    /// The attempt number is gone or cannot be read.
    #[error("its attempt number is missing or cannot be read")]
    Attempt(#[source] Option<FrameError>),
    /// The log has a hole.
    #[error("its log lacks the index record of epoch {0}")]
    IndexMissing(Epoch),
    /// An index record cannot be read.
    #[error("the index record of epoch {0} in its log cannot be read")]
    Index(Epoch, #[source] FrameError),
    /// An index record is one of another history.
    #[error("the index record of epoch {0} in its log does not follow the one before it or is not the manifest's")]
    Chain(Epoch),
    /// The log has epochs that the manifest does not know.
    #[error("its log has entries outside the epochs that its manifest names, {first} to {last}")]
    Stray {
        /// First epoch of the log.
        first: Epoch,
        /// Last committed epoch.
        last: Epoch,
    },
    /// A delta is not what its index record says.
    #[error("the delta of operator {operator}, subtask {subtask} in epoch {epoch} is incomplete or changed")]
    Delta {
        /// The epoch.
        epoch: Epoch,
        /// Whose state.
        operator: OperatorId,
        /// Who handed it in.
        subtask: SubtaskId,
    },
    /// Rows of a state are gone.
    #[error("the sentinel of state {state} of operator {operator} is missing or not of epoch {epoch}: rows are lost")]
    Sentinel {
        /// The operator.
        operator: OperatorId,
        /// The state's number.
        state: u16,
        /// The epoch of the fold that wrote it last.
        epoch: Epoch,
    },
    /// A row's key is not one.
    #[error("a row has a key that cannot be read")]
    Row,
    /// A position cannot be read.
    #[error("the position of a split cannot be read")]
    Position(#[source] FrameError),
    /// The plan of the next epoch cannot be read.
    #[error("the plan of the micro-batch that had begun cannot be read")]
    Plan(#[source] FrameError),
    /// The plan is not that of the next epoch.
    #[error("it has a plan for epoch {plan}, which does not follow epoch {epoch}")]
    OtherPlan {
        /// The plan's epoch.
        plan: Epoch,
        /// The last committed epoch.
        epoch: Epoch,
    },
    /// The database has lost what it had: it is older than the mark that is kept beside it.
    #[error(
        "it is at epoch {found} in attempt {attempt}, and has been at epoch {marked} in attempt {marked_attempt} before: what \
         was synced last is lost, as by a flipped bit at the end of its WAL, or its files are an older copy than \
         EPOCH.millstream"
    )]
    Behind {
        /// Its last committed epoch.
        found: Epoch,
        /// The attempt that was raised last.
        attempt: Attempt,
        /// An epoch that was committed before.
        marked: Epoch,
        /// An attempt that was raised before.
        marked_attempt: Attempt,
    },
    /// Positions are gone or older than the manifest.
    #[error("its positions are not those that its manifest counted")]
    Positions,
    /// Output is not what the manifest says.
    #[error("the output of sink {operator}, subtask {subtask} in epoch {epoch} is incomplete or changed")]
    Outbox {
        /// The sink.
        operator: OperatorId,
        /// The epoch.
        epoch: Epoch,
        /// Who handed it in.
        subtask: SubtaskId,
    },
}

/// A store cannot be used for a pipeline. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The disk or what lies below failed. A full disk can be retried.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content is damaged. The job stops: it never starts afresh over something unreadable.
    #[error(
        "the store of pipeline {pipeline}, shard {shard} at {} is damaged; restore its directory from a copy or a kept epoch",
        place.display()
    )]
    Damaged {
        /// The pipeline.
        pipeline: String,
        /// The shard.
        shard: ShardId,
        /// Where it is.
        place: PathBuf,
        /// What exactly.
        #[source]
        damage: Damage,
    },
    /// The manifest was written by a newer build.
    #[error("the store of pipeline {pipeline}, shard {shard} at {} cannot be read by this build", place.display())]
    TooNew {
        /// The pipeline.
        pipeline: String,
        /// The shard.
        shard: ShardId,
        /// Where it is.
        place: PathBuf,
        /// Both formats.
        #[source]
        format: FrameError,
    },
    /// The store belongs to another pipeline or shard, or has other key groups.
    #[error(
        "the store at {} was made for {what} {stored}, the pipeline says {given}; open it under its own name and settings, \
         or choose another directory",
        place.display()
    )]
    Identity {
        /// Where it is.
        place: PathBuf,
        /// `pipeline`, `shard` or `key groups`.
        what: &'static str,
        /// What the manifest says.
        stored: String,
        /// What the caller says.
        given: String,
    },
    /// `Resume` was asked for and the store is new.
    #[error(
        "there is nothing to resume for pipeline {pipeline}, shard {shard} at {}; use StartFrom::ResumeOrCreate to begin",
        place.display()
    )]
    NothingToResume {
        /// The pipeline.
        pipeline: String,
        /// The shard.
        shard: ShardId,
        /// Where it is.
        place: PathBuf,
    },
    /// `Create` was asked for and the store has committed epochs.
    #[error(
        "the store of pipeline {pipeline}, shard {shard} at {} is there already, at epoch {epoch}; use \
         StartFrom::ResumeOrCreate to go on, or another name or directory",
        place.display()
    )]
    AlreadyThere {
        /// The pipeline.
        pipeline: String,
        /// The shard.
        shard: ShardId,
        /// Where it is.
        place: PathBuf,
        /// Its last committed epoch.
        epoch: Epoch,
    },
    /// Operators or states do not fit.
    #[error("pipeline {pipeline}, shard {shard} does not fit its store at {}", place.display())]
    Names {
        /// The pipeline.
        pipeline: String,
        /// The shard.
        shard: ShardId,
        /// Where it is.
        place: PathBuf,
        /// What does not fit, and what to do about it.
        source: Box<NameError>,
    },
    /// A reopened store holds neither what was there before the failed write nor what was written.
    #[error(
        "the reopened store at {} holds epoch {found}, neither what was there before the failed write nor what was written \
         (epoch {expected}); another process wrote to it, or the disk lost synced writes: look after both and start again",
        place.display()
    )]
    Changed {
        /// Where it is.
        place: PathBuf,
        /// Its epoch now.
        found: Epoch,
        /// The epoch before the failed write.
        expected: Epoch,
    },
    /// A record could not be encoded: a bug in this library.
    #[error(transparent)]
    Encode(#[from] CodecError),
    /// The store's handle was given up after an error.
    #[error("the store was closed after an error; open it anew")]
    Closed,
    /// A test host ended the world here.
    #[error(transparent)]
    Crashed(#[from] Crashed),
}

impl RecoveryError {
    /// Says whether trying again on a fresh handle can help without anybody's doing: the disk is full for now.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }

    /// Says whether the disk or the operating system failed: it may work again at the next attempt.
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Store(StoreError { kind: StoreErrorKind::Io, .. }))
    }

    /// Says whether what is stored is damaged.
    pub const fn is_corruption(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(error) => error.is_corruption(),
            _ => false,
        }
    }

    /// Says whether a test host ended the world.
    pub fn is_crash(&self) -> bool {
        match self {
            Self::Crashed(_) => true,
            Self::Store(error) => error.kind == StoreErrorKind::Crashed,
            _ => false,
        }
    }
}

/// A fold came to nothing. Nothing has changed, and it can be tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The handle was given up meanwhile.
    #[error("the store was closed while the log was folded")]
    Closed,
    /// The folded rows cannot be written, or the log cannot be read.
    #[error("cannot fold the log")]
    Store(#[from] StoreError),
    /// The log is not what the manifest says.
    #[error("cannot fold the log")]
    Unreadable(#[from] RecoveryError),
    /// The sentinels cannot be encoded: a bug in this library.
    #[error(transparent)]
    Encode(#[from] CodecError),
    /// A test host ended the world here.
    #[error(transparent)]
    Crashed(#[from] Crashed),
}

impl FoldError {
    /// Says whether nothing but time is needed to try again: the disk is full for now, or the store was opened anew.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Store(error) => error.is_retryable(),
            Self::Unreadable(error) => error.is_retryable(),
            _ => false,
        }
    }

    /// What it means for the job.
    pub(crate) fn into_commit_error(self, epoch: Epoch) -> CommitError {
        match self {
            Self::Store(error) | Self::Unreadable(RecoveryError::Store(error)) => {
                CommitError::Store { epoch, error, bundles: Vec::new() }
            }
            Self::Unreadable(RecoveryError::Damaged { pipeline, shard, place, damage }) => {
                CommitError::Damaged { pipeline, shard, place, damage }
            }
            Self::Closed | Self::Unreadable(_) => CommitError::Misuse { epoch, reason: self.to_string() },
            Self::Encode(error) => error.into(),
            Self::Crashed(crashed) => crashed.into(),
        }
    }
}

/// Epochs could not be committed, or the log not folded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The store failed and its handle is given up; whether the write is durable is open.
    ///
    /// The runtime opens the store anew and calls [`super::CommitLog::reopen`], which says what became of the write. If
    /// the error is retryable (a full disk) it then commits the bundles again, else the attempt ends.
    #[error("cannot write after epoch {epoch}; it is intact, and {} complete epochs wait in memory", bundles.len())]
    Store {
        /// The last epoch that is known to be committed.
        epoch: Epoch,
        /// What the store said.
        #[source]
        error: StoreError,
        /// What was to be committed; empty for a fold.
        bundles: Vec<EpochBundle>,
    },
    /// What was handed in breaks the contract: a bug in this library. Nothing was written.
    #[error("cannot commit after epoch {epoch}: {reason}")]
    Misuse {
        /// The last committed epoch.
        epoch: Epoch,
        /// What is wrong.
        reason: String,
    },
    /// The log is damaged: found by a fold. The attempt ends.
    #[error(
        "cannot fold the log of pipeline {pipeline}, shard {shard} at {}; restore its directory from a copy or a kept epoch",
        place.display()
    )]
    Damaged {
        /// The pipeline.
        pipeline: String,
        /// The shard.
        shard: ShardId,
        /// Where it is.
        place: PathBuf,
        /// What exactly.
        #[source]
        damage: Damage,
    },
    /// A record could not be encoded: a bug in this library.
    #[error(transparent)]
    Encode(#[from] CodecError),
    /// A test host ended the world here.
    #[error(transparent)]
    Crashed(#[from] Crashed),
}

impl CommitError {
    /// Says whether the same bundles can be committed later on a fresh handle: the disk is full for now.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Store { error, .. } if error.is_retryable())
    }

    /// Says whether what is stored is damaged.
    pub const fn is_corruption(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store { error, .. } => error.is_corruption(),
            _ => false,
        }
    }

    /// Says whether a test host ended the world.
    pub fn is_crash(&self) -> bool {
        match self {
            Self::Crashed(_) => true,
            Self::Store { error, .. } => error.kind == StoreErrorKind::Crashed,
            _ => false,
        }
    }
}
