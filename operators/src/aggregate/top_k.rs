//! The greatest values.

use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::state::StateValue;

use crate::aggregate::Aggregate;

/// The greatest *k* values, the greatest first; of equal ones those that came first. NaN is left out. To know what a value belongs
/// to, make it a tuple whose first field counts: `TopK::of(10, |order: &Order| (order.cents, order.id))`.
#[derive(Clone)]
pub struct TopK<F> {
    most: usize,
    value: F,
}

impl<F> TopK<F> {
    /// Keeps the greatest `most` of what `value` says of each record. None are kept of 0.
    pub const fn of(most: usize, value: F) -> Self {
        Self { most, value }
    }
}

impl<F> fmt::Debug for TopK<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopK").field("most", &self.most).finish_non_exhaustive()
    }
}

/// Puts a value behind all that are not below it, if it is among the first.
fn keep<V: PartialOrd>(best: &mut Vec<V>, most: usize, value: V) {
    if value.partial_cmp(&value).is_none() {
        return;
    }
    let place = best.partition_point(|kept| *kept >= value);
    if place < most {
        best.insert(place, value);
        best.truncate(most);
    }
}

impl<In, V, F> Aggregate<In> for TopK<F>
where
    V: StateValue + PartialOrd + Clone,
    F: Fn(&In) -> V + Clone + Send + Sync + 'static,
{
    type Acc = Vec<V>;
    type Out = Vec<V>;

    fn start(&self) -> Vec<V> {
        Vec::new()
    }

    fn add(&self, best: &mut Vec<V>, record: &In) -> Result<(), BoxError> {
        keep(best, self.most, (self.value)(record));
        Ok(())
    }

    fn merge(&self, best: &mut Vec<V>, other: Vec<V>) -> Result<(), BoxError> {
        other.into_iter().for_each(|value| keep(best, self.most, value));
        Ok(())
    }

    fn finish(&self, best: &Vec<V>) -> Vec<V> {
        best.clone()
    }
}
