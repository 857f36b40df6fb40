//! The log of one shard's sink: its entries are the commits.

use std::io;
use std::path::{Path, PathBuf};

use millstream_runtime::id::{Attempt, Epoch, ShardId};
use serde::{Deserialize, Serialize};

use super::names::{entry_number, entry_path};

/// The format that this build writes.
const FORMAT: u32 = 1;

/// One entry, a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) format: u32,
    pub(super) pipeline: String,
    pub(super) sink: String,
    pub(super) shard: ShardId,
    pub(super) attempt: Attempt,
    /// Who wrote it: a name that no other opening of the sink has.
    pub(super) instance: String,
    /// The first epoch that is not in: the token.
    pub(super) next: Epoch,
    /// What it commits; an entry without a file says that an instance opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) file: Option<FileEntry>,
}

/// The file that an entry commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    /// Its name in the sink's directory.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
    pub(super) rows: u64,
    pub(super) first: Epoch,
    pub(super) last: Epoch,
}

/// A sink's log cannot be read as one, or a file is not what the log says it is. Nothing was changed. Somebody else
/// changed the directory, or the disk lost something that it had confirmed: restore it, or let the pipeline write
/// elsewhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An entry is missing while a later one is there.
    #[error(
        "the log {} has no entry {number}, but has entry {newest}: one was lost or removed; restore it",
        path.display()
    )]
    Gap {
        /// The log's directory.
        path: PathBuf,
        /// The entry that is missing.
        number: u64,
        /// The newest that is there.
        newest: u64,
    },
    /// An entry is no line of JSON with the fields of one.
    #[error("cannot understand log entry {}; restore it", path.display())]
    Parse {
        /// The entry.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A newer version wrote the entry.
    #[error("log entry {} has format {format}, this build reads up to {FORMAT}; use a newer build", path.display())]
    Newer {
        /// The entry.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// The entries contradict each other.
    #[error("log entry {} contradicts those before it: {what}; two logs were mixed, restore one", path.display())]
    Order {
        /// The entry.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// A committed file is missing or differs from what its entry says.
    #[error("committed file {} is damaged: {what}; restore it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// How.
        what: String,
    },
}

impl Entry {
    /// The first line of what is written; the format is filled in here.
    pub(super) fn to_line(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut line = serde_json::to_vec(&Self { format: FORMAT, ..self.clone() })?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Reads one entry; nothing if there is none of this number.
pub(super) fn read_entry(log_dir: &Path, number: u64) -> Result<Option<Entry>, LogError> {
    /// What every format has, so that a newer one is recognised before its fields are missed.
    #[derive(Deserialize)]
    struct AnyFormat {
        format: u32,
    }
    let path = entry_path(log_dir, number);
    let line = match std::fs::read(&path) {
        Ok(line) => line,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LogError::Io { path, source }),
    };
    let parsed = serde_json::from_slice(&line).and_then(|AnyFormat { format }| match format {
        0..=FORMAT => serde_json::from_slice(&line).map(Ok),
        _ => Ok(Err(format)),
    });
    match parsed {
        Ok(Ok(entry)) => Ok(Some(entry)),
        Ok(Err(format)) => Err(LogError::Newer { path, format }),
        Err(source) => Err(LogError::Parse { path, source }),
    }
}

/// Reads a shard's whole log and checks that it is one: entries from 0 without a gap, epochs that only rise, one
/// pipeline and sink. A log that does not exist yet is empty.
pub(super) fn read_log(log_dir: &Path, shard: ShardId) -> Result<Vec<Entry>, LogError> {
    let io = |source| LogError::Io { path: log_dir.to_owned(), source };
    let mut count = 0;
    match std::fs::read_dir(log_dir) {
        Ok(listed) => {
            for entry in listed {
                let number = entry.map_err(io)?.file_name().to_str().and_then(entry_number);
                count = count.max(number.map_or(0, |number| number + 1));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(error)),
    }
    // Read by number after the listing: whatever the newest listed entry was, all before it are there by now.
    let mut entries: Vec<Entry> = Vec::new();
    for number in 0..count {
        let entry = read_entry(log_dir, number)?.ok_or_else(|| LogError::Gap {
            path: log_dir.to_owned(),
            number,
            newest: count - 1,
        })?;
        check_order(&entry, entries.last(), shard)
            .map_err(|what| LogError::Order { path: entry_path(log_dir, number), what })?;
        entries.push(entry);
    }
    Ok(entries)
}

fn check_order(entry: &Entry, before: Option<&Entry>, shard: ShardId) -> Result<(), String> {
    if entry.shard != shard {
        return Err(format!("it is of shard {}, not {shard}", entry.shard));
    }
    let token = before.map_or(Epoch::GENESIS, |before| before.next);
    let (next, ok) = match &entry.file {
        None => (token, true),
        Some(file) => (file.last.next(), file.first >= token && file.first <= file.last),
    };
    if entry.next != next || !ok {
        return Err(format!("it ends before epoch {}, after one that ended before epoch {token}", entry.next));
    }
    match before {
        Some(before) if (&before.pipeline, &before.sink) != (&entry.pipeline, &entry.sink) => Err(format!(
            "it is of sink {} of pipeline {}, not of sink {} of pipeline {}",
            entry.sink, entry.pipeline, before.sink, before.pipeline
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(next: u64, epochs: Option<(u64, u64)>) -> Entry {
        Entry {
            format: FORMAT,
            pipeline: "sensors".into(),
            sink: "counts".into(),
            shard: ShardId::new(0),
            attempt: Attempt::new(1),
            instance: "ab".into(),
            next: Epoch::new(next),
            file: epochs.map(|(first, last)| FileEntry {
                name: "part".into(),
                bytes: 3,
                crc32: 9,
                rows: 1,
                first: Epoch::new(first),
                last: Epoch::new(last),
            }),
        }
    }

    fn log(entries: &[(u64, Entry)]) -> Result<Vec<Entry>, LogError> {
        let dir = tempfile::tempdir().unwrap();
        for (number, entry) in entries {
            std::fs::write(entry_path(dir.path(), *number), entry.to_line().unwrap()).unwrap();
        }
        std::fs::write(dir.path().join(".000000000009.1-ab.tmp"), "half an ent").unwrap();
        read_log(dir.path(), ShardId::new(0))
    }

    #[test]
    fn reads_what_was_written_and_ignores_what_is_not_whole() {
        let entries = [entry(0, None), entry(5, Some((1, 4))), entry(5, None), entry(9, Some((8, 8)))];
        let numbered: Vec<_> = (0..).zip(entries.clone()).collect();
        assert_eq!(log(&numbered).unwrap(), entries);
        assert_eq!(read_log(Path::new("/nowhere/at/all"), ShardId::new(0)).unwrap(), []);
    }

    #[test]
    fn refuses_logs_that_are_none() {
        let other = Entry { sink: "other".into(), ..entry(0, None) };
        let foreign = Entry { shard: ShardId::new(1), ..entry(0, None) };
        assert!(matches!(
            log(&[(0, entry(0, None)), (2, entry(0, None))]),
            Err(LogError::Gap { number: 1, newest: 2, .. })
        ));
        for wrong in [entry(3, None), entry(9, Some((1, 4))), entry(2, Some((2, 1))), other, foreign] {
            assert!(matches!(log(&[(0, entry(0, None)), (1, wrong)]), Err(LogError::Order { .. })));
        }
        let overlap = [(0, entry(5, Some((1, 4)))), (1, entry(6, Some((4, 5))))];
        assert!(matches!(log(&overlap), Err(LogError::Order { .. })));
    }

    #[test]
    fn names_damaged_and_newer_entries() {
        let dir = tempfile::tempdir().unwrap();
        for (text, newer) in [("{", false), ("{\"format\":1}", false), ("{\"format\":7,\"what\":[]}", true)] {
            std::fs::write(entry_path(dir.path(), 0), text).unwrap();
            let error = read_log(dir.path(), ShardId::new(0)).unwrap_err();
            assert_eq!(matches!(error, LogError::Newer { format: 7, .. }), newer, "{error}");
            assert!(newer || matches!(error, LogError::Parse { .. }), "{error}");
            assert!(error.to_string().contains("000000000000"), "{error}");
        }
    }
}
