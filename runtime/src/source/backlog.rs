//! Batches that a source has and that are not in the chain: what of them goes into the next micro-batch, and what stays.

use std::collections::VecDeque;

use crate::checkpoint::PlannedSplit;
use crate::id::OperatorId;
use crate::limits::EpochLimits;
use crate::operator::Amount;
use crate::position::{Position, SplitId};
use crate::source::Batch;
use crate::source::load::Load;
use crate::time::Timestamp;

/// Most records that [`Amount::All`] may bring together in one subtask: they are all in memory.
const CEILING: u64 = 4 << 20;

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
    /// What they amount to.
    load: Load,
    /// Most of a micro-batch; a single batch of more goes alone.
    limits: EpochLimits,
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
        limits: EpochLimits,
        replays: bool,
    ) -> Self {
        let (left, dry): (Vec<_>, Vec<_>) =
            splits.map(|(planned, ended)| (planned.map(|(records, end)| Left { records, end }), ended)).unzip();
        // A split of which the plan takes nothing gives nothing.
        let left = replays.then_some(left);
        let mut backlog = Self {
            planned: VecDeque::new(),
            ahead: VecDeque::new(),
            load: Load::default(),
            limits,
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
                self.planned.push_back(Item { split, batch: Batch::at(end), at: Timestamp::MIN, ended: false });
            }
        }
    }

    /// Says whether anything of a split is here.
    pub(super) fn has(&self, split: usize) -> bool {
        self.planned.iter().chain(&self.ahead).any(|item| item.split == split)
    }

    /// Says whether a further batch is wanted.
    pub(super) fn has_room(&self) -> bool {
        !self.load.fills(self.limits) || self.goes_on()
    }

    /// Takes the first batch, planned or not.
    pub(super) fn pop(&mut self) -> Option<Item<T>> {
        self.pop_planned().or_else(|| {
            let item = self.ahead.pop_front()?;
            self.load = self.load.minus(Load::of(&item.batch));
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
        (self.load, self.asked) = (Load::default(), None);
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
            // A file that ends in it ends behind the cut.
            let (files, bytes) = (std::mem::take(&mut item.batch.files), std::mem::take(&mut item.batch.bytes));
            let behind = Batch { records: rest, end: std::mem::replace(&mut item.batch.end, end), files, bytes };
            let behind = Item { split: item.split, batch: behind, at: item.at, ended: std::mem::take(&mut item.ended) };
            self.planned.push_back(item);
            item = behind;
        }
        self.load = self.load.plus(Load::of(&item.batch));
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
        if amount == Amount::All && self.load.records() > CEILING {
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
        let limits = if amount == Amount::All { EpochLimits::NONE } else { self.limits };
        let Some(count) = self.fitting(limits) else { return Ok(None) };
        self.asked = None;
        for item in self.ahead.drain(..count) {
            self.load = self.load.minus(Load::of(&item.batch));
            self.planned.push_back(item);
        }
        self.was_empty = self.planned.is_empty();
        Ok(Some((self.describe(operator, name), all_dry && self.ahead.is_empty())))
    }

    /// Counts the batches that fit into a micro-batch; nothing if it takes whole files and has to wait for the end of one.
    fn fitting(&self, limits: EpochLimits) -> Option<usize> {
        let (mut taken, mut count, mut whole) = (Load::default(), 0, 0);
        for item in &self.ahead {
            let load = Load::of(&item.batch);
            let with = taken.plus(load);
            if count > 0 && with.exceeds(limits) {
                break;
            }
            (taken, count) = (with, count + 1);
            if load.ends_file() || item.ended {
                whole = count;
            }
        }
        if limits.files.is_none() || count == 0 {
            return Some(count);
        }
        if whole > 0 {
            return Some(whole);
        }
        // The file is larger than a micro-batch may be. That its reader had nothing once says nothing of this file.
        (!self.has_room()).then_some(count)
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
mod tests;
