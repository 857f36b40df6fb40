//! Rows that a task waits for: what it asks, and what was found.
//!
//! A task never reads the store itself. It says what it needs, its host reads on a thread that may block, and the task goes
//! on with the answer. See [`crate::state::OperatorState`].

use std::ops::{ControlFlow, Range};

use crate::state::store::{Space, StoreError, StoreRead};

/// One look into the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// One row, by its key.
    Get(Vec<u8>),
    /// Rows with `from` ≤ key < `to`, in order.
    Scan {
        /// The first key that counts.
        from: Vec<u8>,
        /// The first key behind that does not.
        to: Vec<u8>,
        /// Most rows that are wanted, at least one.
        limit: usize,
    },
}

/// What one operator asks for at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRead {
    /// The looks; answered in this order.
    pub looks: Vec<Look>,
}

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys and values of the rows, in order.
    pub rows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether the limit of a scan left rows out.
    pub more: bool,
}

/// The answer to a [`StateRead`]: one [`Found`] per look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateRows {
    /// In the order of the looks.
    pub found: Vec<Found>,
}

impl StateRead {
    /// Reads what is asked for. All single rows are read by one call.
    ///
    /// # Errors
    /// What the store says.
    pub fn carry_out(&self, store: &dyn StoreRead) -> Result<StateRows, StoreError> {
        Ok(StateRows { found: self.carry_out_some(0..self.looks.len(), store)? })
    }

    /// Reads what some of the looks ask for. Looks have nothing to do with each other, so the others may be carried out at another
    /// time.
    ///
    /// # Errors
    /// What the store says.
    pub fn carry_out_some(&self, looks: Range<usize>, store: &dyn StoreRead) -> Result<Vec<Found>, StoreError> {
        let looks = self.looks.get(looks).unwrap_or_default();
        let keys = looks.iter().filter_map(|look| match look {
            Look::Get(key) => Some(key.clone()),
            Look::Scan { .. } => None,
        });
        let keys: Vec<Vec<u8>> = keys.collect();
        let mut values = store.multi_get(Space::Rows, &keys)?.into_iter();
        let mut keys = keys.into_iter();
        let mut found = Vec::with_capacity(looks.len());
        for look in looks {
            found.push(match look {
                Look::Get(_) => {
                    let row = keys.next().zip(values.next().flatten());
                    Found { rows: row.into_iter().collect(), more: false }
                }
                Look::Scan { from, to, limit } => scan(store, from, to, *limit)?,
            });
        }
        Ok(found)
    }
}

fn scan(store: &dyn StoreRead, from: &[u8], to: &[u8], limit: usize) -> Result<Found, StoreError> {
    let mut found = Found::default();
    store.scan(Space::Rows, from, Some(to), &mut |key, value| {
        if found.rows.len() >= limit.max(1) {
            found.more = true;
            return ControlFlow::Break(());
        }
        found.rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
