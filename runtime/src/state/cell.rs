//! What a key has in one state: cells. A cell is the unit of change, the key is the unit of residency.
//!
//! A cell is a value with the epoch of its last change. One that was removed stays as a *tombstone*, a cell without a value:
//! as long as the rows may still hold the value, nothing but the tombstone knows that it is gone.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use crate::id::Epoch;

/// Epoch of the last change, whether that change is encoded already (the top bit), and whether the cell is as its row is (the
/// next one): then the epoch is that in which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    const ENCODED: u64 = 1 << 63;
    const CLEAN: u64 = 1 << 62;
    /// Of a cell that no epoch of this attempt has changed.
    pub(crate) const RESTORED: Self = Self(Self::ENCODED);

    pub(crate) const fn new(epoch: Epoch) -> Self {
        Self(epoch.number())
    }

    /// Of a cell that was read from its row in this epoch.
    pub(crate) const fn clean(epoch: Epoch) -> Self {
        Self(epoch.number() | Self::ENCODED | Self::CLEAN)
    }

    pub(crate) const fn epoch(self) -> Epoch {
        Epoch::new(self.0 & !(Self::ENCODED | Self::CLEAN))
    }

    /// Says whether the row is not older than the cell.
    pub(crate) fn is_in_row(self, folded_through: Epoch) -> bool {
        self.0 & Self::CLEAN != 0 || self.epoch() <= folded_through
    }

    pub(crate) const fn is_encoded(self) -> bool {
        self.0 & Self::ENCODED != 0
    }

    pub(crate) const fn encoded(self) -> Self {
        Self(self.0 | Self::ENCODED)
    }

    /// Something to read: see [`Table::prefetch`](super::Table::prefetch).
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
}

/// One element of a key's state.
#[derive(Clone, Debug)]
pub struct Cell<V> {
    /// Nothing is a tombstone.
    pub(crate) value: Option<V>,
    pub(crate) stamp: Stamp,
}

impl<V> Cell<V> {
    /// The value; nothing of a tombstone.
    pub const fn value(&self) -> Option<&V> {
        self.value.as_ref()
    }
}

impl<V> Default for Cell<V> {
    /// A tombstone that nobody has to know of.
    fn default() -> Self {
        Self { value: None, stamp: Stamp::RESTORED }
    }
}

/// All cells of one key in one state.
pub trait Content: Default + 'static {
    /// What tells the cells of a key apart; its bytes stand behind the key's in every entry.
    type Element: Clone + 'static;
    /// What a cell holds.
    type Value: 'static;

    /// Returns a cell, if it is there.
    fn cell(&self, element: &Self::Element) -> Option<&Cell<Self::Value>>;

    /// Returns a cell to change it, if it is there.
    fn cell_mut(&mut self, element: &Self::Element) -> Option<&mut Cell<Self::Value>>;

    /// Returns a cell to change it; puts [`Cell::default`] there first if there was none.
    fn touch(&mut self, element: &Self::Element) -> &mut Cell<Self::Value>;

    /// Drops a cell.
    fn remove(&mut self, element: &Self::Element);

    /// Returns all cells in the order of their elements.
    fn cells(&self) -> impl Iterator<Item = (&Self::Element, &Cell<Self::Value>)>;

    /// Says whether nothing at all has to be known of the key, no tombstone either.
    fn is_empty(&self) -> bool;

    /// How many cells there are.
    fn count(&self) -> usize;

    /// Says that the rows may have cells that are not here: only what the log had was loaded.
    fn set_partial(&mut self) {}

    /// See [`Content::set_partial`].
    fn is_partial(&self) -> bool {
        false
    }

    /// Takes in what the rows have; what is here wins, tombstones included. Not partial any more.
    fn complete(&mut self, rows: Self) {
        drop(rows);
    }

    /// About how many bytes a cell takes beside its key's place and what its value has on the heap.
    const CELL_BYTES: usize;

    /// Says whether two elements are the same.
    fn is_same(left: &Self::Element, right: &Self::Element) -> bool;

    /// Any stamp of the key, so that its memory is read.
    #[doc(hidden)]
    fn peek(&self) -> u64;

    /// Appends an element's bytes.
    fn write_element(element: &Self::Element, out: &mut Vec<u8>);

    /// Returns the element of these bytes: the exact inverse of [`Content::write_element`].
    fn read_element(bytes: &[u8]) -> Option<Self::Element>;
}

/// One value per key. Its entries have no element bytes.
#[derive(Clone, Debug)]
pub struct Single<V> {
    /// Always there: a tombstone that nobody has to know of stands for none, and no room is spent on saying so.
    cell: Cell<V>,
}

impl<V> Default for Single<V> {
    fn default() -> Self {
        Self { cell: Cell::default() }
    }
}

impl<V: 'static> Content for Single<V> {
    type Element = ();
    type Value = V;

    #[inline]
    fn cell(&self, (): &()) -> Option<&Cell<V>> {
        Some(&self.cell)
    }

    #[inline]
    fn cell_mut(&mut self, (): &()) -> Option<&mut Cell<V>> {
        Some(&mut self.cell)
    }

    #[inline]
    fn touch(&mut self, (): &()) -> &mut Cell<V> {
        &mut self.cell
    }

    fn remove(&mut self, (): &()) {
        self.cell = Cell::default();
    }

    fn cells(&self) -> impl Iterator<Item = (&(), &Cell<V>)> {
        std::iter::once((&(), &self.cell))
    }

    fn is_empty(&self) -> bool {
        self.cell.value.is_none() && self.cell.stamp == Stamp::RESTORED
    }

    fn count(&self) -> usize {
        1
    }

    const CELL_BYTES: usize = 0;

    fn is_same((): &(), (): &()) -> bool {
        true
    }

    #[inline]
    fn peek(&self) -> u64 {
        self.cell.stamp.bits()
    }

    fn write_element((): &(), _out: &mut Vec<u8>) {}

    fn read_element(bytes: &[u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }
}

/// What tells the cells of a list, a map or a set apart. The bytes are an on-disk format and sort as the elements do.
pub trait Element: Ord + Clone + 'static {
    /// Appends its bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// Returns the element of these bytes: the exact inverse of [`Element::write`].
    fn read(bytes: &[u8]) -> Option<Self>;
}

/// The index of a list, big-endian.
impl Element for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

/// Many values per key, in the order of their elements.
#[derive(Clone, Debug)]
pub struct Cells<E, V> {
    cells: BTreeMap<E, Cell<V>>,
    partial: bool,
}

impl<E, V> Default for Cells<E, V> {
    fn default() -> Self {
        Self { cells: BTreeMap::new(), partial: false }
    }
}

impl<E: Element, V> Cells<E, V> {
    /// Returns the cells behind an element, or all of them, in order.
    pub fn after(&self, element: Option<&E>) -> btree_map::Range<'_, E, Cell<V>> {
        let from = element.map_or(Bound::Unbounded, Bound::Excluded);
        self.cells.range((from, Bound::Unbounded))
    }
}

impl<E: Element, V: 'static> Content for Cells<E, V> {
    type Element = E;
    type Value = V;

    fn cell(&self, element: &E) -> Option<&Cell<V>> {
        self.cells.get(element)
    }

    fn cell_mut(&mut self, element: &E) -> Option<&mut Cell<V>> {
        self.cells.get_mut(element)
    }

    fn touch(&mut self, element: &E) -> &mut Cell<V> {
        self.cells.entry(element.clone()).or_default()
    }

    fn remove(&mut self, element: &E) {
        self.cells.remove(element);
    }

    fn cells(&self) -> impl Iterator<Item = (&E, &Cell<V>)> {
        self.cells.iter()
    }

    fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    fn count(&self) -> usize {
        self.cells.len()
    }

    fn set_partial(&mut self) {
        self.partial = true;
    }

    fn is_partial(&self) -> bool {
        self.partial
    }

    fn complete(&mut self, rows: Self) {
        for (element, cell) in rows.cells {
            self.cells.entry(element).or_insert(cell);
        }
        self.partial = false;
    }

    // Nodes of a B-tree are about two thirds full.
    const CELL_BYTES: usize = (size_of::<E>() + size_of::<Cell<V>>()) * 3 / 2;

    fn is_same(left: &E, right: &E) -> bool {
        left == right
    }

    fn peek(&self) -> u64 {
        self.cells.first_key_value().map_or(0, |(_, cell)| cell.stamp.bits())
    }

    fn write_element(element: &E, out: &mut Vec<u8>) {
        element.write(out);
    }

    fn read_element(bytes: &[u8]) -> Option<E> {
        E::read(bytes)
    }
}
