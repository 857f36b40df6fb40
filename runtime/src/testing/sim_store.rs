//! [`SimDisk`]: a disk that loses what was not synced, for crash tests without a disk.
//!
//! A synced write makes all earlier writes durable. At a crash every write that was not synced survives or not, each by
//! a throw of its own: a subset, not a prefix, which is less than RocksDB promises and all that the contract does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::RngExt;

use crate::fault::Crashed;
use crate::id::ShardId;
use crate::state::store::memory::{Spaces, entries_of, locked, missing, out_of_order, sorted_run};
use crate::state::store::{
    Durability, Mark, RunEntry, SortedRun, Space, StateBackend, Store, StoreError, StoreErrorKind, StoreRead, Visit,
    WriteBatch, WriteOp,
};

/// A simulated disk with the stores of any number of pipelines. Clones are the same disk; it outlives every crash.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

/// What becomes of the batch of a write that fails. The contract leaves it open; a test says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailedWrite {
    /// The batch is lost.
    Lost,
    /// The batch is written, though not synced.
    Written,
}

/// Errors that are waiting to happen to writes, on any store of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFaults {
    /// The kind of error.
    pub kind: StoreErrorKind,
    /// How many writes still succeed before. A synced write without content counts.
    pub after: u32,
    /// How many writes then fail, each on a handle of its own, since a handle that failed once refuses everything.
    pub times: u32,
    /// What becomes of their batches.
    pub outcome: FailedWrite,
}

type Hook = Arc<dyn Fn() -> Result<(), Crashed> + Send + Sync>;

#[derive(Default)]
struct Inner {
    /// Raised by a crash; handles of an earlier life are refused.
    life: u64,
    stores: BTreeMap<(String, ShardId), SimContent>,
    faults: Option<WriteFaults>,
    between_write_and_sync: Option<Hook>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("life", &self.life).field("stores", &self.stores.len()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct SimContent {
    /// What readers see: the durable content and everything after it.
    visible: Spaces,
    durable: Spaces,
    /// What happened after the durable content, in order.
    pending: Vec<Pending>,
    /// Beside the content, and never lost.
    mark: Option<Mark>,
    open: bool,
}

#[derive(Clone, Debug)]
struct Pending {
    ops: Vec<WriteOp<'static>>,
    /// Survives every crash, and still wins over earlier changes that may or may not: an ingestion.
    durable: bool,
}

impl SimContent {
    fn append(&mut self, ops: Vec<WriteOp<'_>>, durable: bool) {
        let ops: Vec<_> = ops.into_iter().map(WriteOp::into_owned).collect();
        self.visible.apply(ops.clone());
        self.pending.push(Pending { ops, durable });
    }

    fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            self.durable.apply(pending.ops);
        }
    }

    fn crash(&mut self, survives: &mut impl FnMut() -> bool) {
        for pending in std::mem::take(&mut self.pending) {
            if pending.durable || survives() {
                self.durable.apply(pending.ops);
            }
        }
        self.visible = self.durable.clone();
        self.open = false;
    }
}

impl SimDisk {
    /// Makes an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the process's life: every unsynced batch survives or is lost, and all open handles are refused from now on
    /// with [`StoreErrorKind::Crashed`]. Errors and the hook that were set are taken away.
    pub fn crash(&self, rng: &mut impl rand::Rng) {
        // Swarm testing: some crashes lose nearly all, some nearly nothing.
        let odds: f64 = rng.random_range(0.0..=1.0);
        self.crash_with(|| rng.random_bool(odds));
    }

    /// As [`SimDisk::crash`], with the caller's own choice for each unsynced batch in the order of writing.
    pub fn crash_with(&self, mut survives: impl FnMut() -> bool) {
        let mut inner = self.lock();
        inner.life += 1;
        inner.faults = None;
        inner.between_write_and_sync = None;
        for content in inner.stores.values_mut() {
            content.crash(&mut survives);
        }
    }

    /// Makes the next writes fail.
    pub fn fail_writes(&self, faults: WriteFaults) {
        self.lock().faults = Some(faults);
    }

    /// Makes the next `times` writes fail with `kind` and lose their batches; [`StoreErrorKind::Full`] is a full disk.
    pub fn fail_next(&self, kind: StoreErrorKind, times: u32) {
        self.fail_writes(WriteFaults { kind, after: 0, times, outcome: FailedWrite::Lost });
    }

    /// Takes away the errors that did not happen yet.
    pub fn heal(&self) {
        self.lock().faults = None;
    }

    /// Sets what is called inside a synced write when its batch is written and not synced; an error leaves it there.
    pub fn between_write_and_sync(&self, hook: impl Fn() -> Result<(), Crashed> + Send + Sync + 'static) {
        self.lock().between_write_and_sync = Some(Arc::new(hook));
    }

    /// Returns how many batches a crash might lose now, over all stores.
    pub fn unsynced(&self) -> usize {
        let inner = self.lock();
        inner.stores.values().flat_map(|content| &content.pending).filter(|pending| !pending.durable).count()
    }

    /// Changes the durable bytes behind the owner's back; for tests of damage. Nothing happens to a store that is not
    /// there. Returns what `damage` returns for each entry: `None` removes it.
    pub fn damage(
        &self,
        pipeline: &str,
        shard: ShardId,
        space: Space,
        mut damage: impl FnMut(&[u8], Vec<u8>) -> Option<Vec<u8>>,
    ) {
        let mut inner = self.lock();
        let Some(content) = inner.stores.get_mut(&(pipeline.to_owned(), shard)) else { return };
        content.sync();
        let mut ops = Vec::new();
        content.durable.scan(space, &[], None, &mut |key, value| {
            ops.push(match damage(key, value.to_vec()) {
                Some(value) => WriteOp::Put { space, key: key.to_vec(), value: value.into() },
                None => WriteOp::Delete { space, key: key.to_vec() },
            });
            std::ops::ControlFlow::Continue(())
        });
        content.durable.apply(ops);
        content.visible = content.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateBackend for SimDisk {
    fn open(&self, pipeline: &str, shard: ShardId, create: bool) -> Result<Box<dyn Store>, StoreError> {
        let place = place(pipeline, shard);
        let name = (pipeline.to_owned(), shard);
        let mut inner = self.lock();
        if !create && !inner.stores.contains_key(&name) {
            return Err(missing(&place));
        }
        let life = inner.life;
        let content = inner.stores.entry(name.clone()).or_default();
        if content.open {
            return Err(locked(&place));
        }
        content.open = true;
        Ok(Box::new(SimStore { reader: SimReader { disk: self.clone(), name, place, life }, failed: None }))
    }

    fn describe(&self, pipeline: &str, shard: ShardId) -> String {
        place(pipeline, shard).display().to_string()
    }
}

fn place(pipeline: &str, shard: ShardId) -> PathBuf {
    PathBuf::from(format!("simulated/{pipeline}/{shard}"))
}

/// What one life may read of a store of a [`SimDisk`].
#[derive(Clone, Debug)]
struct SimReader {
    disk: SimDisk,
    name: (String, ShardId),
    place: PathBuf,
    life: u64,
}

impl SimReader {
    fn error(&self, kind: StoreErrorKind, action: &'static str, text: &str) -> StoreError {
        StoreError::new(kind, action, &self.place, text)
    }

    fn with<T>(&self, action: &'static str, operation: impl FnOnce(&mut SimContent) -> T) -> Result<T, StoreError> {
        let mut inner = self.disk.lock();
        if inner.life != self.life {
            return Err(self.error(StoreErrorKind::Crashed, action, "the process that opened this handle is dead"));
        }
        match inner.stores.get_mut(&self.name) {
            Some(content) => Ok(operation(content)),
            None => Err(self.error(StoreErrorKind::Missing, action, "the store is gone")),
        }
    }
}

impl StoreRead for SimReader {
    fn place(&self) -> &Path {
        &self.place
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.with("read", |content| content.visible.multi_get(space, keys))
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.with("scan", |content| content.visible.scan(space, from, to, visit))
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        sorted_run(space, sorted).ok_or_else(|| out_of_order(&self.place))
    }
}

/// One life's handle on a store of a [`SimDisk`].
#[derive(Debug)]
struct SimStore {
    reader: SimReader,
    /// The error that made the handle unusable.
    failed: Option<StoreErrorKind>,
}

impl SimStore {
    fn check(&self, action: &'static str) -> Result<(), StoreError> {
        self.reader.with(action, |_| ())?;
        match self.failed {
            Some(kind) => {
                let text = "an earlier write failed; drop this handle and open the store anew";
                Err(self.reader.error(kind, action, text))
            }
            None => Ok(()),
        }
    }

    /// Counts one write; the error it has to meet, if any.
    fn next_fault(&self) -> Option<WriteFaults> {
        let mut inner = self.reader.disk.lock();
        let faults = inner.faults.as_mut()?;
        if faults.after > 0 {
            faults.after -= 1;
            return None;
        }
        let fault = *faults;
        faults.times = faults.times.saturating_sub(1);
        if faults.times == 0 {
            inner.faults = None;
        }
        (fault.times > 0).then_some(fault)
    }

    fn change(
        &mut self,
        action: &'static str,
        ops: Vec<WriteOp<'_>>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        self.check(action)?;
        if let Some(fault) = self.next_fault() {
            if fault.outcome == FailedWrite::Written {
                self.reader.with(action, |content| content.append(ops, false))?;
            }
            self.failed = Some(fault.kind);
            return Err(self.reader.error(fault.kind, action, "the test made this write fail"));
        }
        if !ops.is_empty() {
            self.reader.with(action, |content| content.append(ops, false))?;
        }
        if durability == Durability::Synced {
            // The hook may crash the disk itself, so the lock is not held and the life is checked again.
            let hook = self.reader.disk.lock().between_write_and_sync.clone();
            if let Some(hook) = hook {
                hook()?;
            }
            self.reader.with(action, SimContent::sync)?;
        }
        Ok(())
    }
}

impl Drop for SimStore {
    fn drop(&mut self) {
        let mut inner = self.reader.disk.lock();
        if inner.life == self.reader.life
            && let Some(content) = inner.stores.get_mut(&self.reader.name)
        {
            content.open = false;
        }
    }
}

impl StoreRead for SimStore {
    fn place(&self) -> &Path {
        self.reader.place()
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.check("read")?;
        self.reader.multi_get(space, keys)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.check("scan")?;
        self.reader.scan(space, from, to, visit)
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        self.reader.write_run(space, sorted)
    }
}

impl Store for SimStore {
    fn write(&mut self, batch: WriteBatch<'_>, durability: Durability) -> Result<(), StoreError> {
        self.change("write a batch", batch.ops, durability)
    }

    fn reader(&self) -> Arc<dyn StoreRead> {
        Arc::new(self.reader.clone())
    }

    fn ingest(&mut self, run: SortedRun) -> Result<(), StoreError> {
        self.check("ingest a sorted run")?;
        let ops = entries_of(run, &self.reader.place)?;
        if let Some(fault) = self.next_fault() {
            if fault.outcome == FailedWrite::Written {
                self.reader.with("ingest a sorted run", |content| content.append(ops, true))?;
            }
            self.failed = Some(fault.kind);
            return Err(self.reader.error(fault.kind, "ingest a sorted run", "the test made this write fail"));
        }
        self.reader.with("ingest a sorted run", |content| content.append(ops, true))
    }

    fn set_mark(&mut self, mark: Mark) -> Result<(), StoreError> {
        self.reader.with("keep a mark", |content| {
            let Mark { epoch, attempt } = content.mark.unwrap_or_default();
            content.mark = Some(Mark { epoch: mark.epoch.max(epoch), attempt: mark.attempt.max(attempt) });
        })
    }

    fn mark(&self) -> Option<Mark> {
        self.reader.with("read the mark", |content| content.mark).ok().flatten()
    }

    fn checkpoint(&self, _path: &Path) -> Result<(), StoreError> {
        let text = "a simulated disk has no files";
        Err(self.reader.error(StoreErrorKind::Unsupported, "copy the store", text))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::fault::CrashPoint;

    const SHARD: ShardId = ShardId::new(0);

    fn put(key: u8) -> WriteBatch<'static> {
        let mut batch = WriteBatch::default();
        batch.put(Space::Log, [key, 0], &[1]);
        batch.put(Space::Rows, [key, 1], &[1]);
        batch
    }

    fn keys(disk: &SimDisk, space: Space) -> Vec<u8> {
        let mut keys = Vec::new();
        let store = disk.open("p", SHARD, true).unwrap();
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(key[0]);
            std::ops::ControlFlow::Continue(())
        };
        store.scan(space, &[], None, &mut visit).unwrap();
        keys
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_subset_of_whole_batches_of_the_rest() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = SimDisk::new();
            let mut store = disk.open("p", SHARD, true).unwrap();
            store.write(put(0), Durability::Buffered).unwrap();
            store.write(put(1), Durability::Synced).unwrap();
            for key in 2..5 {
                store.write(put(key), Durability::Buffered).unwrap();
            }
            assert_eq!(disk.unsynced(), 3);
            disk.crash(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            assert_eq!(store.write(put(9), Durability::Synced).unwrap_err().kind, StoreErrorKind::Crashed);
            let survived = keys(&disk, Space::Log);
            assert!(survived.starts_with(&[0, 1]));
            assert_eq!(survived, keys(&disk, Space::Rows), "a batch is atomic over spaces");
            seen.insert(survived);
        }
        assert_eq!(seen.len(), 8, "every subset of three batches was seen");
    }

    #[test]
    fn an_ingestion_is_durable_and_wins_over_an_earlier_write_that_survives() {
        let disk = SimDisk::new();
        let mut store = disk.open("p", SHARD, true).unwrap();
        store.write(put(1), Durability::Buffered).unwrap();
        let mut entries = [(vec![1, 1], None), (vec![2, 1], Some(Vec::new().into()))].into_iter();
        let run = store.write_run(Space::Rows, &mut entries).unwrap();
        store.ingest(run).unwrap();
        disk.crash_with(|| true);
        assert_eq!((keys(&disk, Space::Log), keys(&disk, Space::Rows)), (vec![1], vec![2]));
    }

    #[test]
    fn a_crash_between_write_and_sync_leaves_the_outcome_open() {
        for survives in [false, true] {
            let disk = SimDisk::new();
            let mut store = disk.open("p", SHARD, true).unwrap();
            disk.between_write_and_sync(|| Err(Crashed(CrashPoint::CommitWritten)));
            assert_eq!(store.write(put(1), Durability::Synced).unwrap_err().kind, StoreErrorKind::Crashed);
            disk.crash_with(|| survives);
            assert_eq!(keys(&disk, Space::Log).len(), usize::from(survives));
        }
    }

    #[test]
    fn a_handle_that_met_a_full_disk_refuses_everything_until_it_is_opened_anew() {
        let disk = SimDisk::new();
        let mut store = disk.open("p", SHARD, true).unwrap();
        disk.fail_next(StoreErrorKind::Full, 2);
        for _ in 0..2 {
            assert!(store.write(put(1), Durability::Synced).unwrap_err().is_retryable());
            assert!(store.write(put(1), Durability::Synced).unwrap_err().is_retryable());
            assert!(store.multi_get(Space::Log, &[]).is_err());
            drop(store);
            store = disk.open("p", SHARD, false).unwrap();
        }
        store.write(put(1), Durability::Synced).unwrap();
        assert_eq!(disk.open("p", SHARD, false).unwrap_err().kind, StoreErrorKind::Locked);
    }
}
