//! The operator behind `transform_with_state`: a processor on the engine of `process`.

use std::cell::Cell;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::Shape;
use millstream_runtime::operator::{OutputMode, SideDecl};
use millstream_runtime::state::keyed::KeyedState;
use millstream_runtime::time::Timestamp;

use crate::group::arrival::Arrival;
use crate::group::rows::{Group, Rows};
use crate::group::transform::error::TransformError;
use crate::group::transform::handle::{RowTime, TimeMode, TimerValues, TransformContext, VariableHandle};
use crate::group::transform::processor::StatefulProcessor;
use crate::keyed::{Logic, OpenContext, ProcessContext};

/// Gives a processor a row of its initial state.
pub(super) type OnInitial<P, I> = fn(
    &mut P,
    &<P as StatefulProcessor>::Key,
    I,
    &mut <P as StatefulProcessor>::State,
    &mut TransformContext<'_, <P as StatefulProcessor>::Out>,
) -> Result<(), BoxError>;

/// See the module.
pub(super) struct Transform<P: StatefulProcessor, I> {
    pub(super) processor: P,
    pub(super) arrival: Arrival<P::Key, P::In>,
    pub(super) mode: OutputMode,
    pub(super) time_mode: TimeMode,
    pub(super) row_time: Option<Arc<RowTime<P::Out>>>,
    pub(super) on_initial: OnInitial<P, I>,
}

impl<P: StatefulProcessor, I> Clone for Transform<P, I> {
    fn clone(&self) -> Self {
        Self {
            processor: self.processor.clone(),
            arrival: self.arrival.clone(),
            row_time: self.row_time.clone(),
            ..*self
        }
    }
}

impl<P: StatefulProcessor, I: Send + 'static> Transform<P, I> {
    /// Calls the processor: the one place, so that what it does wrong is found behind the call.
    fn call(
        &mut self,
        time: &Cell<Timestamp>,
        ctx: &mut ProcessContext<'_, P::Out>,
        call: impl FnOnce(&mut P, &P::Key, &mut TransformContext<'_, P::Out>) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let key: P::Key = ctx.key()?;
        let zero = Timestamp::default();
        let values = TimerValues {
            processing_time_ms: ctx.processing_time().as_micros().div_euclid(1_000),
            watermark_ms: ctx.watermark.unwrap_or(zero).max(zero).as_micros() / 1_000,
        };
        let mut context = TransformContext {
            out: ctx.out,
            timers: ctx.keyed.timers(),
            time_mode: self.time_mode,
            values,
            time,
            row_time: self.row_time.as_deref(),
            threshold: ctx.keyed.watermark(),
            refused: None,
        };
        call(&mut self.processor, &key, &mut context)?;
        context.refused.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl<P: StatefulProcessor, I: Send + 'static> Logic for Transform<P, I> {
    type Key = P::Key;
    type In = Group<P::Key, P::In, I>;
    type Out = P::Out;
    type State = P::State;

    fn shape(&self) -> Shape {
        let (mode, event_time) = (self.mode, self.arrival.by_event_time);
        Shape::TransformWithState { mode, event_time, timed_output: self.row_time.is_some() }
    }

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<P::State, BoxError> {
        ctx.mark_begun();
        let state = self.processor.init(&mut VariableHandle { open: ctx, time_mode: self.time_mode })?;
        // A change of a variable finds no key here.
        ctx.take_error().map_or(Ok(state), |error| Err(TransformError::from(error).into()))
    }

    fn close(&mut self, state: &mut P::State) {
        self.processor.close(state);
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
        state: &mut P::State,
        ctx: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), BoxError> {
        let time = Cell::new(Timestamp::MIN);
        match group {
            Group::Initial(_, row) => {
                let on_initial = self.on_initial;
                self.call(&time, ctx, |processor, key, context| on_initial(processor, key, row, state, context))
            }
            Group::Rows(rows) => {
                let (first, rest) = self.arrival.in_time(rows, ctx);
                if first.is_none() {
                    return Ok(());
                }
                let mut rows = Rows::new(first, rest, &time);
                self.call(&time, ctx, |processor, key, context| {
                    processor.handle_input_rows(key, &mut rows, state, context)
                })
            }
        }
    }

    fn on_timer(
        &mut self,
        expired_at: Timestamp,
        state: &mut P::State,
        ctx: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), BoxError> {
        let time = Cell::new(ctx.time);
        self.call(&time, ctx, |processor, key, context| processor.handle_expired_timer(key, expired_at, state, context))
    }
}
