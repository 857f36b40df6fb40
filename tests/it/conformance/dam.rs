//! A vertex that lets frames through only as long as it is told to, and makes its task wait meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use millstream::runtime::channel::Frame;
use millstream::runtime::checkpoint::StateDecl;
use millstream::runtime::graph::OperatorVertex;
use millstream::runtime::operator::{AnyNode, Flow, Node, OpenContext, TaskContext, TaskError};

use super::drive::Event;

/// What it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Everything,
    /// Barriers, and what is behind them.
    Barriers,
}

/// Holds frames back as long as it is shut.
#[derive(Clone)]
pub(super) struct Dam {
    pub(super) holds: Holds,
    pub(super) is_shut: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Dam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dam")
    }
}

impl OperatorVertex for Dam {
    fn label(&self) -> &str {
        "dam"
    }

    fn states(&self) -> Vec<StateDecl> {
        Vec::new()
    }

    fn build(&self, _open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let next = *next.downcast().unwrap();
        let node: Box<dyn Node<Event>> = Box::new(Held { dam: self.clone(), held: VecDeque::new(), next });
        Ok(Box::new(node))
    }
}

struct Held {
    dam: Dam,
    held: VecDeque<Frame<Event>>,
    next: Box<dyn Node<Event>>,
}

impl Held {
    fn pass(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        while let Some(frame) = self.held.front() {
            let stays = self.dam.holds == Holds::Everything || matches!(frame, Frame::Barrier(_));
            if stays && (self.dam.is_shut)() {
                // Nobody else would wake the task: its outputs have room.
                context.control().bell.ring();
                return Ok(Flow::Blocked);
            }
            let Some(frame) = self.held.pop_front() else { break };
            if self.next.offer(frame, context)? == Flow::Blocked {
                return Ok(Flow::Blocked);
            }
        }
        Ok(Flow::Ready)
    }
}

impl Node<Event> for Held {
    fn offer(&mut self, frame: Frame<Event>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.held.push_back(frame);
        self.pass(context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match self.next.resume(context)? {
            Flow::Ready => self.pass(context),
            Flow::Blocked => Ok(Flow::Blocked),
        }
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.flush(context)
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.next.encode_slice(entries, context)
    }
}
