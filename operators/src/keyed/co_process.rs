//! Operators of the user's own with two inputs of one key.

use std::panic::Location;
use std::sync::Arc;

use millstream_runtime::channel::{HashFrame, Routing};
use millstream_runtime::error::BoxError;
use millstream_runtime::graph::{BuildError, WireOf};
use millstream_runtime::operator::SideDecl;
use millstream_runtime::record::Record;
use millstream_runtime::state::key_group::{KeyGroups, StreamKey};
use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::time::Timestamp;

use crate::failing::{FailingRecords, Mishap};
use crate::keyed::context::{OpenContext, ProcessContext};
use crate::keyed::engine::{self, Late, Logic};
use crate::keyed_stream::{KeySelector, KeyedStream, LateRecords};
use crate::side::AnyRecord;
use crate::stream::Stream;

/// An operator of the user's own on two streams with keys of one type: both see the same state and the same timers.
///
/// All that [`KeyedProcess`](crate::KeyedProcess) says holds here: fields are **configuration**, of which every subtask and attempt gets
/// a fresh clone. Records of one input keep their order; between the inputs there is none. The watermark is the minimum of both.
pub trait CoProcess: Clone + Send + Sync + 'static {
    /// The key of both streams.
    type Key: StreamKey;
    /// Records of the first stream.
    type Left: Send + 'static;
    /// Records of the second stream.
    type Right: Send + 'static;
    /// Records that go out.
    type Out: Send + 'static;
    /// The operator's handles on its state.
    type State: 'static;

    /// Declares states and side outputs: see [`KeyedProcess::open`](crate::KeyedProcess::open).
    ///
    /// # Errors
    /// As there.
    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError>;

    /// Works on a record of the first stream.
    ///
    /// # Errors
    /// Fails the attempt.
    fn on_left(
        &mut self,
        record: Self::Left,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    /// Works on a record of the second stream.
    ///
    /// # Errors
    /// Fails the attempt.
    fn on_right(
        &mut self,
        record: Self::Right,
        state: &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    /// A timer fires: see [`KeyedProcess::on_timer`](crate::KeyedProcess::on_timer). By default does nothing.
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

/// A record of one of two streams.
enum Either<L, R> {
    Left(L),
    Right(R),
}

struct TwoInputs<P: CoProcess> {
    process: P,
    left: KeySelector<P::Key, P::Left>,
    right: KeySelector<P::Key, P::Right>,
    late_left: LateRecords<P::Left>,
    late_right: LateRecords<P::Right>,
    failing_left: FailingRecords<P::Left>,
    failing_right: FailingRecords<P::Right>,
}

impl<P: CoProcess> Clone for TwoInputs<P> {
    fn clone(&self) -> Self {
        Self {
            process: self.process.clone(),
            left: self.left.clone(),
            right: self.right.clone(),
            late_left: self.late_left.clone(),
            late_right: self.late_right.clone(),
            failing_left: self.failing_left.clone(),
            failing_right: self.failing_right.clone(),
        }
    }
}

impl<P: CoProcess> Logic for TwoInputs<P> {
    type Key = P::Key;
    type In = Either<P::Left, P::Right>;
    type Out = P::Out;
    type State = P::State;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<P::State, BoxError> {
        self.process.open(ctx)
    }

    fn own_sides(&self) -> Vec<SideDecl> {
        let late = self.late_left.side().into_iter().chain(self.late_right.side());
        late.chain(self.failing_left.side()).chain(self.failing_right.side()).collect()
    }

    fn mishap(&self, record: &Self::In, sides: &[SideDecl]) -> Mishap {
        match record {
            Either::Left(record) => self.failing_left.mishap(record, sides),
            Either::Right(record) => self.failing_right.mishap(record, sides),
        }
    }

    fn identify(&self, record: &Self::In, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        match record {
            Either::Left(record) => self.failing_left.identify(record, out),
            Either::Right(record) => {
                // Not the same as a record on the left.
                out.push(0);
                self.failing_right.identify(record, out)
            }
        }
    }

    fn kept_away(&self, record: Self::In, sides: &[SideDecl]) -> Option<(u16, AnyRecord)> {
        match record {
            Either::Left(record) => self.failing_left.kept_away(record, sides),
            Either::Right(record) => self.failing_right.kept_away(record, sides),
        }
    }

    fn want(&self, record: &Self::In, hash: u32, keyed: &mut KeyedState) {
        match record {
            Either::Left(record) => self.left.want(record, hash, keyed),
            Either::Right(record) => self.right.want(record, hash, keyed),
        }
    }

    fn enter(&self, record: &Self::In, hash: u32, keyed: &mut KeyedState) {
        match record {
            Either::Left(record) => self.left.enter(record, hash, keyed),
            Either::Right(record) => self.right.enter(record, hash, keyed),
        }
    }

    fn late(&self, record: Self::In, sides: &[SideDecl]) -> Late<Self::In> {
        match record {
            Either::Left(record) => self.late_left.decide(record, sides).map(Either::Left),
            Either::Right(record) => self.late_right.decide(record, sides).map(Either::Right),
        }
    }

    fn on_record(
        &mut self,
        record: Self::In,
        state: &mut P::State,
        ctx: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), BoxError> {
        match record {
            Either::Left(record) => self.process.on_left(record, state, ctx),
            Either::Right(record) => self.process.on_right(record, state, ctx),
        }
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

/// Two streams with keys of one type; see [`KeyedStream::connect`].
#[derive(Debug)]
#[must_use = "two connected streams do nothing until `process` is called"]
pub struct Connected<K: StreamKey, L, R> {
    left: KeyedStream<K, L>,
    right: KeyedStream<K, R>,
}

impl<K: StreamKey, L: Send + 'static> KeyedStream<K, L> {
    /// Puts this stream beside another one with keys of the same type, so that one operator works on both: records of one key
    /// meet in one subtask, whichever stream they come from. What each stream says of late records holds for its own.
    pub fn connect<R: Send + 'static>(self, other: KeyedStream<K, R>) -> Connected<K, L, R> {
        Connected { left: self, right: other }
    }
}

impl<K: StreamKey, L: Send + 'static, R: Send + 'static> Connected<K, L, R> {
    /// Runs an operator of the user's own: see [`CoProcess`]. State and timers are kept under `name`.
    #[track_caller]
    pub fn process<P>(self, name: &str, process: P) -> Stream<P::Out>
    where
        P: CoProcess<Key = K, Left = L, Right = R>,
    {
        let at = Location::caller();
        let (late_left, late_right) = (self.left.late().clone(), self.right.late().clone());
        let (failing_left, failing_right) = (self.left.failing().clone(), self.right.failing().clone());
        let (left_stream, left, _) = self.left.into_parts();
        let (right_stream, right, _) = self.right.into_parts();
        let wire = || by_either_key(left.clone(), right.clone());
        let (left_wire, right_wire) = (wire(), wire());
        let left_stream = left_stream.map(Either::<L, R>::Left).erase();
        let right_stream = right_stream.map(Either::<L, R>::Right).erase();
        if !left_stream.shared.is(&right_stream.shared) {
            return left_stream.broken(BuildError::TwoPipelines { at: BuildError::place(at) });
        }
        let logic = TwoInputs { process, left, right, late_left, late_right, failing_left, failing_right };
        match engine::vertex("co_process", logic) {
            Ok(kind) => {
                let vertex = left_stream.shared.change(|graph| graph.add_vertex(Some(name), kind, at));
                let shared = left_stream.shared.clone();
                left_stream.connect_by_key(vertex, left_wire);
                right_stream.connect_by_key(vertex, right_wire);
                Stream::of(shared, vertex)
            }
            Err(error) => left_stream.broken(engine::mistake(name, at, &error)),
        }
    }
}

/// The wire that exchanges records of both streams by their keys.
fn by_either_key<K: StreamKey, L: Send + 'static, R: Send + 'static>(
    left: KeySelector<K, L>,
    right: KeySelector<K, R>,
) -> WireOf<Either<L, R>> {
    let hash: HashFrame<Either<L, R>> = Arc::new(move |records: &mut [Record<Either<L, R>>]| {
        let mut scratch = Vec::new();
        for record in records {
            record.hash = match &record.value {
                Either::Left(value) => left.hash(value, &mut scratch),
                Either::Right(value) => right.hash(value, &mut scratch),
            };
        }
    });
    WireOf::new(move |groups: KeyGroups| Routing::Hash { hash: Arc::clone(&hash), groups })
}
