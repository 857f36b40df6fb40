//! Steps that are durable or did not happen, and what a failure says about which.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use millstream_runtime::sink::SinkErrorKind;

use super::names::metadata_dir;

/// An operation that failed, and what that says about the commit.
pub(super) enum Failure {
    /// It did not happen.
    Not { action: &'static str, path: PathBuf, source: io::Error },
    /// The name was taken.
    Taken { path: PathBuf },
    /// It may have happened.
    Maybe { path: PathBuf, source: io::Error },
}

impl Failure {
    pub(super) fn into_maybe(self) -> Self {
        match self {
            Self::Not { path, source, .. } => Self::Maybe { path, source },
            other => other,
        }
    }
}

/// Full disks are waited out; anything else does not mend itself by another try.
pub(super) fn kind_of(error: &io::Error) -> SinkErrorKind {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SinkErrorKind::Retry,
        _ => SinkErrorKind::Fatal,
    }
}

/// What to do about an error, as the end of its text; empty where nobody knows.
pub(super) const fn remedy(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; there is a file where a directory has to be: move it away, or choose another directory"
        }
        io::ErrorKind::PermissionDenied => "; let this process write there, or choose another directory",
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system for writing, or choose another directory",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space there, it is tried again",
        _ => "",
    }
}

pub(super) fn not(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::Not { action, path: path.to_owned(), source }
}

/// Creates the directories and makes them durable. Repeats the syncs each time: an earlier life may have died before
/// them.
pub(super) fn create_dirs(dir: &Path, log_dir: &Path) -> Result<(), Failure> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    std::fs::create_dir_all(log_dir).map_err(not("create", log_dir))?;
    for created in missing {
        match created.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
            _ => sync_dir(Path::new("."))?,
        }
    }
    sync_dir(dir)?;
    sync_dir(&metadata_dir(dir))?;
    sync_dir(log_dir)
}

/// Makes a directory's names durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Failure> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(not("sync", dir))
}
