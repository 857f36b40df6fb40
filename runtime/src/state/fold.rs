//! Folds the log into rows: the newest entry of every key becomes its row, a tombstone removes it.
//!
//! A fold takes a *prefix* of the log and never goes beyond the committed epoch. Rows, sentinels, the removal of the folded
//! deltas and the new `folded_through` are one synced batch, so that a crash leaves all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{self, EntryKey};
use super::log::{CommitError, CommitLog, Damage, RecoveryError, keys, read};
use super::store::{Space, Store, WriteBatch};
use crate::checkpoint::{EpochBundle, FoldedState};
use crate::fault::CrashPoint;
use crate::id::{Epoch, OperatorId, SubtaskId};

/// What a fold did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The last epoch whose changes are in the rows now.
    pub through: Epoch,
    /// Epochs that were folded.
    pub epochs: u64,
    /// Rows that were written or removed.
    pub rows: u64,
}

/// The newest entry of every key, by the key of its row.
#[derive(Default)]
struct Merged {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    states: BTreeSet<(OperatorId, u16)>,
}

impl Merged {
    /// Takes the entries of a chunk, which win over those before; nothing if the chunk is damaged.
    fn add(&mut self, operator: OperatorId, chunk: &[u8]) -> Option<()> {
        let mut entries = entry::entries(chunk);
        for found in entries.by_ref() {
            self.states.insert((operator, EntryKey::parse(found.key)?.state));
            self.rows.insert(entry::row_key(operator, found.key), found.value.map(<[u8]>::to_vec));
        }
        (!entries.is_damaged()).then_some(())
    }
}

impl CommitLog {
    /// Folds the whole log into rows if it has reached a limit.
    ///
    /// # Errors
    /// [`CommitError::Store`] without bundles: the outcome is open until [`CommitLog::reopen`], and either is right.
    /// [`CommitError::Damaged`] when the log is not what the manifest says.
    pub fn fold_if_full(&mut self) -> Result<Option<Folded>, CommitError> {
        let full = self.log.len() as u64 >= self.limits.fold_epochs || self.log_bytes() >= self.limits.fold_bytes;
        if full && !self.log.is_empty() { self.fold(&[]).map(Some) } else { Ok(None) }
    }

    /// Folds the log and, what only a planted bug asks for, epochs that are not committed.
    pub(super) fn fold(&mut self, uncommitted: &[EpochBundle]) -> Result<Folded, CommitError> {
        let merged = self.merge(uncommitted).map_err(|error| self.unreadable(error))?;
        let through = self.durable.epoch;
        let epochs = self.log.len() as u64;
        let rows = merged.rows.len() as u64;

        let mut batch = WriteBatch::default();
        for (key, value) in merged.rows {
            match value {
                Some(value) => batch.put(Space::Rows, key, value),
                None => batch.delete(Space::Rows, key),
            }
        }
        for record in &self.log {
            for listed in &record.deltas {
                for chunk in 0..listed.chunks.count {
                    batch.delete(Space::Log, keys::delta(record.epoch, listed.operator, listed.subtask, chunk));
                }
            }
            batch.delete(Space::Log, keys::index(record.epoch));
        }
        let mut manifest = self.durable.clone();
        manifest.folded_through = through;
        manifest.log_base = manifest.log_head;
        manifest.folded.retain(|state| !merged.states.contains(&(state.operator, state.state)));
        for (operator, state) in merged.states {
            batch.put(Space::Rows, keys::sentinel(operator, state), read::sentinel_bytes(through)?);
            manifest.folded.push(FoldedState { operator, state, epoch: through });
        }
        batch.put(Space::Meta, keys::MANIFEST, manifest.to_bytes()?);

        let points = [CrashPoint::FoldBefore, CrashPoint::FoldWritten, CrashPoint::FoldSynced];
        if let Err(failed) = self.write(batch, manifest, points) {
            return Err(self.failed(failed, Vec::new()));
        }
        self.log.clear();
        tracing::debug!(
            pipeline = %self.identity.pipeline,
            shard = %self.identity.shard,
            epoch = %through,
            epochs,
            rows,
            "folded the log into rows"
        );
        Ok(Folded { through, epochs, rows })
    }

    fn merge(&self, uncommitted: &[EpochBundle]) -> Result<Merged, RecoveryError> {
        let store: &dyn Store = self.store.as_deref().ok_or(RecoveryError::Closed)?;
        let mut merged = Merged::default();
        let damaged = |epoch: Epoch, operator: OperatorId, subtask: SubtaskId| {
            read::ReadError::from(Damage::Delta { epoch, operator, subtask }).at(&self.identity)
        };
        for record in &self.log {
            for listed in &record.deltas {
                let chunks = read::delta(store, record.epoch, listed).map_err(|error| error.at(&self.identity))?;
                for chunk in &chunks {
                    let added = merged.add(listed.operator, chunk);
                    added.ok_or_else(|| damaged(record.epoch, listed.operator, listed.subtask))?;
                }
            }
        }
        for part in uncommitted.iter().flat_map(|bundle| &bundle.parts) {
            for delta in &part.deltas {
                for chunk in &delta.chunks {
                    let added = merged.add(delta.operator, chunk);
                    added.ok_or_else(|| damaged(part.epoch, delta.operator, part.subtask))?;
                }
            }
        }
        Ok(merged)
    }

    fn unreadable(&mut self, error: RecoveryError) -> CommitError {
        let epoch = self.durable.epoch;
        match error {
            RecoveryError::Store(error) => {
                self.close();
                CommitError::Store { epoch, error, bundles: Vec::new() }
            }
            RecoveryError::Damaged { pipeline, shard, damage } => CommitError::Damaged { pipeline, shard, damage },
            error => CommitError::Misuse { epoch, reason: error.to_string() },
        }
    }
}
