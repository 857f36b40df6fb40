//! What waits in a micro-batch until nothing of it can come any more: the rows of a key, and the last row of one.
//!
//! Both are always in the chain, and let everything pass where records pass as they come. Neither says which mode it runs in, and
//! neither has state: they are empty behind every barrier.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::canary::{Canary, planted};
use crate::channel::Mark;
use crate::error::BoxError;
use crate::operator::{Fired, FrameInput, OpenContext, Operator, TaskClock};
use crate::record::Record;

/// One or more records that belong together, each with its time. One alone takes no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bunch<T> {
    /// The first one that came.
    pub first: Record<T>,
    /// Those that came behind it, in their order.
    pub rest: Vec<Record<T>>,
}

impl<T> Bunch<T> {
    /// Makes it of one record.
    pub const fn one(record: Record<T>) -> Self {
        Self { first: record, rest: Vec::new() }
    }

    /// All of them, in their order.
    pub fn into_records(self) -> impl Iterator<Item = Record<T>> {
        std::iter::once(self.first).chain(self.rest)
    }
}

/// Puts the records of one key together: all that a micro-batch has of it, or one at a time. Part of an operator that wants them so; it
/// gives every record to [`GroupBuffer::take`], and asks [`GroupBuffer::pop`] while it is told to fire.
pub struct GroupBuffer<T> {
    clock: Arc<TaskClock>,
    /// By key as bytes.
    groups: BTreeMap<Vec<u8>, Bunch<T>>,
}

impl<T> fmt::Debug for GroupBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBuffer").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl<T> GroupBuffer<T> {
    /// Makes that of one subtask.
    pub fn of(open: &OpenContext) -> Self {
        Self { clock: Arc::clone(&open.batch), groups: BTreeMap::new() }
    }

    /// Takes a record, and gives it back at once where records pass as they come. `key` writes the bytes of its key; it is asked only if
    /// the record is kept.
    pub fn take(&mut self, record: Record<T>, key: impl FnOnce(&T, &mut Vec<u8>)) -> Option<Bunch<T>> {
        if !self.clock.in_batch() {
            return Some(Bunch::one(record));
        }
        let mut bytes = Vec::new();
        key(&record.value, &mut bytes);
        match self.groups.entry(bytes) {
            std::collections::btree_map::Entry::Occupied(mut group) => group.get_mut().rest.push(record),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Bunch::one(record));
            }
        }
        None
    }

    /// Returns the records of one key that were kept, by the order of the keys' bytes.
    pub fn pop(&mut self) -> Option<Bunch<T>> {
        self.groups.pop_first().map(|(_, group)| group)
    }
}

/// Sends only the last record of each key in a micro-batch, in front of its next mark; records that pass as they come pass here.
/// Stands behind operators whose every result replaces the one before of its key, as in update mode.
pub struct Coalescer<T, F> {
    clock: Arc<TaskClock>,
    key: F,
    scratch: Vec<u8>,
    /// By key as bytes.
    last: BTreeMap<Vec<u8>, Record<T>>,
}

impl<T, F> fmt::Debug for Coalescer<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coalescer").field("keys", &self.last.len()).finish_non_exhaustive()
    }
}

impl<T, F: Fn(&T, &mut Vec<u8>) -> bool> Coalescer<T, F> {
    /// Makes that of one subtask. `key` writes the bytes of what a record is the result of, or says `false`: then the record replaces no
    /// other one, and goes on at once.
    pub fn new(open: &OpenContext, key: F) -> Self {
        Self { clock: Arc::clone(&open.batch), key, scratch: Vec::new(), last: BTreeMap::new() }
    }
}

impl<T: 'static, F: Fn(&T, &mut Vec<u8>) -> bool + 'static> Operator for Coalescer<T, F> {
    type In = T;
    type Out = T;

    #[inline]
    fn next(&mut self, input: &mut FrameInput<T>) -> Result<Option<Record<T>>, BoxError> {
        if !self.clock.in_batch() {
            return Ok(input.pop());
        }
        while let Some(record) = input.pop() {
            self.scratch.clear();
            if !(self.key)(&record.value, &mut self.scratch) {
                return Ok(Some(record));
            }
            match self.last.get_mut(&self.scratch) {
                Some(last) => *last = record,
                None => drop(self.last.insert(self.scratch.clone(), record)),
            }
        }
        Ok(None)
    }

    fn on_mark(&mut self, _mark: Mark) -> Result<(), BoxError> {
        if planted(Canary::CoalescerDropsKey) && self.last.len() > 1 {
            self.last.pop_last();
        }
        Ok(())
    }

    fn fire(&mut self) -> Result<Fired<T>, BoxError> {
        Ok(self.last.pop_first().map_or(Fired::Done, |(_, record)| Fired::Record(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::BatchTime;
    use crate::time::SystemClock;

    fn clock() -> Arc<TaskClock> {
        Arc::new(TaskClock::new(Arc::new(SystemClock::new()), BatchTime::default()))
    }

    fn records(values: &[(u8, u8)]) -> Vec<Record<(u8, u8)>> {
        values.iter().map(|value| Record::new(*value)).collect()
    }

    fn values<T>(records: impl IntoIterator<Item = Record<T>>) -> Vec<T> {
        records.into_iter().map(|record| record.value).collect()
    }

    #[test]
    fn rows_of_a_key_come_together_in_a_micro_batch_and_alone_otherwise() {
        let clock = clock();
        let mut buffer = GroupBuffer { clock: Arc::clone(&clock), groups: BTreeMap::new() };
        let key = |(key, _): &(u8, u8), bytes: &mut Vec<u8>| bytes.push(*key);
        let passed: Vec<_> = records(&[(1, 1), (1, 2)]).into_iter().map(|record| buffer.take(record, key)).collect();
        assert_eq!(
            passed,
            records(&[(1, 1), (1, 2)]).into_iter().map(|record| Some(Bunch::one(record))).collect::<Vec<_>>()
        );
        clock.set_in_batch(true);
        for record in records(&[(2, 1), (1, 2), (2, 3), (2, 4)]) {
            assert_eq!(buffer.take(record, key), None);
        }
        let groups: Vec<_> = std::iter::from_fn(|| buffer.pop()).map(|group| values(group.into_records())).collect();
        assert_eq!(groups, [vec![(1, 2)], vec![(2, 1), (2, 3), (2, 4)]]);
    }

    #[test]
    fn the_last_row_of_a_key_goes_on_in_a_micro_batch_and_all_of_them_otherwise() {
        let clock = clock();
        let key = |(key, _): &(u8, u8), bytes: &mut Vec<u8>| {
            bytes.push(*key);
            *key < 9
        };
        let mut coalescer = Coalescer { clock: Arc::clone(&clock), key, scratch: Vec::new(), last: BTreeMap::new() };
        let mut run = |values_in: &[(u8, u8)]| {
            let mut input = FrameInput::from(records(values_in));
            let at_once = values(std::iter::from_fn(|| coalescer.next(&mut input).unwrap()));
            coalescer.on_mark(Mark::Watermark(crate::time::Timestamp::from_millis(1))).unwrap();
            let fired = std::iter::from_fn(|| match coalescer.fire().unwrap() {
                Fired::Record(record) => Some(record),
                Fired::Missing | Fired::Done => None,
            });
            (at_once, values(fired))
        };
        assert_eq!(run(&[(1, 1), (1, 2)]), (vec![(1, 1), (1, 2)], vec![]));
        clock.set_in_batch(true);
        assert_eq!(run(&[(2, 1), (1, 2), (9, 1), (2, 3), (9, 2)]), (vec![(9, 1), (9, 2)], vec![(1, 2), (2, 3)]));
        assert_eq!(run(&[]), (vec![], vec![]));
    }
}
