//! Runs one operator: pulls its results, fills frames, minds marks.

use crate::channel::{FRAME_RECORDS, Frame, Grammar, Mark};
use crate::error::BoxError;
use crate::operator::{Flow, Node, TaskContext, TaskError};
use crate::record::Record;
use crate::state::Snapshot;

/// The records of one frame, taken one by one.
#[derive(Debug)]
pub struct FrameInput<T> {
    records: std::vec::IntoIter<Record<T>>,
}

impl<T> FrameInput<T> {
    /// Takes the next record.
    #[inline]
    pub fn pop(&mut self) -> Option<Record<T>> {
        self.records.next()
    }
}

impl<T> From<Vec<Record<T>>> for FrameInput<T> {
    fn from(records: Vec<Record<T>>) -> Self {
        Self { records: records.into_iter() }
    }
}

/// Turns records into records, one result at a time.
///
/// Every subtask and every attempt gets an operator of its own, made from configuration: what must survive a restart goes
/// through state, never through a field.
pub trait Operator: 'static {
    /// Records that come in.
    type In: 'static;
    /// Records that go out.
    type Out: 'static;

    /// Returns the next result: takes from `input` as long as it has none. Nothing when the input is used up and no
    /// result is left over.
    ///
    /// # Errors
    /// Whatever user code returns; it fails the attempt.
    fn next(&mut self, input: &mut FrameInput<Self::In>) -> Result<Option<Record<Self::Out>>, BoxError>;

    /// Hears which records come next, before the first of them is asked for. By default does nothing.
    fn prepare(&mut self, records: &[Record<Self::In>]) {
        let _ = records;
    }

    /// The operator's state, if it has one.
    fn state(&mut self) -> Option<&mut dyn Snapshot> {
        None
    }
}

/// An operator with its successor.
pub struct Driver<O: Operator> {
    operator: O,
    name: String,
    input: FrameInput<O::In>,
    out: Vec<Record<O::Out>>,
    mark: Option<Mark>,
    grammar: Grammar,
    next: Box<dyn Node<O::Out>>,
}

impl<O: Operator> std::fmt::Debug for Driver<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<O: Operator> Driver<O> {
    /// Puts an operator in front of its successor.
    pub fn new(name: impl Into<String>, operator: O, next: Box<dyn Node<O::Out>>) -> Self {
        Self {
            operator,
            name: name.into(),
            input: Vec::new().into(),
            out: Vec::new(),
            mark: None,
            grammar: Grammar::default(),
            next,
        }
    }

    fn fail(&self, source: BoxError, context: &TaskContext) -> TaskError {
        TaskError::Operator { operator: self.name.clone(), epoch: context.epoch(), source }
    }

    fn run(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        loop {
            let mut more = true;
            while self.out.len() < FRAME_RECORDS {
                match self.operator.next(&mut self.input) {
                    Ok(Some(record)) => self.out.push(record),
                    Ok(None) => {
                        more = false;
                        break;
                    }
                    Err(source) => return Err(self.fail(source, context)),
                }
            }
            if !self.out.is_empty() {
                let frame = std::mem::take(&mut self.out);
                if more {
                    self.out.reserve(FRAME_RECORDS);
                }
                if self.next.offer(Frame::Records(frame), context)? == Flow::Blocked {
                    return Ok(Flow::Blocked);
                }
            }
            if !more {
                return self.pass_mark(context);
            }
        }
    }

    fn pass_mark(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let Some(mark) = self.mark.take() else { return Ok(Flow::Ready) };
        if let Mark::Barrier(barrier) = mark
            && let Some(state) = self.operator.state()
        {
            state.freeze(barrier.epoch);
            context.expect_delta(barrier.epoch);
        }
        self.next.offer(mark.frame(), context)
    }
}

impl<O: Operator> Node<O::In> for Driver<O> {
    fn offer(&mut self, frame: Frame<O::In>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        if cfg!(debug_assertions) {
            let checked = self.grammar.check(&frame);
            checked.map_err(|source| TaskError::Illegal { operator: self.name.clone(), source })?;
        }
        match frame.into_records() {
            Ok(records) => {
                self.out.reserve(records.len());
                self.operator.prepare(&records);
                self.input = records.into();
            }
            Err(mark) => self.mark = Some(mark),
        }
        self.run(context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match self.next.resume(context)? {
            Flow::Ready => self.run(context),
            Flow::Blocked => Ok(Flow::Blocked),
        }
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.next.flush(context)
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        let mut left = 0;
        if let Some(state) = self.operator.state() {
            let sliced = state.encode_slice(entries);
            match sliced {
                Ok(slice) => {
                    left = slice.left;
                    for (epoch, delta) in slice.done {
                        context.deliver_delta(epoch, delta);
                    }
                }
                Err(source) => return Err(self.fail(source.into(), context)),
            }
        }
        Ok(left + self.next.encode_slice(entries, context)?)
    }
}
