//! What all states of an operator have in common while user code runs.

use std::cell::{Cell, Ref, RefCell};

use crate::state::packed::PackedKey;
use crate::state::table::{LoadError, StateError, UnknownState};
use crate::time::Timestamp;

/// State of a user's operator that cannot be declared or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyedError {
    /// A change failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// It cannot be restored.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The store has no number for the state: it was not declared when the pipeline was described.
    #[error(transparent)]
    Unknown(#[from] UnknownState),
    /// Two states have one name.
    #[error("the state {state} is declared twice; give one of them another name")]
    Twice {
        /// The name.
        state: String,
    },
    /// A version that there is not.
    #[error("the state {state} is of version 0; the first version is 1")]
    VersionZero {
        /// The state.
        state: String,
    },
    /// A time to live that lets nothing live.
    #[error("the time to live of state {state} is zero")]
    ZeroTimeToLive {
        /// The state.
        state: String,
    },
    /// State was changed where there is no current key, in `open` for example.
    #[error("state or timers were changed outside of a record or a timer: there is no current key")]
    NoKey,
}

/// A key with its hash.
pub(super) type HashedKey = (u32, PackedKey);

/// Current key, times, and what went wrong in a handle.
#[derive(Debug, Default)]
pub(super) struct Scope {
    key: RefCell<Option<HashedKey>>,
    now: Cell<Timestamp>,
    /// Event time, as far as timers count as being in the past.
    event_time: Cell<Option<Timestamp>>,
    error: RefCell<Option<KeyedError>>,
}

impl Scope {
    /// Makes it the state of this key. The same key again costs nothing.
    pub(super) fn set_key(&self, hash: u32, bytes: &[u8]) {
        let mut key = self.key.borrow_mut();
        if key.as_ref().is_none_or(|(before, key)| *before != hash || key.as_bytes() != bytes) {
            *key = Some((hash, PackedKey::from_bytes(bytes)));
        }
    }

    /// The current key; without one a change is refused.
    pub(super) fn key(&self) -> Option<Ref<'_, HashedKey>> {
        Ref::filter_map(self.key.borrow(), Option::as_ref).ok()
    }

    /// The current key for a change: notes an error where there is none.
    pub(super) fn key_to_change(&self) -> Option<Ref<'_, HashedKey>> {
        let key = self.key();
        if key.is_none() {
            self.fail(KeyedError::NoKey);
        }
        key
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now.get()
    }

    pub(super) fn set_now(&self, now: Timestamp) {
        self.now.set(now);
    }

    pub(super) fn event_time(&self) -> Option<Timestamp> {
        self.event_time.get()
    }

    pub(super) fn set_event_time(&self, event_time: Option<Timestamp>) {
        self.event_time.set(event_time);
    }

    /// Keeps the first error.
    pub(super) fn fail(&self, error: impl Into<KeyedError>) {
        self.error.borrow_mut().get_or_insert(error.into());
    }

    pub(super) fn take_error(&self) -> Option<KeyedError> {
        self.error.borrow_mut().take()
    }
}
