//! One subtask: a shell actor, and beside it the data loop that owns the machine.
//!
//! The loop is a local task of its own, not a handler: a handler that waits freezes its mailbox.

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, WrapFuture};
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::actor::config::LatencyPolicy;
use crate::actor::job::JobActor;
use crate::actor::message::ToJob;
use crate::actor::rows::RowReads;
use crate::actor::waiter::Waiter;
use crate::error::{guarded, panic_text};
use crate::fault::{CrashPoint, Crashed, SharedFaults};
use crate::id::{Attempt, SubtaskId};
use crate::job::JobEvent;
use crate::operator::{Effect, TaskError};
use crate::plan::TaskSeed;
use crate::task::{TaskMachine, Turn};
use crate::time::{SharedClock, Timestamp};

/// Turns in a row before the siblings on this worker get theirs.
const TURNS: u32 = 16;

/// What a loop needs besides its seed.
#[derive(Clone)]
pub(super) struct LoopHost {
    pub(super) attempt: Attempt,
    pub(super) subtask: SubtaskId,
    pub(super) job: Addr<JobActor>,
    pub(super) clock: SharedClock,
    pub(super) faults: SharedFaults,
    pub(super) latency: LatencyPolicy,
    pub(super) pollers: usize,
    /// Takes the questions of tasks for rows.
    pub(super) reads: RowReads,
    /// Turns true when all subtasks are built; closed when the attempt ends before that.
    pub(super) go: watch::Receiver<bool>,
}

/// The shell: starts the loop and reports how it ended.
pub(super) struct SubtaskActor {
    host: LoopHost,
    seed: Option<TaskSeed>,
}

impl SubtaskActor {
    pub(super) const fn new(seed: TaskSeed, host: LoopHost) -> Self {
        Self { host, seed: Some(seed) }
    }

    fn ended(&self, ended: Result<Option<TaskError>, JoinError>) {
        let error = match ended {
            Ok(error) => error,
            // Not a turn, those are caught: dropping the machine panicked.
            Err(error) => match error.try_into_panic() {
                Ok(payload) => Some(TaskError::Panic { message: panic_text(payload.as_ref()) }),
                // The worker is being stopped, and nobody listens.
                Err(_) => return,
            },
        };
        let LoopHost { attempt, subtask, job, .. } = &self.host;
        job.do_send(ToJob::LoopEnded { attempt: *attempt, subtask: *subtask, error });
    }
}

impl Actor for SubtaskActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        let Some(seed) = self.seed.take() else { return context.stop() };
        let data_loop = actix::spawn(run(seed, self.host.clone()));
        context.spawn(data_loop.into_actor(self).map(|ended, shell, context| {
            shell.ended(ended);
            context.stop();
        }));
    }
}

async fn run(seed: TaskSeed, mut host: LoopHost) -> Option<TaskError> {
    let clock = host.clock.clone();
    let grown = guarded(|| TaskMachine::build(seed, clock));
    let (attempt, subtask) = (host.attempt, host.subtask);
    let (machine, error) = match grown {
        Ok(Ok(machine)) => (Some(machine), None),
        Ok(Err(error)) => (None, Some(error)),
        Err(message) => (None, Some(TaskError::Panic { message })),
    };
    host.job.do_send(ToJob::Grown { attempt, subtask, error });
    let mut machine = machine?;
    // Before all are built nobody moves: the job would not know a part or an end of a source yet.
    if host.go.wait_for(|go| *go).await.is_err() {
        return None;
    }
    let failed = drive(&mut machine, &host).await.err();
    // Dropping is user code too, and must not hide what went wrong before.
    match (failed, guarded(|| drop(machine))) {
        (Some(error), Err(message)) => {
            tracing::warn!(%subtask, panic = message, "dropping a task that failed panicked too");
            Some(error)
        }
        (failed, dropped) => failed.or(dropped.err().map(|message| TaskError::Panic { message })),
    }
}

async fn drive(machine: &mut TaskMachine, host: &LoopHost) -> Result<(), TaskError> {
    let bell = machine.control().bell.clone();
    // The alarm that was set last: one per change, not per turn.
    let mut alarm = Timestamp::MIN;
    let mut waiter = Waiter::new(host.latency, host.pollers, host.clock.clone());
    loop {
        // Answer first, then look for work: what comes in between rings again.
        bell.answer();
        let mut turns = 0;
        let turn = loop {
            turns += 1;
            let turn = guarded(|| machine.step()).map_err(|message| TaskError::Panic { message })??;
            for effect in machine.take_effects() {
                if let Err(crashed) = carry_out(effect, host) {
                    host.job.do_send(ToJob::Crashed(crashed));
                    return Ok(());
                }
            }
            if turn != Turn::Worked || turns == TURNS {
                break turn;
            }
        };
        if let Some(at) = machine.wakes_at()
            && at != alarm
        {
            alarm = at;
            host.job.do_send(ToJob::WakeTask { at, bell: bell.clone() });
        }
        match turn {
            Turn::Worked => tokio::task::yield_now().await,
            Turn::Idle | Turn::Blocked => waiter.wait(&bell).await,
            Turn::Ended => return Ok(()),
        }
    }
}

fn carry_out(effect: Effect, host: &LoopHost) -> Result<(), Crashed> {
    match effect {
        Effect::Part(part) => {
            host.faults.pass(CrashPoint::PartIn)?;
            host.job.do_send(ToJob::Event(JobEvent::Part(part)));
        }
        Effect::Planned { subtask, splits, dry } => {
            let attempt = host.attempt;
            host.job.do_send(ToJob::Event(JobEvent::Planned { attempt, subtask, splits, dry }));
        }
        Effect::Available(_) => host.job.do_send(ToJob::Event(JobEvent::Available { attempt: host.attempt })),
        Effect::SourceDone(subtask) => {
            let attempt = host.attempt;
            host.job.do_send(ToJob::Event(JobEvent::SourceDone { attempt, subtask }));
        }
        Effect::CloseEpoch(epoch) => {
            host.job.do_send(ToJob::Event(JobEvent::CloseEpoch { attempt: host.attempt, epoch }));
        }
        Effect::BarrierOut(_) => host.faults.pass(CrashPoint::BarrierOut)?,
        Effect::Read(order) => host.reads.ask(order),
    }
    Ok(())
}
