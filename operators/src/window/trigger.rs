//! When the result of a window goes out.

use std::time::Duration;

use crate::window::WindowError;
use crate::window::error::micros;

/// When results of a window go out before it is final, and what of them.
///
/// Without a trigger the pipeline's [output mode](crate::OutputMode) decides: in *append* a window's one result goes out when it is
/// final, that is when the watermark has come to its end and the allowed lateness; in *update* the new result goes out with every
/// record; in *complete* all results go out at the end of every epoch that had data, whatever the trigger.
///
/// With a trigger, in *append* and *update*, a result goes out
/// - when the trigger says so, and the window has changed since the last time;
/// - when the watermark comes to the window's end, if it has changed since the last time;
/// - with every record that comes later than that, within the allowed lateness.
///
/// A result holds all records of the window so far; with [`Trigger::discarding`] only those since the last result, so that results of one
/// window add up. In *append* a result never changes, so there a trigger that speaks before the end must be discarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Trigger {
    pub(super) every: Option<Duration>,
    pub(super) count: Option<u64>,
    pub(super) epoch: bool,
    pub(super) discarding: bool,
    /// A window that is not full gives no result.
    pub(super) only_full: bool,
}

impl Trigger {
    /// Only when the watermark has come to the end of the window, and with each record that is late but allowed.
    pub const fn watermark() -> Self {
        Self { every: None, count: None, epoch: false, discarding: false, only_full: false }
    }

    /// So long after a window changed, by the processing time: whole microseconds, above zero. A window that does not change is
    /// not sent again.
    pub const fn every(interval: Duration) -> Self {
        Self::watermark().or_every(interval)
    }

    /// With every so many records of the window, at least 1.
    pub const fn count(records: u64) -> Self {
        Self::watermark().or_count(records)
    }

    /// At the end of every epoch in which the window changed: one result per window and epoch.
    pub const fn epoch() -> Self {
        Self { epoch: true, ..Self::watermark() }
    }

    /// Also so long after a window changed; see [`Trigger::every`].
    pub const fn or_every(self, interval: Duration) -> Self {
        Self { every: Some(interval), ..self }
    }

    /// Also with every so many records; see [`Trigger::count`].
    pub const fn or_count(self, records: u64) -> Self {
        Self { count: Some(records), ..self }
    }

    /// Lets each result hold only the records since the one before.
    pub const fn discarding(self) -> Self {
        Self { discarding: true, ..self }
    }

    /// That of a window of so many records.
    pub(super) const fn full(records: u64) -> Self {
        Self { only_full: true, ..Self::count(records).discarding() }
    }

    /// Whether results may go out before the watermark has come to the end.
    pub(super) const fn is_early(&self) -> bool {
        self.every.is_some() || self.count.is_some() || self.epoch
    }

    pub(super) fn check(&self) -> Result<(), WindowError> {
        if let Some(given) = self.every
            && micros(given).is_none_or(|micros| micros <= 0)
        {
            let range = "whole microseconds, above zero and within the range of time";
            return Err(WindowError::Trigger { given: format!("every {given:?}"), range });
        }
        if self.count == Some(0) {
            return Err(WindowError::Trigger { given: "every 0 records".to_owned(), range: "at least 1" });
        }
        Ok(())
    }
}
