//! Group state on keyed streams.

use std::fmt;
use std::iter;
use std::panic::Location;
use std::sync::Arc;

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::{Shape, VertexKind};
use millstream_runtime::operator::OutputMode;
use millstream_runtime::state::StateValue;
use millstream_runtime::state::key_group::StreamKey;

use crate::group::arrival::Arrival;
use crate::group::error::GroupError;
use crate::group::gather::{Initial, gathered};
use crate::group::logic::{GroupFn, GroupLogic};
use crate::group::rows::{GroupOut, Rows};
use crate::group::state::{GroupState, GroupTimeout};
use crate::keyed::engine;
use crate::keyed_stream::KeyedStream;
use crate::stream::Stream;

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    /// Keeps a state per key and sends one result per call of `function`, which is given the key, some of its rows and its state. Needs
    /// the pipeline's output mode to be [`OutputMode::Update`]. State and timeouts are kept under `name`.
    ///
    /// The function is called for rows, and for a timeout (without rows): see [`Rows`], [`GroupState`] and [`GroupTimeout`]. It is `Fn`:
    /// what must survive goes into the state. An error fails the attempt ([`GroupError::Function`]).
    ///
    /// # Examples
    /// ```
    /// use millstream_operators::prelude::*;
    /// use millstream_runtime::error::BoxError;
    ///
    /// /// How often each user was seen so far, one result per call.
    /// fn seen(users: KeyedStream<String, u64>) -> Stream<(String, u64)> {
    ///     users.map_groups_with_state("seen", GroupTimeout::None, |user, rows, state: &mut GroupState<u64>| {
    ///         let before = state.get_option().map_or(0, |count| *count);
    ///         let count = before + rows.count() as u64;
    ///         state.update(count)?;
    ///         Ok((user.clone(), count))
    ///     })
    /// }
    /// ```
    #[track_caller]
    pub fn map_groups_with_state<S, R, F>(self, name: &str, timeout: GroupTimeout, function: F) -> Stream<R>
    where
        S: StateValue,
        R: Send + 'static,
        F: Fn(&K, &mut Rows<'_, T>, &mut GroupState<S>) -> Result<R, BoxError> + Send + Sync + 'static,
    {
        self.initial_state(iter::empty()).map_groups_with_state(name, timeout, function)
    }

    /// Keeps a state per key and sends what `function` emits, which is given the key, some of its rows, its state, and where results
    /// go. State and timeouts are kept under `name`.
    ///
    /// `mode` says what the results are: rows that never change ([`OutputMode::Append`]) or the latest of their key
    /// ([`OutputMode::Update`]); it has to be that of the pipeline. Otherwise as [`KeyedStream::map_groups_with_state`].
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use millstream_operators::prelude::*;
    /// use millstream_runtime::error::BoxError;
    /// use millstream_runtime::time::Timestamp;
    ///
    /// /// The number of clicks of each session: it ends when nothing came for a minute of event time.
    /// fn sessions(clicks: KeyedStream<u32, Timestamp>) -> Stream<(u32, u64)> {
    ///     let (mode, timeout) = (OutputMode::Append, GroupTimeout::EventTime);
    ///     clicks.flat_map_groups_with_state("sessions", mode, timeout, |user, rows, state: &mut GroupState<(u64, Timestamp)>, out| {
    ///         // Before the rows: the call of a timeout has none.
    ///         if state.has_timed_out() {
    ///             let (clicks, _) = *state.get()?;
    ///             out.emit((*user, clicks));
    ///             state.remove();
    ///             return Ok(());
    ///         }
    ///         let (mut clicks, mut last) = state.get_option().map_or((0, Timestamp::MIN), |session| *session);
    ///         for at in rows {
    ///             (clicks, last) = (clicks + 1, last.max(at));
    ///         }
    ///         state.update((clicks, last))?;
    ///         Ok(state.set_timeout_timestamp_plus(last, Duration::from_secs(60))?)
    ///     })
    /// }
    /// ```
    #[track_caller]
    pub fn flat_map_groups_with_state<S, R, F>(
        self,
        name: &str,
        mode: OutputMode,
        timeout: GroupTimeout,
        function: F,
    ) -> Stream<R>
    where
        S: StateValue,
        R: Send + 'static,
        F: Fn(&K, &mut Rows<'_, T>, &mut GroupState<S>, &mut GroupOut<'_, R>) -> Result<(), BoxError>
            + Send
            + Sync
            + 'static,
    {
        self.initial_state(iter::empty()).flat_map_groups_with_state(name, mode, timeout, function)
    }

    /// Gives keys a state before the first record, for the operator that follows: `map_groups_with_state`, `flat_map_groups_with_state` or
    /// `transform_with_state`. The rows are bounded, and read again by each subtask; give it a `Vec`, or something whose clone makes
    /// them anew.
    ///
    /// For group state, at most one row per key: another one is a mistake that `start` returns (E-GS-18). The function is called for
    /// each of the keys before the first record, without rows. That is once in the operator's life: the first epoch that is
    /// committed says so, and from then on the rows are not read again.
    pub fn initial_state<I, R>(self, rows: R) -> WithInitialState<K, T, I>
    where
        I: Send + 'static,
        R: IntoIterator<Item = (K, I), IntoIter: 'static> + Clone + Send + Sync + 'static,
    {
        WithInitialState { stream: self, initial: Initial::new(rows) }
    }
}

/// A keyed stream with state for keys that no record has brought; see [`KeyedStream::initial_state`].
#[must_use = "initial state does nothing until an operator follows"]
pub struct WithInitialState<K: StreamKey, T, I> {
    pub(super) stream: KeyedStream<K, T>,
    pub(super) initial: Initial<K, I>,
}

impl<K: StreamKey, T, I> fmt::Debug for WithInitialState<K, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithInitialState").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<K: StreamKey, T: Send + 'static, S: StateValue> WithInitialState<K, T, S> {
    /// See [`KeyedStream::map_groups_with_state`].
    #[track_caller]
    pub fn map_groups_with_state<R, F>(self, name: &str, timeout: GroupTimeout, function: F) -> Stream<R>
    where
        R: Send + 'static,
        F: Fn(&K, &mut Rows<'_, T>, &mut GroupState<S>) -> Result<R, BoxError> + Send + Sync + 'static,
    {
        let shape = Shape::MapGroups { event_time: timeout == GroupTimeout::EventTime };
        let function: GroupFn<K, T, S, R> = Arc::new(move |key, rows, state, out| {
            out.emit(function(key, rows, state)?);
            Ok(())
        });
        self.groups(name, ("map_groups_with_state", shape), timeout, function)
    }

    /// See [`KeyedStream::flat_map_groups_with_state`].
    #[track_caller]
    pub fn flat_map_groups_with_state<R, F>(
        self,
        name: &str,
        mode: OutputMode,
        timeout: GroupTimeout,
        function: F,
    ) -> Stream<R>
    where
        R: Send + 'static,
        F: Fn(&K, &mut Rows<'_, T>, &mut GroupState<S>, &mut GroupOut<'_, R>) -> Result<(), BoxError>
            + Send
            + Sync
            + 'static,
    {
        let shape = Shape::FlatMapGroups { mode, event_time: timeout == GroupTimeout::EventTime };
        self.groups(name, ("flat_map_groups_with_state", shape), timeout, Arc::new(function))
    }

    #[track_caller]
    fn groups<R: Send + 'static>(
        self,
        name: &str,
        (label, shape): (&str, Shape),
        timeout: GroupTimeout,
        function: GroupFn<K, T, S, R>,
    ) -> Stream<R> {
        let at = Location::caller();
        let Self { stream, initial } = self;
        let late = stream.late().clone();
        let fails = stream.failing().is_asked_for();
        let (stream, selector, wire) = stream.into_parts();
        if fails {
            return stream.broken(engine::mistake(name, at, &GroupError::NotSkippable.into()));
        }
        if let Some(row) = initial.duplicate() {
            let error: BoxError = GroupError::DuplicateInitial { row }.into();
            return stream.broken(engine::mistake(name, at, &error));
        }
        let arrival = Arrival { selector: selector.clone(), late, by_event_time: timeout == GroupTimeout::EventTime };
        let logic = GroupLogic { arrival, timeout, timed: stream.is_timed(), shape, function };
        match engine::operator(label, logic) {
            Ok(inner) => {
                let gathered = gathered(inner, initial.unless_empty(), selector);
                let kind = VertexKind::Operator(Arc::new(gathered));
                stream.then_by(Some(name), kind, at, Some(wire))
            }
            Err(error) => stream.broken(engine::mistake(name, at, &error)),
        }
    }
}
