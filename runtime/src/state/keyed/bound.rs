//! One named state, bound to the current key; with a time to live, if it has one.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use crate::codec::CodecError;
use crate::id::Epoch;
use crate::state::cell::{Cells, Content, Element};
use crate::state::form::{Kept, KeptForm, StateValue};
use crate::state::freeze::{OperatorState, Rest, Slice, Snapshot};
use crate::state::key_group::hash_bytes;
use crate::state::keyed::scope::{KeyedError, Scope};
use crate::state::packed::PackedKey;
use crate::state::read::{Found, Look};
use crate::state::table::{LoadError, Table, TableSetup};
use crate::time::Timestamp;

/// Elements that are looked at between two frames to see whether they have expired.
const EXPIRED_AT_ONCE: usize = 64;

/// One table of an operator among others.
pub(super) trait Part {
    fn load(&self, chunks: &[Vec<u8>]) -> Result<(), LoadError>;
    fn freeze(&self, epoch: Epoch);
    fn encode_slice(&self, entries: usize) -> Result<Slice, CodecError>;
    fn left(&self) -> usize;
    fn rest(&self) -> Rest;
    /// From now on changes can be taken back.
    fn note_changes(&self);
    /// Keeps what was changed.
    fn keep_changes(&self);
    /// Puts everything back as it was.
    fn take_back(&self) -> Result<(), LoadError>;
    /// Says whether nothing can be missing.
    fn is_complete(&self) -> bool;
    /// Takes note that a key is needed.
    fn want(&self, hash: u32, key: &PackedKey);
    /// Takes note that all keys of a group are needed.
    fn want_group(&self, group: u16);
    /// Appends the keys of a group that have a value, as far as they are in memory.
    fn keys_of(&self, group: u16, keys: &mut BTreeSet<PackedKey>);
    fn is_missing(&self) -> bool;
    /// Appends the looks for what is missing and says how many they are.
    fn look(&self, looks: &mut Vec<Look>) -> usize;
    fn take_in(&self, found: &[Found]) -> Result<(), LoadError>;
    fn look_ahead(&self) -> Option<Look>;
    fn take_in_ahead(&self, found: &Found) -> Result<(), LoadError>;
}

/// When which element is to be looked at. An element is here once; an entry that is not what the element says is stale.
type Expiry<E> = BTreeMap<Timestamp, Vec<(u32, PackedKey, E)>>;

type BoundTable<V, C> = Table<PackedKey, C, KeptForm<V>>;

/// A named state. See the module.
pub(super) struct Bound<V, C>
where
    V: StateValue,
    C: Content<Value = Kept<V>>,
{
    name: String,
    table: RefCell<BoundTable<V, C>>,
    scope: Rc<Scope>,
    ttl: Cell<Option<Duration>>,
    expiry: RefCell<Expiry<C::Element>>,
    /// Keys that are being read and whose elements may expire.
    leased: RefCell<Vec<(u32, PackedKey)>>,
}

impl<V, C> Bound<V, C>
where
    V: StateValue,
    C: Content<Value = Kept<V>>,
{
    pub(super) fn new(name: &str, setup: TableSetup, form: KeptForm<V>, scope: Rc<Scope>) -> Self {
        let table = RefCell::new(Table::with_form(setup, form));
        Self {
            name: name.to_owned(),
            table,
            scope,
            ttl: Cell::default(),
            expiry: RefCell::default(),
            leased: RefCell::default(),
        }
    }

    pub(super) fn set_ttl(&self, ttl: Duration) {
        if ttl.is_zero() {
            self.scope.fail(KeyedError::ZeroTimeToLive { state: self.name.clone() });
        }
        self.ttl.set(Some(ttl));
    }

    fn is_visible(&self, kept: &Kept<V>) -> bool {
        self.ttl.get().is_none_or(|ttl| kept.written.saturating_add(ttl) > self.scope.now())
    }

    /// Returns the value of one element, unless it has expired.
    pub(super) fn read(&self, element: &C::Element) -> Option<Ref<'_, V>> {
        let key = self.scope.key()?;
        let (hash, key) = &*key;
        let found = Ref::filter_map(self.table.borrow(), |table| {
            let kept = table.content(*hash, key)?.cell(element)?.value()?;
            self.is_visible(kept).then_some(&kept.value)
        });
        found.ok()
    }

    /// Returns the value of one element to change it, if it is there; the element counts as written.
    pub(super) fn change(&self, element: &C::Element) -> Option<RefMut<'_, V>> {
        self.read(element)?;
        let key = self.scope.key()?;
        let (hash, key) = &*key;
        let changed = RefMut::filter_map(self.table.borrow_mut(), |table| match table.touch(*hash, key, element) {
            Ok(place) => {
                let kept = place.as_mut()?;
                kept.written = self.written();
                Some(&mut kept.value)
            }
            Err(error) => {
                self.scope.fail(error);
                None
            }
        });
        changed.ok()
    }

    /// Writes one element and returns what was there.
    pub(super) fn put(&self, element: &C::Element, value: V) -> Option<V> {
        let key = self.scope.key_to_change()?;
        let (hash, key) = &*key;
        let mut table = self.table.borrow_mut();
        let place = match table.touch(*hash, key, element) {
            Ok(place) => place,
            Err(error) => {
                self.scope.fail(error);
                return None;
            }
        };
        let written = self.written();
        let before = place.take();
        let queued = match &before {
            Some(before) if before.queued > Timestamp::MIN => before.queued,
            _ => self.queue(*hash, key, element, written),
        };
        *place = Some(Kept { value, written, queued });
        before.filter(|before| self.is_visible(before)).map(|before| before.value)
    }

    /// Removes one element and returns it. An absent one is no change.
    pub(super) fn take(&self, element: &C::Element) -> Option<V> {
        let key = self.scope.key_to_change()?;
        let (hash, key) = &*key;
        match self.table.borrow_mut().take(*hash, key, element) {
            Ok(taken) => taken.filter(|kept| self.is_visible(kept)).map(|kept| kept.value),
            Err(error) => {
                self.scope.fail(error);
                None
            }
        }
    }

    /// Notes that an element's bytes are not what the handle wants.
    pub(super) fn refuse_element(&self) {
        self.scope.fail(LoadError::Key { state: self.table.borrow().number() }.of(&self.name));
    }

    /// The write time that an element gets now.
    fn written(&self) -> Timestamp {
        if self.ttl.get().is_some() { self.scope.now() } else { Timestamp::MIN }
    }

    /// Has an element looked at when it may have expired.
    fn queue(&self, hash: u32, key: &PackedKey, element: &C::Element, written: Timestamp) -> Timestamp {
        let Some(ttl) = self.ttl.get() else { return Timestamp::MIN };
        let at = written.saturating_add(ttl);
        self.expiry.borrow_mut().entry(at).or_default().push((hash, key.clone(), element.clone()));
        at
    }

    /// Has the elements of a key that was restored looked at.
    fn lease(&self, table: &mut BoundTable<V, C>, hash: u32, key: &PackedKey) {
        let Some(content) = table.content(hash, key) else { return };
        let elements: Vec<C::Element> = content.cells().map(|(element, _)| element.clone()).collect();
        for element in elements {
            let Some(kept) = table.quiet_mut(hash, key, &element).filter(|kept| kept.queued == Timestamp::MIN) else {
                continue;
            };
            if kept.written == Timestamp::MIN {
                // It is older than the state's time to live: that begins now.
                kept.written = self.scope.now();
            }
            kept.queued = self.queue(hash, key, &element, kept.written);
        }
    }

    /// Removes what has expired, looking at no more than `most` elements.
    fn expire(&self, most: usize) {
        let now = self.scope.now();
        for _ in 0..most {
            let due = {
                let mut expiry = self.expiry.borrow_mut();
                let Some(mut first) = expiry.first_entry().filter(|first| *first.key() <= now) else { return };
                let (at, place) = (*first.key(), first.get_mut().pop());
                if first.get().is_empty() {
                    first.remove();
                }
                place.map(|place| (at, place))
            };
            if let Some((at, (hash, key, element))) = due {
                self.look_at(at, hash, &key, &element);
            }
        }
    }

    fn look_at(&self, at: Timestamp, hash: u32, key: &PackedKey, element: &C::Element) {
        let mut table = self.table.borrow_mut();
        let Some(kept) = table.quiet_mut(hash, key, element).filter(|kept| kept.queued == at) else { return };
        if self.is_visible(kept) {
            // It was written again meanwhile.
            kept.queued = self.queue(hash, key, element, kept.written);
        } else if let Err(error) = table.take(hash, key, element) {
            self.scope.fail(error);
        }
    }
}

impl<V, E> Bound<V, Cells<E, Kept<V>>>
where
    V: StateValue,
    E: Element,
{
    /// Returns the first visible element behind another one, or the first of all.
    pub(super) fn after(&self, element: Option<&E>) -> Option<(E, Ref<'_, V>)> {
        let key = self.scope.key()?;
        let (hash, key) = &*key;
        let table = self.table.borrow();
        let mut cells = table.content(*hash, key)?.after(element);
        let visible = cells.find(|(_, cell)| cell.value().is_some_and(|kept| self.is_visible(kept)));
        let next = visible?.0.clone();
        Some((next.clone(), self.read(&next)?))
    }

    /// Returns the last element that there is or was, tombstones included.
    pub(super) fn last(&self) -> Option<E> {
        let key = self.scope.key()?;
        let (hash, key) = &*key;
        let table = self.table.borrow();
        Some(table.content(*hash, key)?.after(None).next_back()?.0.clone())
    }

    /// Removes all elements of the key.
    pub(super) fn clear(&self) {
        let Some(key) = self.scope.key_to_change() else { return };
        let (hash, key) = &*key;
        let mut table = self.table.borrow_mut();
        let Some(content) = table.content(*hash, key) else { return };
        let filled = content.cells().filter(|(_, cell)| cell.value().is_some());
        let filled: Vec<E> = filled.map(|(element, _)| element.clone()).collect();
        for element in filled {
            if let Err(error) = table.take(*hash, key, &element) {
                return self.scope.fail(error);
            }
        }
    }
}

impl<V, C> Part for Bound<V, C>
where
    V: StateValue,
    C: Content<Value = Kept<V>>,
{
    fn load(&self, chunks: &[Vec<u8>]) -> Result<(), LoadError> {
        let mut table = self.table.borrow_mut();
        table.load(chunks).map_err(|error| error.of(&self.name))?;
        if self.ttl.get().is_none() {
            return Ok(());
        }
        let keys: Vec<PackedKey> = table.iter().map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.lease(&mut table, hash_bytes(key.as_bytes()), &key);
        }
        Ok(())
    }

    fn freeze(&self, epoch: Epoch) {
        self.table.borrow_mut().freeze(epoch);
    }

    fn encode_slice(&self, entries: usize) -> Result<Slice, CodecError> {
        self.table.borrow_mut().encode_slice(entries)
    }

    fn left(&self) -> usize {
        self.table.borrow().left()
    }

    fn rest(&self) -> Rest {
        self.expire(EXPIRED_AT_ONCE);
        self.table.borrow_mut().rest()
    }

    fn note_changes(&self) {
        self.table.borrow_mut().note_changes();
    }

    fn keep_changes(&self) {
        self.table.borrow_mut().keep();
    }

    fn take_back(&self) -> Result<(), LoadError> {
        self.table.borrow_mut().take_back().map_err(|error| error.of(&self.name))
    }

    fn is_complete(&self) -> bool {
        self.table.borrow().is_complete()
    }

    fn want(&self, hash: u32, key: &PackedKey) {
        let mut table = self.table.borrow_mut();
        table.want(hash, key);
        if self.ttl.get().is_some() && table.is_missing() {
            self.leased.borrow_mut().push((hash, key.clone()));
        }
    }

    fn want_group(&self, group: u16) {
        self.table.borrow_mut().want_group(group);
    }

    fn keys_of(&self, group: u16, keys: &mut BTreeSet<PackedKey>) {
        keys.extend(self.table.borrow().keys_of(group).cloned());
    }

    fn is_missing(&self) -> bool {
        self.table.borrow().is_missing()
    }

    fn look(&self, looks: &mut Vec<Look>) -> usize {
        self.table.borrow_mut().look(looks)
    }

    fn take_in(&self, found: &[Found]) -> Result<(), LoadError> {
        let mut table = self.table.borrow_mut();
        table.take_in(found).map_err(|error| error.of(&self.name))?;
        for (hash, key) in self.leased.take() {
            self.lease(&mut table, hash, &key);
        }
        Ok(())
    }

    fn look_ahead(&self) -> Option<Look> {
        self.table.borrow_mut().look_ahead()
    }

    fn take_in_ahead(&self, found: &Found) -> Result<(), LoadError> {
        self.table.borrow_mut().take_in_ahead(found).map_err(|error| error.of(&self.name))
    }
}
