//! The owner's side of a fold: when it begins, its ingestion, and the commit that notes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CommitError, CommitLog, FoldError, IndexRecord, Ingested, WriteFailed, keys};
use crate::canary::{self, Canary};
use crate::checkpoint::{EpochBundle, FoldedState, Manifest};
use crate::fault::CrashPoint;
use crate::state::fold::{FoldJob, Folded, FoldedRun};
use crate::state::store::{Space, WriteBatch};

impl CommitLog {
    /// Returns the fold of the log's beginning, if it has reached a limit or somebody waits for it, and no fold is on its way.
    pub fn fold_job(&mut self) -> Option<FoldJob> {
        let full = self.log.len() as u64 >= self.limits.fold_epochs || self.log_bytes() >= self.limits.fold_bytes;
        let wanted = full || self.share.is_fold_wanted();
        let busy = (self.folding && !canary::planted(Canary::StaleFold)) || self.ingested.is_some();
        if !wanted || busy || self.log.is_empty() || self.is_closed() {
            return None;
        }
        self.folding = true;
        Some(self.job(self.prefix()))
    }

    /// What one fold takes: a fold holds a copy of it all, so that must not grow with what has come together meanwhile. The rest is
    /// folded next.
    fn prefix(&self) -> Vec<IndexRecord> {
        let most = self.limits.fold_bytes.saturating_mul(2);
        let mut bytes = 0_u64;
        let fits = |record: &&IndexRecord| {
            let is_first = bytes == 0;
            bytes += record.bytes();
            is_first || bytes <= most
        };
        self.log.iter().take_while(fits).cloned().collect()
    }

    fn job(&self, records: Vec<IndexRecord>) -> FoldJob {
        FoldJob {
            through: records.last().map_or(self.durable.folded_through, |last| last.epoch),
            records,
            share: self.share.clone(),
            identity: self.identity.clone(),
            faults: Arc::clone(&self.faults),
            handle: self.handle,
            cancelled: Arc::clone(&self.cancelled),
        }
    }

    /// Ingests folded rows; the next commit notes it. Nothing happens to a run of an earlier handle of the store: the prefix
    /// is folded again.
    ///
    /// # Errors
    /// [`CommitError::Store`] without bundles: the outcome is open until [`CommitLog::reopen`], and either is right.
    pub fn ingest(&mut self, run: FoldedRun) -> Result<Option<Folded>, CommitError> {
        if run.handle != self.handle {
            return Ok(None);
        }
        self.folding = false;
        let Some(store) = &mut self.store else { return Ok(None) };
        let stale = run.through <= self.durable.folded_through || self.ingested.is_some();
        if stale && !canary::planted(Canary::StaleFold) {
            // Its rows are older than those that are there.
            return Ok(None);
        }
        if let Err(error) = store.ingest(run.run) {
            return Err(self.failed(WriteFailed::Store(error), Vec::new()));
        }
        self.faults.pass(CrashPoint::FoldIngested)?;
        if stale {
            return Ok(None);
        }
        let folded = Folded { through: run.through, epochs: run.epochs as u64, rows: run.rows };
        self.ingested = Some(Ingested { through: run.through, states: run.states, records: run.epochs });
        tracing::debug!(
            pipeline = %self.identity.pipeline,
            shard = %self.identity.shard,
            epoch = %folded.through,
            epochs = folded.epochs,
            rows = folded.rows,
            "folded the log into rows"
        );
        Ok(Some(folded))
    }

    /// Takes note that a fold came to nothing: the next one may begin.
    pub fn fold_failed(&mut self) {
        self.folding = false;
    }

    /// Folds at once, on the caller's thread, if the log has reached a limit.
    ///
    /// # Errors
    /// As [`CommitLog::ingest`]; [`CommitError::Damaged`] when the log is not what the manifest says.
    pub fn fold_if_full(&mut self) -> Result<Option<Folded>, CommitError> {
        let Some(job) = self.fold_job() else { return Ok(None) };
        let run = job.run();
        self.folding = false;
        match run {
            Ok(run) => self.ingest(run),
            Err(error) => Err(self.fold_error(error)),
        }
    }

    /// Folds epochs that are not committed, as a planted bug does.
    pub(super) fn fold_beyond(&mut self, uncommitted: &[EpochBundle]) -> Result<(), CommitError> {
        let run = self.job(self.log.clone()).fold(uncommitted).map_err(|error| self.fold_error(error))?;
        self.ingest(run).map(|_| ())
    }

    /// What a failed fold means for the job.
    pub fn fold_error(&self, error: FoldError) -> CommitError {
        error.into_commit_error(self.durable.epoch)
    }

    /// Puts what an ingested fold makes superfluous into a commit.
    pub(super) fn note_fold(&self, batch: &mut WriteBatch<'_>, manifest: &mut Manifest) {
        let Some(ingested) = &self.ingested else { return };
        let through = ingested.through;
        batch.delete_range(Space::Log, [], keys::log_epoch(through.next()));
        manifest.folded_through = through;
        // The record behind the folded ones names the last of them by its checksum; so does the manifest if there is none.
        manifest.log_base = self.log.get(ingested.records).map_or(manifest.log_head, |next| next.previous);
        manifest.folded.retain(|state| !ingested.states.contains(&(state.operator, state.state)));
        let states = ingested.states.iter();
        let noted = states.map(|(operator, state)| FoldedState { operator: *operator, state: *state, epoch: through });
        manifest.folded.extend(noted);
    }

    /// Puts the removal of states that were given up into a commit. What the log still has of them becomes rows with its fold, and goes
    /// with the commit that notes that.
    pub(super) fn purge(&self, batch: &mut WriteBatch<'_>, manifest: &mut Manifest) {
        manifest.folded.retain(|state| {
            let is_removed = self.names.is_removed(state.operator, state.state);
            if is_removed {
                let [from, to] = [state.state, state.state + 1].map(|state_| keys::sentinel(state.operator, state_));
                batch.delete_range(Space::Rows, from, to);
            }
            !is_removed
        });
    }

    /// A commit that noted a fold is durable: what is folded may leave memory.
    pub(super) fn fold_noted(&mut self) -> Result<(), CommitError> {
        let Some(ingested) = self.ingested.take() else { return Ok(()) };
        self.log.drain(..ingested.records.min(self.log.len()));
        self.faults.pass(CrashPoint::FoldNoted)?;
        self.share.set_folded_through(ingested.through);
        self.share.fold_done();
        Ok(())
    }

    /// Ends a fold on its way, as when the handle is given up.
    pub(super) fn cancel_folds(&mut self) {
        self.cancelled.store(true, Ordering::Release);
        self.cancelled = Arc::default();
        self.handle += 1;
        self.folding = false;
    }
}
