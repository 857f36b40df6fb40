//! Commits epochs: one synced batch for all that wait.

use std::collections::{BTreeMap, BTreeSet};

use super::read::{self, DeltaRef, IndexRecord};
use super::{CommitError, CommitLog, WriteFailed, keys};
use crate::canary::{self, Canary};
use crate::checkpoint::{
    Chunks, Closing, Delivered, EpochBundle, EpochPlan, Manifest, OutboxPart, OutboxRef, Part, SplitPosition,
};
use crate::codec::CodecError;
use crate::fault::CrashPoint;
use crate::id::{Epoch, OperatorId};
use crate::rows::Rows;
use crate::state::store::{Durability, Space, WriteBatch};

/// What a commit made durable; what sinks and sources are told.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The last committed epoch.
    pub epoch: Epoch,
    /// How the job ended for good, if it did with this epoch.
    pub closing: Option<Closing>,
    /// Where splits stand that moved.
    pub positions: Vec<SplitPosition>,
    /// Bytes of deltas in the log after it.
    pub log_bytes: u64,
    /// The new output per sink, by epoch, in the same order and form as after a restart.
    pub outbox: BTreeMap<OperatorId, Vec<Rows>>,
}

impl Committed {
    /// Sums up bundles that are committed. For a write that turned out to be there after [`CommitLog::reopen`];
    /// [`CommitLog::commit`] returns it by itself.
    pub fn of(bundles: Vec<EpochBundle>) -> Self {
        let last = bundles.last();
        let mut committed = Self {
            epoch: last.map_or(Epoch::GENESIS, |bundle| bundle.epoch),
            closing: last.and_then(|bundle| bundle.closing),
            positions: Vec::new(),
            log_bytes: 0,
            outbox: BTreeMap::new(),
        };
        let mut positions = BTreeMap::new();
        for mut bundle in bundles {
            bundle.parts.sort_by_key(|part| part.subtask);
            let mut rows: BTreeMap<OperatorId, Vec<Vec<u8>>> = BTreeMap::new();
            for part in bundle.parts {
                for mut outbox in part.outbox.into_iter().filter(has_rows) {
                    rows.entry(outbox.operator).or_default().append(&mut outbox.chunks);
                }
                for position in part.positions {
                    positions.insert((position.operator, position.split.clone()), position);
                }
            }
            for (operator, chunks) in rows {
                committed.outbox.entry(operator).or_default().push(Rows::new(bundle.epoch, chunks));
            }
        }
        committed.positions = positions.into_values().collect();
        committed
    }
}

fn has_rows(outbox: &OutboxPart) -> bool {
    !outbox.chunks.is_empty()
}

/// A commit that is built and not written.
struct Prepared<'a> {
    /// Chunks of deltas that do not fit into the batch.
    ahead: Vec<WriteBatch<'a>>,
    batch: WriteBatch<'a>,
    manifest: Manifest,
    records: Vec<IndexRecord>,
    positions: BTreeMap<Vec<u8>, (SplitPosition, u32)>,
}

impl CommitLog {
    /// Makes complete epochs durable, in one synced batch, and forgets output that was delivered.
    ///
    /// The bundles are consecutive and begin with the epoch after the last committed one.
    ///
    /// # Errors
    /// [`CommitError::Store`] hands the bundles back: the outcome is open until [`CommitLog::reopen`].
    /// [`CommitError::Misuse`] for bundles that do not fit; nothing is written then.
    pub fn commit(&mut self, bundles: Vec<EpochBundle>, delivered: &[Delivered]) -> Result<Committed, CommitError> {
        self.check(&bundles).map_err(|reason| self.misuse(reason))?;
        if canary::planted(Canary::FoldBeyondCommitted) {
            match self.fold_beyond(&bundles) {
                Ok(()) => {}
                Err(CommitError::Store { epoch, error, .. }) => {
                    return Err(CommitError::Store { epoch, error, bundles });
                }
                Err(error) => return Err(error),
            }
        }
        let prepared = self.prepare(&bundles, delivered)?;
        let points = [CrashPoint::CommitBeforeWrite, CrashPoint::CommitWritten, CrashPoint::CommitSynced];
        if let Err(failed) = self.write(prepared.ahead, prepared.batch, prepared.manifest, points) {
            return Err(self.failed(failed, bundles));
        }
        self.fold_noted()?;
        self.plan = None;
        self.log.extend(prepared.records);
        self.positions.extend(prepared.positions);
        tracing::debug!(
            pipeline = %self.identity.pipeline,
            shard = %self.identity.shard,
            epoch = %self.durable.epoch,
            epochs = bundles.len(),
            "committed"
        );
        Ok(Committed::of(bundles))
    }

    /// Forgets output that was delivered, and notes a fold, without an epoch: the attempt ends and no further commit would
    /// do it. Does nothing where there is nothing to note.
    ///
    /// # Errors
    /// [`CommitError::Store`] without bundles: the outcome is open until [`CommitLog::reopen`], and either is right.
    pub fn forget(&mut self, delivered: &[Delivered]) -> Result<(), CommitError> {
        let is_in = |listed: &OutboxRef| {
            delivered.iter().any(|sink| sink.operator == listed.operator && listed.epoch < sink.next)
        };
        if self.ingested.is_none() && !self.durable.outbox.iter().any(is_in) {
            return Ok(());
        }
        let prepared = self.prepare(&[], delivered)?;
        let points = [CrashPoint::CommitBeforeWrite, CrashPoint::CommitWritten, CrashPoint::CommitSynced];
        self.write(prepared.ahead, prepared.batch, prepared.manifest, points)
            .map_err(|failed| self.failed(failed, Vec::new()))?;
        self.fold_noted()
    }

    /// Makes the plan of the next epoch durable, before any of its records is worked on. Its commit removes it.
    ///
    /// # Errors
    /// [`CommitError::Store`] without bundles: the outcome is open until [`CommitLog::reopen`], and either is right.
    pub fn write_plan(&mut self, plan: EpochPlan) -> Result<(), CommitError> {
        if plan.epoch != self.durable.epoch.next() {
            return Err(self.misuse(format!("a plan for epoch {} does not follow", plan.epoch)));
        }
        let mut batch = WriteBatch::default();
        batch.put(Space::Meta, keys::PLAN, plan.to_bytes()?);
        let written = self.put_plan(batch);
        written.map_err(|failed| self.failed(failed, Vec::new()))?;
        self.plan = Some(plan);
        Ok(())
    }

    fn put_plan(&mut self, batch: WriteBatch<'_>) -> Result<(), WriteFailed> {
        self.faults.pass(CrashPoint::PlanBefore)?;
        let Some(store) = &mut self.store else { return Err(WriteFailed::Closed) };
        store.write(batch, Durability::Buffered)?;
        self.faults.pass(CrashPoint::PlanWritten)?;
        store.write(WriteBatch::default(), Durability::Synced)?;
        self.faults.pass(CrashPoint::PlanSynced)?;
        Ok(())
    }

    fn misuse(&self, reason: String) -> CommitError {
        CommitError::Misuse { epoch: self.durable.epoch, reason }
    }

    /// Turns a failed write into an error; after one of the store its handle is given up.
    pub(in crate::state) fn failed(&mut self, failed: WriteFailed, bundles: Vec<EpochBundle>) -> CommitError {
        match failed {
            WriteFailed::Closed => self.misuse("the store was closed after an error and not opened anew".to_owned()),
            WriteFailed::Crashed(crashed) => crashed.into(),
            WriteFailed::Store(error) => {
                self.close();
                CommitError::Store { epoch: self.durable.epoch, error, bundles }
            }
        }
    }

    fn check(&self, bundles: &[EpochBundle]) -> Result<(), String> {
        if bundles.is_empty() {
            return Err("there is no epoch".to_owned());
        }
        let mut next = self.durable.epoch.next();
        for bundle in bundles {
            if bundle.epoch != next {
                return Err(format!("epoch {next} comes next, not epoch {}", bundle.epoch));
            }
            next = next.next();
            let mut deltas = BTreeSet::new();
            let mut outboxes = BTreeSet::new();
            for part in &bundle.parts {
                if part.epoch != bundle.epoch {
                    return Err(format!("a part of epoch {} is in the bundle of epoch {}", part.epoch, bundle.epoch));
                }
                let twice = part.deltas.iter().any(|delta| !deltas.insert((delta.operator, part.subtask)))
                    || part.outbox.iter().any(|outbox| !outboxes.insert((outbox.operator, part.subtask)));
                if twice {
                    return Err(format!("subtask {} hands in epoch {} twice", part.subtask, bundle.epoch));
                }
                if let Some(unknown) = operators(part).find(|operator| self.names.get(*operator).is_none()) {
                    return Err(format!("operator {unknown} is not registered"));
                }
            }
        }
        Ok(())
    }

    fn prepare<'a>(&self, bundles: &'a [EpochBundle], delivered: &[Delivered]) -> Result<Prepared<'a>, CodecError> {
        let mut batch = WriteBatch::default();
        let mut manifest = self.durable.clone();
        let mut records = Vec::with_capacity(bundles.len());
        let mut moved = BTreeMap::new();
        let mut pieces = Pieces::new(self.limits.batch_bytes);

        self.note_fold(&mut batch, &mut manifest);
        self.purge(&mut batch, &mut manifest);
        manifest.outbox.retain(|listed| {
            let is_in = delivered.iter().any(|sink| sink.operator == listed.operator && listed.epoch < sink.next);
            for chunk in (0..listed.chunks.count).take_while(|_| is_in) {
                batch.delete(Space::Outbox, keys::outbox(listed.operator, listed.epoch, listed.subtask, chunk));
            }
            !is_in
        });
        for bundle in bundles {
            let mut parts: Vec<&Part> = bundle.parts.iter().collect();
            parts.sort_by_key(|part| part.subtask);
            let mut deltas = Vec::new();
            for part in parts {
                put_deltas(part, &mut pieces, &mut deltas);
                put_outbox(part, &mut batch, &mut manifest.outbox);
                for position in &part.positions {
                    let (bytes, crc) = read::position_bytes(position)?;
                    let key = keys::position(position.operator, &position.split);
                    batch.put(Space::Meta, key.clone(), bytes);
                    moved.insert(key, (position.clone(), crc));
                }
            }
            let record =
                IndexRecord { epoch: bundle.epoch, attempt: bundle.attempt, previous: manifest.log_head, deltas };
            let (bytes, crc) = record.to_bytes()?;
            batch.put(Space::Log, keys::index(bundle.epoch), bytes);
            records.push(record);
            manifest.log_head = crc;
            manifest.epoch = bundle.epoch;
            manifest.closing = bundle.closing;
        }
        for (key, (_, crc)) in &moved {
            // Out goes the old row's checksum, in comes the new one's.
            match self.positions.get(key) {
                Some((_, old)) => manifest.positions.crc ^= old,
                None => manifest.positions.count += 1,
            }
            manifest.positions.crc ^= crc;
        }
        if self.plan.is_some() && !bundles.is_empty() {
            batch.delete(Space::Meta, keys::PLAN);
        }
        batch.ops.append(&mut pieces.last.ops);
        manifest.names = self.names.clone();
        batch.put(Space::Meta, keys::MANIFEST, manifest.to_bytes()?);
        Ok(Prepared { ahead: pieces.full, batch, manifest, records, positions: moved })
    }
}

fn operators(part: &Part) -> impl Iterator<Item = OperatorId> {
    let deltas = part.deltas.iter().map(|delta| delta.operator);
    let positions = part.positions.iter().map(|position| position.operator);
    deltas.chain(positions).chain(part.outbox.iter().map(|outbox| outbox.operator))
}

/// Chunks of deltas in writes of a size that suits the store.
struct Pieces<'a> {
    most: usize,
    full: Vec<WriteBatch<'a>>,
    last: WriteBatch<'a>,
    bytes: usize,
}

impl<'a> Pieces<'a> {
    fn new(most: usize) -> Self {
        Self { most, full: Vec::new(), last: WriteBatch::default(), bytes: 0 }
    }

    fn put(&mut self, key: Vec<u8>, chunk: &'a [u8]) {
        if self.bytes > 0 && self.bytes + chunk.len() > self.most {
            self.full.push(std::mem::take(&mut self.last));
            self.bytes = 0;
        }
        self.bytes += chunk.len();
        self.last.put(Space::Log, key, chunk);
    }
}

fn put_deltas<'a>(part: &'a Part, pieces: &mut Pieces<'a>, listed: &mut Vec<DeltaRef>) {
    for delta in part.deltas.iter().filter(|delta| !delta.chunks.is_empty()) {
        for (number, chunk) in (0u32..).zip(&delta.chunks) {
            pieces.put(keys::delta(part.epoch, delta.operator, part.subtask, number), chunk);
        }
        let (operator, subtask, entries) = (delta.operator, part.subtask, delta.entries);
        listed.push(DeltaRef { operator, subtask, entries, chunks: Chunks::of(&delta.chunks) });
    }
}

fn put_outbox<'a>(part: &'a Part, batch: &mut WriteBatch<'a>, listed: &mut Vec<OutboxRef>) {
    for outbox in part.outbox.iter().filter(|outbox| has_rows(outbox)) {
        for (number, chunk) in (0u32..).zip(&outbox.chunks) {
            batch.put(Space::Outbox, keys::outbox(outbox.operator, part.epoch, part.subtask, number), chunk);
        }
        let (operator, epoch, subtask, rows) = (outbox.operator, part.epoch, part.subtask, outbox.rows);
        listed.push(OutboxRef { operator, epoch, subtask, rows, chunks: Chunks::of(&outbox.chunks) });
    }
}
