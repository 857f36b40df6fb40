//! Removals: what is gone stays as a tombstone until the rows know of it.

use std::collections::VecDeque;

use super::{Table, spread};
use crate::id::Epoch;
use crate::state::cell::{Content, Stamp};
use crate::state::form::Form;
use crate::state::freeze::KeyList;
use crate::state::key_group::StreamKey;

impl<K: StreamKey, C: Content, F: Form<C::Value>> Table<K, C, F> {
    /// Drops tombstones of removals up to `folded_through`, at most about `most` of them: the rows know of those, and whoever
    /// misses the key finds nothing there.
    pub fn sweep(&mut self, folded_through: Epoch, most: usize) {
        let mut left = most;
        while left > 0
            && let Some((epoch, places)) = self.graves.front_mut()
            && *epoch <= folded_through
        {
            let gone = Stamp::new(*epoch).encoded();
            let taken = places.take(left);
            if places.is_empty() {
                self.graves.pop_front();
            }
            left = left.saturating_sub(taken.len().max(1));
            for (hash, (key, element)) in taken {
                self.bury(hash, &key, &element, gone);
            }
        }
    }

    /// Drops a tombstone unless the cell was touched again.
    fn bury(&mut self, hash: u32, key: &K, element: &C::Element, gone: Stamp) {
        let index = self.index(hash);
        let Some(map) = self.maps.get_mut(index) else { return };
        let Ok(mut occupied) = map.find_entry(spread(hash), |slot| slot.key == *key) else { return };
        let content = &mut occupied.get_mut().content;
        if content.cell(element).is_some_and(|cell| cell.value.is_none() && cell.stamp == gone) {
            let before = content.count();
            content.remove(element);
            self.residency.cells -= before - content.count();
            if content.is_empty() {
                self.residency.cells -= content.count();
                self.residency.keys -= 1;
                occupied.remove();
            }
        }
    }
}

/// Notes a tombstone, to be dropped when the rows know of its epoch.
pub(super) fn dig<P>(graves: &mut VecDeque<(Epoch, KeyList<P>)>, epoch: Epoch, hash: u32, place: P) {
    if graves.back().is_none_or(|(last, _)| *last != epoch) {
        graves.push_back((epoch, KeyList::default()));
    }
    if let Some((_, places)) = graves.back_mut() {
        places.push(hash, place);
    }
}
