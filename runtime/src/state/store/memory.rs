//! [`Memory`]: state that lives as long as the backend value. For tests, and for pipelines that may start over.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use super::{
    Durability, Mark, RunContent, RunEntry, SortedRun, Space, StateBackend, Store, StoreError, StoreErrorKind,
    StoreRead, Visit, WriteBatch, WriteOp,
};
use crate::id::ShardId;

/// Keeps state in memory only. Clones share it, so that a pipeline restarted on a clone finds its state again.
///
/// Nothing of it outlives the process, whatever [`Durability`] a write asks for.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    stores: Arc<Mutex<Stores>>,
}

/// The content of a closed store; `None` while a handle has it.
type Stores = BTreeMap<(String, ShardId), Option<Spaces>>;

impl Memory {
    /// Makes a backend without any store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateBackend for Memory {
    fn open(&self, pipeline: &str, shard: ShardId, create: bool) -> Result<Box<dyn Store>, StoreError> {
        let place = place(pipeline, shard);
        let name = (pipeline.to_owned(), shard);
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let spaces = match stores.get_mut(&name) {
            Some(slot) => slot.take().ok_or_else(|| locked(&place))?,
            None if create => {
                stores.insert(name.clone(), None);
                Spaces::default()
            }
            None => return Err(missing(&place)),
        };
        let content = Arc::new(MemoryContent { place, spaces: RwLock::new(spaces) });
        Ok(Box::new(MemoryStore { stores: Arc::clone(&self.stores), name, content }))
    }

    fn describe(&self, pipeline: &str, shard: ShardId) -> String {
        place(pipeline, shard).display().to_string()
    }
}

fn place(pipeline: &str, shard: ShardId) -> PathBuf {
    PathBuf::from(format!("memory/{pipeline}/{shard}"))
}

/// Says that another handle has the store.
pub(crate) fn locked(place: &Path) -> StoreError {
    StoreError::new(
        StoreErrorKind::Locked,
        "open the store",
        place,
        "another job of this process has it open; stop that first, or choose another pipeline name",
    )
}

const MISSING: &str =
    "there is none; use StartFrom::ResumeOrCreate to begin a new one, or look for the directory it was in";

/// Says that there is no store.
pub(crate) fn missing(place: &Path) -> StoreError {
    StoreError::new(StoreErrorKind::Missing, "open the store", place, MISSING)
}

/// Says that an ingestion's keys do not rise.
pub(crate) fn out_of_order(place: &Path) -> StoreError {
    StoreError::new(StoreErrorKind::Misuse, "ingest a sorted run", place, "its keys do not rise strictly")
}

#[derive(Debug)]
struct MemoryStore {
    stores: Arc<Mutex<Stores>>,
    name: (String, ShardId),
    content: Arc<MemoryContent>,
}

/// What an open store and its readers share.
#[derive(Debug)]
struct MemoryContent {
    place: PathBuf,
    spaces: RwLock<Spaces>,
}

impl MemoryContent {
    fn read(&self) -> RwLockReadGuard<'_, Spaces> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, ops: Vec<WriteOp<'_>>) {
        self.spaces.write().unwrap_or_else(PoisonError::into_inner).apply(ops);
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        let spaces = std::mem::take(&mut *self.content.spaces.write().unwrap_or_else(PoisonError::into_inner));
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        stores.insert(std::mem::take(&mut self.name), Some(spaces));
    }
}

impl StoreRead for MemoryContent {
    fn place(&self) -> &Path {
        &self.place
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        Ok(self.read().multi_get(space, keys))
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.read().scan(space, from, to, visit);
        Ok(())
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        sorted_run(space, sorted).ok_or_else(|| out_of_order(&self.place))
    }
}

impl StoreRead for MemoryStore {
    fn place(&self) -> &Path {
        self.content.place()
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.content.multi_get(space, keys)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.content.scan(space, from, to, visit)
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        self.content.write_run(space, sorted)
    }
}

impl Store for MemoryStore {
    fn write(&mut self, batch: WriteBatch<'_>, _durability: Durability) -> Result<(), StoreError> {
        self.content.apply(batch.ops);
        Ok(())
    }

    fn reader(&self) -> Arc<dyn StoreRead> {
        Arc::clone(&self.content) as _
    }

    /// Memory forgets nothing that a mark could tell of.
    fn set_mark(&mut self, _mark: Mark) -> Result<(), StoreError> {
        Ok(())
    }

    fn mark(&self) -> Option<Mark> {
        None
    }

    fn ingest(&mut self, run: SortedRun) -> Result<(), StoreError> {
        self.content.apply(entries_of(run, &self.content.place)?);
        Ok(())
    }

    fn checkpoint(&self, _path: &Path) -> Result<(), StoreError> {
        let reason = "this backend has no files; use RocksDb for kept epochs and savepoints";
        Err(StoreError::new(StoreErrorKind::Unsupported, "copy the store", &self.content.place, reason))
    }
}

/// The entries of a run that is kept in memory.
#[cfg_attr(
    not(feature = "rocksdb"),
    expect(clippy::unnecessary_wraps, unused_variables, reason = "a backend with files has other runs")
)]
pub(crate) fn entries_of(run: SortedRun, place: &Path) -> Result<Vec<WriteOp<'static>>, StoreError> {
    match run.content {
        RunContent::Entries(ops) => Ok(ops),
        RunContent::Empty => Ok(Vec::new()),
        #[cfg(feature = "rocksdb")]
        RunContent::File(..) => Err(foreign_run(place)),
    }
}

/// Says that a run was not written by this handle.
#[cfg(feature = "rocksdb")]
pub(crate) fn foreign_run(place: &Path) -> StoreError {
    StoreError::new(StoreErrorKind::Misuse, "ingest a sorted run", place, "it was not written by this handle")
}

/// Collects a run that is to be ingested whole or not at all; nothing if its keys do not rise strictly.
pub(crate) fn sorted_run(space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Option<SortedRun> {
    let mut last: Option<Vec<u8>> = None;
    let mut ops: Vec<WriteOp> = Vec::new();
    for (key, value) in sorted {
        if last.as_ref().is_some_and(|last| *last >= key) {
            return None;
        }
        last = Some(key.clone());
        ops.push(change(space, key, value));
    }
    Some(SortedRun { content: if ops.is_empty() { RunContent::Empty } else { RunContent::Entries(ops) } })
}

fn change(space: Space, key: Vec<u8>, value: Option<Cow<'_, [u8]>>) -> WriteOp<'static> {
    match value {
        Some(value) => WriteOp::Put { space, key, value: value.into_owned().into() },
        None => WriteOp::Delete { space, key },
    }
}

/// The content of a store as ordered maps: what [`Memory`] and the simulated disk are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spaces {
    maps: BTreeMap<Space, BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Spaces {
    pub(crate) fn apply(&mut self, ops: Vec<WriteOp<'_>>) {
        for op in ops {
            match op {
                WriteOp::Put { space, key, value } => {
                    self.maps.entry(space).or_default().insert(key, value.into_owned());
                }
                WriteOp::Delete { space, key } => {
                    self.maps.entry(space).or_default().remove(&key);
                }
                WriteOp::DeleteRange { space, from, to } => self.remove_range(space, &from, &to),
            }
        }
    }

    pub(crate) fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Vec<Option<Vec<u8>>> {
        let map = self.maps.get(&space);
        keys.iter().map(|key| map?.get(key).cloned()).collect()
    }

    pub(crate) fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) {
        let Some(map) = self.maps.get(&space) else { return };
        // `range` panics on an interval that runs backwards; for the contract it is empty.
        if to.is_some_and(|to| from >= to) {
            return;
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, value) in map.range::<[u8], _>((Bound::Included(from), to)) {
            if visit(key, value) == ControlFlow::Break(()) {
                return;
            }
        }
    }

    fn remove_range(&mut self, space: Space, from: &[u8], to: &[u8]) {
        let Some(map) = self.maps.get_mut(&space) else { return };
        if from < to {
            let mut tail = map.split_off(from);
            map.append(&mut tail.split_off(to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put<'a>(key: &[u8], value: &'a [u8]) -> WriteBatch<'a> {
        let mut batch = WriteBatch::default();
        batch.put(Space::Meta, key, value);
        batch
    }

    #[test]
    fn a_second_open_sees_the_data_once_the_first_handle_is_gone() {
        let memory = Memory::new();
        let shard = ShardId::new(0);
        assert_eq!(memory.open("p", shard, false).unwrap_err().kind, StoreErrorKind::Missing);
        let mut first = memory.open("p", shard, true).unwrap();
        first.write(put(b"k", b"v"), Durability::Synced).unwrap();
        let clone = memory.clone();
        assert_eq!(clone.open("p", shard, true).unwrap_err().kind, StoreErrorKind::Locked);
        clone.open("p", ShardId::new(1), true).unwrap();
        drop(first);
        let second = clone.open("p", shard, false).unwrap();
        assert_eq!(second.multi_get(Space::Meta, &[b"k".to_vec()]).unwrap(), [Some(b"v".to_vec())]);
    }

    #[test]
    fn a_run_out_of_order_is_refused_whole() {
        let store = Memory::new().open("p", ShardId::new(0), true).unwrap();
        let mut run = [(b"b".to_vec(), Some(vec![1].into())), (b"a".to_vec(), None)].into_iter();
        assert_eq!(store.write_run(Space::Rows, &mut run).unwrap_err().kind, StoreErrorKind::Misuse);
        assert_eq!(store.multi_get(Space::Rows, &[b"b".to_vec()]).unwrap(), [None]);
    }
}
