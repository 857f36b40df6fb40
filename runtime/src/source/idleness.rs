//! How long each split of a source subtask has had nothing: measured where its reader is asked, read where its records go.
//!
//! Time counts only between two answers of the same reader, and only as far as nobody was waiting for room in between: a reader
//! that is not asked says nothing about its split. So an idle time never grows but by an empty answer. (A timer that runs on
//! under back pressure makes good records late: Flink, FLIP-471.) The time stands still then and is not begun anew, else
//! an empty split beside a busy one would never come to be idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::time::{SharedClock, Timestamp};

#[derive(Debug, Default)]
struct Split {
    /// Microseconds.
    idle: AtomicU64,
    /// Batches that its reader gave, and those that the task took.
    handed: AtomicU64,
    taken: AtomicU64,
}

/// Makes both ends for so many splits. `limits` are the idle times that matter to somebody; without any nothing is measured.
pub(crate) fn idleness(clock: SharedClock, splits: usize, limits: &[Duration]) -> (IdleWatch, Idleness) {
    let shared: Arc<[Split]> = (0..splits).map(|_| Split::default()).collect();
    let limits: Vec<u64> = limits.iter().map(|limit| micros(*limit)).collect();
    let reading = Idleness { splits: Arc::clone(&shared), measured: !limits.is_empty() };
    let watch = IdleWatch {
        clock,
        splits: shared,
        limits,
        answered: vec![None; splits],
        waited_until: None,
        waits_since: None,
    };
    (watch, reading)
}

/// The task's end.
#[derive(Clone, Debug)]
pub struct Idleness {
    splits: Arc<[Split]>,
    measured: bool,
}

impl Idleness {
    /// Says whether idle times matter to anybody.
    pub(crate) const fn is_measured(&self) -> bool {
        self.measured
    }

    /// How long a split has had nothing; zero while a batch of it is on its way.
    pub(crate) fn idle_for(&self, split: usize) -> Duration {
        let Some(split) = self.splits.get(split) else { return Duration::ZERO };
        // In this order: who reads an idle time that was measured behind a batch sees that the batch was handed over.
        let idle = split.idle.load(Ordering::SeqCst);
        if split.handed.load(Ordering::SeqCst) != split.taken.load(Ordering::SeqCst) {
            return Duration::ZERO;
        }
        Duration::from_micros(idle)
    }

    /// A batch of the split was taken.
    pub(crate) fn took(&self, split: usize) {
        if let Some(split) = self.splits.get(split) {
            split.taken.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The readers' end.
#[derive(Debug)]
pub struct IdleWatch {
    clock: SharedClock,
    splits: Arc<[Split]>,
    limits: Vec<u64>,
    /// When each split's reader answered last.
    answered: Vec<Option<Timestamp>>,
    /// When room was last found after a wait, and since when it is waited for.
    waited_until: Option<Timestamp>,
    waits_since: Option<Timestamp>,
}

impl IdleWatch {
    /// The time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A reader gave a batch, which is about to be handed over.
    pub(super) fn gave(&mut self, split: usize) {
        self.hands_over(split);
        self.is_busy(split);
    }

    /// A batch is about to be handed over, maybe without a record.
    pub(super) fn hands_over(&mut self, split: usize) {
        if let Some(split) = self.splits.get(split) {
            split.handed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A reader has more, and gave nothing yet.
    pub(super) fn is_busy(&mut self, split: usize) {
        self.answer(split);
        if let Some(split) = self.splits.get(split) {
            split.idle.store(0, Ordering::SeqCst);
        }
    }

    /// A reader had nothing. Says whether its idle time has come to one that matters: ring the task.
    pub(super) fn had_nothing(&mut self, split: usize) -> bool {
        let Some(since) = self.answer(split) else { return false };
        let Some(now) = self.answered.get(split).copied().flatten() else { return false };
        let since = self.waited_until.map_or(since, |until| since.max(until));
        self.add(split, now.saturating_since(since))
    }

    /// There is no room for a batch: nobody is asked until there is.
    pub(super) fn waits(&mut self) {
        if !self.limits.is_empty() && self.waits_since.is_none() {
            self.waits_since = Some(self.clock.now());
        }
    }

    /// There was room. Says whether to ring the task: only ever by a planted bug.
    pub(super) fn goes_on(&mut self) -> bool {
        let Some(since) = self.waits_since.take() else { return false };
        let now = self.clock.now();
        self.waited_until = Some(now);
        if planted(Canary::IdleWhileBackPressured) {
            let mut ring = false;
            for split in 0..self.splits.len() {
                ring |= self.add(split, now.saturating_since(since));
            }
            return ring;
        }
        false
    }

    /// Takes note of an answer and returns when the one before it was.
    fn answer(&mut self, split: usize) -> Option<Timestamp> {
        if self.limits.is_empty() {
            return None;
        }
        let now = self.clock.now();
        self.answered.get_mut(split)?.replace(now)
    }

    fn add(&self, split: usize, time: Duration) -> bool {
        let Some(split) = self.splits.get(split) else { return false };
        // One writer.
        let before = split.idle.load(Ordering::SeqCst);
        let after = before.saturating_add(micros(time));
        split.idle.store(after, Ordering::SeqCst);
        self.limits.iter().any(|limit| before < *limit && *limit <= after)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::time::Clock;

    #[derive(Debug, Default)]
    struct Hand(Mutex<Timestamp>);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
    }

    impl Hand {
        fn pass(&self, millis: u64) {
            let mut now = self.0.lock().unwrap();
            *now = now.saturating_add(Duration::from_millis(millis));
        }
    }

    fn watched(limit: u64) -> (Arc<Hand>, IdleWatch, Idleness) {
        let clock = Arc::new(Hand::default());
        let (watch, idleness) = idleness(Arc::clone(&clock) as _, 2, &[Duration::from_millis(limit)]);
        (clock, watch, idleness)
    }

    fn millis(idleness: &Idleness, split: usize) -> u128 {
        idleness.idle_for(split).as_millis()
    }

    #[test]
    fn counts_from_the_first_answer_on_and_rings_once() {
        let (clock, mut watch, idleness) = watched(30);
        clock.pass(100);
        assert!(!watch.had_nothing(0), "before its turn came nobody asked it");
        let rings = [10, 10, 10, 10].map(|time| {
            clock.pass(time);
            watch.had_nothing(0)
        });
        assert_eq!(rings, [false, false, true, false]);
        assert_eq!((millis(&idleness, 0), millis(&idleness, 1)), (40, 0));
    }

    #[test]
    fn a_batch_ends_it_and_is_not_idle_until_it_is_taken() {
        let (clock, mut watch, idleness) = watched(1);
        watch.had_nothing(0);
        clock.pass(5);
        watch.had_nothing(0);
        watch.gave(0);
        assert_eq!(millis(&idleness, 0), 0);
        clock.pass(7);
        watch.had_nothing(0);
        assert_eq!(millis(&idleness, 0), 0, "the batch lies in the queue");
        idleness.took(0);
        assert_eq!(millis(&idleness, 0), 7);
    }

    #[test]
    fn stands_still_while_there_is_no_room() {
        let (clock, mut watch, idleness) = watched(100);
        watch.had_nothing(1);
        clock.pass(5);
        watch.had_nothing(1);
        watch.gave(0);
        watch.waits();
        clock.pass(1_000);
        watch.waits();
        assert_eq!(millis(&idleness, 1), 5);
        assert!(!watch.goes_on());
        clock.pass(3);
        assert!(!watch.had_nothing(1));
        assert_eq!(millis(&idleness, 1), 8);
    }

    #[test]
    fn reads_no_clock_when_it_matters_to_nobody() {
        #[derive(Debug)]
        struct Forbidden;
        impl Clock for Forbidden {
            fn now(&self) -> Timestamp {
                unreachable!("the clock was read")
            }
        }
        let (mut watch, idleness) = idleness(Arc::new(Forbidden), 1, &[]);
        watch.gave(0);
        assert!(!watch.had_nothing(0) && !idleness.is_measured());
        watch.waits();
        assert!(!watch.goes_on());
    }
}
