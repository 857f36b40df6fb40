//! Epochs in flight: who has reported, and which epoch is complete. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::canary::{Canary, planted};
use crate::checkpoint::{EpochBundle, Part};
use crate::id::{Attempt, Epoch, SubtaskId};
use crate::time::Timestamp;

#[derive(Debug)]
struct InFlight {
    parts: BTreeMap<SubtaskId, Part>,
    begun: Timestamp,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// It belongs to an epoch in flight.
    Taken,
    /// It is of another attempt and was dropped.
    OldAttempt,
    /// It is of an epoch that is not in flight, or came twice: a bug in this library.
    Unexpected,
}

/// The epochs of one attempt whose barrier is out and whose parts are not all in.
#[derive(Debug)]
pub struct EpochCoordinator {
    attempt: Attempt,
    subtasks: BTreeSet<SubtaskId>,
    in_flight: BTreeMap<Epoch, InFlight>,
}

impl EpochCoordinator {
    /// Begins without an epoch in flight.
    pub fn new(attempt: Attempt, subtasks: impl IntoIterator<Item = SubtaskId>) -> Self {
        Self { attempt, subtasks: subtasks.into_iter().collect(), in_flight: BTreeMap::new() }
    }

    /// Takes note that an epoch's barrier goes out.
    pub fn begin(&mut self, epoch: Epoch, now: Timestamp) {
        self.in_flight.insert(epoch, InFlight { parts: BTreeMap::new(), begun: now });
    }

    /// How many epochs are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The oldest epoch in flight, when its barrier went out, and who has not reported.
    pub fn oldest(&self) -> Option<(Epoch, Timestamp, Vec<SubtaskId>)> {
        let (epoch, oldest) = self.in_flight.first_key_value()?;
        let missing = self.subtasks.iter().filter(|subtask| !oldest.parts.contains_key(subtask));
        Some((*epoch, oldest.begun, missing.copied().collect()))
    }

    /// Takes a part.
    pub fn on_part(&mut self, part: Part) -> Reported {
        if part.attempt != self.attempt && !planted(Canary::OldAttemptPart) {
            return Reported::OldAttempt;
        }
        let Some(in_flight) = self.in_flight.get_mut(&part.epoch) else { return Reported::Unexpected };
        if in_flight.parts.contains_key(&part.subtask) {
            return if planted(Canary::OldAttemptPart) { Reported::Taken } else { Reported::Unexpected };
        }
        in_flight.parts.insert(part.subtask, part);
        Reported::Taken
    }

    /// Takes the oldest epoch if all its parts are in. Epochs come out in order, without a gap.
    pub fn take_complete(&mut self) -> Option<EpochBundle> {
        let (_, oldest) = self.in_flight.first_key_value()?;
        let needed = self.subtasks.len();
        let complete = oldest.parts.len() == needed
            || (planted(Canary::CommitBeforeComplete) && oldest.parts.len() + 1 == needed && needed > 1);
        if !complete {
            return None;
        }
        let (epoch, done) = self.in_flight.pop_first()?;
        let parts = done.parts.into_values().collect();
        Some(EpochBundle { attempt: self.attempt, epoch, parts, closing: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::TaskId;

    fn subtask(index: u16) -> SubtaskId {
        SubtaskId { task: TaskId::new(0), index }
    }

    fn part(attempt: u64, epoch: u64, index: u16) -> Part {
        Part::new(Attempt::new(attempt), Epoch::new(epoch), subtask(index))
    }

    #[test]
    fn an_epoch_is_complete_when_every_subtask_has_reported_and_comes_out_in_order() {
        let mut coordinator = EpochCoordinator::new(Attempt::new(1), [subtask(0), subtask(1)]);
        for epoch in [1, 2] {
            coordinator.begin(Epoch::new(epoch), Timestamp::default());
        }
        for (epoch, index) in [(2, 0), (2, 1), (1, 1)] {
            assert_eq!(coordinator.on_part(part(1, epoch, index)), Reported::Taken);
            assert!(coordinator.take_complete().is_none());
        }
        let (epoch, _, missing) = coordinator.oldest().unwrap();
        assert_eq!((epoch, missing), (Epoch::new(1), vec![subtask(0)]));
        assert_eq!(coordinator.on_part(part(1, 1, 0)), Reported::Taken);
        let order: Vec<_> = std::iter::from_fn(|| coordinator.take_complete()).map(|bundle| bundle.epoch).collect();
        assert_eq!(order, [Epoch::new(1), Epoch::new(2)]);
    }

    #[test]
    fn a_part_of_another_attempt_is_dropped() {
        let mut coordinator = EpochCoordinator::new(Attempt::new(2), [subtask(0)]);
        coordinator.begin(Epoch::new(1), Timestamp::default());
        assert_eq!(coordinator.on_part(part(1, 1, 0)), Reported::OldAttempt);
        assert_eq!(coordinator.on_part(part(2, 3, 0)), Reported::Unexpected);
        assert!(coordinator.take_complete().is_none());
    }
}
