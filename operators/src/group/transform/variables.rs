//! A processor's variables: the handles of `process` by the names that Spark gives them.

use std::cell::Ref;
use std::rc::Rc;

use millstream_runtime::state::StateValue;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::{List, ListIter, Map, Value};

use crate::group::null::is_null;
use crate::group::transform::error::TransformError;

fn not_null<V: StateValue>(variable: &Rc<str>, value: &V) -> Result<(), TransformError> {
    if is_null(value) { Err(TransformError::Null { variable: variable.to_string() }) } else { Ok(()) }
}

/// One value per key.
#[derive(Debug)]
pub struct ValueState<V: StateValue> {
    name: Rc<str>,
    value: Value<V>,
}

impl<V: StateValue> ValueState<V> {
    pub(super) fn new(name: &str, value: Value<V>) -> Self {
        Self { name: name.into(), value }
    }

    /// Says whether the key has a value.
    pub fn exists(&self) -> bool {
        self.value.get().is_some()
    }

    /// Returns the key's value.
    pub fn get(&self) -> Option<Ref<'_, V>> {
        self.value.get()
    }

    /// Sets the key's value.
    ///
    /// # Errors
    /// [`TransformError::Null`] (E-TWS-06) for what is written as nothing.
    pub fn update(&mut self, value: V) -> Result<(), TransformError> {
        not_null(&self.name, &value)?;
        self.value.set(value);
        Ok(())
    }

    /// Removes the key's value.
    pub fn clear(&mut self) {
        self.value.clear();
    }
}

/// A list per key. Each element is written, and expires, by itself.
#[derive(Debug)]
pub struct ListState<V: StateValue> {
    name: Rc<str>,
    list: List<V>,
}

impl<V: StateValue> ListState<V> {
    pub(super) fn new(name: &str, list: List<V>) -> Self {
        Self { name: name.into(), list }
    }

    /// Says whether the key has an element.
    pub fn exists(&self) -> bool {
        !self.list.is_empty()
    }

    /// Returns the key's elements, in their order.
    pub fn get(&self) -> ListIter<'_, V> {
        self.list.iter()
    }

    /// Puts a list in the place of the key's.
    ///
    /// # Errors
    /// [`TransformError::EmptyList`] and [`TransformError::Null`] (E-TWS-06); the list is then as before.
    pub fn put(&mut self, values: Vec<V>) -> Result<(), TransformError> {
        self.check(&values)?;
        self.list.replace(values);
        Ok(())
    }

    /// Adds an element at the end.
    ///
    /// # Errors
    /// [`TransformError::Null`] (E-TWS-06).
    pub fn append_value(&mut self, value: V) -> Result<(), TransformError> {
        not_null(&self.name, &value)?;
        self.list.push(value);
        Ok(())
    }

    /// Adds elements at the end.
    ///
    /// # Errors
    /// As [`ListState::put`].
    pub fn append_list(&mut self, values: Vec<V>) -> Result<(), TransformError> {
        self.check(&values)?;
        self.list.extend(values);
        Ok(())
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    fn check(&self, values: &[V]) -> Result<(), TransformError> {
        if values.is_empty() {
            return Err(TransformError::EmptyList { variable: self.name.to_string() });
        }
        values.iter().try_for_each(|value| not_null(&self.name, value))
    }
}

/// A map per key of the stream. Each entry is written, and expires, by itself.
#[derive(Debug)]
pub struct MapState<K: StreamKey, V: StateValue> {
    name: Rc<str>,
    map: Map<K, V>,
}

impl<K: StreamKey, V: StateValue> MapState<K, V> {
    pub(super) fn new(name: &str, map: Map<K, V>) -> Self {
        Self { name: name.into(), map }
    }

    /// Says whether the key of the stream has an entry.
    pub fn exists(&self) -> bool {
        !self.map.is_empty()
    }

    /// Returns the value of an entry.
    pub fn get_value(&self, key: &K::Borrowed) -> Option<Ref<'_, V>> {
        self.map.get(key)
    }

    /// Says whether there is such an entry.
    pub fn contains_key(&self, key: &K::Borrowed) -> bool {
        self.map.contains_key(key)
    }

    /// Sets the value of an entry.
    ///
    /// # Errors
    /// [`TransformError::Null`] (E-TWS-06).
    pub fn update_value(&mut self, key: &K::Borrowed, value: V) -> Result<(), TransformError> {
        not_null(&self.name, &value)?;
        self.map.insert(key, value);
        Ok(())
    }

    /// Returns the entries, in the order of their keys' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (K, Ref<'_, V>)> {
        self.map.iter()
    }

    /// Returns the keys of the entries, in the order of their bytes.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.map.keys()
    }

    /// Returns the values, in the order of their keys' bytes.
    pub fn values(&self) -> impl Iterator<Item = Ref<'_, V>> {
        self.map.values()
    }

    /// Removes an entry.
    pub fn remove_key(&mut self, key: &K::Borrowed) {
        self.map.remove(key);
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.map.clear();
    }
}
