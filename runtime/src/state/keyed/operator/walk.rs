//! From key to key, without a record or a timer: for what is sent at the end of an epoch.

use std::collections::BTreeSet;
use std::ops::Range;

use super::KeyedState;
use crate::state::key_group::hash_bytes;
use crate::state::packed::PackedKey;

impl KeyedState {
    /// The current key's bytes.
    pub fn packed_key(&self) -> Option<PackedKey> {
        Some(self.scope.key()?.1.clone())
    }

    /// Takes note that the key with these bytes is needed; see [`KeyedState::is_missing`].
    pub fn want_packed_key(&mut self, key: &PackedKey) {
        self.want_packed(key);
    }

    /// Makes the handles those of the key with these bytes. Its state has to be in memory.
    pub fn set_packed_key(&mut self, key: &PackedKey) {
        self.scope.set_key(hash_bytes(key.as_bytes()), key.as_bytes());
    }

    /// The key groups that the subtask owns.
    pub fn groups(&self) -> &Range<u16> {
        self.late.groups()
    }

    /// Says whether the subtask owns a key.
    pub fn owns(&self, key: &PackedKey) -> bool {
        self.groups().contains(&self.setup.table.key_groups.group(hash_bytes(key.as_bytes())))
    }

    /// Takes note that the named states of all keys of a group are needed; see [`KeyedState::is_missing`].
    pub fn want_group(&mut self, group: u16) {
        self.parts.iter().take(self.declared.len()).for_each(|part| part.want_group(group));
    }

    /// Returns the keys of a group that have a value in any named state, in the order of their bytes, as far as they are in memory.
    pub fn keys_of(&self, group: u16) -> BTreeSet<PackedKey> {
        let mut keys = BTreeSet::new();
        self.parts.iter().take(self.declared.len()).for_each(|part| part.keys_of(group, &mut keys));
        keys
    }
}
