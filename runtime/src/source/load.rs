//! How much batches are, by what limits count.

use crate::limits::EpochLimits;
use crate::source::Batch;

/// What batches amount to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    records: u64,
    files: u64,
    bytes: u64,
}

impl Load {
    pub(super) const fn of<T>(batch: &Batch<T>) -> Self {
        Self { records: batch.records.len() as u64, files: batch.files, bytes: batch.bytes }
    }

    pub(super) const fn records(self) -> u64 {
        self.records
    }

    /// Says whether a file ends in it.
    pub(super) const fn ends_file(self) -> bool {
        self.files > 0
    }

    pub(super) const fn plus(self, more: Self) -> Self {
        Self { records: self.records + more.records, files: self.files + more.files, bytes: self.bytes + more.bytes }
    }

    pub(super) const fn minus(self, less: Self) -> Self {
        Self {
            records: self.records.saturating_sub(less.records),
            files: self.files.saturating_sub(less.files),
            bytes: self.bytes.saturating_sub(less.bytes),
        }
    }

    /// Says whether it is more than a limit allows.
    pub(super) fn exceeds(self, limits: EpochLimits) -> bool {
        let above = |count: u64, limit: Option<u64>| limit.is_some_and(|limit| count > limit);
        self.records > limits.records || above(self.files, limits.files) || above(self.bytes, limits.bytes)
    }

    /// Says whether nothing more fits.
    pub(super) fn fills(self, limits: EpochLimits) -> bool {
        let reached = |count: u64, limit: Option<u64>| limit.is_some_and(|limit| count >= limit);
        self.records >= limits.records || reached(self.files, limits.files) || reached(self.bytes, limits.bytes)
    }
}
