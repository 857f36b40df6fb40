//! What an operator's state is made from: its setup, the states that it declares, and what is restored into them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use super::{BEGUN, KeyedState, LATE};
use crate::checkpoint::{StateDecl, StateEntry, StateKind};
use crate::error::BoxError;
use crate::id::{Epoch, OperatorId};
use crate::state::budget::MemoryBudget;
use crate::state::cell::{Cells, Content, Single};
use crate::state::entry::{self, EntryKey};
use crate::state::form::{Kept, KeptForm, StateValue, Versioned};
use crate::state::key_group::{KeyGroups, StreamKey};
use crate::state::keyed::bound::Bound;
use crate::state::keyed::handle::{List, Map, Value};
use crate::state::keyed::scope::KeyedError;
use crate::state::packed::PackedKey;
use crate::state::store::StoreShare;
use crate::state::table::{LoadError, TableSetup, UnknownState};
use crate::time::Timestamp;

/// What the state of an operator is made from.
#[derive(Clone, Debug)]
pub struct KeyedSetup {
    /// What its tables are made from; the number of the state does not matter.
    pub table: TableSetup,
    /// The numbers of its states; nothing while the operator is only asked which states it has.
    pub numbers: Option<Vec<StateEntry>>,
    /// The numbers of those that have rows, reserved ones included.
    pub folded: BTreeSet<u16>,
    /// What the store holds of it that is not in the rows.
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
            has_rows: false,
            memory: MemoryBudget::default(),
        };
        Self { table, numbers: None, folded: BTreeSet::new(), stored: None, now: Timestamp::default() }
    }

    /// Says whether an epoch of the operator has been committed, where it has [`KeyedState::mark_begun`]. One mark is enough: an epoch
    /// has those of all subtasks or none.
    pub fn has_begun(&self) -> bool {
        let is_mark = |stored: entry::Entry<'_>| EntryKey::parse(stored.key).is_some_and(|key| key.state == BEGUN);
        let log = self.stored.iter().flat_map(|stored| stored.iter());
        self.folded.contains(&BEGUN) || log.flat_map(|chunk| entry::entries(chunk)).any(is_mark)
    }

    pub(super) fn of(&self, state: u16) -> TableSetup {
        TableSetup { state, has_rows: self.folded.contains(&state), ..self.table.clone() }
    }
}

impl KeyedState {
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
        Ok(Map { cells, key: PhantomData, scratch: RefCell::default() })
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
        Ok(Map { cells, key: PhantomData, scratch: RefCell::default() })
    }

    /// Declares that the operator gives up a state that it may have had: its rows are removed.
    ///
    /// # Errors
    /// [`KeyedError::Twice`] when it is declared as well.
    pub fn delete_if_exists(&mut self, name: &str) -> Result<(), KeyedError> {
        if self.declared.iter().any(|declared| declared.name == name) {
            return Err(KeyedError::Twice { state: name.to_owned() });
        }
        self.declared.push(StateDecl::removed(name));
        Ok(())
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
        self.declared.push(StateDecl { name: state(), version, kind, migrates, removed: false });
        let setup = self.setup.of(number);
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
        self.parts.push(Rc::clone(&self.timers) as _);
        self.beginning = self.beginning && !self.setup.has_begun();
        let log = self.setup.stored.take().unwrap_or_default();
        self.check_keys(&log)?;
        self.parts.iter().try_for_each(|part| part.load(&log))?;
        self.late.load(&log)?;
        self.take_error().map_or(Ok(()), Err)
    }

    /// Tables take any bytes for a key.
    fn check_keys(&self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        let keys =
            chunks.iter().flat_map(|chunk| entry::entries(chunk)).filter_map(|stored| EntryKey::parse(stored.key));
        let mut mine =
            keys.filter(|key| ![LATE, BEGUN].contains(&key.state) && self.late.groups().contains(&key.group));
        match mine.find(|key| !(self.is_key)(key.key)) {
            Some(EntryKey { state, .. }) => Err(LoadError::Key { state }),
            None => Ok(()),
        }
    }
}
