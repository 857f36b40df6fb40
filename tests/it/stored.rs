//! A store with everything in it, made epoch by epoch without a pipeline, and read back whole: what tests of damage and of
//! refusals harm.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millstream::runtime::checkpoint::{
    Closing, Delivered, Delta, EpochBundle, OperatorDecl, OperatorKind, OutboxPart, Part, SplitPosition, StateDecl,
};
use millstream::runtime::fault::NoFaults;
use millstream::runtime::id::{Attempt, Epoch, OperatorId, ShardId, SubtaskId};
use millstream::runtime::position::{Position, SplitId};
use millstream::runtime::rows::RowsBuilder;
use millstream::runtime::state::entry;
use millstream::runtime::state::log::{CommitLog, Identity, LogLimits, RecoveryError, StartFrom};
use millstream::runtime::state::store::{RocksDb, Space, StateBackend, StoreShare, open_within};

pub(crate) const PIPELINE: &str = "stored";
pub(crate) const SHARD: ShardId = ShardId::new(0);
/// Keys of each of the two states.
const KEYS: u64 = 120;
/// Longest that an open may take here; a sound one takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a store is below its root.
pub(crate) fn directory(root: &Path) -> PathBuf {
    root.join(PIPELINE).join(SHARD.to_string())
}

pub(crate) fn identity() -> Identity {
    Identity { pipeline: PIPELINE.to_owned(), shard: SHARD, key_groups: 960 }
}

pub(crate) fn declared() -> Vec<OperatorDecl> {
    let declare = |name: &str, kind, states: &[(&str, u32)]| {
        let states = states.iter().map(|(name, version)| StateDecl::value(*name, *version)).collect();
        OperatorDecl { name: name.to_owned(), kind, states }
    };
    vec![
        declare("lines", OperatorKind::Source, &[]),
        declare("counts", OperatorKind::Stateful, &[("value", 1), ("last", 1)]),
        declare("out", OperatorKind::Sink, &[]),
    ]
}

/// The text of an error with its causes, as a user reads it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Opens a store as the runtime does: under the watchdog, and verified.
pub(crate) fn open(root: &Path, start_from: StartFrom) -> Result<(CommitLog, StoreShare), RecoveryError> {
    let backend: Arc<dyn StateBackend> = Arc::new(RocksDb::at(root));
    let store = open_within(PATIENCE, &backend, PIPELINE, SHARD, start_from != StartFrom::Resume)?;
    let share = StoreShare::default();
    let limits = LogLimits { fold_bytes: 1 << 30, fold_epochs: 3, ..LogLimits::default() };
    let log = CommitLog::open(store, identity(), start_from, limits, (Arc::new(NoFaults), share.clone()))?;
    Ok((log, share))
}

/// Scrambles a number: the step function of SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What an epoch changes: in each state a third of the keys, some of which go.
fn chunks(seed: u64, epoch: u64) -> (Vec<Vec<u8>>, u64) {
    let mut chunk = Vec::new();
    let mut entries = 0;
    for (state, key) in (0..2u16).flat_map(|state| (0..KEYS).map(move |key| (state, key))) {
        let drawn = mix(seed ^ mix(epoch << 32 | u64::from(state) << 16 | key));
        if !drawn.is_multiple_of(3) {
            continue;
        }
        let value = (!drawn.is_multiple_of(15)).then_some(|out: &mut Vec<u8>| {
            (0..8).for_each(|word| out.extend_from_slice(&mix(drawn ^ word).to_be_bytes()));
            Ok::<_, ()>(())
        });
        let name = format!("key-{key:04}");
        entry::append(
            &mut chunk,
            state,
            (key % 960) as u16,
            |out| out.extend_from_slice(name.as_bytes()),
            |_| (),
            value,
        )
        .unwrap();
        entries += 1;
    }
    (vec![chunk], entries)
}

/// An epoch with changed state, a moved position and output.
pub(crate) fn bundle(seed: u64, attempt: Attempt, epoch: u64, operators: &[OperatorId]) -> EpochBundle {
    let &[lines, counts, out] = operators else { panic!("three operators") };
    let mut part = Part::new(attempt, Epoch::new(epoch), SubtaskId::default());
    let (chunks, entries) = chunks(seed, epoch);
    part.deltas.push(Delta { operator: counts, chunks, entries });
    let split = SplitId::new(format!("{}.txt", epoch % 2));
    part.positions.push(SplitPosition {
        operator: lines,
        split,
        position: Position::from_u64(mix(seed ^ epoch)),
        ended: false,
        watermarks: Vec::new(),
    });
    let mut rows = RowsBuilder::default();
    for row in 0..20 {
        let write = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(format!("row {row} of epoch {epoch} and seed {seed}").as_bytes());
            Ok::<_, ()>(())
        };
        rows.push(write).unwrap();
    }
    let (chunks, count) = rows.take();
    part.outbox.push(OutboxPart { operator: out, chunks, rows: count });
    EpochBundle { attempt, epoch: Epoch::new(epoch), parts: vec![part], closing: None }
}

/// One life of a store: goes on for so many epochs, closes the last one so if asked to, and marks how far it got.
pub(crate) fn live(root: &Path, seed: u64, epochs: u64, fold: bool, closing: Option<Closing>) {
    let (mut log, _) = open(root, StartFrom::ResumeOrCreate).unwrap();
    let attempt = log.raise_attempt().unwrap();
    let operators = log.register(&declared()).unwrap();
    let first = log.epoch().number() + 1;
    for epoch in first..first + epochs {
        let mut bundle = bundle(seed, attempt, epoch, &operators);
        bundle.closing = closing.filter(|_| epoch + 1 == first + epochs);
        // The output of the last three epochs waits.
        let delivered = Delivered { operator: operators[2], next: Epoch::new(epoch.saturating_sub(2)) };
        log.commit(vec![bundle], &[delivered]).unwrap();
        if fold {
            log.fold_if_full().unwrap();
        }
    }
    log.mark();
}

/// Makes a store with rows of several folds, deltas that are in files and deltas that are in the WAL, output and positions.
pub(crate) fn make(root: &Path, seed: u64) {
    live(root, seed, 6, true, None);
    // Every reopen writes what the WAL had into files.
    live(root, seed, 5, true, None);
    live(root, seed, 3, false, None);
    live(root, seed, 2, false, None);
}

/// All that a store holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Everything {
    pub(crate) epoch: Epoch,
    attempt: Attempt,
    folded_through: Epoch,
    closing: Option<Closing>,
    positions: Vec<SplitPosition>,
    state: BTreeMap<OperatorId, Vec<Vec<u8>>>,
    outbox: String,
    pub(crate) rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Opens a store and reads everything, rows included, whatever the runtime may leave for later.
pub(crate) fn read(root: &Path) -> Result<Everything, RecoveryError> {
    let (log, share) = open(root, StartFrom::ResumeOrCreate)?;
    let restored = log.restore()?;
    let mut rows = BTreeMap::new();
    let scan = share.with(|store| {
        store.scan(Space::Rows, &[], None, &mut |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            ControlFlow::Continue(())
        })
    });
    scan.unwrap()?;
    Ok(Everything {
        epoch: log.epoch(),
        attempt: log.attempt(),
        folded_through: log.folded_through(),
        closing: log.closing(),
        positions: restored.positions,
        state: restored.state.into_iter().map(|(operator, chunks)| (operator, chunks.to_vec())).collect(),
        outbox: format!("{:?}", restored.outbox),
        rows,
    })
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
