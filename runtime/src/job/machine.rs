//! The job machine: attempts, epochs in flight, fences, timeouts. Events in, orders out.
//!
//! ```text
//!   Starting --began--> Building --built--> Running --last epoch out--> Closing --committed, delivered--> Ending(done)
//!      ^                    |                  |                           |                                   |
//!      |                    +----- failure ----+---------- failure --------+--> Ending(failed)                 |
//!      |                                                                             |                         |
//!      +------ Pausing <---- all gone, a restart is left ----------------------------+--- none left --> Over <-+
//! ```
//! When everything is committed and delivered, loops end by the end mark. Those that do not within `stop_timeout` are closed like
//! those of an attempt that failed, and what the job was to do is done all the same.
//!
//! **Ending an attempt**, in this order: (1) sources and gates close; (2) a fence goes through the committer's own queue and is
//! answered after the write in flight returned; (3) every sink's delivery answers the same fence; (4) loops end, and one
//! that does not within `stop_timeout` is abandoned; (5) only then the manifest is read and the next attempt starts.

mod advance;
mod batching;
mod ending;
mod failures;
mod tally;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crate::canary::{Canary, planted};
use crate::checkpoint::{Closing, Delivered, EpochBundle, EpochCoordinator, Part, Reported};
use crate::id::{Attempt, Epoch, ExecutionMode, OperatorId, SubtaskId};
use crate::job::committer::{CommitterAnswer, CommitterOrder};
use crate::job::error::{Ended, JobError};
use crate::job::protocol::{JobConfig, JobEvent, JobOrder, JobPhase, JobStatus};
use crate::job::quarantine::Suspects;
use crate::job::restart::Restarts;
use crate::mode::Batches;
use crate::operator::TaskError;
use crate::sink::{DeliveryAnswer, SinkErrorKind};
use crate::state::log::Restored;
use crate::time::Timestamp;
use crate::trigger::Trigger;

use self::ending::error_text;
pub(crate) use self::failures::{FailureKind, RestartReason};
#[cfg(feature = "status")]
pub(crate) use self::tally::Checkpointed;
use self::tally::Tallying;
pub(crate) use self::tally::{JobTally, PartPhase};

#[derive(Debug)]
enum Phase {
    Starting,
    Building,
    Running,
    Closing(Last),
    Ending(Ending),
    Pausing { until: Timestamp },
    Over,
}

/// The last epoch of an attempt that ends well.
#[derive(Clone, Copy, Debug)]
struct Last {
    closing: Option<Closing>,
    /// Set when its barrier is out.
    epoch: Option<Epoch>,
    /// Everything is committed and delivered, and the end was sent; until then the loops may take to end by it.
    end_sent: Option<Timestamp>,
}

#[derive(Debug)]
struct Ending {
    outcome: Outcome,
    next: Attempt,
    committer: bool,
    sinks: BTreeSet<OperatorId>,
    tasks: BTreeSet<SubtaskId>,
    give_up: Timestamp,
}

#[derive(Debug)]
enum Outcome {
    Done(Ended),
    Failed { error: JobError, restart: bool },
}

/// The machine. See the module.
#[derive(Debug)]
pub struct JobMachine {
    config: JobConfig,
    phase: Phase,
    attempt: Attempt,
    status: JobStatus,
    restarts: Restarts,
    suspects: Suspects,
    /// The failure put a record into quarantine: the next attempt does not meet it again.
    resolved: bool,
    coordinator: EpochCoordinator,
    subtasks: BTreeSet<SubtaskId>,
    sources: BTreeSet<SubtaskId>,
    done_sources: BTreeSet<SubtaskId>,
    sinks: BTreeSet<OperatorId>,
    next_epoch: Epoch,
    barrier_at: Timestamp,
    skipped: bool,
    trigger: Trigger,
    /// How the epoch runs whose barrier comes next.
    mode: ExecutionMode,
    batches: Batches,
    /// When the sources were asked last what they have.
    asked_at: Timestamp,
    complete: VecDeque<(EpochBundle, usize)>,
    /// Bytes of the epochs that the committer has.
    committing: Option<usize>,
    /// Committed, undelivered bytes.
    outbox: BTreeMap<(OperatorId, Epoch), usize>,
    delivered: BTreeMap<OperatorId, Epoch>,
    /// Bytes of the log, as of the last commit.
    log_bytes: u64,
    flushed: bool,
    fold_asked: bool,
    wanted: Option<Wanted>,
    /// The store says that the job has ended, and some of its output is not delivered.
    resume_closing: Option<Closing>,
    /// The store says that the job has ended, and it is to go on all the same.
    reopened: bool,
    /// A loop that failed before all were built: the others have to be known before they can be waited for.
    early_failure: Option<(SubtaskId, TaskError)>,
    late: Option<JobError>,
    tallying: Tallying,
    orders: Vec<JobOrder>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    closing: Option<Closing>,
    deadline: Timestamp,
}

impl JobMachine {
    /// Begins: the first orders are there to be taken.
    pub fn new(config: JobConfig) -> Self {
        let trigger = config.trigger.unwrap_or(Trigger::Continuous(config.epoch_interval));
        let mut machine = Self {
            config,
            phase: Phase::Starting,
            attempt: Attempt::default(),
            status: JobStatus::default(),
            restarts: Restarts::default(),
            suspects: Suspects::default(),
            resolved: false,
            coordinator: EpochCoordinator::new(Attempt::default(), []),
            subtasks: BTreeSet::new(),
            sources: BTreeSet::new(),
            done_sources: BTreeSet::new(),
            sinks: BTreeSet::new(),
            next_epoch: Epoch::GENESIS,
            barrier_at: Timestamp::default(),
            skipped: false,
            trigger,
            mode: trigger.mode(),
            batches: Batches::new(trigger, config.no_data_epochs, None, false),
            asked_at: Timestamp::default(),
            complete: VecDeque::new(),
            committing: None,
            outbox: BTreeMap::new(),
            delivered: BTreeMap::new(),
            log_bytes: 0,
            flushed: false,
            fold_asked: false,
            wanted: None,
            resume_closing: None,
            reopened: false,
            early_failure: None,
            late: None,
            tallying: Tallying::default(),
            orders: Vec::new(),
        };
        machine.orders.push(JobOrder::Committer(CommitterOrder::Begin));
        machine
    }

    /// Takes what the host has to do, in order.
    pub fn take_orders(&mut self) -> Vec<JobOrder> {
        std::mem::take(&mut self.orders)
    }

    /// Takes the [`JobError::Deadline`] that was missed since the last call: whoever waits for the stop is told now, while the
    /// job goes on ending.
    pub fn take_late(&mut self) -> Option<JobError> {
        self.late.take()
    }

    /// What is known of the job.
    pub fn status(&self) -> JobStatus {
        let phase = match self.phase {
            Phase::Starting | Phase::Building => JobPhase::Starting,
            Phase::Running => JobPhase::Running,
            Phase::Closing(_) => JobPhase::Closing,
            Phase::Ending(_) => JobPhase::Ending,
            Phase::Pausing { .. } => JobPhase::Pausing,
            Phase::Over => JobPhase::Over,
        };
        let outbox_bytes = self.outbox.values().sum();
        let (restarts, waiting_bytes) = (self.restarts.total(), self.waiting_bytes());
        JobStatus { phase, outbox_bytes, waiting_bytes, restarts, mode: self.mode, ..self.status.clone() }
    }

    /// How many epochs are in flight.
    pub fn in_flight(&self) -> usize {
        self.coordinator.in_flight()
    }

    /// Takes an event; take the orders afterwards.
    pub fn on(&mut self, event: JobEvent, now: Timestamp) {
        match event {
            JobEvent::Committer(answer) => self.on_committer(answer, now),
            JobEvent::Built { attempt, subtasks, sources, sinks } => {
                self.on_built(attempt, subtasks, sources, sinks, now);
            }
            JobEvent::BuildFailed { error } => self.fail(error, true, now),
            JobEvent::Part(part) => self.on_part(part, now),
            JobEvent::SourceDone { attempt, subtask } => {
                if attempt == self.attempt {
                    self.done_sources.insert(subtask);
                }
            }
            JobEvent::TaskEnded { attempt, subtask, error } => self.on_task_ended(attempt, subtask, error, now),
            JobEvent::Delivery(answer) => self.on_delivery(answer, now),
            JobEvent::Stop { deadline } => self.want(Wanted { closing: None, deadline }),
            JobEvent::Drain { deadline } => self.want(Wanted { closing: Some(Closing::Drained), deadline }),
            JobEvent::CheckpointNow => self.want_epoch(now),
            JobEvent::CloseEpoch { attempt, epoch } => {
                if attempt == self.attempt && epoch == self.next_epoch {
                    self.want_epoch(now);
                }
            }
            JobEvent::Planned { attempt, subtask, splits, dry } => {
                if attempt == self.attempt {
                    self.batches.on_answer(subtask, splits, dry);
                }
            }
            JobEvent::Available { attempt } => {
                if attempt == self.attempt {
                    self.batches.on_available();
                }
            }
            JobEvent::SetTrigger(trigger) => self.set_trigger(trigger, now),
            JobEvent::Tick => {}
        }
        self.advance(now);
    }

    fn want(&mut self, wanted: Wanted) {
        self.orders.push(JobOrder::WakeAt(wanted.deadline));
        // The first wish decides how the job ends; a further one may only shorten the time.
        self.wanted = Some(match self.wanted {
            Some(before) => Wanted { deadline: before.deadline.min(wanted.deadline), ..before },
            None => wanted,
        });
    }

    fn on_committer(&mut self, answer: CommitterAnswer, now: Timestamp) {
        match answer {
            CommitterAnswer::Began { attempt, operators, restored, place } => {
                if let Err(error) = self.on_began(attempt, operators, restored, place) {
                    self.fail(error, false, now);
                }
            }
            CommitterAnswer::Refused(source) => {
                // An error of the disk may have been the last one; damage and what does not fit stay as they are.
                let restart = source.is_retryable() || source.is_io();
                self.fail(JobError::Recovery { source }, restart, now);
            }
            CommitterAnswer::Committed { attempt, committed } => {
                if attempt != self.attempt {
                    return;
                }
                self.committing = None;
                self.status.waiting = None;
                self.status.committed = committed.epoch;
                self.tallying.committed(committed.epoch, now);
                // A fold was noted. What it left may be too much all the same.
                self.fold_asked &= committed.log_bytes >= self.log_bytes;
                self.log_bytes = committed.log_bytes;
                let rows = committed.outbox.iter().flat_map(|(sink, rows)| rows.iter().map(move |rows| (*sink, rows)));
                self.outbox.extend(rows.map(|(sink, rows)| ((sink, rows.epoch()), rows.bytes())));
                self.orders.push(JobOrder::Publish { attempt, committed });
                // A sink with nothing left has done with the flush that went out with the last barrier: it came before these rows.
                if matches!(self.phase, Phase::Closing(_)) {
                    self.orders.push(JobOrder::FlushSinks);
                }
                self.batch_committed(now);
            }
            CommitterAnswer::Planned { attempt, epoch } => {
                if attempt == self.attempt {
                    self.status.waiting = None;
                    self.batches.on_written(epoch);
                }
            }
            CommitterAnswer::Waiting { error } => self.status.waiting = Some(error_text(error.as_ref())),
            CommitterAnswer::FoldIn { wanted } => {
                if wanted || self.fold_asked {
                    self.want_epoch(now);
                }
            }
            CommitterAnswer::Failed { attempt, error: source } => {
                if attempt == self.attempt {
                    self.fail(JobError::Commit { source }, true, now);
                }
            }
            CommitterAnswer::Fenced { attempt } => {
                if let Phase::Ending(ending) = &mut self.phase
                    && ending.next == attempt
                {
                    ending.committer = true;
                }
            }
        }
    }

    fn on_began(
        &mut self,
        attempt: Attempt,
        operators: Vec<OperatorId>,
        restored: Arc<Restored>,
        place: PathBuf,
    ) -> Result<(), JobError> {
        self.attempt = attempt;
        self.status.attempt = attempt;
        self.status.waiting = None;
        self.status.restored = restored.epoch;
        self.status.committed = restored.epoch;
        self.next_epoch = restored.epoch.next();
        self.begin_batches(restored.epoch, restored.plan.clone());
        self.resume_closing = None;
        if let Some(closing) = restored.closing
            && !self.config.restart_finished
        {
            if restored.outbox.is_empty() {
                let how = if closing == Closing::Finished { "finished" } else { "was drained" };
                self.subtasks.clear();
                self.sinks.clear();
                return Err(JobError::AlreadyEnded { how, place, epoch: restored.epoch });
            }
            // It ended, and died before everything was delivered: run once more, on no input, for the delivery.
            self.resume_closing = Some(closing);
        }
        self.reopened = restored.closing.is_some() && self.resume_closing.is_none();
        self.early_failure = None;
        self.outbox.clear();
        self.delivered.clear();
        for (sink, rows) in &restored.outbox {
            self.outbox.extend(rows.iter().map(|rows| ((*sink, rows.epoch()), rows.bytes())));
        }
        self.done_sources.clear();
        self.phase = Phase::Building;
        self.tallying.numbered(&operators);
        let (quarantined, mode) = (self.suspects.quarantined(), self.mode);
        self.orders.push(JobOrder::Build { attempt, operators, restored, quarantined, mode });
        Ok(())
    }

    fn on_built(
        &mut self,
        attempt: Attempt,
        subtasks: Vec<SubtaskId>,
        sources: Vec<SubtaskId>,
        sinks: Vec<OperatorId>,
        now: Timestamp,
    ) {
        if attempt != self.attempt || !matches!(self.phase, Phase::Building) {
            return;
        }
        self.coordinator = EpochCoordinator::new(attempt, subtasks.iter().copied());
        self.subtasks = subtasks.into_iter().collect();
        self.sources = sources.into_iter().collect();
        self.sinks = sinks.into_iter().collect();
        self.complete.clear();
        self.committing = None;
        self.status.held = None;
        self.flushed = false;
        self.fold_asked = false;
        self.skipped = false;
        self.barrier_at = now.saturating_add(self.interval());
        self.orders.push(JobOrder::WakeAt(self.barrier_at));
        self.phase = Phase::Running;
        self.tallying.runs(self.status.restored, now);
        if self.reopened {
            // Sources of a store that was drained begin held back.
            self.orders.push(JobOrder::HoldSources(false));
        }
        if let Some((subtask, error)) = self.early_failure.take() {
            self.on_task_ended(attempt, subtask, Some(error), now);
        }
    }

    fn on_part(&mut self, part: Part, now: Timestamp) {
        let epoch = part.epoch;
        if part.attempt == self.attempt {
            self.tallying.part(&part);
        }
        match self.coordinator.on_part(part) {
            Reported::Taken => {}
            Reported::OldAttempt => self.status.dropped_parts += 1,
            Reported::Unexpected => {
                // Parts of an attempt that is ending may still come in.
                debug_assert!(
                    matches!(self.phase, Phase::Ending(_) | Phase::Starting | Phase::Building | Phase::Pausing { .. })
                        || planted(Canary::OldAttemptPart)
                        || planted(Canary::NoAlignment)
                        || planted(Canary::CommitBeforeComplete),
                    "a part of epoch {epoch} was not expected"
                );
            }
        }
        if !matches!(self.phase, Phase::Running | Phase::Closing(_)) {
            return;
        }
        while let Some(mut bundle) = self.coordinator.take_complete() {
            if let Phase::Closing(last) = self.phase
                && last.epoch == Some(bundle.epoch)
            {
                bundle.closing = last.closing;
            }
            self.note_wishes(&bundle);
            let bytes = bundle.parts.iter().map(Part::bytes).sum();
            self.tallying.complete(bundle.epoch, bytes, now);
            self.complete.push_back((bundle, bytes));
        }
    }

    fn on_delivery(&mut self, answer: DeliveryAnswer, now: Timestamp) {
        match answer {
            DeliveryAnswer::Delivered { attempt, delivered } => {
                if attempt == self.attempt {
                    self.on_delivered(delivered);
                }
            }
            DeliveryAnswer::Failed { attempt, error, .. } => {
                if attempt == self.attempt {
                    // A newer instance, or a store that is older than its sink: a restart would only fight.
                    let kinds = [SinkErrorKind::Fenced, SinkErrorKind::SinkAhead, SinkErrorKind::TokenLost];
                    let restart = !kinds.contains(&error.kind);
                    let restarts = self.restarts.total();
                    self.fail(JobError::Sink { restarts, source: Arc::new(error) }, restart, now);
                }
            }
            DeliveryAnswer::Fenced { attempt, operator } => {
                if let Phase::Ending(ending) = &mut self.phase
                    && ending.next == attempt
                {
                    ending.sinks.remove(&operator);
                }
            }
        }
    }

    fn on_delivered(&mut self, delivered: Delivered) {
        self.outbox.retain(|(sink, epoch), _| *sink != delivered.operator || *epoch >= delivered.next);
        self.delivered.insert(delivered.operator, delivered.next);
        self.orders.push(JobOrder::Committer(CommitterOrder::Delivered(delivered)));
    }
}
