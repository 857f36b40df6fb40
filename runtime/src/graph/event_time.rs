//! The vertex that gives records their event time.

use std::fmt;
use std::time::Duration;

use crate::checkpoint::StateDecl;
use crate::graph::OperatorVertex;
use crate::operator::{AnyNode, EventTime, Node, OpenContext, TaskError};
use crate::time::Timestamp;
use crate::watermark::WatermarkStrategy;

/// Gives records of type `T` their event time, and the stream its watermark.
pub struct EventTimeOf<T, F> {
    time: F,
    strategy: WatermarkStrategy<T>,
}

impl<T, F> fmt::Debug for EventTimeOf<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTimeOf").field("strategy", &self.strategy).finish_non_exhaustive()
    }
}

impl<T, F> EventTimeOf<T, F> {
    /// Makes a vertex; `time` gives a record's event time from the record and the time it came with, [`Timestamp::MIN`] for none.
    pub const fn new(time: F, strategy: WatermarkStrategy<T>) -> Self {
        Self { time, strategy }
    }
}

impl<T: 'static, F> OperatorVertex for EventTimeOf<T, F>
where
    F: Fn(&T, Timestamp) -> Timestamp + Clone + Send + Sync + 'static,
{
    fn label(&self) -> &str {
        "event_time"
    }

    fn states(&self) -> Vec<StateDecl> {
        // A split's watermark is saved with its position.
        Vec::new()
    }

    fn event_time(&self) -> Option<EventTimeDecl> {
        Some(EventTimeDecl { idle_after: self.strategy.idle_time() })
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let mismatch = |_| TaskError::Build { operator: open.name.clone() };
        let next = next.downcast::<Box<dyn Node<T>>>().map_err(mismatch)?;
        let node: Box<dyn Node<T>> = Box::new(EventTime::new(open, self.time.clone(), self.strategy.clone(), *next));
        Ok(Box::new(node))
    }
}

/// What the plan has to know of a vertex that assigns event times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventTimeDecl {
    /// After which idle time it leaves a split out; nothing for never.
    pub idle_after: Option<Duration>,
}
