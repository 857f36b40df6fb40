//! So many rows per second, by the clock.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::time::{SharedClock, SystemClock, Timestamp};

use super::RateRow;
use super::error::{RateError, at_least_one};
use super::schedule::Schedule;
use crate::dealt;
use crate::pace::LONGEST_SLEEP;

/// Makes rows at a rate, as Spark's `rate` source: `value` counts 0, 1, 2 …, `timestamp` is when the row was due, and is
/// the record's event time. A row comes when it is due, not at the end of its second.
///
/// The rows of a second are spread evenly over it, counted from the start of the pipeline's first life. With *n* splits,
/// split *i* has the values *i*, *i + n*, *i + 2n* …
///
/// The **position** is that start and the next value, so a row has the same value and timestamp in every life and each
/// counts exactly once, without a gap, also after a restart. What fell due while the job was down or held up comes then,
/// as fast as it is taken. A split that had no row yet when its process ended begins with the time of the next start.
/// Another number of splits is refused as lost splits; another rate gives the rows from then on other times.
#[derive(Clone, Debug)]
#[must_use]
pub struct RateSource {
    schedule: Schedule,
    splits: u32,
    count: Option<u64>,
    clock: SharedClock,
    /// The time of row 0: one for all splits that begin in this process.
    start: Arc<OnceLock<Timestamp>>,
}

impl RateSource {
    /// Makes this many rows per second, at least 1; Spark's `rowsPerSecond`.
    pub fn per_second(rows: u64) -> Self {
        Self {
            schedule: Schedule { per_second: rows, ramp: 0 },
            splits: 1,
            count: None,
            clock: Arc::new(SystemClock::new()),
            start: Arc::default(),
        }
    }

    /// Sets how long it takes to reach the rate, in steps of whole seconds; Spark's `rampUpTime`. With a ramp of *r*
    /// seconds, second *s* of it, counted from 1, has *s* times rate / (*r* + 1) rows, where the quotient is rounded down:
    /// a ramp as long as the rate or longer has no rows at all. Parts of a second are cut off. Default: no ramp.
    pub fn ramp_up(mut self, ramp: Duration) -> Self {
        self.schedule.ramp = ramp.as_secs();
        self
    }

    /// Sets the number of splits, and with it how many readers may work at once; Spark's `numPartitions`. Default 1,
    /// range 1 to 65,536.
    pub fn splits(mut self, splits: u32) -> Self {
        self.splits = splits;
        self
    }

    /// Ends after this many rows, over all splits together. Default: never.
    pub fn count(mut self, rows: u64) -> Self {
        self.count = Some(rows);
        self
    }

    /// Takes the time from here. Default: [`SystemClock`].
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }
}

impl Source for RateSource {
    type Out = RateRow;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        at_least_one("per_second", self.schedule.per_second)?;
        Ok(dealt::splits(self.splits)?)
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("RateSource")
            .records("rows of a time and a number, by the clock")
            .position("the time of row 0 and the next number, per split")
            .guarantee(Guarantee::ExactlyOnce, "")
            .after_restart("goes on with the first row of the epoch that was open, and with those that fell due")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<RateRow>>, BoxError> {
        let step = u64::from(self.splits);
        let foreign = || RateError::foreign(split, from, self.splits);
        let first = dealt::first(split, self.splits).ok_or_else(foreign)?;
        let (start, next) = match from {
            None => (*self.start.get_or_init(|| self.clock.now()), first),
            Some(position) => read_position(position).filter(|(_, next)| next % step == first).ok_or_else(foreign)?,
        };
        let end = self.count.unwrap_or(u64::MAX);
        Ok(Box::new(RateReader { schedule: self.schedule, clock: Arc::clone(&self.clock), start, next, step, end }))
    }
}

struct RateReader {
    schedule: Schedule,
    clock: SharedClock,
    start: Timestamp,
    next: u64,
    step: u64,
    end: u64,
}

impl RateReader {
    fn due(&self) -> Timestamp {
        self.start.saturating_add(self.schedule.due(self.next))
    }
}

impl Reader<RateRow> for RateReader {
    fn poll(&mut self, batch: &mut Batch<RateRow>, limit: usize) -> Result<Polled, BoxError> {
        let mut now = self.clock.now();
        if self.next < self.end && self.due() > now {
            std::thread::sleep(self.due().saturating_since(now).min(LONGEST_SLEEP));
            now = self.clock.now();
        }
        let mut count = 0;
        while count < limit && self.next < self.end {
            let timestamp = self.due();
            if timestamp > now {
                break;
            }
            batch.records.push(Record::at(RateRow { timestamp, value: self.next }, timestamp));
            self.next = self.next.saturating_add(self.step);
            count += 1;
        }
        batch.end = position(self.start, self.next);
        Ok(match (self.next < self.end, count) {
            (false, _) => Polled::End,
            (true, 0) => Polled::Idle,
            (true, _) => Polled::More,
        })
    }
}

fn position(start: Timestamp, next: u64) -> Position {
    let bytes = [start.as_micros().to_be_bytes(), next.to_be_bytes()].concat();
    Position::from_bytes(bytes).unwrap_or_default()
}

fn read_position(position: &Position) -> Option<(Timestamp, u64)> {
    let (start, next) = position.as_bytes().split_at_checked(8)?;
    let start = i64::from_be_bytes(start.try_into().ok()?);
    Some((Timestamp::from_micros(start), u64::from_be_bytes(next.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::tests::StillClock;

    fn open(source: &RateSource, split: &str, from: Option<&Position>) -> Box<dyn Reader<RateRow>> {
        source.reader(&SplitId::new(split), from).unwrap()
    }

    fn poll(reader: &mut Box<dyn Reader<RateRow>>, limit: usize) -> (Vec<(u64, i64)>, Position, Polled) {
        let mut batch = Batch::default();
        let polled = reader.poll(&mut batch, limit).unwrap();
        let rows = batch.records.iter().map(|record| {
            assert_eq!(record.time, record.value.timestamp);
            (record.value.value, record.value.timestamp.as_micros() / 1_000)
        });
        (rows.collect(), batch.end, polled)
    }

    #[test]
    fn rows_come_when_they_are_due() {
        let clock = Arc::new(StillClock::default());
        clock.advance(Duration::from_secs(100));
        let source = RateSource::per_second(4).clock(clock.clone());
        let mut reader = open(&source, "0/1", None);
        assert_eq!(poll(&mut reader, 9).0, [(0, 100_000)]);
        assert_eq!(poll(&mut reader, 9).2, Polled::Idle);
        clock.advance(Duration::from_millis(250));
        assert_eq!(poll(&mut reader, 9).0, [(1, 100_250)]);
        clock.advance(Duration::from_secs(1));
        let (rows, _, polled) = poll(&mut reader, 3);
        assert_eq!((rows, polled), (vec![(2, 100_500), (3, 100_750), (4, 101_000)], Polled::More));
        assert_eq!(poll(&mut reader, 3).0, [(5, 101_250)]);
    }

    #[test]
    fn a_restart_at_any_position_leaves_no_gap_and_changes_no_time() {
        let all = |source: &RateSource, from: Option<&Position>| poll(&mut open(source, "0/1", from), 99).0;
        let clock = Arc::new(StillClock::default());
        let source = RateSource::per_second(3).ramp_up(Duration::from_secs(2)).count(12).clock(clock.clone());
        let mut reader = open(&source, "0/1", None);
        clock.advance(Duration::from_secs(60));
        let expected = all(&source, None);
        assert_eq!(expected.len(), 12);
        for taken in 1..=12 {
            let (rows, end, _) = poll(&mut reader, 1);
            assert_eq!(rows, expected[taken - 1..taken]);
            // A new process at a later time: only the position tells it when row 0 was.
            clock.advance(Duration::from_secs(1));
            let again = RateSource { start: Arc::default(), ..source.clone() };
            assert_eq!(all(&again, Some(&end)), expected[taken..], "after {taken}");
        }
    }

    #[test]
    fn deals_the_rows_out_to_the_splits_and_ends() {
        let clock = Arc::new(StillClock::default());
        let source = RateSource::per_second(10).splits(3).count(7).clock(clock.clone());
        let names: Vec<String> = Source::splits(&source).unwrap().iter().map(SplitId::to_string).collect();
        let mut readers: Vec<_> = names.iter().map(|name| open(&source, name, None)).collect();
        clock.advance(Duration::from_secs(1));
        let dealt: Vec<_> = readers.iter_mut().map(|reader| poll(reader, 9)).collect();
        let values = |split: usize| dealt[split].0.iter().map(|(value, _)| *value).collect::<Vec<_>>();
        assert_eq!((values(0), values(1), values(2)), (vec![0, 3, 6], vec![1, 4], vec![2, 5]));
        assert!(dealt.iter().all(|(_, _, polled)| *polled == Polled::End));
        assert_eq!(dealt[1].0[1], (4, 400));
    }

    #[test]
    fn refuses_options_of_zero_and_positions_of_others() {
        let text = |source: RateSource| Source::splits(&source).unwrap_err().to_string();
        assert_eq!(text(RateSource::per_second(0)), "per_second is 0, so no row would ever come; give at least 1");
        let none = RateSource::per_second(1).splits(0);
        assert!(Source::splits(&none).unwrap_err().to_string().contains("splits is 0"));
        let source = RateSource::per_second(1).splits(2);
        for (split, from) in
            [("0/3", None), ("0/2", Some(Position::from_u64(1))), ("0/2", Some(position(Timestamp::MIN, 1)))]
        {
            let error = source.reader(&SplitId::new(split), from.as_ref()).err().unwrap().to_string();
            assert!(error.contains("none of this source with 2 splits"), "{error}");
        }
    }
}
