//! An operator's question to the store, on its way through the host.

use std::sync::{Arc, Mutex, PoisonError};

use crate::channel::Bell;
use crate::state::read::{StateRead, StateRows};
use crate::state::store::StoreError;

type Slot = Arc<Mutex<Option<Result<StateRows, StoreError>>>>;

/// Whether somebody waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The task waits for it.
    Needed,
    /// Nobody does: rows are read ahead of need. It must not delay what is needed.
    Ahead,
}

/// A question for the host: read these rows and answer. The task may wait meanwhile, its worker does not.
#[derive(Debug)]
pub struct ReadOrder {
    /// What to read.
    pub read: Arc<StateRead>,
    /// Whether the task waits for the answer.
    pub urgency: Urgency,
    slot: Slot,
    bell: Bell,
}

impl ReadOrder {
    /// Says whether the asking task is gone.
    pub fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.slot) == 1
    }

    /// Answers, and wakes the task. Whether it is still there does not matter.
    pub fn answer(self, rows: Result<StateRows, StoreError>) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
        self.bell.ring();
    }
}

/// The asking end.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) read: Arc<StateRead>,
    slot: Slot,
}

impl Waiting {
    /// Makes a question and the place of its answer; `bell` wakes the task.
    pub(crate) fn new(read: StateRead, urgency: Urgency, bell: Bell) -> (Self, ReadOrder) {
        let (read, slot) = (Arc::new(read), Slot::default());
        (Self { read: Arc::clone(&read), slot: Arc::clone(&slot) }, ReadOrder { read, urgency, slot, bell })
    }

    /// Takes the answer if it is there.
    pub(crate) fn take(&self) -> Option<Result<StateRows, StoreError>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
