//! [`JobHandle`]: what the outside holds of a running job.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::{JobLink, StateView, SubtaskView, block_on, refuse_async};
use crate::graph::BuildError;
use crate::id::{Epoch, SubtaskId};
use crate::job::{Ended, JobError, JobStatus};
use crate::operator::{DeadLetters, Dropped};
use crate::trigger::Trigger;

/// A running job. Cheap to clone; all clones are the same job.
///
/// **Dropping** a handle, also the last one, neither stops the job nor waits for anything: the job goes on until its input
/// ends, until it is stopped or drained, or until its [`Runtime`](crate::runtime::Runtime) is dropped.
///
/// The async methods need no particular executor. Once one of them has returned how the job ended, no thread of the job
/// is left and its store is free for the next start.
#[derive(Clone, Debug)]
pub struct JobHandle {
    link: Arc<JobLink>,
}

/// What is known of one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubtaskStatus {
    /// Which one.
    pub subtask: SubtaskId,
    /// The operators that run in it: `readings > map > counts`.
    pub task: Arc<str>,
    /// Records that came in since the attempt began.
    pub records_in: u64,
    /// Whether it waits for room in an output.
    pub blocked: bool,
    /// Records that its operators dropped on purpose since the attempt began, by operator and reason. Every operator that may
    /// drop records is here, also with 0.
    pub dropped: Vec<Dropped>,
    /// Records that its operators handed to the dead letters since the attempt began, by operator and kind; with 0 too where
    /// an operator may.
    pub dead_letters: Vec<DeadLetters>,
    /// Records whose event time was too far ahead of the clock to pull the watermark, since the attempt began. They went on
    /// with their time; see `WatermarkStrategy::max_ahead`.
    pub refused_pulls: u64,
}

impl From<SubtaskView> for SubtaskStatus {
    fn from(view: SubtaskView) -> Self {
        let SubtaskView { subtask, task, control, .. } = view;
        Self {
            subtask,
            task,
            records_in: control.records_in(),
            blocked: control.is_blocked(),
            dropped: control.dropped(),
            dead_letters: control.dead_letters(),
            refused_pulls: control.refused_pulls(),
        }
    }
}

/// What is known of a job's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateStatus {
    /// Bytes of memory that the keys in memory take, estimated.
    pub memory_bytes: u64,
    /// Bytes that they may take: half of `state_memory`.
    pub memory_limit: u64,
    /// Bytes that the store takes for caches and buffers.
    pub store_bytes: u64,
    /// Bytes of the log that are in memory because they are being folded.
    pub fold_bytes: u64,
    /// The last epoch that is folded into rows.
    pub folded_through: Epoch,
    /// Keys that a task waited for because they were not in memory, since the job was started.
    pub read_keys: u64,
    /// Keys that were evicted, since the job was started.
    pub evicted_keys: u64,
    /// Tombstones that were evicted with them.
    pub evicted_tombstones: u64,
    /// Key groups that were read whole, since the job was started.
    pub completed_groups: u64,
}

impl From<StateView> for StateStatus {
    fn from(view: StateView) -> Self {
        let StateView { share, memory } = view;
        let counters = share.counters();
        Self {
            memory_bytes: memory.used(),
            memory_limit: memory.limit(),
            store_bytes: share.with(|store| store.memory_bytes()).unwrap_or_default(),
            fold_bytes: share.fold_bytes(),
            folded_through: share.folded_through(),
            read_keys: counters.reads(),
            evicted_keys: counters.evicted_keys(),
            evicted_tombstones: counters.evicted_tombstones(),
            completed_groups: counters.completed_groups(),
        }
    }
}

impl JobHandle {
    pub(crate) const fn new(link: Arc<JobLink>) -> Self {
        Self { link }
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        self.link.pipeline()
    }

    /// What is known of the job. Never waits for data, also while an operator blocks its worker.
    pub fn status(&self) -> JobStatus {
        self.link.status()
    }

    /// What is known of each subtask, ordered by task and index; empty before the first attempt is built. After the end it
    /// says what the last attempt came to. Never waits for data.
    pub fn subtasks(&self) -> Vec<SubtaskStatus> {
        self.link.subtasks().into_iter().map(SubtaskStatus::from).collect()
    }

    /// What is known of the job's state; empty before the first attempt is built. Never waits for data.
    pub fn state(&self) -> StateStatus {
        self.link.state().map_or_else(StateStatus::default, StateStatus::from)
    }

    /// Waits until the job is over.
    ///
    /// # Errors
    /// [`JobError`] when it failed and the restart policy allows no further attempt; [`JobError::Gone`] when its
    /// runtime was dropped.
    ///
    /// # Cancel safety
    /// May be dropped at any time and called again.
    pub async fn wait(&self) -> Result<Ended, JobError> {
        self.link.over().await
    }

    /// Blocks the thread until the job is over.
    ///
    /// # Errors
    /// As [`JobHandle::wait`].
    ///
    /// # Panics
    /// Inside async code, where blocking would stall others: wherever a tokio runtime is entered, an actix System and
    /// `spawn_blocking` included. Use [`JobHandle::wait`] there.
    #[track_caller]
    pub fn join(&self) -> Result<Ended, JobError> {
        refuse_async("join", "wait()");
        block_on(self.link.over())
    }

    /// Stops the job: it closes one last epoch, commits and delivers it, and ends. The next start goes on from there and
    /// reads nothing twice. The sources are not ended: no window fires for it.
    ///
    /// Returns how the job ended; also if it had ended before, or ends in another way meanwhile.
    ///
    /// # Errors
    /// [`JobError::Deadline`] after `deadline`, with what it still waited for. The job goes on ending: what does not end
    /// within the runtime's `stop_timeout` is left behind, and [`JobHandle::wait`] says when it is over. Until then the
    /// store may be locked. Otherwise as [`JobHandle::wait`].
    ///
    /// # Cancel safety
    /// Once polled, the job is told to stop and dropping the future does not call that off. May be called again; a second
    /// deadline may only shorten the first.
    pub async fn stop(&self, deadline: Duration) -> Result<Ended, JobError> {
        self.link.end(false, deadline).await
    }

    /// Drains the job: ends its sources where they stand, as if their input were used up, so that windows fire; commits
    /// and delivers everything, and ends for good. A drained pipeline is not started again unless that is allowed.
    ///
    /// # Errors
    /// As [`JobHandle::stop`].
    ///
    /// # Cancel safety
    /// As [`JobHandle::stop`].
    pub async fn drain(&self, deadline: Duration) -> Result<Ended, JobError> {
        self.link.end(true, deadline).await
    }

    /// [`JobHandle::stop`] for threads without async code.
    ///
    /// # Errors
    /// As [`JobHandle::stop`].
    ///
    /// # Panics
    /// As [`JobHandle::join`].
    #[track_caller]
    pub fn stop_blocking(&self, deadline: Duration) -> Result<Ended, JobError> {
        refuse_async("stop_blocking", "stop(..)");
        block_on(self.link.end(false, deadline))
    }

    /// [`JobHandle::drain`] for threads without async code.
    ///
    /// # Errors
    /// As [`JobHandle::stop`].
    ///
    /// # Panics
    /// As [`JobHandle::join`].
    #[track_caller]
    pub fn drain_blocking(&self, deadline: Duration) -> Result<Ended, JobError> {
        refuse_async("drain_blocking", "drain(..)");
        block_on(self.link.end(true, deadline))
    }

    /// Lets epochs begin by another trigger from now on: from continuous to micro-batches, back, or to another interval. The barrier
    /// of the open epoch carries the change to all operators, so nothing restarts, and nothing is lost or done twice. Returns at once;
    /// [`JobStatus::mode`] tells when it is done. The next start goes by the pipeline's own trigger again.
    ///
    /// # Errors
    /// [`BuildError::OutOfRange`] for an interval that is too short.
    pub fn set_trigger(&self, trigger: Trigger) -> Result<(), BuildError> {
        if let Some((given, least)) = trigger.too_short() {
            let range = if least < Duration::from_secs(1) { "at least 1 ms" } else { "at least 5 s" };
            return Err(BuildError::OutOfRange { what: "the trigger's interval", given: format!("{given:?}"), range });
        }
        self.link.set_trigger(trigger);
        Ok(())
    }

    /// Closes an epoch now, without waiting for its time, and returns the last committed epoch once one whose barrier was
    /// sent after this call is among them: everything that a source had handed on before the call is durable then.
    ///
    /// Goes on over restarts. A job that ends well in the meantime answers with its last epoch.
    ///
    /// # Errors
    /// As [`JobHandle::wait`].
    ///
    /// # Cancel safety
    /// Once polled, the epoch is closed even if the future is dropped.
    pub async fn checkpoint_now(&self) -> Result<Epoch, JobError> {
        self.link.checkpoint().await
    }
}
