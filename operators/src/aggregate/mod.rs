//! What becomes of many records: counts, sums, means, extremes, and your own [`Aggregate`].
//!
//! | aggregate | of | gives |
//! |---|---|---|
//! | [`Count`] | records | how many |
//! | [`Sum`] | a number | the sum; of nothing 0 |
//! | [`Min`], [`Max`] | a value | the least, the greatest; of nothing `None` |
//! | [`Avg`], [`Variance`] | a number | mean, variance; of nothing `None` |
//! | [`ApproxDistinct`] | a key | about how many different ones |
//! | [`CollectList`] | a value | all of them |
//! | [`TopK`] | a value | the greatest *k* |
//!
//! A tuple of up to eight is one that gives a tuple: `(Count, Sum::of(|order: &Order| order.cents))`.

mod collect_list;
mod count;
mod distinct;
mod extrema;
mod mean;
mod sum;
mod top_k;
mod tuple;

use millstream_runtime::error::BoxError;
use millstream_runtime::state::StateValue;

pub use self::collect_list::CollectList;
pub use self::count::Count;
pub use self::distinct::{ApproxDistinct, DistinctSketch};
pub use self::extrema::{Max, Min};
pub use self::mean::{Avg, Moments, Number, Variance};
pub use self::sum::{Sum, Summand};
pub use self::top_k::TopK;

/// Makes one value of many records.
///
/// Its fields are **configuration**: every subtask and every attempt gets a fresh clone. What it knows of the records is the
/// accumulator, which is kept as state: one per key, or per key and window.
///
/// # Examples
/// ```
/// use millstream_operators::aggregate::Aggregate;
/// use millstream_runtime::error::BoxError;
///
/// /// The longest word.
/// #[derive(Clone)]
/// struct Longest;
///
/// impl Aggregate<String> for Longest {
///     type Acc = String;
///     type Out = String;
///
///     fn start(&self) -> String {
///         String::new()
///     }
///
///     fn add(&self, longest: &mut String, word: &String) -> Result<(), BoxError> {
///         if word.len() > longest.len() {
///             longest.clone_from(word);
///         }
///         Ok(())
///     }
///
///     fn merge(&self, longest: &mut String, other: String) -> Result<(), BoxError> {
///         self.add(longest, &other)
///     }
///
///     fn finish(&self, longest: &String) -> String {
///         longest.clone()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no aggregate of `{In}` records",
    note = "say what the records are where a closure is given: `Sum::of(|order: &Order| order.cents)`",
    note = "numbers of `Sum` are integers of up to 64 bits and floats; keys of `ApproxDistinct` are stream keys"
)]
pub trait Aggregate<In>: Clone + Send + Sync + 'static {
    /// What is known of the records so far.
    type Acc: StateValue;
    /// What comes of it.
    type Out: Send + 'static;

    /// Makes the accumulator of no records.
    fn start(&self) -> Self::Acc;

    /// Adds a record. Called once per record, and per window that it belongs to.
    ///
    /// # Errors
    /// Fails the attempt, or skips the record where [`skip_errors`](crate::KeyedStream::skip_errors) says so.
    fn add(&self, acc: &mut Self::Acc, record: &In) -> Result<(), BoxError>;

    /// Adds the records of another accumulator: sessions that turn out to be one. Where an order matters, those of `other`
    /// come behind.
    ///
    /// # Errors
    /// As [`Aggregate::add`].
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc) -> Result<(), BoxError>;

    /// Returns what comes of the records so far. More may be added afterwards.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;
}

#[cfg(test)]
mod tests;
