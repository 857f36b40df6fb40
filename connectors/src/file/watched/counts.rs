//! What became of the files of a watched directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::source::SkippedLines;

/// A handle on the counts of one watched directory, over all attempts in this process.
#[derive(Clone, Debug, Default)]
pub struct WatchedCounter {
    files: Arc<Counters>,
    pub(super) skipped: SkippedLines,
}

/// What a watched directory has counted in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchedCounts {
    /// Files that were found and listed: all of them are read.
    pub listed: u64,
    /// Files that were read to their end; one that is read again after a failure counts again.
    pub read: u64,
    /// Lines that were left out because they are not UTF-8; [`InvalidText::Skip`](super::super::InvalidText::Skip).
    pub invalid_lines: u64,
    /// Files that were listed and gone before they were read to their end; [`MissingFiles::Skip`](super::MissingFiles::Skip).
    pub missing: u64,
    /// Files that were left out because they are older than `max_file_age` allows.
    pub too_old: u64,
    /// Files that were left out because one of the same name in another directory is known;
    /// [`FileIdentity::Name`](super::FileIdentity::Name).
    pub same_name: u64,
    /// Files that came back changed under a name that was read before, and were left out.
    pub known_name: u64,
    /// Files that were not the same any more when they had been read as when they were listed: somebody writes into the
    /// directory instead of renaming into it, so that lines may be missing or cut.
    pub changed: u64,
    /// Files that were deleted or archived after their epoch.
    pub cleaned: u64,
    /// Files that could not be deleted or archived, and stay.
    pub not_cleaned: u64,
}

#[derive(Debug, Default)]
struct Counters {
    listed: AtomicU64,
    read: AtomicU64,
    missing: AtomicU64,
    too_old: AtomicU64,
    same_name: AtomicU64,
    known_name: AtomicU64,
    changed: AtomicU64,
    cleaned: AtomicU64,
    not_cleaned: AtomicU64,
}

/// What is counted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Listed,
    Read,
    Missing,
    TooOld,
    SameName,
    KnownName,
    Changed,
    Cleaned,
    NotCleaned,
}

impl WatchedCounter {
    /// Returns the counts now.
    pub fn counts(&self) -> WatchedCounts {
        let read = |counted| self.files.of(counted).load(Ordering::Relaxed);
        WatchedCounts {
            listed: read(Counted::Listed),
            read: read(Counted::Read),
            invalid_lines: self.skipped.count(),
            missing: read(Counted::Missing),
            too_old: read(Counted::TooOld),
            same_name: read(Counted::SameName),
            known_name: read(Counted::KnownName),
            changed: read(Counted::Changed),
            cleaned: read(Counted::Cleaned),
            not_cleaned: read(Counted::NotCleaned),
        }
    }

    pub(super) fn add(&self, counted: Counted) {
        self.files.of(counted).fetch_add(1, Ordering::Relaxed);
    }
}

impl Counters {
    fn of(&self, counted: Counted) -> &AtomicU64 {
        match counted {
            Counted::Listed => &self.listed,
            Counted::Read => &self.read,
            Counted::Missing => &self.missing,
            Counted::TooOld => &self.too_old,
            Counted::SameName => &self.same_name,
            Counted::KnownName => &self.known_name,
            Counted::Changed => &self.changed,
            Counted::Cleaned => &self.cleaned,
            Counted::NotCleaned => &self.not_cleaned,
        }
    }
}
