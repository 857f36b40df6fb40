//! The one writer of a job's store: takes orders in the order in which they were given.
//!
//! ```text
//!   Begin --> raise the attempt, read the manifest, restore
//!   Commit --> write --ok--> a fold if the log is full, run elsewhere --> Folded --> ingest --> noted by the next commit
//!                 \--disk full--> Waiting --(fresh handle)--> write again --> ...
//!   Fence --> the write in flight has returned with a known result; a wait ends with one last try
//! ```
//! It blocks on the disk, so its host gives it a thread of its own; the simulator steps it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::canary::{Canary, planted};
use crate::checkpoint::{Delivered, EpochBundle, OperatorDecl};
use crate::fault::{CrashPoint, Crashed, SharedFaults};
use crate::id::{Attempt, Epoch, OperatorId};
use crate::state::FoldedRun;
use crate::state::log::{
    CommitError, CommitLog, Committed, FoldError, Identity, LogLimits, RecoveryError, Reopened, StartFrom,
};
use crate::state::store::{Store, StoreError, StoreShare};
use crate::time::Timestamp;

mod orders;
mod waiting;

pub use self::orders::{CommitterAnswer, CommitterOrder, CommitterStep, WaitError};
use self::waiting::{Retry, Write, waiting};

/// Pause before a full disk is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long after a commit the store's mark is raised, which costs a sync: a second at most, with the commit under way.
const MARK: Duration = Duration::from_millis(800);

/// Opens the store anew; told whether it may be created.
pub type OpenStore = Box<dyn FnMut(bool) -> Result<Box<dyn Store>, StoreError> + Send>;

/// The committer of one pipeline and shard.
pub struct Committer {
    identity: Identity,
    start_from: StartFrom,
    limits: LogLimits,
    operators: Vec<OperatorDecl>,
    open: OpenStore,
    faults: SharedFaults,
    share: StoreShare,
    log: Option<CommitLog>,
    fenced: Attempt,
    orders: VecDeque<CommitterOrder>,
    delivered: BTreeMap<OperatorId, Epoch>,
    retry: Option<Retry>,
    /// An attempt waits to begin, until then.
    begin_at: Option<Timestamp>,
    /// When the mark is to be raised; nothing if it is up to date.
    mark_at: Option<Timestamp>,
    /// A commit was made since it was last asked whether the log is full.
    fold: bool,
    /// After a fold that failed for want of room.
    fold_after: Timestamp,
    /// When a store that could not be opened anew is tried again. Tasks may wait for its rows, and no commit comes before
    /// they have them.
    reopen_at: Option<Timestamp>,
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committer")
            .field("identity", &self.identity)
            .field("orders", &self.orders.len())
            .finish_non_exhaustive()
    }
}

impl Committer {
    /// Makes a committer; the store is opened by the first [`CommitterOrder::Begin`].
    pub fn new(
        identity: Identity,
        start_from: StartFrom,
        limits: LogLimits,
        operators: Vec<OperatorDecl>,
        open: OpenStore,
        faults: SharedFaults,
    ) -> Self {
        Self {
            identity,
            start_from,
            limits,
            operators,
            open,
            faults,
            share: StoreShare::default(),
            log: None,
            fenced: Attempt::default(),
            orders: VecDeque::new(),
            delivered: BTreeMap::new(),
            retry: None,
            begin_at: None,
            mark_at: None,
            fold: false,
            fold_after: Timestamp::MIN,
            reopen_at: None,
        }
    }

    /// The way to the rows, for those who read them beside the committer.
    pub fn share(&self) -> StoreShare {
        self.share.clone()
    }

    /// Takes an order. They are carried out in this order.
    pub fn order(&mut self, order: CommitterOrder) {
        self.orders.push_back(order);
    }

    /// Says whether an order waits.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Carries out one order, one retry or one fold.
    ///
    /// # Errors
    /// [`Crashed`] in a test host.
    pub fn step(&mut self, now: Timestamp) -> Result<CommitterStep, Crashed> {
        if self.retry.is_some() {
            return self.step_waiting(now);
        }
        if self.reopen_at.is_some_and(|at| now >= at) {
            return self.open_again(now);
        }
        if let Some(at) = self.begin_at {
            if now < at && !self.is_fenced() {
                return Ok(CommitterStep::Idle(Some(at)));
            }
            self.begin_at = None;
            if !self.is_fenced() {
                return self.begin(now);
            }
        }
        if self.mark_at.is_some_and(|at| now >= at) {
            self.mark();
            // Not while the handle is given up: then it is tried again.
            if self.log.as_ref().is_some_and(CommitLog::is_closed) {
                self.mark_at = Some(now.saturating_add(MARK));
            }
            return Ok(CommitterStep::Worked);
        }
        if self.fold && self.orders.is_empty() && now >= self.fold_after {
            self.fold = false;
            if let Some(job) = self.log.as_mut().and_then(CommitLog::fold_job) {
                return Ok(CommitterStep::Fold(Box::new(job)));
            }
        }
        let Some(order) = self.next_order() else {
            return Ok(CommitterStep::Idle(self.reopen_at.into_iter().chain(self.mark_at).min()));
        };
        match order {
            CommitterOrder::Begin => self.begin(now),
            CommitterOrder::Commit { attempt, bundles } if attempt < self.fenced => {
                tracing::debug!(%attempt, epochs = bundles.len(), "dropped epochs of an attempt that is over");
                Ok(CommitterStep::Worked)
            }
            CommitterOrder::Commit { attempt, bundles } => self.commit(attempt, bundles, now),
            CommitterOrder::Plan { attempt, .. } if attempt < self.fenced => Ok(CommitterStep::Worked),
            CommitterOrder::Plan { attempt, plan } => self.plan(attempt, plan, now),
            CommitterOrder::Delivered(delivered) => {
                let next = self.delivered.entry(delivered.operator).or_default();
                *next = (*next).max(delivered.next);
                Ok(CommitterStep::Worked)
            }
            CommitterOrder::FoldSoon => {
                self.fold = true;
                self.share.want_fold();
                Ok(CommitterStep::Worked)
            }
            CommitterOrder::Folded(run) => self.folded(run, now),
            CommitterOrder::Fence { attempt } => self.fence(attempt),
        }
    }

    fn next_order(&mut self) -> Option<CommitterOrder> {
        if planted(Canary::ManifestBeforeFence)
            && let Some(at) = self.orders.iter().position(|order| matches!(order, CommitterOrder::Begin))
        {
            return self.orders.remove(at);
        }
        self.orders.pop_front()
    }

    fn fence(&mut self, attempt: Attempt) -> Result<CommitterStep, Crashed> {
        self.fenced = self.fenced.max(attempt);
        self.forget_delivered()?;
        if self.mark_at.is_some() {
            self.mark();
        }
        self.faults.pass(CrashPoint::FenceAnswered)?;
        Ok(CommitterAnswer::Fenced { attempt }.into())
    }

    /// Says whether a fence waits among the orders.
    fn is_fenced(&self) -> bool {
        self.orders.iter().any(|order| matches!(order, CommitterOrder::Fence { .. }))
    }

    fn mark(&mut self) {
        self.mark_at = None;
        if let Some(log) = &mut self.log {
            log.mark();
        }
    }

    /// No further commit of this attempt would tell the store what its sinks have. If it cannot be told now, their tokens
    /// say the same at the next start.
    fn forget_delivered(&mut self) -> Result<(), Crashed> {
        let delivered = self.delivered();
        let Some(log) = self.log.as_mut().filter(|log| !log.is_closed()) else { return Ok(()) };
        match log.forget(&delivered) {
            Ok(()) => Ok(()),
            Err(CommitError::Crashed(crashed)) => Err(crashed),
            Err(CommitError::Store { error, .. }) => match store_crash(&error) {
                Some(crashed) => Err(crashed),
                None => {
                    tracing::warn!(%error, "could not note what was delivered; the sinks' tokens tell it again");
                    Ok(())
                }
            },
            Err(error) => {
                tracing::warn!(%error, "could not note what was delivered; the sinks' tokens tell it again");
                Ok(())
            }
        }
    }

    fn delivered(&self) -> Vec<Delivered> {
        let delivered = self.delivered.iter();
        delivered.map(|(operator, next)| Delivered { operator: *operator, next: *next }).collect()
    }

    fn begin(&mut self, now: Timestamp) -> Result<CommitterStep, Crashed> {
        match self.try_begin() {
            Ok(began) => Ok(began.into()),
            Err(error) => match crash(&error) {
                Some(crashed) => Err(crashed),
                None if error.is_retryable() => {
                    self.begin_at = Some(now.saturating_add(RETRY));
                    Ok(CommitterAnswer::Waiting { error: Arc::new(WaitError::Begin { source: error }) }.into())
                }
                None => Ok(CommitterAnswer::Refused(Arc::new(error)).into()),
            },
        }
    }

    fn try_begin(&mut self) -> Result<CommitterAnswer, RecoveryError> {
        // A log whose last write failed is read anew: what became of that write decides where the attempt starts.
        let mut log = match self.log.take().filter(|log| !log.is_closed()) {
            Some(log) => log,
            None => {
                let store = (self.open)(self.start_from != StartFrom::Resume)?;
                let identity = self.identity.clone();
                let shared = (Arc::clone(&self.faults), self.share.clone());
                CommitLog::open(store, identity, self.start_from, self.limits, shared)?
            }
        };
        let attempt = log.raise_attempt()?;
        let operators = log.register(&self.operators)?;
        let restored = Arc::new(log.restore()?);
        // From now on the store is ours to go on with, whatever was asked for at the start.
        self.start_from = StartFrom::ResumeOrCreate;
        if !planted(Canary::ManifestBeforeFence) {
            self.fenced = self.fenced.max(attempt);
        }
        let place = log.place();
        self.log = Some(log);
        Ok(CommitterAnswer::Began { attempt, operators, restored, place })
    }

    fn commit(
        &mut self,
        attempt: Attempt,
        bundles: Vec<EpochBundle>,
        now: Timestamp,
    ) -> Result<CommitterStep, Crashed> {
        let delivered = self.delivered();
        let Some(log) = self.log.as_mut() else { return Ok(CommitterStep::Worked) };
        if log.is_closed() {
            // A fold failed and the store could not be opened anew at once.
            self.retry = Some(Retry { attempt, write: Write::Epochs(bundles), at: now });
            return Ok(CommitterStep::Worked);
        }
        match log.commit(bundles, &delivered) {
            Ok(committed) => self.committed(attempt, committed, now),
            Err(error) => self.commit_failed(attempt, error, now),
        }
    }

    fn committed(
        &mut self,
        attempt: Attempt,
        mut committed: Committed,
        now: Timestamp,
    ) -> Result<CommitterStep, Crashed> {
        self.fold = true;
        self.mark_at.get_or_insert(now.saturating_add(MARK));
        committed.log_bytes = self.log.as_ref().map_or(0, CommitLog::log_bytes);
        self.faults.pass(CrashPoint::PublishBefore)?;
        Ok(CommitterAnswer::Committed { attempt, committed }.into())
    }

    fn commit_failed(
        &mut self,
        attempt: Attempt,
        error: CommitError,
        now: Timestamp,
    ) -> Result<CommitterStep, Crashed> {
        if let CommitError::Crashed(crashed) = error {
            return Err(crashed);
        }
        match error {
            CommitError::Store { epoch, error, bundles } => {
                if let Some(crashed) = store_crash(&error) {
                    return Err(crashed);
                }
                let retryable = error.is_retryable();
                match self.reopened() {
                    // The write is there after all.
                    Ok(Reopened::New) => return self.committed(attempt, Committed::of(bundles), now),
                    Ok(Reopened::Old) if retryable => {}
                    Err(found) if found.is_retryable() => {}
                    Err(found) => {
                        if let Some(crashed) = crash(&found) {
                            return Err(crashed);
                        }
                        self.log = None;
                        let error = Arc::new(CommitError::Store { epoch, error, bundles: Vec::new() });
                        tracing::error!(%found, "the store cannot be opened anew");
                        return Ok(CommitterAnswer::Failed { attempt, error }.into());
                    }
                    Ok(Reopened::Old) => {
                        let error = Arc::new(CommitError::Store { epoch, error, bundles: Vec::new() });
                        return Ok(CommitterAnswer::Failed { attempt, error }.into());
                    }
                }
                let waiting = Arc::new(waiting(epoch, &bundles, error));
                self.retry = Some(Retry { attempt, write: Write::Epochs(bundles), at: now.saturating_add(RETRY) });
                Ok(CommitterAnswer::Waiting { error: waiting }.into())
            }
            error => Ok(CommitterAnswer::Failed { attempt, error: Arc::new(error) }.into()),
        }
    }

    fn folded(&mut self, run: Result<FoldedRun, FoldError>, now: Timestamp) -> Result<CommitterStep, Crashed> {
        let Some(log) = self.log.as_mut() else { return Ok(CommitterStep::Worked) };
        let run = match run {
            Ok(run) => run,
            Err(FoldError::Crashed(crashed)) => return Err(crashed),
            Err(error) => {
                log.fold_failed();
                if error.is_retryable() {
                    tracing::warn!(%error, "could not fold the log; it will be tried again");
                    self.fold = true;
                    self.fold_after = now.saturating_add(RETRY);
                    return Ok(CommitterStep::Worked);
                }
                let error = log.fold_error(error);
                if let CommitError::Store { error, .. } = &error
                    && let Some(crashed) = store_crash(error)
                {
                    return Err(crashed);
                }
                return Ok(CommitterAnswer::Failed { attempt: self.fenced, error: Arc::new(error) }.into());
            }
        };
        let error = match log.ingest(run) {
            Ok(Some(_)) => return Ok(CommitterAnswer::FoldIn { wanted: self.share.is_fold_wanted() }.into()),
            Ok(None) => return Ok(CommitterStep::Worked),
            Err(CommitError::Crashed(crashed)) => return Err(crashed),
            Err(error) => error,
        };
        if let CommitError::Store { error, .. } = &error
            && let Some(crashed) = store_crash(error)
        {
            return Err(crashed);
        }
        // Either outcome of the failed fold is right; the handle is done for.
        match self.reopened() {
            Ok(_) => {
                tracing::warn!(%error, "could not ingest folded rows; the log will be folded again");
                self.fold = true;
                self.fold_after = now.saturating_add(RETRY);
                Ok(CommitterStep::Worked)
            }
            Err(found) => match crash(&found) {
                Some(crashed) => Err(crashed),
                None if found.is_retryable() => {
                    self.reopen_at = Some(now.saturating_add(RETRY));
                    Ok(CommitterStep::Worked)
                }
                None => {
                    let attempt = self.fenced;
                    Ok(CommitterAnswer::Failed { attempt, error: Arc::new(error) }.into())
                }
            },
        }
    }

    /// Tries to open a store that was given up and that nothing waits to be written to.
    fn open_again(&mut self, now: Timestamp) -> Result<CommitterStep, Crashed> {
        self.reopen_at = None;
        if self.log.as_ref().is_none_or(|log| !log.is_closed()) {
            return Ok(CommitterStep::Worked);
        }
        match self.reopened() {
            Ok(_) => Ok(CommitterStep::Worked),
            Err(found) => match crash(&found) {
                Some(crashed) => Err(crashed),
                None if found.is_retryable() => {
                    self.reopen_at = Some(now.saturating_add(RETRY));
                    Ok(CommitterStep::Worked)
                }
                None => Ok(CommitterAnswer::Refused(Arc::new(found)).into()),
            },
        }
    }

    fn reopened(&mut self) -> Result<Reopened, RecoveryError> {
        let Some(log) = self.log.as_mut() else { return Err(RecoveryError::Closed) };
        log.close();
        let store = (self.open)(false)?;
        log.reopen(store)
    }
}

fn store_crash(error: &StoreError) -> Option<Crashed> {
    error.source.downcast_ref::<Crashed>().copied()
}

fn crash(error: &RecoveryError) -> Option<Crashed> {
    match error {
        RecoveryError::Crashed(crashed) => Some(*crashed),
        RecoveryError::Store(error) => store_crash(error),
        _ => None,
    }
}

#[cfg(test)]
#[cfg(feature = "test-util")]
mod tests;
