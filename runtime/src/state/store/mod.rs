//! [`Store`]: the only thing below the state engine, dumb on purpose.
//!
//! Delta log, folding, outbox, manifest and recovery are built above it and are the same for every backend.
//!
//! **Contract.** A synced write makes all earlier writes durable. An ingestion is durable when it returns. A write is
//! atomic over all spaces. A scan sees one snapshot. After an error of [`Store::write`] the outcome is unknown and the
//! handle must not be used again: drop it and open the store anew.

#[cfg(test)]
#[cfg(feature = "test-util")]
mod conformance;
#[cfg(feature = "rocksdb")]
mod lock;
#[cfg(feature = "rocksdb")]
mod mark_file;
pub(crate) mod memory;
#[cfg(feature = "rocksdb")]
mod probe;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod share;
mod watchdog;

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::memory::Memory;
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::RocksDb;
pub use self::share::{StateCounters, StoreShare};
pub use self::watchdog::open_within;
use crate::error::BoxError;
use crate::fault::Crashed;
use crate::id::{Attempt, Epoch, ShardId};

/// A key space of a store. Keys of different spaces never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Manifest, attempt number, positions.
    Meta,
    /// Deltas of committed epochs that are not folded into rows yet.
    Log,
    /// One row per state entry, as of `folded_through`.
    Rows,
    /// Committed output that is not known to be delivered.
    Outbox,
}

impl Space {
    /// All spaces.
    pub const ALL: [Self; 4] = [Self::Meta, Self::Log, Self::Rows, Self::Outbox];

    /// The space's name on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Rows => "rows",
            Self::Outbox => "outbox",
        }
    }
}

/// One change of a [`WriteBatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOp<'a> {
    /// Sets a key.
    Put {
        /// Where.
        space: Space,
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Cow<'a, [u8]>,
    },
    /// Removes a key; nothing happens if it is absent.
    Delete {
        /// Where.
        space: Space,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes all keys with `from` ≤ key < `to`.
    DeleteRange {
        /// Where.
        space: Space,
        /// The first key that goes.
        from: Vec<u8>,
        /// The first key behind that stays.
        to: Vec<u8>,
    },
}

impl WriteOp<'_> {
    /// Returns the same change with a value of its own.
    pub fn into_owned(self) -> WriteOp<'static> {
        match self {
            Self::Put { space, key, value } => WriteOp::Put { space, key, value: Cow::Owned(value.into_owned()) },
            Self::Delete { space, key } => WriteOp::Delete { space, key },
            Self::DeleteRange { space, from, to } => WriteOp::DeleteRange { space, from, to },
        }
    }
}

/// Changes that become visible and durable together or not at all. Later changes of a key win.
///
/// Values may be borrowed: those of an epoch are tens of megabytes, which their owner keeps until they are durable.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch<'a> {
    /// The changes, in order.
    pub ops: Vec<WriteOp<'a>>,
}

impl<'a> WriteBatch<'a> {
    /// Sets a key.
    pub fn put(&mut self, space: Space, key: impl Into<Vec<u8>>, value: impl Into<Cow<'a, [u8]>>) {
        self.ops.push(WriteOp::Put { space, key: key.into(), value: value.into() });
    }

    /// Removes a key.
    pub fn delete(&mut self, space: Space, key: impl Into<Vec<u8>>) {
        self.ops.push(WriteOp::Delete { space, key: key.into() });
    }

    /// Removes all keys with `from` ≤ key < `to`.
    pub fn delete_range(&mut self, space: Space, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.ops.push(WriteOp::DeleteRange { space, from: from.into(), to: to.into() });
    }

    /// Returns the bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.ops
            .iter()
            .map(|op| match op {
                WriteOp::Put { key, value, .. } => key.len() + value.len(),
                WriteOp::Delete { key, .. } => key.len(),
                WriteOp::DeleteRange { from, to, .. } => from.len() + to.len(),
            })
            .sum()
    }
}

/// When a write is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the call returns, and with it all earlier writes.
    Synced,
    /// Some time later, at the next synced write at the latest; a crash before may lose it.
    Buffered,
}

/// How far a store has got at least: whatever is marked was durable before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The last committed epoch, or one before it.
    pub epoch: Epoch,
    /// The attempt that was raised last, or one before it.
    pub attempt: Attempt,
}

/// What a scan does with an entry; breaking ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An entry of a sorted run: a key with its new value, or nothing for a removal. Values may be borrowed, as a batch's.
pub type RunEntry<'a> = (Vec<u8>, Option<Cow<'a, [u8]>>);

/// The part of a store that only reads. May be shared and used from any thread, also while the owner writes.
pub trait StoreRead: Send + Sync + fmt::Debug {
    /// Where the store is, for messages.
    fn place(&self) -> &Path;

    /// Reads many keys, answers in the order of `keys`.
    ///
    /// # Errors
    /// [`StoreError`] when the disk or its content is at fault.
    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Visits the entries with `from` ≤ key < `to` (to the end without a `to`) in key order.
    ///
    /// # Errors
    /// [`StoreError`] when the disk or its content is at fault.
    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Bytes of memory that the store takes for caches and buffers; 0 where it has none or cannot tell.
    fn memory_bytes(&self) -> u64 {
        0
    }

    /// Bytes that the store holds in its files and of what is in none of them yet; nothing where it cannot tell. Takes no longer
    /// than a look-up.
    fn live_bytes(&self) -> Option<u64> {
        None
    }

    /// Writes a sorted run of entries, `None` for a removal, beside the store, where it changes nothing before it is
    /// ingested. The slow half of an ingestion; the owner of the store need not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; keys out of order are a [`StoreErrorKind::Misuse`].
    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError>;
}

/// A sorted run that waits beside a store. Dropped without being ingested it is left for the next open to clear away.
#[derive(Debug)]
pub struct SortedRun {
    pub(crate) content: RunContent,
}

/// Where a run is.
#[derive(Debug)]
pub(crate) enum RunContent {
    /// In memory.
    Entries(Vec<WriteOp<'static>>),
    /// In a file of the store's handle that wrote it.
    #[cfg(feature = "rocksdb")]
    File(Space, PathBuf),
    /// Nowhere: it has no entries.
    Empty,
}

/// An ordered, atomic, durable map of bytes in four spaces. See the module for the contract.
pub trait Store: StoreRead {
    /// Writes a batch atomically.
    ///
    /// # Errors
    /// [`StoreError`]: the outcome is unknown and the handle is done for.
    fn write(&mut self, batch: WriteBatch<'_>, durability: Durability) -> Result<(), StoreError>;

    /// Returns what others may read through. As long as they hold it the store is not closed.
    fn reader(&self) -> Arc<dyn StoreRead>;

    /// Adds a run, which wins over what is there. Durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreErrorKind::Misuse`] for a run of another store or of an earlier handle.
    fn ingest(&mut self, run: SortedRun) -> Result<(), StoreError>;

    /// Keeps a mark apart from the database, so that damage which makes the database forget its last writes is noticed.
    /// Durable when it returns. A mark that is lower than the one before leaves that in force.
    ///
    /// # Errors
    /// [`StoreError`]: the mark before is in force, and the handle can be used as before.
    fn set_mark(&mut self, mark: Mark) -> Result<(), StoreError>;

    /// The mark in force; none in a store that never had one.
    fn mark(&self) -> Option<Mark>;

    /// Makes a copy that later writes do not touch, in a directory that must not exist.
    ///
    /// # Errors
    /// [`StoreError`]; a backend without files answers [`StoreErrorKind::Unsupported`].
    fn checkpoint(&self, path: &Path) -> Result<(), StoreError>;
}

/// Opens the store of a pipeline and shard. One backend serves many pipelines.
pub trait StateBackend: Send + Sync + fmt::Debug {
    /// Opens the store, and creates an empty one if `create` and there is none.
    ///
    /// # Errors
    /// [`StoreErrorKind::Missing`] if there is none and `create` is false, [`StoreErrorKind::Locked`] if another owner
    /// has it open, and what the disk says.
    fn open(&self, pipeline: &str, shard: ShardId, create: bool) -> Result<Box<dyn Store>, StoreError>;

    /// Returns the same backend with stores that take at most about `memory` bytes for caches and buffers; nothing for one whose
    /// stores take none, or that cannot tell. A runtime asks for this once, with its share of `state_memory`.
    fn within(&self, memory: u64) -> Option<Arc<dyn StateBackend>> {
        let _ = memory;
        None
    }

    /// Where the store of this pipeline and shard is, for messages.
    fn describe(&self, pipeline: &str, shard: ShardId) -> String;
}

/// What kind of failure a store met; decides what the runtime does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No space is left: the epoch is kept in memory and retried on a fresh handle.
    Full,
    /// Another owner has the store open.
    Locked,
    /// There is no store where one was expected.
    Missing,
    /// The content is damaged or was not written by this library.
    Corrupt,
    /// The disk or the operating system failed.
    Io,
    /// It did not answer in time. The thread that waits for it is left behind, with the store's lock.
    Stuck,
    /// The backend cannot do this.
    Unsupported,
    /// The caller broke the contract: a bug in this library.
    Misuse,
    /// A test host ended the world here.
    Crashed,
}

/// A failed operation of a store.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} at {place}")]
pub struct StoreError {
    /// What kind it is.
    pub kind: StoreErrorKind,
    /// What was tried.
    pub action: &'static str,
    /// The store's directory or name.
    pub place: PathBuf,
    /// The cause.
    pub source: BoxError,
}

impl StoreError {
    /// Makes an error.
    pub fn new(
        kind: StoreErrorKind,
        action: &'static str,
        place: impl Into<PathBuf>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self { kind, action, place: place.into(), source: source.into() }
    }

    /// Says whether trying again on a fresh handle can help without anybody's doing: the disk is full for now.
    pub const fn is_retryable(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Full)
    }

    /// Says whether what is stored is damaged.
    pub const fn is_corruption(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Corrupt)
    }
}

impl From<Crashed> for StoreError {
    fn from(crashed: Crashed) -> Self {
        Self::new(StoreErrorKind::Crashed, "go on", "simulation", crashed)
    }
}
