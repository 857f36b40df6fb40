//! Looks at records.

use std::fmt;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{FrameInput, OpenContext};
use millstream_runtime::record::Record;

use crate::stateless::{Chain, Pull};
use crate::stream::Stream;

/// See [`Stream::inspect`].
pub struct Inspect<C, F> {
    inner: C,
    look: F,
}

impl<C, F> fmt::Debug for Inspect<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inspect")
    }
}

impl<T, C: Chain<T>, F: Fn(&T) + Clone + Send + Sync + 'static> Chain<T> for Inspect<C, F> {
    type In = C::In;
    type Puller = Inspect<C::Puller, F>;

    fn puller(&self, open: &OpenContext) -> Self::Puller {
        Inspect { inner: self.inner.puller(open), look: self.look.clone() }
    }
}

impl<P: Pull, F: Fn(&P::Out)> Pull for Inspect<P, F> {
    type In = P::In;
    type Out = P::Out;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<P::Out>>, BoxError> {
        let record = self.inner.pull(input)?;
        if let Some(record) = &record {
            (self.look)(&record.value);
        }
        Ok(record)
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Looks at every record on its way. After a failure records of the open epoch are seen again.
    #[track_caller]
    pub fn inspect<F: Fn(&T) + Clone + Send + Sync + 'static>(self, look: F) -> Stream<T, Inspect<C, F>> {
        self.grow("inspect", |inner| Inspect { inner, look })
    }
}
