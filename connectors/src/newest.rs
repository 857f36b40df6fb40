//! What readers share over all attempts, so that it outlives each of them; only the newest reader may use it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A state with a count of its readers.
///
/// Locked by a poll while it waits, at most about 50 ms, and opening a reader waits for that: an older reader cannot take
/// a record which the newer one has no number for.
pub(crate) struct Newest<S> {
    inner: Mutex<Inner<S>>,
}

pub(crate) struct Inner<S> {
    reader: u64,
    pub(crate) state: S,
}

/// A reader was replaced by that of a newer attempt and takes no more. Nobody sees this but a zombie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a newer attempt reads this source now")]
pub(crate) struct Replaced;

impl<S> Newest<S> {
    pub(crate) fn new(state: S) -> Self {
        Self { inner: Mutex::new(Inner { reader: 0, state }) }
    }

    /// Returns the state, whoever reads it.
    pub(crate) fn any(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a new reader, the only one from now on, and returns its number with the state.
    pub(crate) fn claim(&self) -> (u64, MutexGuard<'_, Inner<S>>) {
        let mut inner = self.any();
        inner.reader += 1;
        (inner.reader, inner)
    }

    /// Returns the state to its newest reader.
    pub(crate) fn get(&self, reader: u64) -> Result<MutexGuard<'_, Inner<S>>, Replaced> {
        let inner = self.any();
        if inner.reader == reader { Ok(inner) } else { Err(Replaced) }
    }
}
