//! The last node of a chain that goes on in another task.

use crate::channel::{Frame, Router, Sent};
use crate::operator::{Flow, Node, TaskContext, TaskError};

/// Hands frames to a router.
#[derive(Debug)]
pub struct Output<T> {
    router: Router<T>,
}

impl<T> Output<T> {
    /// Wraps a router.
    pub const fn new(router: Router<T>) -> Self {
        Self { router }
    }
}

const fn flow(sent: Sent) -> Flow {
    match sent {
        Sent::Yes => Flow::Ready,
        Sent::Full => Flow::Blocked,
    }
}

impl<T> Node<T> for Output<T> {
    fn offer(&mut self, frame: Frame<T>, _context: &mut TaskContext) -> Result<Flow, TaskError> {
        // Every task has the processing time from its own clock.
        if matches!(frame, Frame::ProcessingTime(_)) {
            return Ok(Flow::Ready);
        }
        Ok(flow(self.router.offer(frame)?))
    }

    fn resume(&mut self, _context: &mut TaskContext) -> Result<Flow, TaskError> {
        Ok(flow(self.router.resume()?))
    }

    fn flush(&mut self, _context: &mut TaskContext) -> Result<Flow, TaskError> {
        Ok(flow(self.router.flush()?))
    }
}
