//! What the nodes of one task share: time, the epoch, and the part of each epoch that is being put together.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::channel::Bell;
use crate::checkpoint::{Barrier, BarrierTimes, Delta, OutboxPart, Part, PlannedSplit, SplitPosition, StateEntry};
use crate::id::{Attempt, Epoch, ExecutionMode, OperatorId, ShardId, SubtaskId};
use crate::metrics::{OperatorMeter, SinkLatency};
use crate::operator::{OutputMode, Quarantined, ReadOrder, Splits, TaskClock, TaskControl, Urgency, Waiting};
use crate::state::key_group::KeyGroups;
use crate::state::keyed::KeyedSetup;
use crate::state::read::StateRead;
use crate::state::store::StoreShare;
use crate::state::{MemoryBudget, TableSetup, UnknownState};
use crate::time::{Clock, SharedClock, Timestamp};

/// How long a task that waits for memory sleeps.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What a task machine wants its host to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Hand the part to the job.
    Part(Part),
    /// Tell the job that this subtask's source has nothing more, ever.
    SourceDone(SubtaskId),
    /// Tell the job what this subtask's source gives to the next micro-batch.
    Planned {
        /// The subtask.
        subtask: SubtaskId,
        /// What its splits give.
        splits: Vec<PlannedSplit>,
        /// Whether that is all there was.
        dry: bool,
    },
    /// Tell the job that this subtask's source has something, after it said that there was nothing.
    Available(SubtaskId),
    /// A barrier was put in front of all outputs of a source.
    BarrierOut(Epoch),
    /// Close this epoch now: memory wants it, see [`crate::state::Rest`].
    CloseEpoch(Epoch),
    /// Read rows for an operator of this task, which waits for them.
    Read(ReadOrder),
}

#[derive(Debug)]
struct OpenPart {
    part: Part,
    /// Nodes that still encode, plus one while the barrier is inside the chain.
    waiting: usize,
}

/// Shared by the nodes of one task.
#[derive(Debug)]
pub struct TaskContext {
    attempt: Attempt,
    subtask: SubtaskId,
    epoch: Epoch,
    /// How the open epoch runs, and how the one after it, once its barrier is in the chain.
    mode: ExecutionMode,
    next_mode: ExecutionMode,
    /// Nothing where nothing is ever a micro-batch.
    task_clock: Option<Arc<TaskClock>>,
    /// The clock's time of this turn, and the processing time that user code sees.
    turn: Timestamp,
    now: Timestamp,
    clock: SharedClock,
    bell: Bell,
    open: VecDeque<OpenPart>,
    effects: Vec<Effect>,
    /// When the first processing-time timer of the chain is due.
    wake_at: Option<Timestamp>,
    /// When a turn is wanted although nothing came: somebody waits for memory.
    again_at: Option<Timestamp>,
    /// The epoch that was asked to be closed last.
    closing: Option<Epoch>,
    over: bool,
    control: TaskControl,
    splits: Option<Splits>,
    /// An operator waits for rows in this turn.
    reading: bool,
    /// When a source took the oldest record of the frame in work.
    taken: Timestamp,
    /// Of the chain's sinks.
    sinks: Vec<SinkLatency>,
}

impl TaskContext {
    /// Begins in the epoch after `restored`. `bell` wakes the task.
    pub fn new(attempt: Attempt, subtask: SubtaskId, restored: Epoch, clock: SharedClock, bell: Bell) -> Self {
        let now = clock.now();
        Self {
            attempt,
            subtask,
            epoch: restored.next(),
            mode: ExecutionMode::Continuous,
            next_mode: ExecutionMode::Continuous,
            task_clock: None,
            turn: now,
            now,
            clock,
            bell,
            open: VecDeque::new(),
            effects: Vec::new(),
            wake_at: None,
            again_at: None,
            closing: None,
            over: false,
            control: TaskControl::default(),
            splits: None,
            reading: false,
            taken: Timestamp::MIN,
            sinks: Vec::new(),
        }
    }

    /// Makes it that of a task with this control, where its counters are read.
    #[must_use]
    pub fn controlled_by(mut self, control: TaskControl) -> Self {
        self.control = control;
        self
    }

    /// Makes it that of a task with sinks behind these meters.
    #[must_use]
    pub fn ending_in(mut self, sinks: Vec<OperatorMeter>) -> Self {
        self.sinks = sinks.into_iter().map(SinkLatency::of).collect();
        self
    }

    /// Makes it that of a task that reads splits of a source.
    #[must_use]
    pub fn reading(mut self, splits: Splits) -> Self {
        self.splits = Some(splits);
        self
    }

    /// Makes it that of an attempt whose first epoch runs so; `clock` is what user code sees.
    #[must_use]
    pub(crate) fn running(mut self, mode: ExecutionMode, clock: Arc<TaskClock>) -> Self {
        self.task_clock = Some(clock);
        self.next_mode = mode;
        self.begin_epoch();
        self
    }

    fn begin_epoch(&mut self) {
        self.mode = self.next_mode;
        if let Some(clock) = &self.task_clock {
            clock.set_in_batch(self.mode == ExecutionMode::MicroBatch);
        }
    }

    /// How the open epoch runs. Only the ends of a chain ask, and what assigns watermarks; no operator can.
    pub(crate) const fn mode(&self) -> ExecutionMode {
        self.mode
    }

    /// A micro-batch begins at this processing time, which stands still for it.
    pub(crate) fn begin_batch(&mut self, time: Timestamp) {
        if let Some(clock) = &self.task_clock {
            clock.begin_batch(time);
        }
        self.now = time;
    }

    /// The task's control.
    pub const fn control(&self) -> &TaskControl {
        &self.control
    }

    /// The splits that the task's source reads; nothing in a task that is fed by other tasks.
    pub const fn splits(&self) -> Option<&Splits> {
        self.splits.as_ref()
    }

    /// As [`TaskContext::splits`], to take note of something.
    pub const fn splits_mut(&mut self) -> Option<&mut Splits> {
        self.splits.as_mut()
    }

    /// The attempt this task belongs to.
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Which task this is.
    pub const fn subtask(&self) -> SubtaskId {
        self.subtask
    }

    /// The epoch whose records are being worked on.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The processing time of this turn: the clock's, read once per frame; in a micro-batch that of the batch.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Reads the clock now. [`TaskContext::now`] is what all but measurements go by.
    pub(crate) fn read_clock(&self) -> Timestamp {
        self.clock.now()
    }

    /// Reads the clock for the next turn.
    pub fn tick(&mut self) {
        self.turn = self.clock.now();
        self.now = match &self.task_clock {
            Some(clock) if self.mode == ExecutionMode::MicroBatch => clock.now(),
            _ => self.turn,
        };
        self.again_at = None;
        self.reading = false;
        // What the turn before gave to a sink is done now, without another reading of the clock.
        self.sinks.iter_mut().for_each(|sink| sink.settle(self.turn));
    }

    /// When a source took the oldest record of the frame in work; [`Timestamp::MIN`] if nobody knows, as for what a timer gives.
    pub(crate) const fn taken(&self) -> Timestamp {
        self.taken
    }

    /// A frame comes into the chain whose oldest record a source took then.
    pub(crate) const fn takes_from(&mut self, taken: Timestamp) {
        self.taken = taken;
    }

    /// An operator cannot go on before rows of its state are there: it is that, and no output, that the task waits for.
    pub(crate) const fn waits_for_rows(&mut self) {
        self.reading = true;
    }

    /// Whether an operator waits for rows in this turn.
    pub(crate) const fn is_reading(&self) -> bool {
        self.reading
    }

    /// The clock's time of this turn, for what paces the task itself.
    pub(crate) const fn turn_time(&self) -> Timestamp {
        self.turn
    }

    /// Asks for a turn soon although nothing comes: too much memory is taken, and nobody rings when it is given back.
    pub(crate) fn look_again(&mut self) {
        self.again_at = Some(self.turn.saturating_add(LOOK_AGAIN));
    }

    /// Asks for the barrier of the open epoch, once.
    pub(crate) fn close_epoch(&mut self) {
        if self.closing.replace(self.epoch) != Some(self.epoch) {
            self.effects.push(Effect::CloseEpoch(self.epoch));
        }
    }

    /// Asks for a mark of processing time as soon as the clock shows `at`, for timers. Asked again after every frame; the
    /// earliest wish counts, and the mark ends all of them.
    pub fn wake_at(&mut self, at: Timestamp) {
        if self.over {
            return;
        }
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// The last barrier is in the chain: no mark of time may follow it.
    pub(crate) fn end_time(&mut self) {
        (self.over, self.wake_at) = (true, None);
    }

    /// When a turn is wanted although nothing came.
    pub(crate) fn wakes_at(&self) -> Option<Timestamp> {
        // In a micro-batch timers fire in front of the barrier; the job knows from the part when the first one is due.
        let timer = self.wake_at.filter(|_| self.mode == ExecutionMode::Continuous);
        timer.into_iter().chain(self.again_at).min()
    }

    /// The time of this turn, if a mark of processing time is due by it. The wish is over then.
    pub(crate) fn take_due(&mut self) -> Option<Timestamp> {
        self.wake_at.take_if(|at| *at <= self.now).map(|_| self.now)
    }

    /// Has rows read; the answer rings the task's bell.
    pub(crate) fn read(&mut self, read: StateRead, urgency: Urgency) -> Waiting {
        let (waiting, order) = Waiting::new(read, urgency, self.bell.clone());
        self.effects.push(Effect::Read(order));
        waiting
    }

    /// Opens the part of the current epoch: its barrier, which came at that time, enters the chain.
    pub(crate) fn begin_part(&mut self, barrier: Barrier, came: Timestamp) {
        let times = BarrierTimes { came, aligned: self.turn, encoded: self.turn };
        let part = Part { times, ..Part::new(self.attempt, self.epoch, self.subtask) };
        self.open.push_back(OpenPart { part, waiting: 1 });
        self.next_mode = barrier.next_mode;
    }

    /// Asks for another epoch, also if it has no records: the watermark would rise. Call it while the barrier passes.
    pub(crate) fn want_epoch(&mut self) {
        if let Some(open) = self.open.back_mut() {
            open.part.wants_epoch = true;
        }
    }

    /// The barrier has passed the whole chain: the next epoch begins.
    pub(crate) fn barrier_passed(&mut self) {
        let (epoch, timer) = (self.epoch, self.wake_at);
        self.epoch = epoch.next();
        self.begin_epoch();
        self.settle(epoch, |part| part.timer = timer);
    }

    /// Announces a delta for the epoch's part that will come later.
    pub fn expect_delta(&mut self, epoch: Epoch) {
        if let Some(open) = self.open.iter_mut().find(|open| open.part.epoch == epoch) {
            open.waiting += 1;
        }
    }

    /// Hands in an announced delta.
    pub fn deliver_delta(&mut self, epoch: Epoch, delta: Delta) {
        self.settle(epoch, |part| {
            if !delta.chunks.is_empty() {
                part.deltas.push(delta);
            }
        });
    }

    /// Hands in output that waits for its epoch. Call it while the barrier passes.
    pub fn deliver_outbox(&mut self, outbox: OutboxPart) {
        if let Some(open) = self.open.back_mut() {
            open.part.outbox.push(outbox);
        }
    }

    /// Hands in the positions of a source. Call it before the barrier passes.
    pub(crate) fn deliver_positions(&mut self, positions: Vec<SplitPosition>) {
        if let Some(open) = self.open.back_mut() {
            open.part.positions = positions;
        }
    }

    /// When the oldest epoch that is not encoded yet was frozen.
    pub(crate) fn oldest_frozen_at(&self) -> Option<Timestamp> {
        self.open.front().map(|open| open.part.times.aligned)
    }

    pub(crate) fn push_effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Takes what the host has to do, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn settle(&mut self, epoch: Epoch, change: impl FnOnce(&mut Part)) {
        if let Some(open) = self.open.iter_mut().find(|open| open.part.epoch == epoch) {
            change(&mut open.part);
            open.waiting -= 1;
        }
        while self.open.front().is_some_and(|open| open.waiting == 0) {
            if let Some(mut open) = self.open.pop_front() {
                open.part.times.encoded = self.clock.now();
                self.effects.push(Effect::Part(open.part));
            }
        }
    }
}

/// What an operator is told when a subtask builds it.
#[derive(Clone, Debug)]
pub struct OpenContext {
    /// The pipeline's name.
    pub pipeline: String,
    /// This copy of the daemon.
    pub shard: ShardId,
    /// The operator's name.
    pub name: String,
    /// The operator's durable number; operators without state, sources and sinks among them, have one too.
    pub operator: OperatorId,
    /// Which parallel copy this is, and of how many.
    pub subtask: SubtaskId,
    /// How many copies there are.
    pub parallelism: u16,
    /// How many operators that assign event times stand before this one in its task. Saved watermarks are told apart by it.
    pub event_time: usize,
    /// The attempt.
    pub attempt: Attempt,
    /// What of its result the pipeline sends on.
    pub output_mode: OutputMode,
    /// The epoch that state was restored from.
    pub restored: Epoch,
    /// The key groups that this subtask owns.
    pub groups: Range<u16>,
    /// The key groups of the pipeline.
    pub key_groups: KeyGroups,
    /// Restored state of this operator that is not in the rows: chunks of [`crate::state::entry`], later entries win; of all
    /// key groups.
    pub state: Option<Arc<Vec<Vec<u8>>>>,
    /// The operator's states with their numbers, by the store's name table.
    pub states: Vec<StateEntry>,
    /// The numbers of its states that have rows.
    pub folded: BTreeSet<u16>,
    /// The memory that the states of the job may take.
    pub memory: MemoryBudget,
    /// The way to the rows.
    pub share: StoreShare,
    /// The processing time.
    pub clock: SharedClock,
    /// The same, for what keeps records back in a micro-batch.
    pub(crate) batch: Arc<TaskClock>,
    /// Records that user code is not given; of all operators.
    pub quarantined: Arc<[Quarantined]>,
    /// Where the subtask's counters are.
    pub control: TaskControl,
}

impl OpenContext {
    /// Makes the meter of an operator that is a sink.
    pub fn sink_meter(&self) -> OperatorMeter {
        self.control.sink_meter(&self.name)
    }

    /// Makes the operator's meter, which counts what goes through it.
    pub fn meter(&self) -> OperatorMeter {
        self.control.operator_meter(&self.name)
    }

    /// Returns the number of one of the operator's states.
    ///
    /// # Errors
    /// [`UnknownState`] for a state that was not declared: a bug of the operator.
    pub fn number_of(&self, state: &str) -> Result<u16, UnknownState> {
        let found = self.states.iter().find(|known| known.name == state && !known.removed);
        found.map(|known| known.number).ok_or_else(|| UnknownState { state: state.to_owned() })
    }

    /// What the keyed state of a user's operator is made from.
    pub fn keyed(&self) -> KeyedSetup {
        KeyedSetup {
            table: self.table(0),
            folded: self.folded.clone(),
            numbers: Some(self.states.clone()),
            stored: self.state.clone(),
            now: self.clock.now(),
        }
    }

    /// What a table of the operator's state with this number is made from.
    pub fn table(&self, state: u16) -> TableSetup {
        TableSetup {
            operator: self.operator,
            state,
            key_groups: self.key_groups,
            groups: self.groups.clone(),
            restored: self.restored,
            share: self.share.clone(),
            has_rows: self.folded.contains(&state),
            memory: self.memory.clone(),
        }
    }
}
