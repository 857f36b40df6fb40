//! The first link of a task that reads a source.
//!
//! Readers hand over batches; this head puts them into the chain and barriers between them. What an epoch records of a split is the
//! end of the last batch that went in front of the barrier. In micro-batches they wait in the [`Backlog`] until the job lets a
//! planned number of them pass.

use std::collections::VecDeque;
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::channel::{FRAME_RECORDS, Frame, Mark, QueueReceiver, QueueRecvError};
use crate::checkpoint::{Barrier, SplitPosition};
use crate::error::BoxError;
use crate::id::{ExecutionMode, OperatorId};
use crate::metrics::OperatorMeter;
use crate::operator::{
    Amount, Effect, Ends, Flow, Head, Node, Origin, Polled, SourceCommand, SourceControl, TaskContext, TaskControl,
    TaskError,
};
use crate::position::{Position, SplitId};
use crate::record::Record;
use crate::source::backlog::{Backlog, Item};
use crate::source::{Fetched, Idleness, SplitStart};
use crate::time::Timestamp;

/// How long records wait for memory before another epoch is asked for, which may free some.
const STOPPED: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Split {
    id: SplitId,
    /// End of the last batch that went into the chain.
    position: Option<Position>,
    ended: bool,
    changed: bool,
}

/// Batches of a source with the chain behind it.
pub struct SourceHead<T> {
    name: String,
    operator: OperatorId,
    splits: Vec<Split>,
    idleness: Idleness,
    fetched: QueueReceiver<Fetched<T>>,
    /// In continuous mode only ever filled by a planted bug, or by the micro-batches before.
    backlog: Backlog<T>,
    /// The planned batches pass, and this barrier behind them.
    going: Option<Barrier>,
    /// The job ends when everything is read that there is; the input does not.
    finite: bool,
    /// Timers have fired in front of the barrier that is due.
    timed: bool,
    /// When an epoch is wanted next although no records pass.
    close_at: Timestamp,
    /// Records of the batch in work that are not in the chain yet, and where it ends.
    batch: Vec<Record<T>>,
    /// When the reader gave them.
    taken: Timestamp,
    batch_end: Option<(usize, Position, bool)>,
    chain: Box<dyn Node<T>>,
    control: TaskControl,
    source: SourceControl,
    /// What is inside the chain.
    passing: Option<Mark>,
    /// What goes into the chain next.
    due: VecDeque<Mark>,
    /// Nothing more is taken from the readers.
    last: bool,
    /// Nothing more comes, ever: the final watermark is out.
    done: bool,
    meter: OperatorMeter,
}

impl<T> std::fmt::Debug for SourceHead<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SourceHead").field("name", &self.name).field("splits", &self.splits).finish_non_exhaustive()
    }
}

impl<T> SourceHead<T> {
    /// Puts readers in front of a chain.
    pub fn new(
        (name, operator): (String, OperatorId),
        (splits, idleness): (Vec<SplitStart>, Idleness),
        fetched: QueueReceiver<Fetched<T>>,
        chain: Box<dyn Node<T>>,
        control: TaskControl,
        source: SourceControl,
    ) -> Self {
        let planned = splits.iter().map(|start| (start.planned.clone(), start.ended));
        let backlog = Backlog::new(planned, source.limits(), source.replays());
        let splits = splits.into_iter().map(|start| Split {
            id: start.split,
            position: start.from,
            ended: start.ended,
            changed: false,
        });
        Self {
            name,
            operator,
            splits: splits.collect(),
            idleness,
            fetched,
            backlog,
            going: None,
            finite: false,
            timed: false,
            close_at: Timestamp::MIN,
            batch: Vec::new(),
            taken: Timestamp::MIN,
            batch_end: None,
            chain,
            control,
            source,
            passing: None,
            due: VecDeque::new(),
            last: false,
            done: false,
            meter: OperatorMeter::default(),
        }
    }

    /// Counts what it gives there.
    #[must_use]
    pub fn metered(mut self, meter: OperatorMeter) -> Self {
        self.meter = meter;
        self
    }

    fn on_command(&mut self, command: SourceCommand, context: &mut TaskContext) -> Result<Polled, TaskError> {
        match command {
            SourceCommand::Barrier { barrier, ends } => {
                self.last |= ends != Ends::Epoch;
                if self.last {
                    context.end_time();
                    self.backlog.clear();
                }
                if ends == Ends::Input && !std::mem::replace(&mut self.done, true) {
                    self.due.push_back(Mark::Watermark(Timestamp::MAX));
                }
                self.due.push_back(Mark::Barrier(barrier));
            }
            SourceCommand::Plan { amount } => {
                self.finite = amount != Amount::AtHand;
                self.backlog.ask(amount);
            }
            SourceCommand::Go { time, barrier } => {
                context.begin_batch(time);
                self.going = Some(barrier);
            }
            SourceCommand::End => self.due.push_back(Mark::End),
        }
        self.pass_due(context)
    }

    fn pass_due(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
        let mut polled = Polled::Worked;
        while polled == Polled::Worked
            && let Some(mut mark) = self.due.pop_front()
        {
            if let Mark::Barrier(_) = mark
                && context.mode() == ExecutionMode::MicroBatch
                && !std::mem::replace(&mut self.timed, true)
                && let Some(now) = context.take_due()
            {
                self.due.push_front(mark);
                mark = Mark::ProcessingTime(now);
            }
            if let Mark::Barrier(barrier) = &mut mark {
                barrier.had_data |= self.splits.iter().any(|split| split.changed);
                self.timed = false;
                context.begin_part(*barrier, context.turn_time());
                let positions = self.positions(context);
                context.deliver_positions(positions);
            }
            self.passing = Some(mark);
            context.takes_from(Timestamp::MIN);
            let flow = self.chain.offer(mark.frame(), context)?;
            polled = self.passed(flow, context);
        }
        Ok(polled)
    }

    fn passed(&mut self, flow: Flow, context: &mut TaskContext) -> Polled {
        if flow == Flow::Blocked {
            return Polled::Blocked;
        }
        match self.passing.take() {
            Some(Mark::Barrier(barrier)) => {
                context.push_effect(Effect::BarrierOut(barrier.epoch));
                context.barrier_passed();
                Polled::Worked
            }
            Some(Mark::End) => Polled::Ended,
            _ => Polled::Worked,
        }
    }

    fn positions(&mut self, context: &TaskContext) -> Vec<SplitPosition> {
        if planted(Canary::ReaderPosition) {
            self.read_ahead();
        }
        let operator = self.operator;
        let saved = self.splits.iter_mut().enumerate().filter_map(|(number, split)| {
            if !std::mem::take(&mut split.changed) {
                return None;
            }
            let position = mistake(split.position.clone()?);
            // Whatever of the split is in front of the barrier has passed the operators that assign event times.
            let watermarks = context.splits().map(|splits| splits.watermarks(number)).unwrap_or_default();
            Some(SplitPosition { operator, split: split.id.clone(), position, ended: split.ended, watermarks })
        });
        saved.collect()
    }

    /// Planted bug: takes the readers' word for where the source stands, with what lies between them and this task.
    fn read_ahead(&mut self) {
        while let Ok(Some(item)) = self.receive() {
            if let Some(slot) = self.splits.get_mut(item.split) {
                slot.position = Some(item.batch.end.clone());
                slot.changed = true;
            }
            drop(self.backlog.push(item));
        }
    }

    /// Takes the next batch from the readers.
    fn receive(&mut self) -> Result<Option<Item<T>>, TaskError> {
        loop {
            return match self.fetched.try_recv() {
                Ok(Fetched::Batch { split, batch, at, ended }) => {
                    self.idleness.took(split);
                    Ok(Some(Item { split, batch, at, ended }))
                }
                Ok(Fetched::Dry { split }) => {
                    self.backlog.note_dry(split);
                    continue;
                }
                Ok(Fetched::Failed { split, error }) => Err(self.failed(Some(split), error)),
                // Closed: all splits have ended, and the readers with them. A reader that dies otherwise says so first.
                Err(QueueRecvError::Empty | QueueRecvError::Closed) => Ok(None),
            };
        }
    }

    fn failed(&self, split: Option<usize>, source: BoxError) -> TaskError {
        let split =
            split.and_then(|split| self.splits.get(split)).map_or_else(String::new, |split| split.id.to_string());
        TaskError::Source { operator: self.name.clone(), split, source }
    }

    /// Takes the next batch into work.
    fn fetch(&mut self, context: &mut TaskContext) -> Result<bool, TaskError> {
        if self.last || self.source.is_held() {
            return Ok(false);
        }
        if self.source.memory().is_closed() {
            context.look_again();
            return Ok(false);
        }
        let item = match self.backlog.pop() {
            Some(item) => Some(item),
            None => self.receive()?,
        };
        Ok(item.map(|item| self.begin(item)).is_some())
    }

    fn begin(&mut self, item: Item<T>) {
        self.taken = item.at;
        self.batch = item.batch.records;
        // Who assigns event times has to tell the splits apart.
        let number = u32::try_from(item.split + 1).unwrap_or(0);
        self.batch.iter_mut().for_each(|record| record.hash = number);
        self.batch_end = Some((item.split, item.batch.end, item.ended));
    }

    /// Puts the next batch of the readers into the backlog.
    fn fill(&mut self, context: &mut TaskContext) -> Result<bool, TaskError> {
        let stopped = self.is_stopped();
        if stopped && !self.source.is_held() {
            // Nobody rings when there is memory again, also not for what is here already. It may take commits until there is: a fold
            // begins behind one and is noted by another, and without records nobody else asks for an epoch between micro-batches.
            context.look_again();
            if context.turn_time() >= self.close_at {
                self.close_at = context.turn_time().saturating_add(STOPPED);
                context.close_epoch();
            }
        }
        if self.last || stopped || !self.backlog.has_room() {
            return Ok(false);
        }
        let Some(item) = self.receive()? else { return Ok(false) };
        let split = item.split;
        self.backlog.push(item).map_err(|error| self.failed(Some(split), error.into()))?;
        Ok(true)
    }

    /// No records pass: the job holds them back, or the state takes too much memory, and epochs without records go on. Nothing stops a
    /// micro-batch that is put together whatever it takes.
    fn is_stopped(&self) -> bool {
        (self.source.is_held() || self.source.memory().is_closed()) && !self.backlog.goes_on()
    }

    /// A turn between two micro-batches: keeps what comes, and answers when it is asked.
    fn rest(&mut self, context: &mut TaskContext) -> Result<bool, TaskError> {
        let filled = self.fill(context)?;
        let stopped = self.is_stopped();
        let (operator, splits) = (self.operator, &self.splits);
        let name = |split: usize| splits.get(split).map(|split| split.id.clone());
        let answer = self.backlog.answer(operator, name, (filled, stopped));
        if let Some((splits, dry)) = answer.map_err(|error| self.failed(None, error.into()))? {
            context.push_effect(Effect::Planned { subtask: context.subtask(), splits, dry });
        } else if self.backlog.take_news(stopped) {
            context.push_effect(Effect::Available(context.subtask()));
        }
        Ok(filled)
    }

    /// Puts the next frame of the batch into the chain. A barrier falls between batches only: a batch in work is finished.
    fn feed(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
        if !self.batch.is_empty() {
            // Readers are asked for no more than a frame, so that a batch goes on as it is.
            let rest = if self.batch.len() > FRAME_RECORDS { self.batch.split_off(FRAME_RECORDS) } else { Vec::new() };
            let records = std::mem::replace(&mut self.batch, rest);
            self.control.count_records(records.len());
            self.meter.gave(records.len());
            context.takes_from(self.taken);
            let flow = self.chain.offer(Frame::Records(records), context)?;
            if flow == Flow::Blocked {
                return Ok(Polled::Blocked);
            }
        }
        if self.batch.is_empty()
            && let Some((split, end, ended)) = self.batch_end.take()
            && let Some(slot) = self.splits.get_mut(split)
        {
            slot.position = Some(end);
            slot.changed = true;
            if ended {
                slot.ended = true;
                context.splits_mut().into_iter().for_each(|splits| splits.end(split));
            }
        }
        Ok(Polled::Worked)
    }

    /// Tells the operators behind how long each split has had nothing.
    fn look_for_idle(&self, context: &mut TaskContext) {
        if !self.idleness.is_measured() {
            return;
        }
        let Some(splits) = context.splits_mut() else { return };
        // The batch in work is not in front of everybody yet, whatever its reader found behind it.
        let feeding = self.batch_end.as_ref().map(|(split, ..)| *split);
        for split in 0..self.splits.len() {
            let here = feeding == Some(split) || self.backlog.has(split);
            let time = if here { Duration::ZERO } else { self.idleness.idle_for(split) };
            splits.idle_for(split, time);
        }
    }
}

/// The two position bugs that the simulator must find; the identity in production.
fn mistake(position: Position) -> Position {
    let Some(number) = position.as_u64() else { return position };
    if planted(Canary::OffsetTooFar) {
        return Position::from_u64(number + 1);
    }
    if planted(Canary::OffsetTooFew) {
        return Position::from_u64(number.saturating_sub(1));
    }
    position
}

impl<T> Head for SourceHead<T> {
    fn poll(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
        if self.batch_end.is_some() {
            return self.feed(context);
        }
        if let Some(barrier) = self.going {
            if let Some(item) = self.backlog.pop_planned() {
                self.begin(item);
                return self.feed(context);
            }
            self.going = None;
            self.due.push_back(Mark::Barrier(barrier));
            return self.pass_due(context);
        }
        if let Some(command) = self.source.take() {
            return self.on_command(command, context);
        }
        let rests = context.mode() == ExecutionMode::MicroBatch;
        if !self.last
            && !rests
            && let Some(now) = context.take_due()
        {
            let flow = self.chain.offer(Frame::ProcessingTime(now), context)?;
            return Ok(self.passed(flow, context));
        }
        let fetched = if rests { self.rest(context)? } else { self.fetch(context)? };
        // Behind the fetch, so that a split whose batch was just taken is not idle.
        self.look_for_idle(context);
        if fetched {
            return if rests { Ok(Polled::Worked) } else { self.feed(context) };
        }
        if !self.done && !self.last && !self.finite && self.splits.iter().all(|split| split.ended) {
            self.done = true;
            context.push_effect(Effect::SourceDone(context.subtask()));
            // Others that go on need not wait for this one.
            self.due.push_back(Mark::Watermark(Timestamp::MAX));
            return self.pass_due(context);
        }
        Ok(match self.chain.flush(context)? {
            Flow::Ready => Polled::Idle,
            Flow::Blocked => Polled::Blocked,
        })
    }

    fn resume(&mut self, context: &mut TaskContext) -> Result<Polled, TaskError> {
        let flow = self.chain.resume(context)?;
        let polled = self.passed(flow, context);
        match polled {
            Polled::Worked if self.batch_end.is_some() => self.feed(context),
            Polled::Worked => self.pass_due(context),
            polled => Ok(polled),
        }
    }

    fn encode_slice(&mut self, entries: usize, context: &mut TaskContext) -> Result<usize, TaskError> {
        self.chain.encode_slice(entries, context)
    }

    fn origin(&self) -> Option<Origin> {
        let (split, end, _) = self.batch_end.as_ref()?;
        let split = self.splits.get(*split)?;
        let (after, until) = (split.position.clone(), Some(end.clone()));
        Some(Origin { source: self.name.as_str().into(), split: split.id.clone(), after, until })
    }
}

#[cfg(test)]
mod tests;
