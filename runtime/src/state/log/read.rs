//! Reads and verifies a store: manifest, attempt, positions, the chain of the log. Changes nothing.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{Damage, RecoveryError};
use super::{Identity, keys};
use crate::checkpoint::frame;
use crate::checkpoint::{Chunks, EpochPlan, FrameError, Manifest, PositionRows, SplitPosition};
use crate::codec::CodecError;
use crate::id::{Attempt, Epoch, OperatorId, SubtaskId};
use crate::state::store::{Mark, Space, Store, StoreError, StoreRead};

const INDEX_MAGIC: [u8; 4] = *b"mIDX";
const ATTEMPT_MAGIC: [u8; 4] = *b"mATT";
const POSITION_MAGIC: [u8; 4] = *b"mPOS";
const SENTINEL_MAGIC: [u8; 4] = *b"mSEN";

/// One delta of an epoch, as its index record lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeltaRef {
    pub(crate) operator: OperatorId,
    pub(crate) subtask: SubtaskId,
    pub(crate) entries: u64,
    pub(crate) chunks: Chunks,
}

/// What an epoch has in the log. Each record names its predecessor by checksum, the manifest names the newest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexRecord {
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) previous: u32,
    pub(crate) deltas: Vec<DeltaRef>,
}

impl IndexRecord {
    pub(crate) fn to_bytes(&self) -> Result<(Vec<u8>, u32), CodecError> {
        frame::write(INDEX_MAGIC, self)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.deltas.iter().map(|delta| delta.chunks.bytes).sum()
    }
}

/// Stands among the rows of a state, so that lost rows can be told from a state that never had any.
///
/// It says which fold wrote it and not how many rows there are: a fold does not read the rows that it replaces, so it does
/// not know whether a key is new, and what it knows, the keys of its own run, cannot be told from the other rows by a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sentinel {
    epoch: Epoch,
}

pub(crate) fn sentinel_bytes(epoch: Epoch) -> Result<Vec<u8>, CodecError> {
    Ok(frame::write(SENTINEL_MAGIC, &Sentinel { epoch })?.0)
}

pub(crate) fn attempt_bytes(attempt: Attempt) -> Result<Vec<u8>, CodecError> {
    Ok(frame::write(ATTEMPT_MAGIC, &attempt)?.0)
}

pub(crate) fn position_bytes(position: &SplitPosition) -> Result<(Vec<u8>, u32), CodecError> {
    frame::write(POSITION_MAGIC, position)
}

/// What a reader of the store met.
pub(crate) enum ReadError {
    Store(StoreError),
    Damage(Damage),
    TooNew(FrameError),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl ReadError {
    pub(crate) fn at(self, identity: &Identity, place: &Path) -> RecoveryError {
        let (pipeline, shard, place) = (identity.pipeline.clone(), identity.shard, place.to_owned());
        match self {
            Self::Store(error) => RecoveryError::Store(error),
            Self::Damage(damage) => RecoveryError::Damaged { pipeline, shard, place, damage },
            Self::TooNew(format) => RecoveryError::TooNew { pipeline, shard, place, format },
        }
    }
}

/// What stands in a store besides rows, deltas and output.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) manifest: Manifest,
    pub(crate) attempt: Attempt,
    /// Every split's position with its checksum, by key.
    pub(crate) positions: BTreeMap<Vec<u8>, (SplitPosition, u32)>,
    /// The index records of the log, in order.
    pub(crate) log: Vec<IndexRecord>,
    /// The next epoch's plan.
    pub(crate) plan: Option<EpochPlan>,
}

/// Reads the manifest and verifies everything that can be verified without reading the state; nothing for an empty store.
pub(crate) fn load(store: &dyn Store) -> Result<Option<Loaded>, ReadError> {
    let meta = [keys::MANIFEST, keys::ATTEMPT, keys::PLAN].map(<[u8]>::to_vec);
    let mut meta = store.multi_get(Space::Meta, &meta)?.into_iter();
    let (manifest, attempt, plan) = (meta.next().flatten(), meta.next().flatten(), meta.next().flatten());
    let Some(manifest) = manifest else {
        if !is_empty(store)? {
            return Err(Damage::NoManifest.into());
        }
        behind(store, Epoch::GENESIS, Attempt::default())?;
        return Ok(None);
    };
    let manifest = Manifest::from_bytes(&manifest).map_err(|error| match error {
        FrameError::TooNew { .. } => ReadError::TooNew(error),
        error => Damage::Manifest(error).into(),
    })?;
    let attempt = attempt.ok_or(Damage::Attempt(None))?;
    let (attempt, _) = frame::read(ATTEMPT_MAGIC, &attempt).map_err(|error| Damage::Attempt(Some(error)))?;
    let positions = positions(store, manifest.positions)?;
    let log = index(store, &manifest)?;
    sentinels(store, &manifest)?;
    behind(store, manifest.epoch, attempt)?;
    let plan = plan.map(|bytes| EpochPlan::from_bytes(&bytes)).transpose().map_err(Damage::Plan)?;
    // The commit of a planned epoch removes its plan.
    if let Some(plan) = plan.as_ref().filter(|plan| plan.epoch != manifest.epoch.next()) {
        return Err(Damage::OtherPlan { plan: plan.epoch, epoch: manifest.epoch }.into());
    }
    Ok(Some(Loaded { manifest, attempt, positions, log, plan }))
}

/// Holds what the database says against the mark that is kept beside it.
fn behind(store: &dyn Store, found: Epoch, attempt: Attempt) -> Result<(), ReadError> {
    let Some(Mark { epoch: marked, attempt: marked_attempt }) = store.mark() else { return Ok(()) };
    if found < marked || attempt < marked_attempt {
        return Err(Damage::Behind { found, attempt, marked, marked_attempt }.into());
    }
    Ok(())
}

fn is_empty(store: &dyn Store) -> Result<bool, StoreError> {
    for space in Space::ALL {
        if has_any(store, space, &[], None)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has_any(store: &dyn Store, space: Space, from: &[u8], to: Option<&[u8]>) -> Result<bool, StoreError> {
    let mut any = false;
    store.scan(space, from, to, &mut |_, _| {
        any = true;
        ControlFlow::Break(())
    })?;
    Ok(any)
}

fn positions(store: &dyn Store, counted: PositionRows) -> Result<BTreeMap<Vec<u8>, (SplitPosition, u32)>, ReadError> {
    let mut positions = BTreeMap::new();
    let mut unreadable = None;
    store.scan(Space::Meta, keys::POSITIONS, Some(keys::POSITIONS_END), &mut |key, value| match frame::read::<
        SplitPosition,
    >(
        POSITION_MAGIC, value
    ) {
        Ok((position, crc)) => {
            positions.insert(key.to_vec(), (position, crc));
            ControlFlow::Continue(())
        }
        Err(error) => {
            unreadable = Some(error);
            ControlFlow::Break(())
        }
    })?;
    if let Some(error) = unreadable {
        return Err(Damage::Position(error).into());
    }
    let misplaced = positions.iter().any(|(key, (at, _))| *key != keys::position(at.operator, &at.split));
    if misplaced || count_positions(&positions) != counted {
        return Err(Damage::Positions.into());
    }
    Ok(positions)
}

/// Returns count and checksum of all position rows, as they stand in the manifest.
pub(crate) fn count_positions(positions: &BTreeMap<Vec<u8>, (SplitPosition, u32)>) -> PositionRows {
    let crc = positions.values().fold(0, |all, (_, crc)| all ^ crc);
    PositionRows { count: positions.len() as u64, crc }
}

fn index(store: &dyn Store, manifest: &Manifest) -> Result<Vec<IndexRecord>, ReadError> {
    let (first, last) = (manifest.folded_through.next(), manifest.epoch);
    let stray = || Damage::Stray { first, last };
    if manifest.folded_through > last {
        return Err(stray().into());
    }
    let mut records = Vec::new();
    let mut previous = manifest.log_base;
    // Asked for one by one: a damaged manifest cannot make us ask for billions at once.
    for epoch in (first.number()..=last.number()).map(Epoch::new) {
        let found = store.multi_get(Space::Log, &[keys::index(epoch)])?.pop().flatten();
        let found = found.ok_or(Damage::IndexMissing(epoch))?;
        let read: Result<(IndexRecord, u32), _> = frame::read(INDEX_MAGIC, &found);
        let (record, crc) = read.map_err(|error| Damage::Index(epoch, error))?;
        if record.epoch != epoch || record.previous != previous {
            return Err(Damage::Chain(epoch).into());
        }
        previous = crc;
        records.push(record);
    }
    if previous != manifest.log_head {
        return Err(Damage::Chain(last).into());
    }
    let before = has_any(store, Space::Log, &[], Some(&keys::log_epoch(first)))?;
    if before || has_index(store, &keys::log_epoch(last.next()))? {
        return Err(stray().into());
    }
    Ok(records)
}

/// Says whether an epoch from there on has an index record. Without one there may be chunks of deltas that went ahead of a commit
/// which was never made.
fn has_index(store: &dyn Store, from: &[u8]) -> Result<bool, StoreError> {
    let mut found = false;
    store.scan(Space::Log, from, None, &mut |key, _| {
        found = keys::is_index(key);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

fn sentinels(store: &dyn Store, manifest: &Manifest) -> Result<(), ReadError> {
    let wanted: Vec<_> = manifest.folded.iter().map(|state| keys::sentinel(state.operator, state.state)).collect();
    let found = store.multi_get(Space::Rows, &wanted)?;
    for (state, found) in manifest.folded.iter().zip(found) {
        let sentinel = found.and_then(|bytes| frame::read::<Sentinel>(SENTINEL_MAGIC, &bytes).ok());
        // A fold that no commit noted has written a newer one.
        let fits = |epoch: Epoch| state.epoch <= epoch && epoch <= manifest.epoch;
        if sentinel.is_none_or(|(sentinel, _)| !fits(sentinel.epoch)) {
            return Err(Damage::Sentinel { operator: state.operator, state: state.state, epoch: state.epoch }.into());
        }
    }
    Ok(())
}

/// Reads the chunks of a delta and verifies them.
pub(crate) fn delta(store: &dyn StoreRead, epoch: Epoch, listed: &DeltaRef) -> Result<Vec<Vec<u8>>, ReadError> {
    let keys = (0..listed.chunks.count).map(|chunk| keys::delta(epoch, listed.operator, listed.subtask, chunk));
    let damage = Damage::Delta { epoch, operator: listed.operator, subtask: listed.subtask };
    chunks(store, Space::Log, keys, listed.chunks, damage)
}

/// Reads the chunks that `keys` name and verifies them.
pub(crate) fn chunks(
    store: &dyn StoreRead,
    space: Space,
    keys: impl Iterator<Item = Vec<u8>>,
    described: Chunks,
    damage: Damage,
) -> Result<Vec<Vec<u8>>, ReadError> {
    let keys: Vec<_> = keys.collect();
    let found: Option<Vec<Vec<u8>>> = store.multi_get(space, &keys)?.into_iter().collect();
    found.filter(|chunks| Chunks::of(chunks) == described).ok_or_else(|| damage.into())
}
