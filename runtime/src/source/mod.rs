//! Sources: where records come from, and where to go on after a restart.
//!
//! A [`Source`] is a factory: it lists its splits and opens a [`Reader`] for each. Readers run on threads of their own and
//! may block; the source *task* puts their batches in front of barriers. An epoch records the end of the last batch
//! that the task put in front of its barrier, never the reader's own place: a reader is ahead by what lies in between.

mod backlog;
mod fetch;
mod head;
mod idleness;
mod limited;
mod load;

pub use self::fetch::{Fetch, Fetcher, Fetching};
pub use self::head::SourceHead;
pub(crate) use self::idleness::idleness;
pub use self::idleness::{IdleWatch, Idleness};
pub use self::limited::Limited;
use crate::error::BoxError;
pub use crate::guarantee::{Guarantee, SourceDeclaration};
pub use crate::limits::EpochLimits;
pub use crate::position::{Position, SplitId};
use crate::record::Record;
use crate::time::Timestamp;

/// A factory of readers. Opened by `start`, once per attempt.
///
/// Fields are configuration: nothing that changes while records flow belongs here.
pub trait Source: Send + Sync + 'static {
    /// What its records are.
    type Out: Send + 'static;

    /// Lists the splits there are now. Called at the start of every attempt; the splits are shared out among the
    /// subtasks of the source. A split that was there before and is gone is an error.
    ///
    /// # Errors
    /// Whatever keeps the source from listing; the attempt fails with it.
    fn splits(&self) -> Result<Vec<SplitId>, BoxError>;

    /// Opens a reader on a split at `from`, or at its beginning.
    ///
    /// # Errors
    /// Whatever keeps it from reading there: the split is gone, the position is beyond its end.
    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Self::Out>>, BoxError>;

    /// How many splits of one subtask are read at the same time, in the order of their names; the others wait until one of
    /// them has ended. All by default; a source of many finite splits (files) keeps few open. A split that waits for its turn
    /// holds the watermark back like any other that has had no record yet.
    fn concurrent_splits(&self) -> usize {
        usize::MAX
    }

    /// Most of the source in one micro-batch. It may change from one start to the next.
    fn epoch_limits(&self) -> EpochLimits {
        EpochLimits::default()
    }

    /// Lets a micro-batch take at most so many records of the source; at least 1. See [`EpochLimits`].
    fn with_max_records_per_epoch(self, records: u64) -> Limited<Self>
    where
        Self: Sized,
    {
        Limited::new(self, records)
    }

    /// Says what kind of source it is, what its positions count and what it guarantees, for `explain` and for tables. By
    /// default only its type's name.
    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::of::<Self>()
    }

    /// Hears that everything up to `at` is durable. May repeat or skip, never goes back within an attempt. Called on a
    /// thread of its own, which no commit waits for.
    fn committed(&self, at: &[(SplitId, Position)]) {
        let _ = at;
    }
}

/// Reads one split.
pub trait Reader<T>: Send {
    /// Appends at most `limit` records (≥ 1) to `batch` and sets its end position. May wait, for at most about 50 ms, and
    /// then answers [`Polled::Idle`].
    ///
    /// # Errors
    /// Whatever went wrong outside; the attempt fails with it and starts again from the last epoch.
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError>;
}

/// What a poll found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// There may be more at once.
    More,
    /// Nothing now: ask again later.
    Idle,
    /// Nothing more, ever. What is in the batch still counts.
    End,
}

/// Records with the position after the last of them.
#[derive(Clone, Debug)]
pub struct Batch<T> {
    /// The records, in the split's order.
    pub records: Vec<Record<T>>,
    /// The place after them. A reader opened there returns what follows.
    pub end: Position,
    /// How many files end in it, where the source reads files: what [`EpochLimits::files`] counts.
    pub files: u64,
    /// How many bytes the records were read from, where the source knows: what [`EpochLimits::bytes`] counts.
    pub bytes: u64,
}

impl<T> Batch<T> {
    /// Makes an empty one that ends at a place.
    pub const fn at(end: Position) -> Self {
        Self { records: Vec::new(), end, files: 0, bytes: 0 }
    }
}

impl<T> Default for Batch<T> {
    fn default() -> Self {
        Self::at(Position::default())
    }
}

/// What a reader hands over to its task.
#[derive(Debug)]
pub enum Fetched<T> {
    /// Records of a split with the place after them.
    Batch {
        /// Which of the subtask's splits.
        split: usize,
        /// The records.
        batch: Batch<T>,
        /// When the reader gave them.
        at: Timestamp,
        /// Whether the split ends there.
        ended: bool,
    },
    /// A reader had nothing for the first time.
    Dry {
        /// Which of the subtask's splits.
        split: usize,
    },
    /// The reader failed.
    Failed {
        /// Which of the subtask's splits.
        split: usize,
        /// What it returned.
        error: BoxError,
    },
}

/// One split of a source subtask, and where it begins.
#[derive(Clone, Debug)]
pub struct SplitStart {
    /// The split.
    pub split: SplitId,
    /// The restored position; nothing for its beginning.
    pub from: Option<Position>,
    /// Whether it had ended at that position.
    pub ended: bool,
    /// What a micro-batch that had begun takes of it: so many records, and the place behind them.
    pub planned: Option<(u64, Position)>,
    /// Its watermarks at that position; see [`SplitPosition::watermarks`](crate::checkpoint::SplitPosition::watermarks).
    pub watermarks: Vec<Timestamp>,
}
