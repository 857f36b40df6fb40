//! Reads back what an attempt starts from: the whole log, never the rows. So it takes no longer for a larger state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::error::{Damage, RecoveryError};
use super::read::{self, ReadError};
use super::{CommitLog, keys};
use crate::checkpoint::{Closing, EpochPlan, SplitPosition, StateEntry};
use crate::fault::CrashPoint;
use crate::id::{Epoch, OperatorId};
use crate::rows::Rows;
use crate::state::entry::{self, CHUNK_BYTES, EntryKey};
use crate::state::store::{Space, Store};

/// Everything that a store holds as of its last committed epoch.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The last committed epoch.
    pub epoch: Epoch,
    /// How the job ended for good, if it did.
    pub closing: Option<Closing>,
    /// What the next epoch is made of, if it is a micro-batch that had begun.
    pub plan: Option<EpochPlan>,
    /// Where every split stands.
    pub positions: Vec<SplitPosition>,
    /// Chunks of state entries per operator, of the log's epochs in order: what the rows do not know of. Of several entries
    /// with one key the last wins, tombstones included.
    pub state: BTreeMap<OperatorId, Arc<Vec<Vec<u8>>>>,
    /// The states of every registered operator, by number.
    pub states: BTreeMap<OperatorId, Vec<StateEntry>>,
    /// The states that have rows, which are read when they are needed.
    pub folded: BTreeSet<(OperatorId, u16)>,
    /// Output per sink that is committed and not known to be delivered, by epoch.
    pub outbox: BTreeMap<OperatorId, Vec<Rows>>,
}

impl CommitLog {
    /// Reads back what was committed and is not in the rows, and verifies the checksum of every chunk.
    ///
    /// # Errors
    /// [`RecoveryError::Damaged`] for what does not match the manifest, [`RecoveryError::Store`] for what cannot be read.
    pub fn restore(&self) -> Result<Restored, RecoveryError> {
        self.faults.pass(CrashPoint::RecoverBefore)?;
        let store = self.store.as_deref().ok_or(RecoveryError::Closed)?;
        let read = || -> Result<_, ReadError> {
            let mut state: BTreeMap<OperatorId, Vec<Vec<u8>>> = BTreeMap::new();
            for record in &self.log {
                for listed in &record.deltas {
                    state.entry(listed.operator).or_default().append(&mut read::delta(store, record.epoch, listed)?);
                }
            }
            Ok((state, self.outbox(store)?))
        };
        let (state, outbox) = read().map_err(|error| error.at(&self.identity, store.place()))?;
        self.faults.pass(CrashPoint::RecoverAfter)?;
        Ok(Restored {
            epoch: self.durable.epoch,
            closing: self.durable.closing,
            plan: self.plan.clone(),
            positions: self.positions.values().map(|(position, _)| position.clone()).collect(),
            state: state.into_iter().map(|(operator, chunks)| (operator, Arc::new(chunks))).collect(),
            states: self.names.iter().map(|operator| (operator.id, operator.present().cloned().collect())).collect(),
            folded: self.durable.folded.iter().map(|state| (state.operator, state.state)).collect(),
            outbox,
        })
    }

    /// Reads all rows as chunks of state entries per operator. For whoever looks at a store as a whole; a job never does.
    ///
    /// # Errors
    /// [`RecoveryError::Damaged`] for a row that none of ours is, [`RecoveryError::Store`] for what cannot be read.
    pub fn rows(&self) -> Result<BTreeMap<OperatorId, Vec<Vec<u8>>>, RecoveryError> {
        let store = self.store.as_deref().ok_or(RecoveryError::Closed)?;
        rows(store).map_err(|error| error.at(&self.identity, store.place()))
    }

    fn outbox(&self, store: &dyn Store) -> Result<BTreeMap<OperatorId, Vec<Rows>>, ReadError> {
        let mut found: BTreeMap<(OperatorId, Epoch), Vec<Vec<u8>>> = BTreeMap::new();
        // The manifest lists them by epoch, within it in the order of the subtasks: so the rows count as they did at
        // the commit.
        for listed in &self.durable.outbox {
            let (operator, epoch, subtask) = (listed.operator, listed.epoch, listed.subtask);
            let keys = (0..listed.chunks.count).map(|chunk| keys::outbox(operator, epoch, subtask, chunk));
            let damage = Damage::Outbox { operator, epoch, subtask };
            let mut chunks = read::chunks(store, Space::Outbox, keys, listed.chunks, damage)?;
            found.entry((operator, epoch)).or_default().append(&mut chunks);
        }
        let mut outbox: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((operator, epoch), chunks) in found {
            outbox.entry(operator).or_default().push(Rows::new(epoch, chunks));
        }
        Ok(outbox)
    }
}

fn rows(store: &dyn Store) -> Result<BTreeMap<OperatorId, Vec<Vec<u8>>>, ReadError> {
    let mut state: BTreeMap<OperatorId, Vec<Vec<u8>>> = BTreeMap::new();
    let mut damaged = false;
    store.scan(Space::Rows, &[], None, &mut |key, value| {
        if keys::is_sentinel(key) || entry::parse_timer_index(key).is_some() {
            return ControlFlow::Continue(());
        }
        let parsed = keys::parse_row(key).and_then(|(operator, key)| Some((operator, EntryKey::parse(key)?)));
        let Some((operator, key)) = parsed else {
            damaged = true;
            return ControlFlow::Break(());
        };
        append(state.entry(operator).or_default(), key, value);
        ControlFlow::Continue(())
    })?;
    if damaged { Err(Damage::Row.into()) } else { Ok(state) }
}

fn append(chunks: &mut Vec<Vec<u8>>, key: EntryKey<'_>, value: &[u8]) {
    if chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
        chunks.push(Vec::new());
    }
    let Some(chunk) = chunks.last_mut() else { return };
    let write = |out: &mut Vec<u8>| {
        out.extend_from_slice(value);
        Ok::<(), std::convert::Infallible>(())
    };
    let bytes_of = |bytes| move |out: &mut Vec<u8>| out.extend_from_slice(bytes);
    let Ok(()) = entry::append(chunk, key.state, key.group, bytes_of(key.key), bytes_of(key.element), Some(write));
}
