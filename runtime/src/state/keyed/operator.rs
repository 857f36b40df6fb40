//! All that one operator keeps in one subtask.

use std::any::TypeId;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::rc::Rc;

use crate::checkpoint::{Delta, StateDecl};
use crate::codec::CodecError;
use crate::id::Epoch;
use crate::state::entry;
use crate::state::freeze::{DeltaBuilder, OperatorState, Rest, Slice, Snapshot};
use crate::state::key_group::{StreamKey, StreamKeyRef, hash_bytes};
use crate::state::keyed::bound::Part;
use crate::state::keyed::late::LateRows;
use crate::state::keyed::scope::{KeyedError, Scope};
use crate::state::keyed::timers::{DueTimer, KeyTimers, Peeked};
use crate::state::packed::PackedKey;
use crate::state::read::{StateRead, StateRows};
use crate::state::table::LoadError;
use crate::time::Timestamp;
use crate::timer::TimerKind;

mod declare;
mod walk;

pub use self::declare::KeyedSetup;

/// The number of every operator's late threshold: below those of timers, whose rows by time come last in a fold.
const LATE: u16 = 0xFFEF;
/// The number of the mark that an epoch of the operator has been committed, see [`KeyedState::mark_begun`].
const BEGUN: u16 = 0xFFEE;
/// Keys of due timers that are read at once.
const DUE_AT_ONCE: usize = 64;

/// The state of one operator in one subtask. See the module above.
pub struct KeyedState {
    setup: KeyedSetup,
    key_type: TypeId,
    is_key: fn(&[u8]) -> bool,
    scope: Rc<Scope>,
    declared: Vec<StateDecl>,
    /// The tables; that of the timers is among them once the state is loaded.
    parts: Vec<Rc<dyn Part>>,
    timers: Rc<KeyTimers>,
    late: LateRows,
    /// The next epoch has the mark that the operator was there.
    beginning: bool,
    /// Epochs of which not all tables have handed in their entries.
    pending: VecDeque<Pending>,
    /// Clocks of which timers behind the horizon are needed.
    behind: BTreeSet<TimerKind>,
    /// What is being read, in the order of the looks.
    asked: Vec<Asked>,
    /// The table that reads ahead.
    ahead: Option<usize>,
    scratch: Vec<u8>,
}

/// A part of what is being read.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// So many looks of a table.
    Table(usize, usize),
    Late,
    Behind(TimerKind),
}

/// What came of asking for a due timer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Popped {
    /// It is due, and what its key has is in memory.
    Timer(DueTimer),
    /// Rows have to be read first.
    Missing,
    /// None is due.
    Nothing,
}

struct Pending {
    epoch: Epoch,
    /// Tables that still encode.
    waiting: usize,
    delta: Delta,
}

impl fmt::Debug for KeyedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedState").field("declared", &self.declared).finish_non_exhaustive()
    }
}

impl KeyedState {
    /// Begins without any named state, for keys of type `K`. Declare the states, then [`KeyedState::load`].
    pub fn new<K: StreamKey>(setup: KeyedSetup) -> Self {
        let scope = Rc::new(Scope::default());
        scope.set_now(setup.now);
        let timers = Rc::new(KeyTimers::new(setup.of(entry::TIMERS), Rc::clone(&scope)));
        let late = LateRows::new(setup.of(LATE));
        Self {
            key_type: TypeId::of::<K>(),
            is_key: |bytes| K::read_key(bytes).is_some(),
            scope,
            declared: Vec::new(),
            parts: Vec::new(),
            timers,
            late,
            beginning: false,
            pending: VecDeque::new(),
            behind: BTreeSet::new(),
            asked: Vec::new(),
            ahead: None,
            scratch: Vec::new(),
            setup,
        }
    }

    /// Sets the processing time.
    pub fn set_now(&mut self, now: Timestamp) {
        self.scope.set_now(now);
    }

    /// The processing time that was set last.
    pub fn now(&self) -> Timestamp {
        self.scope.now()
    }

    /// Sets the event time up to which timers count as being in the past: the watermark, the one in work included.
    pub fn set_event_time(&mut self, event_time: Option<Timestamp>) {
        self.scope.set_event_time(event_time);
    }

    /// Makes the handles those of this key.
    pub fn set_key<K: StreamKeyRef + ?Sized>(&mut self, hash: u32, key: &K) {
        self.scratch.clear();
        key.write_key(&mut self.scratch);
        self.scope.set_key(hash, &self.scratch);
    }

    /// The current key; nothing if there is none or it is of another type.
    pub fn key<K: StreamKey>(&self) -> Option<K> {
        if TypeId::of::<K>() != self.key_type {
            return None;
        }
        self.scope.key()?.1.unpack()
    }

    /// Makes the handles those of a due timer's key.
    pub fn enter(&mut self, timer: &DueTimer) {
        self.timers.enter(timer);
    }

    /// Removes a timer that has fired.
    pub fn fired(&mut self, timer: &DueTimer) {
        self.timers.fired(timer);
    }

    /// The current key's timers.
    pub fn timers(&self) -> &KeyTimers {
        &self.timers
    }

    /// Takes the next timer that is due at `until`, inclusive, once all that its key has is in memory.
    pub fn pop_due(&mut self, kind: TimerKind, until: Timestamp) -> Popped {
        loop {
            match self.timers.peek_due(kind, until) {
                Peeked::Nothing => return Popped::Nothing,
                Peeked::Unknown => {
                    self.behind.insert(kind);
                    return Popped::Missing;
                }
                Peeked::Due(key) => self.want_packed(&key),
            }
            if self.is_missing() {
                // One question for many keys rather than one for each.
                for key in self.timers.due_keys(kind, until, DUE_AT_ONCE) {
                    self.want_packed(&key);
                }
                return Popped::Missing;
            }
            if let Some(timer) = self.timers.pop_due(kind, until) {
                return Popped::Timer(timer);
            }
        }
    }

    /// Says whether all that records and timers may need is in memory.
    pub fn is_complete(&self) -> bool {
        !self.late.is_missing() && self.parts.iter().all(|part| part.is_complete())
    }

    /// Takes note that a record's key is needed.
    pub fn want<K: StreamKeyRef + ?Sized>(&mut self, hash: u32, key: &K) {
        let key = PackedKey::of(key, &mut self.scratch);
        self.parts.iter().for_each(|part| part.want(hash, &key));
    }

    fn want_packed(&self, key: &PackedKey) {
        let hash = hash_bytes(key.as_bytes());
        self.parts.iter().for_each(|part| part.want(hash, key));
    }

    /// Says whether something that is needed has to be read first; the late threshold always is.
    pub fn is_missing(&self) -> bool {
        self.late.is_missing() || !self.behind.is_empty() || self.parts.iter().any(|part| part.is_missing())
    }

    /// Takes the next timer that was in the past when it was registered.
    pub fn pop_past(&mut self, kind: TimerKind) -> Option<DueTimer> {
        self.timers.pop_past(kind)
    }

    /// When the first timer of this clock is due.
    pub fn first_timer(&self, kind: TimerKind) -> Option<Timestamp> {
        self.timers.first(kind)
    }

    /// The last watermark that was handled completely, before a restart or after it; nothing before the first.
    pub fn watermark(&self) -> Option<Timestamp> {
        self.late.thresholds.watermark()
    }

    /// Says whether a record is late.
    #[inline]
    pub fn is_late(&self, hash: u32, time: Timestamp) -> bool {
        self.late.thresholds.is_late(self.setup.table.key_groups.group(hash), time)
    }

    /// Takes note that a watermark was handled completely: from now on records up to it are late.
    pub fn raise(&mut self, watermark: Timestamp) {
        self.late.raise(watermark);
    }

    /// Has the first epoch that is committed say that the operator was there: see [`KeyedSetup::has_begun`]. Call it before
    /// [`KeyedState::load`].
    pub const fn mark_begun(&mut self) {
        self.beginning = true;
    }

    /// The entries of an epoch that belong to no table.
    fn freeze_marks(&mut self) -> Result<Delta, CodecError> {
        let mut marks = self.late.freeze()?;
        if std::mem::take(&mut self.beginning) {
            let mut delta = DeltaBuilder::new(self.setup.table.operator);
            let (group, value) = (self.setup.table.groups.start, Some(|_: &mut Vec<u8>| Ok(())));
            delta.push(|chunk| entry::append(chunk, BEGUN, group, |_| (), |_| (), value))?;
            let Delta { chunks, entries, .. } = delta.finish();
            marks.chunks.extend(chunks);
            marks.entries += entries;
        }
        Ok(marks)
    }

    /// From now on changes of state and timers can be taken back, until [`KeyedState::keep_changes`] or
    /// [`KeyedState::take_back`].
    pub fn note_changes(&mut self) {
        self.parts.iter().for_each(|part| part.note_changes());
    }

    /// Keeps what was changed.
    pub fn keep_changes(&mut self) {
        self.parts.iter().for_each(|part| part.keep_changes());
    }

    /// Puts state and timers back as they were.
    ///
    /// # Errors
    /// [`KeyedError::Load`] when a value cannot be read back from its written form.
    pub fn take_back(&mut self) -> Result<(), KeyedError> {
        Ok(self.parts.iter().try_for_each(|part| part.take_back())?)
    }

    /// Takes what went wrong in a handle.
    pub fn take_error(&mut self) -> Option<KeyedError> {
        self.scope.take_error()
    }

    fn settle(&mut self, done: Vec<(Epoch, Delta)>) {
        for (epoch, delta) in done {
            if let Some(pending) = self.pending.iter_mut().find(|pending| pending.epoch == epoch) {
                pending.waiting -= 1;
                pending.delta.entries += delta.entries;
                pending.delta.chunks.extend(delta.chunks);
            }
        }
    }
}

impl Snapshot for KeyedState {
    fn freeze(&mut self, epoch: Epoch) {
        self.parts.iter().for_each(|part| part.freeze(epoch));
        let delta = self.freeze_marks().unwrap_or_else(|error| {
            // Two integers are always encoded; whoever sees this has another bug to look for.
            self.scope.fail(crate::state::StateError::from(error));
            Delta { operator: self.setup.table.operator, chunks: Vec::new(), entries: 0 }
        });
        self.pending.push_back(Pending { epoch, waiting: self.parts.len(), delta });
    }

    fn encode_slice(&mut self, entries: usize) -> Result<Slice, CodecError> {
        let mut budget = entries;
        let mut done = Vec::new();
        for part in &self.parts {
            let left = part.left();
            let slice = part.encode_slice(budget)?;
            budget -= left.saturating_sub(slice.left).min(budget);
            done.extend(slice.done);
        }
        self.settle(done);
        let mut slice = Slice { done: Vec::new(), left: self.left() };
        while self.pending.front().is_some_and(|pending| pending.waiting == 0) {
            slice.done.extend(self.pending.pop_front().map(|pending| (pending.epoch, pending.delta)));
        }
        Ok(slice)
    }

    fn left(&self) -> usize {
        self.parts.iter().map(|part| part.left()).sum()
    }
}

impl OperatorState for KeyedState {
    fn take_read(&mut self) -> Option<StateRead> {
        let mut looks = Vec::new();
        self.asked.clear();
        for (index, part) in self.parts.iter().enumerate() {
            let count = part.look(&mut looks);
            if count > 0 {
                self.asked.push(Asked::Table(index, count));
            }
        }
        if self.late.is_missing() {
            looks.push(self.late.look());
            self.asked.push(Asked::Late);
        }
        for kind in std::mem::take(&mut self.behind) {
            looks.push(self.timers.look_behind(kind));
            self.asked.push(Asked::Behind(kind));
        }
        (!looks.is_empty()).then_some(StateRead { looks })
    }

    fn loaded(&mut self, _read: &StateRead, rows: StateRows) -> Result<(), LoadError> {
        let mut found = rows.found.as_slice();
        for asked in std::mem::take(&mut self.asked) {
            let count = if let Asked::Table(_, count) = asked { count } else { 1 };
            let (mine, rest) = found.split_at_checked(count).unwrap_or((found, &[]));
            found = rest;
            match (asked, mine.first()) {
                (Asked::Table(index, _), _) => self.parts.get(index).map_or(Ok(()), |part| part.take_in(mine))?,
                (Asked::Late, Some(found)) => self.late.take_in(found)?,
                (Asked::Behind(kind), Some(found)) => self.timers.take_behind(kind, found)?,
                (Asked::Late | Asked::Behind(_), None) => {}
            }
        }
        Ok(())
    }

    fn take_read_ahead(&mut self) -> Option<StateRead> {
        let found = self.parts.iter().enumerate().find_map(|(index, part)| Some((index, part.look_ahead()?)));
        let (index, look) = found?;
        self.ahead = Some(index);
        Some(StateRead { looks: vec![look] })
    }

    fn loaded_ahead(&mut self, _read: &StateRead, rows: StateRows) -> Result<(), LoadError> {
        let part = self.ahead.take().and_then(|index| self.parts.get(index));
        let Some(part) = part else { return Ok(()) };
        rows.found.iter().try_for_each(|found| part.take_in_ahead(found))
    }

    fn rest(&mut self) -> Rest {
        self.parts.iter().fold(Rest::default(), |rest, part| rest | part.rest())
    }
}
