//! The processing time of micro-batches: the same for all subtasks, and standing still for a batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::time::{Clock, SharedClock, Timestamp};

/// Processing time that stands still for a micro-batch. The sources set it before the first record of a batch; since no other epoch
/// is in work meanwhile, all subtasks see the same. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BatchTime(Arc<AtomicI64>);

impl Default for BatchTime {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(Timestamp::MIN.as_micros())))
    }
}

impl BatchTime {
    /// Sets the time; every source subtask sets the same.
    pub(crate) fn set(&self, time: Timestamp) {
        self.0.store(time.as_micros(), Ordering::Release);
    }

    /// The time of the batch; nothing before the first one.
    pub(crate) fn get(&self) -> Option<Timestamp> {
        let time = Timestamp::from_micros(self.0.load(Ordering::Acquire));
        (time != Timestamp::MIN).then_some(time)
    }
}

/// The clock of one subtask's user code: the job's, and in a micro-batch the batch's time.
#[derive(Debug)]
pub(crate) struct TaskClock {
    clock: SharedClock,
    batch: BatchTime,
    /// The open epoch of this subtask is a micro-batch.
    in_batch: AtomicBool,
}

impl TaskClock {
    /// Begins outside of a batch.
    pub(crate) const fn new(clock: SharedClock, batch: BatchTime) -> Self {
        Self { clock, batch, in_batch: AtomicBool::new(false) }
    }

    /// The subtask's next epoch begins.
    pub(crate) fn set_in_batch(&self, in_batch: bool) {
        self.in_batch.store(in_batch, Ordering::Relaxed);
    }

    /// Says whether the open epoch is a micro-batch. Only what keeps records back until its end asks.
    pub(super) fn in_batch(&self) -> bool {
        self.in_batch.load(Ordering::Relaxed)
    }

    /// A batch begins at this time.
    pub(crate) fn begin_batch(&self, time: Timestamp) {
        self.batch.set(time);
    }
}

impl Clock for TaskClock {
    fn now(&self) -> Timestamp {
        let batch = self.in_batch().then(|| self.batch.get()).flatten();
        batch.unwrap_or_else(|| self.clock.now())
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    #[test]
    fn time_stands_still_for_a_batch_and_goes_on_behind_it() {
        let time = Timestamp::from_millis;
        let wall = ManualClock::at(time(5));
        let batch = BatchTime::default();
        let clock = TaskClock::new(Arc::new(wall.clone()), batch.clone());
        clock.set_in_batch(true);
        // Nobody has said when the first one begins.
        assert_eq!(clock.now(), time(5));
        batch.set(time(4));
        wall.set(time(9));
        assert_eq!(clock.now(), time(4));
        clock.set_in_batch(false);
        assert_eq!(clock.now(), time(9));
    }
}
