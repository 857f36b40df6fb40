//! Which keys are in memory: what is missing, what may go, and what is read in unasked.
//!
//! The key is the unit: all that it has in a state is loaded and evicted together, so a miss reads rows and never merges.
//!
//! - A key may be evicted when its rows are not older than it: every cell changed at or before `folded_through`, or was read
//!   from its row and not changed. A tombstone is a cell like any other.
//! - A key group is *complete* when every key that has a row is in memory: what is not found there is absent, and no disk is
//!   asked. It is so from the start where a state has no rows, and again after a whole scan of the group during which nothing
//!   of it was evicted.
//! - While rows are on their way, nothing that changed behind the `folded_through` at which they were asked for leaves memory,
//!   tombstones included: it could change, be folded and go, and those rows would put an old value in its place, or one that
//!   was removed. What is in memory wins over them.
//! - Nothing is evicted while a frame is in work, so its keys are pinned.

use hashbrown::HashTable;

use super::{Content, EntryKey, Form, LoadError, Slot, Stamp, Table, rehash};
use crate::canary::{Canary, planted};
use crate::id::Epoch;
use crate::state::budget::{BudgetShare, Taken};
use crate::state::freeze::Rest;
use crate::state::key_group::{StreamKey, StreamKeyRef};
use crate::state::read::{Found, Look};

/// The share of a key group's keys that goes at once: the least recently changed ones.
const EVICTED_SHARE: usize = 4;
/// Keys that are looked at between two frames, whole key groups at a time. A frame brings up to 256 of them, so as many must be able
/// to go where only a few of those that are looked at may.
const KEYS_AT_ONCE: usize = 4096;
/// Rows that are read unasked at once, at most.
const PAGE_ROWS: usize = 512;
/// The share of the budget that they take at most.
const PAGE_SHARE: u64 = 16;
/// Maps whose size is looked up at a time.
const MEASURED_AT_ONCE: usize = 16;

/// Where a table stands with its rows.
#[derive(Debug)]
pub(super) struct Residency<K> {
    groups: Vec<Group>,
    /// Groups that are not complete.
    incomplete: usize,
    /// Keys that have to be read.
    wanted: Vec<(u32, K)>,
    /// Keys that are being read, in the order of their looks.
    asked: Vec<(u32, K)>,
    /// `folded_through` when they were asked for.
    asked_at: Epoch,
    /// A group that is needed whole, and one that is being read whole, with its evictions then.
    pub(super) wanted_group: Option<usize>,
    pub(super) asked_group: Option<(usize, u64)>,
    /// The page that is being read unasked.
    warming: Option<Warming>,
    budget: BudgetShare,
    /// Keys in memory.
    pub(super) keys: usize,
    /// Cells in memory.
    pub(super) cells: usize,
    /// What the maps take, with the places that are free.
    map_bytes: usize,
    /// The group whose map is measured next.
    measured: usize,
    /// The group that is looked at next for what may go.
    hand: usize,
    /// Groups in a row in which nothing could go.
    barren: usize,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    complete: bool,
    /// How often something of it was evicted.
    evictions: u64,
    /// What its map took when it was measured last.
    map_bytes: usize,
}

#[derive(Debug)]
struct Warming {
    index: usize,
    /// The first row of the next page, without operator, state and group; nothing for the beginning.
    from: Option<Vec<u8>>,
    rows: usize,
    /// `folded_through` when the page that is under way was asked for.
    began: Epoch,
    evictions: u64,
    under_way: bool,
}

impl<K> Residency<K> {
    pub(super) fn new(groups: usize, has_rows: bool, budget: BudgetShare) -> Self {
        Self {
            groups: vec![Group { complete: !has_rows, evictions: 0, map_bytes: 0 }; groups],
            incomplete: if has_rows { groups } else { 0 },
            wanted: Vec::new(),
            asked: Vec::new(),
            asked_at: Epoch::GENESIS,
            wanted_group: None,
            asked_group: None,
            warming: None,
            budget,
            keys: 0,
            cells: 0,
            map_bytes: 0,
            measured: 0,
            hand: 0,
            barren: 0,
        }
    }

    /// How often something of a group was evicted.
    pub(super) fn evictions(&self, index: usize) -> u64 {
        self.groups.get(index).map_or(0, |group| group.evictions)
    }

    pub(super) fn is_complete(&self, index: usize) -> bool {
        self.groups.get(index).is_none_or(|group| group.complete)
    }

    /// Takes note that something of a group is gone.
    fn evicted(&mut self, index: usize) {
        let Some(group) = self.groups.get_mut(index) else { return };
        group.evictions += 1;
        if std::mem::replace(&mut group.complete, false) {
            self.incomplete += 1;
        }
    }

    fn measured(&mut self, index: usize, bytes: usize) {
        let Some(group) = self.groups.get_mut(index) else { return };
        self.map_bytes = self.map_bytes + bytes - std::mem::replace(&mut group.map_bytes, bytes);
    }

    pub(super) fn completed(&mut self, index: usize) {
        let Some(group) = self.groups.get_mut(index) else { return };
        if !std::mem::replace(&mut group.complete, true) {
            self.incomplete -= 1;
        }
    }
}

impl<K: StreamKey, C: Content, F: Form<C::Value>> Table<K, C, F> {
    /// Says whether every key that there is is in memory, so that nothing can be missing.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.residency.incomplete == 0
    }

    /// Takes note that a key is needed: it is read if it is not in memory. See [`Table::is_missing`].
    pub fn want(&mut self, hash: u32, key: &K::Borrowed) {
        let index = self.index(hash);
        if self.residency.is_complete(index) || self.content(hash, key).is_some_and(|content| !content.is_partial()) {
            return;
        }
        // Keys of one frame: few, and mostly different.
        if !self.residency.wanted.iter().any(|(known, wanted)| *known == hash && wanted.borrow() == key) {
            self.residency.wanted.push((hash, key.to_key()));
        }
    }

    /// Says whether keys that are needed have to be read first.
    pub fn is_missing(&self) -> bool {
        !self.residency.wanted.is_empty() || self.residency.wanted_group.is_some()
    }

    /// Appends the looks for all that is missing and says how many they are; [`Table::take_in`] gets what they find.
    pub fn look(&mut self, looks: &mut Vec<Look>) -> usize {
        let wanted = std::mem::take(&mut self.residency.wanted);
        for (hash, key) in &wanted {
            let mut from = self.prefix(self.index(*hash));
            let length_at = from.len();
            from.extend_from_slice(&[0; 4]);
            key.borrow().write_key(&mut from);
            let length = u32::try_from(from.len() - length_at - 4).unwrap_or(u32::MAX);
            if let Some(slot) = from.get_mut(length_at..length_at + 4) {
                slot.copy_from_slice(&length.to_be_bytes());
            }
            looks.push(if C::CELL_BYTES == 0 {
                Look::Get(from)
            } else {
                // All elements of the key: it ends where the next key of this length begins.
                let to = successor(&from);
                Look::Scan { from, to, limit: usize::MAX }
            });
        }
        let group = self.look_for_group();
        let count = wanted.len() + usize::from(group.is_some());
        looks.extend(group);
        self.setup.share.counters().read(count as u64);
        self.residency.asked = wanted;
        self.residency.asked_at = self.setup.share.folded_through();
        count
    }

    /// Takes in what [`Table::look`] asked for: one answer per look, in their order.
    ///
    /// # Errors
    /// [`LoadError`] when a row is not what this state writes.
    pub fn take_in(&mut self, found: &[Found]) -> Result<(), LoadError> {
        let asked = std::mem::take(&mut self.residency.asked);
        let group = found.get(asked.len());
        for ((hash, key), found) in asked.into_iter().zip(found) {
            let content = self.content_of(found.rows.iter())?;
            self.put_read(hash, key, content);
        }
        group.map_or(Ok(()), |found| self.take_in_group(found))
    }

    /// Returns the look for rows that nobody has asked for yet, if there is room for them and none is under way.
    pub fn look_ahead(&mut self) -> Option<Look> {
        if self.is_complete() || !self.residency.budget.has_room() {
            return None;
        }
        if self.residency.warming.is_none() {
            let index = self.residency.groups.iter().position(|group| !group.complete)?;
            self.residency.warming = Some(Warming {
                index,
                from: None,
                rows: self.page_rows(),
                began: self.setup.share.folded_through(),
                evictions: self.residency.groups.get(index)?.evictions,
                under_way: false,
            });
        }
        let (index, start) = (self.residency.warming.as_ref()?.index, self.residency.warming.as_ref()?.from.clone());
        let prefix = self.prefix(index);
        let began = self.setup.share.folded_through();
        let warming = self.residency.warming.as_mut().filter(|warming| !warming.under_way)?;
        (warming.under_way, warming.began) = (true, began);
        let to = successor(&prefix);
        Some(Look::Scan { from: start.unwrap_or(prefix), to, limit: warming.rows })
    }

    /// Takes in what [`Table::look_ahead`] asked for. What is in memory wins.
    ///
    /// # Errors
    /// [`LoadError`] when a row is not what this state writes.
    pub fn take_in_ahead(&mut self, found: &Found) -> Result<(), LoadError> {
        let Some(mut warming) = self.residency.warming.take() else { return Ok(()) };
        let mut rows = found.rows.as_slice();
        if found.more {
            // The last key may go on behind the page, and a key is taken in whole or not at all.
            let last = rows.last().and_then(|(key, _)| Some((key, key_end(key)?)));
            let Some((last, end)) = last else { return Ok(()) };
            let begin = last.get(..end).unwrap_or_default();
            let whole = rows.partition_point(|(key, _)| key.as_slice() < begin);
            if whole == 0 {
                warming.rows = warming.rows.saturating_mul(2);
            }
            warming.from = Some(begin.to_vec());
            rows = rows.get(..whole).unwrap_or_default();
        }
        self.put_rows(rows)?;
        if !found.more {
            if self.residency.evictions(warming.index) == warming.evictions || planted(Canary::CompleteDespiteEviction)
            {
                self.residency.completed(warming.index);
                self.setup.share.counters().completed();
            }
            // Otherwise it is scanned again, when there is room.
        } else if self.residency.budget.has_room() {
            warming.under_way = false;
            self.residency.warming = Some(warming);
        }
        Ok(())
    }

    /// Lets go what is too much for the budget, and tombstones that the rows know of. No frame is in work.
    pub(super) fn make_room(&mut self) -> Rest {
        self.report();
        let (mut looked, mut passed) = (0, 0);
        while self.residency.budget.excess() > 0 && looked < KEYS_AT_ONCE && passed < self.maps.len() {
            passed += 1;
            let index = self.residency.hand;
            self.residency.hand = (index + 1) % self.maps.len().max(1);
            // A small state leaves most groups empty.
            let keys = self.maps.get(index).map_or(0, HashTable::len);
            if keys == 0 {
                self.residency.barren += 1;
                if self.give_back(index) {
                    self.report();
                }
                continue;
            }
            looked += keys;
            if self.evict(index) > 0 {
                self.residency.barren = 0;
                self.report();
            } else {
                self.residency.barren += 1;
            }
        }
        let mut close_epoch = self.residency.budget.is_epoch_full();
        if self.residency.barren > self.maps.len() {
            // All that is left is newer than the rows. Only commits bring it there: what is changed has to be in one, a fold begins
            // behind one, and where the sources are held back nobody else may ask for one in a long time.
            self.residency.barren = 0;
            let is_new = self.setup.share.want_fold();
            close_epoch |= is_new || (self.residency.budget.is_full() && !self.dirty.is_empty());
        }
        Rest { again: self.residency.budget.excess() > 0, close_epoch }
    }

    fn report(&mut self) {
        self.sample();
        for _ in 0..MEASURED_AT_ONCE.min(self.maps.len()) {
            self.residency.measured = (self.residency.measured + 1) % self.maps.len().max(1);
            self.measure(self.residency.measured);
        }
        let place = size_of::<(u32, K, C::Element)>();
        let dirty = self.dirty.len() * (place + C::CELL_BYTES + self.encoded.mean());
        let entry = if self.residency.keys > 0 { Self::KEY_BYTES + self.cell_bytes() } else { 0 };
        self.residency.budget.report(Taken { bytes: self.bytes(), dirty: dirty as u64, entry: entry as u64 });
    }

    /// Looks up what a map takes. A map that keys come to and go from has, at times, more than twice the places that they need.
    fn measure(&mut self, index: usize) {
        let bytes = self.maps.get(index).map_or(0, HashTable::allocation_size);
        self.residency.measured(index, bytes);
    }

    /// The last epoch whose changes are in the rows, and in those that are on their way too: what changed later must stay.
    pub(super) fn may_leave_through(&self) -> Epoch {
        let mut through = self.setup.share.folded_through();
        if !self.residency.asked.is_empty() || self.residency.asked_group.is_some() {
            through = through.min(self.residency.asked_at);
        }
        let under_way = self.residency.warming.as_ref().filter(|warming| warming.under_way);
        match under_way.filter(|_| !planted(Canary::StaleWarmUp)) {
            Some(warming) => through.min(warming.began),
            None => through,
        }
    }

    fn page_rows(&self) -> usize {
        let most = self.residency.budget.limit() / PAGE_SHARE / (Self::KEY_BYTES + self.cell_bytes()) as u64;
        usize::try_from(most).map_or(PAGE_ROWS, |most| most.clamp(1, PAGE_ROWS))
    }

    /// A map is between 7/16 and 7/8 full.
    const KEY_BYTES: usize = size_of::<Slot<K, C>>() * 3 / 2 + 2;

    fn cell_bytes(&self) -> usize {
        let heap = std::mem::needs_drop::<K>() || std::mem::needs_drop::<C::Value>();
        C::CELL_BYTES + if heap { self.encoded.mean() } else { 0 }
    }

    /// About how much memory the table takes.
    fn bytes(&self) -> u64 {
        let resident = self.residency.map_bytes + self.residency.cells * self.cell_bytes();
        let place = size_of::<(u32, K, C::Element)>();
        let frozen: usize = self.frozen.iter().map(|frozen| frozen.keys.len() * place + frozen.delta.bytes()).sum();
        (resident + self.dirty.len() * place + frozen) as u64
    }

    /// Evicts the least recently changed keys of a group that may go; says how many.
    fn evict(&mut self, index: usize) -> usize {
        let folded_through = self.may_leave_through();
        let Some(map) = self.maps.get_mut(index) else { return 0 };
        let age = |slot: &Slot<K, C>| age(&slot.content, folded_through);
        let mut ages: Vec<u64> = map.iter().filter_map(age).collect();
        let most = ages.len().div_ceil(EVICTED_SHARE);
        if most == 0 {
            return 0;
        }
        let (_, oldest, _) = ages.select_nth_unstable(most - 1);
        let (oldest, mut gone, mut cells, mut tombstones) = (*oldest, 0, 0, 0);
        map.retain(|slot| {
            if gone >= most || age(slot).is_none_or(|age| age > oldest) {
                return true;
            }
            gone += 1;
            cells += slot.content.count();
            tombstones += slot.content.cells().filter(|(_, cell)| cell.value.is_none()).count();
            false
        });
        self.give_back(index);
        self.residency.keys -= gone;
        self.residency.cells -= cells;
        self.residency.evicted(index);
        self.setup.share.counters().evicted(gone as u64, tombstones as u64);
        gone
    }

    /// Gives back the places of a map that are free, where they are most of it; says whether they were.
    fn give_back(&mut self, index: usize) -> bool {
        let Some(map) = self.maps.get_mut(index) else { return false };
        let most = map.len() * 4 < map.capacity();
        if most {
            map.shrink_to(map.len(), rehash);
        }
        self.measure(index);
        most
    }

    /// The beginning of the keys of all rows of a group.
    pub(super) fn prefix(&self, index: usize) -> Vec<u8> {
        let mut key = self.setup.operator.number().to_be_bytes().to_vec();
        key.extend_from_slice(&self.setup.state.to_be_bytes());
        key.extend_from_slice(&super::group_at(&self.setup, index).to_be_bytes());
        key
    }

    /// What the rows of one key say.
    pub(super) fn content_of<'a>(&self, rows: impl Iterator<Item = &'a (Vec<u8>, Vec<u8>)>) -> Result<C, LoadError> {
        let state = self.setup.state;
        let mut content = C::default();
        for (row, value) in rows {
            let parsed = row.get(4..).and_then(EntryKey::parse).filter(|parsed| parsed.state == state);
            let parsed = parsed.ok_or(LoadError::Key { state })?;
            let element = C::read_element(parsed.element).ok_or(LoadError::Key { state })?;
            let value = self.form.decode(value).map_err(|source| LoadError::Value { state, source })?;
            let cell = content.touch(&element);
            (cell.value, cell.stamp) = (Some(value), Stamp::clean(self.epoch));
        }
        Ok(content)
    }
}

/// When a key changed last, if its rows are not older than that.
fn age<C: Content>(content: &C, folded_through: Epoch) -> Option<u64> {
    let mut age = 0;
    for (_, cell) in content.cells() {
        let early = planted(Canary::EvictAtCommitted) && cell.stamp.is_encoded();
        if !early && !cell.stamp.is_in_row(folded_through) {
            return None;
        }
        age = age.max(cell.stamp.epoch().number());
    }
    Some(age)
}

/// Where the key ends in the key of a row, and its element begins; nothing for a damaged one.
pub(super) fn key_end(row: &[u8]) -> Option<usize> {
    let length = row.get(8..12)?.try_into().ok().map(u32::from_be_bytes)?;
    let end = 12 + length as usize;
    (end <= row.len()).then_some(end)
}

/// The first key behind all that begin with `prefix`.
pub(super) fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    while let Some(last) = key.pop() {
        if last < u8::MAX {
            key.push(last + 1);
            break;
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_stands_behind_everything_that_begins_with_the_prefix() {
        assert_eq!(successor(&[1, 2]), [1, 3]);
        assert_eq!(successor(&[1, 255]), [2]);
        assert!(successor(&[1, 255]).as_slice() > &[1, 255, 255, 255][..]);
    }
}
