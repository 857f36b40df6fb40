//! Many inputs to one: takes turns, aligns barriers, merges watermarks.

use crate::channel::frame::{FRAME_RECORDS, Frame};
use crate::channel::link::{Closed, LinkReceiver};
use crate::checkpoint::{Aligner, Misaligned};
use crate::state::MemoryBudget;
use crate::time::Timestamp;
use crate::watermark::{Coalescer, Progress, Steps};

/// All inputs of one subtask. An input that is past the barrier is held back by not reading it.
#[derive(Debug)]
pub struct Gate<T> {
    inputs: Vec<LinkReceiver<T>>,
    aligner: Aligner,
    coalescer: Coalescer,
    /// What one mark of an input changed for the task, as far as it is not told yet.
    steps: Option<Steps>,
    ended: Vec<bool>,
    next: usize,
    /// The input that was read last.
    last: usize,
    /// What records become part of behind the gate.
    memory: MemoryBudget,
}

/// A gate cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// An input vanished without its end: its task failed.
    #[error("input {input}: {source}")]
    Lost {
        /// Which input.
        input: usize,
        /// The cause.
        source: Closed,
    },
    /// An input broke the order of barriers.
    #[error(transparent)]
    Misaligned(#[from] Misaligned),
}

impl<T> Gate<T> {
    /// Begins with all inputs open, all of which carry event time.
    pub fn new(inputs: Vec<LinkReceiver<T>>) -> Self {
        Self::of(inputs.into_iter().map(|input| (input, true)))
    }

    /// Begins with all inputs open, and whether each carries event time: one that does not never holds a watermark back.
    pub fn of(inputs: impl IntoIterator<Item = (LinkReceiver<T>, bool)>) -> Self {
        let (inputs, timed): (Vec<_>, Vec<_>) = inputs.into_iter().unzip();
        let count = inputs.len();
        Self {
            inputs,
            aligner: Aligner::new(count),
            coalescer: Coalescer::of(timed),
            steps: None,
            ended: vec![false; count],
            next: 0,
            last: 0,
            memory: MemoryBudget::default(),
        }
    }

    /// Lets no more records wait in front of it than this memory has room for. What they become may be many times as large as they are.
    #[must_use]
    pub fn within(mut self, memory: MemoryBudget) -> Self {
        self.memory = memory;
        self.limit();
        self
    }

    /// Returns the next frame for the task; nothing if no readable input has one.
    ///
    /// # Errors
    /// [`GateError`] when an input vanished or broke the order.
    pub fn poll(&mut self) -> Result<Option<Frame<T>>, GateError> {
        if let Some(frame) = self.step() {
            return Ok(Some(frame));
        }
        let count = self.inputs.len();
        let mut looked = 0;
        while looked < count {
            let input = self.next;
            self.next = (self.next + 1) % count;
            looked += 1;
            if !self.aligner.may_read(input) {
                continue;
            }
            let Some(receiver) = self.inputs.get_mut(input) else { continue };
            let frame = receiver.receive().map_err(|source| GateError::Lost { input, source })?;
            let Some(frame) = frame else { continue };
            self.last = input;
            // An input may have more; a mark that changed nothing for the task is not an answer.
            looked = 0;
            if let Some(frame) = self.merge(input, frame)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// When a source took the oldest record of the frame of records that came last; [`Timestamp::MIN`] if nobody knows.
    pub fn oldest(&self) -> Timestamp {
        self.inputs.get(self.last).map_or(Timestamp::MIN, LinkReceiver::oldest)
    }

    /// Counts how long the frame of records that came last was queued.
    pub fn note_wait(&self, now: Timestamp) {
        if let Some(input) = self.inputs.get(self.last) {
            input.note_wait(now);
        }
    }

    /// Says whether a barrier waits for other inputs.
    pub const fn is_aligning(&self) -> bool {
        self.aligner.is_aligning()
    }

    fn merge(&mut self, input: usize, frame: Frame<T>) -> Result<Option<Frame<T>>, GateError> {
        match frame {
            Frame::Records(_) | Frame::ProcessingTime(_) => return Ok(Some(frame)),
            Frame::Barrier(barrier) => {
                let aligned = self.aligner.on_barrier(input, barrier)?;
                if aligned.is_some() {
                    self.inputs.iter().for_each(|input| input.hold(false));
                    // Memory that fills up closes epochs, so this comes often enough.
                    self.limit();
                } else if let Some(input) = self.inputs.get(input) {
                    input.hold(true);
                }
                return Ok(aligned.map(Frame::Barrier));
            }
            Frame::End => {
                if let Some(ended) = self.ended.get_mut(input) {
                    *ended = true;
                }
                // Every input ends behind the same closing barrier, so no barrier can wait here for this one alone. It left
                // the minimum before that, with its final watermark.
                let released = self.aligner.on_end(input);
                debug_assert!(released.is_none(), "an input ended without the closing barrier");
                return Ok(self.aligner.all_ended().then_some(Frame::End));
            }
            Frame::Watermark(time) => self.coalescer.note_watermark(input, time),
            Frame::Idle => self.coalescer.note_idle(input, true),
            Frame::Active => self.coalescer.note_idle(input, false),
        }
        self.steps = Some(self.coalescer.advance());
        Ok(self.step())
    }

    fn limit(&mut self) {
        let room = usize::try_from(self.memory.room_for_records()).unwrap_or(usize::MAX);
        // Many subtasks have very many channels; a frame is what keeps all that is done per frame cheap.
        let each = (room / self.inputs.len().max(1)).max(FRAME_RECORDS);
        self.inputs.iter_mut().for_each(|input| input.limit(each));
    }

    fn step(&mut self) -> Option<Frame<T>> {
        let Some(progress) = self.steps.as_mut()?.next() else {
            self.steps = None;
            return None;
        };
        Some(match progress {
            Progress::Watermark(time) => Frame::Watermark(time),
            Progress::Idle => Frame::Idle,
            Progress::Active => Frame::Active,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::bell::Bell;
    use crate::channel::frame::Mark;
    use crate::channel::link::link;
    use crate::checkpoint::Barrier;
    use crate::id::{Epoch, ExecutionMode};
    use crate::record::Record;

    #[test]
    fn holds_back_the_input_that_is_past_the_barrier() {
        let bell = Bell::default();
        let (mut left, left_end) = link(8, &bell, &bell);
        let (mut right, right_end) = link(8, &bell, &bell);
        let probe = left_end.probe();
        let mut gate = Gate::new(vec![left_end, right_end]);
        let barrier =
            Barrier { epoch: Epoch::new(1), next_mode: ExecutionMode::Continuous, last: false, had_data: false };

        left.send_mark(Mark::Barrier(barrier)).unwrap();
        left.send_records(&mut vec![Record::new("left, epoch 2")]).unwrap();
        assert_eq!(gate.poll(), Ok(None));
        assert!(gate.is_aligning());
        assert_eq!(probe.held_records(), 1);
        right.send_records(&mut vec![Record::new("right, epoch 1")]).unwrap();
        right.send_mark(Mark::Barrier(barrier)).unwrap();
        let mut seen = Vec::new();
        while let Some(frame) = gate.poll().unwrap() {
            seen.push(frame);
        }
        let expected = vec![
            Frame::Records(vec![Record::new("right, epoch 1")]),
            Frame::Barrier(barrier),
            Frame::Records(vec![Record::new("left, epoch 2")]),
        ];
        assert_eq!(seen, expected);
        left.send_records(&mut vec![Record::new("left, epoch 2, too")]).unwrap();
        assert_eq!((probe.records(), probe.held_records()), (1, 0));
        gate.poll().unwrap();
        drop(left);
        assert!(matches!(gate.poll(), Err(GateError::Lost { input: 0, .. })));
    }

    #[test]
    fn tells_everything_that_one_mark_changed() {
        let bell = Bell::default();
        let (mut left, left_end) = link::<u8>(8, &bell, &bell);
        let (mut right, right_end) = link(8, &bell, &bell);
        let mut gate = Gate::of([(left_end, true), (right_end, false)]);
        let time = |millis| Mark::Watermark(crate::time::Timestamp::from_millis(millis));
        for mark in [time(3), Mark::Idle, Mark::Active, time(5)] {
            left.send_mark(mark).unwrap();
        }
        right.send_mark(Mark::Watermark(crate::time::Timestamp::MAX)).unwrap();
        let seen: Vec<_> = std::iter::from_fn(|| gate.poll().unwrap()).collect();
        assert_eq!(seen, [time(3).frame(), Frame::Idle, Frame::Active, time(5).frame()]);
        left.send_mark(Mark::Watermark(crate::time::Timestamp::MAX)).unwrap();
        assert_eq!(gate.poll(), Ok(Some(Frame::Watermark(crate::time::Timestamp::MAX))));
    }
}
