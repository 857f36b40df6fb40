//! What the host does for the machines: it steps whoever was picked and carries out what they want.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use super::{Halt, Life, Sender, SimFailure, SimRead, SimReader, SimTask, text};
use crate::checkpoint::Part;
use crate::fault::{CrashPoint, Faults, SharedFaults};
use crate::id::{Attempt, ExecutionMode, OperatorId, ShardId};
use crate::job::{CommitterAnswer, CommitterOrder, CommitterStep, JobEvent, JobOrder};
use crate::metrics::MetricsLevel;
use crate::operator::{Effect, Quarantined, SourceCommand, SourceControl, TaskError};
use crate::plan::AttemptSpec;
use crate::sink::{DeliveryAnswer, DeliveryOrder, DeliveryStep};
use crate::source::Fetch;
use crate::state::MemoryBudget;
use crate::state::log::{CommitError, Restored};
use crate::state::store::{StoreError, StoreErrorKind};
use crate::task::{TaskMachine, Turn};
use crate::time::{Clock, Timestamp};

impl Life<'_> {
    pub(super) fn step_task(&mut self, index: usize) -> Result<(), Halt> {
        let Some(task) = self.tasks.get_mut(index) else { return Ok(()) };
        let Some(machine) = task.machine.as_mut() else { return Ok(()) };
        let (attempt, subtask) = (task.attempt, task.subtask);
        self.readers.iter_mut().filter(|reader| reader.task == index).for_each(|reader| reader.tried = false);
        // A loop that woke up late was in the middle of a turn when its attempt was closed.
        let turn = if task.abandoned { machine.step_late() } else { machine.step() };
        let effects = machine.take_effects();
        let ended = match turn {
            Ok(Turn::Ended) => Some(None),
            Ok(turn) => {
                task.runnable = turn == Turn::Worked;
                task.abandoned.then_some(None)
            }
            // Nobody planned it: a check inside the machines failed, and a restart would hide that.
            Err(error @ TaskError::Panicked { record: None, .. }) => {
                return Err(Halt::Failure(SimFailure::Failed { error: error.to_string() }));
            }
            Err(error) => Some(Some(error)),
        };
        if ended.is_some() {
            task.machine = None;
        }
        let mut mail: Vec<JobEvent> = Vec::new();
        for effect in effects {
            match effect {
                Effect::Part(part) => {
                    self.same_batch(&part)?;
                    self.world.faults.pass(CrashPoint::PartIn)?;
                    mail.push(JobEvent::Part(part));
                }
                Effect::Planned { subtask, splits, dry } => {
                    mail.push(JobEvent::Planned { attempt, subtask, splits, dry });
                }
                Effect::Available(_) => mail.push(JobEvent::Available { attempt }),
                Effect::SourceDone(subtask) => mail.push(JobEvent::SourceDone { attempt, subtask }),
                Effect::CloseEpoch(epoch) => mail.push(JobEvent::CloseEpoch { attempt, epoch }),
                Effect::BarrierOut(_) => self.world.faults.pass(CrashPoint::BarrierOut)?,
                Effect::Read(order) => self.reads.push(SimRead { order, rows: None, at: Timestamp::MIN }),
            }
        }
        if let Some(error) = ended {
            mail.push(JobEvent::TaskEnded { attempt, subtask, error });
        }
        if !mail.is_empty() {
            self.mail.entry(Sender::Task(attempt, subtask)).or_default().extend(mail);
        }
        Ok(())
    }

    pub(super) fn step_reader(&mut self, index: usize) {
        let Some(reader) = self.readers.get_mut(index) else { return };
        let closed = self.tasks.get(reader.task).is_none_or(|task| task.machine.is_none());
        let fetch = if closed { Fetch::Done } else { reader.fetching.step() };
        reader.tried = reader.full && fetch == Fetch::Full;
        (reader.full, reader.idle) = (fetch == Fetch::Full, fetch == Fetch::Idle);
        if fetch == Fetch::Done {
            self.readers.swap_remove(index);
        }
    }

    /// Reads rows, unless the store is shut at the moment, and some time later answers with them: much may happen in between.
    pub(super) fn step_rows(&mut self, index: usize) -> Result<(), Halt> {
        let Some(read) = self.reads.get_mut(index) else { return Ok(()) };
        if read.order.is_abandoned() {
            self.reads.swap_remove(index);
            return Ok(());
        }
        if read.rows.is_none() {
            let rows = self.share.with(|store| read.order.read.carry_out(store)).transpose();
            read.rows = rows.map_err(|error| Halt::Failure(SimFailure::Failed { error: text(&error) }))?;
            if self.world.rng.random_bool(0.4) {
                let later = Duration::from_micros(self.world.rng.random_range(0..50_000));
                read.at = self.world.clock.now().saturating_add(later);
            }
            return Ok(());
        }
        let SimRead { order, rows, .. } = self.reads.swap_remove(index);
        if self.world.failures > 0 && self.world.rng.random_bool(0.02) {
            self.world.failures -= 1;
            self.world.report.failed_reads += 1;
            order.answer(Err(StoreError::new(StoreErrorKind::Io, "read", "simulated rows", "it was to fail")));
        } else {
            order.answer(Ok(rows.unwrap_or_default()));
        }
        Ok(())
    }

    pub(super) fn step_fold(&mut self) {
        let index = self.world.rng.random_range(0..self.folds.len().max(1));
        if index < self.folds.len() {
            let job = self.folds.swap_remove(index);
            self.committer.order(CommitterOrder::Folded(job.run()));
        }
    }

    pub(super) fn step_committer(&mut self) -> Result<(), Halt> {
        let now = self.world.clock.now();
        self.committer_at = Some(now);
        match self.committer.step(now)? {
            CommitterStep::Answer(answer) => {
                if let CommitterAnswer::Failed { error, .. } = &*answer
                    && matches!(**error, CommitError::Misuse { .. } | CommitError::Damaged { .. })
                {
                    return Err(Halt::Failure(SimFailure::Failed { error: text(error.as_ref()) }));
                }
                self.mail.entry(Sender::Committer).or_default().push_back(JobEvent::Committer(*answer));
            }
            CommitterStep::Fold(job) => self.folds.push(*job),
            CommitterStep::Worked => {}
            CommitterStep::Idle(at) => self.committer_at = at,
        }
        Ok(())
    }

    pub(super) fn step_delivery(&mut self, index: usize) -> Result<(), Halt> {
        let now = self.world.clock.now();
        let Some((delivery, at)) = self.deliveries.get_mut(index) else { return Ok(()) };
        *at = Some(now);
        match delivery.step(now)? {
            DeliveryStep::Answer(DeliveryAnswer::Failed { error, .. }) => {
                return Err(Halt::Failure(SimFailure::Failed { error: text(&error) }));
            }
            DeliveryStep::Answer(answer) => {
                self.mail.entry(Sender::Delivery(index)).or_default().push_back(JobEvent::Delivery(answer));
            }
            DeliveryStep::Worked => {}
            DeliveryStep::Idle(next) => *at = next,
        }
        Ok(())
    }

    pub(super) fn deliver(&mut self, sender: Sender) -> Result<(), Halt> {
        let event = self.mail.get_mut(&sender).and_then(VecDeque::pop_front);
        self.mail.retain(|_, mail| !mail.is_empty());
        if let Some(event) = event {
            self.machine.on(event, self.world.clock.now());
            if self.machine.in_flight() >= 2 {
                self.world.report.depth_two += 1;
            }
            self.carry_out()?;
        }
        Ok(())
    }

    pub(super) fn carry_out(&mut self) -> Result<(), Halt> {
        for order in self.machine.take_orders() {
            let now = self.world.clock.now();
            match order {
                JobOrder::Committer(order) => {
                    if matches!(order, CommitterOrder::Commit { .. }) {
                        self.world.faults.pass(CrashPoint::EpochComplete)?;
                    }
                    if matches!(order, CommitterOrder::Commit { .. }) && self.world.rng.random_bool(0.05) {
                        let slow = Duration::from_micros(self.world.rng.random_range(0..100_000));
                        self.slow_until = now.saturating_add(slow);
                    }
                    self.committer.order(order);
                }
                JobOrder::Build { attempt, operators, restored, quarantined, mode } => {
                    self.build(attempt, operators, &restored, (quarantined, mode))?;
                }
                JobOrder::Sources(command) => {
                    if let SourceCommand::Go { barrier, .. } = command {
                        self.world.report.batches += 1;
                        self.going.insert((self.machine.status().attempt, barrier.epoch));
                    }
                    self.sources(|control| control.command(command));
                    if command == SourceCommand::End {
                        self.hang_at_the_end();
                    }
                }
                JobOrder::HoldSources(hold) => self.sources(|control| control.hold(hold)),
                JobOrder::Publish { attempt, mut committed } => {
                    self.world.report.epochs += 1;
                    for (delivery, at) in &mut self.deliveries {
                        let rows = committed.outbox.remove(&delivery.operator()).unwrap_or_default();
                        delivery.order(DeliveryOrder::Committed { attempt, committed: committed.epoch, rows }, now);
                        *at = Some(now);
                    }
                    self.world.faults.pass(CrashPoint::PublishAfter)?;
                }
                JobOrder::FlushSinks => self.all_deliveries(|| DeliveryOrder::Flush),
                JobOrder::FenceSinks { attempt } => self.all_deliveries(|| DeliveryOrder::Fence { attempt }),
                JobOrder::CloseAttempt { attempt } => {
                    for task in self.tasks.iter().filter(|task| task.attempt == attempt) {
                        if let Some(machine) = &task.machine {
                            machine.control().close();
                        }
                    }
                    self.readers.retain(|reader| reader.attempt != attempt);
                }
                JobOrder::Abandon { subtasks } => {
                    for task in self.tasks.iter_mut().filter(|task| subtasks.contains(&task.subtask)) {
                        task.abandoned |= task.asleep && task.machine.is_some();
                    }
                }
                JobOrder::WakeAt(at) => {
                    if at < Timestamp::MAX {
                        self.timers.insert(at);
                    }
                }
                JobOrder::Over(result) => self.over = Some(result),
            }
        }
        Ok(())
    }

    /// A micro-batch that is done again has to be the same.
    fn same_batch(&mut self, part: &Part) -> Result<(), Halt> {
        if !self.going.contains(&(part.attempt, part.epoch)) {
            return Ok(());
        }
        for at in &part.positions {
            let key = (part.epoch, at.operator, at.split.clone());
            let before = self.world.batches.entry(key).or_insert_with(|| at.position.clone());
            if *before != at.position {
                let error = format!(
                    "micro-batch {} ended at {before} in split {} first, and at {} the second time",
                    part.epoch, at.split, at.position
                );
                return Err(Halt::Failure(SimFailure::Failed { error }));
            }
        }
        Ok(())
    }

    pub(super) fn all_deliveries(&mut self, order: impl Fn() -> DeliveryOrder) {
        let now = self.world.clock.now();
        for (delivery, at) in &mut self.deliveries {
            delivery.order(order(), now);
            *at = Some(now);
        }
    }

    pub(super) fn sources(&self, command: impl Fn(&SourceControl)) {
        let attempt = self.machine.status().attempt;
        for task in self.tasks.iter().filter(|task| task.attempt == attempt) {
            if let (Some(machine), Some(source)) = (&task.machine, &task.source) {
                command(source);
                machine.control().bell.ring();
            }
        }
    }

    pub(super) fn build(
        &mut self,
        attempt: Attempt,
        operators: Vec<OperatorId>,
        restored: &Arc<Restored>,
        (quarantined, mode): (Arc<[Quarantined]>, ExecutionMode),
    ) -> Result<(), Halt> {
        self.world.report.attempts += 1;
        self.world.report.replays += u64::from(restored.plan.is_some());
        self.tasks.retain(|task| task.machine.is_some() && task.attempt != attempt);
        let now = self.world.clock.now();
        self.memory = MemoryBudget::new(self.config.state_memory);
        let spec = AttemptSpec {
            attempt,
            shard: ShardId::new(0),
            operators: operators.clone(),
            restored: Arc::clone(restored),
            quarantined,
            channel_frames: self.config.channel_frames,
            read_ahead: self.config.read_ahead,
            mode,
            epoch_interval: self.config.job.epoch_interval,
            key_groups: self.config.key_groups,
            share: self.share.clone(),
            memory: self.memory.clone(),
            metrics: MetricsLevel::Info,
            clock: Arc::new(self.world.clock.clone()),
        };
        let failed = |error: String| Halt::Failure(SimFailure::Failed { error });
        let seed = self.plan.seed(spec).map_err(|error| failed(error.to_string()))?;
        let (mut subtasks, mut sources) = (Vec::new(), Vec::new());
        for mut seed in seed.tasks {
            let subtask = seed.subtask;
            subtasks.push(subtask);
            let source = seed.source.take().map(|source| {
                sources.push(subtask);
                let (fetching, task) = (source.fetching, self.tasks.len());
                self.readers.push(SimReader { fetching, attempt, task, full: false, tried: false, idle: false });
                source.control
            });
            let machine = TaskMachine::build(seed, Arc::new(self.world.clock.clone()));
            let mut machine = machine.map_err(|error| failed(text(&error)))?;
            self.world.controls.push(machine.control().clone());
            machine.limit_slices(self.world.rng.random_range(1..40));
            let machine = Some(machine);
            let (runnable, asleep, abandoned) = (true, false, false);
            self.tasks.push(SimTask { machine, subtask, attempt, source, runnable, asleep, abandoned });
        }
        if self.deliveries.is_empty() {
            let faults: SharedFaults = Arc::clone(&self.world.faults) as _;
            let made = self.plan.deliveries(&operators, ShardId::new(0), &faults);
            self.deliveries = made.into_iter().map(|delivery| (delivery, None)).collect();
        }
        for (delivery, at) in &mut self.deliveries {
            let pending = restored.outbox.get(&delivery.operator()).cloned().unwrap_or_default();
            delivery.order(DeliveryOrder::Open { attempt, committed: restored.epoch, pending }, now);
            *at = Some(now);
        }
        self.operators = operators;
        let sinks = self.deliveries.iter().map(|(delivery, _)| delivery.operator()).collect();
        // The host answers like any other sender: the job may have changed its mind meanwhile.
        let built = JobEvent::Built { attempt, subtasks, sources, sinks };
        self.mail.entry(Sender::User).or_default().push_back(built);
        Ok(())
    }
}
