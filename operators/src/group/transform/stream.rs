//! Stateful processors on keyed streams.

use std::iter;
use std::panic::Location;
use std::sync::Arc;

use millstream_runtime::graph::VertexKind;
use millstream_runtime::operator::OutputMode;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::time::Timestamp;

use crate::group::arrival::Arrival;
use crate::group::error::GroupError;
use crate::group::gather::gathered;
use crate::group::stream::WithInitialState;
use crate::group::transform::handle::{RowTime, TimeMode};
use crate::group::transform::logic::{OnInitial, Transform};
use crate::group::transform::processor::{InitialStateProcessor, StatefulProcessor};
use crate::keyed::engine;
use crate::keyed_stream::KeyedStream;
use crate::stream::Stream;

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    /// Runs a processor of the user's own, with variables and timers per key: see [`StatefulProcessor`]. Variables and timers are kept
    /// under `name`.
    ///
    /// `mode` says what its rows are, and has to be that of the pipeline; `time_mode` says by which clock its timers go.
    #[track_caller]
    pub fn transform_with_state<P>(
        self,
        name: &str,
        mode: OutputMode,
        time_mode: TimeMode,
        processor: P,
    ) -> Stream<P::Out>
    where
        P: StatefulProcessor<Key = K, In = T>,
    {
        self.initial_state(iter::empty::<(K, ())>()).transform(
            name,
            (mode, time_mode),
            processor,
            None,
            |_, _, (), _, _| Ok(()),
        )
    }

    /// As [`KeyedStream::transform_with_state`], for rows that say their event time. One whose time is not above the watermark fails the
    /// attempt: the next operator would drop it as late (E-TWS-04).
    #[track_caller]
    pub fn transform_with_state_at<P, F>(
        self,
        name: &str,
        mode: OutputMode,
        time_mode: TimeMode,
        processor: P,
        row_time: F,
    ) -> Stream<P::Out>
    where
        P: StatefulProcessor<Key = K, In = T>,
        F: Fn(&P::Out) -> Timestamp + Send + Sync + 'static,
    {
        let none = self.initial_state(iter::empty::<(K, ())>());
        none.transform(name, (mode, time_mode), processor, Some(Arc::new(row_time)), |_, _, (), _, _| Ok(()))
    }
}

impl<K: StreamKey, T: Send + 'static, I: Send + 'static> WithInitialState<K, T, I> {
    /// See [`KeyedStream::transform_with_state`].
    #[track_caller]
    pub fn transform_with_state<P>(
        self,
        name: &str,
        mode: OutputMode,
        time_mode: TimeMode,
        processor: P,
    ) -> Stream<P::Out>
    where
        P: InitialStateProcessor<Key = K, In = T, Initial = I>,
    {
        self.transform(name, (mode, time_mode), processor, None, P::handle_initial_state)
    }

    /// See [`KeyedStream::transform_with_state_at`].
    #[track_caller]
    pub fn transform_with_state_at<P, F>(
        self,
        name: &str,
        mode: OutputMode,
        time_mode: TimeMode,
        processor: P,
        row_time: F,
    ) -> Stream<P::Out>
    where
        P: InitialStateProcessor<Key = K, In = T, Initial = I>,
        F: Fn(&P::Out) -> Timestamp + Send + Sync + 'static,
    {
        self.transform(name, (mode, time_mode), processor, Some(Arc::new(row_time)), P::handle_initial_state)
    }

    #[track_caller]
    fn transform<P>(
        self,
        name: &str,
        (mode, time_mode): (OutputMode, TimeMode),
        processor: P,
        row_time: Option<Arc<RowTime<P::Out>>>,
        on_initial: OnInitial<P, I>,
    ) -> Stream<P::Out>
    where
        P: StatefulProcessor<Key = K, In = T>,
    {
        let at = Location::caller();
        let Self { stream, initial } = self;
        let late = stream.late().clone();
        let fails = stream.failing().is_asked_for();
        let (stream, selector, wire) = stream.into_parts();
        if fails {
            return stream.broken(engine::mistake(name, at, &GroupError::NotSkippable.into()));
        }
        let arrival = Arrival { selector: selector.clone(), late, by_event_time: time_mode == TimeMode::EventTime };
        let logic = Transform { processor, arrival, mode, time_mode, row_time, on_initial };
        match engine::operator("transform_with_state", logic) {
            Ok(inner) => {
                let gathered = gathered(inner, initial.unless_empty(), selector);
                let kind = VertexKind::Operator(Arc::new(gathered));
                stream.then_by(Some(name), kind, at, Some(wire))
            }
            Err(error) => stream.broken(engine::mistake(name, at, &error)),
        }
    }
}
