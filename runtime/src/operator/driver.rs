//! Runs one operator: pulls its results, fills frames, minds marks.

use std::sync::Arc;
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::channel::{FRAME_RECORDS, Frame, Grammar, Mark};
use crate::error::BoxError;
use crate::id::Epoch;
use crate::metrics::OperatorMeter;
use crate::operator::Waiting;
use crate::operator::{Flow, Node, TaskContext, TaskError, Urgency};
use crate::record::Record;
use crate::state::OperatorState;
use crate::time::Timestamp;

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

    /// Hears which records come next, before the first of them is asked for, and says whether all their state is in
    /// memory. After [`Prepared::Missing`] what [`OperatorState::take_read`] asks for is loaded, and the same records are
    /// announced again. By default does nothing.
    ///
    /// # Errors
    /// As [`Operator::next`].
    fn prepare(&mut self, records: &[Record<Self::In>]) -> Result<Prepared, BoxError> {
        let _ = records;
        Ok(Prepared::Ready)
    }

    /// Hears that event time has come to a watermark, inclusive, that processing time has come to a moment, or that an epoch
    /// ends; then [`Operator::fire`] is asked until it has nothing more, and only then the mark goes on. What it sends at the end
    /// of an epoch belongs to that epoch, and so do its changes of state. By default does nothing.
    ///
    /// # Errors
    /// As [`Operator::next`].
    fn on_mark(&mut self, mark: Mark) -> Result<(), BoxError> {
        let _ = mark;
        Ok(())
    }

    /// Returns the next result of the mark that came: one timer's work at a time, so that a million due timers need no
    /// room for a million results.
    ///
    /// # Errors
    /// As [`Operator::next`].
    fn fire(&mut self) -> Result<Fired<Self::Out>, BoxError> {
        Ok(Fired::Done)
    }

    /// When it wants to hear of the processing time next, if at all. Asked after every frame.
    fn wake_at(&self) -> Option<Timestamp> {
        None
    }

    /// The operator's state, if it has one.
    fn state(&mut self) -> Option<&mut dyn OperatorState> {
        None
    }
}

/// Whether an operator can work on the records that were announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Prepared {
    /// Everything they need is in memory.
    Ready,
    /// Rows have to be read first.
    Missing,
}

/// What came of the mark that came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fired<T> {
    /// A result.
    Record(Record<T>),
    /// Rows have to be read first; then ask again.
    Missing,
    /// Nothing more is due.
    Done,
}

/// What pulling came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pulled {
    /// The frame is full.
    More,
    /// Rows have to be read first.
    Missing,
    /// Nothing more.
    Dry,
}

/// An operator with its successor.
pub struct Driver<O: Operator> {
    operator: O,
    name: String,
    /// A frame that is not begun: its state is not in memory yet.
    ahead: Vec<Record<O::In>>,
    input: FrameInput<O::In>,
    out: Vec<Record<O::Out>>,
    mark: Option<Mark>,
    /// The operator heard of the mark and is not through with it.
    firing: bool,
    /// Records went on since the last barrier.
    has_sent: bool,
    waiting: Option<Waiting>,
    /// Only ever set by a planted bug.
    freeze_late: Option<Epoch>,
    /// Rows that nobody needs yet.
    ahead_of_need: Option<Waiting>,
    grammar: Grammar,
    meter: OperatorMeter,
    /// Records of the frame in work, and how long user code has worked on them; only where that is counted.
    timed: (usize, Duration),
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
            ahead: Vec::new(),
            input: Vec::new().into(),
            out: Vec::new(),
            mark: None,
            firing: false,
            has_sent: false,
            waiting: None,
            freeze_late: None,
            ahead_of_need: None,
            grammar: Grammar::default(),
            meter: OperatorMeter::default(),
            timed: (0, Duration::ZERO),
            next,
        }
    }

    /// Counts what goes through it there.
    #[must_use]
    pub fn metered(mut self, meter: OperatorMeter) -> Self {
        self.meter = meter;
        self
    }

    fn fail(&self, source: BoxError, context: &TaskContext) -> TaskError {
        TaskError::of(&self.name, context.epoch(), source)
    }

    /// Runs the operator's code.
    fn call<R>(&mut self, epoch: Epoch, call: impl FnOnce(&mut O) -> Result<R, BoxError>) -> Result<R, TaskError> {
        let Self { operator, name, .. } = self;
        TaskError::catch(name, epoch, || call(operator))
    }

    fn run(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        loop {
            if !self.has_state(context)? {
                context.waits_for_rows();
                return Ok(Flow::Blocked);
            }
            if !self.ahead.is_empty() {
                let Self { operator, ahead, name, .. } = self;
                match TaskError::catch(name, context.epoch(), || operator.prepare(ahead))? {
                    Prepared::Ready => self.input = std::mem::take(&mut self.ahead).into(),
                    Prepared::Missing => {
                        self.order_read(context)?;
                        continue;
                    }
                }
            }
            let pulled = self.pull_timed(context)?;
            if pulled == Pulled::Missing {
                self.order_read(context)?;
            }
            if !self.out.is_empty() {
                let frame = std::mem::take(&mut self.out);
                self.has_sent = true;
                if pulled == Pulled::More {
                    self.out.reserve(FRAME_RECORDS);
                }
                self.meter.gave(frame.len());
                if self.next.offer(Frame::Records(frame), context)? == Flow::Blocked {
                    return Ok(Flow::Blocked);
                }
            }
            if pulled == Pulled::Dry {
                self.freeze_late();
                if let Some(at) = self.operator.wake_at() {
                    context.wake_at(at);
                }
                return self.pass_mark(context);
            }
        }
    }

    /// Fills a frame with results, and counts how long records take where that is asked for.
    fn pull_timed(&mut self, context: &TaskContext) -> Result<Pulled, TaskError> {
        if self.timed.0 == 0 {
            return self.pull(context.epoch());
        }
        let began = context.read_clock();
        let pulled = self.pull(context.epoch())?;
        let (records, spent) = self.timed;
        let spent = spent + context.read_clock().saturating_since(began);
        self.timed = (records, spent);
        if pulled == Pulled::Dry {
            self.meter.processed(records, spent);
            self.timed = (0, Duration::ZERO);
        }
        Ok(pulled)
    }

    /// Fills a frame with results.
    fn pull(&mut self, epoch: Epoch) -> Result<Pulled, TaskError> {
        let Self { operator, name, input, out, firing, .. } = self;
        TaskError::catch(name, epoch, || {
            while out.len() < FRAME_RECORDS {
                if *firing {
                    match operator.fire()? {
                        Fired::Record(record) => out.push(record),
                        Fired::Missing => return Ok(Pulled::Missing),
                        Fired::Done => {
                            *firing = false;
                            return Ok(Pulled::Dry);
                        }
                    }
                } else {
                    match operator.next(input)? {
                        Some(record) => out.push(record),
                        None => return Ok(Pulled::Dry),
                    }
                }
            }
            Ok(Pulled::More)
        })
    }

    fn order_read(&mut self, context: &mut TaskContext) -> Result<(), TaskError> {
        let read = self.operator.state().and_then(|state| state.take_read());
        // Without a question there would be no answer, and the task would turn on the spot for ever.
        let read = read.ok_or_else(|| self.fail("it misses state and does not say which: a bug".into(), context))?;
        self.waiting = Some(context.read(read, Urgency::Needed));
        Ok(())
    }

    /// Between frames: takes in rows that were read ahead, lets go what is too much, and reads ahead where there is room.
    fn rest(&mut self, context: &mut TaskContext) -> Result<(), TaskError> {
        let Some(state) = self.operator.state() else { return Ok(()) };
        let rows = self.ahead_of_need.as_ref().and_then(|waiting| Some((Arc::clone(&waiting.read), waiting.take()?)));
        if let Some((read, rows)) = rows {
            self.ahead_of_need = None;
            let taken = rows.map_err(BoxError::from).and_then(|rows| Ok(state.loaded_ahead(&read, rows)?));
            taken.map_err(|source| TaskError::Read { operator: self.name.clone(), epoch: context.epoch(), source })?;
        }
        // It encodes a few values, which is users' code.
        let rest = TaskError::catch(&self.name, context.epoch(), || Ok(state.rest()))?;
        if rest.again {
            context.look_again();
        }
        if rest.close_epoch {
            context.close_epoch();
        }
        if self.ahead_of_need.is_none()
            && let Some(read) = state.take_read_ahead()
        {
            self.ahead_of_need = Some(context.read(read, Urgency::Ahead));
        }
        Ok(())
    }

    /// Takes in rows that were asked for; says whether nothing is missing any more.
    fn has_state(&mut self, context: &TaskContext) -> Result<bool, TaskError> {
        let Some(waiting) = &self.waiting else { return Ok(true) };
        let Some(rows) = waiting.take() else { return Ok(false) };
        let failed = |source: BoxError| TaskError::Read { operator: self.name.clone(), epoch: context.epoch(), source };
        let rows = rows.map_err(|error| failed(error.into()))?;
        if let Some(state) = self.operator.state() {
            TaskError::catch(&self.name, context.epoch(), || Ok(state.loaded(&waiting.read, rows)))?
                .map_err(|error| failed(error.into()))?;
        }
        self.waiting = None;
        Ok(true)
    }

    /// Planted bug: freezes at the end of a frame instead of at the barrier before it.
    fn freeze_late(&mut self) {
        if let Some(epoch) = self.freeze_late.take()
            && let Some(state) = self.operator.state()
        {
            state.freeze(epoch);
        }
    }

    fn pass_mark(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        let Some(mut mark) = self.mark.take() else { return Ok(Flow::Ready) };
        if let Mark::Barrier(barrier) = &mut mark {
            barrier.had_data |= std::mem::take(&mut self.has_sent);
        }
        if let Mark::Barrier(barrier) = mark
            && let Some(state) = self.operator.state()
        {
            context.expect_delta(barrier.epoch);
            if planted(Canary::SnapshotAfterNextRecord) && !barrier.last {
                self.freeze_late = Some(barrier.epoch);
            } else {
                state.freeze(barrier.epoch);
            }
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
        self.rest(context)?;
        match frame.into_records() {
            Ok(records) => {
                self.meter.took(records.len());
                if self.meter.is_timing() {
                    self.timed.0 = records.len();
                }
                self.out.reserve(records.len());
                self.ahead = records;
            }
            Err(mark) => {
                self.mark = Some(mark);
                if let Mark::Watermark(time) = mark {
                    self.meter.reached(time);
                }
                if matches!(mark, Mark::Watermark(_) | Mark::ProcessingTime(_) | Mark::Barrier(_)) {
                    self.call(context.epoch(), |operator| operator.on_mark(mark))?;
                    self.firing = true;
                }
            }
        }
        self.run(context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        // Blocked behind it, or waiting for rows, or both: the next node has nothing to resume then and says so.
        match self.next.resume(context)? {
            Flow::Ready => self.run(context),
            Flow::Blocked => Ok(Flow::Blocked),
        }
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        self.freeze_late();
        self.rest(context)?;
        self.next.flush(context)
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        let mut left = 0;
        if self.operator.state().is_some() {
            let encode = |operator: &mut O| operator.state().map(|state| state.encode_slice(entries)).transpose();
            let slice = self.call(context.epoch(), |operator| Ok(encode(operator)?))?.unwrap_or_default();
            left = slice.left;
            for (epoch, delta) in slice.done {
                context.deliver_delta(epoch, delta);
            }
        }
        Ok(left + self.next.encode_slice(entries, context)?)
    }
}
