//! What waits for room on the disk, and plans, which may have to.

use std::sync::Arc;

use super::{Committer, CommitterAnswer, CommitterStep, RETRY, WaitError, crash, store_crash};
use crate::checkpoint::{EpochBundle, EpochPlan, Part};
use crate::fault::Crashed;
use crate::id::{Attempt, Epoch};
use crate::state::log::{CommitError, CommitLog, Committed, Reopened};
use crate::state::store::StoreError;
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) struct Retry {
    pub(super) attempt: Attempt,
    pub(super) write: Write,
    pub(super) at: Timestamp,
}

/// What waits for room on the disk.
#[derive(Debug)]
pub(super) enum Write {
    Epochs(Vec<EpochBundle>),
    Plan(EpochPlan),
}

impl Committer {
    pub(super) fn plan(&mut self, attempt: Attempt, plan: EpochPlan, now: Timestamp) -> Result<CommitterStep, Crashed> {
        let Some(log) = self.log.as_mut() else { return Ok(CommitterStep::Worked) };
        let epoch = plan.epoch;
        if log.is_closed() {
            self.retry = Some(Retry { attempt, write: Write::Plan(plan), at: now });
            return Ok(CommitterStep::Worked);
        }
        let error = match log.write_plan(plan.clone()) {
            Ok(()) => return Ok(CommitterAnswer::Planned { attempt, epoch }.into()),
            Err(CommitError::Crashed(crashed)) => return Err(crashed),
            Err(CommitError::Store { error, .. }) => error,
            Err(error) => return Ok(CommitterAnswer::Failed { attempt, error: Arc::new(error) }.into()),
        };
        if let Some(crashed) = store_crash(&error) {
            return Err(crashed);
        }
        let known = self.log.as_ref().map_or(Epoch::GENESIS, CommitLog::epoch);
        let (retryable, refused) = match self.reopened() {
            Ok(_) => (error.is_retryable(), None),
            Err(found) => match crash(&found) {
                Some(crashed) => return Err(crashed),
                None => (found.is_retryable(), Some(found)),
            },
        };
        if !retryable {
            if let Some(found) = refused {
                self.log = None;
                tracing::error!(%found, "the store cannot be opened anew");
            }
            let error = Arc::new(CommitError::Store { epoch: known, error, bundles: Vec::new() });
            return Ok(CommitterAnswer::Failed { attempt, error }.into());
        }
        // Whether it is there or not: it is written again, and is the same.
        self.retry = Some(Retry { attempt, write: Write::Plan(plan), at: now.saturating_add(RETRY) });
        Ok(CommitterAnswer::Waiting { error: Arc::new(WaitError::Plan { epoch, source: error }) }.into())
    }

    /// A full disk: tries again when it is time, or at once when a fence waits, and then for the last time.
    pub(super) fn step_waiting(&mut self, now: Timestamp) -> Result<CommitterStep, Crashed> {
        let fenced = self.is_fenced();
        let Some(at) = self.retry.as_ref().map(|retry| retry.at) else { return Ok(CommitterStep::Worked) };
        if !fenced && now < at {
            return Ok(CommitterStep::Idle(Some(at)));
        }
        let Some(Retry { attempt, write, .. }) = self.retry.take() else { return Ok(CommitterStep::Worked) };
        let step = match (self.reopened(), write) {
            (Ok(Reopened::New), Write::Epochs(bundles)) => self.committed(attempt, Committed::of(bundles), now),
            (Ok(Reopened::Old), Write::Epochs(bundles)) => self.commit(attempt, bundles, now),
            (Ok(_), Write::Plan(plan)) => self.plan(attempt, plan, now),
            (Err(error), write) => match crash(&error) {
                Some(crashed) => Err(crashed),
                None if error.is_retryable() => {
                    self.retry = Some(Retry { attempt, write, at: now.saturating_add(RETRY) });
                    Ok(CommitterStep::Worked)
                }
                None => Ok(CommitterAnswer::Refused(Arc::new(error)).into()),
            },
        };
        if fenced {
            // Its parts go with the attempt.
            self.retry = None;
        }
        step
    }
}

pub(super) fn waiting(epoch: Epoch, bundles: &[EpochBundle], source: StoreError) -> WaitError {
    let (first, last) = (bundles.first(), bundles.last());
    let bytes = bundles.iter().flat_map(|bundle| &bundle.parts).map(Part::bytes).sum();
    let number = |bundle: Option<&EpochBundle>| bundle.map_or(epoch, |bundle| bundle.epoch);
    WaitError::Commit { epoch, first: number(first), last: number(last), bytes, source }
}
