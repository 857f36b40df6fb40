//! Watched directories that are the output of a file sink: only what its log names is committed, and counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use millstream_runtime::id::ShardId;

use super::super::log::{LogError, read_entry, read_log};
use super::super::names::{log_shard, metadata_dir};

/// What the logs say so far; each is read once and read on from there.
#[derive(Debug, Default)]
pub(super) struct SinkLogs(HashMap<PathBuf, SinkLog>);

#[derive(Debug, Default)]
struct SinkLog {
    /// The next entry of each shard.
    next: BTreeMap<ShardId, u64>,
    committed: HashSet<String>,
}

impl SinkLogs {
    /// Returns the names of all committed files of the sink that writes into `dir`; nothing if no sink does.
    pub(super) fn committed(&mut self, dir: &Path) -> Result<Option<&HashSet<String>>, LogError> {
        let metadata = metadata_dir(dir);
        let unread = |source| LogError::Io { path: metadata.clone(), source };
        let shards = match std::fs::read_dir(&metadata) {
            // Others have files of that name.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            shards => shards.map_err(unread)?,
        };
        let log = self.0.entry(dir.to_owned()).or_default();
        for shard in shards {
            let path = shard.map_err(unread)?.path();
            if let Some(shard) = path.file_name().and_then(|name| name.to_str()).and_then(log_shard) {
                log.read_on(shard, &path)?;
            }
        }
        Ok((!log.next.is_empty()).then_some(&log.committed))
    }

    /// Returns a directory that a sink writes into, if there is any.
    pub(super) fn any(&self) -> Option<&Path> {
        self.0.iter().find_map(|(dir, log)| (!log.next.is_empty()).then_some(dir.as_path()))
    }
}

impl SinkLog {
    fn read_on(&mut self, shard: ShardId, log_dir: &Path) -> Result<(), LogError> {
        let next = self.next.entry(shard).or_default();
        if *next == 0 {
            let entries = read_log(log_dir, shard)?;
            *next = entries.len() as u64;
            self.committed.extend(entries.into_iter().filter_map(|entry| Some(entry.file?.name)));
        }
        while let Some(entry) = read_entry(log_dir, *next)? {
            *next += 1;
            self.committed.extend(entry.file.map(|file| file.name));
        }
        Ok(())
    }
}
