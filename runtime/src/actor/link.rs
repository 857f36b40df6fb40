//! The line from a job's handles to its actor, and what can be read without asking it.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use actix::Addr;
use tokio::sync::{oneshot, watch};

use crate::actor::config::RuntimeConfig;
use crate::actor::job::JobActor;
use crate::actor::message::ToJob;
use crate::id::{Epoch, SubtaskId};
use crate::job::{Ended, Held, JobError, JobPhase, JobStatus, JobTally};
use crate::operator::{SourceControl, TaskControl};
use crate::plan::Plan;
#[cfg(feature = "status")]
use crate::plan::Topology;
use crate::state::MemoryBudget;
use crate::state::store::StoreShare;
use crate::trigger::Trigger;

/// One subtask as the outside sees it.
#[derive(Clone, Debug)]
pub(crate) struct SubtaskView {
    pub(crate) subtask: SubtaskId,
    /// Names of the task's operators.
    pub(crate) task: Arc<str>,
    pub(crate) control: TaskControl,
    /// Where the job's orders to it are, if it reads a source.
    pub(crate) source: Option<SourceControl>,
}

/// What the job actor leaves behind for readers after every event.
#[derive(Debug, Default)]
pub(super) struct View {
    status: Mutex<JobStatus>,
    subtasks: Mutex<Vec<SubtaskView>>,
    state: Mutex<Option<StateView>>,
    tally: Mutex<JobTally>,
}

/// The state of a job as the outside sees it.
#[derive(Clone, Debug)]
pub(crate) struct StateView {
    pub(crate) share: StoreShare,
    pub(crate) memory: MemoryBudget,
}

impl View {
    pub(super) fn set_status(&self, status: JobStatus) {
        *lock(&self.status) = status;
    }

    pub(super) fn set_state(&self, share: StoreShare, memory: MemoryBudget) {
        *lock(&self.state) = Some(StateView { share, memory });
    }

    pub(super) fn set_tally(&self, tally: JobTally) {
        *lock(&self.tally) = tally;
    }

    pub(super) fn tally(&self) -> JobTally {
        lock(&self.tally).clone()
    }

    pub(super) fn state(&self) -> Option<StateView> {
        lock(&self.state).clone()
    }

    pub(super) fn set_subtasks(&self, subtasks: Vec<SubtaskView>) {
        *lock(&self.subtasks) = subtasks;
    }
}

/// How far a job is with ending.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Deadlines that were missed.
    pub(super) missed: u64,
    /// What the last of them waited for.
    pub(super) late: Option<JobError>,
    /// All threads are gone and the lock is free.
    pub(super) over: Option<Result<Ended, JobError>>,
}

/// The jobs of a runtime, those that have ended lately among them.
pub(crate) type JobList = Arc<Mutex<Vec<Arc<JobLink>>>>;

/// One running job.
pub(crate) struct JobLink {
    pipeline: String,
    /// Not the plan: that keeps connectors alive, and who waits for one to be gone would wait for this handle.
    #[cfg(feature = "status")]
    topology: Topology,
    config: RuntimeConfig,
    job: Addr<JobActor>,
    view: Arc<View>,
    progress: watch::Receiver<Progress>,
    /// Taken by the first who sees the job over.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for JobLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLink")
            .field("pipeline", &self.pipeline())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl JobLink {
    pub(super) fn new(
        (plan, config): (&Plan, RuntimeConfig),
        job: Addr<JobActor>,
        view: Arc<View>,
        progress: watch::Receiver<Progress>,
        thread: JoinHandle<()>,
    ) -> Self {
        Self {
            pipeline: plan.name().to_owned(),
            #[cfg(feature = "status")]
            topology: Topology::of(plan),
            config,
            job,
            view,
            progress,
            thread: Mutex::new(Some(thread)),
        }
    }

    pub(crate) fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// What runs.
    #[cfg(feature = "status")]
    pub(crate) const fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How it runs.
    #[cfg(feature = "status")]
    pub(crate) const fn config(&self) -> &RuntimeConfig {
        &self.config
    }

    /// What it has counted.
    #[cfg(feature = "status")]
    pub(crate) fn tally(&self) -> JobTally {
        self.view.tally()
    }

    pub(crate) fn status(&self) -> JobStatus {
        let mut status = lock(&self.view.status).clone();
        // Sources look at the memory themselves, without the job.
        if status.held.is_none() && status.phase == JobPhase::Running {
            let is_closed = lock(&self.view.state).as_ref().is_some_and(|state| state.memory.is_closed());
            status.held = is_closed.then_some(Held::Memory);
        }
        status
    }

    pub(crate) fn subtasks(&self) -> Vec<SubtaskView> {
        lock(&self.view.subtasks).clone()
    }

    pub(crate) fn state(&self) -> Option<StateView> {
        lock(&self.view.state).clone()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.progress.borrow().over.is_some()
    }

    /// Ends the job without another commit.
    pub(crate) fn quit(&self) {
        self.job.do_send(ToJob::Quit);
    }

    /// Waits until nothing of the job is left.
    pub(crate) async fn over(&self) -> Result<Ended, JobError> {
        let mut progress = self.progress.clone();
        let over = match progress.wait_for(|progress| progress.over.is_some()).await {
            Ok(progress) => progress.over.clone(),
            // The control thread died without a word.
            Err(_) => None,
        };
        self.join_thread();
        over.unwrap_or(Err(JobError::Gone))
    }

    /// Ends the job, and waits until nothing of it is left or the deadline is missed.
    pub(crate) async fn end(&self, drain: bool, within: Duration) -> Result<Ended, JobError> {
        let mut progress = self.progress.clone();
        let missed = progress.borrow().missed;
        self.job.do_send(ToJob::End { drain, within });
        let late = match progress.wait_for(|now| now.over.is_some() || now.missed > missed).await {
            Ok(progress) if progress.over.is_none() => progress.late.clone(),
            _ => None,
        };
        match late {
            Some(error) => Err(error),
            None => self.over().await,
        }
    }

    pub(crate) fn set_trigger(&self, trigger: Trigger) {
        self.job.do_send(ToJob::SetTrigger(trigger));
    }

    pub(crate) async fn checkpoint(&self) -> Result<Epoch, JobError> {
        let (answer, answered) = oneshot::channel();
        self.job.do_send(ToJob::Checkpoint(answer));
        match answered.await {
            Ok(answer) => answer,
            // It was over before it could be asked.
            Err(_) => self.over().await.map(Ended::epoch),
        }
    }

    /// To say that it is over was the control thread's last act; once it is joined no thread of the job is left.
    fn join_thread(&self) {
        let mut thread = lock(&self.thread);
        // A waker may run its future on the thread that rings it: nobody joins himself.
        if thread.as_ref().is_some_and(|thread| thread.thread().id() == std::thread::current().id()) {
            return;
        }
        if let Some(thread) = thread.take() {
            drop(thread.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is replaced whole, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future without an executor.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Refuses to block a thread that runs async code.
///
/// # Panics
/// Inside async code.
#[track_caller]
pub(crate) fn refuse_async(called: &str, instead: &str) {
    assert!(
        tokio::runtime::Handle::try_current().is_err(),
        "JobHandle::{called} blocks its thread and was called inside async code; use JobHandle::{instead}.await there"
    );
}
