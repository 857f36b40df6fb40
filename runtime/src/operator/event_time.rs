//! Assigns event times, and puts watermarks between the records.
//!
//! In the task of a source there is a watermark per split, and the minimum over them goes out; elsewhere the splits are not known
//! any more, and there is one for the subtask. Watermarks from upstream are replaced, but for the final one.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::channel::{Frame, Grammar, Mark};
use crate::id::ExecutionMode;
use crate::metrics::OperatorMeter;
use crate::operator::{Flow, Node, OpenContext, Splits, TaskContext, TaskError};
use crate::record::Record;
use crate::time::Timestamp;
use crate::watermark::{Coalescer, Progress, WatermarkStrategy};

/// Assigns event times with its successor behind it.
///
/// A mark goes out at most once per frame, behind its records, and only if it says something new; *active* goes before the
/// records that woke the stream. What is restored goes out before the first record.
pub struct EventTime<T, F> {
    name: String,
    time: F,
    strategy: WatermarkStrategy<T>,
    /// Which of the task's operators of this kind it is.
    number: usize,
    /// One input per split, or one in all. Made at the first contact with the task.
    inputs: Option<Inputs>,
    /// What is on its way to the successor.
    passing: VecDeque<Frame<T>>,
    grammar: Grammar,
    meter: OperatorMeter,
    next: Box<dyn Node<T>>,
}

#[derive(Debug)]
struct Inputs {
    coalescer: Coalescer,
    /// How many splits there are, if they are told apart.
    splits: Option<usize>,
    /// The last change of the splits' status that was looked at.
    seen: Option<u64>,
    /// By input, what the records of the open micro-batch raise; told with the next one.
    held: Vec<Timestamp>,
}

impl<T, F> fmt::Debug for EventTime<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventTime").field("name", &self.name).field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

impl Inputs {
    /// Begins with what was restored.
    fn restored(splits: Option<&Splits>, number: usize) -> Self {
        let Some(splits) = splits else {
            return Self { coalescer: Coalescer::new(1), splits: None, seen: None, held: Vec::new() };
        };
        let count = splits.status().len();
        let mut coalescer = Coalescer::new(count);
        for split in 0..count {
            if !planted(Canary::WatermarkNotSaved) {
                coalescer.note_watermark(split, splits.watermark(split, number));
            }
        }
        Self { coalescer, splits: Some(count), seen: None, held: Vec::new() }
    }

    /// Which input a record belongs to. The first record that does not name its split makes one input of all.
    fn input_of(&mut self, hash: u32) -> usize {
        let Some(count) = self.splits else { return 0 };
        match hash.checked_sub(1).map(|split| split as usize) {
            Some(split) if split < count => split,
            _ => {
                let held = self.held.iter().copied().max().into_iter().collect();
                *self = Self { coalescer: self.coalescer.merged(), splits: None, seen: None, held };
                0
            }
        }
    }

    /// Takes note of an input's watermark, for the open epoch or for the one after it. Gives what is known of the input.
    fn note_watermark(&mut self, input: usize, watermark: Timestamp, mode: ExecutionMode) -> Timestamp {
        if mode == ExecutionMode::Continuous {
            self.coalescer.note_watermark(input, watermark);
            return self.coalescer.input(input);
        }
        if self.held.len() <= input {
            self.held.resize(input + 1, Timestamp::MIN);
        }
        let known = self.coalescer.input(input);
        self.held.get_mut(input).map_or(known, |held| {
            *held = watermark.max(*held);
            known.max(*held)
        })
    }

    /// Takes note of what was held, and says whether the watermark rises by it.
    fn release(&mut self) -> bool {
        for (input, watermark) in self.held.drain(..).enumerate() {
            self.coalescer.note_watermark(input, watermark);
        }
        let mut ahead = self.coalescer.clone();
        ahead.advance().any(|progress| matches!(progress, Progress::Watermark(_)))
    }

    /// Looks which splits have ended or are idle.
    fn look(&mut self, splits: &Splits, is_idle: impl Fn(Duration) -> bool) {
        if self.seen == Some(splits.changes()) {
            return;
        }
        self.seen = Some(splits.changes());
        if self.splits.is_none() {
            let mut open = splits.status().iter().filter(|split| !split.ended);
            return self.coalescer.note_idle(0, open.all(|split| is_idle(split.idle_for)));
        }
        for (number, split) in splits.status().iter().enumerate() {
            self.coalescer.note_idle(number, is_idle(split.idle_for));
            if split.ended {
                self.coalescer.note_watermark(number, Timestamp::MAX);
            }
        }
    }
}

impl<T, F: Fn(&T, Timestamp) -> Timestamp> EventTime<T, F> {
    /// Puts it in front of its successor. `time` gives a record's event time from the record and the time it came with;
    /// [`Timestamp::MIN`] for none.
    pub fn new(open: &OpenContext, time: F, strategy: WatermarkStrategy<T>, next: Box<dyn Node<T>>) -> Self {
        Self {
            name: open.name.clone(),
            time,
            strategy,
            number: open.event_time,
            inputs: None,
            passing: VecDeque::new(),
            grammar: Grammar::default(),
            meter: open.meter(),
            next,
        }
    }

    fn inputs<'a>(inputs: &'a mut Option<Inputs>, number: usize, context: &TaskContext) -> &'a mut Inputs {
        inputs.get_or_insert_with(|| Inputs::restored(context.splits(), number))
    }

    /// Gives every record its time, and takes note of what the frame says about its splits.
    fn assign(&mut self, mut records: Vec<Record<T>>, context: &mut TaskContext) {
        let inputs = Self::inputs(&mut self.inputs, self.number, context);
        let mut pull = self.strategy.pull(context.now());
        // Records of a split come together, so its watermark is worked out once per run of them.
        for run in records.chunk_by_mut(|left, right| left.hash == right.hash) {
            let Some(hash) = run.first().map(|record| record.hash) else { continue };
            let input = inputs.input_of(hash);
            let mut highest = Timestamp::MIN;
            for record in run {
                record.time = (self.time)(&record.value, record.time);
                highest = highest.max(pull.of(&record.value, record.time));
            }
            let known = inputs.note_watermark(input, pull.watermark(highest), context.mode());
            inputs.coalescer.note_idle(input, false);
            if inputs.splits.is_some()
                && let Some(splits) = context.splits_mut()
            {
                splits.note_watermark(input, self.number, known);
            }
        }
        if pull.refused() > 0 {
            context.control().count_refused_pulls(pull.refused());
        }
        if inputs.coalescer.wake() {
            self.passing.push_back(Frame::Active);
        }
        self.passing.push_back(Frame::Records(records));
        self.tell_at_once(context);
    }

    fn mark(&mut self, mark: Mark, context: &mut TaskContext) {
        let inputs = Self::inputs(&mut self.inputs, self.number, context);
        match mark {
            Mark::Watermark(Timestamp::MAX) => inputs.coalescer.note_end(),
            // Replaced by what is said here.
            Mark::Watermark(_) => return,
            // In the task of a source the splits themselves say it.
            Mark::Idle | Mark::Active => {
                if context.splits().is_none() && self.strategy.idle_time().is_some() {
                    inputs.coalescer.note_idle(0, mark == Mark::Idle);
                }
            }
            Mark::Barrier(_) if context.mode() == ExecutionMode::MicroBatch => return self.close_batch(mark, context),
            Mark::ProcessingTime(_) | Mark::Barrier(_) | Mark::End => return self.passing.push_back(mark.frame()),
        }
        self.tell_at_once(context);
    }

    /// In front of the barrier of a micro-batch: what the batches before have raised. What this one has raised comes with the next.
    fn close_batch(&mut self, barrier: Mark, context: &mut TaskContext) {
        self.tell(context);
        self.passing.push_back(barrier.frame());
        if Self::inputs(&mut self.inputs, self.number, context).release() {
            context.want_epoch();
        }
    }

    /// Says what changed, unless that waits for the barrier.
    fn tell_at_once(&mut self, context: &TaskContext) {
        if context.mode() == ExecutionMode::Continuous {
            self.tell(context);
        }
    }

    /// Says what changed.
    fn tell(&mut self, context: &TaskContext) {
        let inputs = Self::inputs(&mut self.inputs, self.number, context);
        if let Some(splits) = context.splits() {
            let idle_after = self.strategy.idle_time();
            inputs.look(splits, |idle_for| idle_after.is_some_and(|after| idle_for >= after));
        }
        self.passing.extend(inputs.coalescer.advance().map(|progress| match progress {
            Progress::Watermark(time) => {
                self.meter.reached(time);
                Frame::Watermark(time)
            }
            Progress::Idle => Frame::Idle,
            Progress::Active => Frame::Active,
        }));
    }

    fn pass(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        while let Some(frame) = self.passing.pop_front() {
            if self.next.offer(frame, context)? == Flow::Blocked {
                return Ok(Flow::Blocked);
            }
        }
        Ok(Flow::Ready)
    }
}

impl<T, F: Fn(&T, Timestamp) -> Timestamp> Node<T> for EventTime<T, F> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        if cfg!(debug_assertions) {
            let checked = self.grammar.check(&frame);
            checked.map_err(|source| TaskError::Illegal { operator: self.name.clone(), source })?;
        }
        if self.inputs.is_none() {
            // What is restored goes before everything else.
            self.tell_at_once(context);
        }
        match frame.into_records() {
            Ok(records) => {
                // One for one, so what it took it has given.
                self.meter.took(records.len());
                self.meter.gave(records.len());
                self.assign(records, context);
            }
            Err(mark) => self.mark(mark, context),
        }
        self.pass(context)
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match self.next.resume(context)? {
            Flow::Ready => self.pass(context),
            Flow::Blocked => Ok(Flow::Blocked),
        }
    }

    fn flush(&mut self, context: &mut TaskContext) -> Result<Flow, TaskError> {
        // The input ran dry: nobody else would say that a split has ended or is idle.
        let news = match (&self.inputs, context.splits()) {
            (Some(inputs), Some(splits)) => inputs.seen != Some(splits.changes()),
            (inputs, _) => inputs.is_none(),
        };
        if news {
            self.tell_at_once(context);
        }
        match self.pass(context)? {
            Flow::Ready => self.next.flush(context),
            Flow::Blocked => Ok(Flow::Blocked),
        }
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.next.encode_slice(entries, context)
    }
}

#[cfg(test)]
mod tests;
