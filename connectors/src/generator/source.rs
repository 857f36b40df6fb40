//! A function of the number.

use std::fmt;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::time::{SharedClock, SystemClock};

use crate::dealt;
use crate::pace::{Pace, check_rate};

/// Hands out what a function makes of the numbers 0, 1, 2 …, for ever or up to a count.
///
/// With *n* splits, split *i* has the numbers *i*, *i + n*, *i + 2n* …, in rising order. The **position** is the
/// split's next number. If the function gives the same record for the same number, the source is replayable and each
/// number counts exactly once, also after a restart. The number of splits is part of their names (`0/4`): changing it
/// in the life of a pipeline is refused as lost splits.
#[must_use]
pub struct Generator<F> {
    make: Arc<F>,
    count: Option<u64>,
    splits: u32,
    per_second: Option<f64>,
    clock: SharedClock,
}

/// A generator cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeneratorError {
    /// The split is none of this generator's: it had another number of splits.
    #[error("split {split} is none of the generator's {splits}; give it the number of splits it had, or a new name")]
    ForeignSplit {
        /// The split.
        split: String,
        /// How many there are.
        splits: u32,
    },
    /// The saved position is no number of this split: it was made by another kind of source.
    #[error("cannot go on at {position}: no number of split {split}; was this source of another kind?")]
    ForeignPosition {
        /// The split.
        split: String,
        /// The position.
        position: String,
    },
}

impl<F> Generator<F> {
    /// Makes the records `make(0)` to `make(count - 1)`, or goes on for ever without a count. `make` is called on the
    /// readers' threads and should depend on nothing but its number.
    pub fn new(count: Option<u64>, make: F) -> Self {
        Self { make: Arc::new(make), count, splits: 1, per_second: None, clock: Arc::new(SystemClock::new()) }
    }

    /// Sets the number of splits, and with it how many readers may work at once. Default 1, range 1 to
    /// 65,536.
    pub fn splits(mut self, splits: u32) -> Self {
        self.splits = splits;
        self
    }

    /// Hands out at most this many records per second, over all splits together. Up to a second's worth is made up
    /// for at once after back pressure. Default: no limit.
    pub fn rate(mut self, per_second: f64) -> Self {
        self.per_second = Some(per_second);
        self
    }

    /// Takes the time for [`Generator::rate`] from here. Default: [`SystemClock`].
    pub fn clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }
}

impl<F> fmt::Debug for Generator<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("count", &self.count)
            .field("splits", &self.splits)
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

impl<T, F> Source for Generator<F>
where
    T: Send + 'static,
    F: Fn(u64) -> T + Send + Sync + 'static,
{
    type Out = T;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        check_rate(self.per_second)?;
        Ok(dealt::splits(self.splits)?)
    }

    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("Generator")
            .records("a function of the number")
            .position("the next number, per split")
            .guarantee(Guarantee::ExactlyOnce, "")
            .after_restart("goes on with the first number of the epoch that was open")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<T>>, BoxError> {
        let step = u64::from(self.splits);
        let first = dealt::first(split, self.splits)
            .ok_or_else(|| GeneratorError::ForeignSplit { split: split.to_string(), splits: self.splits })?;
        let next = match from {
            None => first,
            Some(position) => position.as_u64().filter(|next| next % step == first).ok_or_else(|| {
                GeneratorError::ForeignPosition { split: split.to_string(), position: position.to_string() }
            })?,
        };
        Ok(Box::new(GeneratorReader {
            make: Arc::clone(&self.make),
            next,
            step,
            end: self.count.unwrap_or(u64::MAX),
            pace: self.per_second.map(|rate| Pace::new(rate / step as f64, Arc::clone(&self.clock))),
        }))
    }
}

struct GeneratorReader<F> {
    make: Arc<F>,
    next: u64,
    step: u64,
    end: u64,
    pace: Option<Pace>,
}

impl<T, F: Fn(u64) -> T + Send + Sync> Reader<T> for GeneratorReader<F> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        // Asked before the pace, so that the end does not wait for a record that never comes.
        let left = self.next < self.end;
        let limit = self.pace.as_mut().filter(|_| left).map_or(limit, |pace| pace.wait(limit));
        let mut count = 0;
        while count < limit && self.next < self.end {
            batch.records.push(Record::new((self.make)(self.next)));
            // An endless generator would have to run for centuries to wrap round.
            self.next = self.next.saturating_add(self.step);
            count += 1;
        }
        batch.end = Position::from_u64(self.next);
        if let Some(pace) = &mut self.pace {
            pace.issued(count);
        }
        Ok(match (self.next < self.end, count) {
            (false, _) => Polled::End,
            (true, 0) => Polled::Idle,
            (true, _) => Polled::More,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pace::tests::StillClock;

    fn numbers<F: Fn(u64) -> u64 + Send + Sync + 'static>(
        source: &Generator<F>,
        split: &str,
        from: Option<u64>,
    ) -> Vec<u64> {
        let mut reader = source.reader(&SplitId::new(split), from.map(Position::from_u64).as_ref()).unwrap();
        let mut batch = Batch::default();
        while reader.poll(&mut batch, 2).unwrap() != Polled::End {}
        batch.records.into_iter().map(|record| record.value).collect()
    }

    #[test]
    fn deals_the_numbers_out_to_the_splits() {
        let source = Generator::new(Some(8), |number| number * 10).splits(3);
        let names: Vec<String> = Source::splits(&source).unwrap().iter().map(SplitId::to_string).collect();
        assert_eq!(names, ["0/3", "1/3", "2/3"]);
        assert_eq!(numbers(&source, "0/3", None), [0, 30, 60]);
        assert_eq!(numbers(&source, "1/3", None), [10, 40, 70]);
        assert_eq!(numbers(&source, "2/3", None), [20, 50]);
    }

    #[test]
    fn goes_on_at_every_position_it_gave() {
        let source = Generator::new(Some(9), |number| number).splits(2);
        let all = numbers(&source, "1/2", None);
        let mut reader = source.reader(&SplitId::new("1/2"), None).unwrap();
        for taken in 1..=all.len() {
            let mut batch = Batch::default();
            reader.poll(&mut batch, 1).unwrap();
            assert_eq!(numbers(&source, "1/2", batch.end.as_u64()), all[taken..]);
        }
    }

    #[test]
    fn refuses_splits_and_positions_of_another_generator() {
        let source = Generator::new(None, |number| number).splits(4);
        for split in ["0/2", "4/4", "x"] {
            assert!(source.reader(&SplitId::new(split), None).is_err(), "{split}");
        }
        assert!(source.reader(&SplitId::new("1/4"), Some(&Position::from_u64(6))).is_err());
        assert!(Source::splits(&source.splits(0)).is_err());
    }

    #[test]
    fn shares_the_rate_between_the_splits_and_ends_without_waiting() {
        let clock = Arc::new(StillClock::default());
        let source = Generator::new(Some(4), |number| number).splits(2).rate(200.0).clock(clock.clone());
        let mut reader = source.reader(&SplitId::new("0/2"), None).unwrap();
        let mut poll = |count: usize| {
            let mut batch = Batch::default();
            let polled = reader.poll(&mut batch, 9).unwrap();
            assert_eq!(batch.records.len(), count);
            polled
        };
        assert_eq!(poll(1), Polled::More);
        assert_eq!(poll(0), Polled::Idle);
        clock.advance(Duration::from_millis(10));
        assert_eq!(poll(1), Polled::End);
        assert_eq!(poll(0), Polled::End);
    }
}
