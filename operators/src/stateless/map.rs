//! One record in, one record out.

use std::fmt;
use std::marker::PhantomData;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{FrameInput, OpenContext};
use millstream_runtime::record::Record;

use crate::stateless::{Chain, Pull};
use crate::stream::Stream;

/// See [`Stream::map`].
pub struct Map<C, F, A> {
    inner: C,
    f: F,
    input: PhantomData<fn(A)>,
}

impl<C, F, A> fmt::Debug for Map<C, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Map")
    }
}

impl<A: 'static, B, C: Chain<A>, F: Fn(A) -> B + Clone + Send + Sync + 'static> Chain<B> for Map<C, F, A>
where
    B: 'static,
{
    type In = C::In;
    type Puller = Map<C::Puller, F, A>;

    fn puller(&self, open: &OpenContext) -> Self::Puller {
        Map { inner: self.inner.puller(open), f: self.f.clone(), input: PhantomData }
    }
}

impl<A, B, P: Pull<Out = A>, F: Fn(A) -> B> Pull for Map<P, F, A> {
    type In = P::In;
    type Out = B;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<B>>, BoxError> {
        Ok(self.inner.pull(input)?.map(|record| record.map(&self.f)))
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Turns every record into another; its event time stays.
    #[track_caller]
    pub fn map<U, F>(self, f: F) -> Stream<U, Map<C, F, T>>
    where
        U: Send + 'static,
        F: Fn(T) -> U + Clone + Send + Sync + 'static,
    {
        self.grow("map", |inner| Map { inner, f, input: PhantomData })
    }
}
