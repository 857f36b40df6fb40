//! The typed in-memory map of one state: what the record path touches.
//!
//! A key has one [`Cell`] or many, by its [`Content`]. Cells carry the epoch of their last change; the first touch in an epoch
//! puts the cell on the dirty list. At a barrier the list is frozen in O(1) ([`Table::freeze`]) and encoded in slices while
//! records go on. The first touch of a cell whose last change belongs to a frozen, unfinished epoch encodes it into *that* epoch
//! first: copy-on-write. What was removed stays as a tombstone until the rows know of it ([`Table::sweep`]).

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::canary::{Canary, planted};
use crate::id::{Epoch, OperatorId};
use crate::state::budget::MemoryBudget;
use crate::state::cell::{Content, Single, Stamp};
use crate::state::entry::{self, EntryKey};
use crate::state::form::{Form, Plain};
use crate::state::freeze::{Frozen, KeyList, OperatorState, Rest};
use crate::state::key_group::{KeyGroups, StreamKey, StreamKeyRef};
use crate::state::read::{StateRead, StateRows};
use crate::state::store::StoreShare;

mod encoding;
mod error;
mod residency;
mod tombstones;
mod undo;
mod whole;

use self::encoding::{Mean, Written, copy_on_write};
pub use self::error::{LoadError, StateError, UnknownState};
use self::residency::Residency;
use self::tombstones::dig;
use self::undo::Before;

#[derive(Debug)]
struct Slot<K, C> {
    key: K,
    content: C,
}

/// Whose state a table is, and what it begins with.
#[derive(Clone, Debug)]
pub struct TableSetup {
    /// Whose state.
    pub operator: OperatorId,
    /// Its number within the operator.
    pub state: u16,
    /// The key groups of the pipeline.
    pub key_groups: KeyGroups,
    /// Those that the subtask owns.
    pub groups: Range<u16>,
    /// The epoch that state is restored from; changes belong to those behind it.
    pub restored: Epoch,
    /// How far the rows know of what changed.
    pub share: StoreShare,
    /// Whether the state may have rows: a key that is not in memory may be there.
    pub has_rows: bool,
    /// The memory that the state may take together with others.
    pub memory: MemoryBudget,
}

/// Where a cell is: its key and element.
type Place<K, C> = (K, <C as Content>::Element);

/// The state of each key, in one map per key group.
///
/// `C` says whether a key has one value or many, `F` how values are written.
pub struct Table<K, C: Content, F = Plain> {
    setup: TableSetup,
    form: F,
    maps: Vec<HashTable<Slot<K, C>>>,
    epoch: Epoch,
    dirty: KeyList<Place<K, C>>,
    frozen: VecDeque<Frozen<Place<K, C>>>,
    /// Tombstones that are encoded, by the epoch of the removal. One that was touched later is here in vain.
    graves: VecDeque<(Epoch, KeyList<Place<K, C>>)>,
    residency: Residency<K>,
    encoded: Mean,
    /// What the call in work has changed; nothing where nothing is ever taken back.
    before: Option<Vec<Before<Place<K, C>>>>,
}

impl<K, C: Content, F> fmt::Debug for Table<K, C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("setup", &self.setup).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Tombstones that are dropped between two frames.
const SWEPT_AT_ONCE: usize = 64;

/// Spreads a 31-bit hash over the 64 bits that the map wants. All keys of a map share their key group, and with 960 = 64 × 15
/// groups the low bits of their hashes; the map starts to probe at the low bits, so they have to come from the high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    let mixed = u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

fn rehash<K: StreamKey, C>(slot: &Slot<K, C>) -> u64 {
    spread(slot.key.borrow().key_hash(&mut Vec::new()))
}

impl<K: StreamKey, C: Content> Table<K, C>
where
    Plain: Form<C::Value>,
{
    /// Makes an empty table whose values are written as they are.
    pub fn new(setup: TableSetup) -> Self {
        Self::with_form(setup, Plain)
    }
}

impl<K: StreamKey, C: Content, F: Form<C::Value>> Table<K, C, F> {
    /// Makes an empty table whose values are written in a form of their own.
    pub fn with_form(setup: TableSetup, form: F) -> Self {
        let maps = setup.groups.clone().map(|_| HashTable::new()).collect();
        let epoch = setup.restored.next();
        let (dirty, frozen, graves) = (KeyList::default(), VecDeque::new(), VecDeque::new());
        let residency = Residency::new(setup.groups.len(), setup.has_rows, setup.memory.join());
        Self { setup, form, maps, epoch, dirty, frozen, graves, residency, encoded: Mean::default(), before: None }
    }

    /// The state's number within its operator.
    pub const fn number(&self) -> u16 {
        self.setup.state
    }

    /// Returns how many keys have a value.
    pub fn len(&self) -> usize {
        let has_value = |slot: &&Slot<K, C>| slot.content.cells().any(|(_, cell)| cell.value.is_some());
        self.maps.iter().map(|map| map.iter().filter(has_value).count()).sum()
    }

    /// Says whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all keys with what they have, tombstones included, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &C)> {
        self.maps.iter().flat_map(HashTable::iter).map(|slot| (&slot.key, &slot.content))
    }

    /// Puts back what the log holds, into an empty table; later chunks and entries win, and all of them over the rows. Entries of other
    /// states and key groups are skipped.
    ///
    /// # Errors
    /// [`LoadError`] names the state whose type does not fit.
    pub fn load(&mut self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        if planted(Canary::ReadBeforeLog) && self.setup.has_rows {
            return Ok(());
        }
        let (groups, key_groups) = (self.setup.groups.clone(), self.setup.key_groups);
        let is_mine = |parsed: &EntryKey<'_>| {
            let other = planted(Canary::OtherKeyGroup);
            groups.contains(&if other { key_groups.group(crc32fast::hash(parsed.key)) } else { parsed.group })
        };
        // The newest first: of keys that change in every epoch a long log has very many entries that need not be decoded then.
        let newest_first = chunks.iter().rev().flat_map(|chunk| {
            let entries: Vec<_> = entry::entries(chunk).collect();
            entries.into_iter().rev()
        });
        for stored in newest_first {
            let state = self.setup.state;
            let parsed = EntryKey::parse(stored.key).ok_or(LoadError::Key { state })?;
            if parsed.state != state || !is_mine(&parsed) {
                continue;
            }
            let key = K::read_key(parsed.key).ok_or(LoadError::Key { state })?;
            let element = C::read_element(parsed.element).ok_or(LoadError::Key { state })?;
            let hash = key.borrow().key_hash(&mut Vec::new());
            if self.content(hash, key.borrow()).is_some_and(|content| content.cell(&element).is_some()) {
                continue;
            }
            let value = stored.value.map(|bytes| self.form.decode(bytes)).transpose();
            let value = value.map_err(|source| LoadError::Value { state, source })?;
            self.put_restored((hash, key), &element, value);
        }
        Ok(())
    }

    /// Returns what the key has, tombstones included. `hash` is the key's [`StreamKeyRef::key_hash`].
    #[inline]
    pub fn content(&self, hash: u32, key: &K::Borrowed) -> Option<&C> {
        let map = self.maps.get(self.index(hash))?;
        Some(&map.find(spread(hash), |slot| slot.key.borrow() == key)?.content)
    }

    /// Returns the place of a cell's value to change it: nothing there is an absent one. The cell counts as changed.
    ///
    /// # Errors
    /// [`StateError`] when the value of a frozen epoch cannot be encoded, or the key is another subtask's.
    #[inline]
    pub fn touch(
        &mut self,
        hash: u32,
        key: &K::Borrowed,
        element: &C::Element,
    ) -> Result<&mut Option<C::Value>, StateError> {
        let index = self.index(hash);
        let epoch = self.epoch;
        let Self { setup, form, maps, dirty, frozen, residency, before, .. } = self;
        let Some(map) = maps.get_mut(index) else {
            return Err(StateError::NotMine { hash });
        };
        let slot = match map.entry(spread(hash), |slot| slot.key.borrow() == key, rehash) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                residency.keys += 1;
                residency.cells += C::default().count();
                vacant.insert(Slot { key: key.to_key(), content: C::default() }).into_mut()
            }
        };
        if C::CELL_BYTES > 0 && slot.content.cell(element).is_none() {
            residency.cells += 1;
        }
        let cell = slot.content.touch(element);
        if let Some(before) = before
            && !before
                .iter()
                .any(|noted| noted.hash == hash && noted.place.0 == slot.key && C::is_same(&noted.place.1, element))
        {
            let mut written = Vec::new();
            let value =
                cell.value.as_ref().map(|value| form.encode(value, &mut written)).transpose()?.map(|()| written);
            // What is copied on this write is in its delta, and must not be put there again.
            let is_frozen = frozen.iter().any(|frozen| frozen.epoch == cell.stamp.epoch());
            let stamp = if is_frozen { cell.stamp.encoded() } else { cell.stamp };
            before.push(Before { hash, place: (slot.key.clone(), element.clone()), value, stamp });
        }
        if cell.stamp != Stamp::new(epoch) {
            let place = Written { state: setup.state, group: group_at(setup, index), key: &slot.key, element };
            copy_on_write::<K, C, F>(&place, cell, form, frozen)?;
            cell.stamp = Stamp::new(epoch);
            dirty.push(hash, (slot.key.clone(), element.clone()));
        }
        Ok(&mut cell.value)
    }

    /// Returns a cell's value to change what is not stored of it: the cell does not count as changed.
    pub(crate) fn quiet_mut(&mut self, hash: u32, key: &K::Borrowed, element: &C::Element) -> Option<&mut C::Value> {
        let index = self.index(hash);
        let slot = self.maps.get_mut(index)?.find_mut(spread(hash), |slot| slot.key.borrow() == key)?;
        slot.content.cell_mut(element)?.value.as_mut()
    }

    /// Removes a cell's value and returns it; the tombstone counts as a change. Nothing happens where there is no value.
    ///
    /// # Errors
    /// As [`Table::touch`].
    pub fn take(&mut self, hash: u32, key: &K::Borrowed, element: &C::Element) -> Result<Option<C::Value>, StateError> {
        let index = self.index(hash);
        if index >= self.maps.len() {
            return Err(StateError::NotMine { hash });
        }
        let cell = self.content(hash, key).and_then(|content| content.cell(element));
        if cell.is_none_or(|cell| cell.value.is_none()) {
            return Ok(None);
        }
        Ok(self.touch(hash, key, element)?.take())
    }

    #[inline]
    fn index(&self, hash: u32) -> usize {
        usize::from(self.setup.key_groups.group(hash).wrapping_sub(self.setup.groups.start))
    }

    /// Puts a cell there as the log has it. A removal stays as a tombstone: the rows may still hold the value.
    fn put_restored(&mut self, (hash, key): (u32, K), element: &C::Element, value: Option<C::Value>) {
        let index = self.index(hash);
        // The log says which epoch it was; that it was not later than this one is all that counts.
        let stamp = Stamp::new(self.setup.restored).encoded();
        let Some(map) = self.maps.get_mut(index) else { return };
        let slot = match map.entry(spread(hash), |slot| slot.key == key, rehash) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                self.residency.keys += 1;
                self.residency.cells += C::default().count();
                vacant.insert(Slot { key: key.clone(), content: C::default() }).into_mut()
            }
        };
        let before = slot.content.count();
        if self.setup.has_rows {
            slot.content.set_partial();
        }
        let cell = slot.content.touch(element);
        (cell.value, cell.stamp) = (value, stamp);
        if cell.value.is_none() {
            dig(&mut self.graves, self.setup.restored, hash, (key, element.clone()));
        }
        self.residency.cells += slot.content.count() - before;
    }
}

impl<K: StreamKey, V: 'static, F: Form<V>> Table<K, Single<V>, F> {
    /// Returns the key's value. `hash` is the key's [`StreamKeyRef::key_hash`].
    pub fn get(&self, hash: u32, key: &K::Borrowed) -> Option<&V> {
        self.content(hash, key)?.cell(&())?.value.as_ref()
    }

    /// Returns the key's value to change it, made by `init` if the key is new. The entry counts as changed.
    ///
    /// # Errors
    /// As [`Table::touch`].
    #[inline]
    pub fn get_or_insert_with(
        &mut self,
        hash: u32,
        key: &K::Borrowed,
        init: impl FnOnce() -> V,
    ) -> Result<&mut V, StateError> {
        Ok(self.slot(hash, key)?.get_or_insert_with(init))
    }

    /// Returns the place of the key's value to change it: nothing there is an absent key. The entry counts as changed.
    ///
    /// # Errors
    /// As [`Table::touch`].
    #[inline]
    pub fn slot(&mut self, hash: u32, key: &K::Borrowed) -> Result<&mut Option<V>, StateError> {
        self.touch(hash, key, &())
    }

    /// Removes the key's value and returns it.
    ///
    /// # Errors
    /// As [`Table::touch`].
    pub fn remove(&mut self, hash: u32, key: &K::Borrowed) -> Result<Option<V>, StateError> {
        self.take(hash, key, &())
    }
}

fn group_at(setup: &TableSetup, index: usize) -> u16 {
    setup.groups.start + u16::try_from(index).unwrap_or(0)
}

impl<K: StreamKey, C: Content, F: Form<C::Value>> OperatorState for Table<K, C, F> {
    fn take_read(&mut self) -> Option<StateRead> {
        let mut read = StateRead::default();
        (self.look(&mut read.looks) > 0).then_some(read)
    }

    fn loaded(&mut self, _read: &StateRead, rows: StateRows) -> Result<(), LoadError> {
        self.take_in(&rows.found)
    }

    fn take_read_ahead(&mut self) -> Option<StateRead> {
        Some(StateRead { looks: vec![self.look_ahead()?] })
    }

    fn loaded_ahead(&mut self, _read: &StateRead, rows: StateRows) -> Result<(), LoadError> {
        rows.found.iter().try_for_each(|found| self.take_in_ahead(found))
    }

    fn rest(&mut self) -> Rest {
        if !self.graves.is_empty() {
            let early = planted(Canary::TombstoneEarly);
            self.sweep(if early { self.epoch } else { self.may_leave_through() }, SWEPT_AT_ONCE);
        }
        self.make_room()
    }
}

#[cfg(test)]
mod tests;
