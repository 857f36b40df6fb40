//! The timers of an operator's keys: a table of what is registered, and the order in which it fires.

use std::cell::RefCell;
use std::rc::Rc;

use crate::canary::{Canary, planted};
use crate::state::cell::{Cells, Content, Element};
use crate::state::key_group::{KeyGroups, StreamKeyRef, hash_bytes};
use crate::state::keyed::scope::Scope;
use crate::state::packed::PackedKey;
use crate::state::table::{LoadError, Table, TableSetup};
use crate::time::Timestamp;
use crate::timer::{Due, TimerKind, TimerQueue};

/// A timer within its key. Its bytes are `[clock u8][time i64 with the sign bit flipped]`, big-endian, so that they sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerAt {
    kind: TimerKind,
    time: Timestamp,
}

impl Element for TimerAt {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self.kind {
            TimerKind::EventTime => 0,
            TimerKind::ProcessingTime => 1,
        });
        out.extend_from_slice(&(self.time.as_micros() ^ i64::MIN).to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, time) = bytes.split_first()?;
        let kind = match kind {
            0 => TimerKind::EventTime,
            1 => TimerKind::ProcessingTime,
            _ => return None,
        };
        let time = Timestamp::from_micros(i64::from_be_bytes(time.try_into().ok()?) ^ i64::MIN);
        Some(Self { kind, time })
    }
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTimer {
    /// Its clock.
    pub kind: TimerKind,
    /// Its time.
    pub time: Timestamp,
    key: PackedKey,
}

pub(super) type TimerTable = Table<PackedKey, Cells<TimerAt, ()>>;

/// The timers of one clock.
#[derive(Debug, Default)]
struct Queues {
    coming: TimerQueue<PackedKey>,
    /// Those that were in the past when they were registered. They fire behind the call that registered them, so their keys
    /// are in memory, wherever those of the others are.
    past: TimerQueue<PackedKey>,
}

/// All timers of an operator in one subtask.
#[derive(Debug)]
pub struct KeyTimers {
    key_groups: KeyGroups,
    pub(super) table: RefCell<TimerTable>,
    event_time: RefCell<Queues>,
    processing_time: RefCell<Queues>,
    scope: Rc<Scope>,
}

impl KeyTimers {
    pub(super) fn new(setup: TableSetup, scope: Rc<Scope>) -> Self {
        Self {
            key_groups: setup.key_groups,
            table: RefCell::new(Table::new(setup)),
            event_time: RefCell::default(),
            processing_time: RefCell::default(),
            scope,
        }
    }

    const fn queues(&self, kind: TimerKind) -> &RefCell<Queues> {
        match kind {
            TimerKind::EventTime => &self.event_time,
            TimerKind::ProcessingTime => &self.processing_time,
        }
    }

    fn due(&self, hash: u32, key: &PackedKey, time: Timestamp) -> Due<PackedKey> {
        Due { time, group: self.key_groups.group(hash), key: key.clone() }
    }

    fn is_registered(&self, hash: u32, key: &PackedKey, timer: TimerAt) -> bool {
        let table = self.table.borrow();
        let cell = table.content(hash, key).and_then(|timers| timers.cell(&timer));
        cell.is_some_and(|cell| cell.value().is_some())
    }

    /// Registers a timer of the current key; says whether it is new. One that is there already stays as it is. A timer in the past
    /// is legal: it fires right behind the present call.
    pub fn register(&self, kind: TimerKind, time: Timestamp) -> bool {
        let Some(key) = self.scope.key_to_change() else { return false };
        let (hash, key) = &*key;
        let timer = TimerAt { kind, time };
        if self.is_registered(*hash, key, timer) {
            return false;
        }
        match self.table.borrow_mut().touch(*hash, key, &timer) {
            Ok(place) => *place = Some(()),
            Err(error) => {
                self.scope.fail(error);
                return false;
            }
        }
        let reached = match kind {
            TimerKind::EventTime => self.scope.event_time(),
            TimerKind::ProcessingTime => Some(self.scope.now()),
        };
        let mut queues = self.queues(kind).borrow_mut();
        let is_past = reached.is_some_and(|reached| time <= reached);
        let queue = if is_past { &mut queues.past } else { &mut queues.coming };
        queue.insert(self.due(*hash, key, time))
    }

    /// Deletes a timer of the current key; says whether it was there. It never fires.
    pub fn delete(&self, kind: TimerKind, time: Timestamp) -> bool {
        let Some(key) = self.scope.key_to_change() else { return false };
        let (hash, key) = &*key;
        let deleted = self.remove(*hash, key, TimerAt { kind, time });
        let mut queues = self.queues(kind).borrow_mut();
        let due = self.due(*hash, key, time);
        // One that fires at this moment is in no queue any more.
        let _ = queues.coming.remove(&due) || queues.past.remove(&due);
        deleted
    }

    /// Returns the current key's timers of one clock, in ascending order. The one that fires is still among them.
    pub fn list(&self, kind: TimerKind) -> Vec<Timestamp> {
        let Some(key) = self.scope.key() else { return Vec::new() };
        let (hash, key) = &*key;
        let table = self.table.borrow();
        let Some(timers) = table.content(*hash, key) else { return Vec::new() };
        let registered = timers.cells().filter(|(timer, cell)| timer.kind == kind && cell.value().is_some());
        registered.map(|(timer, _)| timer.time).collect()
    }

    fn remove(&self, hash: u32, key: &PackedKey, timer: TimerAt) -> bool {
        let taken = self.table.borrow_mut().take(hash, key, &timer);
        taken.map_err(|error| self.scope.fail(error)).is_ok_and(|taken| taken.is_some())
    }

    /// Takes the next timer that is due at `until`, inclusive; those that were registered in the past come in their order
    /// among them.
    pub(super) fn pop_due(&self, kind: TimerKind, until: Timestamp) -> Option<DueTimer> {
        loop {
            let due = {
                let mut queues = self.queues(kind).borrow_mut();
                let past_first = match (queues.past.first(), queues.coming.first()) {
                    (Some(past), Some(coming)) => past <= coming,
                    (past, _) => past.is_some(),
                };
                if past_first { queues.past.pop_due(Timestamp::MAX) } else { queues.coming.pop_due(until) }
            };
            if let Some(timer) = self.still(kind, due?) {
                return Some(timer);
            }
        }
    }

    /// Takes the next timer that was in the past when it was registered.
    pub(super) fn pop_past(&self, kind: TimerKind) -> Option<DueTimer> {
        loop {
            let due = self.queues(kind).borrow_mut().past.pop_due(Timestamp::MAX)?;
            if let Some(timer) = self.still(kind, due) {
                return Some(timer);
            }
        }
    }

    /// The key's state decides whether a timer of the queue exists.
    fn still(&self, kind: TimerKind, due: Due<PackedKey>) -> Option<DueTimer> {
        let Due { time, key, .. } = due;
        let hash = hash_bytes(key.as_bytes());
        self.is_registered(hash, &key, TimerAt { kind, time }).then_some(DueTimer { kind, time, key })
    }

    /// Makes a due timer's key the current one.
    pub(super) fn enter(&self, timer: &DueTimer) {
        self.scope.set_key(hash_bytes(timer.key.as_bytes()), timer.key.as_bytes());
    }

    /// Removes a timer that has fired.
    pub(super) fn fired(&self, timer: &DueTimer) {
        if planted(Canary::TimerFiredTwice) {
            return;
        }
        let DueTimer { kind, time, key } = timer;
        self.remove(hash_bytes(key.as_bytes()), key, TimerAt { kind: *kind, time: *time });
    }

    /// When the first timer of this clock is due.
    pub(super) fn first(&self, kind: TimerKind) -> Option<Timestamp> {
        let queues = self.queues(kind).borrow();
        let [past, coming] = [&queues.past, &queues.coming].map(|queue| queue.first().map(|first| first.time));
        past.into_iter().chain(coming).min()
    }

    pub(super) fn load(&self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        let mut table = self.table.borrow_mut();
        table.load(chunks)?;
        if planted(Canary::TimerLostOnRestore) {
            return Ok(());
        }
        for (key, timers) in table.iter() {
            let hash = key.key_hash(&mut Vec::new());
            for (timer, _) in timers.cells().filter(|(_, cell)| cell.value().is_some()) {
                self.queues(timer.kind).borrow_mut().coming.insert(self.due(hash, key, timer.time));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_written_so_that_its_bytes_sort_by_time() {
        let mut last: Option<Vec<u8>> = None;
        for kind in [TimerKind::EventTime, TimerKind::ProcessingTime] {
            for micros in [i64::MIN, -1, 0, 1, i64::MAX] {
                let timer = TimerAt { kind, time: Timestamp::from_micros(micros) };
                let mut bytes = Vec::new();
                timer.write(&mut bytes);
                assert_eq!(TimerAt::read(&bytes), Some(timer));
                assert!(last.as_ref().is_none_or(|last| *last < bytes));
                last = Some(bytes);
            }
        }
        let zero = TimerAt { kind: TimerKind::EventTime, time: Timestamp::from_micros(0) };
        let mut bytes = Vec::new();
        zero.write(&mut bytes);
        assert_eq!(bytes, [0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(TimerAt::read(&[2, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(TimerAt::read(&[0, 0]), None);
    }
}
