//! A source around another one: lets a life of the process read only so much at speed, and can be told to have a bug.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use millstream::runtime::error::BoxError;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};

/// Time between records when the budget is used up.
const TRICKLE: Duration = Duration::from_millis(10);

/// What a planted bug does with the first record after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bug {
    /// Leaves it out: the saved position was one too far.
    Skip,
    /// Hands it out twice: the saved position was one too few.
    Double,
}

/// Hands out a budget of records per life of the process, whatever attempts that life has; then they only trickle, so that a
/// long input lasts over many short lives and none of them is ever without records.
pub(crate) struct Budgeted<S> {
    inner: S,
    left: Arc<AtomicU64>,
    bug: Option<Bug>,
}

impl<S> Budgeted<S> {
    pub(crate) fn new(inner: S, budget: Option<u64>, bug: Option<Bug>) -> Self {
        Self { inner, left: Arc::new(AtomicU64::new(budget.unwrap_or(u64::MAX))), bug }
    }
}

impl<S: Source<Out: Clone>> Source for Budgeted<S> {
    type Out = S::Out;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.inner.splits()
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<S::Out>>, BoxError> {
        let inner = self.inner.reader(split, from)?;
        let bug = self.bug.filter(|_| from.is_some());
        Ok(Box::new(BudgetedReader { inner, left: Arc::clone(&self.left), bug }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        self.inner.committed(at);
    }
}

struct BudgetedReader<T> {
    inner: Box<dyn Reader<T>>,
    left: Arc<AtomicU64>,
    /// Taken by the first poll that has a record.
    bug: Option<Bug>,
}

impl<T: Clone> Reader<T> for BudgetedReader<T> {
    fn poll(&mut self, batch: &mut Batch<T>, limit: usize) -> Result<Polled, BoxError> {
        let limit = if self.bug.is_some() { 1 } else { limit };
        let take = |left: u64| Some(left - left.min(limit as u64));
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or_default();
        let taken = before.min(limit as u64) as usize;
        if taken == 0 {
            std::thread::sleep(TRICKLE);
        }
        let polled = self.inner.poll(batch, taken.max(1))?;
        self.left.fetch_add(taken.saturating_sub(batch.records.len()) as u64, Ordering::Relaxed);
        if !batch.records.is_empty() {
            match self.bug.take() {
                Some(Bug::Skip) => batch.records.clear(),
                Some(Bug::Double) => batch.records.extend_from_within(..),
                None => {}
            }
        }
        Ok(polled)
    }
}
