//! Drops records and counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_runtime::error::BoxError;
use millstream_runtime::id::Epoch;
use millstream_runtime::sink::{IntoSink, Sink, SinkDeclaration, SinkSpec};

/// Each subtask adds its count to the shared one after this many records, and at barriers: a shared counter per
/// record would be what is measured.
const ADD_EVERY: u64 = 1024;

/// Drops each record and counts it, **as processed**: at-least-once, so records that come again after a restart count
/// again.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Blackhole {
    count: BlackholeCount,
}

/// How many records fell into a [`Blackhole`] in this process, over all subtasks and attempts. Up to date at each
/// barrier; in between it lags by at most 1,023 records per subtask.
#[derive(Clone, Debug, Default)]
pub struct BlackholeCount(Arc<AtomicU64>);

impl Blackhole {
    /// Makes the sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a handle on the count.
    pub fn count(&self) -> BlackholeCount {
        self.count.clone()
    }
}

impl BlackholeCount {
    /// Returns the number of records so far.
    pub fn records(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl<T: 'static> IntoSink<T> for Blackhole {
    fn declaration(&self) -> SinkDeclaration {
        SinkDeclaration::new("Blackhole")
            .form("nothing, counted")
            .after_restart("records of the epochs that were open count again")
    }

    fn into_sink(self) -> SinkSpec<T> {
        SinkSpec::Direct(Arc::new(move || Ok(Box::new(Hole { count: self.count.clone(), own: 0 }))))
    }
}

struct Hole {
    count: BlackholeCount,
    own: u64,
}

impl Hole {
    fn add(&mut self) {
        self.count.0.fetch_add(std::mem::take(&mut self.own), Ordering::Relaxed);
    }
}

impl<T> Sink<T> for Hole {
    fn write(&mut self, value: T) -> Result<(), BoxError> {
        // So that a benchmark's records are really made.
        drop(std::hint::black_box(value));
        self.own += 1;
        if self.own == ADD_EVERY {
            self.add();
        }
        Ok(())
    }

    fn flush(&mut self, _epoch: Epoch) -> Result<(), BoxError> {
        self.add();
        Ok(())
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        self.add();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_falls_in_at_every_barrier_and_in_large_steps() {
        let hole = Blackhole::new();
        let count = hole.count();
        let SinkSpec::Direct(factory) = IntoSink::<u64>::into_sink(hole) else { panic!("not a level-1 sink") };
        let (mut first, mut second) = (factory().unwrap(), factory().unwrap());
        first.write(1).unwrap();
        assert_eq!(count.records(), 0);
        first.flush(Epoch::new(1)).unwrap();
        assert_eq!(count.records(), 1);
        (0..ADD_EVERY + 1).for_each(|value| second.write(value).unwrap());
        assert_eq!(count.records(), 1 + ADD_EVERY);
        drop(second);
        assert_eq!(count.records(), 2 + ADD_EVERY);
    }
}
