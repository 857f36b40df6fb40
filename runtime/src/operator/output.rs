//! The last node of a chain that goes on in another task.

use crate::channel::{Frame, Router, Sent};
use crate::metrics::OutputMeter;
use crate::operator::{Flow, Node, TaskContext, TaskError};

/// Hands frames to a router.
#[derive(Debug)]
pub struct Output<T> {
    router: Router<T>,
    meter: OutputMeter,
}

impl<T> Output<T> {
    /// Wraps a router. How long it waits for room is counted in `meter`.
    pub const fn new(router: Router<T>, meter: OutputMeter) -> Self {
        Self { router, meter }
    }

    /// What is sent from now on is sent now, where somebody wants to know.
    fn times(&mut self, context: &TaskContext) {
        if self.meter.is_timing() {
            self.router.sends_at(context.read_clock());
        }
    }

    fn flow(&self, sent: Sent, context: &TaskContext) -> Flow {
        self.meter.note(sent == Sent::Full, context.turn_time());
        match sent {
            Sent::Yes => Flow::Ready,
            Sent::Full => Flow::Blocked,
        }
    }
}

impl<T> Node<T> for Output<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        // Every task has the processing time from its own clock.
        if matches!(frame, Frame::ProcessingTime(_)) {
            return Ok(Flow::Ready);
        }
        self.router.takes_from(context.taken());
        self.times(context);
        let sent = self.router.offer(frame)?;
        Ok(self.flow(sent, context))
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.times(context);
        let sent = self.router.resume()?;
        Ok(self.flow(sent, context))
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.times(context);
        let sent = self.router.flush()?;
        Ok(self.flow(sent, context))
    }
}
