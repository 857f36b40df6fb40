//! A write-ahead log in front of a source that cannot be read again.
//!
//! The log is a store of its own behind the same door as the state of pipelines: what is atomic, synced, checked and locked
//! there is so here, and there is no further format of files.

mod error;
mod log;
mod shared;
mod source;

pub use self::error::WalError;
pub use self::source::WalSource;
