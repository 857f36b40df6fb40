//! What the library's errors mean, and what can be done about them.

use std::path::Path;

use rocksdb::ErrorKind;

use crate::state::store::{StoreError, StoreErrorKind};

/// What to do about damage.
pub(super) const RESTORE: &str = "restore the directory from a copy or a kept epoch";

/// Adds to what the database says what can be done about it.
pub(super) fn advised(
    kind: StoreErrorKind,
    action: &'static str,
    directory: &Path,
    error: &rocksdb::Error,
) -> StoreError {
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

pub(super) fn kind(error: &rocksdb::Error) -> StoreErrorKind {
    match error.kind() {
        _ if error.as_ref().contains("No space left") => StoreErrorKind::Full,
        ErrorKind::Corruption => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Io,
    }
}

/// As [`kind`], for what only an open can meet.
pub(super) fn open_kind(error: &rocksdb::Error) -> StoreErrorKind {
    let text = error.as_ref();
    match error.kind() {
        ErrorKind::IOError if text.contains("lock file") || text.contains("lock hold") => StoreErrorKind::Locked,
        // Files or column families that the database's own lists name are not there.
        ErrorKind::IOError if text.contains("No such file") => StoreErrorKind::Corrupt,
        ErrorKind::InvalidArgument | ErrorKind::NotFound => StoreErrorKind::Corrupt,
        _ => kind(error),
    }
}
