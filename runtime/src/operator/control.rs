//! How the job speaks to a task: flags and a short, bounded list of commands. Status is read from atomics.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::channel::Bell;
use crate::checkpoint::Barrier;
use crate::limits::EpochLimits;
use crate::metrics::{MetricsLevel, OperatorMeter, OutputMeter, TaskMeter};
use crate::operator::diverted::{DeadLetterCounter, DeadLetterKind, DeadLetters, DropCounter, DropReason, Dropped};
use crate::state::MemoryBudget;
use crate::time::Timestamp;

/// What the job tells a source task. Barriers and the end then travel in-band.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceCommand {
    /// Close the epoch in front of everything that follows.
    Barrier {
        /// The barrier.
        barrier: Barrier,
        /// What else ends with the epoch.
        ends: Ends,
    },
    /// Say what there is for the next micro-batch.
    Plan {
        /// How much.
        amount: Amount,
    },
    /// Let the planned records pass, then the barrier.
    Go {
        /// The processing time of the batch.
        time: Timestamp,
        /// What closes it.
        barrier: Barrier,
    },
    /// Send the end: the last epoch is committed and delivered.
    End,
}

/// How much of what there is goes into a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// What is at hand, within the source's limit.
    AtHand,
    /// Within the limit; where that is not reached, everything that there is, so the answer waits for it.
    ThereIs,
    /// Everything that there is, whatever the limit.
    All,
}

/// What ends with an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Only the epoch.
    Epoch,
    /// This life of the pipeline: nothing more is taken from the readers, and the next life goes on there. Event time stands
    /// still: no window fires for it.
    Life,
    /// The input, for good: it was used up or is drained. Nothing more is taken from the readers, and the final watermark goes
    /// before the barrier, so that what it fires is in the epoch.
    Input,
}

/// Shared by a task and those who command it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TaskControl {
    /// The task's bell.
    pub bell: Bell,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    closed: AtomicBool,
    records_in: AtomicU64,
    blocked: AtomicBool,
    refused_pulls: AtomicU64,
    /// One per operator and reason; grows only while the subtask is built.
    dropped: Mutex<Vec<DropCounter>>,
    /// One per operator and kind; grows only while the subtask is built.
    dead_letters: Mutex<Vec<DeadLetterCounter>>,
    level: MetricsLevel,
    meter: TaskMeter,
    /// By operator and by channel; both grow only while the subtask is built.
    operators: Mutex<Vec<(Arc<str>, OperatorMeter)>>,
    outputs: Mutex<Vec<(Arc<str>, OutputMeter)>>,
    sinks: Mutex<Vec<OperatorMeter>>,
}

impl TaskControl {
    /// Makes one whose subtask counts so much of itself.
    pub(crate) fn counting(level: MetricsLevel) -> Self {
        let shared = Shared { level, meter: TaskMeter::new(level), ..Shared::default() };
        Self { shared: Arc::new(shared), ..Self::default() }
    }

    /// Ends the task at its next turn: its attempt is over. What it holds is dropped.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Says whether the task was told to end.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }

    /// Records that came in, since the attempt began.
    pub fn records_in(&self) -> u64 {
        self.shared.records_in.load(Ordering::Relaxed)
    }

    /// Says whether the task waits for room in an output.
    pub fn is_blocked(&self) -> bool {
        self.shared.blocked.load(Ordering::Relaxed)
    }

    /// Makes the counter of an operator's dropped records.
    pub fn drop_counter(&self, operator: &str, reason: DropReason) -> DropCounter {
        let counter = DropCounter::new(operator, reason);
        lock(&self.shared.dropped).push(counter.clone());
        counter
    }

    /// What was dropped since the attempt began, by operator and reason.
    pub fn dropped(&self) -> Vec<Dropped> {
        lock(&self.shared.dropped).iter().map(DropCounter::read).collect()
    }

    /// Makes the counter of what an operator hands to the dead letters.
    pub fn dead_letter_counter(&self, operator: &str, kind: DeadLetterKind) -> DeadLetterCounter {
        let counter = DeadLetterCounter::new(operator, kind);
        lock(&self.shared.dead_letters).push(counter.clone());
        counter
    }

    /// What was handed to the dead letters since the attempt began, by operator and kind.
    pub fn dead_letters(&self) -> Vec<DeadLetters> {
        lock(&self.shared.dead_letters).iter().map(DeadLetterCounter::read).collect()
    }

    /// What the subtask counts of itself.
    pub(crate) fn meter(&self) -> &TaskMeter {
        &self.shared.meter
    }

    /// Makes an operator's meter.
    pub(crate) fn operator_meter(&self, operator: &str) -> OperatorMeter {
        let meter = OperatorMeter::counting(self.shared.level);
        if meter.is_counting() {
            lock(&self.shared.operators).push((operator.into(), meter.clone()));
        }
        meter
    }

    /// Makes a sink's meter.
    pub(crate) fn sink_meter(&self, operator: &str) -> OperatorMeter {
        let meter = self.operator_meter(operator);
        if meter.is_counting() {
            lock(&self.shared.sinks).push(meter.clone());
        }
        meter
    }

    /// The meters of the sinks.
    pub(crate) fn sinks(&self) -> Vec<OperatorMeter> {
        lock(&self.shared.sinks).clone()
    }

    /// Makes the meter of an output into a channel.
    pub(crate) fn output_meter(&self, channel: Arc<str>) -> OutputMeter {
        if self.shared.level == MetricsLevel::Off {
            return OutputMeter::default();
        }
        let meter = OutputMeter::counting(self.shared.level);
        lock(&self.shared.outputs).push((channel, meter.clone()));
        meter
    }

    /// The operators' meters.
    pub(crate) fn operators(&self) -> Vec<(Arc<str>, OperatorMeter)> {
        lock(&self.shared.operators).clone()
    }

    /// The outputs' meters, by channel.
    pub(crate) fn outputs(&self) -> Vec<(Arc<str>, OutputMeter)> {
        lock(&self.shared.outputs).clone()
    }

    /// Records whose pull on the watermark was refused because they were too far ahead of the clock, since the attempt began.
    /// They went on with their time.
    pub fn refused_pulls(&self) -> u64 {
        self.shared.refused_pulls.load(Ordering::Relaxed)
    }

    pub(crate) fn count_records(&self, count: usize) {
        count_up(&self.shared.records_in, count as u64);
    }

    pub(crate) fn count_refused_pulls(&self, count: u64) {
        count_up(&self.shared.refused_pulls, count);
    }

    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.shared.blocked.store(blocked, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while holding it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One writer: a load and a store are cheaper than an atomic addition.
fn count_up(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// Shared by a source task and the job. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SourceControl {
    shared: Arc<SourceShared>,
}

#[derive(Debug, Default)]
struct SourceShared {
    /// The memory that what comes in will take.
    memory: MemoryBudget,
    /// Most that the subtask gives to one micro-batch.
    limits: EpochLimits,
    /// The first epoch is a micro-batch that had begun.
    replays: bool,
    pending: AtomicBool,
    held: AtomicBool,
    /// At most the epochs in flight and an end.
    commands: Mutex<VecDeque<SourceCommand>>,
}

impl SourceControl {
    /// Makes the control of a source whose records are held back while this memory is full, and of which a micro-batch takes so much
    /// at most.
    pub fn within(memory: MemoryBudget, limits: EpochLimits) -> Self {
        Self { shared: Arc::new(SourceShared { memory, limits, ..SourceShared::default() }) }
    }

    /// Makes it one whose first epoch is a micro-batch that had begun: it gives what the plan takes of its splits, and nothing else.
    #[must_use]
    pub fn replaying(mut self, replays: bool) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.replays = replays;
        }
        self
    }

    /// Says whether the first epoch is a micro-batch that had begun.
    pub(crate) fn replays(&self) -> bool {
        self.shared.replays
    }

    /// Most that the subtask gives to one micro-batch.
    pub(crate) fn limits(&self) -> EpochLimits {
        self.shared.limits
    }

    /// The memory that what comes in will take. Nobody rings when there is some again.
    pub(crate) fn memory(&self) -> &MemoryBudget {
        &self.shared.memory
    }

    /// Gives a command; ring the task's bell afterwards.
    pub fn command(&self, command: SourceCommand) {
        let mut commands = self.commands();
        commands.push_back(command);
        self.shared.pending.store(true, Ordering::Release);
    }

    /// Holds records back (barriers still pass), or lets them go on; ring the task's bell afterwards.
    pub fn hold(&self, held: bool) {
        self.shared.held.store(held, Ordering::Release);
    }

    pub(crate) fn is_held(&self) -> bool {
        self.shared.held.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Option<SourceCommand> {
        if !self.shared.pending.load(Ordering::Acquire) {
            return None;
        }
        let mut commands = self.commands();
        let command = commands.pop_front();
        self.shared.pending.store(!commands.is_empty(), Ordering::Release);
        command
    }

    /// Commands that the task has not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.commands().len()
    }

    fn commands(&self) -> MutexGuard<'_, VecDeque<SourceCommand>> {
        lock(&self.shared.commands)
    }
}
