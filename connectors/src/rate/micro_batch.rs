//! So many rows per batch, by the number of the batch.

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::time::Timestamp;

use super::RateRow;
use super::error::{RateError, at_least_one};
use crate::dealt;

/// Makes the same rows in batches of the same size, whatever the time, as Spark's `rate-micro-batch` source: batch *n* has
/// the values *n*·R to *n*·R + R − 1, all with the timestamp start + *n*·advance, which is their event time.
///
/// Its batches are numbered by their rows alone. Where rows pass one by one they follow each other as fast as they are
/// taken: a batch is then no more than the rows of one timestamp. With *n* splits, split *i* has the values *i*, *i + n*,
/// *i + 2n* … The **position** is the next value of the split, so the source is replayable and each row counts exactly
/// once, also after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct RateMicroBatch {
    rows: u64,
    batches: Option<u64>,
    start: Timestamp,
    advance_ms: u64,
    splits: u32,
}

impl RateMicroBatch {
    /// Makes this many rows per batch, at least 1; Spark's `rowsPerBatch`.
    pub fn rows_per_batch(rows: u64) -> Self {
        Self { rows, batches: None, start: Timestamp::from_millis(0), advance_ms: 1_000, splits: 1 }
    }

    /// Sets the timestamp of the rows of batch 0; Spark's `startTimestamp`. Default: 1970-01-01T00:00:00 UTC.
    pub fn start_timestamp(mut self, start: Timestamp) -> Self {
        self.start = start;
        self
    }

    /// Sets by how many milliseconds the timestamp grows from one batch to the next; Spark's `advanceMillisPerBatch`.
    /// Default 1,000; 0 leaves it where it is.
    pub fn advance_millis_per_batch(mut self, millis: u64) -> Self {
        self.advance_ms = millis;
        self
    }

    /// Sets the number of splits; Spark's `numPartitions`. Default 1, range 1 to 65,536.
    pub fn splits(mut self, splits: u32) -> Self {
        self.splits = splits;
        self
    }

    /// Ends after this many batches. Default: never.
    pub fn batches(mut self, count: u64) -> Self {
        self.batches = Some(count);
        self
    }

    fn row(&self, value: u64) -> RateRow {
        let millis = (value / self.rows.max(1)).saturating_mul(self.advance_ms);
        let since = millis.saturating_mul(1_000);
        RateRow { timestamp: Timestamp::from_micros(self.start.as_micros().saturating_add_unsigned(since)), value }
    }
}

impl Source for RateMicroBatch {
    type Out = RateRow;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        at_least_one("rows_per_batch", self.rows)?;
        Ok(dealt::splits(self.splits)?)
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("RateMicroBatch")
            .records("rows of a time and a number, in batches of the same size")
            .position("the next number, per split")
            .guarantee(Guarantee::ExactlyOnce, "")
            .after_restart("goes on with the first row of the epoch that was open")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<RateRow>>, BoxError> {
        let step = u64::from(self.splits);
        let foreign = || RateError::foreign(split, from, self.splits);
        let first = dealt::first(split, self.splits).ok_or_else(foreign)?;
        let next = match from {
            None => first,
            Some(position) => position.as_u64().filter(|next| next % step == first).ok_or_else(foreign)?,
        };
        let end = self.batches.map_or(u64::MAX, |batches| batches.saturating_mul(self.rows));
        Ok(Box::new(MicroBatchReader { source: *self, next, step, end }))
    }
}

struct MicroBatchReader {
    source: RateMicroBatch,
    next: u64,
    step: u64,
    end: u64,
}

impl Reader<RateRow> for MicroBatchReader {
    fn poll(&mut self, batch: &mut Batch<RateRow>, limit: usize) -> Result<Polled, BoxError> {
        for _ in 0..limit {
            if self.next >= self.end {
                break;
            }
            let row = self.source.row(self.next);
            batch.records.push(Record::at(row, row.timestamp));
            self.next = self.next.saturating_add(self.step);
        }
        batch.end = Position::from_u64(self.next);
        Ok(if self.next < self.end { Polled::More } else { Polled::End })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(source: RateMicroBatch, split: &str, from: Option<u64>, limit: usize) -> Vec<(u64, i64)> {
        let mut reader = source.reader(&SplitId::new(split), from.map(Position::from_u64).as_ref()).unwrap();
        let mut batch = Batch::default();
        while reader.poll(&mut batch, limit).unwrap() != Polled::End {}
        let row = |record: &Record<RateRow>| {
            assert_eq!(record.time, record.value.timestamp);
            (record.value.value, record.value.timestamp.as_micros() / 1_000)
        };
        batch.records.iter().map(row).collect()
    }

    #[test]
    fn batch_three_of_ten_rows_is_that_of_spark() {
        let source = RateMicroBatch::rows_per_batch(10).batches(4);
        let all = rows(source, "0/1", None, 7);
        assert_eq!(all.len(), 40);
        assert_eq!(all[30..], (30..40).map(|value| (value, 3_000)).collect::<Vec<_>>());
        assert_eq!(all[9..11], [(9, 0), (10, 1_000)]);
    }

    #[test]
    fn has_its_start_its_advance_and_its_splits() {
        let source = RateMicroBatch::rows_per_batch(2).batches(3).splits(2);
        let source = source.start_timestamp(Timestamp::from_millis(-500)).advance_millis_per_batch(250);
        assert_eq!(rows(source, "0/2", None, 9), [(0, -500), (2, -250), (4, 0)]);
        assert_eq!(rows(source, "1/2", None, 9), [(1, -500), (3, -250), (5, 0)]);
        assert_eq!(rows(source, "1/2", Some(3), 1), [(3, -250), (5, 0)]);
        assert!(rows(source, "1/2", Some(7), 1).is_empty());
    }

    #[test]
    fn refuses_options_of_zero_and_positions_of_others() {
        let source = RateMicroBatch::rows_per_batch(0);
        assert!(Source::splits(&source).unwrap_err().to_string().contains("rows_per_batch is 0"));
        let source = RateMicroBatch::rows_per_batch(1).splits(2);
        assert!(source.reader(&SplitId::new("0/1"), None).is_err());
        assert!(source.reader(&SplitId::new("0/2"), Some(&Position::from_u64(3))).is_err());
    }

    #[test]
    fn times_stay_at_the_limit() {
        let source = RateMicroBatch::rows_per_batch(1).advance_millis_per_batch(u64::MAX);
        assert_eq!(source.row(u64::MAX).timestamp, Timestamp::MAX);
    }
}
