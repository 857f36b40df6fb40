//! Opening a store: what must be there, what may be mended, what is refused.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rocksdb::{ColumnFamilyDescriptor, DB};

use super::error::{RESTORE, advised, kind, open_kind};
use super::options::StoreOptions;
use super::store::{INGEST_DIR, RocksDbStore, Shared, WRITTEN_FILE};
use crate::state::store::mark_file::MarkFile;
use crate::state::store::{Space, StoreError, StoreErrorKind, lock, memory, probe};

impl RocksDbStore {
    pub(super) fn open(directory: PathBuf, create: bool, memory: u64) -> Result<Self, StoreError> {
        let is_there = |file: &str| directory.join(file).exists();
        if !create && !is_there(WRITTEN_FILE) && !is_there("CURRENT") {
            return Err(memory::missing(&directory));
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
        let mut options = StoreOptions::new(memory);
        options.create(!written && create, !written);
        let open = || {
            let names = [rocksdb::DEFAULT_COLUMN_FAMILY_NAME].into_iter().chain(Space::ALL.map(Space::name));
            let families = names.map(|name| ColumnFamilyDescriptor::new(name, options.family(name)));
            DB::open_cf_descriptors(options.database(), &directory, families)
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
        let shared = Arc::new(Shared { db, _lock: lock, directory, runs: AtomicU64::new(0), options });
        let mut store = Self { shared, mark, written, removed: Vec::new(), failed: None };
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
pub(super) fn sync_ancestors(directory: &Path) -> io::Result<()> {
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
