//! All values.

use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::state::StateValue;

use crate::aggregate::Aggregate;

/// Collects a value of each record, in the order in which they came.
///
/// All that is collected is one value of state, which is written again in every epoch that adds to it: it is meant for windows of a few
/// thousand records. For more, keep a [`List`](crate::state::List) in a [`KeyedProcess`](crate::KeyedProcess).
#[derive(Clone)]
pub struct CollectList<F>(F);

impl<F> CollectList<F> {
    /// Collects what `value` says of each record.
    pub const fn of(value: F) -> Self {
        Self(value)
    }
}

impl<F> fmt::Debug for CollectList<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CollectList")
    }
}

impl<In, V, F> Aggregate<In> for CollectList<F>
where
    V: StateValue + Clone,
    F: Fn(&In) -> V + Clone + Send + Sync + 'static,
{
    type Acc = Vec<V>;
    type Out = Vec<V>;

    fn start(&self) -> Vec<V> {
        Vec::new()
    }

    fn add(&self, values: &mut Vec<V>, record: &In) -> Result<(), BoxError> {
        values.push(self.0(record));
        Ok(())
    }

    fn merge(&self, values: &mut Vec<V>, other: Vec<V>) -> Result<(), BoxError> {
        values.extend(other);
        Ok(())
    }

    fn finish(&self, values: &Vec<V>) -> Vec<V> {
        values.clone()
    }
}
