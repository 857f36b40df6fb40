//! [`RocksDb`]: the default backend. The only file that names the library.
//!
//! ```text
//! <root>/<pipeline>/<shard>/   RocksDB's own files, and
//!     LOCK.millstream          held by the process that has the store open; its text says who that is
//!     WRITTEN.millstream       there once a write was synced: an empty or missing database beside it is damage
//!     EPOCH.millstream         the mark: what the database has had at least; see `mark_file.rs`
//!     PROBE.millstream*        only while a start tries the directory
//!     ingest/                  sorted runs on their way in; emptied at open, when all tables are there
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, ErrorKind,
    IngestExternalFileOptions, Options, ReadOptions, SstFileWriter, WriteOptions,
};

use super::lock::{self, io_error};
use super::mark_file::MarkFile;
use super::probe;
use super::{
    Durability, Mark, RunContent, SortedRun, Space, StateBackend, Store, StoreError, StoreErrorKind, StoreRead, Visit,
    WriteBatch, WriteOp,
};
use crate::error::BoxError;
use crate::id::ShardId;

const WRITTEN_FILE: &str = "WRITTEN.millstream";
const INGEST_DIR: &str = "ingest";
const MIB: usize = 1 << 20;
/// What RocksDB adds to an operation in a batch, at most: its kind, the family and two lengths.
const OP_BYTES: usize = 16;
/// What to do about damage.
const RESTORE: &str = "restore the directory from a copy or a kept epoch";

/// Keeps state in RocksDB: one database per pipeline and shard, in `<root>/<pipeline>/<shard>`.
///
/// A pipeline's name is used as the name of a directory, so it has 1 to 64 characters of `a-z A-Z 0-9 _ . -`. The root
/// must be on a local disk whose `fdatasync` tells the truth; everything that is promised after a crash rests on it.
#[derive(Clone, Debug)]
pub struct RocksDb {
    root: PathBuf,
}

impl RocksDb {
    /// Keeps all stores under this directory, which is made at the first start.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn directory(&self, pipeline: &str, shard: ShardId) -> PathBuf {
        self.root.join(pipeline).join(shard.to_string())
    }
}

impl StateBackend for RocksDb {
    fn open(&self, pipeline: &str, shard: ShardId, create: bool) -> Result<Box<dyn Store>, StoreError> {
        if !is_file_name(pipeline) {
            let reason = format!(
                "the pipeline's name {pipeline:?} cannot name a directory; use 1 to 64 characters of a-z A-Z 0-9 _ . -"
            );
            return Err(StoreError::new(StoreErrorKind::Unsupported, "open the store", &self.root, reason));
        }
        Ok(Box::new(RocksDbStore::open(self.directory(pipeline, shard), create)?))
    }

    fn describe(&self, pipeline: &str, shard: ShardId) -> String {
        self.directory(pipeline, shard).display().to_string()
    }
}

fn is_file_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// Every option of a store that differs from RocksDB's defaults or that we rely on; the test below pins them.
///
/// - WAL recovery `TolerateCorruptedTailRecords`: the default, point in time, opens after a flipped bit in the middle of
///   the WAL and silently forgets acknowledged writes; the absolute mode refuses every torn tail after a crash.
/// - No recycled WAL files: their old content makes a torn tail look like damage, or damage like a tail.
/// - Memtables, WAL and open files are bounded, so that neither memory nor the time of recovery grows with the state.
/// - Few big runs are ingested and few epochs are folded at a time, so L0 keeps RocksDB's modest triggers.
/// - Two background threads: the workers own the cores.
fn options() -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_recycle_log_file_num(0);
    options.set_manual_wal_flush(false);
    options.set_paranoid_checks(true);
    options.set_max_total_wal_size(256 * MIB as u64);
    options.set_db_write_buffer_size(128 * MIB);
    options.set_write_buffer_size(32 * MIB);
    options.set_max_write_buffer_number(3);
    options.set_max_open_files(512);
    options.set_level_zero_file_num_compaction_trigger(4);
    options.set_level_zero_slowdown_writes_trigger(20);
    options.set_level_zero_stop_writes_trigger(36);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_max_subcompactions(1);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 * MIB);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);

    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(64 * MIB));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Most look-ups of a key that is not in memory are for a key that does not exist.
    table.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&table);
    options
}

fn write_options(durability: Durability) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(durability == Durability::Synced);
    options.disable_wal(false);
    options
}

#[derive(Debug)]
struct RocksDbStore {
    shared: Arc<Shared>,
    mark: MarkFile,
    /// Whether `WRITTEN.millstream` is there.
    written: bool,
    /// The error that made the handle unusable. RocksDB itself refuses after some errors, not after all.
    failed: Option<StoreErrorKind>,
}

/// What the owner and its readers share.
#[derive(Debug)]
struct Shared {
    // Declared, and so dropped, before the lock: RocksDB closes its files while the store is still ours.
    db: DB,
    _lock: lock::Held,
    directory: PathBuf,
    runs: AtomicU64,
}

impl RocksDbStore {
    fn open(directory: PathBuf, create: bool) -> Result<Self, StoreError> {
        let is_there = |file: &str| directory.join(file).exists();
        if !create && !is_there(WRITTEN_FILE) && !is_there("CURRENT") {
            return Err(super::memory::missing(&directory));
        }
        let io = |error| probe::refused(&directory, error);
        probe::make(&directory)?;
        let lock = lock::take(&directory)?;
        probe::check(&directory)?;
        let mark = MarkFile::open(&directory)?;
        let written = is_there(WRITTEN_FILE);
        if written && !is_there("CURRENT") {
            let reason = format!("it held committed epochs and its file CURRENT is gone; {RESTORE}");
            return Err(StoreError::new(StoreErrorKind::Corrupt, "open the store", &directory, reason));
        }
        let ingest = directory.join(INGEST_DIR);
        let mut options = options();
        options.create_if_missing(!written && create);
        options.create_missing_column_families(!written);
        let open = || {
            let names = [rocksdb::DEFAULT_COLUMN_FAMILY_NAME].into_iter().chain(Space::ALL.map(Space::name));
            let families = names.map(|name| {
                let mut options = options.clone();
                if name == Space::Log.name() {
                    // Deltas are deleted by the next fold: compressing them takes longer than they live.
                    options.set_compression_type(DBCompressionType::None);
                }
                ColumnFamilyDescriptor::new(name, options)
            });
            DB::open_cf_descriptors(&options, &directory, families)
        };
        let mut db = open();
        if let Err(error) = &db
            && let Some(missing) = missing_table(error, &directory)
        {
            db = put_back(&missing, &ingest, open).unwrap_or(db);
        }
        if let Err(error) = &db
            && kind(error) == StoreErrorKind::Full
        {
            // It got past its list of files, so it has them all: what waits beside it only takes up room.
            empty(&ingest).map_err(io)?;
            db = open();
        }
        let db = db.map_err(|error| advised(open_kind(&error), "open the store", &directory, &error))?;
        empty(&ingest).map_err(io)?;
        let shared = Arc::new(Shared { db, _lock: lock, directory, runs: AtomicU64::new(0) });
        let mut store = Self { shared, mark, written, failed: None };
        match (store.is_empty()?, written) {
            (true, true) => {
                // RocksDB opens some damaged files without an error and finds nothing in them.
                let reason = format!("it held committed epochs and is empty now; {RESTORE}");
                return Err(store.shared.error(StoreErrorKind::Corrupt, "open the store", reason));
            }
            (false, false) => store.mark_written()?,
            _ => (),
        }
        Ok(store)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let mut empty = true;
        for space in Space::ALL {
            self.scan(space, &[], None, &mut |_, _| {
                empty = false;
                ControlFlow::Break(())
            })?;
        }
        Ok(empty)
    }

    fn mark_written(&mut self) -> Result<(), StoreError> {
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

    fn write_batch(&self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        let action = "write a batch";
        // Known in advance: a batch of tens of MB that grows copies itself over and over.
        let bytes = batch.bytes() + batch.ops.len() * OP_BYTES;
        let mut native = rocksdb::WriteBatch::with_capacity_bytes(bytes);
        for op in batch.ops {
            match op {
                WriteOp::Put { space, key, value } => native.put_cf(self.shared.family(space)?, key, value),
                WriteOp::Delete { space, key } => native.delete_cf(self.shared.family(space)?, key),
                WriteOp::DeleteRange { space, from, to } if from < to => {
                    native.delete_range_cf(self.shared.family(space)?, from, to);
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
}

impl Shared {
    fn family(&self, space: Space) -> Result<&ColumnFamily, StoreError> {
        self.db.cf_handle(space.name()).ok_or_else(|| {
            self.error(StoreErrorKind::Corrupt, "find a key space", format!("the database has no `{}`", space.name()))
        })
    }

    fn error(&self, kind: StoreErrorKind, action: &'static str, source: impl Into<BoxError>) -> StoreError {
        StoreError::new(kind, action, &self.directory, source)
    }

    fn rocksdb_error(&self, action: &'static str, error: rocksdb::Error) -> StoreError {
        advised(kind(&error), action, &self.directory, &error)
    }

    /// Writes a run to a file of its own; says whether it has any entries.
    fn write_file(
        &self,
        path: &Path,
        sorted: &mut dyn Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<bool, StoreError> {
        let action = "write a sorted run";
        let options = options();
        let mut writer = SstFileWriter::create(&options);
        let mut last: Option<Vec<u8>> = None;
        for (key, value) in sorted {
            match &last {
                None => writer.open(path).map_err(|error| self.rocksdb_error(action, error))?,
                Some(last) if *last >= key => return Err(super::memory::out_of_order(&self.directory)),
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

    fn write_run(
        &self,
        space: Space,
        sorted: &mut dyn Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<SortedRun, StoreError> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(INGEST_DIR).join(format!("{number}.sst"));
        let content = match self.write_file(&path, sorted) {
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

    fn write_run(
        &self,
        space: Space,
        sorted: &mut dyn Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<SortedRun, StoreError> {
        self.check("write a sorted run")?;
        self.shared.write_run(space, sorted)
    }
}

impl Store for RocksDbStore {
    fn write(&mut self, batch: WriteBatch, durability: Durability) -> Result<(), StoreError> {
        self.change("write a batch", |store| {
            store.write_batch(batch, durability)?;
            if durability == Durability::Synced { store.mark_written() } else { Ok(()) }
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
                    return Err(super::memory::foreign_run(&store.shared.directory));
                }
            };
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

/// Removes what is in a directory, and makes it if it is not there.
fn empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir(directory),
    }
}

/// The table that the database lists and does not find, by the text of its error: it has no other way to say so.
fn missing_table(error: &rocksdb::Error, directory: &Path) -> Option<PathBuf> {
    let text = error.as_ref();
    let named = text.contains("No such file").then(|| text.split([' ', ':']).map(Path::new))?;
    let is_table = |path: &&Path| path.parent() == Some(directory) && path.extension().is_some_and(|end| end == "sst");
    named.into_iter().find(|path| is_table(path) && !path.exists()).map(Path::to_owned)
}

/// Tries the runs that wait beside the database in the place of a table that is gone; nothing if none of them is it.
///
/// When the sync of its MANIFEST fails during an ingestion, the database takes the ingestion for failed and removes its own
/// name of the run, although the MANIFEST already lists it. It opens no more then. The run still has its name here, for that is
/// taken away only once the ingestion has succeeded. The database checks each table's size and unique id when it opens, so no other
/// run can pass for it.
fn put_back(
    missing: &Path,
    ingest: &Path,
    open: impl Fn() -> Result<DB, rocksdb::Error>,
) -> Option<Result<DB, rocksdb::Error>> {
    for run in fs::read_dir(ingest).ok()?.filter_map(Result::ok) {
        if fs::hard_link(run.path(), missing).is_err() {
            continue;
        }
        let synced = || File::open(missing.parent()?).ok()?.sync_all().ok();
        if let Ok(db) = open()
            && synced().is_some()
        {
            tracing::warn!(table = %missing.display(), "put a run back that the database listed and had removed");
            return Some(Ok(db));
        }
        let _ = fs::remove_file(missing);
    }
    None
}

/// Makes the names of new directories durable, up to the one that the root stands in.
fn sync_ancestors(directory: &Path) -> io::Result<()> {
    for directory in directory.ancestors().take(4) {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        match File::open(directory) {
            Ok(opened) => opened.sync_all()?,
            // Not ours to read, so not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Adds to what the database says what can be done about it.
fn advised(kind: StoreErrorKind, action: &'static str, directory: &Path, error: &rocksdb::Error) -> StoreError {
    let text = error.as_ref();
    let advice = match kind {
        StoreErrorKind::Corrupt => RESTORE,
        StoreErrorKind::Locked => "another process uses it without this library's lock; stop that first",
        StoreErrorKind::Full => "free some space there; what was committed is intact",
        _ if text.contains("Permission denied") => {
            "its files must belong to the user that runs this process; change their owner with `chown -R`"
        }
        _ => "look after the disk and start again; what was committed is intact as far as the disk has kept it",
    };
    StoreError::new(kind, action, directory, format!("{text}; {advice}"))
}

fn kind(error: &rocksdb::Error) -> StoreErrorKind {
    match error.kind() {
        _ if error.as_ref().contains("No space left") => StoreErrorKind::Full,
        ErrorKind::Corruption => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Io,
    }
}

/// As [`kind`], for what only an open can meet.
fn open_kind(error: &rocksdb::Error) -> StoreErrorKind {
    let text = error.as_ref();
    match error.kind() {
        ErrorKind::IOError if text.contains("lock file") || text.contains("lock hold") => StoreErrorKind::Locked,
        // Files or column families that the database's own lists name are not there.
        ErrorKind::IOError if text.contains("No such file") => StoreErrorKind::Corrupt,
        ErrorKind::InvalidArgument | ErrorKind::NotFound => StoreErrorKind::Corrupt,
        _ => kind(error),
    }
}

#[cfg(test)]
mod tests;
