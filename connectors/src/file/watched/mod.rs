//! Files that appear in a directory while the pipeline runs.
//!
//! The runtime asks for splits once an attempt, and a position has room for a few numbers, so the directory is one split and
//! files have numbers: a durable list, in a store of its own, says which file is which. A file is listed, in a synced write,
//! before a line of it leaves; the position is its number and a byte offset in it.
//!
//! Neither a time nor a name could be the position: a file may be renamed into the directory with an older time, and under
//! a name that sorts before those that were read.

mod clean;
mod counts;
mod directory;
mod error;
mod list;
mod logs;
mod reader;
mod shared;
mod source;

pub use self::clean::CleanSource;
pub use self::counts::{WatchedCounter, WatchedCounts};
pub use self::error::WatchError;
pub use self::list::FileIdentity;
pub use self::reader::MissingFiles;
pub use self::source::WatchedDirectory;

#[cfg(test)]
mod tests;
