//! How a frozen epoch is written down: in slices between frames, and ahead of those by whoever changes a cell first.

use std::collections::VecDeque;

use super::tombstones::dig;
use super::{Place, Table, group_at, spread};
use crate::canary::{Canary, planted};
use crate::checkpoint::Delta;
use crate::codec::CodecError;
use crate::id::Epoch;
use crate::state::cell::{Cell, Content};
use crate::state::entry;
use crate::state::form::Form;
use crate::state::freeze::{DeltaBuilder, Frozen, Slice, Snapshot};
use crate::state::key_group::{StreamKey, StreamKeyRef};

/// Entries that are looked up together when an epoch is encoded, so that their cache misses overlap.
const AT_ONCE: usize = 64;
/// Entries that are encoded to see how large they are.
const SAMPLED: usize = 8;

/// How many bytes entries have, on average.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mean {
    entries: u64,
    bytes: u64,
}

impl Mean {
    pub(super) fn add(&mut self, delta: &Delta) {
        if delta.entries == 0 {
            // One without changes says nothing; halved over and over by such, nothing would be left of what the others said.
            return;
        }
        // What is newer counts more.
        let bytes: usize = delta.chunks.iter().map(Vec::len).sum();
        self.entries = self.entries / 2 + delta.entries;
        self.bytes = self.bytes / 2 + bytes as u64;
    }

    pub(super) const fn is_known(self) -> bool {
        self.entries > 0
    }

    pub(super) fn mean(self) -> usize {
        usize::try_from(self.bytes / self.entries.max(1)).unwrap_or(usize::MAX)
    }
}

impl<K: StreamKey, C: Content, F: Form<C::Value>> Table<K, C, F> {
    /// Reads the places of these keys ahead of their changes, if those have much to do besides: while an epoch is frozen a
    /// first touch encodes, and behind that work the processor no longer overlaps the cache misses of one look-up with those
    /// of the next. In a pass of their own they do overlap.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u32>) {
        if !self.frozen.is_empty() {
            self.read_ahead(hashes);
        }
    }

    fn read_ahead(&self, hashes: impl Iterator<Item = u32>) {
        let mut read = 0;
        for hash in hashes {
            // Whatever has the hash's tag: a wrong one now and then only means a miss later.
            let map = self.maps.get(self.index(hash));
            if let Some(slot) = map.and_then(|map| map.find(spread(hash), |_| true)) {
                read ^= slot.content.peek();
            }
        }
        std::hint::black_box(read);
    }

    /// Encodes a few changed entries to see how large they are, where no epoch has been encoded yet: the first one may be the largest.
    pub(super) fn sample(&mut self) {
        if self.encoded.is_known() || self.dirty.is_empty() {
            return;
        }
        let mut delta = DeltaBuilder::new(self.setup.operator);
        for (hash, (key, element)) in self.dirty.last(SAMPLED) {
            let index = self.index(*hash);
            let slot = self.maps.get(index).and_then(|map| map.find(spread(*hash), |slot| slot.key == *key));
            let place = Written { state: self.setup.state, group: group_at(&self.setup, index), key, element };
            if let Some(cell) = slot.and_then(|slot| slot.content.cell(element)) {
                // One that cannot be encoded fails its epoch, not this.
                let _ = append::<K, C, F>(&mut delta, &place, cell, &self.form);
            }
        }
        self.encoded.add(&delta.finish());
    }

    /// Encodes one cell of a frozen epoch unless that was done by a later touch or the cell is of a later epoch by now.
    fn encode_cell(&mut self, hash: u32, key: K, element: C::Element) -> Result<(), CodecError> {
        let index = self.index(hash);
        let Self { setup, form, maps, frozen, graves, .. } = self;
        let Some(frozen) = frozen.front_mut() else { return Ok(()) };
        let Some(map) = maps.get_mut(index) else { return Ok(()) };
        let Some(slot) = map.find_mut(spread(hash), |slot| slot.key == key) else { return Ok(()) };
        let Some(cell) = slot.content.cell_mut(&element) else { return Ok(()) };
        let late = planted(Canary::LateEncode);
        if !late && (cell.stamp.epoch() != frozen.epoch || cell.stamp.is_encoded()) {
            return Ok(());
        }
        let place = Written { state: setup.state, group: group_at(setup, index), key: &slot.key, element: &element };
        append::<K, C, F>(&mut frozen.delta, &place, cell, form)?;
        if cell.stamp.epoch() != frozen.epoch {
            return Ok(());
        }
        cell.stamp = cell.stamp.encoded();
        if cell.value.is_none() {
            dig(graves, frozen.epoch, hash, (key, element));
        }
        Ok(())
    }
}

/// Where a cell is written to.
pub(super) struct Written<'a, K, E> {
    pub(super) state: u16,
    pub(super) group: u16,
    pub(super) key: &'a K,
    pub(super) element: &'a E,
}

#[inline]
pub(super) fn copy_on_write<K: StreamKey, C: Content, F: Form<C::Value>>(
    place: &Written<'_, K, C::Element>,
    cell: &Cell<C::Value>,
    form: &F,
    frozen: &mut VecDeque<Frozen<Place<K, C>>>,
) -> Result<(), CodecError> {
    if cell.stamp.is_encoded() || planted(Canary::LateEncode) {
        return Ok(());
    }
    match frozen.iter_mut().find(|frozen| frozen.epoch == cell.stamp.epoch()) {
        Some(frozen) => append::<K, C, F>(&mut frozen.delta, place, cell, form),
        None => Ok(()),
    }
}

fn append<K: StreamKey, C: Content, F: Form<C::Value>>(
    delta: &mut DeltaBuilder,
    place: &Written<'_, K, C::Element>,
    cell: &Cell<C::Value>,
    form: &F,
) -> Result<(), CodecError> {
    let key = |out: &mut Vec<u8>| place.key.borrow().write_key(out);
    let element = |out: &mut Vec<u8>| C::write_element(place.element, out);
    let value = cell.value.as_ref().map(|value| move |out: &mut Vec<u8>| form.encode(value, out));
    delta.push(|chunk| entry::append(chunk, place.state, place.group, key, element, value))
}

impl<K: StreamKey, C: Content, F: Form<C::Value>> Snapshot for Table<K, C, F> {
    fn freeze(&mut self, epoch: Epoch) {
        let keys = std::mem::take(&mut self.dirty);
        let changed = keys.len() as u64;
        self.frozen.push_back(Frozen { epoch, keys, changed, delta: DeltaBuilder::new(self.setup.operator) });
        self.epoch = epoch.next();
    }

    fn encode_slice(&mut self, entries: usize) -> Result<Slice, CodecError> {
        let mut slice = Slice::default();
        let mut budget = entries;
        while let Some(frozen) = self.frozen.front_mut() {
            // When later touches have encoded the rest, looking those keys up once more would be for nothing.
            if frozen.keys.is_empty() || frozen.is_encoded() {
                if let Some(frozen) = self.frozen.pop_front() {
                    let delta = frozen.delta.finish();
                    self.encoded.add(&delta);
                    slice.done.push((frozen.epoch, delta));
                }
                continue;
            }
            if budget == 0 {
                break;
            }
            let keys = frozen.keys.take(budget.min(AT_ONCE));
            budget -= keys.len();
            self.read_ahead(keys.iter().map(|(hash, _)| *hash));
            for (hash, (key, element)) in keys {
                self.encode_cell(hash, key, element)?;
            }
        }
        slice.left = self.left();
        Ok(slice)
    }

    fn left(&self) -> usize {
        self.frozen.iter().map(Frozen::left).sum()
    }
}
