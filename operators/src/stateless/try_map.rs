//! One record in, one record out, or an error.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::{OperatorOf, VertexKind};
use millstream_runtime::operator::{Emitted, FrameInput, OpenContext, OutputTag, SideDecl};
use millstream_runtime::record::Record;
use serde::Serialize;

use crate::failing::{FailingRecords, Mishap, Warden};
use crate::side::{Leaving, MainOnly, WithSides};
use crate::stateless::{Chain, ChainOperator, Pull};
use crate::stream::Stream;

/// See [`Stream::try_map`].
pub struct TryMap<C, F, A, W = MainOnly> {
    inner: C,
    f: F,
    failing: FailingRecords<A>,
    leaving: PhantomData<fn() -> W>,
}

impl<C, F, A, W> fmt::Debug for TryMap<C, F, A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TryMap")
    }
}

/// A `try_map` in one subtask.
pub struct TryMapPuller<P, F, A, W> {
    inner: P,
    f: F,
    failing: FailingRecords<A>,
    sides: Vec<SideDecl>,
    warden: Warden,
    leaving: PhantomData<fn() -> W>,
}

impl<P, F, A, W> fmt::Debug for TryMapPuller<P, F, A, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TryMapPuller")
    }
}

impl<A, B, E, C, F, W> Chain<W::Out> for TryMap<C, F, A, W>
where
    A: Send + 'static,
    B: 'static,
    E: Into<BoxError>,
    C: Chain<A>,
    F: Fn(A) -> Result<B, E> + Clone + Send + Sync + 'static,
    W: Leaving<B>,
{
    type In = C::In;
    type Puller = TryMapPuller<C::Puller, F, A, W>;

    fn puller(&self, open: &OpenContext) -> Self::Puller {
        TryMapPuller {
            inner: self.inner.puller(open),
            f: self.f.clone(),
            failing: self.failing.clone(),
            sides: self.failing.side().into_iter().collect(),
            warden: Warden::new(open),
            leaving: PhantomData,
        }
    }
}

impl<A, B, E, P, F, W> Pull for TryMapPuller<P, F, A, W>
where
    A: Send + 'static,
    E: Into<BoxError>,
    P: Pull<Out = A>,
    F: Fn(A) -> Result<B, E>,
    W: Leaving<B>,
{
    type In = P::In;
    type Out = W::Out;

    #[inline]
    fn pull(&mut self, input: &mut FrameInput<P::In>) -> Result<Option<Record<W::Out>>, BoxError> {
        let Self { inner, f, failing, sides, warden, .. } = self;
        while let Some(Record { value, time, hash }) = inner.pull(input)? {
            let emitted = if warden.is_quarantined(time, |out| failing.identify(&value, out))? {
                let kept_away = failing.kept_away(value, sides);
                warden.count_kept_away(kept_away.is_some());
                kept_away.map(|(side, record)| Emitted::Side(side, record))
            } else {
                let mishap = failing.mishap(&value, sides);
                match (warden.call(time, || f(value))?, mishap) {
                    (Ok(value), _) => Some(Emitted::Main(value)),
                    (Err(error), Mishap::Fail) => return Err(error.into()),
                    (Err(_), mishap) => {
                        warden.count_error(&mishap);
                        match mishap {
                            Mishap::Side(side, record) => Some(Emitted::Side(side, record)),
                            _ => None,
                        }
                    }
                }
            };
            if let Some(value) = emitted.and_then(W::leave) {
                return Ok(Some(Record { value, time, hash }));
            }
        }
        Ok(None)
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Turns every record into another or fails. A failure ends the attempt: the job goes back to the last epoch and, by its
    /// restart policy, tries again; a record that always fails ends the job with its error. What else may become of such a
    /// record is said behind it: [`Stream::skip_errors`], [`Stream::dead_letters_to`], [`Stream::quarantine_panics`].
    #[track_caller]
    pub fn try_map<U, E, F>(self, f: F) -> Stream<U, TryMap<C, F, T>>
    where
        U: Send + 'static,
        E: Into<BoxError>,
        F: Fn(T) -> Result<U, E> + Clone + Send + Sync + 'static,
    {
        let failing = FailingRecords::default();
        self.grow("try_map", |inner| TryMap { inner, f, failing, leaving: PhantomData })
    }
}

impl<T, U, E, C, F> Stream<U, TryMap<C, F, T>>
where
    T: Send + 'static,
    U: Send + 'static,
    E: Into<BoxError>,
    C: Chain<T>,
    F: Fn(T) -> Result<U, E> + Clone + Send + Sync + 'static,
{
    /// Skips records for which the `try_map` before it returns an error, instead of failing the attempt. They are counted: see
    /// [`Dropped`](millstream_runtime::operator::Dropped). A panic fails the attempt all the same.
    pub fn skip_errors(mut self) -> Self {
        self.chain_mut().failing.skip_errors();
        self
    }

    /// Keeps records away from the `try_map` before it on which it panicked in two attempts: see
    /// [`KeyedStream::quarantine_panics`](crate::KeyedStream::quarantine_panics). Say it before
    /// [`Stream::dead_letters_to`], which tells where they go.
    pub fn quarantine_panics(mut self) -> Self
    where
        T: Serialize,
    {
        self.chain_mut().failing.quarantine_panics();
        self
    }

    /// As [`Stream::skip_errors`], and sends each such record to a side output; read it with [`Stream::side`]. Every record is
    /// copied before it is worked on. They are counted as [`DeadLetters`](millstream_runtime::operator::DeadLetters).
    #[track_caller]
    pub fn dead_letters_to(mut self, tag: &OutputTag<T>) -> Stream<U>
    where
        T: Clone,
    {
        self.chain_mut().failing.dead_letters_to(tag);
        self.erase_into(|label, chain| {
            let TryMap { inner, f, failing, .. } = chain;
            let sides = failing.side().into_iter().collect();
            let chain = TryMap::<C, F, T, WithSides> { inner, f, failing, leaving: PhantomData };
            let make = move |open: &OpenContext| Ok(ChainOperator::new(&chain, open));
            VertexKind::Operator(Arc::new(OperatorOf::stateless(label, make).with_sides::<U>(sides)))
        })
    }
}
