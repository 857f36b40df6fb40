//! The first link of a task that is fed by other tasks.

use crate::channel::{Frame, Gate};
use crate::id::ExecutionMode;
use crate::operator::{Flow, Head, Node, Polled, TaskContext, TaskControl, TaskError};
use crate::time::Timestamp;

/// A gate with the chain behind it.
pub struct InputHead<T> {
    gate: Gate<T>,
    chain: Box<dyn Node<T>>,
    control: TaskControl,
    /// A barrier or the end is inside the chain.
    passing: Passing,
    /// The last barrier has passed: only the end follows.
    last: bool,
    /// What went into the chain last was a mark of processing time.
    was_time: bool,
    /// When the first barrier of the epoch that is closing came.
    aligns_since: Option<Timestamp>,
    /// A barrier that waits for timers which fire in front of it.
    barrier: Option<Frame<T>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    Nothing,
    Barrier,
    End,
}

impl<T> std::fmt::Debug for InputHead<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InputHead").field("passing", &self.passing).finish_non_exhaustive()
    }
}

impl<T> InputHead<T> {
    /// Puts a gate in front of a chain.
    pub fn new(gate: Gate<T>, chain: Box<dyn Node<T>>, control: TaskControl) -> Self {
        Self {
            gate,
            chain,
            control,
            passing: Passing::Nothing,
            last: false,
            was_time: false,
            aligns_since: None,
            barrier: None,
        }
    }

    fn next(&mut self, context: &TaskContext) -> Result<Option<Frame<T>>, TaskError> {
        let frame = self.gate.poll()?;
        if self.aligns_since.is_none() && self.gate.is_aligning() {
            self.aligns_since = Some(context.turn_time());
        }
        Ok(frame)
    }

    fn passed(&mut self, flow: Flow, context: &mut TaskContext) -> Polled {
        if flow == Flow::Blocked {
            return Polled::Blocked;
        }
        match std::mem::replace(&mut self.passing, Passing::Nothing) {
            Passing::Nothing => Polled::Worked,
            Passing::Barrier => {
                context.barrier_passed();
                Polled::Worked
            }
            Passing::End => Polled::Ended,
        }
    }
}

impl<T> Head for InputHead<T> {
    fn poll(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
        // In turns: a timer that is always due must not keep out the barrier that its changes wait for.
        let waited = self.barrier.take();
        let timed = waited.is_some();
        let mut frame = if std::mem::take(&mut self.was_time) && !timed { self.next(context)? } else { waited };
        let in_batch = context.mode() == ExecutionMode::MicroBatch;
        if frame.is_none()
            && !self.last
            && !in_batch
            && let Some(now) = context.take_due()
        {
            self.was_time = true;
            context.takes_from(Timestamp::MIN);
            let flow = self.chain.offer(Frame::ProcessingTime(now), context)?;
            return Ok(self.passed(flow, context));
        }
        if frame.is_none() {
            frame = self.next(context)?;
        }
        let Some(frame) = frame else {
            return Ok(match self.chain.flush(context)? {
                Flow::Ready => Polled::Idle,
                Flow::Blocked => Polled::Blocked,
            });
        };
        if let Frame::Barrier(barrier) = &frame
            && in_batch
            && !timed
            && !barrier.last
            && let Some(now) = context.take_due()
        {
            self.barrier = Some(frame);
            let flow = self.chain.offer(Frame::ProcessingTime(now), context)?;
            return Ok(self.passed(flow, context));
        }
        let mut taken = Timestamp::MIN;
        match &frame {
            Frame::Records(records) => {
                self.control.count_records(records.len());
                taken = self.gate.oldest();
                self.gate.note_wait(context.turn_time());
            }
            Frame::Barrier(barrier) => {
                self.last = barrier.last;
                if self.last {
                    context.end_time();
                }
                let came = self.aligns_since.take().unwrap_or(context.turn_time());
                context.begin_part(*barrier, came);
                self.passing = Passing::Barrier;
            }
            Frame::End => self.passing = Passing::End,
            _ => {}
        }
        context.takes_from(taken);
        let flow = self.chain.offer(frame, context)?;
        Ok(self.passed(flow, context))
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
        let flow = self.chain.resume(context)?;
        Ok(self.passed(flow, context))
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.chain.encode_slice(entries, context)
    }

    fn is_aligning(&self) -> bool {
        self.gate.is_aligning()
    }
}
