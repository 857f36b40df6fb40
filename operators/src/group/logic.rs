//! The operator behind `map_groups_with_state` and `flat_map_groups_with_state`.

use std::cell::Cell;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::Shape;
use millstream_runtime::operator::SideDecl;
use millstream_runtime::record::Record;
use millstream_runtime::state::StateValue;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::time::Timestamp;

use crate::group::arrival::Arrival;
use crate::group::error::GroupError;
use crate::group::rows::{Group, GroupOut, Rows};
use crate::group::state::{CallTimes, GroupState, GroupTimeout};
use crate::keyed::{Logic, OpenContext, ProcessContext};

/// The user's function.
pub(super) type GroupFn<K, T, S, R> =
    Arc<dyn Fn(&K, &mut Rows<'_, T>, &mut GroupState<S>, &mut GroupOut<'_, R>) -> Result<(), BoxError> + Send + Sync>;

/// See the module.
pub(super) struct GroupLogic<K: StreamKey, T, S: StateValue, R> {
    pub(super) arrival: Arrival<K, T>,
    pub(super) timeout: GroupTimeout,
    /// Somebody before the operator makes watermarks.
    pub(super) timed: bool,
    pub(super) shape: Shape,
    pub(super) function: GroupFn<K, T, S, R>,
}

impl<K: StreamKey, T, S: StateValue, R> Clone for GroupLogic<K, T, S, R> {
    fn clone(&self) -> Self {
        let (arrival, function) = (self.arrival.clone(), Arc::clone(&self.function));
        Self { arrival, timeout: self.timeout, timed: self.timed, shape: self.shape, function }
    }
}

/// What a call is about.
struct Call<T> {
    first: Option<Record<T>>,
    rest: Vec<Record<T>>,
    /// The time of results before a row is taken.
    time: Timestamp,
    timed_out: bool,
}

impl<K: StreamKey, T: Send + 'static, S: StateValue, R: Send + 'static> GroupLogic<K, T, S, R> {
    fn call(&self, call: Call<T>, state: &mut GroupState<S>, ctx: &mut ProcessContext<'_, R>) -> Result<(), BoxError> {
        let key: K = ctx.key()?;
        state.begin(CallTimes { now: ctx.processing_time(), watermark: ctx.watermark }, call.timed_out);
        let time = Cell::new(call.time);
        let mut rows = Rows::new(call.first, call.rest, &time);
        let mut out = GroupOut { out: ctx.out, time: &time };
        (self.function)(&key, &mut rows, state, &mut out).map_err(GroupError::Function)?;
        state.settle(ctx.timers());
        Ok(())
    }
}

impl<K: StreamKey, T: Send + 'static, S: StateValue, R: Send + 'static> Logic for GroupLogic<K, T, S, R> {
    type Key = K;
    type In = Group<K, T, S>;
    type Out = R;
    type State = GroupState<S>;

    fn shape(&self) -> Shape {
        self.shape
    }

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<GroupState<S>, BoxError> {
        ctx.mark_begun();
        // Timers of one kind are none of another: the name has a store with others refused.
        let name = match self.timeout {
            GroupTimeout::None => "group_state",
            GroupTimeout::ProcessingTime => "group_state_processing_time",
            GroupTimeout::EventTime => "group_state_event_time",
        };
        Ok(GroupState::new(ctx.value(name)?, self.timeout, self.timed))
    }

    fn own_sides(&self) -> Vec<SideDecl> {
        self.arrival.sides()
    }

    fn want(&self, group: &Self::In, hash: u32, keyed: &mut KeyedState) {
        self.arrival.want(group, hash, keyed);
    }

    fn enter(&self, group: &Self::In, hash: u32, keyed: &mut KeyedState) {
        self.arrival.enter(group, hash, keyed);
    }

    fn on_record(
        &mut self,
        group: Self::In,
        state: &mut GroupState<S>,
        ctx: &mut ProcessContext<'_, R>,
    ) -> Result<(), BoxError> {
        let (first, rest) = match group {
            Group::Rows(rows) => match self.arrival.in_time(rows, ctx) {
                (None, _) => return Ok(()),
                in_time => in_time,
            },
            Group::Initial(_, initial) => {
                state.load(initial);
                (None, Vec::new())
            }
        };
        self.call(Call { first, rest, time: Timestamp::MIN, timed_out: false }, state, ctx)
    }

    fn on_timer(
        &mut self,
        _time: Timestamp,
        state: &mut GroupState<S>,
        ctx: &mut ProcessContext<'_, R>,
    ) -> Result<(), BoxError> {
        let call = Call { first: None, rest: Vec::new(), time: ctx.time, timed_out: true };
        self.call(call, state, ctx)
    }
}
