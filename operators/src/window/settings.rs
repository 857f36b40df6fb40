//! What the user says of windows, and what follows from it for their results.

use std::time::Duration;

use millstream_runtime::operator::OutputMode;

use crate::failing::FailingRecords;
use crate::keyed_stream::LateRecords;
use crate::window::{TimeWindow, Trigger};

/// When results go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Once, when the window is final.
    Final,
    /// By a trigger.
    Trigger(Trigger),
    /// All of them at the end of an epoch; nothing is late, and nothing is forgotten.
    Table,
}

impl Rule {
    pub(super) fn of(mode: OutputMode, trigger: Option<Trigger>) -> Self {
        match (mode, trigger) {
            (OutputMode::Complete, Some(trigger)) if trigger.only_full => Self::Trigger(trigger),
            (OutputMode::Complete, _) => Self::Table,
            (_, Some(trigger)) => Self::Trigger(trigger),
            (OutputMode::Append, None) => Self::Final,
            (OutputMode::Update, None) => Self::Trigger(Trigger::count(1)),
        }
    }
}

/// What makes a result of a window.
pub(super) type MakeRow<K, O, R> = fn(K, TimeWindow, O) -> R;

/// What the user says of windows besides what they are.
pub(super) struct Settings<T> {
    pub(super) lateness: Duration,
    pub(super) trigger: Option<Trigger>,
    /// Whether windows that end at or before 1970 are taken.
    pub(super) before_1970: bool,
    /// Whether there is one key only, whose row is there from the start.
    pub(super) is_unkeyed: bool,
    pub(super) late: LateRecords<T>,
    pub(super) failing: FailingRecords<T>,
}

impl<T> Clone for Settings<T> {
    fn clone(&self) -> Self {
        Self { late: self.late.clone(), failing: self.failing.clone(), ..*self }
    }
}
