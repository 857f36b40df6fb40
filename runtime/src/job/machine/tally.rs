//! What the job machine counts of itself, as plain numbers; the host publishes them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::failures::{FailureKind, RestartReason, failure_of};
use super::{JobMachine, Outcome, Phase};
use crate::checkpoint::Part;
use crate::id::{Attempt, Epoch, OperatorId, TaskId};
use crate::job::error::JobError;
use crate::metrics::{Buckets, PipelineState};
use crate::time::Timestamp;

/// Checkpoints that are told of one by one.
const MOST_CHECKPOINTS: usize = 32;

/// The numbers, since the job began; over all its attempts.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobTally {
    pub(crate) state: PipelineState,
    /// When records began to flow last.
    pub(crate) running_since: Option<Timestamp>,
    pub(crate) restarts: BTreeMap<RestartReason, u64>,
    /// By operator, empty where it was none, and kind.
    pub(crate) failures: BTreeMap<(String, FailureKind), u64>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    pub(crate) timed_out: u64,
    pub(crate) in_progress: usize,
    /// From the barrier until the epoch was durable, and the part of it that was behind its last part.
    pub(crate) duration: Buckets,
    pub(crate) persist: Buckets,
    /// Of every part, by [`PartPhase`].
    pub(crate) phases: [Buckets; 3],
    /// Bytes that committed epochs had of an operator.
    pub(crate) written_bytes: BTreeMap<OperatorId, u64>,
    /// The numbers of the operators that the store knows, in the order of the plan's declarations.
    pub(crate) operators: Vec<OperatorId>,
    /// The last epochs that became durable, the newest last; at most [`MOST_CHECKPOINTS`].
    pub(crate) checkpoints: VecDeque<Arc<Checkpointed>>,
    pub(crate) restored: u64,
    pub(crate) not_restored: u64,
    /// From the beginning of the last attempt until it ran.
    pub(crate) restore: Option<(Duration, Epoch)>,
}

impl JobTally {
    /// The last epoch that became durable.
    pub(crate) fn last(&self) -> Option<&Checkpointed> {
        self.checkpoints.back().map(Arc::as_ref)
    }
}

/// What a subtask does for an epoch, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartPhase {
    /// From the trigger until its first input has the barrier.
    StartDelay,
    /// Until all inputs have it.
    Alignment,
    /// Until what had changed is encoded.
    Snapshot,
}

impl PartPhase {
    pub(crate) const ALL: [Self; 3] = [Self::StartDelay, Self::Alignment, Self::Snapshot];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::StartDelay => "start_delay",
            Self::Alignment => "alignment",
            Self::Snapshot => "snapshot",
        }
    }
}

/// How long each of [`PartPhase::ALL`] took.
pub(crate) type PartPhases = [Duration; 3];

/// An epoch that became durable.
#[derive(Clone, Debug)]
pub(crate) struct Checkpointed {
    pub(crate) epoch: Epoch,
    pub(crate) at: Timestamp,
    pub(crate) duration: Duration,
    pub(crate) bytes: u64,
    /// From its last part until it was durable.
    pub(crate) persist: Duration,
    /// The slowest subtask of each task in each phase.
    pub(crate) slowest: BTreeMap<TaskId, PartPhases>,
}

/// An epoch whose barrier is out and that is not durable.
#[derive(Clone, Debug)]
struct UnderWay {
    epoch: Epoch,
    begun: Timestamp,
    /// When its last part came in, and the bytes of all.
    complete: Option<(Timestamp, usize)>,
    slowest: BTreeMap<TaskId, PartPhases>,
    written: BTreeMap<OperatorId, u64>,
}

/// Keeps the tally.
#[derive(Debug, Default)]
pub(super) struct Tallying {
    tally: JobTally,
    changed: bool,
    under_way: VecDeque<UnderWay>,
    attempt_begun: Option<Timestamp>,
}

impl Tallying {
    fn change(&mut self) -> &mut JobTally {
        self.changed = true;
        &mut self.tally
    }

    /// The store is asked what an attempt begins from.
    pub(super) fn begins(&mut self, now: Timestamp) {
        self.attempt_begun = Some(now);
    }

    pub(super) fn runs(&mut self, from: Epoch, now: Timestamp) {
        let took = now.saturating_since(self.attempt_begun.unwrap_or(now));
        let tally = self.change();
        tally.running_since = Some(now);
        tally.restore = Some((took, from));
        tally.restored += u64::from(from > Epoch::GENESIS);
    }

    pub(super) fn barrier(&mut self, epoch: Epoch, now: Timestamp) {
        let (slowest, written) = (BTreeMap::new(), BTreeMap::new());
        self.under_way.push_back(UnderWay { epoch, begun: now, complete: None, slowest, written });
        self.change().in_progress = self.under_way.len();
    }

    /// The numbers of the operators that the store knows.
    pub(super) fn numbered(&mut self, operators: &[OperatorId]) {
        self.change().operators = operators.to_vec();
    }

    /// A part is in. Shown when its epoch is durable: parts are many.
    pub(super) fn part(&mut self, part: &Part) {
        let Part { epoch, subtask, times, .. } = part;
        let Some(of) = self.under_way.iter_mut().find(|under_way| under_way.epoch == *epoch) else { return };
        let phases = [
            times.came.saturating_since(of.begun),
            times.aligned.saturating_since(times.came),
            times.encoded.saturating_since(times.aligned),
        ];
        let slowest = of.slowest.entry(subtask.task).or_default();
        for ((sum, slowest), time) in self.tally.phases.iter_mut().zip(slowest).zip(phases) {
            sum.record(time);
            *slowest = time.max(*slowest);
        }
        for (operator, bytes) in part.bytes_by_operator() {
            *of.written.entry(operator).or_default() += bytes as u64;
        }
    }

    pub(super) fn complete(&mut self, epoch: Epoch, bytes: usize, now: Timestamp) {
        if let Some(under_way) = self.under_way.iter_mut().find(|under_way| under_way.epoch == epoch) {
            under_way.complete = Some((now, bytes));
        }
    }

    /// Epochs up to this one are durable.
    pub(super) fn committed(&mut self, through: Epoch, now: Timestamp) {
        while self.under_way.front().is_some_and(|first| first.epoch <= through)
            && let Some(UnderWay { epoch, begun, complete, slowest, written }) = self.under_way.pop_front()
        {
            let duration = now.saturating_since(begun);
            let (complete, bytes) = complete.unwrap_or((now, 0));
            let tally = self.change();
            tally.completed += 1;
            tally.duration.record(duration);
            let persist = now.saturating_since(complete);
            tally.persist.record(persist);
            for (operator, bytes) in written {
                *tally.written_bytes.entry(operator).or_default() += bytes;
            }
            let bytes = bytes as u64;
            if tally.checkpoints.len() >= MOST_CHECKPOINTS {
                tally.checkpoints.pop_front();
            }
            tally.checkpoints.push_back(Arc::new(Checkpointed { epoch, at: now, duration, bytes, persist, slowest }));
        }
        self.tally.in_progress = self.under_way.len();
    }

    /// What was under way goes with the attempt.
    pub(super) fn attempt_over(&mut self) {
        self.under_way.clear();
        self.change().in_progress = 0;
    }

    /// An attempt has ended by this failure, and another one follows or not.
    pub(super) fn failed(&mut self, error: &JobError, restart: bool) {
        let (operator, kind) = failure_of(error);
        let tally = self.change();
        *tally.failures.entry((operator.to_owned(), kind)).or_default() += 1;
        tally.failed += u64::from(matches!(error, JobError::Commit { .. }));
        tally.timed_out += u64::from(matches!(error, JobError::EpochTimeout { .. }));
        tally.not_restored += u64::from(matches!(error, JobError::Recovery { .. } | JobError::Build { .. }));
        if restart {
            *tally.restarts.entry(RestartReason::of(kind)).or_default() += 1;
        }
    }
}

impl JobMachine {
    /// The first attempt begins: a machine is made without a clock.
    pub(crate) fn begins_at(&mut self, now: Timestamp) {
        self.tallying.begins(now);
    }

    /// The numbers, if they have changed since they were taken last.
    pub(crate) fn take_tally(&mut self) -> Option<JobTally> {
        let state = self.pipeline_state();
        if self.tallying.tally.state != state {
            self.tallying.change().state = state;
        }
        std::mem::take(&mut self.tallying.changed).then(|| self.tallying.tally.clone())
    }

    fn pipeline_state(&self) -> PipelineState {
        match &self.phase {
            Phase::Starting if self.attempt == Attempt::default() => PipelineState::Created,
            Phase::Starting | Phase::Building => PipelineState::Restoring,
            Phase::Running => PipelineState::Running,
            Phase::Closing(_) => PipelineState::Draining,
            Phase::Ending(ending) => match &ending.outcome {
                Outcome::Done(_) => PipelineState::Draining,
                Outcome::Failed { restart: true, .. } if self.wanted.is_none() => PipelineState::Restarting,
                Outcome::Failed { .. } => PipelineState::Failed,
            },
            Phase::Pausing { .. } => PipelineState::Restarting,
            // How it ended is told by the host, at once.
            Phase::Over => self.tallying.tally.state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{BarrierTimes, Delta};
    use crate::id::SubtaskId;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_part_counts_by_phase_and_the_slowest_one_of_a_task_is_told() {
        let mut tallying = Tallying::default();
        tallying.barrier(Epoch::new(1), at(100));
        let part = |task, index, [came, aligned, encoded]: [i64; 3], bytes| {
            let subtask = SubtaskId { task: TaskId::new(task), index };
            let mut part = Part::new(Attempt::new(1), Epoch::new(1), subtask);
            part.times = BarrierTimes { came: at(came), aligned: at(aligned), encoded: at(encoded) };
            part.deltas.push(Delta { operator: OperatorId::new(7), chunks: vec![vec![0; bytes]], entries: 1 });
            part
        };
        for part in [part(0, 0, [103, 103, 104], 5), part(1, 0, [110, 115, 116], 6), part(1, 1, [109, 111, 120], 0)] {
            tallying.part(&part);
        }
        assert!(tallying.tally.checkpoints.is_empty() && tallying.tally.written_bytes.is_empty(), "not durable yet");
        tallying.complete(Epoch::new(1), 11, at(120));
        tallying.committed(Epoch::new(1), at(150));
        let JobTally { phases, written_bytes, .. } = &tallying.tally;
        let sums = phases.each_ref().map(|phase| (phase.count(), phase.sum().as_millis()));
        assert_eq!(sums, [(3, 3 + 10 + 9), (3, 5 + 2), (3, 1 + 1 + 9)]);
        assert_eq!(written_bytes, &BTreeMap::from([(OperatorId::new(7), 11)]));
        let last = tallying.tally.last().unwrap();
        let slowest = |task| last.slowest[&TaskId::new(task)].map(|time| time.as_millis());
        assert_eq!((slowest(0), slowest(1), last.persist.as_millis()), ([3, 0, 1], [10, 5, 9], 30));
    }

    #[test]
    fn an_epoch_counts_from_its_barrier_and_is_written_from_its_last_part() {
        let mut tallying = Tallying::default();
        for (epoch, now) in [(1, 100), (2, 200), (3, 300)] {
            tallying.barrier(Epoch::new(epoch), at(now));
        }
        tallying.complete(Epoch::new(1), 10, at(150));
        tallying.complete(Epoch::new(2), 20, at(260));
        tallying.committed(Epoch::new(2), at(290));
        let tally = &tallying.tally;
        assert_eq!((tally.completed, tally.in_progress), (2, 1));
        assert_eq!(tally.duration.sum(), Duration::from_millis(190 + 90));
        assert_eq!(tally.persist.sum(), Duration::from_millis(140 + 30));
        let last = tally.last().unwrap();
        assert_eq!((last.epoch, last.at, last.bytes), (Epoch::new(2), at(290), 20));
        assert_eq!(last.duration, Duration::from_millis(90));
        tallying.attempt_over();
        assert_eq!((tallying.tally.completed, tallying.tally.in_progress), (2, 0));
    }
}
