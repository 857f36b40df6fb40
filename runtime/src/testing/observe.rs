//! Shows what event time an operator sees.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use crate::channel::{Frame, Mark};
use crate::checkpoint::StateDecl;
use crate::graph::OperatorVertex;
use crate::operator::{AnyNode, Flow, Node, OpenContext, TaskContext, TaskError};
use crate::time::Timestamp;

/// A record as an operator at its place would see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Observed<T> {
    /// The record.
    pub value: T,
    /// Its event time.
    pub time: Timestamp,
    /// The watermark in force when it came; nothing before the first.
    pub watermark: Option<Timestamp>,
}

impl<T> Observed<T> {
    /// Whether it came at or behind the watermark. A record without event time never does.
    pub fn is_late(&self) -> bool {
        self.time > Timestamp::MIN && self.watermark.is_some_and(|watermark| self.time <= watermark)
    }
}

/// A vertex that turns every record into an [`Observed`]. It keeps no state: after a restart it knows what came since.
#[derive(Debug)]
pub struct ObserveOf<T>(PhantomData<fn(T)>);

impl<T> Default for ObserveOf<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: 'static> OperatorVertex for ObserveOf<T> {
    fn label(&self) -> &str {
        "observe"
    }

    fn states(&self) -> Vec<StateDecl> {
        Vec::new()
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let mismatch = |_| TaskError::Build { operator: open.name.clone() };
        let next = *next.downcast::<Box<dyn Node<Observed<T>>>>().map_err(mismatch)?;
        let node: Box<dyn Node<T>> = Box::new(Observe { watermark: None, next });
        Ok(Box::new(node))
    }
}

struct Observe<T> {
    watermark: Option<Timestamp>,
    next: Box<dyn Node<Observed<T>>>,
}

impl<T> Node<T> for Observe<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let watermark = self.watermark;
        let frame = match frame.into_records() {
            Ok(records) => {
                let observed = records.into_iter().map(|record| {
                    let time = record.time;
                    record.map(|value| Observed { value, time, watermark })
                });
                Frame::Records(observed.collect())
            }
            Err(mark) => {
                if let Mark::Watermark(time) = mark {
                    self.watermark = Some(time);
                }
                mark.frame()
            }
        };
        self.next.offer(frame, context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.resume(context)
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.flush(context)
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.next.encode_slice(entries, context)
    }
}
