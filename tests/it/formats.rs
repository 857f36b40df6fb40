//! What is on disk stays readable: one stored directory per format, opened by the code of today.
//!
//! A new format gets a new directory, made with `MILLSTREAM_WRITE_FIXTURE=tests/fixtures/checkpoint-vN`; old ones stay.
#![cfg(feature = "rocksdb")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millstream::runtime::checkpoint::{
    Delivered, EpochBundle, OperatorDecl, OperatorKind, OutboxPart, Part, SplitPosition, StateDecl,
};
use millstream::runtime::fault::NoFaults;
use millstream::runtime::id::{Attempt, Epoch, OperatorId, ShardId, SubtaskId};
use millstream::runtime::position::{Position, SplitId};
use millstream::runtime::rows::RowsBuilder;
use millstream::runtime::state::key_group::{KeyGroups, StreamKeyRef};
use millstream::runtime::state::log::{CommitLog, Identity, LogLimits, StartFrom};
use millstream::runtime::state::store::{RocksDb, StateBackend, StoreShare};
use millstream::runtime::state::{MemoryBudget, Single, Snapshot, Table, TableSetup};

const EPOCHS: u64 = 5;
/// The first three epochs are rows, the last two are in the log.
const FOLD_AT: u64 = 3;

fn fixture(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/checkpoint-v{version}"))
}

fn open(root: &Path, fold_epochs: u64, start_from: StartFrom) -> CommitLog {
    let store = RocksDb::at(root).open("fixture", ShardId::new(0), start_from == StartFrom::Create).unwrap();
    let identity =
        Identity { pipeline: "fixture".to_owned(), shard: ShardId::new(0), key_groups: KeyGroups::default().count() };
    let limits = LogLimits { fold_bytes: 1 << 30, fold_epochs, ..LogLimits::default() };
    CommitLog::open(store, identity, start_from, limits, (Arc::new(NoFaults), StoreShare::default())).unwrap()
}

fn declared() -> [OperatorDecl; 3] {
    let declare = |name: &str, kind, states| OperatorDecl { name: name.to_owned(), kind, states };
    [
        declare("lines", OperatorKind::Source, vec![]),
        declare("counts", OperatorKind::Stateful, vec![StateDecl::value("value", 1)]),
        declare("out", OperatorKind::Sink, vec![]),
    ]
}

/// Word `w` is counted `w` more times in every epoch up to `w`; words below an epoch are removed in it.
fn counts(table: &mut Table<String, Single<u64>>, epoch: u64) {
    for word in 0..10u64 {
        let name = format!("word-{word}");
        let hash = name.as_str().key_hash(&mut Vec::new());
        if word < epoch {
            table.remove(hash, &name).unwrap();
        } else {
            *table.get_or_insert_with(hash, &name, || 0).unwrap() += word;
        }
    }
}

fn expected() -> BTreeMap<String, u64> {
    (EPOCHS..10).map(|word| (format!("word-{word}"), word * EPOCHS)).collect()
}

fn table(operator: OperatorId) -> Table<String, Single<u64>> {
    let (key_groups, restored) = (KeyGroups::default(), Epoch::GENESIS);
    let groups = 0..key_groups.count();
    let (share, memory) = (StoreShare::default(), MemoryBudget::default());
    Table::new(TableSetup { operator, state: 0, key_groups, groups, restored, share, has_rows: false, memory })
}

fn write(root: &Path) {
    let mut log = open(root, FOLD_AT, StartFrom::Create);
    let attempt = log.raise_attempt().unwrap();
    let [lines, counted, out]: [OperatorId; 3] = log.register(&declared()).unwrap().try_into().unwrap();
    let mut table = table(counted);
    for number in 1..=EPOCHS {
        counts(&mut table, number);
        let epoch = Epoch::new(number);
        table.freeze(epoch);
        let mut part = Part::new(attempt, epoch, SubtaskId::default());
        part.deltas = table.encode_slice(1_000).unwrap().done.into_iter().map(|(_, delta)| delta).collect();
        part.positions.push(SplitPosition {
            operator: lines,
            split: SplitId::new("a.txt"),
            position: Position::from_u64(number * 100),
            ended: number == EPOCHS,
            watermarks: vec![],
        });
        let mut rows = RowsBuilder::default();
        let write = |bytes: &mut Vec<u8>| {
            bytes.extend_from_slice(format!("row {number}").as_bytes());
            Ok::<_, ()>(())
        };
        rows.push(write).unwrap();
        let (chunks, count) = rows.take();
        part.outbox.push(OutboxPart { operator: out, chunks, rows: count });
        let bundle = EpochBundle { attempt, epoch, parts: vec![part], closing: None };
        log.commit(vec![bundle], &[Delivered { operator: out, next: Epoch::new(number - 1) }]).unwrap();
        log.fold_if_full().unwrap();
    }
    assert_eq!(log.folded_through(), Epoch::new(FOLD_AT));
}

fn copy(from: &Path, to: &Path) {
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

#[test]
fn a_store_of_format_1_is_read_with_its_rows_log_positions_and_output() {
    if let Some(target) = std::env::var_os("MILLSTREAM_WRITE_FIXTURE") {
        write(Path::new(&target));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture(1), directory.path());
    let mut log = open(directory.path(), 1_000, StartFrom::Resume);
    assert_eq!((log.epoch(), log.folded_through()), (Epoch::new(EPOCHS), Epoch::new(FOLD_AT)));
    assert_eq!(log.raise_attempt().unwrap(), Attempt::new(2));
    let [lines, counted, out]: [OperatorId; 3] = log.register(&declared()).unwrap().try_into().unwrap();
    let restored = log.restore().unwrap();

    let mut table = table(counted);
    let (rows, log) = (log.rows().unwrap(), &restored.state[&counted]);
    table.load(&[rows[&counted].as_slice(), log.as_slice()].concat()).unwrap();
    let value = |name: &str| table.get(name.key_hash(&mut Vec::new()), name).copied();
    let found: BTreeMap<_, _> =
        (0..10).map(|word| format!("word-{word}")).filter_map(|name| Some((name.clone(), value(&name)?))).collect();
    assert_eq!(found, expected());

    let position = &restored.positions[0];
    assert_eq!((position.operator, position.split.as_str(), position.ended), (lines, "a.txt", true));
    assert_eq!(position.position.as_u64(), Some(EPOCHS * 100));
    assert!(position.watermarks.is_empty(), "it was written before watermarks were saved");

    let rows =
        restored.outbox[&out].iter().flat_map(|rows| rows.iter().map(|row| row.bytes.to_vec()).collect::<Vec<_>>());
    let rows: Vec<_> = rows.collect();
    assert_eq!(rows, [b"row 4".to_vec(), b"row 5".to_vec()]);
}
