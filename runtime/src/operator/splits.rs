//! What the operators of a source's task know of its splits, and what they have to save with them.

use std::time::Duration;

use crate::time::Timestamp;

/// One split, as the operators behind its source see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitStatus {
    /// Nothing of it follows.
    pub ended: bool,
    /// How long its reader was asked and had nothing; zero while something of it waits to be taken.
    pub idle_for: Duration,
}

/// The splits of one source subtask. Records carry the number of their split: see [`Record::hash`].
///
/// Event time is assigned behind the source, but a split's watermark belongs to its position: it is noted here, and the source
/// saves it at the barrier. There is one per operator that assigns event times, told apart by their order in the task.
///
/// [`Record::hash`]: crate::record::Record::hash
#[derive(Clone, Debug, Default)]
pub struct Splits {
    status: Vec<SplitStatus>,
    /// By split, then by operator.
    watermarks: Vec<Vec<Timestamp>>,
    changes: u64,
}

impl Splits {
    /// Begins with the splits' restored watermarks, and whether they have ended.
    pub fn new(splits: impl IntoIterator<Item = (bool, Vec<Timestamp>)>) -> Self {
        let begun = splits.into_iter().map(|(ended, watermarks)| {
            let status = SplitStatus { ended, idle_for: Duration::ZERO };
            (status, watermarks)
        });
        let (status, watermarks) = begun.unzip();
        Self { status, watermarks, changes: 0 }
    }

    /// All splits, in the order of their numbers.
    pub fn status(&self) -> &[SplitStatus] {
        &self.status
    }

    /// Counts changes of any status, so that who has seen the last need not look again.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// The watermark of a split by one operator; [`Timestamp::MIN`] if there is none yet.
    pub fn watermark(&self, split: usize, operator: usize) -> Timestamp {
        let watermark = self.watermarks.get(split).and_then(|of_split| of_split.get(operator));
        watermark.copied().unwrap_or(Timestamp::MIN)
    }

    /// Takes note of the watermark of a split by one operator.
    pub fn note_watermark(&mut self, split: usize, operator: usize, watermark: Timestamp) {
        let Some(of_split) = self.watermarks.get_mut(split) else { return };
        if of_split.len() <= operator {
            of_split.resize(operator + 1, Timestamp::MIN);
        }
        if let Some(slot) = of_split.get_mut(operator) {
            *slot = watermark;
        }
    }

    /// The watermarks of a split, to be saved with its position.
    pub(crate) fn watermarks(&self, split: usize) -> Vec<Timestamp> {
        self.watermarks.get(split).cloned().unwrap_or_default()
    }

    /// Takes note that a split has ended.
    pub(crate) fn end(&mut self, split: usize) {
        self.change(split, |status| status.ended = true);
    }

    /// Takes note of how long a split has had nothing.
    pub(crate) fn idle_for(&mut self, split: usize, time: Duration) {
        self.change(split, |status| status.idle_for = time);
    }

    fn change(&mut self, split: usize, change: impl FnOnce(&mut SplitStatus)) {
        let Some(status) = self.status.get_mut(split) else { return };
        let before = *status;
        change(status);
        if *status != before {
            self.changes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_change_only_if_it_is_one() {
        let mut splits = Splits::new([(false, vec![]), (true, vec![])]);
        splits.end(1);
        splits.idle_for(0, Duration::ZERO);
        splits.end(7);
        assert_eq!(splits.changes(), 0);
        splits.end(0);
        splits.idle_for(1, Duration::from_secs(1));
        assert_eq!(splits.changes(), 2);
        assert_eq!(splits.status()[1], SplitStatus { ended: true, idle_for: Duration::from_secs(1) });
    }

    #[test]
    fn keeps_the_watermarks_of_several_operators_apart() {
        let at = Timestamp::from_millis;
        let mut splits = Splits::new([(false, vec![at(1)]), (false, vec![])]);
        splits.note_watermark(0, 2, at(3));
        assert_eq!((splits.watermark(0, 0), splits.watermark(0, 1)), (at(1), Timestamp::MIN));
        assert_eq!(splits.watermarks(0), [at(1), Timestamp::MIN, at(3)]);
        assert!(splits.watermarks(1).is_empty());
    }
}
