//! How an attempt ends: a task that ended or failed, who is suspected of it, and what comes behind.

use std::sync::Arc;

use super::{Ending, JobMachine, Last, Outcome, Phase};
use crate::id::{Attempt, SubtaskId};
use crate::job::committer::CommitterOrder;
use crate::job::error::{Ended, JobError};
use crate::job::protocol::JobOrder;
use crate::operator::TaskError;
use crate::time::Timestamp;

impl JobMachine {
    pub(super) fn on_task_ended(
        &mut self,
        attempt: Attempt,
        subtask: SubtaskId,
        error: Option<TaskError>,
        now: Timestamp,
    ) {
        if attempt != self.attempt {
            return;
        }
        // A failure before all are built comes once more when they are.
        if !matches!(self.phase, Phase::Building) {
            self.suspect(error.as_ref());
        }
        match &mut self.phase {
            Phase::Ending(ending) => {
                ending.tasks.remove(&subtask);
                if let (Some(error), Outcome::Failed { error: known, .. }) = (error, &mut ending.outcome) {
                    replace_consequence(known, subtask, error, self.restarts.total());
                    self.status.last_failure = Some(error_text(known));
                }
            }
            Phase::Building => {
                let error = error.unwrap_or_else(ended_early);
                self.early_failure.get_or_insert((subtask, error));
            }
            Phase::Closing(Last { end_sent: Some(_), closing, epoch }) => {
                let ended = Ended::new(*closing, epoch.unwrap_or(self.status.committed));
                self.subtasks.remove(&subtask);
                // Everything is committed and delivered: there is nothing that another attempt could do better. But who waits for
                // this task's end would wait for ever, so the others are closed instead.
                if let Some(error) = error {
                    tracing::warn!(%subtask, error = %error_text(&error), "a task failed when all was done");
                    self.end(Outcome::Done(ended), now);
                }
            }
            _ => {
                self.subtasks.remove(&subtask);
                let error = error.unwrap_or_else(ended_early);
                let restarts = self.restarts.total();
                self.fail(JobError::Task { subtask, restarts, source: Arc::new(error) }, true, now);
            }
        }
    }

    /// Takes note of the record that a task panicked on.
    pub(super) fn suspect(&mut self, error: Option<&TaskError>) {
        let Some(TaskError::Panicked { operator, epoch, message, record: Some(record), origins }) = error else {
            return;
        };
        if self.suspects.panicked(record, origins, *epoch, message) {
            self.resolved = true;
            self.status.quarantined = self.suspects.quarantined();
            let (time, bytes) = (record.time, record.bytes.len());
            tracing::error!(operator, %epoch, %time, bytes, %origins, panic = message, "a record that panics is in quarantine");
        }
    }

    /// Ends the attempt because of a failure. The first failure decides.
    pub(super) fn fail(&mut self, error: JobError, restart: bool, now: Timestamp) {
        if matches!(self.phase, Phase::Ending(_) | Phase::Pausing { .. } | Phase::Over) {
            return;
        }
        let text = error_text(&error);
        tracing::warn!(attempt = %self.attempt, error = %text, "the attempt failed");
        self.status.last_failure = Some(text);
        self.end(Outcome::Failed { error, restart }, now);
    }

    pub(super) fn end(&mut self, outcome: Outcome, now: Timestamp) {
        let next = self.attempt.next();
        let give_up = now.saturating_add(self.config.stop_timeout);
        self.complete.clear();
        self.committing = None;
        self.tallying.attempt_over();
        // What waited for the disk goes with the attempt.
        self.status.waiting = None;
        self.orders.push(JobOrder::CloseAttempt { attempt: self.attempt });
        self.orders.push(JobOrder::Committer(CommitterOrder::Fence { attempt: next }));
        self.orders.push(JobOrder::FenceSinks { attempt: next });
        self.orders.push(JobOrder::WakeAt(give_up));
        let sinks = std::mem::take(&mut self.sinks);
        let tasks = std::mem::take(&mut self.subtasks);
        self.phase = Phase::Ending(Ending { outcome, next, committer: false, sinks, tasks, give_up });
    }
}

fn ended_early() -> TaskError {
    TaskError::Panic { message: "its loop ended too early".to_owned() }
}

/// The text of an error with its causes.
pub(super) fn error_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Prefers the failure that others followed from.
fn replace_consequence(known: &mut JobError, subtask: SubtaskId, error: TaskError, restarts: u64) {
    if let JobError::Task { source, .. } = &*known
        && source.is_consequence()
        && !error.is_consequence()
    {
        *known = JobError::Task { subtask, restarts, source: Arc::new(error) };
    }
}
