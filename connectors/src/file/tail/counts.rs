//! What became of a log that is followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::source::SkippedLines;

/// A handle on the counts of one followed log, over all attempts in this process.
#[derive(Clone, Debug, Default)]
pub struct TailCounter {
    counters: Arc<Counters>,
    pub(super) skipped: SkippedLines,
}

/// What a followed log has counted in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TailCounts {
    /// Lines that went into the pipeline; one that is read again after a failure counts again.
    pub lines: u64,
    /// Lines that were left out because they are not UTF-8; [`InvalidText::Skip`](super::super::InvalidText::Skip).
    pub invalid_lines: u64,
    /// How often reading went on in the next file.
    pub rotations: u64,
    /// How often the file was cut off or overwritten in place, and no copy of what was read of it was found: reading
    /// went on at its beginning.
    pub truncations: u64,
    /// Files whose unread lines, if they had any, are lost: they were gone, overwritten or compressed;
    /// [`DataLoss::Continue`](super::DataLoss::Continue).
    pub lost_files: u64,
    /// Last lines without an end in files that were left: nobody can tell a line without its end from the half of one.
    pub partial_lines: u64,
}

#[derive(Debug, Default)]
struct Counters {
    lines: AtomicU64,
    rotations: AtomicU64,
    truncations: AtomicU64,
    lost_files: AtomicU64,
    partial_lines: AtomicU64,
}

/// What is counted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Line,
    Rotation,
    Truncation,
    LostFile,
    PartialLine,
}

impl TailCounter {
    /// Returns the counts now.
    pub fn counts(&self) -> TailCounts {
        let read = |counted| self.counters.of(counted).load(Ordering::Relaxed);
        TailCounts {
            lines: read(Counted::Line),
            invalid_lines: self.skipped.count(),
            rotations: read(Counted::Rotation),
            truncations: read(Counted::Truncation),
            lost_files: read(Counted::LostFile),
            partial_lines: read(Counted::PartialLine),
        }
    }

    pub(super) fn add(&self, counted: Counted, count: u64) {
        self.counters.of(counted).fetch_add(count, Ordering::Relaxed);
    }
}

impl Counters {
    fn of(&self, counted: Counted) -> &AtomicU64 {
        match counted {
            Counted::Line => &self.lines,
            Counted::Rotation => &self.rotations,
            Counted::Truncation => &self.truncations,
            Counted::LostFile => &self.lost_files,
            Counted::PartialLine => &self.partial_lines,
        }
    }
}
