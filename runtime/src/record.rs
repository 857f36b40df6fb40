//! One value with its event time and the hash of its key.

use crate::time::Timestamp;

/// What flows: one value with its event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// The user's value.
    pub value: T,
    /// Event time; [`Timestamp::MIN`] where none was assigned.
    pub time: Timestamp,
    /// Hash of the record's key, `murmur2(key) & 0x7fff_ffff`. It is computed once, for a whole frame, where the stream is
    /// exchanged by key, and travels with the record.
    ///
    /// In the task of a source, before any exchange, it is 1 + the number of the record's split among those of the subtask, so
    /// that event time can be assigned per split; operators keep it, and 0 means that the split is not known. Otherwise, on a
    /// stream without a key, it means nothing.
    pub hash: u32,
}

impl<T> Record<T> {
    /// Makes a record without event time.
    pub const fn new(value: T) -> Self {
        Self { value, time: Timestamp::MIN, hash: 0 }
    }

    /// Makes a record with an event time.
    pub const fn at(value: T, time: Timestamp) -> Self {
        Self { value, time, hash: 0 }
    }

    /// Replaces the value and keeps time and hash.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Record<U> {
        Record { value: f(self.value), time: self.time, hash: self.hash }
    }
}
