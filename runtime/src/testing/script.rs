//! The script of a [`check`](super::check): what is read, and where it is cut.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::BoxError;
use crate::position::{Position, SplitId};
use crate::record::Record;
use crate::source::{Batch, Polled, Reader, Source};
use crate::time::Timestamp;
use crate::watermark::WatermarkStrategy;

/// The scripted input of a [`check`](super::check): a source of one split.
#[derive(Debug)]
pub struct ScriptSource<T> {
    pub(super) records: Arc<Vec<(T, Timestamp)>>,
    /// Records per batch.
    pub(super) batch: usize,
    /// Records that are read before the job is stopped and started again.
    pub(super) per_life: usize,
    /// Batches end behind these records at the latest, by their indices.
    pub(super) cuts: Arc<BTreeSet<usize>>,
    /// Polls of a new reader that find nothing, so that all other subtasks have said what they have to say.
    pub(super) warm_up: u32,
    /// Set when a reader that has handed out all of its life is asked again.
    pub(super) used_up: Arc<AtomicBool>,
}

// Not derived: the records are shared.
impl<T> Clone for ScriptSource<T> {
    fn clone(&self) -> Self {
        let (records, cuts) = (Arc::clone(&self.records), Arc::clone(&self.cuts));
        Self { records, cuts, used_up: Arc::clone(&self.used_up), ..*self }
    }
}

impl<T> Default for ScriptSource<T> {
    fn default() -> Self {
        let (records, cuts) = (Arc::default(), Arc::default());
        Self { records, batch: 1, per_life: usize::MAX, cuts, warm_up: 0, used_up: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Source for ScriptSource<T> {
    type Out = T;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("script")])
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<T>>, BoxError> {
        let next = from.and_then(Position::as_u64).unwrap_or(0);
        let (left, warm_up) = (self.per_life, self.warm_up);
        Ok(Box::new(ScriptReader { source: self.clone(), next: usize::try_from(next)?, left, warm_up }))
    }
}

struct ScriptReader<T> {
    source: ScriptSource<T>,
    next: usize,
    left: usize,
    warm_up: u32,
}

impl<T: Clone + Send + Sync + 'static> Reader<T> for ScriptReader<T> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        let records = &self.source.records;
        batch.end = Position::from_u64(self.next as u64);
        if self.warm_up > 0 {
            self.warm_up -= 1;
            return Ok(Polled::Idle);
        }
        if self.left == 0 {
            self.source.used_up.store(true, Ordering::Relaxed);
        }
        let to_cut = self.source.cuts.range(self.next..).next().map_or(usize::MAX, |cut| cut + 1 - self.next);
        let count = self.source.batch.min(limit).min(self.left).min(records.len() - self.next).min(to_cut);
        let taken = records.iter().skip(self.next).take(count);
        batch.records.extend(taken.map(|(value, time)| Record::at(value.clone(), *time)));
        self.next += count;
        self.left -= count;
        batch.end = Position::from_u64(self.next as u64);
        Ok(if self.next == records.len() {
            Polled::End
        } else if count == 0 {
            Polled::Idle
        } else {
            Polled::More
        })
    }
}

/// One step of a script that says its own watermarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// A record with its event time.
    Record(T, Timestamp),
    /// Nothing ≤ this follows.
    Watermark(Timestamp),
}

impl<T: Send + Sync + 'static> Step<T> {
    /// The step's event time; none for a watermark.
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Record(_, time) => *time,
            Self::Watermark(_) => Timestamp::MIN,
        }
    }

    /// What makes watermarks of the steps that are one, however far ahead.
    pub fn strategy() -> WatermarkStrategy<Self> {
        let mark = |step: &Self| match step {
            Self::Record(..) => None,
            Self::Watermark(time) => Some(*time),
        };
        WatermarkStrategy::punctuated(mark).max_ahead(Duration::MAX)
    }

    /// The record, if the step is one.
    pub fn into_record(self) -> Option<T> {
        match self {
            Self::Record(value, _) => Some(value),
            Self::Watermark(_) => None,
        }
    }
}
