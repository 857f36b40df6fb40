//! One life of the simulated process: who can do something, who is picked, and what goes wrong meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::{STEP_LIMIT, SimConfig, SimFailure, World};
use crate::fault::{Crashed, SharedFaults};
use crate::id::{Attempt, Epoch, OperatorId, ShardId, SubtaskId};
use crate::job::{Committer, Ended, JobError, JobEvent, JobMachine};
use crate::operator::{ReadOrder, SourceControl};
use crate::plan::Plan;
use crate::sink::Delivery;
use crate::source::Fetching;
use crate::state::log::{Identity, StartFrom};
use crate::state::read::StateRows;
use crate::state::store::{StateBackend, StoreShare};
use crate::state::{FoldJob, MemoryBudget};
use crate::task::TaskMachine;
use crate::time::{Clock, Timestamp};

mod hosting;
mod trouble;

/// Longest time that passes before a reader that had nothing is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Who can be picked for a step.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Task(usize),
    Reader(usize),
    Committer,
    Delivery(usize),
    /// The thread that reads rows.
    Rows(usize),
    /// The thread that folds the log.
    Fold,
    /// A message of this sender to the job.
    Message(Sender),
    /// Time passes.
    Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Committer,
    Delivery(usize),
    Task(Attempt, SubtaskId),
    User,
}

struct SimTask {
    machine: Option<TaskMachine>,
    subtask: SubtaskId,
    attempt: Attempt,
    source: Option<SourceControl>,
    runnable: bool,
    /// Not stepped, as if it were lost in user code.
    asleep: bool,
    abandoned: bool,
}

struct SimReader {
    fetching: Box<dyn Fetching>,
    attempt: Attempt,
    task: usize,
    full: bool,
    /// Its task has not run since it found the queue full twice.
    tried: bool,
    /// It had nothing when it was asked last.
    idle: bool,
}

/// A question of a task for rows.
struct SimRead {
    order: ReadOrder,
    /// What was read, while the answer is on its way.
    rows: Option<StateRows>,
    /// The answer takes its time.
    at: Timestamp,
}

/// One life of the process.
pub(super) struct Life<'a> {
    config: &'a SimConfig,
    world: &'a mut World,
    plan: Plan,
    machine: JobMachine,
    committer: Committer,
    committer_at: Option<Timestamp>,
    /// The disk is slow: the write in flight does not return before.
    slow_until: Timestamp,
    deliveries: Vec<(Delivery, Option<Timestamp>)>,
    operators: Vec<OperatorId>,
    tasks: Vec<SimTask>,
    readers: Vec<SimReader>,
    /// Questions of tasks for rows, and what was read for those whose answer is on its way.
    reads: Vec<SimRead>,
    share: StoreShare,
    memory: MemoryBudget,
    /// One at a time, but for a planted bug.
    folds: Vec<FoldJob>,
    /// Messages to the job, in order per sender.
    mail: BTreeMap<Sender, VecDeque<JobEvent>>,
    timers: BTreeSet<Timestamp>,
    /// The micro-batches that were let through.
    going: BTreeSet<(Attempt, Epoch)>,
    over: Option<Result<Ended, JobError>>,
    /// How long the life is to go on, once that time begins; and when it is to be stopped in good order.
    stop_after: Option<Duration>,
    stop_at: Option<Timestamp>,
}

/// Why a life ended before its job.
pub(super) enum Halt {
    Crashed,
    Failure(SimFailure),
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        let (counters, report) = (self.share.counters(), &mut self.world.report);
        report.quarantined.extend_from_slice(&self.machine.status().quarantined);
        report.lazy_reads += counters.reads();
        report.evicted_keys += counters.evicted_keys();
        report.evicted_tombstones += counters.evicted_tombstones();
        report.completed_groups += counters.completed_groups();
    }
}

impl From<Crashed> for Halt {
    fn from(_: Crashed) -> Self {
        Self::Crashed
    }
}

/// The text of an error with its causes.
pub(super) fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl<'a> Life<'a> {
    /// Starts the process.
    pub(super) fn new(config: &'a SimConfig, world: &'a mut World, plan: Plan) -> Self {
        let identity = Identity {
            pipeline: plan.name().to_owned(),
            shard: ShardId::new(0),
            key_groups: config.key_groups.count(),
        };
        let (backend, name) = (world.disk.clone(), plan.name().to_owned());
        let open = Box::new(move |create| backend.open(&name, ShardId::new(0), create));
        let faults: SharedFaults = Arc::clone(&world.faults) as _;
        let declared = plan.declarations();
        let committer = Committer::new(identity, StartFrom::default(), config.limits, declared, open, faults);
        Self {
            config,
            world,
            plan,
            machine: JobMachine::new(config.job),
            share: committer.share(),
            committer,
            committer_at: None,
            slow_until: Timestamp::default(),
            deliveries: Vec::new(),
            operators: Vec::new(),
            tasks: Vec::new(),
            readers: Vec::new(),
            reads: Vec::new(),
            folds: Vec::new(),
            memory: MemoryBudget::default(),
            mail: BTreeMap::new(),
            timers: BTreeSet::new(),
            going: BTreeSet::new(),
            over: None,
            stop_after: None,
            stop_at: None,
        }
    }

    /// Lets the seed pick who does something, until the job is over or the life ends.
    pub(super) fn run(mut self) -> Result<Result<Ended, JobError>, Halt> {
        self.carry_out()?;
        self.stop_after = self.config.stop_after;
        if let Some(when) = &self.config.stop_when {
            // The life before may have been asked to stop and gone on setting it.
            when.store(false, Ordering::Relaxed);
        }
        loop {
            let now = self.world.clock.now();
            let begins = self.config.stop_when.as_ref().is_none_or(|when| when.swap(false, Ordering::Relaxed));
            if begins && let Some(after) = self.stop_after.take() {
                self.stop_at = Some(now.saturating_add(after));
            }
            if let Some(control) = &self.config.control {
                if control.take_crash() {
                    return Err(Halt::Crashed);
                }
                if control.take_stop() {
                    self.world.stopped = true;
                    self.stop_at = Some(now);
                }
            }
            if let Some(at) = self.stop_at.take_if(|at| *at <= now) {
                let deadline = at.saturating_add(Duration::from_secs(3600));
                self.mail.entry(Sender::User).or_default().push_back(JobEvent::Stop { deadline });
            }
            if let Some(over) = self.over.take() {
                return Ok(over);
            }
            self.world.report.steps += 1;
            if self.world.report.steps > STEP_LIMIT {
                return Err(Halt::Failure(SimFailure::Endless { status: self.describe() }));
            }
            self.disturb();
            let Some(actor) = self.pick() else {
                return Err(Halt::Failure(SimFailure::Stuck { status: self.describe() }));
            };
            self.world.clock.advance(Duration::from_micros(self.world.rng.random_range(0..50)));
            self.note(actor);
            match actor {
                Actor::Task(index) => self.step_task(index)?,
                Actor::Reader(index) => self.step_reader(index),
                Actor::Committer => self.step_committer()?,
                Actor::Delivery(index) => self.step_delivery(index)?,
                Actor::Rows(index) => self.step_rows(index)?,
                Actor::Fold => self.step_fold(),
                Actor::Message(sender) => self.deliver(sender)?,
                Actor::Time => self.pass_time()?,
            }
        }
    }

    fn describe(&self) -> String {
        let alive = self.tasks.iter().filter_map(|task| {
            let machine = task.machine.as_ref()?;
            let blocked = if machine.control().is_blocked() { ", blocked" } else { "" };
            let asleep = if task.asleep { ", asleep" } else { "" };
            Some(format!("{} at epoch {}{blocked}{asleep}", task.subtask, machine.epoch()))
        });
        let alive: Vec<_> = alive.collect();
        format!("{:?}; {} readers; tasks: {}", self.machine.status(), self.readers.len(), alive.join("; "))
    }

    /// Mixes what happens into the trace.
    fn note(&mut self, actor: Actor) {
        let (kind, index) = match actor {
            Actor::Task(index) => (1u64, index as u64),
            Actor::Reader(index) => (2, index as u64),
            Actor::Committer => (3, 0),
            Actor::Delivery(index) => (4, index as u64),
            Actor::Message(_) => (5, self.machine.in_flight() as u64),
            Actor::Time => (6, 0),
            Actor::Rows(index) => (7, index as u64),
            Actor::Fold => (8, 0),
        };
        let now = self.world.clock.now().as_micros().unsigned_abs();
        for word in [kind, index, now] {
            self.world.report.trace = (self.world.report.trace ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Everybody who could do something now; time itself only if nobody else can, or now and then.
    fn pick(&mut self) -> Option<Actor> {
        let now = self.world.clock.now();
        let mut actors = Vec::new();
        for (index, task) in self.tasks.iter_mut().enumerate() {
            let Some(machine) = &task.machine else { continue };
            if machine.control().bell.answer() || machine.wakes_at().is_some_and(|at| at <= now) {
                task.runnable = true;
            }
            if task.runnable && !task.asleep {
                actors.push(Actor::Task(index));
            }
        }
        for (index, reader) in self.readers.iter().enumerate() {
            // A full queue empties when its task runs; then the reader is worth another try.
            if !reader.full || !reader.tried || self.world.rng.random_bool(0.2) {
                actors.push(Actor::Reader(index));
            }
        }
        for (index, read) in self.reads.iter().enumerate() {
            if read.at <= now {
                actors.push(Actor::Rows(index));
            }
        }
        actors.extend(self.folds.first().map(|_| Actor::Fold));
        let due = self.committer.has_orders() || self.committer_at.is_some_and(|at| at <= now);
        if due && self.slow_until <= now {
            actors.push(Actor::Committer);
        }
        for (index, (_, at)) in self.deliveries.iter().enumerate() {
            if at.is_some_and(|at| at <= now) {
                actors.push(Actor::Delivery(index));
            }
        }
        actors.extend(self.mail.keys().filter(|sender| self.may_speak(**sender)).map(|sender| Actor::Message(*sender)));
        let due = self.timers.first().is_some_and(|at| *at <= now);
        let only_readers = actors.iter().all(|actor| matches!(actor, Actor::Reader(_)));
        // Until the script has said its word no time passes that nothing needs: an epoch would be closed by it.
        let waits = self.config.stop_when.is_some() && self.stop_after.is_some();
        // A machine that has nothing to do but to read does not sleep through hours.
        let hungry = self.readers.iter().any(|reader| !(reader.idle || reader.full && reader.tried));
        if due || (only_readers && !waits && !hungry && self.next_time().is_some()) {
            actors.push(Actor::Time);
        }
        if actors.is_empty() {
            self.next_time().map(|_| Actor::Time)
        } else {
            actors.choose(&mut self.world.rng).copied()
        }
    }

    /// A hanging loop's messages are on their way for as long as it hangs.
    fn may_speak(&self, sender: Sender) -> bool {
        let Sender::Task(attempt, subtask) = sender else { return true };
        let task = self.tasks.iter().find(|task| task.attempt == attempt && task.subtask == subtask);
        task.is_none_or(|task| !task.asleep)
    }

    fn next_time(&self) -> Option<Timestamp> {
        let now = self.world.clock.now();
        let deliveries = self.deliveries.iter().filter_map(|(_, at)| *at);
        // What was not due yet when time was picked may be due by now.
        let slow = self.committer.has_orders().then(|| self.slow_until.max(now));
        let committer = slow.or(self.committer_at);
        let tasks = self.tasks.iter().filter(|task| !task.asleep && !task.runnable);
        let alarms = tasks.filter_map(|task| task.machine.as_ref()?.wakes_at());
        let rows = self.reads.iter().map(|read| read.at.max(now));
        self.timers
            .first()
            .copied()
            .into_iter()
            .chain(committer)
            .chain(deliveries)
            .chain(alarms)
            .chain(rows)
            .chain(self.stop_at)
            .min()
    }

    fn pass_time(&mut self) -> Result<(), Halt> {
        if let Some(next) = self.next_time() {
            // A reader that had nothing is asked again before hours have passed: a batch that is done again may wait for it.
            let asked =
                self.readers.iter().any(|reader| reader.idle).then(|| self.world.clock.now().saturating_add(ASK_AGAIN));
            self.world.clock.set(asked.map_or(next, |asked| next.min(asked)));
        }
        let now = self.world.clock.now();
        if self.timers.first().is_some_and(|at| *at <= now) {
            self.timers.retain(|at| *at > now);
            self.machine.on(JobEvent::Tick, now);
            self.carry_out()?;
        }
        Ok(())
    }
}
