//! Records that user code panics on, and how the next attempt knows them again.

use std::sync::Arc;

use crate::id::Epoch;
use crate::time::Timestamp;

/// What a record is known by where its position in the source is not known: the same operator gets the same bytes with the same
/// event time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Poison {
    /// The operator whose code panicked on it.
    pub operator: Arc<str>,
    /// Its event time.
    pub time: Timestamp,
    /// The record, encoded.
    pub bytes: Vec<u8>,
}

impl Poison {
    /// Names a record.
    pub const fn new(operator: Arc<str>, time: Timestamp, bytes: Vec<u8>) -> Self {
        Self { operator, time, bytes }
    }
}

/// The error of an operator whose code panicked on a record that it can name.
#[derive(Debug, thiserror::Error)]
#[error("it panicked: {message}")]
pub struct Poisoned {
    /// The record.
    pub record: Poison,
    /// The panic's message.
    pub message: String,
}

/// A record in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quarantined {
    /// The record.
    pub record: Poison,
    /// The epoch in which it failed for the second time.
    pub epoch: Epoch,
    /// The message of its second panic.
    pub message: String,
}
