//! The typed in-memory map of one state: what the record path touches.
//!
//! Entries carry the epoch of their last change; the first touch in an epoch puts the key on the dirty list. At a barrier
//! the list is frozen in O(1) ([`Table::freeze`]) and encoded in slices while records go on. The first touch of an entry whose
//! last change belongs to a frozen, unfinished epoch encodes it into *that* epoch first: copy-on-write.

use std::collections::VecDeque;
use std::ops::Range;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::canary::{Canary, planted};
use crate::codec::{self, CodecError};
use crate::id::{Epoch, OperatorId};
use crate::state::entry::{self, EntryKey};
use crate::state::freeze::{DeltaBuilder, Frozen, KeyList, OperatorState, Slice, Snapshot};
use crate::state::key_group::{KeyGroups, StreamKey, StreamKeyRef};

/// What may be a state's value.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept as state",
    note = "state is written to the checkpoint: derive `serde::Serialize` and `serde::Deserialize`, own the data (no borrows)"
)]
pub trait StateValue: Serialize + DeserializeOwned + Send + 'static {}

impl<V: Serialize + DeserializeOwned + Send + 'static> StateValue for V {}

/// Epoch of the last change, and whether that change is encoded already. The flag is the top bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp(u64);

impl Stamp {
    const ENCODED: u64 = 1 << 63;

    const fn new(epoch: Epoch) -> Self {
        Self(epoch.number())
    }

    const fn epoch(self) -> Epoch {
        Epoch::new(self.0 & !Self::ENCODED)
    }

    const fn is_encoded(self) -> bool {
        self.0 & Self::ENCODED != 0
    }

    const fn encoded(self) -> Self {
        Self(self.0 | Self::ENCODED)
    }
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    /// Nothing is a tombstone: the key was removed, and the removal is not encoded yet.
    value: Option<V>,
    stamp: Stamp,
}

/// State that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The entry's value of an epoch that is being encoded cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The record belongs to another subtask: it was not exchanged by its key. A bug in this library, or a hash that was
    /// computed by other means.
    #[error("hash {hash} belongs to a key group of another subtask")]
    NotMine {
        /// The hash.
        hash: u32,
    },
}

/// A state that cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A stored entry is not what this state writes: the key's or value's type changed, or the bytes are damaged.
    #[error("cannot restore state {state}: an entry is not of its key type")]
    Key {
        /// Number of the state.
        state: u16,
    },
    /// A stored value is not of the state's type.
    #[error("cannot restore state {state}")]
    Value {
        /// Number of the state.
        state: u16,
        /// The cause.
        source: CodecError,
    },
}

/// One value per key, in one map per key group.
#[derive(Debug)]
pub struct Table<K, V> {
    operator: OperatorId,
    state: u16,
    key_groups: KeyGroups,
    groups: Range<u16>,
    maps: Vec<HashTable<Slot<K, V>>>,
    epoch: Epoch,
    dirty: KeyList<K>,
    frozen: VecDeque<Frozen<K>>,
}

/// Entries that are looked up together when an epoch is encoded, so that their cache misses overlap.
const AT_ONCE: usize = 64;

/// Spreads a 31-bit hash over the 64 bits that the map wants. All keys of a map share their key group, and with 960 = 64 × 15
/// groups the low bits of their hashes; the map starts to probe at the low bits, so they have to come from the high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    let mixed = u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

fn rehash<K: StreamKey, V>(slot: &Slot<K, V>) -> u64 {
    spread(slot.key.borrow().key_hash(&mut Vec::new()))
}

impl<K: StreamKey, V: StateValue> Table<K, V> {
    /// Makes an empty table for the key groups that a subtask owns; changes belong to the epoch after `restored`.
    pub fn new(operator: OperatorId, state: u16, key_groups: KeyGroups, groups: Range<u16>, restored: Epoch) -> Self {
        let maps = groups.clone().map(|_| HashTable::new()).collect();
        Self {
            operator,
            state,
            key_groups,
            groups,
            maps,
            epoch: restored.next(),
            dirty: KeyList::default(),
            frozen: VecDeque::new(),
        }
    }

    /// Returns how many keys have a value.
    pub fn len(&self) -> usize {
        self.maps.iter().map(|map| map.iter().filter(|slot| slot.value.is_some()).count()).sum()
    }

    /// Says whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts back what a store holds; later chunks and entries win. Entries of other states and key groups are skipped.
    ///
    /// # Errors
    /// [`LoadError`] names the state whose type does not fit.
    pub fn load(&mut self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        for stored in chunks.iter().flat_map(|chunk| entry::entries(chunk)) {
            let state = self.state;
            let parsed = EntryKey::parse(stored.key).ok_or(LoadError::Key { state })?;
            if parsed.state != state || !self.groups.contains(&parsed.group) {
                continue;
            }
            let key = K::read_key(parsed.key).ok_or(LoadError::Key { state })?;
            let value = stored.value.map(codec::decode::<V>).transpose();
            let value = value.map_err(|source| LoadError::Value { state, source })?;
            self.put_restored(key, value);
        }
        Ok(())
    }

    /// Returns the key's value. `hash` is the key's [`StreamKeyRef::key_hash`].
    pub fn get(&self, hash: u32, key: &K::Borrowed) -> Option<&V> {
        let map = self.maps.get(self.index(hash))?;
        map.find(spread(hash), |slot| slot.key.borrow() == key)?.value.as_ref()
    }

    /// Returns the key's value to change it, made by `init` if the key is new. The entry counts as changed.
    ///
    /// # Errors
    /// [`StateError`] when the value of a frozen epoch cannot be encoded.
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
    /// As [`Table::get_or_insert_with`].
    #[inline]
    pub fn slot(&mut self, hash: u32, key: &K::Borrowed) -> Result<&mut Option<V>, StateError> {
        let index = self.index(hash);
        let epoch = self.epoch;
        let state = self.state;
        let Self { maps, dirty, frozen, groups, .. } = self;
        let Some(map) = maps.get_mut(index) else {
            return Err(StateError::NotMine { hash });
        };
        let slot = match map.entry(spread(hash), |slot| slot.key.borrow() == key, rehash) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => {
                let key = key.to_key();
                dirty.push(hash, key.clone());
                vacant.insert(Slot { key, value: None, stamp: Stamp::new(epoch) }).into_mut()
            }
        };
        if slot.stamp.epoch() != epoch {
            let group = groups.start + u16::try_from(index).unwrap_or(0);
            copy_on_write(slot, frozen, state, group)?;
            slot.stamp = Stamp::new(epoch);
            dirty.push(hash, slot.key.clone());
        }
        Ok(&mut slot.value)
    }

    /// Removes the key's value and returns it.
    ///
    /// # Errors
    /// As [`Table::get_or_insert_with`].
    pub fn remove(&mut self, hash: u32, key: &K::Borrowed) -> Result<Option<V>, StateError> {
        let index = self.index(hash);
        let group = self.groups.start + u16::try_from(index).unwrap_or(0);
        let Some(map) = self.maps.get_mut(index) else { return Err(StateError::NotMine { hash }) };
        let Some(slot) = map.find_mut(spread(hash), |slot| slot.key.borrow() == key) else { return Ok(None) };
        if slot.value.is_some() && slot.stamp.epoch() != self.epoch {
            copy_on_write(slot, &mut self.frozen, self.state, group)?;
            slot.stamp = Stamp::new(self.epoch);
            self.dirty.push(hash, slot.key.clone());
        }
        Ok(slot.value.take())
    }

    /// Reads the places of these keys ahead of their changes, if those have much to do besides: while an epoch is frozen a
    /// first touch encodes, and behind that work the processor no longer overlaps the cache misses of one look-up with those
    /// of the next. In a pass of their own they do overlap.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u32>) {
        if !self.frozen.is_empty() {
            self.touch(hashes);
        }
    }

    fn touch(&self, hashes: impl Iterator<Item = u32>) {
        let mut read = 0;
        for hash in hashes {
            // Whatever has the hash's tag: a wrong one now and then only means a miss later.
            let map = self.maps.get(self.index(hash));
            if let Some(slot) = map.and_then(|map| map.find(spread(hash), |_| true)) {
                read ^= slot.stamp.0;
            }
        }
        std::hint::black_box(read);
    }

    #[inline]
    fn index(&self, hash: u32) -> usize {
        usize::from(self.key_groups.group(hash).wrapping_sub(self.groups.start))
    }

    fn put_restored(&mut self, key: K, value: Option<V>) {
        let hash = key.borrow().key_hash(&mut Vec::new());
        let index = self.index(hash);
        let Some(map) = self.maps.get_mut(index) else { return };
        match (map.entry(spread(hash), |slot| slot.key == key, rehash), value) {
            (Entry::Occupied(mut occupied), Some(value)) => occupied.get_mut().value = Some(value),
            (Entry::Occupied(occupied), None) => {
                occupied.remove();
            }
            (Entry::Vacant(vacant), Some(value)) => {
                vacant.insert(Slot { key, value: Some(value), stamp: Stamp::new(Epoch::GENESIS) });
            }
            (Entry::Vacant(_), None) => {}
        }
    }

    /// Encodes one key of a frozen epoch unless that was done by a later touch or the key is of a later epoch by now.
    fn encode_key(&mut self, hash: u32, key: &K) -> Result<(), CodecError> {
        let index = self.index(hash);
        let group = self.groups.start + u16::try_from(index).unwrap_or(0);
        let state = self.state;
        let Some(frozen) = self.frozen.front_mut() else { return Ok(()) };
        let Some(map) = self.maps.get_mut(index) else { return Ok(()) };
        let Ok(mut occupied) = map.find_entry(spread(hash), |slot| slot.key == *key) else { return Ok(()) };
        let slot = occupied.get_mut();
        let late = planted(Canary::LateEncode);
        if !late && (slot.stamp.epoch() != frozen.epoch || slot.stamp.is_encoded()) {
            return Ok(());
        }
        append(&mut frozen.delta, state, group, slot)?;
        if slot.stamp.epoch() != frozen.epoch {
            return Ok(());
        }
        slot.stamp = slot.stamp.encoded();
        if slot.value.is_none() {
            occupied.remove();
        }
        Ok(())
    }
}

#[inline]
fn copy_on_write<K: StreamKey, V: StateValue>(
    slot: &Slot<K, V>,
    frozen: &mut VecDeque<Frozen<K>>,
    state: u16,
    group: u16,
) -> Result<(), CodecError> {
    if slot.stamp.is_encoded() || planted(Canary::LateEncode) {
        return Ok(());
    }
    match frozen.iter_mut().find(|frozen| frozen.epoch == slot.stamp.epoch()) {
        Some(frozen) => append(&mut frozen.delta, state, group, slot),
        None => Ok(()),
    }
}

fn append<K: StreamKey, V: StateValue>(
    delta: &mut DeltaBuilder,
    state: u16,
    group: u16,
    slot: &Slot<K, V>,
) -> Result<(), CodecError> {
    let key = |out: &mut Vec<u8>| slot.key.borrow().write_key(out);
    let value = slot.value.as_ref().map(|value| move |out: &mut Vec<u8>| codec::encode_into(value, out));
    delta.push(|chunk| entry::append(chunk, state, group, key, &[], value))
}

impl<K: StreamKey, V: StateValue> Snapshot for Table<K, V> {
    fn freeze(&mut self, epoch: Epoch) {
        let keys = std::mem::take(&mut self.dirty);
        let changed = keys.len() as u64;
        self.frozen.push_back(Frozen { epoch, keys, changed, delta: DeltaBuilder::new(self.operator) });
        self.epoch = epoch.next();
    }

    fn encode_slice(&mut self, entries: usize) -> Result<Slice, CodecError> {
        let mut slice = Slice::default();
        let mut budget = entries;
        while let Some(frozen) = self.frozen.front_mut() {
            // When later touches have encoded the rest, looking those keys up once more would be for nothing.
            if frozen.keys.is_empty() || frozen.is_encoded() {
                if let Some(frozen) = self.frozen.pop_front() {
                    slice.done.push((frozen.epoch, frozen.delta.finish()));
                }
                continue;
            }
            if budget == 0 {
                break;
            }
            let keys = frozen.keys.take(budget.min(AT_ONCE));
            budget -= keys.len();
            self.touch(keys.iter().map(|(hash, _)| *hash));
            for (hash, key) in keys {
                self.encode_key(hash, &key)?;
            }
        }
        slice.left = self.frozen.iter().map(Frozen::left).sum();
        Ok(slice)
    }
}

impl<K: StreamKey, V: StateValue> OperatorState for Table<K, V> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn table() -> Table<u32, u64> {
        Table::new(OperatorId::new(1), 0, KeyGroups::default(), 0..960, Epoch::GENESIS)
    }

    fn add(table: &mut Table<u32, u64>, key: u32) {
        let hash = key.key_hash(&mut Vec::new());
        *table.get_or_insert_with(hash, &key, || 0).unwrap() += 1;
    }

    fn content(table: &Table<u32, u64>) -> BTreeMap<u32, u64> {
        let slots = table.maps.iter().flat_map(HashTable::iter);
        slots.filter_map(|slot| Some((slot.key, slot.value?))).collect()
    }

    /// What a store would hold after these deltas.
    fn restored<'a>(deltas: impl IntoIterator<Item = &'a Delta>) -> BTreeMap<u32, u64> {
        let mut fresh = table();
        for delta in deltas {
            fresh.load(&delta.chunks).unwrap();
        }
        content(&fresh)
    }

    fn freeze(table: &mut Table<u32, u64>, epoch: u64) -> BTreeMap<u32, u64> {
        table.freeze(Epoch::new(epoch));
        content(table)
    }

    use crate::checkpoint::Delta;

    #[test]
    fn the_delta_of_an_epoch_is_what_the_state_was_at_its_barrier_whatever_is_changed_meanwhile() {
        for slice in [1, 2, 7, 1000] {
            let mut table = table();
            (0..10).for_each(|key| add(&mut table, key));
            let at_one = freeze(&mut table, 1);
            let mut deltas = Vec::new();
            (5..15).for_each(|key| add(&mut table, key));
            deltas.extend(table.encode_slice(slice).unwrap().done);
            let hash = 7u32.key_hash(&mut Vec::new());
            assert_eq!(table.remove(hash, &7).unwrap(), Some(2));
            let at_two = freeze(&mut table, 2);
            (0..20).for_each(|key| add(&mut table, key));
            while table.frozen.front().is_some() {
                deltas.extend(table.encode_slice(slice).unwrap().done);
            }
            assert_eq!(deltas.iter().map(|(epoch, _)| epoch.number()).collect::<Vec<_>>(), [1, 2]);
            assert_eq!(restored([&deltas[0].1]), at_one, "slices of {slice}");
            assert_eq!(restored([&deltas[0].1, &deltas[1].1]), at_two, "slices of {slice}");
        }
    }

    #[test]
    fn an_entry_is_in_a_delta_once_and_only_if_it_changed() {
        let mut table = table();
        (0..3).for_each(|key| add(&mut table, key));
        add(&mut table, 1);
        table.freeze(Epoch::new(1));
        let done = table.encode_slice(100).unwrap().done;
        assert_eq!(done[0].1.entries, 3);
        add(&mut table, 2);
        table.freeze(Epoch::new(2));
        add(&mut table, 2);
        let done = table.encode_slice(100).unwrap().done;
        assert_eq!((done[0].1.entries, restored([&done[0].1])), (1, BTreeMap::from([(2, 2)])));
    }

    #[test]
    fn refuses_a_record_of_another_subtask_and_an_entry_of_another_type() {
        let mut table: Table<u32, u64> = Table::new(OperatorId::new(1), 0, KeyGroups::default(), 0..0, Epoch::GENESIS);
        assert!(matches!(table.get_or_insert_with(3, &3, || 0), Err(StateError::NotMine { hash: 3 })));

        let mut strings: Table<u32, String> =
            Table::new(OperatorId::new(1), 0, KeyGroups::default(), 0..960, Epoch::GENESIS);
        let hash = 3u32.key_hash(&mut Vec::new());
        strings.get_or_insert_with(hash, &3, || "three".into()).unwrap();
        strings.freeze(Epoch::new(1));
        let delta = strings.encode_slice(10).unwrap().done.remove(0).1;
        assert!(matches!(self::table().load(&delta.chunks), Err(LoadError::Value { state: 0, .. })));
    }
}
