//! One value per key that every record of the key changes.

use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{FrameInput, OpenContext, Operator, Prepared};
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::key_group::StreamKeyRef;
use millstream_runtime::state::{OperatorState, Single, StateValue, Table};

use crate::keyed_stream::KeySelector;

/// The name of the one state of these operators.
pub(super) const STATE: &str = "value";
/// Its version.
pub(super) const VERSION: u32 = 1;

/// Changes the key's value by each record and sends the new value.
pub(super) struct Update<K: StreamKey, T, S: StateValue, F> {
    table: Table<K, Single<S>>,
    selector: KeySelector<K, T>,
    step: F,
}

impl<K: StreamKey, T, S: StateValue, F> fmt::Debug for Update<K, T, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Update")
    }
}

impl<K: StreamKey, T, S: StateValue, F> Update<K, T, S, F> {
    /// Makes the operator of one subtask and restores its state. `step` changes the value, which is absent for a new key,
    /// and returns what goes out.
    pub(super) fn open(open: &OpenContext, selector: KeySelector<K, T>, step: F) -> Result<Self, BoxError> {
        let mut table = Table::new(open.table(open.number_of(STATE)?));
        if let Some(chunks) = &open.state {
            table.load(chunks)?;
        }
        Ok(Self { table, selector, step })
    }
}

impl<K, T, S, F> Operator for Update<K, T, S, F>
where
    K: StreamKey,
    T: 'static,
    S: StateValue,
    F: Fn(&mut Option<S>, T) -> S + 'static,
{
    type In = T;
    type Out = (K, S);

    #[inline]
    fn next(&mut self, input: &mut FrameInput<T>) -> Result<Option<Record<(K, S)>>, BoxError> {
        let Some(Record { value, time, hash }) = input.pop() else { return Ok(None) };
        let Self { table, selector, step } = self;
        let (key, slot) = match selector {
            KeySelector::Owned(select) => {
                let key = select(&value);
                let slot = table.slot(hash, key.borrow())?;
                (key, slot)
            }
            KeySelector::Borrowed(select) => {
                let key = select(&value);
                let slot = table.slot(hash, key)?;
                (key.to_key(), slot)
            }
        };
        let out = step(slot, value);
        Ok(Some(Record { value: (key, out), time, hash }))
    }

    fn prepare(&mut self, records: &[Record<T>]) -> Result<Prepared, BoxError> {
        let Self { table, selector, .. } = self;
        if !table.is_complete() {
            for record in records {
                match selector {
                    KeySelector::Owned(select) => table.want(record.hash, select(&record.value).borrow()),
                    KeySelector::Borrowed(select) => table.want(record.hash, select(&record.value)),
                }
            }
            if table.is_missing() {
                return Ok(Prepared::Missing);
            }
        }
        table.prefetch(records.iter().map(|record| record.hash));
        Ok(Prepared::Ready)
    }

    fn state(&mut self) -> Option<&mut dyn OperatorState> {
        Some(&mut self.table)
    }
}
