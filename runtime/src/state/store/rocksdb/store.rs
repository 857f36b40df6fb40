//! An open store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::properties::{CUR_SIZE_ALL_MEM_TABLES, LIVE_SST_FILES_SIZE};
use rocksdb::{ColumnFamily, DB, IngestExternalFileOptions, ReadOptions, SstFileWriter};

use super::error::{advised, kind};
use super::open::sync_ancestors;
use super::options::{StoreOptions, write_options};
use crate::error::BoxError;
use crate::state::store::lock::io_error;
use crate::state::store::mark_file::MarkFile;
use crate::state::store::{
    Durability, Mark, RunContent, RunEntry, SortedRun, Space, Store, StoreError, StoreErrorKind, StoreRead, Visit,
    WriteBatch, WriteOp, lock, memory,
};

pub(super) const WRITTEN_FILE: &str = "WRITTEN.millstream";
pub(super) const INGEST_DIR: &str = "ingest";
/// What RocksDB adds to an operation in a batch, at most: its kind, the family and two lengths.
const OP_BYTES: usize = 16;

#[derive(Debug)]
pub(super) struct RocksDbStore {
    pub(super) shared: Arc<Shared>,
    pub(super) mark: MarkFile,
    /// Whether `WRITTEN.millstream` is there.
    pub(super) written: bool,
    /// Ranges whose removal is not durable yet and into which nothing was written since.
    pub(super) removed: Vec<(Space, Vec<u8>, Vec<u8>)>,
    /// The error that made the handle unusable. RocksDB itself refuses after some errors, not after all.
    pub(super) failed: Option<StoreErrorKind>,
}

/// What the owner and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    // Declared, and so dropped, before the lock: RocksDB closes its files while the store is still ours.
    pub(super) db: DB,
    pub(super) _lock: lock::Held,
    pub(super) directory: PathBuf,
    pub(super) runs: AtomicU64,
    pub(super) options: StoreOptions,
}

impl RocksDbStore {
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let mut empty = true;
        for space in Space::ALL {
            self.scan(space, &[], None, &mut |_, _| {
                empty = false;
                ControlFlow::Break(())
            })?;
        }
        Ok(empty)
    }

    pub(super) fn mark_written(&mut self) -> Result<(), StoreError> {
        if self.written {
            return Ok(());
        }
        let directory = &self.shared.directory;
        let path = directory.join(WRITTEN_FILE);
        let mark = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(b"this store has held committed epochs; an empty database beside this file is damage\n")?;
            file.sync_all()?;
            sync_ancestors(directory)
        };
        mark().map_err(|error| io_error("mark the store as written", directory, error))?;
        self.written = true;
        Ok(())
    }

    fn check(&self, action: &'static str) -> Result<(), StoreError> {
        match self.failed {
            Some(kind) => Err(self.shared.error(
                kind,
                action,
                "an earlier write failed; drop this handle and open the store anew",
            )),
            None => Ok(()),
        }
    }

    /// Runs a change; after an error the handle refuses everything.
    fn change(
        &mut self,
        action: &'static str,
        change: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.check(action)?;
        change(self).inspect_err(|error| {
            // A caller's mistake is found before anything is written.
            if error.kind != StoreErrorKind::Misuse {
                self.failed = Some(error.kind);
            }
        })
    }

    fn write_batch(&mut self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let action = "write a batch";
        // Known in advance: a batch of tens of MB that grows copies itself over and over.
        let bytes = batch.bytes() + batch.ops.len() * OP_BYTES;
        let mut native = rocksdb::WriteBatch::with_capacity_bytes(bytes);
        for op in batch.ops {
            match op {
                WriteOp::Put { space, key, value } => {
                    native.put_cf(self.shared.family(space)?, &key, value);
                    self.removed.retain(|(other, from, to)| *other != space || !(from..to).contains(&&key));
                }
                WriteOp::Delete { space, key } => native.delete_cf(self.shared.family(space)?, key),
                WriteOp::DeleteRange { space, from, to } if from < to => {
                    native.delete_range_cf(self.shared.family(space)?, &from, &to);
                    self.removed.push((space, from, to));
                }
                WriteOp::DeleteRange { .. } => {}
            }
        }
        if !native.is_empty() {
            let options = write_options(durability);
            self.shared.db.write_opt(native, &options).map_err(|error| self.shared.rocksdb_error(action, error))
        } else if durability == Durability::Synced {
            // A batch without content is not worth a record in the WAL, but what came before it must be durable.
            self.shared.db.flush_wal(true).map_err(|error| self.shared.rocksdb_error(action, error))
        } else {
            Ok(())
        }
    }

    /// Takes whole files out of the database that hold nothing but what was removed, once that is durable.
    ///
    /// A run that was ingested lies below everything, and its removal is a note of a few bytes above it: that would reach it, by
    /// compactions, when other writes have filled a memtable or the WAL, which takes thousands of large epochs.
    fn drop_removed_files(&mut self) {
        for (space, from, to) in self.removed.drain(..) {
            // The bound is inclusive there: not `to`, or the file that holds the removal itself could be inside.
            let Some(last) = before(&to) else { continue };
            let dropped =
                self.shared.family(space).map(|family| self.shared.db.delete_file_in_range_cf(family, from, last));
            if let Ok(Err(error)) = dropped {
                tracing::warn!(%error, "could not drop files of what was removed; the next removal tries again");
            }
        }
    }
}

/// A key before `to` that no key is known to be between: one less as a number, followed by more than any key has there.
fn before(to: &[u8]) -> Option<Vec<u8>> {
    const BEHIND: [u8; 32] = [0xFF; 32];
    let mut key = to.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            key.extend_from_slice(&BEHIND);
            return Some(key);
        }
    }
    None
}

impl Shared {
    fn family(&self, space: Space) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(space.name()).ok_or_else(|| {
            self.error(StoreErrorKind::Corrupt, "find a key space", format!("the database has no `{}`", space.name()))
        })
    }

    pub(super) fn error(&self, kind: StoreErrorKind, action: &'static str, source: impl Into<BoxError>) -> StoreError {
        StoreError::new(kind, action, &self.directory, source)
    }

    fn rocksdb_error(&self, action: &'static str, error: rocksdb::Error) -> StoreError {
        advised(kind(&error), action, &self.directory, &error)
    }

    /// Writes a run to a file of its own; says whether it has any entries.
    fn write_file(
        &self,
        path: &Path,
        space: Space,
        sorted: &mut dyn Iterator<Item = RunEntry<'_>>,
    ) -> Result<bool, StoreError> {
        let action = "write a sorted run";
        let options = self.options.family(space.name());
        let mut writer = SstFileWriter::create(&options);
        let mut last: Option<Vec<u8>> = None;
        for (key, value) in sorted {
            match &last {
                None => writer.open(path).map_err(|error| self.rocksdb_error(action, error))?,
                Some(last) if *last >= key => return Err(memory::out_of_order(&self.directory)),
                Some(_) => (),
            }
            let put = match value {
                Some(value) => writer.put(&key, value),
                None => writer.delete(&key),
            };
            put.map_err(|error| self.rocksdb_error(action, error))?;
            last = Some(key);
        }
        if last.is_none() {
            return Ok(false);
        }
        writer.finish().map_err(|error| self.rocksdb_error(action, error))?;
        Ok(true)
    }
}

impl StoreRead for Shared {
    fn place(&self) -> &Path {
        &self.directory
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let action = "read";
        let values = self.db.batched_multi_get_cf(self.family(space)?, keys, false);
        let owned = |value: Option<rocksdb::DBPinnableSlice<'_>>| value.map(|value| value.to_vec());
        values.into_iter().map(|value| value.map(owned).map_err(|error| self.rocksdb_error(action, error))).collect()
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let action = "scan";
        if to.is_some_and(|to| from >= to) {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        let mut entries = self.db.raw_iterator_cf_opt(self.family(space)?, options);
        entries.seek(from);
        while let Some((key, value)) = entries.item() {
            if visit(key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            entries.next();
        }
        entries.status().map_err(|error| self.rocksdb_error(action, error))
    }

    fn memory_bytes(&self) -> u64 {
        self.options.memory_bytes()
    }

    fn live_bytes(&self) -> Option<u64> {
        let properties = [LIVE_SST_FILES_SIZE, CUR_SIZE_ALL_MEM_TABLES];
        let read = |(space, property)| self.db.property_int_value_cf(self.family(space).ok()?, property).ok()?;
        Space::ALL.into_iter().flat_map(|space| properties.map(|property| (space, property))).map(read).sum()
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(INGEST_DIR).join(format!("{number}.sst"));
        let content = match self.write_file(&path, space, sorted) {
            Ok(true) => RunContent::File(space, path),
            Ok(false) => RunContent::Empty,
            Err(error) => {
                // Half a file is in nobody's way, but on a full disk its room is wanted.
                let _ = fs::remove_file(&path);
                return Err(error);
            }
        };
        Ok(SortedRun { content })
    }
}

impl StoreRead for RocksDbStore {
    fn place(&self) -> &Path {
        self.shared.place()
    }

    fn multi_get(&self, space: Space, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.check("read")?;
        self.shared.multi_get(space, keys)
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        self.check("scan")?;
        self.shared.scan(space, from, to, visit)
    }

    fn write_run(&self, space: Space, sorted: &mut dyn Iterator<Item = RunEntry<'_>>) -> Result<SortedRun, StoreError> {
        self.check("write a sorted run")?;
        self.shared.write_run(space, sorted)
    }
}

impl Store for RocksDbStore {
    fn write(&mut self, batch: WriteBatch<'_>, durability: Durability) -> Result<(), StoreError> {
        self.change("write a batch", |store| {
            store.write_batch(batch, durability)?;
            if durability == Durability::Synced {
                store.mark_written()?;
                store.drop_removed_files();
            }
            Ok(())
        })
    }

    fn reader(&self) -> Arc<dyn StoreRead> {
        Arc::clone(&self.shared) as _
    }

    fn ingest(&mut self, run: SortedRun) -> Result<(), StoreError> {
        let action = "ingest a sorted run";
        self.change(action, |store| {
            let (space, path) = match run.content {
                RunContent::Empty => return Ok(()),
                RunContent::File(space, path) if path.starts_with(&store.shared.directory) && path.exists() => {
                    (space, path)
                }
                RunContent::File(..) | RunContent::Entries(_) => {
                    return Err(memory::foreign_run(&store.shared.directory));
                }
            };
            store.removed.retain(|(other, ..)| *other != space);
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            let family = store.shared.family(space)?;
            let ingested = store.shared.db.ingest_external_file_cf_opts(family, &options, vec![&path]);
            ingested.map_err(|error| store.shared.rocksdb_error(action, error))?;
            store.mark_written()
        })
    }

    fn set_mark(&mut self, mark: Mark) -> Result<(), StoreError> {
        self.mark.set(mark).map_err(|error| io_error("write the mark", &self.shared.directory, error))
    }

    fn mark(&self) -> Option<Mark> {
        self.mark.get()
    }

    fn checkpoint(&self, path: &Path) -> Result<(), StoreError> {
        let action = "copy the store";
        self.check(action)?;
        if path.exists() {
            let reason = format!("{} exists already", path.display());
            return Err(self.shared.error(StoreErrorKind::Misuse, action, reason));
        }
        let copied = Checkpoint::new(&self.shared.db).and_then(|checkpoint| checkpoint.create_checkpoint(path));
        copied.map_err(|error| self.shared.rocksdb_error(action, error))
    }
}
