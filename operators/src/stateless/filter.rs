//! Keeps some records.

use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{FrameInput, OpenContext};
use millstream_runtime::record::Record;

use crate::stateless::{Chain, Pull};
use crate::stream::Stream;

/// See [`Stream::filter`].
pub struct Filter<C, F> {
    inner: C,
    keep: F,
}

impl<C, F> fmt::Debug for Filter<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

impl<T, C: Chain<T>, F: Fn(&T) -> bool + Clone + Send + Sync + 'static> Chain<T> for Filter<C, F> {
    type In = C::In;
    type Puller = Filter<C::Puller, F>;

    fn puller(&self, open: &OpenContext) -> Self::Puller {
        Filter { inner: self.inner.puller(open), keep: self.keep.clone() }
    }
}

impl<P: Pull, F: Fn(&P::Out) -> bool> Pull for Filter<P, F> {
    type In = P::In;
    type Out = P::Out;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<P::Out>>, BoxError> {
        while let Some(record) = self.inner.pull(input)? {
            if (self.keep)(&record.value) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Keeps the records for which `keep` says true.
    #[track_caller]
    pub fn filter<F: Fn(&T) -> bool + Clone + Send + Sync + 'static>(self, keep: F) -> Stream<T, Filter<C, F>> {
        self.grow("filter", |inner| Filter { inner, keep })
    }
}
