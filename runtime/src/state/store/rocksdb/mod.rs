//! [`RocksDb`]: the default backend. The only folder that names the library.
//!
//! ```text
//! <root>/<pipeline>/<shard>/   RocksDB's own files, and
//!     LOCK.millstream          held by the process that has the store open; its text says who that is
//!     WRITTEN.millstream       there once a write was synced: an empty or missing database beside it is damage
//!     EPOCH.millstream         the mark: what the database has had at least; see `mark_file.rs`
//!     PROBE.millstream*        only while a start tries the directory
//!     ingest/                  sorted runs on their way in; emptied at open, when all tables are there
//! ```

mod error;
mod open;
mod options;
mod store;

use std::path::PathBuf;
use std::sync::Arc;

use self::store::RocksDbStore;
use super::{StateBackend, Store, StoreError, StoreErrorKind};
use crate::id::ShardId;
use crate::state::MemoryShares;

/// Keeps state in RocksDB: one database per pipeline and shard, in `<root>/<pipeline>/<shard>`.
///
/// A pipeline's name is used as the name of a directory, so it has 1 to 64 characters of `a-z A-Z 0-9 _ . -`. The root
/// must be on a local disk whose `fdatasync` tells the truth; everything that is promised after a crash rests on it.
#[derive(Clone, Debug)]
pub struct RocksDb {
    root: PathBuf,
    /// Bytes that a store may take for caches and buffers.
    memory: u64,
}

impl RocksDb {
    /// Keeps all stores under this directory, which is made at the first start.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), memory: MemoryShares::default().store }
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
        Ok(Box::new(RocksDbStore::open(self.directory(pipeline, shard), create, self.memory)?))
    }

    fn within(&self, memory: u64) -> Option<Arc<dyn StateBackend>> {
        Some(Arc::new(Self { memory, ..self.clone() }))
    }

    fn describe(&self, pipeline: &str, shard: ShardId) -> String {
        self.directory(pipeline, shard).display().to_string()
    }
}

fn is_file_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

#[cfg(test)]
mod tests;
