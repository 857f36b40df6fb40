//! What the job machine does next, after it has taken note of an event: barriers, commits, the end of an attempt.

use std::time::Duration;

use super::{JobMachine, Last, Outcome, Phase, Wanted};
use crate::canary::{Canary, planted};
use crate::checkpoint::{Barrier, Closing};
use crate::id::ExecutionMode;
use crate::job::committer::CommitterOrder;
use crate::job::error::{Ended, JobError};
use crate::job::protocol::{Held, JobOrder};
use crate::operator::{Ends, SourceCommand};
use crate::time::Timestamp;

impl JobMachine {
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.check_deadline(now);
        match &self.phase {
            Phase::Running => self.advance_running(now),
            Phase::Closing(last) => self.advance_closing(*last, now),
            Phase::Ending(_) => self.advance_ending(now),
            Phase::Pausing { until } if now >= *until => {
                self.tallying.begins(now);
                self.phase = Phase::Starting;
                self.orders.push(JobOrder::Committer(CommitterOrder::Begin));
            }
            Phase::Pausing { .. } | Phase::Starting | Phase::Building | Phase::Over => {}
        }
    }

    fn advance_running(&mut self, now: Timestamp) {
        let wanted = self.wanted.map(|wanted| wanted.closing);
        // What reads what there is and stops leaves the input open.
        let open = self.mode == ExecutionMode::MicroBatch && self.trigger.is_finite();
        let finished = (!open && self.done_sources.len() == self.sources.len()).then_some(Some(Closing::Finished));
        let resumed = self.resume_closing.map(Some);
        // A micro-batch that had begun is done first: part of it may be out.
        if let Some(closing) = resumed.or(wanted).or(finished)
            && !self.batches.is_replay()
        {
            self.phase = Phase::Closing(Last { closing, epoch: None, end_sent: None });
            return self.advance(now);
        }
        if self.mode == ExecutionMode::MicroBatch {
            self.advance_batches(now);
            if !matches!(self.phase, Phase::Running) {
                return;
            }
        } else if now >= self.barrier_at {
            if self.coordinator.in_flight() < self.config.max_epochs_in_flight.max(1) {
                self.send_barrier(Ends::Epoch, now);
            } else if !self.skipped {
                self.skipped = true;
                self.status.skipped_triggers += 1;
            }
        }
        self.check_epoch(now);
        self.commit();
        self.hold_sources();
    }

    fn advance_closing(&mut self, mut last: Last, now: Timestamp) {
        if last.epoch.is_none() && self.coordinator.in_flight() < self.config.max_epochs_in_flight.max(1) {
            last.epoch = Some(self.next_epoch);
            self.phase = Phase::Closing(last);
            self.send_barrier(if last.closing.is_some() { Ends::Input } else { Ends::Life }, now);
            self.orders.push(JobOrder::FlushSinks);
        }
        self.check_epoch(now);
        self.commit();
        let Some(epoch) = last.epoch else { return };
        let delivered = self.sinks.iter().all(|sink| self.delivered.get(sink).is_some_and(|next| *next > epoch));
        if self.status.committed < epoch || !delivered || !self.outbox.is_empty() {
            return;
        }
        let ended = Ended::new(last.closing, epoch);
        if last.closing.is_none() {
            return self.end_and_advance(Outcome::Done(ended), now);
        }
        let Some(give_up) = last.end_sent else {
            let give_up = now.saturating_add(self.config.stop_timeout);
            self.phase = Phase::Closing(Last { end_sent: Some(give_up), ..last });
            self.orders.push(JobOrder::Sources(SourceCommand::End));
            return self.orders.push(JobOrder::WakeAt(give_up));
        };
        if now >= give_up && !self.subtasks.is_empty() {
            let text = format!(
                "everything is committed and delivered, but subtasks {:?} did not end within {:?}: they are closed",
                self.subtasks, self.config.stop_timeout
            );
            tracing::warn!("{text}");
            self.status.last_failure = Some(text);
            return self.end_and_advance(Outcome::Done(ended), now);
        }
        if self.subtasks.is_empty() {
            self.end_and_advance(Outcome::Done(ended), now);
        }
    }

    fn end_and_advance(&mut self, outcome: Outcome, now: Timestamp) {
        self.end(outcome, now);
        self.advance_ending(now);
    }

    fn advance_ending(&mut self, now: Timestamp) {
        let Phase::Ending(ending) = &mut self.phase else { return };
        if now >= ending.give_up && !ending.tasks.is_empty() {
            let subtasks: Vec<_> = std::mem::take(&mut ending.tasks).into_iter().collect();
            tracing::error!(?subtasks, "loops did not end in time and are abandoned");
            self.status.abandoned += subtasks.len() as u64;
            self.orders.push(JobOrder::Abandon { subtasks });
        }
        if now >= ending.give_up && !ending.sinks.is_empty() {
            tracing::error!(sinks = ?ending.sinks, "deliveries did not end in time and are abandoned");
            self.status.abandoned += ending.sinks.len() as u64;
            ending.sinks.clear();
        }
        let fenced = ending.committer || planted(Canary::ManifestBeforeFence);
        if !fenced || !ending.tasks.is_empty() || !ending.sinks.is_empty() {
            return;
        }
        let Phase::Ending(ending) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        match ending.outcome {
            Outcome::Done(ended) => self.orders.push(JobOrder::Over(Ok(ended))),
            Outcome::Failed { error, restart } => {
                let resolved = std::mem::take(&mut self.resolved);
                let pause = match restart && self.wanted.is_none() {
                    false => None,
                    true if resolved => Some(self.restarts.uncounted(&self.config.restart)),
                    true => self.restarts.next(&self.config.restart, now),
                };
                self.tallying.failed(&error, pause.is_some());
                match pause {
                    Some(pause) => {
                        let until = now.saturating_add(pause);
                        self.phase = Phase::Pausing { until };
                        self.orders.push(JobOrder::WakeAt(until));
                    }
                    None => self.orders.push(JobOrder::Over(Err(error))),
                }
            }
        }
    }

    fn send_barrier(&mut self, ends: Ends, now: Timestamp) {
        let epoch = self.next_epoch;
        self.next_epoch = epoch.next();
        self.skipped = false;
        self.coordinator.begin(epoch, now);
        self.tallying.barrier(epoch, now);
        self.mode = self.trigger.mode();
        let last = ends != Ends::Epoch;
        let barrier = Barrier { epoch, next_mode: self.mode, last, had_data: false };
        self.orders.push(JobOrder::Sources(SourceCommand::Barrier { barrier, ends }));
        self.barrier_at = now.saturating_add(self.interval());
        self.orders.push(JobOrder::WakeAt(self.barrier_at));
    }

    /// Time between barriers.
    pub(super) fn interval(&self) -> Duration {
        self.trigger.barriers().unwrap_or(self.config.epoch_interval)
    }

    fn check_epoch(&mut self, now: Timestamp) {
        let Some((epoch, begun, missing)) = self.coordinator.oldest() else { return };
        let after = self.config.epoch_timeout;
        if now.saturating_since(begun) >= after {
            self.fail(JobError::EpochTimeout { epoch, after, missing }, true, now);
        }
    }

    /// Hands all complete epochs to the committer, if it is free: group commit.
    fn commit(&mut self) {
        if self.committing.is_some() || !matches!(self.phase, Phase::Running | Phase::Closing(_)) {
            return;
        }
        let mut total = 0;
        let mut bundles = Vec::new();
        while let Some((_, bytes)) = self.complete.front() {
            if !bundles.is_empty() && total + bytes > self.config.max_commit_bytes {
                break;
            }
            total += bytes;
            bundles.extend(self.complete.pop_front().map(|(bundle, _)| bundle));
        }
        if !bundles.is_empty() {
            self.committing = Some(total);
            let attempt = self.attempt;
            self.orders.push(JobOrder::Committer(CommitterOrder::Commit { attempt, bundles }));
        }
    }

    /// Bytes of complete epochs that are not durable.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.complete.iter().map(|(_, bytes)| bytes).sum::<usize>() + self.committing.unwrap_or_default()
    }

    /// Holds the sources back while too much waits for the disk or a sink. Barriers still pass, so nothing waits for itself.
    fn hold_sources(&mut self) {
        let outbox: usize = self.outbox.values().sum();
        let waiting = self.waiting_bytes();
        if outbox > self.config.max_outbox_bytes / 2 {
            if !self.flushed {
                self.flushed = true;
                self.orders.push(JobOrder::FlushSinks);
            }
        } else {
            self.flushed = false;
        }
        let unfolded = self.log_bytes + waiting as u64;
        if unfolded > self.config.max_unfolded_bytes / 2 {
            if !self.fold_asked {
                self.fold_asked = true;
                self.orders.push(JobOrder::Committer(CommitterOrder::FoldSoon));
            }
        } else {
            self.fold_asked = false;
        }
        let held = if outbox > self.config.max_outbox_bytes {
            Some(Held::Outbox)
        } else if waiting > self.config.max_waiting_bytes {
            Some(Held::Commit)
        } else if unfolded > self.config.max_unfolded_bytes {
            Some(Held::Fold)
        } else {
            None
        };
        if held.is_some() != self.status.held.is_some() {
            self.orders.push(JobOrder::HoldSources(held.is_some()));
        }
        self.status.held = held;
    }

    fn check_deadline(&mut self, now: Timestamp) {
        let Some(wanted) = self.wanted else { return };
        if now < wanted.deadline || matches!(self.phase, Phase::Over) {
            return;
        }
        let waiting_for = match &self.phase {
            Phase::Starting | Phase::Building => {
                self.status.waiting.clone().unwrap_or_else(|| "the store is still being opened".to_owned())
            }
            Phase::Pausing { .. } => "the job waits for a restart".to_owned(),
            Phase::Closing(Last { end_sent: Some(_), .. }) => format!("loops {:?} did not end", self.subtasks),
            Phase::Running | Phase::Closing(_) => match self.coordinator.oldest() {
                Some((epoch, _, missing)) => format!("subtasks {missing:?} did not hand in epoch {epoch}"),
                None if self.committing.is_some() => {
                    let waiting = self.status.waiting.clone();
                    waiting.unwrap_or_else(|| "the store has not answered the last write".to_owned())
                }
                None => "sinks have not taken all output".to_owned(),
            },
            Phase::Ending(ending) if !ending.committer => "the store has not answered the last write".to_owned(),
            Phase::Ending(ending) => format!("loops {:?} and sinks {:?} did not end", ending.tasks, ending.sinks),
            Phase::Over => return,
        };
        let error = JobError::Deadline { waiting_for, epoch: self.status.committed };
        self.late = Some(error.clone());
        match &mut self.phase {
            Phase::Running | Phase::Closing(_) => self.fail(error, false, now),
            Phase::Ending(ending) => {
                // Fences that are not answered keep the lock: whoever waits is told, and the host goes on waiting.
                ending.outcome = Outcome::Failed { error, restart: false };
            }
            _ => {
                self.phase = Phase::Over;
                self.orders.push(JobOrder::Over(Err(error)));
            }
        }
        self.wanted = Some(Wanted { deadline: Timestamp::MAX, ..wanted });
    }
}
