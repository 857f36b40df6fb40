//! Records that leave an operator another way than its output: dropped on purpose, or handed to the dead letters. Each is counted.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::canary::{Canary, planted};

/// Why a record is dropped on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// Its event time was not above the operator's watermark.
    Late,
    /// Some of its windows had been closed; it is in the others.
    LateInPart,
    /// It belongs to no window: it has no event time, or a session gap of zero.
    NoWindow,
    /// One with the same key had come before.
    Duplicate,
    /// It went to a side output that nothing reads.
    UnreadSide,
    /// User code returned an error for it, and it was to be skipped.
    Skipped,
    /// User code panicked on it in two attempts, and is not given it again.
    Quarantined,
}

impl DropReason {
    /// Its name as a label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::LateInPart => "late_in_part",
            Self::NoWindow => "no_window",
            Self::Duplicate => "duplicate",
            Self::UnreadSide => "unread_side",
            Self::Skipped => "skipped",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Late => "late",
            Self::LateInPart => "late for some windows",
            Self::NoWindow => "in no window",
            Self::Duplicate => "duplicate",
            Self::UnreadSide => "unread side output",
            Self::Skipped => "skipped",
            Self::Quarantined => "quarantined",
        })
    }
}

/// What brought a record to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeadLetterKind {
    /// User code returned an error for it.
    Error,
    /// User code panicked on it in two attempts, and is not given it again.
    Quarantined,
}

impl DeadLetterKind {
    /// Its name as a label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Quarantined => "quarantined",
        }
    }
}

/// How many records an operator dropped for one reason, in one subtask since its attempt began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// The operator.
    pub operator: Arc<str>,
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub records: u64,
}

/// How many records an operator handed to the dead letters, in one subtask since its attempt began.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetters {
    /// The operator.
    pub operator: Arc<str>,
    /// What brought them there.
    pub kind: DeadLetterKind,
    /// How many.
    pub records: u64,
}

/// Counts the records of one operator that go one such way. One writer.
#[derive(Clone, Debug)]
struct Diverted<W> {
    operator: Arc<str>,
    way: W,
    records: Arc<AtomicU64>,
}

impl<W: Copy> Diverted<W> {
    fn new(operator: &str, way: W) -> Self {
        Self { operator: operator.into(), way, records: Arc::default() }
    }

    fn count(&self, records: u64) {
        // One writer: a load and a store are cheaper than an atomic addition.
        self.records.store(self.read() + records, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

/// Counts what an operator drops for one reason. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct DropCounter(Diverted<DropReason>);

impl DropCounter {
    pub(super) fn new(operator: &str, reason: DropReason) -> Self {
        Self(Diverted::new(operator, reason))
    }

    /// Counts records. Only the subtask's own thread may.
    pub fn count(&self, records: u64) {
        if self.0.way == DropReason::Late && planted(Canary::LateDroppedUncounted) {
            return;
        }
        self.0.count(records);
    }

    pub(super) fn read(&self) -> Dropped {
        Dropped { operator: Arc::clone(&self.0.operator), reason: self.0.way, records: self.0.read() }
    }
}

/// Counts what an operator hands to the dead letters. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct DeadLetterCounter(Diverted<DeadLetterKind>);

impl DeadLetterCounter {
    pub(super) fn new(operator: &str, kind: DeadLetterKind) -> Self {
        Self(Diverted::new(operator, kind))
    }

    /// Counts records. Only the subtask's own thread may.
    pub fn count(&self, records: u64) {
        self.0.count(records);
    }

    pub(super) fn read(&self) -> DeadLetters {
        DeadLetters { operator: Arc::clone(&self.0.operator), kind: self.0.way, records: self.0.read() }
    }
}
