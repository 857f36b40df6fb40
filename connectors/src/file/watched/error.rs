//! What keeps a directory from being watched.

use std::io;
use std::path::PathBuf;

use millstream_runtime::state::store::StoreError;

use super::super::log::LogError;

/// A watched directory cannot be read, or its list of files does not fit the pipeline. The attempt fails; the runtime starts
/// another from the last epoch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The directory cannot be listed: most likely a wrong path or a missing right.
    #[error("cannot watch {}{}", path.display(), remedy(source.kind()))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file in the directory cannot be looked at.
    #[error("cannot read {}{}", path.display(), remedy(source.kind()))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has a name that is no text, and so none that can be kept in the list.
    #[error("cannot read {}: its name is no UTF-8 text; rename it", path.display())]
    NoName {
        /// The file.
        path: PathBuf,
    },
    /// The directory is the output of Spark's file sink, whose log is not understood here.
    #[error(
        "cannot watch {}: it is the output of Spark's file sink, whose log in _spark_metadata says which files count, and that \
         is not understood here; let it write elsewhere and rename finished files into a directory to watch",
        path.display()
    )]
    SparkSink {
        /// The directory.
        path: PathBuf,
    },
    /// The files are not this pipeline's to take away: a file sink writes them, and its log names them.
    #[error(
        "cannot delete or archive files in {}: a file sink writes them, and its log names them; leave clean_source off",
        path.display()
    )]
    SinkOutput {
        /// The directory.
        path: PathBuf,
    },
    /// The log of the file sink that writes into the directory cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A listed file was gone before it was read to its end.
    #[error(
        "cannot go on at byte {offset} of {}: the file was listed and is gone; restore it, or leave such files out with \
         missing_files(MissingFiles::Skip)",
        path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// Where reading was to go on.
        offset: u64,
    },
    /// The store of the list failed. What is in the list stays there, and the rest is found again.
    #[error("cannot use the list of files {name} at {place}")]
    List {
        /// The list.
        name: String,
        /// Where its store is.
        place: String,
        /// What the store said.
        source: StoreError,
    },
    /// The list's content is damaged, or was not written by this library.
    #[error(
        "the list of files {name} is damaged: {what}; is it really a list of files, and not the state of a pipeline or a \
         write-ahead log of that name?"
    )]
    Damaged {
        /// The list.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// The pipeline goes on before a file that is not in the list any more: its state is older, or is gone.
    #[error(
        "cannot go on with file {wanted}: the list of files {name} has forgotten it, since it was committed, is gone from the \
         directory and is older than max_file_age. Start from the newest state of this pipeline, or give the list another \
         name to read all files that are there as new ones"
    )]
    Forgotten {
        /// The list.
        name: String,
        /// The file that the pipeline wants.
        wanted: u64,
    },
    /// The pipeline goes on behind the last file of the list: the list is another one, or was deleted.
    #[error(
        "cannot go on with file {wanted}: the list of files {name} ends before file {next}; is this the list that the \
         pipeline had? bring it back, or give list and source new names to read all files that are there as new ones"
    )]
    Behind {
        /// The list.
        name: String,
        /// The file that the pipeline wants.
        wanted: u64,
        /// The next one of the list.
        next: u64,
    },
    /// The saved split or position is none of a watched directory: the source was another one before.
    #[error(
        "cannot go on in split {split} at {position}: it is none of a watched directory; was this source of another kind? \
         give it a new name"
    )]
    Foreign {
        /// The split.
        split: String,
        /// The position.
        position: String,
    },
    /// A pattern is none, or cannot mean what it says.
    #[error("\"{pattern}\" is no pattern for {option}: {why}")]
    Pattern {
        /// The option.
        option: &'static str,
        /// What was given.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// An option is zero that must not be.
    #[error("{option} is 0; give at least {least}")]
    Zero {
        /// The option.
        option: &'static str,
        /// The least it may be.
        least: &'static str,
    },
    /// Archived files would be found and read again.
    #[error(
        "cannot archive to {}: it lies in the watched directory {}, where archived files would be found again; choose a \
         directory outside, or one whose name begins with . or _",
        archive.display(), path.display()
    )]
    Archive {
        /// Where files were to go.
        archive: PathBuf,
        /// What is watched.
        path: PathBuf,
    },
}

/// What to do about it, as the end of the text; empty where nobody knows.
fn remedy(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::NotADirectory => "; it is a file: name its directory, and the file with files([\"its name\"])",
        error => super::super::error::remedy(error),
    }
}
