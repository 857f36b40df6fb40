//! Micro-batches: carries out what [`Batches`](crate::mode::Batches) decides. One epoch at a time, from its plan to its commit.

use super::{JobMachine, Last, Phase};
use crate::canary::{Canary, planted};
use crate::checkpoint::{Barrier, EpochBundle, EpochPlan};
use crate::id::{Epoch, ExecutionMode};
use crate::job::committer::CommitterOrder;
use crate::job::error::JobError;
use crate::job::protocol::JobOrder;
use crate::mode::{Batches, Next, Wishes};
use crate::operator::{Amount, SourceCommand};
use crate::time::Timestamp;
use crate::trigger::Trigger;

impl JobMachine {
    /// How epochs begin from now on.
    pub(super) fn set_trigger(&mut self, trigger: Trigger, now: Timestamp) {
        self.trigger = trigger;
        self.batches.set_trigger(trigger);
        // The barrier carries the change.
        self.barrier_at = self.barrier_at.min(now);
    }

    /// Begins with what an attempt found: a micro-batch that had begun goes first.
    pub(super) fn begin_batches(&mut self, restored: Epoch, found: Option<EpochPlan>) {
        self.mode = if found.is_some() { ExecutionMode::MicroBatch } else { self.trigger.mode() };
        let ran = self.batches.has_run();
        self.batches = Batches::new(self.trigger, self.config.no_data_epochs, found, ran);
        if restored > Epoch::GENESIS {
            // What the parts of the last epoch wished for is not known any more.
            self.batches.on_wishes(Wishes { watermark: true, timer: None });
        }
    }

    /// Wants an epoch closed now.
    pub(super) fn want_epoch(&mut self, now: Timestamp) {
        self.barrier_at = self.barrier_at.min(now);
        if self.mode == ExecutionMode::MicroBatch {
            self.batches.force();
        }
    }

    pub(super) fn advance_batches(&mut self, now: Timestamp) {
        let after = self.config.epoch_timeout;
        if self.batches.is_replay() && self.batches.is_asking() && now.saturating_since(self.asked_at) >= after {
            let missing = self.batches.missing();
            return self.fail(JobError::EpochTimeout { epoch: self.next_epoch, after, missing }, true, now);
        }
        if self.coordinator.in_flight() > 0 || !self.complete.is_empty() || self.committing.is_some() {
            return;
        }
        if self.trigger.mode() == ExecutionMode::Continuous && !self.batches.is_busy() {
            // One more, whose barrier says that records pass as they come behind it.
            self.batches.force();
        }
        let held = self.status.held.is_some();
        if held && !self.batches.is_busy() {
            // What holds the sources back may wait for a commit, as the note of a fold does: epochs without records go on.
            if now >= self.barrier_at {
                self.barrier_at = now.saturating_add(self.interval());
                self.batches.force();
            }
            self.orders.push(JobOrder::WakeAt(self.barrier_at));
        }
        match self.batches.next(self.next_epoch, &self.sources, held, now) {
            Next::Wait(at) => self.orders.extend(at.map(JobOrder::WakeAt)),
            Next::Ask => {
                self.asked_at = now;
                self.orders.push(JobOrder::WakeAt(now.saturating_add(after)));
                let amount = match self.trigger {
                    Trigger::Once => Amount::All,
                    Trigger::AvailableNow => Amount::ThereIs,
                    _ => Amount::AtHand,
                };
                self.orders.push(JobOrder::Sources(SourceCommand::Plan { amount }));
            }
            Next::Write(plan) if planted(Canary::PlanNotWritten) => {
                self.batches.on_written(plan.epoch);
                self.advance_batches(now);
            }
            Next::Write(plan) => {
                self.orders.push(JobOrder::Committer(CommitterOrder::Plan { attempt: self.attempt, plan }));
            }
            Next::Go(plan) => self.go(&plan, now),
            Next::End => {
                self.phase = Phase::Closing(Last { closing: None, epoch: None, end_sent: None });
                self.advance(now);
            }
        }
    }

    /// Lets a micro-batch pass.
    fn go(&mut self, plan: &EpochPlan, now: Timestamp) {
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        self.coordinator.begin(epoch, now);
        self.tallying.barrier(epoch, now);
        self.mode = self.trigger.mode();
        let barrier = Barrier { epoch, next_mode: self.mode, last: false, had_data: false };
        self.orders.push(JobOrder::Sources(SourceCommand::Go { time: plan.time, barrier }));
        self.barrier_at = now.saturating_add(self.interval());
        self.orders.push(JobOrder::WakeAt(self.barrier_at));
        self.orders.push(JobOrder::WakeAt(now.saturating_add(self.config.epoch_timeout)));
    }

    /// An epoch is complete: what its parts wish for.
    pub(super) fn note_wishes(&mut self, bundle: &EpochBundle) {
        let mut wishes = Wishes::default();
        bundle.parts.iter().for_each(|part| wishes.add(part.wants_epoch, part.timer));
        self.batches.on_wishes(wishes);
    }

    /// An epoch is committed.
    pub(super) fn batch_committed(&mut self, now: Timestamp) {
        if self.batches.on_committed(now) {
            tracing::warn!(
                epoch = %self.status.committed,
                "a micro-batch took longer than the trigger's interval; the next one begins at once"
            );
        }
    }
}
