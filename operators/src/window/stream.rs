//! The handle on a keyed stream in windows.

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::graph::{BuildError, OperatorVertex, VertexKind};
use millstream_runtime::operator::OutputTag;
use millstream_runtime::state::key_group::{StreamKey, StreamKeyRef};
use serde::{Deserialize, Serialize};

use crate::aggregate::Aggregate;
use crate::keyed::coalesced::{RowKey, coalesced};
use crate::keyed::engine;
use crate::keyed_stream::{KeyedStream, LateRecords};
use crate::stateless::Chain;
use crate::stream::Stream;
use crate::window::error::micros;
use crate::window::operator::{UNKEYED, WindowAggregation};
use crate::window::settings::{MakeRow, Settings};
use crate::window::{Global, TimeWindow, Trigger, WindowAssigner, WindowError, WindowKind};

/// A result of a window of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windowed<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: TimeWindow,
    /// What became of its records.
    pub value: V,
}

/// A keyed stream whose records are grouped into windows; see [`KeyedStream::window`].
pub struct WindowedStream<K: StreamKey, T, A> {
    stream: KeyedStream<K, T>,
    assigner: A,
    settings: Settings<T>,
}

impl<K: StreamKey, T, A> fmt::Debug for WindowedStream<K, T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowedStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<K: StreamKey, T: Send + 'static> KeyedStream<K, T> {
    /// Groups the records of each key into windows: [`Tumbling`](crate::window::Tumbling), [`Sliding`](crate::window::Sliding),
    /// [`Session`](crate::window::Session), [`Global`], [`CountWindow`](crate::window::CountWindow), or a [`WindowAssigner`] of your own.
    ///
    /// ```
    /// # use std::time::Duration;
    /// use millstream_operators::prelude::*;
    ///
    /// struct Reading { sensor: u32, celsius: f64 }
    ///
    /// /// Mean and number of readings of each sensor in each minute. Time is that of `event_time`.
    /// fn per_minute(readings: Stream<Reading>) -> Stream<Windowed<u32, (Option<f64>, u64)>> {
    ///     readings
    ///         .key_by(|reading| reading.sensor)
    ///         .window(Tumbling::of(Duration::from_secs(60)))
    ///         .aggregate("per-minute", (Avg::of(|reading: &Reading| reading.celsius), Count))
    /// }
    /// ```
    ///
    /// Windows go by event time: a record without it is in none, and is dropped and counted, but for [`Global`] and `CountWindow`. A
    /// window `[start, end)` is closed once the watermark is ≥ its end, and a record that comes later is *late* for it. Each window of a
    /// record is looked at by itself; one that is late for all of them is dropped and counted, or goes to [`WindowedStream::late_to`].
    /// When results go out is said by the pipeline's output mode and by [`Trigger`]. A result's event time is the last microsecond of its
    /// window ([`TimeWindow::time`]), so windows of windows work; that of a record where there is only one window.
    pub fn window<A: WindowAssigner<T>>(self, assigner: A) -> WindowedStream<K, T, A> {
        let settings = Settings {
            lateness: Duration::ZERO,
            trigger: None,
            before_1970: false,
            is_unkeyed: false,
            late: self.late().clone(),
            failing: self.failing().clone(),
        };
        WindowedStream { stream: self, assigner, settings }
    }

    /// Makes one value of all records of each key, and sends `(key, value)` as the pipeline's output mode says: in *update* with every
    /// record, in *complete* all keys at the end of every epoch that had data. In *append* it never would be final: group by a
    /// window as well. For one result per key and epoch use `window(Global)` with [`Trigger::epoch`]. State is kept under `name`.
    #[track_caller]
    pub fn aggregate<G: Aggregate<T>>(self, name: &str, aggregate: G) -> Stream<(K, G::Out)> {
        let key = |(key, _): &(K, G::Out), out: &mut Vec<u8>| key.borrow().write_key(out);
        self.window(Global).into_stream(name, aggregate, (|key, _, value| (key, value), key), Location::caller())
    }
}

impl<T: Send + 'static, C: Chain<T>> Stream<T, C> {
    /// Makes one value of all records, in one subtask, and sends it as the pipeline's output mode says: in *update* with every record, in
    /// *complete* at the end of every epoch that had data, also if none of it came here: then it is the value of no records. In
    /// *append* it never would be final. State is kept under `name`.
    #[track_caller]
    pub fn aggregate<G: Aggregate<T>>(self, name: &str, aggregate: G) -> Stream<G::Out> {
        let at = Location::caller();
        let mut windowed = self.key_by(|_| UNKEYED).window(Global);
        windowed.settings.is_unkeyed = true;
        windowed.into_stream(name, aggregate, (|_, _, value| value, |_, _| ()), at)
    }
}

impl<K: StreamKey, T: Send + 'static, A: WindowAssigner<T>> WindowedStream<K, T, A> {
    /// Keeps windows for so long behind their end, in event time: a record is late for a window once the watermark is ≥ its end and this.
    /// In *append* the results wait as long. Default: zero; whole microseconds.
    #[must_use]
    pub const fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.settings.lateness = lateness;
        self
    }

    /// Says when results go out; see [`Trigger`]. Not for sessions. Default: as the output mode says.
    #[must_use]
    pub const fn trigger(mut self, trigger: Trigger) -> Self {
        self.settings.trigger = Some(trigger);
        self
    }

    /// Sends records that are late for all of their windows to a side output; read it with [`Stream::side`]. Default: they are dropped
    /// and counted.
    #[must_use]
    pub fn late_to(mut self, tag: &OutputTag<T>) -> Self {
        self.settings.late = LateRecords::Side(tag.clone());
        self
    }

    /// Takes windows that end at or before 1970-01-01T00:00 UTC too. By default they are late from the start, as in Spark, whose
    /// watermark begins there: a record with such a time mostly has none.
    #[must_use]
    pub const fn before_1970(mut self) -> Self {
        self.settings.before_1970 = true;
        self
    }

    /// Makes one value of the records of each window. State is kept under `name`.
    ///
    /// A window's size, slide and kind may change from one start to the next: windows that are open stay as they are. The aggregate may
    /// not, nor may the output mode from *complete* to another: windows of *complete* are never closed.
    #[track_caller]
    pub fn aggregate<G: Aggregate<T>>(self, name: &str, aggregate: G) -> Stream<Windowed<K, G::Out>> {
        let key = |row: &Windowed<K, G::Out>, out: &mut Vec<u8>| {
            out.extend(row.window.start.as_micros().to_be_bytes());
            out.extend(row.window.end.as_micros().to_be_bytes());
            row.key.borrow().write_key(out);
        };
        let make = |key, window, value| Windowed { key, window, value };
        self.into_stream(name, aggregate, (make, key), Location::caller())
    }

    fn check(&self) -> Result<(), WindowError> {
        self.assigner.check()?;
        self.settings.trigger.map_or(Ok(()), |trigger| trigger.check())?;
        if self.assigner.kind() == WindowKind::Session && self.settings.trigger.is_some() {
            return Err(WindowError::SessionTrigger);
        }
        if self.assigner.kind() != WindowKind::Global && matches!(self.settings.late, LateRecords::Accept) {
            return Err(WindowError::AcceptLate);
        }
        let given = self.settings.lateness;
        micros(given).map(drop).ok_or(WindowError::Lateness { given })
    }

    fn into_stream<G: Aggregate<T>, R: Send + 'static>(
        self,
        name: &str,
        aggregate: G,
        (make, key): (MakeRow<K, G::Out, R>, RowKey<R>),
        at: &'static Location<'static>,
    ) -> Stream<R> {
        let checked = self.check();
        let Self { stream, assigner, settings } = self;
        let (stream, selector, wire) = stream.into_parts();
        if let Err(error) = checked {
            let (operator, code, reason) = (name.to_owned(), error.code(), error.to_string());
            return stream.broken(BuildError::Unsupported { code, operator, at: BuildError::place(at), reason });
        }
        // A trigger says itself when results go out.
        let replaces = settings.trigger.is_none() && assigner.trigger().is_none();
        let logic = WindowAggregation::new(selector, (assigner, aggregate), settings, make);
        let vertex = engine::operator("window", logic).map(|vertex| -> Arc<dyn OperatorVertex> {
            if replaces { Arc::new(coalesced(vertex, key)) } else { vertex }
        });
        match vertex.map(VertexKind::Operator) {
            Ok(kind) => stream.then_by(Some(name), kind, at, Some(wire)),
            Err(error) => stream.broken(engine::mistake(name, at, &error)),
        }
    }
}
