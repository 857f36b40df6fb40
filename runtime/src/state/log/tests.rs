//! The commit log against a simulated disk: crashes at every point, damage, full disks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::canary::{self, Canary};
use crate::checkpoint::{Delivered, Delta, EpochBundle, OperatorKind, OutboxPart, Part, StateDecl};
use crate::fault::{Faults, NoFaults};
use crate::id::{SubtaskId, TaskId};
use crate::position::{Position, SplitId};
use crate::rows::RowsBuilder;
use crate::state::entry;
use crate::state::store::{Memory, StateBackend, StoreErrorKind};
use crate::testing::sim_store::{FailedWrite, SimDisk, WriteFaults};

mod opening;
mod purge;

const SHARD: ShardId = ShardId::new(0);
const LAST: u64 = 10;
const SOURCE: OperatorId = OperatorId::new(0);
const COUNT: OperatorId = OperatorId::new(1);
const SINK: OperatorId = OperatorId::new(2);

fn no_faults() -> (SharedFaults, StoreShare) {
    (Arc::new(NoFaults), StoreShare::default())
}

fn identity() -> Identity {
    Identity { pipeline: "p".to_owned(), shard: SHARD, key_groups: 960 }
}

fn decls() -> Vec<OperatorDecl> {
    let decl = |name: &str, kind, states: &[&str]| {
        let states = states.iter().map(|name| StateDecl::value(*name, 1)).collect();
        OperatorDecl { name: name.to_owned(), kind, states }
    };
    vec![
        decl("in", OperatorKind::Source, &[]),
        decl("count", OperatorKind::Stateful, &["n", "last"]),
        decl("out", OperatorKind::Sink, &[]),
    ]
}

/// What a subtask changes in an epoch: keys that come back, keys that go, and keys that go and come back.
fn changes(epoch: u64, subtask: u16) -> Vec<(u16, Vec<u8>, Option<u64>)> {
    let key = |number: u64| vec![subtask as u8, (number % 4) as u8];
    let mut changes = vec![(0, key(epoch), Some(epoch)), (1, key(epoch), Some(epoch * 100))];
    if epoch.is_multiple_of(2) {
        changes.push((0, key(epoch + 1), None));
    }
    changes
}

fn chunk(changes: &[(u16, Vec<u8>, Option<u64>)]) -> Vec<u8> {
    let mut chunk = Vec::new();
    for (state, key, value) in changes {
        let write = value.map(|value| {
            move |out: &mut Vec<u8>| {
                out.extend_from_slice(&value.to_be_bytes());
                Ok::<_, ()>(())
            }
        });
        entry::append(&mut chunk, *state, 5, |out| out.extend_from_slice(key), |_| (), write).unwrap();
    }
    chunk
}

fn row(epoch: u64, subtask: u16, number: u8) -> Vec<u8> {
    vec![epoch as u8, subtask as u8, number]
}

fn bundle(attempt: Attempt, epoch: u64) -> EpochBundle {
    let parts = (0..2u16).map(|index| {
        let mut part = Part::new(attempt, Epoch::new(epoch), SubtaskId { task: TaskId::new(1), index });
        let chunks: Vec<_> = changes(epoch, index).chunks(2).map(chunk).collect();
        part.deltas.push(Delta { operator: COUNT, chunks, entries: changes(epoch, index).len() as u64 });
        // Subtask 0's split moves in every epoch, subtask 1's in every third.
        if index == 0 || epoch % 3 == 1 {
            let split = SplitId::new(format!("split-{index}"));
            let position = Position::from_u64(epoch);
            part.positions.push(SplitPosition { operator: SOURCE, split, position, ended: false, watermarks: vec![] });
        }
        if !epoch.is_multiple_of(4) {
            let mut rows = RowsBuilder::default();
            for number in 0..2 {
                let write = |out: &mut Vec<u8>| {
                    out.extend_from_slice(&row(epoch, index, number));
                    Ok::<_, ()>(())
                };
                rows.push(write).unwrap();
            }
            let (chunks, rows) = rows.take();
            part.outbox.push(OutboxPart { operator: SINK, chunks, rows });
        }
        part
    });
    let closing = (epoch == LAST).then_some(Closing::Finished);
    EpochBundle { attempt, epoch: Epoch::new(epoch), parts: parts.collect(), closing }
}

/// When `epoch` is committed, all before this one is known to be delivered.
fn delivered_before(epoch: u64) -> u64 {
    epoch.saturating_sub(3)
}

/// A restored store in a form that does not depend on how it was folded.
#[derive(Clone, Debug, Default, PartialEq)]
struct View {
    epoch: u64,
    closing: Option<Closing>,
    positions: BTreeMap<String, u64>,
    state: BTreeMap<Vec<u8>, u64>,
    rows: Vec<(u64, u32, Vec<u8>)>,
}

fn row_key(state: u16, key: &[u8]) -> Vec<u8> {
    let one = chunk(&[(state, key.to_vec(), None)]);
    entry::entries(&one).next().unwrap().key.to_vec()
}

/// What must be restored after an epoch, computed without the log.
fn expected(epoch: u64) -> View {
    let mut view = View { epoch, closing: (epoch == LAST).then_some(Closing::Finished), ..View::default() };
    for epoch in 1..=epoch {
        view.positions.insert("split-0".to_owned(), epoch);
        if epoch % 3 == 1 {
            view.positions.insert("split-1".to_owned(), epoch);
        }
        for (state, key, value) in (0..2).flat_map(|subtask| changes(epoch, subtask)) {
            match value {
                Some(value) => view.state.insert(row_key(state, &key), value),
                None => view.state.remove(&row_key(state, &key)),
            };
        }
    }
    for epoch in delivered_before(epoch).max(1)..=epoch {
        if !epoch.is_multiple_of(4) {
            let rows = (0..2).flat_map(|subtask| (0..2).map(move |number| row(epoch, subtask, number)));
            view.rows.extend(rows.zip(0..).map(|(row, seq)| (epoch, seq, row)));
        }
    }
    view
}

/// Rows first, and what the log says wins.
fn everything(log: &CommitLog) -> Result<View, RecoveryError> {
    let restored = log.restore()?;
    let rows = log.rows()?;
    Ok(view(rows.get(&COUNT).map_or(&[], Vec::as_slice), restored))
}

fn view(rows: &[Vec<u8>], restored: Restored) -> View {
    let mut state = BTreeMap::new();
    let chunks = restored.state.get(&COUNT).into_iter().flat_map(|chunks| chunks.iter());
    for chunk in rows.iter().chain(chunks) {
        for entry in entry::entries(chunk) {
            match entry.value {
                Some(value) => state.insert(entry.key.to_vec(), u64::from_be_bytes(value.try_into().unwrap())),
                None => state.remove(entry.key),
            };
        }
    }
    let rows = restored.outbox.get(&SINK).into_iter().flatten();
    let positions = restored.positions.into_iter();
    View {
        epoch: restored.epoch.number(),
        closing: restored.closing,
        positions: positions.map(|at| (at.split.to_string(), at.position.as_u64().unwrap())).collect(),
        state,
        rows: rows
            .flat_map(|rows| {
                rows.iter().map(|row| (row.epoch.number(), row.seq, row.bytes.to_vec())).collect::<Vec<_>>()
            })
            .collect(),
    }
}

/// Ends the life at the n-th crash point that it passes.
#[derive(Debug, Default)]
struct CrashAt {
    left: AtomicU64,
    hit: Mutex<Option<CrashPoint>>,
}

impl CrashAt {
    fn nth(n: u64) -> Arc<Self> {
        Arc::new(Self { left: AtomicU64::new(n), hit: Mutex::new(None) })
    }
}

impl Faults for CrashAt {
    fn pass(&self, point: CrashPoint) -> Result<(), Crashed> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        *self.hit.lock().unwrap() = Some(point);
        Err(Crashed(point))
    }
}

fn limits() -> LogLimits {
    LogLimits { fold_epochs: 4, batch_bytes: 16, ..LogLimits::default() }
}

fn open(backend: &dyn StateBackend, faults: SharedFaults) -> Result<CommitLog, RecoveryError> {
    let store = backend.open("p", SHARD, true)?;
    CommitLog::open(store, identity(), StartFrom::ResumeOrCreate, limits(), (faults, StoreShare::default()))
}

/// What the world outside knows about a pipeline after some lives.
#[derive(Debug, Default)]
struct World {
    attempts: BTreeSet<Attempt>,
    committed: u64,
}

/// Lives until `last` is committed, or until a crash.
fn live(backend: &dyn StateBackend, faults: SharedFaults, world: &mut World, last: u64) -> Result<CommitLog, String> {
    let mut log = open(backend, faults).map_err(crash_only)?;
    let attempt = log.raise_attempt().map_err(crash_only)?;
    assert!(world.attempts.insert(attempt), "attempt {attempt} came twice");
    assert_eq!(log.register(&decls()).unwrap(), [SOURCE, COUNT, SINK]);
    let restored = everything(&log).map_err(crash_only)?;
    assert!(restored.epoch >= world.committed, "epoch {} was committed and is gone", world.committed);
    assert_eq!(restored, expected(restored.epoch));
    for epoch in restored.epoch + 1..=last {
        let delivered = [Delivered { operator: SINK, next: Epoch::new(delivered_before(epoch)) }];
        let committed = log.commit(vec![bundle(attempt, epoch)], &delivered);
        let committed =
            committed.map_err(|error| if error.is_crash() { error.to_string() } else { panic!("{error:?}") })?;
        assert_eq!(committed.epoch, Epoch::new(epoch));
        world.committed = epoch;
        log.fold_if_full().map_err(|error| if error.is_crash() { error.to_string() } else { panic!("{error:?}") })?;
    }
    log.forget(&[]).map_err(|error| if error.is_crash() { error.to_string() } else { panic!("{error:?}") })?;
    Ok(log)
}

fn crash_only(error: RecoveryError) -> String {
    if error.is_crash() { error.to_string() } else { panic!("{error:?}") }
}

#[test]
fn a_crash_anywhere_leaves_an_epoch_whole_or_not_at_all() {
    let mut hits = BTreeSet::new();
    for seed in 0..8 {
        for first in 0.. {
            let mut rng = ChaCha8Rng::seed_from_u64(seed * 1_000 + first);
            let disk = SimDisk::new();
            let mut world = World::default();
            let faults = CrashAt::nth(first);
            if live(&disk, faults.clone(), &mut world, LAST).is_ok() {
                assert!(first > 40, "a life passes some fifty points");
                break;
            }
            hits.insert(faults.hit.lock().unwrap().unwrap());
            disk.crash(&mut rng);
            // Recovery itself is interrupted, then as much of the next life as the first one's crash came late.
            for second in [seed % 7, first] {
                let _ = live(&disk, CrashAt::nth(second), &mut world, LAST);
                disk.crash(&mut rng);
            }
            let log = live(&disk, Arc::new(NoFaults), &mut world, LAST).unwrap();
            assert_eq!(everything(&log).unwrap(), expected(LAST), "seed {seed}, crash {first}");
        }
    }
    let ours = ["genesis", "attempt", "recover", "commit", "fold"];
    let all = CrashPoint::ALL.iter().filter(|point| ours.contains(&point.name().split('-').next().unwrap()));
    assert_eq!(hits, all.copied().collect::<BTreeSet<_>>());
}

#[test]
fn every_epoch_is_restored_on_every_backend() {
    let root = tempfile::tempdir().unwrap();
    let mut backends: Vec<Box<dyn StateBackend>> = vec![Box::new(Memory::new()), Box::new(SimDisk::new())];
    #[cfg(feature = "rocksdb")]
    backends.push(Box::new(crate::state::store::RocksDb::at(root.path())));
    let _ = &root;
    for backend in &mut backends {
        let mut world = World::default();
        for last in 0..=LAST {
            live(backend.as_ref(), Arc::new(NoFaults), &mut world, last).unwrap();
        }
        let log = open(backend.as_ref(), Arc::new(NoFaults)).unwrap();
        assert_eq!(everything(&log).unwrap(), expected(LAST));
        assert_eq!((log.closing(), log.attempt()), (Some(Closing::Finished), Attempt::new(LAST + 1)));
        assert_eq!((log.folded_through(), log.epoch()), (Epoch::new(8), Epoch::new(LAST)));
    }
}

#[test]
fn a_group_commit_equals_single_commits_and_a_fold_changes_nothing() {
    let delivered = [Delivered { operator: SINK, next: Epoch::new(delivered_before(LAST)) }];
    let mut views = Vec::new();
    for group in [1, 3, LAST] {
        for fold_epochs in [1, 2, 100] {
            let store = Memory::new().open("p", SHARD, true).unwrap();
            let limits = LogLimits { fold_epochs, batch_bytes: fold_epochs as usize * 16, ..LogLimits::default() };
            let mut log = CommitLog::open(store, identity(), StartFrom::Create, limits, no_faults()).unwrap();
            log.register(&decls()).unwrap();
            let attempt = log.raise_attempt().unwrap();
            let all: Vec<_> = (1..=LAST).map(|epoch| bundle(attempt, epoch)).collect();
            let mut rows = 0;
            for bundles in all.chunks(group as usize) {
                let committed = log.commit(bundles.to_vec(), &delivered).unwrap();
                rows += committed.outbox.values().flatten().map(|rows| rows.iter().count()).sum::<usize>();
                let before = everything(&log).unwrap();
                let folded = log.fold_if_full().unwrap().is_some();
                assert!(folded || fold_epochs > 1);
                assert_eq!(everything(&log).unwrap(), before);
            }
            assert_eq!(rows, 8 * 4, "eight epochs have output");
            // Nothing was there to be delivered when it was said to be; the last word forgets it.
            log.commit(vec![EpochBundle { closing: None, ..bundle(attempt, LAST + 1) }], &delivered).unwrap();
            views.push(everything(&log).unwrap());
            assert_eq!(log.undelivered_bytes(), 4 * 2 * (2 * 7), "epochs 7, 9, 10 and 11");
        }
    }
    assert!(views.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn delivered_output_is_deleted_and_nothing_else() {
    let disk = SimDisk::new();
    let mut log = live(&disk, Arc::new(NoFaults), &mut World::default(), 6).unwrap();
    let outbox = |log: &CommitLog| {
        let mut keys = Vec::new();
        let store = log.store.as_deref().unwrap();
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        };
        store.scan(Space::Outbox, &[], None, &mut visit).unwrap();
        keys.len()
    };
    assert_eq!(outbox(&log), 2 * 3, "two subtasks, epochs 3, 5 and 6");
    let attempt = log.attempt();
    let other = Delivered { operator: COUNT, next: Epoch::new(100) };
    log.commit(vec![bundle(attempt, 7)], &[other]).unwrap();
    assert_eq!(outbox(&log), 2 * 4);
    log.commit(vec![bundle(attempt, 8)], &[Delivered { operator: SINK, next: Epoch::new(8) }]).unwrap();
    assert_eq!((outbox(&log), log.undelivered_bytes()), (0, 0));
}

#[test]
fn bundles_that_do_not_follow_are_refused_and_nothing_is_written() {
    let mut log = live(&SimDisk::new(), Arc::new(NoFaults), &mut World::default(), 3).unwrap();
    let attempt = log.attempt();
    let mut unknown = bundle(attempt, 4);
    unknown.parts[0].deltas[0].operator = OperatorId::new(9);
    let mut twice = bundle(attempt, 4);
    twice.parts[1].subtask = twice.parts[0].subtask;
    let mut mixed = bundle(attempt, 4);
    mixed.parts[0].epoch = Epoch::new(5);
    let table = [
        (vec![], "there is no epoch"),
        (vec![bundle(attempt, 3)], "epoch 4 comes next, not epoch 3"),
        (vec![bundle(attempt, 5)], "epoch 4 comes next, not epoch 5"),
        (vec![bundle(attempt, 4), bundle(attempt, 6)], "epoch 5 comes next, not epoch 6"),
        (vec![unknown], "operator 9 is not registered"),
        (vec![twice], "subtask 1/0 hands in epoch 4 twice"),
        (vec![mixed], "a part of epoch 5 is in the bundle of epoch 4"),
    ];
    for (bundles, text) in table {
        let error = log.commit(bundles, &[]).unwrap_err();
        assert!(matches!(&error, CommitError::Misuse { reason, .. } if reason == text), "{error}");
    }
    assert_eq!(everything(&log).unwrap(), expected(3));
    log.commit(vec![bundle(attempt, 4)], &[]).unwrap();
}

#[test]
fn a_full_disk_hands_the_bundles_back_and_the_reopened_log_says_what_became_of_them() {
    // Pieces that go ahead and their sync, or a run; the batch, its sync: whichever fails first, the epoch is there once the
    // batch is.
    for (batch_bytes, ahead) in [(32, 3..=9), (1, 1..=1)] {
        for (outcome, new) in [(FailedWrite::Lost, 1), (FailedWrite::Written, 2)] {
            let failed = |after| reopened_after_a_failed_write(after, outcome, batch_bytes);
            let found: Vec<Reopened> = (0..).map_while(failed).collect();
            let old = found.len() - new;
            // Without the batch and its sync.
            assert!(ahead.contains(&(found.len() - 2)), "batches of {batch_bytes}: {found:?}");
            assert!(found[..old].iter().all(|found| *found == Reopened::Old), "{outcome:?}: {found:?}");
            assert!(found[old..].iter().all(|found| *found == Reopened::New), "{outcome:?}: {found:?}");
        }
    }
}

/// Lets a write of a commit fail and goes on from there; nothing if the commit has no such write.
fn reopened_after_a_failed_write(after: u32, outcome: FailedWrite, batch_bytes: usize) -> Option<Reopened> {
    let disk = SimDisk::new();
    let mut log = live(&disk, Arc::new(NoFaults), &mut World::default(), 5).unwrap();
    log.limits.batch_bytes = batch_bytes;
    let attempt = log.attempt();
    let late = OperatorDecl { name: "late".to_owned(), kind: OperatorKind::Stateful, states: vec![] };
    let ids = log.register(&[decls(), vec![late]].concat()).unwrap();
    disk.fail_writes(WriteFaults { kind: StoreErrorKind::Full, after, times: 1, outcome });
    let delivered = [Delivered { operator: SINK, next: Epoch::new(delivered_before(6)) }];
    let error = log.commit(vec![bundle(attempt, 6)], &delivered).err()?;
    assert!(error.is_retryable(), "{error:?}");
    let CommitError::Store { bundles, .. } = error else { panic!("{error:?}") };
    let found = log.reopen(disk.open("p", SHARD, false).unwrap()).unwrap();
    if found == Reopened::Old {
        log.commit(bundles, &delivered).unwrap();
    } else {
        assert_eq!(Committed::of(bundles).epoch, log.epoch());
    }
    disk.crash_with(|| false);
    let log = open(&disk, Arc::new(NoFaults)).unwrap();
    assert_eq!(everything(&log).unwrap(), expected(6), "what reopen called new is durable");
    assert_eq!(log.operator(ids[3]).unwrap().name, "late");
    Some(found)
}

#[test]
fn a_reopened_store_that_holds_something_else_is_refused() {
    let disk = SimDisk::new();
    let mut log = live(&disk, Arc::new(NoFaults), &mut World::default(), 5).unwrap();
    log.close();
    assert!(matches!(log.restore().unwrap_err(), RecoveryError::Closed));
    drop(live(&disk, Arc::new(NoFaults), &mut World::default(), 6).unwrap());
    let error = log.reopen(disk.open("p", SHARD, false).unwrap()).unwrap_err();
    assert!(matches!(error, RecoveryError::Changed { .. }), "{error}");
}

#[test]
fn a_planted_fold_beyond_the_committed_epoch_shows_after_a_crash() {
    let disk = SimDisk::new();
    drop(live(&disk, Arc::new(NoFaults), &mut World::default(), 5).unwrap());
    // Recovery passes four points, the fold three, and the commit of epoch 6 dies before it writes.
    canary::plant(Some(Canary::FoldBeyondCommitted));
    let faults = CrashAt::nth(4 + 3);
    let mut world = World { attempts: BTreeSet::new(), committed: 5 };
    let died = live(&disk, faults.clone(), &mut world, 6);
    canary::plant(None);
    died.unwrap_err();
    assert_eq!(*faults.hit.lock().unwrap(), Some(CrashPoint::CommitBeforeWrite));
    disk.crash_with(|| true);
    let restored = everything(&open(&disk, Arc::new(NoFaults)).unwrap()).unwrap();
    assert_eq!(restored.epoch, 5);
    assert_ne!(restored, expected(5));
}
