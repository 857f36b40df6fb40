//! [`CommitLog`]: the store as a sequence of committed epochs. The one writer of a store.
//!
//! ```text
//! open ──> raise_attempt ──> register ──> restore ──> commit, ingest a fold, commit, ...
//!  │ genesis if new             │ names that fit          │ a store error closes the handle:
//!  └ verified, or refused       └ or refused              └──> open the store anew ──> reopen ──> commit again
//! ```
//! Every write is one atomic batch with the manifest in it; what the log knows in memory advances only after the batch
//! is durable. Layout of keys: `keys.rs`; what is verified and how: `read.rs`.

mod commit;
mod error;
mod folding;
pub(crate) mod keys;
pub(crate) mod read;
mod restore;
#[cfg(test)]
#[cfg(feature = "test-util")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

pub use self::commit::Committed;
pub use self::error::{CommitError, Damage, FoldError, RecoveryError};
use self::read::{IndexRecord, Loaded};
pub use self::restore::Restored;
use crate::canary::{Canary, planted};
use crate::checkpoint::{Closing, EpochPlan, Manifest, NameTable, OperatorDecl, OperatorEntry, SplitPosition};
use crate::fault::{CrashPoint, Crashed, SharedFaults};
use crate::id::{Attempt, Epoch, OperatorId, ShardId};
use crate::state::store::{Durability, Mark, Space, Store, StoreError, StoreShare, WriteBatch, WriteOp};

/// Whose store it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pipeline's name.
    pub pipeline: String,
    /// This copy of the daemon.
    pub shard: ShardId,
    /// Key groups of the pipeline; fixed when the store is made.
    pub key_groups: u16,
}

/// What to do with a store that is new, and with one that is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StartFrom {
    /// Go on where the store stands; make it if it is new.
    #[default]
    ResumeOrCreate,
    /// Go on where the store stands; refuse a new one.
    Resume,
    /// Make the store; refuse one that is there.
    Create,
}

/// From so many times `batch_bytes` on deltas go ahead as one sorted run. A run is written once, where pieces are written to the WAL, copied
/// into a memtable and written again by its flush; but its ingestion costs syncs of its own, too many for a few pieces.
const RUN_BATCHES: usize = 8;

/// How the log is written, and when it is folded into rows; either of the two bounds on a fold is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogLimits {
    /// Bytes of deltas in the log. Default 64 MiB. They are decoded at every start and resident while running.
    pub fold_bytes: u64,
    /// Epochs in the log. Default 1,024.
    pub fold_epochs: u64,
    /// Bytes of deltas in one write. Default 1 MiB. What an epoch has beyond is written and synced before the batch that makes it
    /// an epoch, in pieces of this size: a batch of tens of megabytes would be built, copied and freed at once. From eight
    /// times as much on they are one sorted file instead, which is written once, not to the WAL and again by a flush.
    pub batch_bytes: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { fold_bytes: 64 << 20, fold_epochs: 1_024, batch_bytes: 1 << 20 }
    }
}

/// What [`CommitLog::reopen`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopened {
    /// The failed write left nothing: what was to be committed has to be committed again.
    Old,
    /// The failed write is there, and durable by now: what was to be committed is committed.
    New,
}

/// The store of one pipeline and shard as a sequence of committed epochs.
#[derive(Debug)]
pub struct CommitLog {
    /// Given up after an error of the store, and then opened anew by the owner.
    pub(super) store: Option<Box<dyn Store>>,
    /// The way to the rows for everybody else; shut while the handle is given up.
    pub(super) share: StoreShare,
    pub(super) identity: Identity,
    pub(super) limits: LogLimits,
    pub(super) faults: SharedFaults,
    attempt: Attempt,
    /// What the store is known to hold.
    pub(super) durable: Manifest,
    /// What a failed write may have left there instead.
    pub(super) in_flight: Option<Manifest>,
    /// The durable table and what was registered since; the next commit writes it.
    names: NameTable,
    positions: BTreeMap<Vec<u8>, (SplitPosition, u32)>,
    /// The plan of the next epoch, if it is a micro-batch that has begun.
    plan: Option<EpochPlan>,
    /// Index records of the epochs in the log, in order.
    pub(super) log: Vec<IndexRecord>,
    /// A fold is on its way.
    folding: bool,
    /// A fold whose rows are there and which no commit has noted.
    ingested: Option<Ingested>,
    /// Raised with every new handle on the store.
    handle: u64,
    /// Ends folds on their way when the handle is given up.
    cancelled: Arc<AtomicBool>,
}

/// A fold between its ingestion and the commit that notes it.
#[derive(Debug)]
struct Ingested {
    through: Epoch,
    states: BTreeSet<(OperatorId, u16)>,
    /// How many index records of the log it covers.
    records: usize,
}

impl CommitLog {
    /// Opens a store: makes it if it is empty and may be made, else verifies it. What it finds is durable by then.
    ///
    /// # Errors
    /// [`RecoveryError`], by name, for everything that does not fit or is damaged. It never starts afresh over
    /// something that it cannot read.
    pub fn open(
        mut store: Box<dyn Store>,
        identity: Identity,
        start_from: StartFrom,
        limits: LogLimits,
        (faults, share): (SharedFaults, StoreShare),
    ) -> Result<Self, RecoveryError> {
        let place = store.place().to_owned();
        let loaded = match read::load(store.as_ref()).map_err(|error| error.at(&identity, &place))? {
            Some(loaded) => loaded,
            None if start_from == StartFrom::Resume => {
                let (pipeline, shard) = (identity.pipeline, identity.shard);
                return Err(RecoveryError::NothingToResume { pipeline, shard, place });
            }
            None => genesis(store.as_mut(), &identity, &faults)?,
        };
        check_identity(&identity, &loaded.manifest, &place)?;
        // A process that was killed between write and sync left a commit that can be read and is not durable yet.
        store.write(WriteBatch::default(), Durability::Synced)?;
        // A store of which nothing but the genesis was written is as good as new: its maker died early.
        if start_from == StartFrom::Create && loaded.manifest.epoch > Epoch::GENESIS {
            let (pipeline, shard) = (identity.pipeline, identity.shard);
            return Err(RecoveryError::AlreadyThere { pipeline, shard, place, epoch: loaded.manifest.epoch });
        }
        let Loaded { manifest, attempt, positions, log, plan } = loaded;
        let names = manifest.names.clone();
        share.set_folded_through(manifest.folded_through);
        share.set_reader(Some(store.reader()));
        let store = Some(store);
        Ok(Self {
            store,
            share,
            identity,
            limits,
            faults,
            attempt,
            durable: manifest,
            in_flight: None,
            names,
            positions,
            plan,
            log,
            folding: false,
            ingested: None,
            handle: 0,
            cancelled: Arc::default(),
        })
    }

    /// Raises the attempt number, durably: it never repeats in the store's life, whatever crashes.
    ///
    /// # Errors
    /// [`RecoveryError::Store`]; the handle is then given up, as by a failed commit.
    pub fn raise_attempt(&mut self) -> Result<Attempt, RecoveryError> {
        self.faults.pass(CrashPoint::AttemptBefore)?;
        let next = self.attempt.next();
        let mut batch = WriteBatch::default();
        batch.put(Space::Meta, keys::ATTEMPT, read::attempt_bytes(next)?);
        let store = self.store.as_mut().ok_or(RecoveryError::Closed)?;
        if let Err(error) = store.write(batch, Durability::Synced) {
            self.close();
            return Err(error.into());
        }
        self.faults.pass(CrashPoint::AttemptAfter)?;
        self.attempt = next;
        self.mark();
        Ok(next)
    }

    /// Notes beside the database how far it has got, so that it cannot forget that unnoticed. Costs a sync, so it is called now
    /// and then, not by every commit. What cannot be noted now is noted with the next mark.
    pub fn mark(&mut self) {
        let mark = Mark { epoch: self.durable.epoch, attempt: self.attempt };
        let Some(store) = &mut self.store else { return };
        if let Err(error) = store.set_mark(mark) {
            tracing::warn!(pipeline = %self.identity.pipeline, shard = %self.identity.shard, %error, "could not keep the mark");
        }
    }

    /// Gives the pipeline's operators their durable numbers, by name, in the order of `operators`. New ones are written
    /// by the next commit. May be called again; what fits is kept.
    ///
    /// # Errors
    /// [`RecoveryError::Names`] when the store holds something that the pipeline has no place for.
    pub fn register(&mut self, operators: &[OperatorDecl]) -> Result<Vec<OperatorId>, RecoveryError> {
        let found = self.names.register(operators, &self.used()).map_err(|source| {
            let Identity { pipeline, shard, .. } = self.identity.clone();
            RecoveryError::Names { pipeline, shard, place: self.place(), source: Box::new(source) }
        })?;
        for operator in found.new.iter().filter_map(|id| found.table.get(*id)) {
            tracing::info!(
                pipeline = %self.identity.pipeline,
                shard = %self.identity.shard,
                operator = %operator.name,
                id = %operator.id,
                epoch = %self.durable.epoch,
                "operator is new to the store and starts empty"
            );
        }
        self.names = found.table;
        Ok(found.ids)
    }

    /// Returns a registered operator: its name and the numbers of its states.
    pub fn operator(&self, id: OperatorId) -> Option<&OperatorEntry> {
        self.names.get(id)
    }

    /// Takes a fresh handle on the store after an error, verifies it, and says what became of the failed write. The
    /// failed handle is gone by then, so the store is not locked.
    ///
    /// # Errors
    /// [`RecoveryError::Changed`] when the store holds something else; otherwise as [`CommitLog::open`].
    pub fn reopen(&mut self, mut store: Box<dyn Store>) -> Result<Reopened, RecoveryError> {
        self.close();
        let expected = self.durable.epoch;
        let loaded = read::load(store.as_ref()).map_err(|error| error.at(&self.identity, store.place()))?;
        let changed = |found| RecoveryError::Changed { place: store.place().to_owned(), found, expected };
        let loaded = loaded.ok_or_else(|| changed(Epoch::GENESIS))?;
        let reopened = match &self.in_flight {
            _ if loaded.manifest == self.durable => Reopened::Old,
            Some(in_flight) if loaded.manifest == *in_flight => Reopened::New,
            _ => return Err(changed(loaded.manifest.epoch)),
        };
        // The new handle sees the write; that does not make it durable.
        store.write(WriteBatch::default(), Durability::Synced)?;
        self.durable = loaded.manifest;
        self.attempt = self.attempt.max(loaded.attempt);
        self.positions = loaded.positions;
        self.plan = loaded.plan;
        self.log = loaded.log;
        self.in_flight = None;
        // A fold whose rows are there stays there; a commit that turned out to be there may have noted it.
        self.ingested.take_if(|ingested| ingested.through <= self.durable.folded_through);
        self.share.set_folded_through(self.durable.folded_through);
        self.share.set_reader(Some(store.reader()));
        self.store = Some(store);
        Ok(reopened)
    }

    /// Gives the store's handle up, so that it can be opened anew. Reads and writes fail until [`CommitLog::reopen`].
    pub fn close(&mut self) {
        // Before the way is shut, which waits for those who read.
        self.cancel_folds();
        self.share.set_reader(None);
        self.store = None;
    }

    /// Where the store is, for messages; nothing while the handle is given up.
    pub fn place(&self) -> PathBuf {
        self.store.as_ref().map(|store| store.place().to_owned()).unwrap_or_default()
    }

    /// Says whether the handle was given up.
    pub const fn is_closed(&self) -> bool {
        self.store.is_none()
    }

    /// The last committed epoch.
    pub const fn epoch(&self) -> Epoch {
        self.durable.epoch
    }

    /// The last epoch whose changes are in the rows.
    pub const fn folded_through(&self) -> Epoch {
        self.durable.folded_through
    }

    /// The attempt that was raised last.
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// How the job ended for good, if it did.
    pub const fn closing(&self) -> Option<Closing> {
        self.durable.closing
    }

    /// What the store says about itself as of the last committed epoch.
    pub const fn manifest(&self) -> &Manifest {
        &self.durable
    }

    /// Bytes of deltas in the log.
    pub fn log_bytes(&self) -> u64 {
        self.log.iter().map(IndexRecord::bytes).sum()
    }

    /// Bytes of committed output that is not known to be delivered.
    pub fn undelivered_bytes(&self) -> u64 {
        self.durable.outbox.iter().map(|listed| listed.chunks.bytes).sum()
    }

    /// The operators that have something in the store.
    fn used(&self) -> BTreeSet<OperatorId> {
        let folded = self.durable.folded.iter().map(|state| state.operator);
        let logged = self.log.iter().flat_map(|record| &record.deltas).map(|delta| delta.operator);
        let positions = self.positions.values().map(|(position, _)| position.operator);
        let outbox = self.durable.outbox.iter().map(|listed| listed.operator);
        folded.chain(logged).chain(positions).chain(outbox).collect()
    }

    /// Writes a batch with a new manifest in three steps with a crash point between each. What goes `ahead` of it is durable
    /// before the batch is written: without the manifest nothing refers to it, with the manifest it must be there.
    pub(super) fn write(
        &mut self,
        ahead: Vec<WriteBatch<'_>>,
        batch: WriteBatch<'_>,
        next: Manifest,
        points: [CrashPoint; 3],
    ) -> Result<(), WriteFailed> {
        let [before, written, synced] = points;
        self.faults.pass(before)?;
        let Some(store) = &mut self.store else { return Err(WriteFailed::Closed) };
        self.in_flight = Some(next);
        let bytes: usize = ahead.iter().map(WriteBatch::bytes).sum();
        if bytes >= self.limits.batch_bytes.saturating_mul(RUN_BATCHES) {
            let chunks = ahead.into_iter().flat_map(|piece| piece.ops).filter_map(|op| match op {
                WriteOp::Put { key, value, .. } => Some((key, Some(value))),
                WriteOp::Delete { .. } | WriteOp::DeleteRange { .. } => None,
            });
            // By operator, where parts come by subtask.
            let mut chunks: Vec<_> = chunks.collect();
            chunks.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
            let run = store.write_run(Space::Log, &mut chunks.into_iter())?;
            store.ingest(run)?;
            self.faults.pass(CrashPoint::CommitAhead)?;
        } else if !ahead.is_empty() {
            for piece in ahead {
                store.write(piece, Durability::Buffered)?;
            }
            self.faults.pass(CrashPoint::CommitAhead)?;
            if !planted(Canary::AheadUnsynced) {
                store.write(WriteBatch::default(), Durability::Synced)?;
            }
        }
        // The batch and its sync are two calls, so that a crash can be put between them on every backend.
        store.write(batch, Durability::Buffered)?;
        self.faults.pass(written)?;
        store.write(WriteBatch::default(), Durability::Synced)?;
        self.faults.pass(synced)?;
        if let Some(next) = self.in_flight.take() {
            self.durable = next;
        }
        Ok(())
    }
}

impl Drop for CommitLog {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why [`CommitLog::write`] failed.
pub(super) enum WriteFailed {
    Closed,
    Store(StoreError),
    Crashed(Crashed),
}

impl From<StoreError> for WriteFailed {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Crashed> for WriteFailed {
    fn from(crashed: Crashed) -> Self {
        Self::Crashed(crashed)
    }
}

fn genesis(store: &mut dyn Store, identity: &Identity, faults: &SharedFaults) -> Result<Loaded, RecoveryError> {
    faults.pass(CrashPoint::GenesisBefore)?;
    let manifest = Manifest::genesis(&identity.pipeline, identity.shard, identity.key_groups);
    let attempt = Attempt::default();
    let mut batch = WriteBatch::default();
    batch.put(Space::Meta, keys::MANIFEST, manifest.to_bytes()?);
    batch.put(Space::Meta, keys::ATTEMPT, read::attempt_bytes(attempt)?);
    store.write(batch, Durability::Synced)?;
    faults.pass(CrashPoint::GenesisAfter)?;
    tracing::info!(pipeline = %identity.pipeline, shard = %identity.shard, "made a new store");
    Ok(Loaded { manifest, attempt, positions: BTreeMap::new(), log: Vec::new(), plan: None })
}

fn check_identity(identity: &Identity, manifest: &Manifest, place: &Path) -> Result<(), RecoveryError> {
    let table = [
        ("pipeline", manifest.pipeline.clone(), identity.pipeline.clone()),
        ("shard", manifest.shard.to_string(), identity.shard.to_string()),
        ("key groups", manifest.key_groups.to_string(), identity.key_groups.to_string()),
    ];
    match table.into_iter().find(|(_, stored, given)| stored != given) {
        Some((what, stored, given)) => Err(RecoveryError::Identity { place: place.to_owned(), what, stored, given }),
        None => Ok(()),
    }
}
