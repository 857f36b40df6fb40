//! What a file sink has committed, for users and for tests.

use std::path::{Path, PathBuf};

use millstream_runtime::codec;
use millstream_runtime::error::BoxError;
use millstream_runtime::id::{Epoch, ShardId};
use serde::de::DeserializeOwned;

use super::log::{Entry, LogError, read_log};
use super::names::{log_shard, metadata_dir};
use crate::codec::split_values;

/// One committed file of a [`FileSink`](super::FileSink) or [`RecordFile`](super::RecordFile). It will not change any
/// more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedFile {
    /// Where it is.
    pub path: PathBuf,
    /// The shard that wrote it.
    pub shard: ShardId,
    /// The first epoch with rows in it.
    pub first: Epoch,
    /// The last epoch with rows in it, inclusive.
    pub last: Epoch,
    /// How many rows it has.
    pub rows: u64,
    /// How long it is.
    pub bytes: u64,
    crc32: u32,
}

/// Lists what the sink below `dir` has committed: shard by shard, each in the order of its epochs. A sink that never
/// opened has committed nothing.
///
/// Looks only at the log. May be called while the sink works; it then sees what is committed at that moment.
///
/// # Errors
/// [`LogError`] when the directory is not there, or the log is damaged, or a committed file is missing or has another
/// length.
pub fn read_committed(dir: impl AsRef<Path>) -> Result<Vec<CommittedFile>, LogError> {
    let dir = dir.as_ref();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| LogError::Io { path, source }
    };
    std::fs::read_dir(dir).map_err(io(dir))?;
    let metadata = metadata_dir(dir);
    let mut shards = Vec::new();
    if metadata.try_exists().map_err(io(&metadata))? {
        for entry in std::fs::read_dir(&metadata).map_err(io(&metadata))? {
            let path = entry.map_err(io(&metadata))?.path();
            shards
                .extend(path.file_name().and_then(|name| name.to_str()).and_then(log_shard).map(|shard| (shard, path)));
        }
    }
    shards.sort();
    let mut files = Vec::new();
    for (shard, log_dir) in shards {
        for entry in read_log(&log_dir, shard)? {
            files.extend(CommittedFile::check(dir, entry)?);
        }
    }
    Ok(files)
}

impl CommittedFile {
    pub(super) fn check(dir: &Path, entry: Entry) -> Result<Option<Self>, LogError> {
        let Some(file) = entry.file else { return Ok(None) };
        let path = dir.join(&file.name);
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LogError::File { path, what: "it is missing".into() });
            }
            Err(source) => return Err(LogError::Io { path, source }),
        };
        if length != file.bytes {
            let what = format!("it has {length} bytes, the log says {}", file.bytes);
            return Err(LogError::File { path, what });
        }
        let (shard, rows, crc32) = (entry.shard, file.rows, file.crc32);
        Ok(Some(Self { path, shard, first: file.first, last: file.last, rows, bytes: file.bytes, crc32 }))
    }

    /// Reads its bytes and compares them with the checksum in the log.
    ///
    /// # Errors
    /// [`LogError`] when it cannot be read or is not what was committed.
    pub fn content(&self) -> Result<Vec<u8>, LogError> {
        let path = || self.path.clone();
        let content = std::fs::read(&self.path).map_err(|source| LogError::Io { path: path(), source })?;
        if crc32fast::hash(&content) != self.crc32 {
            return Err(LogError::File { path: path(), what: "its checksum differs from the log's".into() });
        }
        Ok(content)
    }

    /// Reads its rows as text lines, as [`FileSink`](super::FileSink) writes them.
    ///
    /// # Errors
    /// [`LogError`] when it cannot be read or is not what was committed, or is no text of that many lines.
    pub fn lines(&self) -> Result<Vec<String>, LogError> {
        let wrong = |what: String| LogError::File { path: self.path.clone(), what };
        let text = String::from_utf8(self.content()?).map_err(|_| wrong("it is not UTF-8 text".into()))?;
        let lines: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
        self.counted(lines)
    }

    /// Reads its rows as MessagePack values, as [`RecordFile`](super::RecordFile) writes them.
    ///
    /// # Errors
    /// [`LogError`] when it cannot be read or is not what was committed; what the decoder says when a row is no `T`.
    pub fn values<T: DeserializeOwned>(&self) -> Result<Vec<T>, BoxError> {
        let content = self.content()?;
        let rows = split_values(&content)?.into_iter().map(codec::decode).collect::<Result<Vec<T>, _>>()?;
        Ok(self.counted(rows)?)
    }

    fn counted<T>(&self, rows: Vec<T>) -> Result<Vec<T>, LogError> {
        if rows.len() as u64 == self.rows {
            return Ok(rows);
        }
        let what = format!("it has {} rows, the log says {}", rows.len(), self.rows);
        Err(LogError::File { path: self.path.clone(), what })
    }
}
