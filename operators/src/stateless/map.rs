//! One record in, one record out.

use std::fmt;
use std::marker::PhantomData;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::FrameInput;
use millstream_runtime::record::Record;

use crate::stateless::{Chain, Pull};
use crate::stream::Stream;

/// See [`Stream::map`].
pub struct Map<C, F, A> {
    inner: C,
    f: F,
    input: PhantomData<fn(A)>,
}

/// See [`Stream::try_map`].
pub struct TryMap<C, F, A> {
    inner: C,
    f: F,
    input: PhantomData<fn(A)>,
}

impl<C, F, A> fmt::Debug for Map<C, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Map")
    }
}

impl<C, F, A> fmt::Debug for TryMap<C, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TryMap")
    }
}

impl<A: 'static, B, C: Chain<A>, F: Fn(A) -> B + Clone + Send + Sync + 'static> Chain<B> for Map<C, F, A>
where
    B: 'static,
{
    type In = C::In;
    type Puller = Map<C::Puller, F, A>;

    fn puller(&self) -> Self::Puller {
        Map { inner: self.inner.puller(), f: self.f.clone(), input: PhantomData }
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

impl<A, B, E, C, F> Chain<B> for TryMap<C, F, A>
where
    A: 'static,
    B: 'static,
    E: Into<BoxError>,
    C: Chain<A>,
    F: Fn(A) -> Result<B, E> + Clone + Send + Sync + 'static,
{
    type In = C::In;
    type Puller = TryMap<C::Puller, F, A>;

    fn puller(&self) -> Self::Puller {
        TryMap { inner: self.inner.puller(), f: self.f.clone(), input: PhantomData }
    }
}

impl<A, B, E: Into<BoxError>, P: Pull<Out = A>, F: Fn(A) -> Result<B, E>> Pull for TryMap<P, F, A> {
    type In = P::In;
    type Out = B;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<B>>, BoxError> {
        let Some(Record { value, time, hash }) = self.inner.pull(input)? else { return Ok(None) };
        let value = (self.f)(value).map_err(Into::into)?;
        Ok(Some(Record { value, time, hash }))
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

    /// Turns every record into another or fails. A failure ends the attempt: the job goes back to the last epoch and, by its
    /// restart policy, tries again; a record that always fails ends the job with its error.
    #[track_caller]
    pub fn try_map<U, E, F>(self, f: F) -> Stream<U, TryMap<C, F, T>>
    where
        U: Send + 'static,
        E: Into<BoxError>,
        F: Fn(T) -> Result<U, E> + Clone + Send + Sync + 'static,
    {
        self.grow("try_map", |inner| TryMap { inner, f, input: PhantomData })
    }
}
