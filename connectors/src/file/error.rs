//! What goes wrong with files.

use std::io;
use std::path::{Path, PathBuf};

/// A file source cannot go on. The attempt fails; the runtime starts another from the last epoch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// The operating system refused: most likely a wrong path, a missing right, a failing disk.
    #[error("cannot {action} {}{}", path.display(), remedy(source.kind()))]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that was there when its position was saved, or when the splits were listed, is gone.
    #[error(
        "cannot go on at byte {offset} of {}: the file is gone; restore it, or start the pipeline anew",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// Where reading was to go on.
        offset: u64,
    },
    /// The saved position lies beyond the file's end: it was truncated or replaced.
    #[error(
        "cannot go on at byte {offset} of {}: it has only {length} bytes, so it was replaced or cut off; restore \
         it, or start the pipeline anew",
        path.display()
    )]
    Shorter {
        /// The file.
        path: PathBuf,
        /// Where reading was to go on.
        offset: u64,
        /// How long the file is.
        length: u64,
    },
    /// There is no line end in front of the saved position: the file was replaced, or its unfinished last line went on.
    #[error(
        "cannot go on at byte {offset} of {}: no line ends there, so the file was changed; restore it, or start \
         the pipeline anew",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Where reading was to go on.
        offset: u64,
    },
    /// The saved position was made by another kind of source under the same name.
    #[error(
        "cannot go on in {}: the saved position {position} is no byte offset; was this source of another kind?",
        path.display()
    )]
    ForeignPosition {
        /// The file.
        path: PathBuf,
        /// The position.
        position: String,
    },
    /// A line is not UTF-8 and the policy is to fail.
    #[error(
        "the line at byte {offset} of {} is not UTF-8: {length} bytes, beginning \"{start}\"; convert the file, \
         or skip such lines with invalid_utf8(InvalidText::Skip)",
        path.display()
    )]
    NotText {
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// How long it is.
        length: usize,
        /// Its first 64 bytes, escaped.
        start: String,
    },
    /// A line is longer than allowed; it was not read to its end.
    #[error(
        "the line at byte {offset} of {} is longer than {most} bytes, beginning \"{start}\"; is this a text \
         file? if so, raise max_line_bytes",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Where the line begins.
        offset: u64,
        /// The limit.
        most: usize,
        /// Its first 64 bytes, escaped.
        start: String,
    },
    /// The path has no file name, or one that is not UTF-8 and so cannot be the durable name of a split.
    #[error("cannot use {} as a split: its name is no UTF-8 text; rename it", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The line limit is zero.
    #[error("no line fits into max_line_bytes(0); give at least 1")]
    NoLineFits,
}

/// Makes an error out of what the system said.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LinesError {
    move |source| LinesError::Io { action, path: path.to_owned(), source }
}

/// What to do about it, as the end of the text; empty where nobody knows.
pub(super) fn remedy(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::NotFound => "; create it, or correct the path",
        io::ErrorKind::PermissionDenied => "; let this process read it",
        _ => "",
    }
}
