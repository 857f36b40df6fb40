//! Event times and watermarks as a test wants them.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::channel::Frame;
use crate::checkpoint::StateDecl;
use crate::graph::{EventTimeDecl, OperatorVertex};
use crate::operator::{AnyNode, Flow, Node, OpenContext, TaskContext, TaskError};
use crate::record::Record;
use crate::time::Timestamp;

/// What a test says of a record: its event time, and the watermark behind it, if one comes there.
pub type Timing = (Timestamp, Option<Timestamp>);

type Say<T> = Arc<dyn Fn(&T) -> Timing + Send + Sync>;

/// An operator that gives records event times and sends watermarks between them, both read off the record itself: so they are the
/// same after a restart, however frames are cut. A watermark that does not rise is left out.
pub struct ScriptedTime<T> {
    say: Say<T>,
    record: PhantomData<fn(T)>,
}

impl<T> ScriptedTime<T> {
    /// Makes it of what is said of each record.
    pub fn new(say: impl Fn(&T) -> Timing + Send + Sync + 'static) -> Self {
        Self { say: Arc::new(say), record: PhantomData }
    }
}

impl<T> fmt::Debug for ScriptedTime<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedTime")
    }
}

impl<T: Send + 'static> OperatorVertex for ScriptedTime<T> {
    fn label(&self) -> &str {
        "scripted_time"
    }

    fn states(&self) -> Vec<StateDecl> {
        Vec::new()
    }

    fn event_time(&self) -> Option<EventTimeDecl> {
        Some(EventTimeDecl { idle_after: None })
    }

    fn build(&self, open: &OpenContext, next: AnyNode) -> Result<AnyNode, TaskError> {
        let mismatch = |_| TaskError::Build { operator: open.name.clone() };
        let next = *next.downcast::<Box<dyn Node<T>>>().map_err(mismatch)?;
        let say = Arc::clone(&self.say);
        let node: Box<dyn Node<T>> =
            Box::new(TimedNode { say, next, pending: VecDeque::new(), watermark: Timestamp::MIN });
        Ok(Box::new(node))
    }
}

struct TimedNode<T> {
    say: Say<T>,
    next: Box<dyn Node<T>>,
    pending: VecDeque<Frame<T>>,
    watermark: Timestamp,
}

impl<T> TimedNode<T> {
    fn plan(&mut self, records: Vec<Record<T>>) {
        let mut run = Vec::new();
        for mut record in records {
            let (time, watermark) = (self.say)(&record.value);
            record.time = time;
            run.push(record);
            if let Some(watermark) = watermark.filter(|watermark| *watermark > self.watermark) {
                self.watermark = watermark;
                self.pending.push_back(Frame::Records(std::mem::take(&mut run)));
                self.pending.push_back(Frame::Watermark(watermark));
            }
        }
        if !run.is_empty() {
            self.pending.push_back(Frame::Records(run));
        }
    }

    fn send(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        while let Some(frame) = self.pending.pop_front() {
            if self.next.offer(frame, context)? == Flow::Blocked {
                return Ok(Flow::Blocked);
            }
        }
        Ok(Flow::Ready)
    }
}

impl<T> Node<T> for TimedNode<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame {
            Frame::Records(records) => self.plan(records),
            // The source's own: only the final one counts here.
            Frame::Watermark(time) if time <= self.watermark => return Ok(Flow::Ready),
            frame => self.pending.push_back(frame),
        }
        self.send(context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match self.next.resume(context)? {
            Flow::Ready => self.send(context),
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
