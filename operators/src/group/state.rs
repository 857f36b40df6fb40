//! What a function has of its key: the state, and one timeout.

use std::cell::Ref;

use millstream_runtime::canary::{Canary, planted};
use millstream_runtime::state::StateValue;
use millstream_runtime::state::keyed::{KeyTimers, Value};
use millstream_runtime::time::Timestamp;
use millstream_runtime::timer::TimerKind;

use crate::group::error::GroupError;
use crate::group::null::is_null;
use crate::interval::Interval;

/// Whether a key may have a timeout, and by which clock it goes. Fixed for the operator's life: another kind does not fit the state in
/// the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupTimeout {
    /// There are no timeouts, and no record is late.
    #[default]
    None,
    /// By the clock: see [`GroupState::set_timeout_duration`]. No record is late.
    ProcessingTime,
    /// By the watermark: see [`GroupState::set_timeout_timestamp`]. Needs event times. Records at or below the watermark are late.
    EventTime,
}

impl GroupTimeout {
    pub(super) const fn clock(self) -> Option<TimerKind> {
        match self {
            Self::None => None,
            Self::ProcessingTime => Some(TimerKind::ProcessingTime),
            Self::EventTime => Some(TimerKind::EventTime),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "no timeouts",
            Self::ProcessingTime => "timeouts by processing time",
            Self::EventTime => "timeouts by event time",
        }
    }
}

/// The times of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CallTimes {
    pub(super) now: Timestamp,
    pub(super) watermark: Option<Timestamp>,
}

/// The state of the key in work and its timeout.
///
/// **The timeout is cleared before every call**, also before one that it causes: what a call does not set is not set. A timeout does
/// not need a state, and outlives [`GroupState::remove`]. A key with neither leaves nothing behind.
///
/// A timeout fires strictly *behind* its time: once the watermark, or the clock, is above it. There is no bound on how far behind.
/// The call has no rows then, and [`GroupState::has_timed_out`] says so. At the end of the input, event time has passed every
/// timeout: all fire, and one that is set in such a call does not any more.
#[derive(Debug)]
pub struct GroupState<S: StateValue> {
    value: Value<S>,
    kind: GroupTimeout,
    /// Somebody before the operator makes watermarks.
    timed: bool,
    times: CallTimes,
    timed_out: bool,
    timeout: Option<Timestamp>,
}

impl<S: StateValue> GroupState<S> {
    pub(super) const fn new(value: Value<S>, kind: GroupTimeout, timed: bool) -> Self {
        let times = CallTimes { now: Timestamp::MIN, watermark: None };
        Self { value, kind, timed, times, timed_out: false, timeout: None }
    }

    /// Begins a call.
    pub(super) const fn begin(&mut self, times: CallTimes, timed_out: bool) {
        (self.times, self.timed_out, self.timeout) = (times, timed_out, None);
    }

    /// Ends a call: the key has the timeout that was set, and no other one.
    pub(super) fn settle(&mut self, timers: &KeyTimers) {
        let Some(clock) = self.kind.clock() else { return };
        // A timer fires at its time, a timeout behind it.
        let wanted = self.timeout.take().map(behind);
        if wanted.is_none() && planted(Canary::TimeoutKept) {
            return;
        }
        let mut is_there = false;
        for timer in timers.list(clock) {
            if Some(timer) == wanted {
                is_there = true;
            } else {
                timers.delete(clock, timer);
            }
        }
        if let Some(timer) = wanted.filter(|_| !is_there) {
            timers.register(clock, timer);
        }
    }

    /// Puts the initial state in place.
    pub(super) fn load(&mut self, state: S) {
        self.value.set(state);
    }

    /// Says whether the key has a state.
    pub fn exists(&self) -> bool {
        self.value.get().is_some()
    }

    /// Returns the key's state. To change it, clone it and call [`GroupState::update`].
    ///
    /// # Errors
    /// [`GroupError::NotDefined`] (E-GS-10) when there is none.
    pub fn get(&self) -> Result<Ref<'_, S>, GroupError> {
        self.value.get().ok_or(GroupError::NotDefined)
    }

    /// Returns the key's state, if there is one.
    pub fn get_option(&self) -> Option<Ref<'_, S>> {
        self.value.get()
    }

    /// Gives the key a state, also where it was removed before.
    ///
    /// # Errors
    /// [`GroupError::NullState`] (E-GS-11) for a state that is written as nothing, such as `None`.
    pub fn update(&mut self, state: S) -> Result<(), GroupError> {
        if is_null(&state) {
            return Err(GroupError::NullState);
        }
        self.value.set(state);
        Ok(())
    }

    /// Removes the key's state. A timeout that is set in this call stays.
    pub fn remove(&mut self) {
        self.value.clear();
    }

    /// Says whether this is the call of a timeout; it has no rows then.
    pub const fn has_timed_out(&self) -> bool {
        self.timed_out
    }

    /// Sets the timeout to so long after the present processing time. Takes a `Duration` or a text such as `"5 minutes"`.
    ///
    /// # Errors
    /// [`GroupError::NotProcessingTime`] (E-GS-12) for an operator of another kind, [`GroupError::NotPositive`] or
    /// [`GroupError::Unreadable`] (E-GS-14) for what is no time ahead.
    pub fn set_timeout_duration<D>(&mut self, duration: D) -> Result<(), GroupError>
    where
        D: TryInto<Interval, Error: Into<GroupError>>,
    {
        if self.kind != GroupTimeout::ProcessingTime {
            return Err(GroupError::NotProcessingTime { kind: self.kind.name() });
        }
        let duration = duration.try_into().map_err(Into::into)?;
        if duration.as_micros() <= 0 {
            return Err(GroupError::NotPositive { given: duration.to_string() });
        }
        self.timeout = Some(later(self.times.now, duration));
        Ok(())
    }

    /// Sets the timeout to a point in event time. The watermark itself is legal.
    ///
    /// # Errors
    /// [`GroupError::NotEventTime`] (E-GS-13) for an operator of another kind, [`GroupError::NotPositive`] (E-GS-14) for a time at or
    /// before 1970, [`GroupError::BeforeWatermark`] (E-GS-16).
    pub fn set_timeout_timestamp(&mut self, timestamp: Timestamp) -> Result<(), GroupError> {
        self.set_timeout_timestamp_plus(timestamp, Interval::default())
    }

    /// As [`GroupState::set_timeout_timestamp`], with something added. Takes a `Duration` or a text such as `"5 seconds"`.
    ///
    /// # Errors
    /// Also [`GroupError::NegativeExtra`] (E-GS-15).
    pub fn set_timeout_timestamp_plus<D>(&mut self, timestamp: Timestamp, extra: D) -> Result<(), GroupError>
    where
        D: TryInto<Interval, Error: Into<GroupError>>,
    {
        if self.kind != GroupTimeout::EventTime {
            return Err(GroupError::NotEventTime { kind: self.kind.name() });
        }
        if timestamp.as_micros() <= 0 {
            return Err(GroupError::NotPositive { given: timestamp.to_string() });
        }
        let extra = extra.try_into().map_err(Into::into)?;
        if extra.as_micros() < 0 {
            return Err(GroupError::NegativeExtra { given: extra });
        }
        let watermark = self.watermark();
        if watermark == Timestamp::MAX {
            // The input has ended: there is no time left that could come to it.
            return Ok(());
        }
        let timeout = later(timestamp, extra);
        if timeout < watermark {
            return Err(GroupError::BeforeWatermark { timeout, watermark });
        }
        self.timeout = Some(timeout);
        Ok(())
    }

    /// The operator's watermark in milliseconds: 0 before the first, and never less. While timeouts fire it is the new one.
    ///
    /// # Errors
    /// [`GroupError::NoWatermark`] (E-GS-17) where nothing before the operator assigns event times.
    pub fn current_watermark_ms(&self) -> Result<i64, GroupError> {
        if self.timed { Ok(self.watermark().as_micros() / 1_000) } else { Err(GroupError::NoWatermark) }
    }

    /// The processing time in milliseconds, read once per frame.
    pub const fn current_processing_time_ms(&self) -> i64 {
        self.times.now.as_micros().div_euclid(1_000)
    }

    fn watermark(&self) -> Timestamp {
        self.times.watermark.map_or(Timestamp::default(), |watermark| watermark.max(Timestamp::default()))
    }
}

/// The first time that is behind a timeout.
const fn behind(timeout: Timestamp) -> Timestamp {
    Timestamp::from_micros(timeout.as_micros().saturating_add(1))
}

const fn later(time: Timestamp, by: Interval) -> Timestamp {
    Timestamp::from_micros(time.as_micros().saturating_add(by.as_micros()))
}
