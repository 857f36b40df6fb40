//! What goes into the job machine and what comes out of it: settings, events, orders, status.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::{Part, PlannedSplit};
use crate::id::{Attempt, Epoch, ExecutionMode, OperatorId, SubtaskId};
use crate::job::committer::{CommitterAnswer, CommitterOrder};
use crate::job::error::{Ended, JobError};
use crate::job::restart::RestartPolicy;
use crate::operator::{Quarantined, SourceCommand, TaskError};
use crate::sink::DeliveryAnswer;
use crate::state::log::{Committed, Restored};
use crate::time::Timestamp;
use crate::trigger::Trigger;

/// How a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobConfig {
    /// Time between barriers. Default 100 ms; 10 ms is supported, less is experimental. Zero is refused.
    pub epoch_interval: Duration,
    /// When epochs begin, and how records pass. Default: continuous, with a barrier at every `epoch_interval`.
    pub trigger: Option<Trigger>,
    /// Whether micro-batches without records are run where the watermark has risen or a timer is due. Default true.
    pub no_data_epochs: bool,
    /// Epochs whose barrier is out and whose parts are not all in; at the bound no barrier is sent. Default 2.
    pub max_epochs_in_flight: usize,
    /// How long an epoch may take from its barrier until all parts are in. Default 10 minutes.
    pub epoch_timeout: Duration,
    /// How long a loop may take to end before it is abandoned. A job that ends well waits that long for its loops first, and
    /// closes them then. Default 10 s.
    pub stop_timeout: Duration,
    /// Committed, undelivered output of all sinks, in bytes; there the sources are held back. Default 64 MiB.
    pub max_outbox_bytes: usize,
    /// Complete epochs that wait for the committer, in bytes; there the sources are held back. Default 128 MiB.
    pub max_waiting_bytes: usize,
    /// Changed state that is not folded into rows yet, in bytes: what the log holds and what waits for the committer. There
    /// the sources are held back, and the log is folded at half of it whatever [`crate::state::log::LogLimits`] say. All of it
    /// stays in memory, and is read at every start. Default 256 MiB.
    pub max_unfolded_bytes: u64,
    /// Bytes of complete epochs in one commit; a single larger epoch goes alone. Default 32 MiB.
    pub max_commit_bytes: usize,
    /// When a failed job starts again.
    pub restart: RestartPolicy,
    /// Whether a pipeline that finished or was drained may be started again. Default false.
    pub restart_finished: bool,
}

impl Default for JobConfig {
    fn default() -> Self {
        Self {
            epoch_interval: Duration::from_millis(100),
            trigger: None,
            no_data_epochs: true,
            max_epochs_in_flight: 2,
            epoch_timeout: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(10),
            max_outbox_bytes: 64 << 20,
            max_waiting_bytes: 128 << 20,
            max_unfolded_bytes: 256 << 20,
            max_commit_bytes: 32 << 20,
            restart: RestartPolicy::default(),
            restart_finished: false,
        }
    }
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobEvent {
    /// The committer said something.
    Committer(CommitterAnswer),
    /// The host built the attempt and its loops run.
    Built {
        /// Which attempt.
        attempt: Attempt,
        /// All its subtasks.
        subtasks: Vec<SubtaskId>,
        /// Those that are sources.
        sources: Vec<SubtaskId>,
        /// Its level-2 sinks; their deliveries are open.
        sinks: Vec<OperatorId>,
    },
    /// The host could not build the attempt.
    BuildFailed {
        /// Why.
        error: JobError,
    },
    /// A subtask handed in a part.
    Part(Part),
    /// A source subtask says what it gives to the next micro-batch.
    Planned {
        /// Its attempt.
        attempt: Attempt,
        /// Which one.
        subtask: SubtaskId,
        /// What its splits give.
        splits: Vec<PlannedSplit>,
        /// Whether that is all there was.
        dry: bool,
    },
    /// A source subtask that had nothing for the next micro-batch has something.
    Available {
        /// Its attempt.
        attempt: Attempt,
    },
    /// Epochs are to begin by another trigger. Nothing is lost or done twice, and nothing restarts.
    SetTrigger(Trigger),
    /// A source subtask has nothing more.
    SourceDone {
        /// Its attempt.
        attempt: Attempt,
        /// Which one.
        subtask: SubtaskId,
    },
    /// A loop ended.
    TaskEnded {
        /// Its attempt.
        attempt: Attempt,
        /// Which one.
        subtask: SubtaskId,
        /// The failure, if it was one.
        error: Option<TaskError>,
    },
    /// A delivery said something.
    Delivery(DeliveryAnswer),
    /// Somebody wants the job stopped, by then.
    Stop {
        /// The deadline.
        deadline: Timestamp,
    },
    /// Somebody wants the sources ended and everything delivered, by then.
    Drain {
        /// The deadline.
        deadline: Timestamp,
    },
    /// Somebody wants an epoch closed now.
    CheckpointNow,
    /// A subtask wants its open epoch closed now. Nothing happens where its barrier is out.
    CloseEpoch {
        /// The attempt.
        attempt: Attempt,
        /// The epoch.
        epoch: Epoch,
    },
    /// Time has passed.
    Tick,
}

/// What the host has to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobOrder {
    /// Hand this to the committer.
    Committer(CommitterOrder),
    /// Make channels, tasks, readers and deliveries of an attempt; answer with [`JobEvent::Built`].
    Build {
        /// Its number.
        attempt: Attempt,
        /// The durable numbers of the declared operators.
        operators: Vec<OperatorId>,
        /// What it starts from.
        restored: Arc<Restored>,
        /// Records that user code is not given.
        quarantined: Arc<[Quarantined]>,
        /// How its first epoch runs.
        mode: ExecutionMode,
    },
    /// Hand this to all source subtasks.
    Sources(SourceCommand),
    /// Hold records back at the sources, or let them go on.
    HoldSources(bool),
    /// Raise the watch value: tell sinks and sources what is durable.
    Publish {
        /// The attempt.
        attempt: Attempt,
        /// What became durable.
        committed: Committed,
    },
    /// Tell the deliveries not to wait for full batches.
    FlushSinks,
    /// Close all loops and readers of the attempt.
    CloseAttempt {
        /// Which one.
        attempt: Attempt,
    },
    /// Fence the deliveries.
    FenceSinks {
        /// The next attempt.
        attempt: Attempt,
    },
    /// Leave these loops behind: they did not end in time. Their parts and effects are dropped from now on.
    Abandon {
        /// Which ones.
        subtasks: Vec<SubtaskId>,
    },
    /// Send [`JobEvent::Tick`] at this time. A later order does not cancel an earlier one.
    WakeAt(Timestamp),
    /// The job is over.
    Over(Result<Ended, JobError>),
}

/// Where a job stands, coarsely.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobPhase {
    /// The store is opened and read.
    #[default]
    Starting,
    /// Records flow.
    Running,
    /// The last epoch is on its way.
    Closing,
    /// An attempt ends.
    Ending,
    /// A restart waits for its time.
    Pausing,
    /// Nothing runs any more.
    Over,
}

/// Why the sources are held back. Barriers pass all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Held {
    /// Sinks have too much committed output to take: [`JobConfig::max_outbox_bytes`].
    Outbox,
    /// The disk has too many complete epochs to write: [`JobConfig::max_waiting_bytes`].
    Commit,
    /// Too much changed state is not folded into rows: [`JobConfig::max_unfolded_bytes`].
    Fold,
    /// The keys in memory, or what of them the open epoch has changed, have reached their part of
    /// [`RuntimeBuilder::state_memory`](crate::runtime::RuntimeBuilder::state_memory).
    Memory,
}

/// What is known of a job.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct JobStatus {
    /// Where it stands.
    pub phase: JobPhase,
    /// The attempt that runs or ran last.
    pub attempt: Attempt,
    /// How the epoch runs whose barrier comes next.
    pub mode: ExecutionMode,
    /// The epoch that the attempt was restored from.
    pub restored: Epoch,
    /// The last committed epoch.
    pub committed: Epoch,
    /// How often the job was restarted.
    pub restarts: u64,
    /// Barriers that were due and not sent because too many epochs were in flight.
    pub skipped_triggers: u64,
    /// Parts of other attempts that were dropped.
    pub dropped_parts: u64,
    /// Loops that did not end in time.
    pub abandoned: u64,
    /// Committed output that is not delivered, in bytes.
    pub outbox_bytes: usize,
    /// Complete epochs that wait for the disk or are being written, in bytes.
    pub waiting_bytes: usize,
    /// Why the sources are held back, if they are.
    pub held: Option<Held>,
    /// Why epochs wait in memory, or an attempt waits to begin, if they do: the disk is full. They go on by themselves when
    /// there is room.
    pub waiting: Option<String>,
    /// Records that made two attempts panic and are given to user code no more while this job runs; the latest 64. A record that is
    /// equal to one of them, in the same operator and with the same event time, is one of them.
    pub quarantined: Arc<[Quarantined]>,
    /// The failure that ended the attempt before this one, or loops that did not end by themselves when all was done.
    pub last_failure: Option<String>,
}
