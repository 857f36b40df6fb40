//! What a user writes.

use millstream_runtime::error::BoxError;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::time::Timestamp;

use crate::group::rows::Rows;
use crate::group::transform::handle::{TransformContext, VariableHandle};

/// A stateful processor: any number of variables and timers per key. See
/// [`KeyedStream::transform_with_state`](crate::KeyedStream::transform_with_state).
///
/// Its fields are **configuration**: every subtask and every attempt after a failure gets a fresh clone of the original, so what
/// must survive is kept in the variables, whose handles always mean the current key.
///
/// Handlers are called in this order: initial state before the first row; rows; timers that are due, in ascending order of their time.
/// An error fails the attempt: the job goes back to the last epoch and tries again by its restart policy.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use millstream_operators::prelude::*;
/// use millstream_runtime::error::BoxError;
/// use millstream_runtime::time::Timestamp;
///
/// /// Says how many rows a key had once nothing came for a minute of event time.
/// #[derive(Clone)]
/// struct Quiet;
///
/// struct QuietState {
///     count: ValueState<u64>,
///     timer: ValueState<Timestamp>,
/// }
///
/// impl StatefulProcessor for Quiet {
///     type Key = String;
///     type In = Timestamp;
///     type Out = (String, u64);
///     type State = QuietState;
///
///     fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<QuietState, BoxError> {
///         Ok(QuietState { count: handle.value_state("count", None)?, timer: handle.value_state("timer", None)? })
///     }
///
///     fn handle_input_rows(
///         &mut self,
///         _key: &String,
///         rows: &mut Rows<'_, Timestamp>,
///         state: &mut QuietState,
///         ctx: &mut TransformContext<'_, (String, u64)>,
///     ) -> Result<(), BoxError> {
///         for at in rows {
///             let count = state.count.get().map_or(0, |count| *count);
///             state.count.update(count + 1)?;
///             let before = state.timer.get().map(|timer| *timer);
///             if let Some(before) = before {
///                 ctx.delete_timer(before)?;
///             }
///             let timer = at.saturating_add(Duration::from_secs(60));
///             ctx.register_timer(timer)?;
///             state.timer.update(timer)?;
///         }
///         Ok(())
///     }
///
///     fn handle_expired_timer(
///         &mut self,
///         key: &String,
///         _expired_at: Timestamp,
///         state: &mut QuietState,
///         ctx: &mut TransformContext<'_, (String, u64)>,
///     ) -> Result<(), BoxError> {
///         let count = state.count.get().map(|count| *count);
///         if let Some(count) = count {
///             ctx.emit((key.clone(), count));
///         }
///         state.count.clear();
///         state.timer.clear();
///         Ok(())
///     }
/// }
/// ```
pub trait StatefulProcessor: Clone + Send + Sync + 'static {
    /// The stream's key.
    type Key: StreamKey;
    /// Rows that come in.
    type In: Send + 'static;
    /// Rows that go out.
    type Out: Send + 'static;
    /// The processor's variables, and what else it wants while it runs.
    type State: 'static;

    /// Asks for the variables. Called once while the pipeline is described, and once per subtask and attempt before the first row; it
    /// asks for the same every time. There is no current key.
    ///
    /// # Errors
    /// While the pipeline is described, an error is a mistake that `start` returns; later it fails the attempt.
    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Self::State, BoxError>;

    /// Works on rows of one key that are not late: one or more, see [`Rows`]. Must not block: other tasks share its worker.
    ///
    /// # Errors
    /// Fails the attempt.
    fn handle_input_rows(
        &mut self,
        key: &Self::Key,
        rows: &mut Rows<'_, Self::In>,
        state: &mut Self::State,
        ctx: &mut TransformContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;

    /// A timer of `expired_at` fires: that is at or below the watermark, or the processing time. It is still listed, and is removed
    /// behind the call. By default does nothing.
    ///
    /// # Errors
    /// Fails the attempt.
    fn handle_expired_timer(
        &mut self,
        key: &Self::Key,
        expired_at: Timestamp,
        state: &mut Self::State,
        ctx: &mut TransformContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        let _ = (key, expired_at, state, ctx);
        Ok(())
    }

    /// The subtask ends, after an error and a panic as well. Nothing that it does to variables is kept. By default does nothing.
    fn close(&mut self, state: &mut Self::State) {
        let _ = state;
    }
}

/// A [`StatefulProcessor`] that takes an initial state: see [`KeyedStream::initial_state`](crate::KeyedStream::initial_state).
pub trait InitialStateProcessor: StatefulProcessor {
    /// A row of the initial state. A key may have several.
    type Initial: Send + 'static;

    /// Takes in a row of the initial state: before the first input row, once in the operator's life.
    ///
    /// # Errors
    /// Fails the attempt.
    fn handle_initial_state(
        &mut self,
        key: &Self::Key,
        row: Self::Initial,
        state: &mut Self::State,
        ctx: &mut TransformContext<'_, Self::Out>,
    ) -> Result<(), BoxError>;
}
