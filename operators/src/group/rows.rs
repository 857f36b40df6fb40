//! Rows of one key that belong together, and where results go.

use std::cell::Cell;
use std::fmt;
use std::vec;

use millstream_runtime::operator::{Bunch, Emitted};
use millstream_runtime::record::Record;
use millstream_runtime::time::Timestamp;

use crate::keyed::Outbox;

/// What an operator on groups is given: rows of one key, or the key's initial state. The one place where rows are handed over; see
/// [`Gather`](super::gather::Gather) for who decides how many they are.
pub(crate) enum Group<K, T, I> {
    /// One or more rows.
    Rows(Bunch<T>),
    /// The key's initial state.
    Initial(K, I),
}

/// The rows of a call: an iterator. Empty in the call of a timeout, and in that of an initial state.
///
/// **Do not rely on how many there are.** In continuous mode a call has one row, in micro-batch mode all rows that the key has in the
/// epoch, in the order of their source.
pub struct Rows<'a, T> {
    first: Option<Record<T>>,
    rest: vec::IntoIter<Record<T>>,
    time: &'a Cell<Timestamp>,
}

impl<'a, T> Rows<'a, T> {
    /// Makes it of rows that are not late. `time` is kept at the time of the row that was taken last; before that, of the first.
    pub(super) fn new(first: Option<Record<T>>, rest: Vec<Record<T>>, time: &'a Cell<Timestamp>) -> Self {
        if let Some(first) = &first {
            time.set(first.time);
        }
        Self { first, rest: rest.into_iter(), time }
    }
}

impl<T> fmt::Debug for Rows<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("left", &self.len()).finish()
    }
}

impl<T> Iterator for Rows<'_, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let Record { value, time, .. } = self.first.take().or_else(|| self.rest.next())?;
        self.time.set(time);
        Some(value)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.first.is_some()) + self.rest.len();
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Rows<'_, T> {}

/// Where a function's results go.
///
/// A result has the event time of the row that was taken last, or of the first while none was taken. In the call of a timeout by event
/// time it has the first time behind the timeout; otherwise it has none.
pub struct GroupOut<'a, R> {
    pub(super) out: &'a mut Outbox<R>,
    pub(super) time: &'a Cell<Timestamp>,
}

impl<R> GroupOut<'_, R> {
    /// Sends a result.
    pub fn emit(&mut self, row: R) {
        self.out.push_back(Record::at(Emitted::Main(row), self.time.get()));
    }
}

impl<R> Extend<R> for GroupOut<'_, R> {
    fn extend<I: IntoIterator<Item = R>>(&mut self, rows: I) {
        rows.into_iter().for_each(|row| self.emit(row));
    }
}

impl<R> fmt::Debug for GroupOut<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOut").field("time", &self.time).finish_non_exhaustive()
    }
}
