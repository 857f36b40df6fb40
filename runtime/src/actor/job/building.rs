//! How an attempt is built: its splits are listed on a worker, then its pieces are made, and let go once all of them stand.

use std::fmt;
use std::io;
use std::sync::Arc;

use actix::{Actor, Addr, AsyncContext, Context};
use tokio::sync::watch;

use super::JobActor;
use crate::actor::attempt::{Hosted, Part, Seeding};
use crate::actor::blocking::{ReaderHost, deliver};
use crate::actor::collect::AttemptCollector;
use crate::actor::message::ToJob;
use crate::actor::outlet::Outlet;
use crate::actor::system::orders;
use crate::actor::task::{LoopHost, SubtaskActor};
use crate::channel::queue;
use crate::checkpoint::SplitPosition;
use crate::error::guarded;
use crate::id::{Attempt, OperatorId, SubtaskId};
use crate::job::{JobError, JobEvent, JobStatus};
use crate::operator::TaskError;
use crate::plan::{AttemptSeed, AttemptSpec, Plan};
use crate::sink::DeliveryOrder;
use crate::state::{MemoryBudget, MemoryShares};

impl JobActor {
    /// Makes the attempt's pieces as soon as nothing of an older attempt is left: two readers of one split, or two sinks of
    /// one file, would take each other's records.
    pub(super) fn try_seed(&mut self, context: &mut Context<Self>) {
        if self.seeding.as_ref().is_none_or(|seeding| seeding.begun) {
            return;
        }
        if !self.alive.is_empty() {
            if self.clock.now() < self.leave_at {
                return;
            }
            tracing::error!(left = ?self.alive, "loops or readers did not end in time and are left behind");
            self.abandon(|_| true);
            self.alive.clear();
        }
        self.hosted = None;
        let Some(seeding) = &mut self.seeding else { return };
        seeding.begun = true;
        let attempt = seeding.attempt;
        // Afresh for every attempt: what an abandoned loop of the one before still holds is not counted.
        let memory = MemoryBudget::new(MemoryShares::of(self.config.state_memory).tables);
        self.view.set_state(self.crew.share.clone(), memory.clone());
        let spec = AttemptSpec {
            attempt,
            shard: self.config.shard,
            operators: seeding.operators.clone(),
            quarantined: Arc::clone(&seeding.quarantined),
            restored: Arc::clone(&seeding.restored),
            channel_frames: self.config.channel_frames,
            read_ahead: self.config.read_ahead,
            mode: seeding.mode,
            epoch_interval: self.config.job.epoch_interval,
            key_groups: self.config.key_groups,
            share: self.crew.share.clone(),
            memory,
            metrics: self.config.metrics,
            clock: self.clock.clone(),
        };
        let (plan, job) = (self.plan.clone(), context.address());
        // Listing splits is user code, so not here; nothing else runs on the workers now.
        let seed = move || {
            let seed = match guarded(|| plan.seed(spec)) {
                Ok(Ok(seed)) => Ok(seed),
                Ok(Err(error)) => Err(JobError::Build { source: Arc::from(error) }),
                Err(message) => Err(JobError::Build { source: Arc::new(TaskError::Panic { message }) }),
            };
            job.do_send(ToJob::Seeded { attempt, seed });
        };
        if !self.crew.workers.first().is_some_and(|worker| worker.arbiter.spawn_fn(seed)) {
            let error = io::Error::other("the first worker is gone");
            self.found.push_back(JobEvent::BuildFailed { error: JobError::Build { source: Arc::new(error) } });
            // Not from here: this is the end of a turn.
            context.notify(ToJob::Event(JobEvent::Tick));
        }
    }

    pub(super) fn seeded(
        &mut self,
        attempt: Attempt,
        seed: Result<AttemptSeed, JobError>,
        context: &mut Context<Self>,
    ) {
        let Some(seeding) = self.seeding.take_if(|seeding| seeding.attempt == attempt) else { return };
        let hosted = seed.and_then(|seed| {
            let started = self.start_attempt(&seeding, seed, &context.address());
            started.map_err(|error| JobError::Build { source: Arc::new(error) })
        });
        if let Err(error) = hosted {
            self.found.push_back(JobEvent::BuildFailed { error });
        }
        self.built();
        self.advance(context);
    }

    pub(super) fn start_attempt(&mut self, seeding: &Seeding, seed: AttemptSeed, job: &Addr<Self>) -> io::Result<()> {
        let attempt = seeding.attempt;
        self.start_deliveries(&seeding.operators, job)?;
        let (go, going) = watch::channel(false);
        let hosted = self.hosted.insert(Hosted::new(seeding, go));
        let channels = seed.channels;
        for mut seed in seed.tasks {
            let (subtask, control) = (seed.subtask, seed.control.clone());
            let source = seed.source.take();
            hosted.add(subtask, control.clone(), source.as_ref().map(|source| source.control.clone()));
            if let Some(source) = source {
                let (job, clock, fetching) = (job.clone(), Arc::clone(&self.clock), source.fetching);
                let reader = ReaderHost { attempt, subtask, control, fetching, clock, job };
                let name = format!("millstream-read-{}-{}", subtask.task, subtask.index);
                self.crew.threads.spawn(name, move || reader.run())?;
                self.alive.insert((attempt, subtask, Part::Reader));
            }
            let host = LoopHost {
                attempt,
                subtask,
                job: job.clone(),
                clock: Arc::clone(&self.clock),
                faults: Arc::clone(&self.faults),
                latency: self.config.latency,
                pollers: self.config.pollers,
                reads: self.crew.reads.clone(),
                go: going.clone(),
            };
            let worker = usize::from(subtask.index) % self.crew.workers.len().max(1);
            let gone = || io::Error::other("a worker is gone");
            let arbiter = &self.crew.workers.get(worker).ok_or_else(gone)?.arbiter;
            SubtaskActor::start_in_arbiter(arbiter, move |_| SubtaskActor::new(seed, host));
            self.alive.insert((attempt, subtask, Part::Loop));
        }
        let views = hosted.views(&self.plan);
        let told = (&self.config, Arc::clone(&self.clock));
        let collector = AttemptCollector::new(&self.plan, views.clone(), channels, told);
        self.view.set_subtasks(views);
        self.metrics.begin_attempt(Arc::new(collector));
        Ok(())
    }

    pub(super) fn start_deliveries(&mut self, operators: &[OperatorId], job: &Addr<Self>) -> io::Result<()> {
        if self.crew.deliveries.is_some() {
            return Ok(());
        }
        let mut outlets = Vec::new();
        for delivery in self.plan.deliveries(operators, self.config.shard, &self.faults) {
            let operator = delivery.operator();
            let (sender, receiver) = queue(orders());
            let (job, clock) = (job.clone(), Arc::clone(&self.clock));
            self.crew.threads.spawn(format!("millstream-sink-{operator}"), move || {
                deliver(delivery, &receiver, &job, &clock);
            })?;
            outlets.push((operator, Outlet::new(sender)));
        }
        self.crew.deliveries = Some(outlets);
        Ok(())
    }

    pub(super) fn grown(&mut self, attempt: Attempt, subtask: SubtaskId, error: Option<TaskError>) {
        let restarts = self.machine.status().restarts;
        let Some(hosted) = self.hosted.as_mut().filter(|hosted| hosted.attempt == attempt) else { return };
        match error {
            Some(source) => {
                let error = JobError::Task { subtask, restarts, source: Arc::new(source) };
                self.found.push_back(JobEvent::BuildFailed { error });
            }
            None => hosted.waiting.retain(|waiting| *waiting != subtask),
        }
        self.built();
    }

    /// Says so when all subtasks are built, and lets them go.
    pub(super) fn built(&mut self) {
        let Some(hosted) = self.hosted.as_mut().filter(|hosted| hosted.is_complete()) else { return };
        let attempt = hosted.attempt;
        let mut sinks = Vec::new();
        for (operator, outlet) in self.crew.deliveries.iter_mut().flatten() {
            let pending = hosted.restored.outbox.get(operator).cloned().unwrap_or_default();
            outlet.send(DeliveryOrder::Open { attempt, committed: hosted.restored.epoch, pending });
            sinks.push(*operator);
        }
        say_where_it_begins(&self.plan, &self.machine.status(), hosted);
        let (subtasks, sources) = (hosted.subtasks(), hosted.sources());
        self.found.push_back(JobEvent::Built { attempt, subtasks, sources, sinks });
        if self.checkpoints.is_wanted() {
            self.found.push_back(JobEvent::CheckpointNow);
        }
        // What a loop says from now on is handled after this message, so after `Built`.
        hosted.go();
    }
}

/// One line for each attempt: after a failure with its cause, always with the epoch and the positions that it goes on from.
fn say_where_it_begins(plan: &Plan, status: &JobStatus, hosted: &Hosted) {
    let (pipeline, attempt, epoch) = (plan.name(), hosted.attempt, hosted.restored.epoch);
    let positions = Positions(&hosted.restored.positions);
    match &status.last_failure {
        Some(cause) => {
            tracing::warn!(pipeline, %attempt, %epoch, %positions, cause, restarts = status.restarts, "restarted")
        }
        None => tracing::info!(pipeline, %attempt, %epoch, %positions, "started"),
    }
}

/// Positions as one line of a log: the first few, and how many there are.
struct Positions<'a>(&'a [SplitPosition]);

impl fmt::Display for Positions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        for (index, at) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{} at {}", at.split, at.position)?;
        }
        match self.0.len() {
            0 => f.write_str("the beginning"),
            count if count > SHOWN => write!(f, " and {} more", count - SHOWN),
            _ => Ok(()),
        }
    }
}
