//! What user code holds of its state: the current key's value, list or map.
//!
//! Reading never marks anything as changed; every method that takes `&mut self` does, for the elements that it writes, and
//! renews their time to live. Elements are encoded each by itself: a long list costs what is pushed, not what it holds.

use std::cell::{Ref, RefCell, RefMut};
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use crate::state::cell::{Cells, Single};
use crate::state::form::{Kept, StateValue};
use crate::state::key_group::StreamKey;
use crate::state::keyed::bound::Bound;
use crate::state::packed::PackedKey;

/// One value per key.
pub struct Value<V: StateValue>(pub(super) Rc<Bound<V, Single<Kept<V>>>>);

impl<V: StateValue> Value<V> {
    /// Lets a value expire so long after it was written last, by the processing time: it is invisible at once and removed
    /// later. At least 1 µs. Call it in `open`.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.0.set_ttl(ttl);
        self
    }

    /// Returns the key's value.
    pub fn get(&self) -> Option<Ref<'_, V>> {
        self.0.read(&())
    }

    /// Returns the key's value to change it, if there is one. It counts as changed: read with [`Value::get`].
    pub fn get_mut(&mut self) -> Option<RefMut<'_, V>> {
        self.0.change(&())
    }

    /// Sets the key's value.
    pub fn set(&mut self, value: V) {
        self.0.put(&(), value);
    }

    /// Changes the key's value, made by `init` if there is none.
    pub fn update(&mut self, init: impl FnOnce() -> V, change: impl FnOnce(&mut V)) {
        if let Some(mut value) = self.0.change(&()) {
            return change(&mut value);
        }
        let mut value = init();
        change(&mut value);
        self.0.put(&(), value);
    }

    /// Removes the key's value and returns it.
    pub fn take(&mut self) -> Option<V> {
        self.0.take(&())
    }

    /// Removes the key's value.
    pub fn clear(&mut self) {
        self.0.take(&());
    }
}

/// A list per key, in the order of pushing.
pub struct List<V: StateValue>(pub(super) Rc<Bound<V, Cells<u64, Kept<V>>>>);

impl<V: StateValue> List<V> {
    /// Lets an element expire so long after it was pushed, by the processing time: it is invisible at once and removed
    /// later. At least 1 µs. Call it in `open`.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.0.set_ttl(ttl);
        self
    }

    /// Adds an element at the end.
    pub fn push(&mut self, value: V) {
        // Behind tombstones too: an index means one element until the store has forgotten it.
        let index = self.0.last().map_or(0, |last| last + 1);
        self.0.put(&index, value);
    }

    /// Adds elements at the end.
    pub fn extend(&mut self, values: impl IntoIterator<Item = V>) {
        let next = self.0.last().map_or(0, |last| last + 1);
        for (index, value) in (next..).zip(values) {
            self.0.put(&index, value);
        }
    }

    /// Puts these elements in the place of all that there are.
    pub fn replace(&mut self, values: impl IntoIterator<Item = V>) {
        self.0.clear();
        self.extend(values);
    }

    /// Returns the elements in their order.
    pub fn iter(&self) -> ListIter<'_, V> {
        ListIter { list: self, last: None }
    }

    /// Counts the elements, one by one.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<'a, V: StateValue> IntoIterator for &'a List<V> {
    type Item = Ref<'a, V>;
    type IntoIter = ListIter<'a, V>;

    fn into_iter(self) -> ListIter<'a, V> {
        self.iter()
    }
}

/// The elements of a list; see [`List::iter`].
pub struct ListIter<'a, V: StateValue> {
    list: &'a List<V>,
    last: Option<u64>,
}

impl<'a, V: StateValue> Iterator for ListIter<'a, V> {
    type Item = Ref<'a, V>;

    fn next(&mut self) -> Option<Ref<'a, V>> {
        let (index, value) = self.list.0.after(self.last.as_ref())?;
        self.last = Some(index);
        Some(value)
    }
}

/// A map per key. Its keys are [`StreamKey`]s, and sorted by their canonical bytes: unsigned integers by size, strings by their
/// bytes.
pub struct Map<K: StreamKey, V: StateValue> {
    pub(super) cells: Rc<Bound<V, Cells<PackedKey, Kept<V>>>>,
    pub(super) key: PhantomData<fn(K) -> K>,
    /// Keys become bytes in it, so that a look-up allocates nothing.
    pub(super) scratch: RefCell<Vec<u8>>,
}

impl<K: StreamKey, V: StateValue> Map<K, V> {
    /// Lets an entry expire so long after it was written last, by the processing time: it is invisible at once and removed
    /// later. At least 1 µs. Call it in `open`.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.cells.set_ttl(ttl);
        self
    }

    fn element(&self, key: &K::Borrowed) -> PackedKey {
        PackedKey::of(key, &mut self.scratch.borrow_mut())
    }

    /// Returns the value of an entry.
    pub fn get(&self, key: &K::Borrowed) -> Option<Ref<'_, V>> {
        self.cells.read(&self.element(key))
    }

    /// Returns the value of an entry to change it, if there is one. It counts as changed: read with [`Map::get`].
    pub fn get_mut(&mut self, key: &K::Borrowed) -> Option<RefMut<'_, V>> {
        self.cells.change(&self.element(key))
    }

    /// Sets the value of an entry and returns the one before.
    pub fn insert(&mut self, key: &K::Borrowed, value: V) -> Option<V> {
        self.cells.put(&self.element(key), value)
    }

    /// Removes an entry and returns its value.
    pub fn remove(&mut self, key: &K::Borrowed) -> Option<V> {
        self.cells.take(&self.element(key))
    }

    /// Says whether there is such an entry.
    pub fn contains_key(&self, key: &K::Borrowed) -> bool {
        self.get(key).is_some()
    }

    /// Returns the entries in the order of their keys' bytes. One whose key is no `K`, since the map's key type was changed, ends
    /// the iteration and fails the operator.
    pub fn iter(&self) -> MapIter<'_, K, V> {
        MapIter { map: self, last: None }
    }

    /// Returns the entries behind a key, which need not be there, in the order of their keys' bytes.
    pub fn iter_after(&self, key: &K::Borrowed) -> MapIter<'_, K, V> {
        MapIter { map: self, last: Some(self.element(key)) }
    }

    /// Returns the keys, in the order of their bytes.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// Returns the values, in the order of their keys' bytes.
    pub fn values(&self) -> impl Iterator<Item = Ref<'_, V>> {
        self.iter().map(|(_, value)| value)
    }

    /// Counts the entries, one by one.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Says whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.cells.clear();
    }
}

impl<'a, K: StreamKey, V: StateValue> IntoIterator for &'a Map<K, V> {
    type Item = (K, Ref<'a, V>);
    type IntoIter = MapIter<'a, K, V>;

    fn into_iter(self) -> MapIter<'a, K, V> {
        self.iter()
    }
}

/// The entries of a map; see [`Map::iter`].
pub struct MapIter<'a, K: StreamKey, V: StateValue> {
    map: &'a Map<K, V>,
    last: Option<PackedKey>,
}

impl<'a, K: StreamKey, V: StateValue> Iterator for MapIter<'a, K, V> {
    type Item = (K, Ref<'a, V>);

    fn next(&mut self) -> Option<(K, Ref<'a, V>)> {
        let (element, value) = self.map.cells.after(self.last.as_ref())?;
        let key = element.unpack();
        self.last = Some(element);
        if key.is_none() {
            self.map.cells.refuse_element();
        }
        Some((key?, value))
    }
}

impl<V: StateValue> fmt::Debug for Value<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value")
    }
}

impl<V: StateValue> fmt::Debug for List<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("List")
    }
}

impl<V: StateValue> fmt::Debug for ListIter<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListIter")
    }
}

impl<K: StreamKey, V: StateValue> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Map")
    }
}

impl<K: StreamKey, V: StateValue> fmt::Debug for MapIter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MapIter")
    }
}
