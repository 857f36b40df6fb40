//! Operators of the user's own: state, timers and side outputs per key.

use std::panic::Location;

use millstream_runtime::error::BoxError;
use millstream_runtime::operator::SideDecl;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::time::Timestamp;

use crate::failing::{FailingRecords, Mishap};
use crate::keyed::context::{OpenContext, ProcessContext};
use crate::keyed::engine::{self, Late, Logic};
use crate::keyed_stream::{KeySelector, KeyedStream, LateRecords};
use crate::side::{AnyRecord, number_of};
use crate::stream::Stream;

/// An operator of the user's own on a keyed stream.
///
/// Its fields are **configuration**: every subtask and every attempt after a failure gets a fresh clone of the original, so what
/// must survive is kept in `State`, whose handles always mean the current key. The harness
/// (`millstream::testing::harness`) fails an operator that counts in a field.
///
/// Records of one key come in the order of their source, timers in the order of their time. A watermark is handled in this
/// order: timers with a time ≤ it fire, then records with a time ≤ it are late, then it goes on to the next operator.
///
/// An error fails the attempt: the job goes back to the last epoch, so that nothing of the failed call remains, and tries again by
/// its restart policy. A record that fails may be skipped instead: see [`KeyedStream::skip_errors`].
///
/// # Examples
/// ```
/// use millstream_operators::prelude::*;
/// use millstream_runtime::error::BoxError;
/// use millstream_runtime::time::Timestamp;
///
/// /// Says how many records a key has had once event time has come to its first record's time and a minute.
/// #[derive(Clone)]
/// struct FirstMinute;
///
/// impl KeyedProcess for FirstMinute {
///     type Key = u32;
///     type In = String;
///     type Out = (u32, u64);
///     type State = Value<u64>;
///
///     fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<u64>, BoxError> {
///         Ok(ctx.value("count")?)
///     }
///
///     fn on_record(
///         &mut self,
///         _record: String,
///         count: &mut Value<u64>,
///         ctx: &mut ProcessContext<'_, (u32, u64)>,
///     ) -> Result<(), BoxError> {
///         if count.get().is_none() {
///             let minute = std::time::Duration::from_secs(60);
///             ctx.timers().register(TimerKind::EventTime, ctx.time().saturating_add(minute));
///         }
///         count.update(|| 0, |count| *count += 1);
///         Ok(())
///     }
///
///     fn on_timer(
///         &mut self,
///         _time: Timestamp,
///         count: &mut Value<u64>,
///         ctx: &mut ProcessContext<'_, (u32, u64)>,
///     ) -> Result<(), BoxError> {
///         let key = ctx.key()?;
///         if let Some(count) = count.take() {
///             ctx.emit((key, count));
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait KeyedProcess: Clone + Send + Sync + 'static {
    /// The stream's key.
    type Key: StreamKey;
    /// Records that come in.
    type In: Send + 'static;
    /// Records that go out.
    type Out: Send + 'static;
    /// The operator's handles on its state.
    type State: 'static;

    /// Declares the operator's states and side outputs. Called once while the pipeline is described, and once per subtask and attempt
    /// before the first record; it declares the same every time. There is no current key.
    ///
    /// # Errors
    /// While the pipeline is described, an error is a mistake that `start` returns; later it fails the attempt.
    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError>;

    /// Works on a record that is not late. Must not block: other tasks share its worker.
    ///
    /// # Errors
    /// Fails the attempt.
    fn on_record(
        &mut self,
        record: Self::In,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    /// A timer fires: its time is ≤ the watermark, or ≤ the processing time ([`ProcessContext::firing`] says which). It is still
    /// listed and is removed behind the call, so registering the same time again has no effect. By default does nothing.
    ///
    /// # Errors
    /// Fails the attempt.
    fn on_timer(
        &mut self,
        time: Timestamp,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        let _ = (time, state, ctx);
        Ok(())
    }
}

/// A [`KeyedProcess`] with the way to its keys.
struct OneInput<P: KeyedProcess> {
    process: P,
    selector: KeySelector<P::Key, P::In>,
    late: LateRecords<P::In>,
    failing: FailingRecords<P::In>,
}

impl<P: KeyedProcess> Clone for OneInput<P> {
    fn clone(&self) -> Self {
        let (process, selector) = (self.process.clone(), self.selector.clone());
        Self { process, selector, late: self.late.clone(), failing: self.failing.clone() }
    }
}

impl<P: KeyedProcess> Logic for OneInput<P> {
    type Key = P::Key;
    type In = P::In;
    type Out = P::Out;
    type State = P::State;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<P::State, BoxError> {
        self.process.open(ctx)
    }

    fn own_sides(&self) -> Vec<SideDecl> {
        self.late.side().into_iter().chain(self.failing.side()).collect()
    }

    #[inline]
    fn mishap(&self, record: &P::In, sides: &[SideDecl]) -> Mishap {
        self.failing.mishap(record, sides)
    }

    #[inline]
    fn identify(&self, record: &P::In, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        self.failing.identify(record, out)
    }

    fn kept_away(&self, record: P::In, sides: &[SideDecl]) -> Option<(u16, AnyRecord)> {
        self.failing.kept_away(record, sides)
    }

    fn want(&self, record: &P::In, hash: u32, keyed: &mut KeyedState) {
        self.selector.want(record, hash, keyed);
    }

    #[inline]
    fn enter(&self, record: &P::In, hash: u32, keyed: &mut KeyedState) {
        self.selector.enter(record, hash, keyed);
    }

    fn late(&self, record: P::In, sides: &[SideDecl]) -> Late<P::In> {
        self.late.decide(record, sides)
    }

    #[inline]
    fn on_record(
        &mut self,
        record: P::In,
        state: &mut P::State,
        ctx: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), BoxError> {
        self.process.on_record(record, state, ctx)
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        state: &mut P::State,
        ctx: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), BoxError> {
        self.process.on_timer(time, state, ctx)
    }
}

impl<T: Send + 'static> LateRecords<T> {
    /// The side output that they go to.
    pub(crate) fn side(&self) -> Option<SideDecl> {
        match self {
            Self::Side(tag) => Some(SideDecl::new(tag)),
            _ => None,
        }
    }

    /// What becomes of one.
    pub(crate) fn decide(&self, record: T, sides: &[SideDecl]) -> Late<T> {
        match self {
            Self::Accept => Late::Accept(record),
            Self::Drop => Late::Drop,
            Self::Side(tag) => number_of(tag, sides).map_or(Late::Drop, |side| Late::Side(side, Box::new(record))),
        }
    }
}

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    /// Runs an operator of the user's own: see [`KeyedProcess`]. State and timers are kept under `name`.
    ///
    /// Late records, those whose event time is not above the operator's watermark, are dropped and counted; see
    /// [`KeyedStream::late_to`] and [`KeyedStream::accept_late`]. Before the first watermark nothing is late, and records without event
    /// time never are.
    #[track_caller]
    pub fn process<P: KeyedProcess<Key = K, In = T>>(self, name: &str, process: P) -> Stream<P::Out> {
        let at = Location::caller();
        let (late, failing) = (self.late().clone(), self.failing().clone());
        let (stream, selector, wire) = self.into_parts();
        match engine::vertex("process", OneInput { process, selector, late, failing }) {
            Ok(kind) => stream.then_by(Some(name), kind, at, Some(wire)),
            Err(error) => stream.broken(engine::mistake(name, at, &error)),
        }
    }
}
