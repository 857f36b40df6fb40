//! All that one operator keeps in one subtask.

use std::any::TypeId;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use crate::checkpoint::{Delta, FIRST_RESERVED_STATE, StateDecl, StateEntry, StateKind};
use crate::codec::CodecError;
use crate::error::BoxError;
use crate::id::{Epoch, OperatorId};
use crate::state::cell::{Cells, Content, Single};
use crate::state::entry::{self, EntryKey};
use crate::state::form::{Kept, KeptForm, StateValue, Versioned};
use crate::state::freeze::{OperatorState, Slice, Snapshot};
use crate::state::key_group::{KeyGroups, StreamKey, StreamKeyRef};
use crate::state::keyed::bound::{Bound, Part};
use crate::state::keyed::handle::{List, Map, Value};
use crate::state::keyed::late::LateRows;
use crate::state::keyed::scope::{KeyedError, Scope};
use crate::state::keyed::timers::{DueTimer, KeyTimers};
use crate::state::packed::PackedKey;
use crate::state::store::StoreShare;
use crate::state::table::{LoadError, TableSetup, UnknownState};
use crate::time::Timestamp;
use crate::timer::TimerKind;

/// The number of every operator's timers: entries of their keys.
const TIMERS: u16 = FIRST_RESERVED_STATE;
// The next number, fff1, is kept for rows of timers in the order of their time.
/// The number of every operator's late threshold.
const LATE: u16 = FIRST_RESERVED_STATE + 2;

/// What the state of an operator is made from.
#[derive(Clone, Debug)]
pub struct KeyedSetup {
    /// What its tables are made from; the number of the state does not matter.
    pub table: TableSetup,
    /// The numbers of its states; nothing while the operator is only asked which states it has.
    pub numbers: Option<Vec<StateEntry>>,
    /// What the store holds of it.
    pub stored: Option<Arc<Vec<Vec<u8>>>>,
    /// The processing time.
    pub now: Timestamp,
}

impl KeyedSetup {
    /// For an operator that is only asked what it declares: it owns no key group, and nothing is kept.
    pub fn describe() -> Self {
        let table = TableSetup {
            operator: OperatorId::default(),
            state: 0,
            key_groups: KeyGroups::default(),
            groups: 0..0,
            restored: Epoch::GENESIS,
            share: StoreShare::default(),
        };
        Self { table, numbers: None, stored: None, now: Timestamp::default() }
    }
}

/// The state of one operator in one subtask. See the module above.
pub struct KeyedState {
    setup: KeyedSetup,
    key_type: TypeId,
    is_key: fn(&[u8]) -> bool,
    scope: Rc<Scope>,
    declared: Vec<StateDecl>,
    parts: Vec<Rc<dyn Part>>,
    timers: Rc<KeyTimers>,
    late: LateRows,
    /// Epochs of which not all tables have handed in their entries.
    pending: VecDeque<Pending>,
    scratch: Vec<u8>,
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
        let reserved = |state| TableSetup { state, ..setup.table.clone() };
        let timers = Rc::new(KeyTimers::new(reserved(TIMERS), Rc::clone(&scope)));
        let late = LateRows::new(reserved(LATE));
        Self {
            key_type: TypeId::of::<K>(),
            is_key: |bytes| K::read_key(bytes).is_some(),
            scope,
            declared: Vec::new(),
            parts: Vec::new(),
            timers,
            late,
            pending: VecDeque::new(),
            scratch: Vec::new(),
            setup,
        }
    }

    /// Declares one value per key.
    ///
    /// # Errors
    /// [`KeyedError`] when the name is taken, or unknown to the store.
    pub fn value<V: StateValue>(&mut self, name: &str) -> Result<Value<V>, KeyedError> {
        Ok(Value(self.bind::<V, Single<Kept<V>>>(name, StateKind::Value, KeptForm::first())?))
    }

    /// Declares one value per key, whose older versions are migrated.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn value_with<V: StateValue, F>(&mut self, name: &str, form: Versioned<F>) -> Result<Value<V>, KeyedError>
    where
        F: Fn(u32, &[u8]) -> Result<V, BoxError> + 'static,
    {
        let form = KeptForm::versioned(form.version, form.migrate);
        Ok(Value(self.bind::<V, Single<Kept<V>>>(name, StateKind::Value, form)?))
    }

    /// Declares a list per key.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn list<V: StateValue>(&mut self, name: &str) -> Result<List<V>, KeyedError> {
        Ok(List(self.bind::<V, Cells<u64, Kept<V>>>(name, StateKind::List, KeptForm::first())?))
    }

    /// Declares a list per key, whose elements of older versions are migrated.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn list_with<V: StateValue, F>(&mut self, name: &str, form: Versioned<F>) -> Result<List<V>, KeyedError>
    where
        F: Fn(u32, &[u8]) -> Result<V, BoxError> + 'static,
    {
        let form = KeptForm::versioned(form.version, form.migrate);
        Ok(List(self.bind::<V, Cells<u64, Kept<V>>>(name, StateKind::List, form)?))
    }

    /// Declares a map per key.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn map<K: StreamKey, V: StateValue>(&mut self, name: &str) -> Result<Map<K, V>, KeyedError> {
        let cells = self.bind::<V, Cells<PackedKey, Kept<V>>>(name, StateKind::Map, KeptForm::first())?;
        Ok(Map { cells, key: PhantomData })
    }

    /// Declares a map per key, whose values of older versions are migrated.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn map_with<K: StreamKey, V: StateValue, F>(
        &mut self,
        name: &str,
        form: Versioned<F>,
    ) -> Result<Map<K, V>, KeyedError>
    where
        F: Fn(u32, &[u8]) -> Result<V, BoxError> + 'static,
    {
        let form = KeptForm::versioned(form.version, form.migrate);
        let cells = self.bind::<V, Cells<PackedKey, Kept<V>>>(name, StateKind::Map, form)?;
        Ok(Map { cells, key: PhantomData })
    }

    fn bind<V: StateValue, C: Content<Value = Kept<V>>>(
        &mut self,
        name: &str,
        kind: StateKind,
        form: KeptForm<V>,
    ) -> Result<Rc<Bound<V, C>>, KeyedError> {
        let state = || name.to_owned();
        if self.declared.iter().any(|declared| declared.name == name) {
            return Err(KeyedError::Twice { state: state() });
        }
        if form.version() == 0 {
            return Err(KeyedError::VersionZero { state: state() });
        }
        let number = match &self.setup.numbers {
            Some(numbers) => numbers.iter().find(|known| known.name == name).map(|known| known.number),
            None => Some(0),
        };
        let number = number.ok_or_else(|| UnknownState { state: state() })?;
        let (version, migrates) = (form.version(), form.migrates());
        self.declared.push(StateDecl { name: state(), version, kind, migrates });
        let setup = TableSetup { state: number, ..self.setup.table.clone() };
        let bound = Rc::new(Bound::new(name, setup, form, Rc::clone(&self.scope)));
        self.parts.push(Rc::clone(&bound) as _);
        Ok(bound)
    }

    /// The states that were declared, in their order.
    pub fn declared(&self) -> &[StateDecl] {
        &self.declared
    }

    /// Restores what the store holds, once all states are declared.
    ///
    /// # Errors
    /// [`KeyedError`] when an entry is not what these states and keys are, or a declaration was wrong.
    pub fn load(&mut self) -> Result<(), KeyedError> {
        if let Some(chunks) = self.setup.stored.take() {
            self.check_keys(&chunks)?;
            self.parts.iter().try_for_each(|part| part.load(&chunks))?;
            self.timers.load(&chunks)?;
            self.late.load(&chunks)?;
        }
        self.take_error().map_or(Ok(()), Err)
    }

    /// Tables take any bytes for a key.
    fn check_keys(&self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        let keys =
            chunks.iter().flat_map(|chunk| entry::entries(chunk)).filter_map(|stored| EntryKey::parse(stored.key));
        let mut mine = keys.filter(|key| key.state != LATE && self.late.groups().contains(&key.group));
        match mine.find(|key| !(self.is_key)(key.key)) {
            Some(EntryKey { state, .. }) => Err(LoadError::Key { state }),
            None => Ok(()),
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

    /// Takes the next timer that is due at `until`, inclusive.
    pub fn pop_due(&mut self, kind: TimerKind, until: Timestamp) -> Option<DueTimer> {
        self.timers.pop_due(kind, until)
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
        self.timers.table.borrow_mut().freeze(epoch);
        let delta = self.late.freeze().unwrap_or_else(|error| {
            // Two integers are always encoded; whoever sees this has another bug to look for.
            self.scope.fail(crate::state::StateError::from(error));
            Delta { operator: self.setup.table.operator, chunks: Vec::new(), entries: 0 }
        });
        self.pending.push_back(Pending { epoch, waiting: self.parts.len() + 1, delta });
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
        done.extend(self.timers.table.borrow_mut().encode_slice(budget)?.done);
        self.settle(done);
        let mut slice = Slice { done: Vec::new(), left: self.left() };
        while self.pending.front().is_some_and(|pending| pending.waiting == 0) {
            slice.done.extend(self.pending.pop_front().map(|pending| (pending.epoch, pending.delta)));
        }
        Ok(slice)
    }

    fn left(&self) -> usize {
        let parts: usize = self.parts.iter().map(|part| part.left()).sum();
        parts + self.timers.table.borrow().left()
    }
}

impl OperatorState for KeyedState {
    fn rest(&mut self) {
        self.parts.iter().for_each(|part| part.rest());
        self.timers.table.borrow_mut().rest();
    }
}
