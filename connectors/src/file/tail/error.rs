//! What keeps a log from being followed.

use std::io;
use std::path::{Path, PathBuf};

use super::super::error::LinesError;

/// A log cannot be followed, or not go on where it was. The attempt fails; the runtime starts another from the last epoch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TailError {
    /// A line cannot be taken, or the system refused to read.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The log's directory cannot be read, so the log will never appear: most likely a wrong path or a missing right.
    #[error("cannot follow {}: its directory {}", path.display(), remedy(source.kind()))]
    Directory {
        /// The log.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log is not there, and has to be: [`TailLines::must_exist`](super::TailLines::must_exist).
    #[error("cannot follow {}: there is no such file; correct the path, or leave out must_exist to wait for it", path.display())]
    Missing {
        /// The log.
        path: PathBuf,
    },
    /// The path is a directory, a pipe or a device.
    #[error("cannot follow {}: it is {what}", path.display())]
    NoFile {
        /// The log.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// What was read up to the saved place is in no file beside the log any more, so nobody knows what came behind it.
    #[error(
        "cannot go on at byte {offset} of {}: {what}, and no file beside it has what was read so far, so lines may be lost; bring \
         the rotated file back, decompressed, or go on without it by on_data_loss(DataLoss::Continue)",
        path.display()
    )]
    Lost {
        /// The log.
        path: PathBuf,
        /// Where reading was to go on.
        offset: u64,
        /// What seems to have happened.
        what: &'static str,
    },
    /// The file that comes next was compressed before it was read.
    #[error(
        "cannot go on with {}: it was compressed before it was read; decompress it in its place, rotate with delaycompress, or \
         go on without it by on_data_loss(DataLoss::Continue)",
        path.display()
    )]
    Compressed {
        /// The file.
        path: PathBuf,
    },
    /// Somebody renames files all the time, so that no two looks at the directory agree.
    #[error("cannot look for {}: the files beside it are renamed without a pause; is a rotation running wild?", path.display())]
    Restless {
        /// The log.
        path: PathBuf,
    },
    /// The saved position was made by another kind of source under the same name.
    #[error(
        "cannot go on in {}: the saved position {position} is none of a followed log; was this source of another kind? give it a \
         new name",
        path.display()
    )]
    Foreign {
        /// The log.
        path: PathBuf,
        /// The position.
        position: String,
    },
    /// The pause is longer than a reader may wait.
    #[error("a poll_interval of {millis} ms is too long: give at most 50 ms")]
    PollInterval {
        /// What was given.
        millis: u128,
    },
}

impl TailError {
    pub(super) fn directory(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Directory { path: path.to_owned(), source }
    }
}

/// The rest of the sentence, with what to do about it where somebody knows.
fn remedy(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::NotFound => "does not exist; create it, or correct the path",
        io::ErrorKind::NotADirectory => "is a file; correct the path",
        io::ErrorKind::PermissionDenied => "cannot be read; let this process read it",
        _ => "cannot be read",
    }
}
