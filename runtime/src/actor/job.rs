//! The job actor: hosts the job machine. Messages become events, orders become deeds; it decides nothing itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, SpawnHandle};
use tokio::sync::{oneshot, watch};

use crate::actor::attempt::{Hosted, Part, Seeding};
use crate::actor::checkpoints::Checkpoints;
use crate::actor::config::RuntimeConfig;
use crate::actor::link::{Progress, View};
use crate::actor::message::ToJob;
use crate::actor::outlet::{Acknowledged, Outlet};
use crate::actor::rows::RowReads;
use crate::actor::threads::{Threads, Worker};
use crate::channel::Bell;
use crate::fault::{CrashPoint, Crashed, SharedFaults};
use crate::id::{Attempt, OperatorId, SubtaskId};
use crate::job::{CommitterAnswer, CommitterOrder, Ended, JobError, JobEvent, JobMachine, JobOrder};
use crate::metrics::{PipelineMetrics, PipelineState};
use crate::operator::{SourceCommand, TaskError};
use crate::plan::Plan;
use crate::sink::DeliveryOrder;
use crate::state::log::{Committed, RecoveryError};
use crate::state::store::{StoreError, StoreErrorKind, StoreShare};
use crate::time::{SharedClock, Timestamp};

mod building;

/// Longest sleep of the timer: the clock may be one that is set by hand.
const LONGEST_NAP: Duration = Duration::from_secs(3600);
/// When an outlet that found its queue full is tried again.
const OUTLET_RETRY: Duration = Duration::from_millis(1);

/// The threads that the job commands.
pub(super) struct Crew {
    pub(super) threads: Rc<Threads>,
    pub(super) workers: Vec<Worker>,
    pub(super) committer: Outlet<CommitterOrder>,
    pub(super) acks: Outlet<Acknowledged>,
    /// The way to the threads that read rows for tasks.
    pub(super) reads: RowReads,
    pub(super) share: StoreShare,
    /// Made at the first build, when the sinks' numbers are known.
    pub(super) deliveries: Option<Vec<(OperatorId, Outlet<DeliveryOrder>)>>,
}

impl Crew {
    fn flush(&mut self) -> bool {
        let mut empty = self.committer.flush() & self.acks.flush();
        for (_, outlet) in self.deliveries.iter_mut().flatten() {
            empty &= outlet.flush();
        }
        empty
    }

    fn tell_sinks(&mut self, order: impl Fn() -> DeliveryOrder) {
        for (_, outlet) in self.deliveries.iter_mut().flatten() {
            outlet.send(order());
        }
    }
}

/// See the module.
pub(super) struct JobActor {
    machine: JobMachine,
    plan: Plan,
    config: RuntimeConfig,
    clock: SharedClock,
    faults: SharedFaults,
    crew: Crew,
    progress: Arc<watch::Sender<Progress>>,
    view: Arc<View>,
    metrics: PipelineMetrics,
    /// Taken when the job is over.
    over: Option<oneshot::Sender<Result<Ended, JobError>>>,
    /// An attempt whose pieces are being made, or wait until what is left of the one before has gone.
    seeding: Option<Seeding>,
    /// The attempt whose pieces there are.
    hosted: Option<Hosted>,
    /// Loops and readers that have not ended, of all attempts.
    alive: BTreeSet<(Attempt, SubtaskId, Part)>,
    /// When the loops and readers of a closed attempt are left behind.
    leave_at: Timestamp,
    checkpoints: Checkpoints,
    /// Events that the host itself came upon.
    found: VecDeque<JobEvent>,
    wakes: BTreeSet<Timestamp>,
    /// Bells of tasks whose timers are due then.
    alarms: BTreeMap<Timestamp, Vec<Bell>>,
    armed: Option<(Timestamp, SpawnHandle)>,
    retrying: bool,
    worker_number: u32,
}

impl JobActor {
    pub(super) fn new(
        (plan, config): (Plan, RuntimeConfig),
        (clock, faults): (SharedClock, SharedFaults),
        crew: Crew,
        (progress, view, metrics): (Arc<watch::Sender<Progress>>, Arc<View>, PipelineMetrics),
        over: oneshot::Sender<Result<Ended, JobError>>,
    ) -> Self {
        let mut machine = JobMachine::new(config.job);
        machine.begins_at(clock.now());
        Self {
            machine,
            plan,
            worker_number: u32::from(config.workers),
            config,
            clock,
            faults,
            crew,
            progress,
            view,
            metrics,
            over: Some(over),
            seeding: None,
            hosted: None,
            alive: BTreeSet::new(),
            leave_at: Timestamp::MAX,
            checkpoints: Checkpoints::default(),
            found: VecDeque::new(),
            wakes: BTreeSet::new(),
            alarms: BTreeMap::new(),
            armed: None,
            retrying: false,
        }
    }

    fn on(&mut self, event: JobEvent, context: &mut Context<Self>) {
        self.found.push_back(event);
        self.advance(context);
    }

    /// Feeds the machine and carries out its orders until there are none.
    fn advance(&mut self, context: &mut Context<Self>) {
        loop {
            for order in self.machine.take_orders() {
                self.carry_out(order, context);
            }
            let Some(event) = self.found.pop_front() else { break };
            self.machine.on(event, self.clock.now());
            if let Some(error) = self.machine.take_late() {
                self.late(error);
            }
        }
        self.try_seed(context);
        self.show();
        if !self.crew.flush() && !self.retrying {
            self.retrying = true;
            context.run_later(OUTLET_RETRY, |actor, context| {
                actor.retrying = false;
                actor.advance(context);
            });
        }
        self.arm(context);
    }

    /// Lets others see what the machine knows now.
    fn show(&mut self) {
        self.view.set_status(self.machine.status());
        if let Some(tally) = self.machine.take_tally() {
            self.view.set_tally(tally);
        }
    }

    fn carry_out(&mut self, order: JobOrder, context: &mut Context<Self>) {
        match order {
            JobOrder::Committer(order) => {
                if matches!(order, CommitterOrder::Commit { .. })
                    && let Err(crashed) = self.faults.pass(CrashPoint::EpochComplete)
                {
                    return self.crashed(crashed);
                }
                self.crew.committer.send(order);
            }
            JobOrder::Build { attempt, operators, restored, quarantined, mode } => {
                self.seeding = Some(Seeding { attempt, operators, restored, quarantined, mode, begun: false });
            }
            JobOrder::Sources(command) => {
                if let SourceCommand::Barrier { barrier, .. } | SourceCommand::Go { barrier, .. } = command {
                    self.checkpoints.barrier(barrier.epoch);
                }
                self.hosted.iter().for_each(|hosted| hosted.command(command));
            }
            JobOrder::HoldSources(held) => self.hosted.iter().for_each(|hosted| hosted.hold(held)),
            JobOrder::Publish { attempt, committed } => self.publish(attempt, committed),
            JobOrder::FlushSinks => self.crew.tell_sinks(|| DeliveryOrder::Flush),
            JobOrder::CloseAttempt { .. } => {
                self.seeding = None;
                self.checkpoints.attempt_over();
                self.alarms.clear();
                self.hosted.iter_mut().for_each(Hosted::close);
                self.leave_at = self.clock.now().saturating_add(self.config.job.stop_timeout);
                self.wakes.insert(self.leave_at);
            }
            JobOrder::FenceSinks { attempt } => self.crew.tell_sinks(|| DeliveryOrder::Fence { attempt }),
            JobOrder::Abandon { subtasks } => self.abandon(|subtask| subtasks.contains(&subtask)),
            JobOrder::WakeAt(at) => {
                if at < Timestamp::MAX {
                    self.wakes.insert(at);
                }
            }
            JobOrder::Over(result) => self.finish(result, context),
        }
    }

    fn loop_ended(&mut self, attempt: Attempt, subtask: SubtaskId, error: Option<TaskError>) {
        self.alive.remove(&(attempt, subtask, Part::Loop));
        let hosted = self.hosted.as_mut().filter(|hosted| hosted.attempt == attempt);
        // A loop that was let go is reported once; what comes of one that was abandoned is nobody's any more.
        if hosted.is_some_and(|hosted| hosted.ended(subtask)) {
            self.found.push_back(JobEvent::TaskEnded { attempt, subtask, error });
        }
    }

    fn reader_ended(&mut self, attempt: Attempt, subtask: SubtaskId, panic: Option<String>) {
        self.alive.remove(&(attempt, subtask, Part::Reader));
        let Some(message) = panic else { return };
        let Some(hosted) = self.hosted.as_mut().filter(|hosted| hosted.attempt == attempt) else { return };
        if hosted.is_closed() {
            return;
        }
        let error = TaskError::Panic { message };
        if !hosted.is_going() {
            let restarts = self.machine.status().restarts;
            let error = JobError::Task { subtask, restarts, source: Arc::new(error) };
            self.found.push_back(JobEvent::BuildFailed { error });
        } else if hosted.ended(subtask) {
            self.found.push_back(JobEvent::TaskEnded { attempt, subtask, error: Some(error) });
        }
    }

    fn publish(&mut self, attempt: Attempt, mut committed: Committed) {
        // Who sees the rows, or is answered, finds the epoch in the status.
        self.show();
        let epoch = committed.epoch;
        for (operator, outlet) in self.crew.deliveries.iter_mut().flatten() {
            // Without rows too: the sink is that far all the same.
            let rows = committed.outbox.remove(operator).unwrap_or_default();
            outlet.send(DeliveryOrder::Committed { attempt, committed: epoch, rows });
        }
        let mut positions: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for at in committed.positions {
            positions.entry(at.operator).or_default().insert(at.split, at.position);
        }
        if let Some(hosted) = &self.hosted
            && !positions.is_empty()
        {
            self.crew.acks.send(Acknowledged { operators: hosted.operators.clone(), positions });
        }
        self.checkpoints.committed(epoch);
        if let Err(crashed) = self.faults.pass(CrashPoint::PublishAfter) {
            self.crashed(crashed);
        }
    }

    /// Leaves loops behind together with their workers, whose threads hang in user code. Others take their places.
    fn abandon(&mut self, left: impl Fn(SubtaskId) -> bool) {
        let mut hung = BTreeSet::new();
        let workers = self.crew.workers.len().max(1);
        self.alive.retain(|(_, subtask, part)| {
            let leave = *part == Part::Loop && left(*subtask);
            if leave {
                hung.insert(usize::from(subtask.index) % workers);
            }
            !leave
        });
        self.hosted.iter_mut().for_each(|hosted| hosted.forget(&left));
        for index in hung {
            let Some(worker) = self.crew.workers.get_mut(index) else { continue };
            self.crew.threads.leave_behind(&worker.name);
            let name = format!("millstream-work-{}", self.worker_number);
            self.worker_number += 1;
            match Worker::spawn(name, &self.crew.threads) {
                Ok(new) => *worker = new,
                Err(error) => tracing::error!(%error, worker = worker.name, "cannot replace a worker that hangs"),
            }
        }
    }

    /// A test host's world ended and came back; or it is a committer that cannot go on: no restart mends that.
    fn crashed(&mut self, crashed: Crashed) {
        self.refused(RecoveryError::Crashed(crashed));
    }

    fn refused(&mut self, error: RecoveryError) {
        self.found.push_back(JobEvent::Committer(CommitterAnswer::Refused(Arc::new(error))));
    }

    fn late(&self, error: JobError) {
        self.progress.send_modify(|progress| {
            progress.missed += 1;
            progress.late = Some(error);
        });
    }

    fn finish(&mut self, result: Result<Ended, JobError>, context: &mut Context<Self>) {
        let Some(over) = self.over.take() else { return };
        if let Some(error) = self.machine.take_late() {
            self.late(error);
        }
        self.show();
        if result.is_ok() {
            self.metrics.ends_as(PipelineState::Finished);
        }
        self.checkpoints.over(&result);
        self.seeding = None;
        self.hosted = None;
        if let Some((_, timer)) = self.armed.take() {
            context.cancel_future(timer);
        }
        // The control thread goes on from here; what is still in the mailbox is nobody's any more.
        let _ = over.send(result);
    }

    fn ring_alarms(&mut self, now: Timestamp) {
        while let Some(first) = self.alarms.first_entry().filter(|first| *first.key() <= now) {
            first.remove().iter().for_each(Bell::ring);
        }
    }

    /// One timer, for the earliest time that was ordered.
    fn arm(&mut self, context: &mut Context<Self>) {
        let alarm = self.alarms.first_key_value().map(|(at, _)| *at);
        let Some(first) = self.wakes.first().copied().into_iter().chain(alarm).min() else { return };
        if let Some((at, timer)) = self.armed {
            if at <= first {
                return;
            }
            context.cancel_future(timer);
        }
        let nap = first.saturating_since(self.clock.now()).min(LONGEST_NAP);
        let timer = context.run_later(nap, |actor, context| {
            actor.armed = None;
            let now = actor.clock.now();
            actor.ring_alarms(now);
            let later = actor.wakes.split_off(&now.saturating_add(Duration::from_micros(1)));
            if !std::mem::replace(&mut actor.wakes, later).is_empty() && actor.over.is_some() {
                return actor.on(JobEvent::Tick, context);
            }
            actor.arm(context);
        });
        self.armed = Some((first, timer));
    }
}

impl Actor for JobActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        self.advance(context);
    }
}

impl Handler<ToJob> for JobActor {
    type Result = ();

    fn handle(&mut self, message: ToJob, context: &mut Context<Self>) {
        if self.over.is_none() {
            return;
        }
        match message {
            ToJob::Event(event) => self.found.push_back(event),
            ToJob::Seeded { attempt, seed } => return self.seeded(attempt, seed, context),
            ToJob::Grown { attempt, subtask, error } => self.grown(attempt, subtask, error),
            ToJob::LoopEnded { attempt, subtask, error } => self.loop_ended(attempt, subtask, error),
            ToJob::ReaderEnded { attempt, subtask, panic } => self.reader_ended(attempt, subtask, panic),
            ToJob::Crashed(crashed) => self.crashed(crashed),
            ToJob::CommitterPanicked(text) => {
                let text = format!("the committer panicked: {text}");
                self.refused(StoreError::new(StoreErrorKind::Misuse, "go on", self.plan.name(), text).into());
            }
            ToJob::WakeTask { at, bell } => {
                self.alarms.entry(at).or_default().push(bell);
                return self.arm(context);
            }
            ToJob::End { drain, within } => {
                let deadline = self.clock.now().saturating_add(within);
                self.found.push_back(match drain {
                    true => JobEvent::Drain { deadline },
                    false => JobEvent::Stop { deadline },
                });
            }
            ToJob::SetTrigger(trigger) => self.found.push_back(JobEvent::SetTrigger(trigger)),
            ToJob::Checkpoint(answer) => {
                self.checkpoints.ask(answer);
                self.found.push_back(JobEvent::CheckpointNow);
            }
            ToJob::Quit => return self.finish(Err(JobError::Gone), context),
        }
        self.advance(context);
    }
}
