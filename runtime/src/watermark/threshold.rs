//! Which records are late for an operator, before a restart and after it.

use std::ops::Range;

use crate::time::Timestamp;

/// Key groups that share a threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The groups.
    pub groups: Range<u16>,
    /// Records of these groups with a time ≤ this are late.
    pub threshold: Timestamp,
}

/// The late threshold of an operator in one subtask: the last watermark that it has handled completely.
///
/// It belongs to key groups rather than to the subtask, so that it moves with them when the parallelism changes. Subtasks may
/// stand at different watermarks, since idle inputs leave and join the minimum at different times; after they are merged, every group
/// keeps its own threshold until the new subtask's watermark has passed it. So a restart makes no record late that
/// was not, and lets none in that was.
#[derive(Clone, Debug)]
pub struct Thresholds {
    first: u16,
    /// What was restored, by group; [`Timestamp::MIN`] for none. Empty once the watermark has passed all of it.
    floors: Vec<Timestamp>,
    lowest: Timestamp,
    highest: Timestamp,
    groups: Range<u16>,
    /// The last watermark that was handled in this life.
    reached: Timestamp,
}

impl Thresholds {
    /// Begins with what was restored for some of these key groups.
    pub fn new(groups: Range<u16>, restored: &[Run]) -> Self {
        let floor = |group: u16| {
            let runs = restored.iter().filter(|run| run.groups.contains(&group));
            runs.map(|run| run.threshold).max().unwrap_or(Timestamp::MIN)
        };
        let floors: Vec<_> = groups.clone().map(floor).collect();
        let lowest = floors.iter().min().copied().unwrap_or(Timestamp::MIN);
        let highest = floors.iter().max().copied().unwrap_or(Timestamp::MIN);
        Self { first: groups.start, floors, lowest, highest, groups, reached: Timestamp::MIN }
    }

    /// Says whether a record of this key group and time is late. One without event time never is, and nothing is before the first
    /// watermark.
    #[inline]
    pub fn is_late(&self, group: u16, time: Timestamp) -> bool {
        time > Timestamp::MIN && (time <= self.reached || (time <= self.highest && time <= self.floor(group)))
    }

    /// The operator's watermark: no group's threshold is below it. Nothing before the first.
    pub fn watermark(&self) -> Option<Timestamp> {
        Some(self.reached.max(self.lowest)).filter(|watermark| *watermark > Timestamp::MIN)
    }

    /// Takes note that a watermark was handled completely; says whether any threshold rose.
    pub fn raise(&mut self, watermark: Timestamp) -> bool {
        let rose = watermark > self.reached.max(self.lowest);
        self.reached = self.reached.max(watermark);
        if self.reached >= self.highest {
            self.floors = Vec::new();
            (self.lowest, self.highest) = (Timestamp::MIN, Timestamp::MIN);
        }
        rose
    }

    /// All thresholds, in as few runs as there are.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let thresholds = self.groups.clone().map(|group| (group, self.reached.max(self.floor(group))));
        for (group, threshold) in thresholds.filter(|(_, threshold)| *threshold > Timestamp::MIN) {
            match runs.last_mut() {
                Some(run) if run.threshold == threshold && run.groups.end == group => run.groups.end = group + 1,
                _ => runs.push(Run { groups: group..group + 1, threshold }),
            }
        }
        runs
    }

    fn floor(&self, group: u16) -> Timestamp {
        self.floors.get(usize::from(group.wrapping_sub(self.first))).copied().unwrap_or(Timestamp::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn nothing_is_late_before_the_first_watermark_and_equality_is_late_after_it() {
        let mut thresholds = Thresholds::new(0..4, &[]);
        assert!(!thresholds.is_late(0, at(-1_000)) && thresholds.watermark().is_none() && thresholds.runs().is_empty());
        assert!(thresholds.raise(at(-5)));
        assert!(thresholds.is_late(3, at(-5)) && !thresholds.is_late(3, at(-4)));
        assert!(!thresholds.is_late(3, Timestamp::MIN), "a record without event time");
        assert!(!thresholds.raise(at(-6)));
        assert_eq!(thresholds.watermark(), Some(at(-5)));
    }

    #[test]
    fn decides_after_a_change_of_parallelism_as_it_did_before() {
        let mut left = Thresholds::new(0..2, &[]);
        let mut right = Thresholds::new(2..4, &[]);
        left.raise(at(10));
        right.raise(at(8));
        let saved: Vec<_> = left.runs().into_iter().chain(right.runs()).collect();
        assert_eq!(saved.len(), 2);

        let mut both = Thresholds::new(0..4, &saved);
        assert_eq!(both.watermark(), Some(at(8)));
        assert!(both.is_late(1, at(10)) && !both.is_late(2, at(10)) && both.is_late(2, at(8)));
        assert_eq!(both.runs(), saved);
        assert!(both.raise(at(9)));
        assert!(both.is_late(1, at(10)) && !both.is_late(2, at(10)));
        assert!(both.raise(at(10)));
        assert_eq!(both.runs(), [Run { groups: 0..4, threshold: at(10) }]);

        let middle = Thresholds::new(1..3, &both.runs());
        assert_eq!(middle.runs(), [Run { groups: 1..3, threshold: at(10) }]);
        assert!(Thresholds::new(3..3, &saved).runs().is_empty(), "a subtask without key groups");
    }
}
