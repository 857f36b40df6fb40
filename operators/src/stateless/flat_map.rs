//! One record in, any number out.

use std::fmt;
use std::marker::PhantomData;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::{FrameInput, OpenContext};
use millstream_runtime::record::Record;
use millstream_runtime::time::Timestamp;

use crate::stateless::{Chain, Pull};
use crate::stream::Stream;

/// See [`Stream::flat_map`].
pub struct FlatMap<C, F, A> {
    inner: C,
    f: F,
    input: PhantomData<fn(A)>,
}

/// See [`Stream::flat_map_into`].
pub struct FlatMapInto<C, F, A> {
    inner: C,
    f: F,
    input: PhantomData<fn(A)>,
}

impl<C, F, A> fmt::Debug for FlatMap<C, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlatMap")
    }
}

impl<C, F, A> fmt::Debug for FlatMapInto<C, F, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlatMapInto")
    }
}

/// A `flat_map` in one subtask: the iterator it is in the middle of.
#[derive(Debug)]
pub struct FlatMapPuller<P, F, I> {
    inner: P,
    f: F,
    current: Option<(I, Timestamp, u32)>,
}

impl<A, I, C, F> Chain<I::Item> for FlatMap<C, F, A>
where
    A: 'static,
    I: IntoIterator<IntoIter: 'static> + 'static,
    C: Chain<A>,
    F: Fn(A) -> I + Clone + Send + Sync + 'static,
{
    type In = C::In;
    type Puller = FlatMapPuller<C::Puller, F, I::IntoIter>;

    fn puller(&self, open: &OpenContext) -> Self::Puller {
        FlatMapPuller { inner: self.inner.puller(open), f: self.f.clone(), current: None }
    }
}

impl<I: IntoIterator, P: Pull, F: Fn(P::Out) -> I> Pull for FlatMapPuller<P, F, I::IntoIter> {
    type In = P::In;
    type Out = I::Item;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<I::Item>>, BoxError> {
        loop {
            if let Some((items, time, hash)) = &mut self.current {
                if let Some(value) = items.next() {
                    return Ok(Some(Record { value, time: *time, hash: *hash }));
                }
                self.current = None;
            }
            let Some(record) = self.inner.pull(input)? else { return Ok(None) };
            self.current = Some(((self.f)(record.value).into_iter(), record.time, record.hash));
        }
    }
}

/// A `flat_map_into` in one subtask: results that were not taken yet, in a buffer that is used again.
#[derive(Debug)]
pub struct FlatMapIntoPuller<P, F, B> {
    inner: P,
    f: F,
    /// In reverse, so that the next one is the last.
    buffer: Vec<B>,
    time: Timestamp,
    hash: u32,
}

impl<A, B, C, F> Chain<B> for FlatMapInto<C, F, (A, B)>
where
    A: 'static,
    B: 'static,
    C: Chain<A>,
    F: Fn(A, &mut Vec<B>) + Clone + Send + Sync + 'static,
{
    type In = C::In;
    type Puller = FlatMapIntoPuller<C::Puller, F, B>;

    fn puller(&self, open: &OpenContext) -> Self::Puller {
        let inner = self.inner.puller(open);
        FlatMapIntoPuller { inner, f: self.f.clone(), buffer: Vec::new(), time: Timestamp::MIN, hash: 0 }
    }
}

impl<B, P: Pull, F: Fn(P::Out, &mut Vec<B>)> Pull for FlatMapIntoPuller<P, F, B> {
    type In = P::In;
    type Out = B;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<B>>, BoxError> {
        loop {
            if let Some(value) = self.buffer.pop() {
                return Ok(Some(Record { value, time: self.time, hash: self.hash }));
            }
            let Some(record) = self.inner.pull(input)? else { return Ok(None) };
            (self.time, self.hash) = (record.time, record.hash);
            (self.f)(record.value, &mut self.buffer);
            self.buffer.reverse();
        }
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Turns every record into any number of records, which keep its event time. The iterator is only advanced as far as there
    /// is room downstream, so it may be huge.
    #[track_caller]
    pub fn flat_map<I, F>(self, f: F) -> Stream<I::Item, FlatMap<C, F, T>>
    where
        I: IntoIterator<Item: Send + 'static, IntoIter: 'static> + 'static,
        F: Fn(T) -> I + Clone + Send + Sync + 'static,
    {
        self.grow("flat_map", |inner| FlatMap { inner, f, input: PhantomData })
    }

    /// Like [`Stream::flat_map`], for results that are pushed into a buffer which is used again: nothing is allocated per
    /// record. All results of one record are in memory at once. The buffer is empty when `f` is called.
    #[track_caller]
    pub fn flat_map_into<U, F>(self, f: F) -> Stream<U, FlatMapInto<C, F, (T, U)>>
    where
        U: Send + 'static,
        F: Fn(T, &mut Vec<U>) + Clone + Send + Sync + 'static,
    {
        self.grow("flat_map_into", |inner| FlatMapInto { inner, f, input: PhantomData })
    }
}
