//! Batches that a source has and that are not in the chain: what of them goes into the next micro-batch, and what stays.

use std::collections::VecDeque;

use crate::checkpoint::PlannedSplit;
use crate::id::OperatorId;
use crate::operator::Amount;
use crate::position::{Position, SplitId};
use crate::source::Batch;
use crate::time::Timestamp;

/// Most records that [`Amount::All`] may bring together in one subtask: they are all in memory.
const CEILING: usize = 4 << 20;

/// A batch of a split.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) split: usize,
    pub(super) batch: Batch<T>,
    /// When the reader gave it.
    pub(super) at: Timestamp,
    pub(super) ended: bool,
}

/// What a plan that was found in the store still wants of a split.
#[derive(Debug)]
struct Left {
    records: u64,
    end: Position,
}

/// A plan that was found in the store wants records that the source does not give any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the split ends {missing} records before the end of the micro-batch that had begun; a source has to give the same records from a \
     position again"
)]
pub(super) struct Fewer {
    missing: u64,
}

/// More than fits into memory was to go into one micro-batch.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {CEILING} records are there, and Trigger::Once takes all of them into one micro-batch; use Trigger::AvailableNow with \
     max_records_per_epoch"
)]
pub(super) struct TooMany;

/// See the module.
#[derive(Debug)]
pub(super) struct Backlog<T> {
    /// Of the micro-batch that is planned, in order.
    planned: VecDeque<Item<T>>,
    /// Behind them.
    ahead: VecDeque<Item<T>>,
    records: usize,
    /// Most records of a micro-batch; a single batch of more goes alone.
    limit: usize,
    /// Which splits had nothing, or ended, since the attempt began.
    dry: Vec<bool>,
    /// By split, while a plan that was found is put together.
    left: Option<Vec<Option<Left>>>,
    asked: Option<Amount>,
    /// The last answer was that there is nothing.
    was_empty: bool,
}

impl<T> Backlog<T> {
    /// Begins with what a plan that was found takes of each split, if one was (`replays`), and with the splits that have ended.
    pub(super) fn new(
        splits: impl Iterator<Item = (Option<(u64, Position)>, bool)>,
        limit: usize,
        replays: bool,
    ) -> Self {
        let (left, dry): (Vec<_>, Vec<_>) =
            splits.map(|(planned, ended)| (planned.map(|(records, end)| Left { records, end }), ended)).unzip();
        // A split of which the plan takes nothing gives nothing.
        let left = replays.then_some(left);
        let mut backlog = Self {
            planned: VecDeque::new(),
            ahead: VecDeque::new(),
            records: 0,
            limit: limit.max(1),
            dry,
            left,
            asked: None,
            was_empty: false,
        };
        backlog.move_places();
        backlog
    }

    /// Splits of which only the place moves in the plan that was found.
    fn move_places(&mut self) {
        for (split, left) in self.left.iter_mut().flatten().enumerate() {
            if let Some(Left { end, .. }) = left.take_if(|left| left.records == 0) {
                self.planned.push_back(Item {
                    split,
                    batch: Batch { records: Vec::new(), end },
                    at: Timestamp::MIN,
                    ended: false,
                });
            }
        }
    }

    /// Says whether anything of a split is here.
    pub(super) fn has(&self, split: usize) -> bool {
        self.planned.iter().chain(&self.ahead).any(|item| item.split == split)
    }

    /// Says whether a further batch is wanted.
    pub(super) fn has_room(&self) -> bool {
        self.records < self.limit || self.goes_on()
    }

    /// Takes the first batch, planned or not.
    pub(super) fn pop(&mut self) -> Option<Item<T>> {
        self.pop_planned().or_else(|| {
            let item = self.ahead.pop_front()?;
            self.records -= item.batch.records.len();
            Some(item)
        })
    }

    /// Takes the next batch of the micro-batch.
    pub(super) fn pop_planned(&mut self) -> Option<Item<T>> {
        self.planned.pop_front()
    }

    /// Drops everything: the attempt takes nothing more.
    pub(super) fn clear(&mut self) {
        self.planned.clear();
        self.ahead.clear();
        (self.records, self.asked) = (0, None);
    }

    /// Says whether a micro-batch is being put together that takes what it takes: everything, or what a plan says that was found.
    pub(super) fn goes_on(&self) -> bool {
        self.left.is_some() || self.asked == Some(Amount::All)
    }

    /// Asks for an answer.
    pub(super) const fn ask(&mut self, amount: Amount) {
        self.asked = Some(amount);
    }

    /// A reader had nothing.
    pub(super) fn note_dry(&mut self, split: usize) {
        if let Some(dry) = self.dry.get_mut(split) {
            *dry = true;
        }
    }

    /// Takes a batch from a reader.
    ///
    /// # Errors
    /// [`Fewer`] when the split ends before it has given what a plan that was found takes of it.
    pub(super) fn push(&mut self, mut item: Item<T>) -> Result<(), Fewer> {
        if item.ended {
            self.note_dry(item.split);
        }
        let left = self.left.as_mut().and_then(|left| left.get_mut(item.split));
        if let Some(slot) = left
            && let Some(left) = slot
        {
            let wanted = usize::try_from(left.records).unwrap_or(usize::MAX);
            if item.batch.records.len() < wanted {
                left.records -= item.batch.records.len() as u64;
                let missing = left.records;
                if item.ended {
                    return Err(Fewer { missing });
                }
                self.planned.push_back(item);
                return Ok(());
            }
            let rest = item.batch.records.split_off(wanted);
            let end = std::mem::take(&mut left.end);
            *slot = None;
            if rest.is_empty() && !item.ended {
                item.batch.end = end;
                self.planned.push_back(item);
                return Ok(());
            }
            let behind = Batch { records: rest, end: std::mem::replace(&mut item.batch.end, end) };
            let behind = Item { split: item.split, batch: behind, at: item.at, ended: std::mem::take(&mut item.ended) };
            self.planned.push_back(item);
            item = behind;
        }
        self.records += item.batch.records.len();
        self.ahead.push_back(item);
        Ok(())
    }

    /// Says that something came although the last answer was that there is nothing; once.
    pub(super) fn take_news(&mut self, stopped: bool) -> bool {
        !stopped && !self.ahead.is_empty() && std::mem::take(&mut self.was_empty)
    }

    /// Answers, if it was asked and knows: what goes into the micro-batch, and whether that is everything. `more`: there may be more
    /// at once; `stopped`: no records pass now, so an epoch has none.
    ///
    /// # Errors
    /// [`TooMany`] for [`Amount::All`].
    pub(super) fn answer(
        &mut self,
        operator: OperatorId,
        name: impl Fn(usize) -> Option<SplitId>,
        (more, stopped): (bool, bool),
    ) -> Result<Option<(Vec<PlannedSplit>, bool)>, TooMany> {
        let Some(amount) = self.asked else { return Ok(None) };
        if let Some(left) = &self.left {
            if left.iter().any(Option::is_some) {
                return Ok(None);
            }
            (self.left, self.asked) = (None, None);
            return Ok(Some((Vec::new(), false)));
        }
        if stopped && amount != Amount::All {
            (self.asked, self.was_empty) = (None, true);
            return Ok(Some((Vec::new(), false)));
        }
        if amount == Amount::All && self.records > CEILING {
            return Err(TooMany);
        }
        let all_dry = self.dry.iter().all(|dry| *dry);
        let knows = match amount {
            Amount::AtHand => !more,
            Amount::ThereIs => !more && (all_dry || !self.has_room()),
            Amount::All => !more && all_dry,
        };
        if !knows {
            return Ok(None);
        }
        self.asked = None;
        let limit = if amount == Amount::All { usize::MAX } else { self.limit };
        let mut taken = 0;
        while let Some(records) = self.ahead.front().map(|item| item.batch.records.len()) {
            if taken > 0 && taken + records > limit {
                break;
            }
            taken += records;
            self.records -= records;
            self.planned.extend(self.ahead.pop_front());
        }
        self.was_empty = self.planned.is_empty();
        Ok(Some((self.describe(operator, name), all_dry && self.ahead.is_empty())))
    }

    fn describe(&self, operator: OperatorId, name: impl Fn(usize) -> Option<SplitId>) -> Vec<PlannedSplit> {
        let mut splits: Vec<(usize, PlannedSplit)> = Vec::new();
        for item in &self.planned {
            let (records, end) = (item.batch.records.len() as u64, item.batch.end.clone());
            if let Some((_, planned)) = splits.iter_mut().find(|(split, _)| *split == item.split) {
                planned.records += records;
                planned.end = end;
            } else if let Some(split) = name(item.split) {
                splits.push((item.split, PlannedSplit { operator, split, records, end }));
            }
        }
        splits.into_iter().map(|(_, planned)| planned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    /// Records `from..to` of a split, whose end position is `to`.
    fn item(split: usize, from: u64, to: u64) -> Item<u64> {
        let batch = Batch { records: (from..to).map(Record::new).collect(), end: Position::from_u64(to) };
        Item { split, batch, at: Timestamp::MIN, ended: false }
    }

    fn backlog(planned: &[Option<(u64, u64)>], limit: usize) -> Backlog<u64> {
        let replays = planned.iter().any(Option::is_some);
        let planned = planned.iter().map(|split| split.map(|(records, end)| (records, Position::from_u64(end))));
        Backlog::new(planned.map(|planned| (planned, false)), limit, replays)
    }

    fn answer(backlog: &mut Backlog<u64>, more: bool, stopped: bool) -> Option<(Vec<(u64, u64)>, bool)> {
        let name = |split: usize| Some(SplitId::new(split.to_string()));
        let (splits, dry) = backlog.answer(OperatorId::default(), name, (more, stopped)).unwrap()?;
        Some((splits.iter().map(|split| (split.records, split.end.as_u64().unwrap())).collect(), dry))
    }

    fn passed(backlog: &mut Backlog<u64>) -> Vec<(usize, Vec<u64>, u64)> {
        let items = std::iter::from_fn(|| backlog.pop_planned());
        let of = |item: Item<u64>| {
            let records = item.batch.records.iter().map(|record| record.value).collect();
            (item.split, records, item.batch.end.as_u64().unwrap())
        };
        items.map(of).collect()
    }

    #[test]
    fn a_batch_is_what_is_at_hand_within_the_limit() {
        let mut backlog = backlog(&[None, None], 5);
        backlog.push(item(0, 0, 3)).unwrap();
        backlog.push(item(1, 0, 2)).unwrap();
        assert!(!backlog.has_room());
        backlog.push(item(0, 3, 4)).unwrap();
        assert_eq!(answer(&mut backlog, false, false), None, "nobody asked");
        backlog.ask(Amount::AtHand);
        assert_eq!(answer(&mut backlog, true, false), None, "there may be more at once");
        assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 3), (2, 2)], false)));
        assert_eq!(passed(&mut backlog), [(0, vec![0, 1, 2], 3), (1, vec![0, 1], 2)]);
        assert!(backlog.has(0) && !backlog.has(1));
    }

    #[test]
    fn what_there_is_waits_until_every_split_has_had_nothing() {
        let mut backlog = backlog(&[None, None], 100);
        backlog.push(item(0, 0, 3)).unwrap();
        backlog.ask(Amount::ThereIs);
        backlog.note_dry(0);
        assert_eq!(answer(&mut backlog, false, false), None);
        backlog.push(Item { ended: true, ..item(1, 0, 1) }).unwrap();
        assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 3), (1, 1)], true)));
    }

    #[test]
    fn while_records_are_held_back_a_batch_has_none_and_says_so_again_behind_it() {
        let mut backlog = backlog(&[None], 100);
        backlog.push(item(0, 0, 3)).unwrap();
        backlog.ask(Amount::AtHand);
        assert_eq!(answer(&mut backlog, false, true), Some((vec![], false)));
        assert!(!backlog.take_news(true) && backlog.take_news(false) && !backlog.take_news(false));
    }

    #[test]
    fn a_plan_that_was_found_takes_the_same_records_however_they_are_cut_now() {
        let mut backlog = backlog(&[Some((4, 10)), None, Some((0, 7))], 1);
        backlog.ask(Amount::AtHand);
        backlog.push(item(1, 0, 2)).unwrap();
        backlog.push(item(0, 6, 9)).unwrap();
        assert_eq!(answer(&mut backlog, false, true), None);
        backlog.push(item(0, 9, 12)).unwrap();
        assert_eq!(answer(&mut backlog, false, true), Some((vec![], false)));
        assert_eq!(passed(&mut backlog), [(2, vec![], 7), (0, vec![6, 7, 8], 9), (0, vec![9], 10)]);
        // The rest stays in order.
        backlog.ask(Amount::ThereIs);
        (0..3).for_each(|split| backlog.note_dry(split));
        assert_eq!(answer(&mut backlog, false, false), Some((vec![(2, 2)], false)));
        backlog.ask(Amount::AtHand);
        passed(&mut backlog);
        assert_eq!(answer(&mut backlog, false, false), Some((vec![(2, 12)], true)));
    }

    #[test]
    fn a_source_of_which_the_plan_takes_nothing_gives_nothing() {
        let mut backlog: Backlog<u64> = Backlog::new([(None, false)].into_iter(), 100, true);
        backlog.push(item(0, 0, 3)).unwrap();
        backlog.ask(Amount::AtHand);
        assert_eq!(answer(&mut backlog, false, false), Some((vec![], false)));
        assert_eq!(passed(&mut backlog), []);
        backlog.ask(Amount::AtHand);
        assert_eq!(answer(&mut backlog, false, false), Some((vec![(3, 3)], false)));
    }

    #[test]
    fn a_split_with_fewer_records_than_were_planned_is_an_error() {
        let mut backlog = backlog(&[Some((4, 10))], 1);
        let error = backlog.push(Item { ended: true, ..item(0, 6, 9) }).unwrap_err();
        let text = "the split ends 1 records before the end of the micro-batch that had begun; a source has to give the same \
                    records from a position again";
        assert_eq!(error.to_string(), text);
    }
}
