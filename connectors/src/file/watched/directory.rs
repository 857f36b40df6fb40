//! What is in the directory now.

use std::ffi::OsStr;
use std::fs::{DirEntry, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use glob::{MatchOptions, Pattern};
use millstream_runtime::time::Timestamp;

use super::error::WatchError;
use super::logs::SinkLogs;

/// The log of Spark's file sink.
const SPARK_LOG: &str = "_spark_metadata";

/// A dot at the beginning is matched by nothing, since such names are hidden anyway.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Where files are looked for.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    /// One pattern for each level of directories between the root and the files.
    levels: Vec<Pattern>,
    /// A file's name has to match one of them, if there are any.
    names: Vec<Pattern>,
    logs: SinkLogs,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Below the root, with `/` between the parts.
    pub(super) path: String,
    pub(super) stamp: Stamp,
}

/// How a file that was changed is told from one that was not. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    /// When it was modified.
    pub(super) time: Timestamp,
    pub(super) bytes: u64,
}

impl Directory {
    /// Reads the patterns of both options.
    pub(super) fn new(root: &Path, directories: Option<&str>, files: &[String]) -> Result<Self, WatchError> {
        let levels = directories.into_iter().flat_map(|pattern| pattern.split('/'));
        Ok(Self {
            root: root.to_owned(),
            levels: levels.map(|level| compile("directories", level)).collect::<Result<_, _>>()?,
            names: files.iter().map(|name| compile("files", name)).collect::<Result<_, _>>()?,
            logs: SinkLogs::default(),
        })
    }

    /// Refuses a directory that is not there or is none.
    pub(super) fn check(&self) -> Result<(), WatchError> {
        std::fs::read_dir(&self.root).map(drop).map_err(unlisted(&self.root))
    }

    /// Returns the files that are there, are committed where a sink writes them, and of which `wanted` says so, in no order. It
    /// is asked once for the path of each.
    pub(super) fn list(&mut self, wanted: &mut dyn FnMut(&str) -> bool) -> Result<Vec<Found>, WatchError> {
        let mut found = Vec::new();
        let mut open = vec![(0, String::new())];
        while let Some((depth, prefix)) = open.pop() {
            let dir = self.root.join(&prefix);
            // Before the listing: a file that its log names is there.
            let is_last = depth == self.levels.len();
            let committed = if is_last { self.logs.committed(&dir)? } else { None };
            let entries = match std::fs::read_dir(&dir) {
                // Between the listing of the one above it and now.
                Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(unlisted(&dir))?,
            };
            for entry in entries {
                let entry = entry.map_err(unlisted(&dir))?;
                let file_name = entry.file_name();
                if is_last && file_name == SPARK_LOG {
                    return Err(WatchError::SparkSink { path: dir });
                }
                let patterns = self.levels.get(depth).map_or(self.names.as_slice(), std::slice::from_ref);
                let Some(name) = visible(patterns, &dir, &file_name)? else { continue };
                let path = format!("{prefix}{name}");
                if !is_last {
                    if is_directory(&entry)? {
                        open.push((depth + 1, format!("{path}/")));
                    }
                } else if committed.is_none_or(|committed| committed.contains(&name))
                    && !entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && wanted(&path)
                    && let Some(stamp) = stamp(&self.root, &path)?
                {
                    found.push(Found { path, stamp });
                }
            }
        }
        Ok(found)
    }

    /// Returns a directory that a file sink writes into, if any was found.
    pub(super) fn of_a_sink(&self) -> Option<&Path> {
        self.logs.any()
    }

    /// Returns a file's stamp; nothing if it is not there, or is a pipe, a socket, a device.
    pub(super) fn stamp(&self, path: &str) -> Result<Option<Stamp>, WatchError> {
        stamp(&self.root, path)
    }
}

fn stamp(root: &Path, path: &str) -> Result<Option<Stamp>, WatchError> {
    let path = root.join(path);
    let of = |metadata: &Metadata| {
        let time = match metadata.modified()?.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp::from_micros(0).saturating_add(after),
            Err(before) => Timestamp::from_micros(0).saturating_sub(before.duration()),
        };
        Ok(Stamp { time, bytes: metadata.len() })
    };
    match std::fs::metadata(&path) {
        Ok(metadata) if !metadata.is_file() => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        metadata => match metadata.and_then(|metadata| of(&metadata)) {
            Ok(stamp) => Ok(Some(stamp)),
            Err(source) => Err(WatchError::File { path, source }),
        },
    }
}

/// Returns a name that is not hidden and that one of the patterns matches, if there are any.
fn visible(patterns: &[Pattern], dir: &Path, name: &OsStr) -> Result<Option<String>, WatchError> {
    if name.as_encoded_bytes().first().is_none_or(|first| matches!(first, b'.' | b'_')) {
        return Ok(None);
    }
    let lossy = name.to_string_lossy();
    if !patterns.is_empty() && !patterns.iter().any(|pattern| pattern.matches_with(&lossy, MATCH)) {
        return Ok(None);
    }
    match name.to_str() {
        Some(name) => Ok(Some(name.to_owned())),
        None => Err(WatchError::NoName { path: dir.join(name) }),
    }
}

fn unlisted(path: &Path) -> impl FnOnce(io::Error) -> WatchError {
    move |source| WatchError::Directory { path: path.to_owned(), source }
}

/// Follows links: the patterns say how deep it goes, so there is no circle.
fn is_directory(entry: &DirEntry) -> Result<bool, WatchError> {
    match std::fs::metadata(entry.path()) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(WatchError::File { path: entry.path(), source }),
    }
}

fn compile(option: &'static str, pattern: &str) -> Result<Pattern, WatchError> {
    let refuse = |why: &str| WatchError::Pattern { option, pattern: pattern.to_owned(), why: why.to_owned() };
    match pattern {
        "" => return Err(refuse("it is empty; * matches any name")),
        "." | ".." => return Err(refuse("it is no name of something in the directory")),
        "**" => return Err(refuse("directories are not searched to any depth; give one * for each level")),
        name if name.contains('/') => return Err(refuse("a name has no /; directories(..) says where files are")),
        name if name.starts_with(['.', '_']) => {
            return Err(refuse("names that begin with . or _ are hidden and never read"));
        }
        _ => {}
    }
    Pattern::new(pattern).map_err(|error| refuse(&error.to_string()))
}

/// How much older than the newest file another may be.
pub(super) fn oldest(newest: Option<Timestamp>, max_age: Duration) -> Timestamp {
    newest.map_or(Timestamp::MIN, |newest| newest.saturating_sub(max_age))
}
