//! Key groups that are needed whole, now: for results that are sent with all that there is.

use super::{Content, Entry, EntryKey, Form, LoadError, Table, rehash, spread};
use crate::state::cell::Cell;
use crate::state::key_group::{StreamKey, StreamKeyRef};
use crate::state::read::{Found, Look};
use crate::state::table::Slot;
use crate::state::table::residency::{key_end, successor};

/// Rows as a scan finds them.
type Row = (Vec<u8>, Vec<u8>);

impl<K: StreamKey, C: Content, F: Form<C::Value>> Table<K, C, F> {
    /// Takes note that all keys of a group are needed: it is read if it is not complete. See [`Table::is_missing`].
    pub fn want_group(&mut self, group: u16) {
        let index = usize::from(group.wrapping_sub(self.setup.groups.start));
        if !self.residency.is_complete(index) {
            self.residency.wanted_group = Some(index);
        }
    }

    /// Returns the keys of a group that have a value, as far as they are in memory.
    pub fn keys_of(&self, group: u16) -> impl Iterator<Item = &K> {
        let map = self.maps.get(usize::from(group.wrapping_sub(self.setup.groups.start)));
        let filled = map.into_iter().flat_map(|map| map.iter());
        filled.filter(|slot| slot.content.cells().any(|(_, cell)| Cell::value(cell).is_some())).map(|slot| &slot.key)
    }

    /// The look for the group that is needed whole.
    pub(super) fn look_for_group(&mut self) -> Option<Look> {
        let index = self.residency.wanted_group.take()?;
        self.residency.asked_group = Some((index, self.residency.evictions(index)));
        let from = self.prefix(index);
        let to = successor(&from);
        Some(Look::Scan { from, to, limit: usize::MAX })
    }

    /// Takes in what [`Table::look_for_group`] asked for.
    pub(super) fn take_in_group(&mut self, found: &Found) -> Result<(), LoadError> {
        let Some((index, evictions)) = self.residency.asked_group.take() else { return Ok(()) };
        self.put_rows(&found.rows)?;
        if evictions == self.residency.evictions(index) {
            self.residency.completed(index);
            self.setup.share.counters().completed();
        }
        Ok(())
    }

    /// Puts whole keys there as these rows have them. What is in memory wins.
    pub(super) fn put_rows(&mut self, mut rows: &[Row]) -> Result<(), LoadError> {
        let state = self.setup.state;
        while let Some((first, _)) = rows.first() {
            let end = key_end(first).ok_or(LoadError::Key { state })?;
            let begin = first.get(..end).unwrap_or_default();
            let count = rows.partition_point(|(key, _)| key.starts_with(begin));
            let (of_key, rest) = rows.split_at(count.max(1));
            rows = rest;
            let parsed = EntryKey::parse(first.get(4..).unwrap_or_default()).ok_or(LoadError::Key { state })?;
            let key = K::read_key(parsed.key).ok_or(LoadError::Key { state })?;
            let content = self.content_of(of_key.iter())?;
            let hash = key.borrow().key_hash(&mut Vec::new());
            self.put_read(hash, key, content);
        }
        Ok(())
    }

    /// Puts a key there as its rows have it, unless it is there already. One without rows is known to be absent then.
    pub(super) fn put_read(&mut self, hash: u32, key: K, content: C) {
        let index = self.index(hash);
        let Some(map) = self.maps.get_mut(index) else { return };
        match map.entry(spread(hash), |slot| slot.key == key, rehash) {
            Entry::Vacant(vacant) => {
                self.residency.keys += 1;
                self.residency.cells += content.count();
                vacant.insert(Slot { key, content });
            }
            Entry::Occupied(mut occupied) => {
                let known = &mut occupied.get_mut().content;
                if known.is_partial() {
                    let before = known.count();
                    known.complete(content);
                    self.residency.cells += known.count() - before;
                }
            }
        }
    }
}
