//! The timers of an operator's keys: a table of what is registered, and the order in which it fires.
//!
//! What the log has and what was registered since is in the queue. Timers of rows come into it page by page, in the order of their
//! time, from the rows that a fold makes for that; up to its horizon the queue knows all of them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::codec::CodecError;
use crate::id::{Epoch, OperatorId};
use crate::state::cell::{Cells, Content, Element};
use crate::state::entry;
use crate::state::freeze::{OperatorState, Rest, Slice, Snapshot};
use crate::state::key_group::{KeyGroups, hash_bytes};
use crate::state::keyed::bound::Part;
use crate::state::keyed::scope::Scope;
use crate::state::packed::PackedKey;
use crate::state::read::{Found, Look};
use crate::state::table::{LoadError, Table, TableSetup};
use crate::time::Timestamp;
use crate::timer::{Due, TimerKind, TimerQueue};

/// A timer within its key. Its bytes sort by clock and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerAt {
    kind: TimerKind,
    time: Timestamp,
}

impl Element for TimerAt {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&entry::timer_element(number(self.kind), self.time));
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, time) = entry::parse_timer_element(bytes)?;
        let kind = match kind {
            0 => TimerKind::EventTime,
            1 => TimerKind::ProcessingTime,
            _ => return None,
        };
        Some(Self { kind, time })
    }
}

/// The clock's number on disk.
const fn number(kind: TimerKind) -> u8 {
    match kind {
        TimerKind::EventTime => 0,
        TimerKind::ProcessingTime => 1,
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
    /// Rows of one look into the timers by their time; more, where more than that have one time.
    page: usize,
}

/// Rows of timers that are read at once.
const PAGE: usize = 1024;

/// The first timer that is due, as far as it is known.
pub(super) enum Peeked {
    /// The timer's key.
    Due(PackedKey),
    /// The timers of this time are not in memory.
    Unknown,
    /// None is due.
    Nothing,
}

/// All timers of an operator in one subtask.
#[derive(Debug)]
pub struct KeyTimers {
    operator: OperatorId,
    groups: Range<u16>,
    key_groups: KeyGroups,
    table: RefCell<TimerTable>,
    event_time: RefCell<Queues>,
    processing_time: RefCell<Queues>,
    /// Timers that the call in work took out of their queue, and whether that was the one of the past. One that it put in
    /// needs no note: its key decides that it does not exist.
    deleted: RefCell<Option<Vec<Deleted>>>,
    scope: Rc<Scope>,
}

#[derive(Debug)]
struct Deleted {
    kind: TimerKind,
    due: Due<PackedKey>,
    past: bool,
}

impl KeyTimers {
    pub(super) fn new(setup: TableSetup, scope: Rc<Scope>) -> Self {
        let queues = || {
            let mut queues = Queues { page: PAGE, ..Queues::default() };
            if setup.has_rows {
                queues.coming.set_horizon(Timestamp::MIN);
            }
            RefCell::new(queues)
        };
        let (event_time, processing_time) = (queues(), queues());
        let (operator, groups, key_groups) = (setup.operator, setup.groups.clone(), setup.key_groups);
        Self {
            operator,
            groups,
            key_groups,
            table: RefCell::new(Table::new(setup)),
            event_time,
            processing_time,
            deleted: RefCell::default(),
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
        let past = !queues.coming.remove(&due) && queues.past.remove(&due);
        if let Some(noted) = &mut *self.deleted.borrow_mut() {
            noted.push(Deleted { kind, due, past });
        }
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

    /// Looks at the next timer that is due at `until`, inclusive. What is registered of it is not asked yet.
    pub(super) fn peek_due(&self, kind: TimerKind, until: Timestamp) -> Peeked {
        let queues = self.queues(kind).borrow();
        let horizon = queues.coming.horizon();
        let first = queues.past.first().into_iter().chain(queues.coming.first()).min();
        match first.filter(|first| first.time <= until) {
            Some(first) if first.time <= horizon => Peeked::Due(first.key.clone()),
            // There may be earlier ones.
            Some(_) => Peeked::Unknown,
            None if horizon < until => Peeked::Unknown,
            None => Peeked::Nothing,
        }
    }

    /// Returns the keys of the next timers that are due, as far as they are known.
    pub(super) fn due_keys(&self, kind: TimerKind, until: Timestamp, most: usize) -> Vec<PackedKey> {
        let queues = self.queues(kind).borrow();
        let known = until.min(queues.coming.horizon());
        let due = queues.coming.iter().take_while(|timer| timer.time <= known);
        due.take(most).map(|timer| timer.key.clone()).collect()
    }

    /// Takes the next timer that is due at `until`, inclusive; those that were registered in the past come in their order
    /// among them. Nothing if its key has it no more.
    pub(super) fn pop_due(&self, kind: TimerKind, until: Timestamp) -> Option<DueTimer> {
        let due = {
            let mut queues = self.queues(kind).borrow_mut();
            let past_first = match (queues.past.first(), queues.coming.first()) {
                (Some(past), Some(coming)) => past <= coming,
                (past, _) => past.is_some(),
            };
            if past_first { queues.past.pop_due(Timestamp::MAX) } else { queues.coming.pop_due(until) }
        };
        self.still(kind, due?)
    }

    /// The look for the rows of timers behind the horizon, in the order of their time. They are those of all subtasks.
    pub(super) fn look_behind(&self, kind: TimerKind) -> Look {
        let queues = self.queues(kind).borrow();
        let horizon = queues.coming.horizon();
        let from = if horizon == Timestamp::MIN { horizon } else { horizon.saturating_add(Duration::from_micros(1)) };
        let mut prefix = self.operator.number().to_be_bytes().to_vec();
        prefix.extend_from_slice(&entry::TIMER_INDEX.to_be_bytes());
        let with = |bytes: &[u8]| [prefix.as_slice(), bytes].concat();
        let (from, to) = (with(&entry::timer_element(number(kind), from)), with(&[number(kind) + 1]));
        Look::Scan { from, to, limit: queues.page }
    }

    /// Takes in what [`KeyTimers::look_behind`] found.
    pub(super) fn take_behind(&self, kind: TimerKind, found: &Found) -> Result<(), LoadError> {
        let mut queues = self.queues(kind).borrow_mut();
        let before = queues.coming.horizon();
        let mut last = before;
        for (row, _) in &found.rows {
            let damaged = LoadError::Key { state: entry::TIMER_INDEX };
            let Some(index) = entry::parse_timer_index(row) else { return Err(damaged) };
            let Some(TimerAt { time, .. }) = TimerAt::read(index.element) else { return Err(damaged) };
            last = time;
            if self.groups.contains(&index.group) && !planted(Canary::TimerLostOnRestore) {
                let key = PackedKey::from_bytes(index.key);
                queues.coming.insert(Due { time, group: index.group, key });
            }
        }
        let horizon = if found.more {
            // There may be more of the last time behind the page.
            last.saturating_sub(Duration::from_micros(1))
        } else {
            Timestamp::MAX
        };
        queues.page = if horizon > before { PAGE } else { queues.page.saturating_mul(2) };
        queues.coming.set_horizon(horizon.max(before));
        Ok(())
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

    /// When the first timer of this clock is due, or may be: behind the horizon there may be any.
    pub(super) fn first(&self, kind: TimerKind) -> Option<Timestamp> {
        let queues = self.queues(kind).borrow();
        let [past, coming] = [&queues.past, &queues.coming].map(|queue| queue.first().map(|first| first.time));
        let unknown = Some(queues.coming.horizon()).filter(|horizon| *horizon < Timestamp::MAX);
        past.into_iter().chain(coming).chain(unknown).min()
    }
}

impl Part for KeyTimers {
    fn load(&self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        let mut table = self.table.borrow_mut();
        table.load(chunks)?;
        if planted(Canary::TimerLostOnRestore) {
            return Ok(());
        }
        for (key, timers) in table.iter() {
            let hash = hash_bytes(key.as_bytes());
            for (timer, _) in timers.cells().filter(|(_, cell)| cell.value().is_some()) {
                self.queues(timer.kind).borrow_mut().coming.insert(self.due(hash, key, timer.time));
            }
        }
        Ok(())
    }

    fn freeze(&self, epoch: Epoch) {
        self.table.borrow_mut().freeze(epoch);
    }

    fn encode_slice(&self, entries: usize) -> Result<Slice, CodecError> {
        self.table.borrow_mut().encode_slice(entries)
    }

    fn left(&self) -> usize {
        self.table.borrow().left()
    }

    fn rest(&self) -> Rest {
        self.table.borrow_mut().rest()
    }

    fn note_changes(&self) {
        self.table.borrow_mut().note_changes();
        *self.deleted.borrow_mut() = Some(Vec::new());
    }

    fn keep_changes(&self) {
        self.table.borrow_mut().keep();
        *self.deleted.borrow_mut() = None;
    }

    fn take_back(&self) -> Result<(), LoadError> {
        self.table.borrow_mut().take_back()?;
        for Deleted { kind, due, past } in self.deleted.take().into_iter().flatten() {
            let mut queues = self.queues(kind).borrow_mut();
            // Where it never was it does no harm either.
            if past {
                queues.past.insert(due)
            } else {
                queues.coming.insert(due)
            };
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.table.borrow().is_complete()
    }

    fn want(&self, hash: u32, key: &PackedKey) {
        self.table.borrow_mut().want(hash, key);
    }

    fn want_group(&self, group: u16) {
        self.table.borrow_mut().want_group(group);
    }

    fn keys_of(&self, group: u16, keys: &mut BTreeSet<PackedKey>) {
        keys.extend(self.table.borrow().keys_of(group).cloned());
    }

    fn is_missing(&self) -> bool {
        self.table.borrow().is_missing()
    }

    fn look(&self, looks: &mut Vec<Look>) -> usize {
        self.table.borrow_mut().look(looks)
    }

    fn take_in(&self, found: &[Found]) -> Result<(), LoadError> {
        self.table.borrow_mut().take_in(found)
    }

    fn look_ahead(&self) -> Option<Look> {
        self.table.borrow_mut().look_ahead()
    }

    fn take_in_ahead(&self, found: &Found) -> Result<(), LoadError> {
        self.table.borrow_mut().take_in_ahead(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MemoryBudget;
    use crate::state::entry::EntryKey;
    use crate::state::store::StoreShare;

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

    #[test]
    fn timers_of_rows_come_page_by_page_and_nothing_behind_the_horizon_is_due() {
        let (operator, key_groups, restored) = (OperatorId::new(7), KeyGroups::default(), Epoch::GENESIS);
        let (share, memory) = (StoreShare::default(), MemoryBudget::default());
        let setup = TableSetup {
            operator,
            state: entry::TIMERS,
            key_groups,
            groups: 0..480,
            restored,
            share,
            has_rows: true,
            memory,
        };
        let timers = KeyTimers::new(setup, Rc::new(Scope::default()));
        let (kind, at) = (TimerKind::EventTime, Timestamp::from_millis);
        let found = |timers: &[(i64, u16)], more| {
            let row = |(millis, group): &(i64, u16)| {
                let element = entry::timer_element(0, at(*millis));
                let key = EntryKey { state: entry::TIMERS, group: *group, key: &[9], element: &element };
                (entry::row_key(operator, &entry::timer_index(&key)), Vec::new())
            };
            Found { rows: timers.iter().map(row).collect(), more }
        };
        let limit = |timers: &KeyTimers| match timers.look_behind(kind) {
            Look::Scan { limit, .. } => limit,
            Look::Get(_) => 0,
        };
        let due = |timers: &KeyTimers, until| timers.due_keys(kind, at(until), 10).len();
        assert!(matches!(timers.peek_due(kind, at(5)), Peeked::Unknown));
        assert_eq!(timers.first(kind), Some(Timestamp::MIN), "any may be due");

        // There may be more of the time at which a page ends.
        timers.take_behind(kind, &found(&[(1, 3), (1, 500), (2, 3)], true)).unwrap();
        assert_eq!((due(&timers, 1), due(&timers, 5)), (1, 1), "one of another subtask, one behind the horizon");
        assert!(matches!(timers.peek_due(kind, at(5)), Peeked::Due(_)));
        assert!(timers.pop_due(kind, at(5)).is_none(), "its key has it no more");
        assert!(matches!(timers.peek_due(kind, at(1)), Peeked::Nothing));
        assert!(matches!(timers.peek_due(kind, at(5)), Peeked::Unknown));

        // A page of one time is read again, larger.
        assert_eq!(limit(&timers), PAGE);
        timers.take_behind(kind, &found(&[(2, 3), (2, 4)], true)).unwrap();
        assert_eq!((limit(&timers), due(&timers, 5)), (2 * PAGE, 0));
        timers.take_behind(kind, &found(&[(2, 3), (2, 4), (6, 4)], false)).unwrap();
        assert_eq!((due(&timers, 5), due(&timers, 6), timers.first(kind)), (2, 3, Some(at(2))));
    }
}
