//! Timers in the order in which they fire.

use std::collections::BTreeSet;
use std::fmt;

use crate::time::Timestamp;

/// The clock that a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TimerKind {
    /// The watermark.
    EventTime,
    /// The processing time.
    ProcessingTime,
}

impl fmt::Display for TimerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EventTime => "event time",
            Self::ProcessingTime => "processing time",
        })
    }
}

/// A timer of some key. The order is that of firing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due<K> {
    /// When.
    pub time: Timestamp,
    /// The key's group: keys of one time fire group by group, as they lie in the store.
    pub group: u16,
    /// Whose.
    pub key: K,
}

/// The timers of one clock in one subtask.
///
/// It may know only those up to its *horizon*; later ones are somewhere else until it is raised, and nothing beyond it fires.
#[derive(Clone, Debug)]
pub struct TimerQueue<K> {
    timers: BTreeSet<Due<K>>,
    horizon: Timestamp,
}

impl<K: Ord> Default for TimerQueue<K> {
    /// Knows all timers: there are none.
    fn default() -> Self {
        Self { timers: BTreeSet::new(), horizon: Timestamp::MAX }
    }
}

impl<K: Ord> TimerQueue<K> {
    /// Adds a timer; says whether it is new.
    pub fn insert(&mut self, timer: Due<K>) -> bool {
        self.timers.insert(timer)
    }

    /// Removes a timer; says whether it was there.
    pub fn remove(&mut self, timer: &Due<K>) -> bool {
        self.timers.remove(timer)
    }

    /// The first timer there is, due or not.
    pub fn first(&self) -> Option<&Due<K>> {
        self.timers.first()
    }

    /// All timers that are here, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Due<K>> {
        self.timers.iter()
    }

    /// Takes the first timer if its time is not after `until`, nor beyond the horizon.
    pub fn pop_due(&mut self, until: Timestamp) -> Option<Due<K>> {
        let until = until.min(self.horizon);
        self.timers.first().is_some_and(|first| first.time <= until).then(|| self.timers.pop_first())?
    }

    /// The time up to which all timers are here, inclusive.
    pub const fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Sets the time up to which all timers are here, inclusive.
    pub const fn set_horizon(&mut self, horizon: Timestamp) {
        self.horizon = horizon;
    }

    /// How many timers are here.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Says whether none is here.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn timer(millis: i64, group: u16, key: u8) -> Due<u8> {
        Due { time: at(millis), group, key }
    }

    #[test]
    fn fires_in_ascending_order_up_to_and_including_the_time_and_each_once() {
        let mut queue = TimerQueue::default();
        for (millis, group, key) in [(10, 2, 1), (3, 9, 1), (12, 0, 1), (10, 1, 7), (-5, 3, 3)] {
            assert!(queue.insert(timer(millis, group, key)));
        }
        assert!(!queue.insert(timer(10, 2, 1)), "the same timer again is the same timer");
        assert!(queue.remove(&timer(12, 0, 1)) && !queue.remove(&timer(12, 0, 1)));
        let due = |queue: &mut TimerQueue<u8>, until| -> Vec<Due<u8>> {
            std::iter::from_fn(|| queue.pop_due(at(until))).collect()
        };
        assert_eq!(due(&mut queue, 9), [timer(-5, 3, 3), timer(3, 9, 1)]);
        assert_eq!(due(&mut queue, 10), [timer(10, 1, 7), timer(10, 2, 1)]);
        assert!(due(&mut queue, 1_000).is_empty() && queue.is_empty());
    }

    #[test]
    fn nothing_beyond_the_horizon_fires() {
        let mut queue = TimerQueue::default();
        queue.insert(timer(10, 0, 1));
        queue.set_horizon(at(9));
        assert_eq!(queue.pop_due(Timestamp::MAX), None);
        queue.set_horizon(at(10));
        assert_eq!((queue.first(), queue.len()), (Some(&timer(10, 0, 1)), 1));
        assert_eq!(queue.pop_due(Timestamp::MAX), Some(timer(10, 0, 1)));
    }
}
