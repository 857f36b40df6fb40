//! What a processor reaches: variables in `init`, everything else in its handlers.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use millstream_runtime::operator::Emitted;
use millstream_runtime::record::Record;
use millstream_runtime::state::StateValue;
use millstream_runtime::state::key_group::StreamKey;
use millstream_runtime::state::keyed::KeyTimers;
use millstream_runtime::time::Timestamp;
use millstream_runtime::timer::TimerKind;

use crate::group::transform::error::TransformError;
use crate::group::transform::variables::{ListState, MapState, ValueState};
use crate::keyed::{OpenContext, Outbox};

/// By which clock a processor's timers go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeMode {
    /// It has no timers and no time to live; no row is late.
    #[default]
    None,
    /// By the processing time. Variables may have a time to live; no row is late.
    ProcessingTime,
    /// By the watermark. Rows at or below it are late.
    EventTime,
}

impl TimeMode {
    pub(super) const fn clock(self) -> Option<TimerKind> {
        match self {
            Self::None => None,
            Self::ProcessingTime => Some(TimerKind::ProcessingTime),
            Self::EventTime => Some(TimerKind::EventTime),
        }
    }
}

/// Where a processor asks for its variables, in `init`. A variable that is new starts empty; one that is not asked for any more has to be
/// given up by [`VariableHandle::delete_if_exists`], or the start is refused.
pub struct VariableHandle<'a, 'b> {
    pub(super) open: &'a mut OpenContext<'b>,
    pub(super) time_mode: TimeMode,
}

impl fmt::Debug for VariableHandle<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VariableHandle").field("time_mode", &self.time_mode).finish_non_exhaustive()
    }
}

impl VariableHandle<'_, '_> {
    /// Returns the variable `name`: one value per key. With a time to live, the value is gone so long after it was written last.
    ///
    /// # Errors
    /// [`TransformError::TtlNotPositive`] (E-TWS-02), [`TransformError::TtlWithoutProcessingTime`] (E-TWS-03),
    /// [`TransformError::Duplicate`] (E-TWS-07).
    pub fn value_state<V: StateValue>(
        &mut self,
        name: &str,
        ttl: Option<Duration>,
    ) -> Result<ValueState<V>, TransformError> {
        let ttl = self.ttl(name, ttl)?;
        let value = self.open.value(name)?;
        Ok(ValueState::new(name, if let Some(ttl) = ttl { value.ttl(ttl) } else { value }))
    }

    /// Returns the variable `name`: a list per key. With a time to live, an element is gone so long after it was added.
    ///
    /// # Errors
    /// As [`VariableHandle::value_state`].
    pub fn list_state<V: StateValue>(
        &mut self,
        name: &str,
        ttl: Option<Duration>,
    ) -> Result<ListState<V>, TransformError> {
        let ttl = self.ttl(name, ttl)?;
        let list = self.open.list(name)?;
        Ok(ListState::new(name, if let Some(ttl) = ttl { list.ttl(ttl) } else { list }))
    }

    /// Returns the variable `name`: a map per key. With a time to live, an entry is gone so long after it was written last.
    ///
    /// # Errors
    /// As [`VariableHandle::value_state`].
    pub fn map_state<K: StreamKey, V: StateValue>(
        &mut self,
        name: &str,
        ttl: Option<Duration>,
    ) -> Result<MapState<K, V>, TransformError> {
        let ttl = self.ttl(name, ttl)?;
        let map = self.open.map(name)?;
        Ok(MapState::new(name, if let Some(ttl) = ttl { map.ttl(ttl) } else { map }))
    }

    /// Gives up a variable that an earlier version of the processor asked for: what the store has of it is removed. Does nothing where
    /// there is none.
    ///
    /// # Errors
    /// [`TransformError::Duplicate`] (E-TWS-07) when it is asked for as well.
    pub fn delete_if_exists(&mut self, name: &str) -> Result<(), TransformError> {
        Ok(self.open.delete_if_exists(name)?)
    }

    fn ttl(&self, name: &str, ttl: Option<Duration>) -> Result<Option<Duration>, TransformError> {
        let variable = || name.to_owned();
        // What is shorter than a microsecond cannot be kept.
        if ttl.is_some_and(|ttl| ttl < Duration::from_micros(1)) {
            return Err(TransformError::TtlNotPositive { variable: variable() });
        }
        if ttl.is_some() && self.time_mode != TimeMode::ProcessingTime {
            return Err(TransformError::TtlWithoutProcessingTime { variable: variable() });
        }
        Ok(ttl)
    }
}

/// The times of a call, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerValues {
    /// The processing time, read once per frame.
    pub processing_time_ms: i64,
    /// The watermark: 0 before the first and never less. While timers fire it is the new one.
    pub watermark_ms: i64,
}

/// Says which time a result has.
pub(super) type RowTime<R> = dyn Fn(&R) -> Timestamp + Send + Sync;

/// What a handler reaches: results, times, the key's timers.
pub struct TransformContext<'a, R> {
    pub(super) out: &'a mut Outbox<R>,
    pub(super) timers: &'a KeyTimers,
    pub(super) time_mode: TimeMode,
    pub(super) values: TimerValues,
    /// The time of results.
    pub(super) time: &'a Cell<Timestamp>,
    pub(super) row_time: Option<&'a RowTime<R>>,
    /// Rows up to here are late for the next operator.
    pub(super) threshold: Option<Timestamp>,
    /// The first row that was.
    pub(super) refused: Option<TransformError>,
}

impl<R> fmt::Debug for TransformContext<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransformContext").field("values", &self.values).finish_non_exhaustive()
    }
}

impl<R> TransformContext<'_, R> {
    /// Sends a result. It has the event time of the row that was taken last, or of the first while none was taken; in the call of an
    /// event-time timer that of the timer, and otherwise none. With
    /// [`transform_with_state_at`](crate::KeyedStream::transform_with_state_at) it has the time that it says, and the call fails
    /// afterwards if that has passed (E-TWS-04).
    pub fn emit(&mut self, row: R) {
        let Some(row_time) = self.row_time else {
            return self.out.push_back(Record::at(Emitted::Main(row), self.time.get()));
        };
        let time = row_time(&row);
        match self.threshold.filter(|threshold| time > Timestamp::MIN && time <= *threshold) {
            None => self.out.push_back(Record::at(Emitted::Main(row), time)),
            Some(watermark) => self.refused = self.refused.take().or(Some(TransformError::LateRow { time, watermark })),
        }
    }

    /// The times of this call.
    pub const fn timer_values(&self) -> TimerValues {
        self.values
    }

    /// Registers a timer of the current key; says whether it is new. It fires once its time is at or below the watermark, or the
    /// processing time; one in the past fires right behind the present call. Registering a time again has no effect, also while
    /// it fires.
    ///
    /// # Errors
    /// [`TransformError::NoTimers`] (E-TWS-01).
    pub fn register_timer(&mut self, time: Timestamp) -> Result<bool, TransformError> {
        Ok(self.timers.register(self.clock()?, time))
    }

    /// Deletes a timer of the current key; says whether it was there. It never fires.
    ///
    /// # Errors
    /// As [`TransformContext::register_timer`].
    pub fn delete_timer(&mut self, time: Timestamp) -> Result<bool, TransformError> {
        Ok(self.timers.delete(self.clock()?, time))
    }

    /// Returns the current key's timers, in ascending order. The one that fires is still among them.
    ///
    /// # Errors
    /// As [`TransformContext::register_timer`].
    pub fn list_timers(&self) -> Result<Vec<Timestamp>, TransformError> {
        Ok(self.timers.list(self.clock()?))
    }

    fn clock(&self) -> Result<TimerKind, TransformError> {
        self.time_mode.clock().ok_or(TransformError::NoTimers)
    }
}
