//! Follows a log file while it grows, as `tail -F` does, and remembers the place.
//!
//! Nobody tells a reader of a log that it was rotated: it sees files, their names, inodes and bytes. What it goes by:
//!
//! - **Which file it is** is decided by what was read of it: a checksum of its first 256 bytes and of the last 256 before the
//!   place ([`fingerprint`]). The inode only says where to look first: inodes are used again as soon as a file is gone.
//! - **Which file is next** is decided by names: `.1` behind the log's name, or a date ([`names`]). Only such files count; a copy
//!   that somebody made is nobody's successor.
//! - **The file before** stays open until the one after it is left too: a writer that has not noticed the rotation goes on
//!   writing there.
//!
//! All of it is found out by looking, so nothing here depends on time, and a test needs none.

mod beside;
mod counts;
mod error;
mod fingerprint;
mod followed;
mod names;
mod place;
mod reader;
mod source;
#[cfg(test)]
mod tests;

pub use self::counts::{TailCounter, TailCounts};
pub use self::error::TailError;
pub use self::source::{DataLoss, TailLines, TailStart};
