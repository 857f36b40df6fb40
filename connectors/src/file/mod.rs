//! Files: lines as a replayable source, also of a watched directory or of a log that grows, committed files as an exactly-once sink.
//!
//! What the sink puts into its directory:
//!
//! ```text
//! part-0000-000000000001-000000000107.txt     rows of epochs 1 to 107 of shard 0
//! _metadata/0000/000000000000                 log of shard 0: an instance of the sink opened
//! _metadata/0000/000000000001                 log of shard 0: the file above is committed
//! ```
//!
//! **The log alone says what counts.** Each entry is one line of JSON, written whole or not at all and never changed;
//! a part file that no entry names is a leftover and will be removed. Readers that list part files by themselves may
//! see such leftovers; [`read_committed`] does not.
//!
//! Each opening of the sink appends an entry too. That shuts out whoever opened before: entries are created under the
//! next number and never replaced, so an older instance finds its number taken, by a name that is not its own, and
//! stops.

mod committed;
mod connector;
mod durable;
mod error;
mod line;
mod log;
mod names;
mod reader;
mod sink;
mod source;
#[cfg(unix)]
mod tail;
mod tree;
mod watched;

pub use self::committed::{CommittedFile, read_committed};
pub use self::error::LinesError;
pub use self::log::LogError;
pub use self::sink::{FileSink, RecordFile};
pub use self::source::{InvalidText, Lines, SkippedLines};
#[cfg(unix)]
pub use self::tail::{DataLoss, TailCounter, TailCounts, TailError, TailLines, TailStart};
pub use self::watched::{
    CleanSource, FileIdentity, MissingFiles, WatchError, WatchedCounter, WatchedCounts, WatchedDirectory,
};
