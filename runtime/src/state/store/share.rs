//! What a store's owner lets others have of it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, TryLockError};

use super::StoreRead;
use crate::id::Epoch;

/// The way to the rows for those who do not own the store, and how far the log is folded into them. Cheap to clone.
///
/// The owner may close its handle and open another at any time: a disk that is full is met that way. Then the way is shut
/// for a while, and it is not closed while somebody reads.
#[derive(Clone, Default)]
pub struct StoreShare {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    reader: RwLock<Option<Arc<dyn StoreRead>>>,
    folded_through: AtomicU64,
    fold_wanted: AtomicBool,
    /// What folds under way hold in memory.
    fold_bytes: AtomicU64,
    counters: StateCounters,
}

/// What became of keys that were not, or did not stay, in memory; over the life of the process.
#[derive(Debug, Default)]
pub struct StateCounters {
    reads: AtomicU64,
    evicted: AtomicU64,
    evicted_tombstones: AtomicU64,
    completed: AtomicU64,
}

impl StateCounters {
    /// Keys that a task waited for because they were not in memory.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Keys that were evicted.
    pub fn evicted_keys(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Tombstones among them.
    pub fn evicted_tombstones(&self) -> u64 {
        self.evicted_tombstones.load(Ordering::Relaxed)
    }

    /// Key groups of which everything was read into memory.
    pub fn completed_groups(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self, keys: u64) {
        self.reads.fetch_add(keys, Ordering::Relaxed);
    }

    pub(crate) fn evicted(&self, keys: u64, tombstones: u64) {
        self.evicted.fetch_add(keys, Ordering::Relaxed);
        self.evicted_tombstones.fetch_add(tombstones, Ordering::Relaxed);
    }

    pub(crate) fn completed(&self) {
        self.completed.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for StoreShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreShare").field("folded_through", &self.folded_through()).finish_non_exhaustive()
    }
}

struct FoldBytes {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Drop for FoldBytes {
    fn drop(&mut self) {
        self.shared.fold_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl StoreShare {
    /// Reads through the present handle; nothing while there is none.
    pub fn with<R>(&self, read: impl FnOnce(&dyn StoreRead) -> R) -> Option<R> {
        let reader = self.shared.reader.read().unwrap_or_else(PoisonError::into_inner);
        reader.as_deref().map(read)
    }

    /// As [`StoreShare::with`], for who must not wait: nothing also while the way is being opened or shut.
    pub fn try_with<R>(&self, read: impl FnOnce(&dyn StoreRead) -> R) -> Option<R> {
        let reader = match self.shared.reader.try_read() {
            Ok(reader) => reader,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        reader.as_deref().map(read)
    }

    /// The last epoch whose changes are all in the rows. Whatever changed later must stay in memory.
    pub fn folded_through(&self) -> Epoch {
        Epoch::new(self.shared.folded_through.load(Ordering::Acquire))
    }

    /// What became of keys that were not in memory.
    pub fn counters(&self) -> &StateCounters {
        &self.shared.counters
    }

    /// Asks for a fold after the next commit, although the log is not full: memory is, of what only a fold lets go. Says whether
    /// nobody had asked before.
    pub fn want_fold(&self) -> bool {
        !self.shared.fold_wanted.swap(true, Ordering::AcqRel)
    }

    /// Bytes of the log that are in memory because they are being folded.
    pub fn fold_bytes(&self) -> u64 {
        self.shared.fold_bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that a fold holds, until the result is dropped.
    pub(crate) fn holds_for_fold(&self, bytes: u64) -> impl Drop {
        self.shared.fold_bytes.fetch_add(bytes, Ordering::Relaxed);
        FoldBytes { shared: Arc::clone(&self.shared), bytes }
    }

    pub(crate) fn is_fold_wanted(&self) -> bool {
        self.shared.fold_wanted.load(Ordering::Acquire)
    }

    pub(crate) fn fold_done(&self) {
        self.shared.fold_wanted.store(false, Ordering::Release);
    }

    pub(crate) fn set_folded_through(&self, epoch: Epoch) {
        self.shared.folded_through.store(epoch.number(), Ordering::Release);
    }

    /// Opens the way, or shuts it; waits until nobody reads through the handle before.
    pub(crate) fn set_reader(&self, reader: Option<Arc<dyn StoreRead>>) {
        *self.shared.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }
}
