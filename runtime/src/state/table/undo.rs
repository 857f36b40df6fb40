//! Takes back what one call of user code changed: a record that is skipped leaves no trace.
//!
//! Values are not clonable, so what a cell held is noted in its written form, once per cell and call, and only for operators
//! that may skip.

use super::tombstones::dig;
use super::{Content, Form, LoadError, Place, Stamp, Table};
use crate::state::key_group::StreamKey;

/// What a cell was before the call.
#[derive(Debug)]
pub(super) struct Before<P> {
    pub(super) hash: u32,
    pub(super) place: P,
    /// The written value; nothing where there was none.
    pub(super) value: Option<Vec<u8>>,
    pub(super) stamp: Stamp,
}

impl<K: StreamKey, C: Content, F: Form<C::Value>> Table<K, C, F> {
    /// From now on changes can be taken back, until [`Table::keep`] or [`Table::take_back`].
    pub fn note_changes(&mut self) {
        self.before = Some(Vec::new());
    }

    /// Keeps what was changed.
    pub fn keep(&mut self) {
        self.before = None;
    }

    /// Puts every cell back as it was.
    ///
    /// # Errors
    /// [`LoadError::Value`] when a value cannot be read back from its written form.
    pub fn take_back(&mut self) -> Result<(), LoadError> {
        for Before { hash, place, value, stamp } in self.before.take().into_iter().flatten().rev() {
            let state = self.setup.state;
            let value = value.map(|bytes| self.form.decode(&bytes)).transpose();
            let value = value.map_err(|source| LoadError::Value { state, source })?;
            self.put_back(hash, &place, value, stamp);
        }
        Ok(())
    }

    fn put_back(&mut self, hash: u32, (key, element): &Place<K, C>, value: Option<C::Value>, stamp: Stamp) {
        let index = self.index(hash);
        let Some(map) = self.maps.get_mut(index) else { return };
        let Some(slot) = map.find_mut(super::spread(hash), |slot| slot.key == *key) else { return };
        let before = slot.content.count();
        if value.is_none() && stamp == Stamp::RESTORED {
            // It was not there. The key stays, as one that is known to have nothing.
            slot.content.remove(element);
        } else {
            let is_tombstone = value.is_none();
            let cell = slot.content.touch(element);
            (cell.value, cell.stamp) = (value, stamp);
            if is_tombstone && self.frozen.iter().any(|frozen| frozen.epoch == stamp.epoch()) {
                // It was written ahead of its turn, so its turn will not note it.
                dig(&mut self.graves, stamp.epoch(), hash, (key.clone(), element.clone()));
            }
        }
        self.residency.cells = self.residency.cells + slot.content.count() - before;
    }
}
