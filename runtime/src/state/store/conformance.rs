//! The same generated operations on every backend: every answer equal. Without it a green simulation says nothing about
//! RocksDB.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{Durability, Memory, Space, StateBackend, Store, StoreError, StoreErrorKind, WriteBatch};
use crate::id::ShardId;
use crate::testing::sim_store::SimDisk;

type Key = Vec<u8>;

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(Space, Key, Option<Vec<u8>>)>, Durability),
    Get(Space, Vec<Key>),
    Scan(Space, Key, Option<Key>, usize),
    Ingest(Space, BTreeMap<Key, Option<Vec<u8>>>),
    IngestBackwards(Space, Key),
    RemoveRange(Space, Key, Key),
    Reopen,
}

/// What a backend said.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Refused(StoreErrorKind),
    Values(Vec<Option<Vec<u8>>>),
    Entries(Vec<(Vec<u8>, Vec<u8>)>),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let space = || prop::sample::select(Space::ALL.to_vec());
    // Few and short, so that operations meet: prefixes of each other, and both ends of the byte order.
    let key = || vec(prop::sample::select(vec![0u8, 1, 0xFE, 0xFF]), 0..3);
    let value = || option::weighted(0.7, vec(any::<u8>(), 0..4));
    let durability = prop::sample::select(vec![Durability::Synced, Durability::Buffered]);
    let op = prop_oneof![
        4 => (vec((space(), key(), value()), 0..6), durability).prop_map(|(changes, how)| Op::Write(changes, how)),
        2 => (space(), vec(key(), 0..6)).prop_map(|(space, keys)| Op::Get(space, keys)),
        3 => (space(), key(), option::of(key()), 0..8usize).prop_map(|(space, from, to, limit)| {
            Op::Scan(space, from, to, limit)
        }),
        2 => (space(), btree_map(key(), value(), 0..5)).prop_map(|(space, run)| Op::Ingest(space, run)),
        1 => (space(), key()).prop_map(|(space, key)| Op::IngestBackwards(space, key)),
        2 => (space(), key(), key()).prop_map(|(space, from, to)| Op::RemoveRange(space, from, to)),
        1 => Just(Op::Reopen),
    ];
    vec(op, 1..40)
}

/// After every key that is generated: a store that was written is never wholly empty.
const ANCHOR: [u8; 8] = [0xFF; 8];

struct Subject {
    backend: Box<dyn StateBackend>,
    store: Option<Box<dyn Store>>,
}

impl Subject {
    fn new(backend: impl StateBackend + 'static) -> Self {
        let mut store = backend.open("p", ShardId::new(0), true).unwrap();
        let mut batch = WriteBatch::default();
        batch.put(Space::Meta, ANCHOR, &[]);
        store.write(batch, Durability::Buffered).unwrap();
        Self { backend: Box::new(backend), store: Some(store) }
    }

    fn scan(&self, space: Space, from: &[u8], to: Option<&[u8]>, limit: usize) -> Answer {
        let mut entries = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            entries.push((key.to_vec(), value.to_vec()));
            if entries.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.store.as_ref().unwrap().scan(space, from, to, &mut visit).unwrap();
        Answer::Entries(entries)
    }

    fn run(&mut self, op: &Op) -> Answer {
        let store = self.store.as_mut().unwrap();
        let result = match op {
            Op::Write(changes, durability) => {
                let mut batch = WriteBatch::default();
                for (space, key, value) in changes {
                    match value {
                        Some(value) => batch.put(*space, key.clone(), value.clone()),
                        None => batch.delete(*space, key.clone()),
                    }
                }
                store.write(batch, *durability)
            }
            Op::Get(space, keys) => return Answer::Values(store.multi_get(*space, keys).unwrap()),
            Op::Scan(space, from, to, limit) => return self.scan(*space, from, to.as_deref(), *limit),
            Op::Ingest(space, run) => ingest(store.as_mut(), *space, run.clone()),
            Op::IngestBackwards(space, key) => {
                let run = [(key.clone(), None), (key.clone(), Some(vec![]))];
                ingest(store.as_mut(), *space, run)
            }
            Op::RemoveRange(space, from, to) => {
                let mut batch = WriteBatch::default();
                batch.delete_range(*space, from.clone(), to.clone());
                store.write(batch, Durability::Buffered)
            }
            Op::Reopen => {
                let locked = self.backend.open("p", ShardId::new(0), false).map(|_| ());
                self.store = None;
                self.store = Some(self.backend.open("p", ShardId::new(0), false).unwrap());
                locked
            }
        };
        result.map_or_else(|error| Answer::Refused(error.kind), |()| Answer::Done)
    }

    fn everything(&self) -> Vec<Answer> {
        Space::ALL.iter().map(|space| self.scan(*space, &[], None, usize::MAX)).collect()
    }
}

fn ingest(
    store: &mut dyn Store,
    space: Space,
    run: impl IntoIterator<Item = (Key, Option<Vec<u8>>)>,
) -> Result<(), StoreError> {
    let run = store.reader().write_run(space, &mut run.into_iter().map(|(key, value)| (key, value.map(Into::into))))?;
    store.ingest(run)
}

fn agree(mut subjects: Vec<Subject>, ops: &[Op]) {
    let reopen = [Op::Reopen];
    for op in ops.iter().chain(&reopen) {
        let answers: Vec<_> = subjects.iter_mut().map(|subject| subject.run(op)).collect();
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{op:?} answered {answers:?}");
    }
    let contents: Vec<_> = subjects.iter().map(Subject::everything).collect();
    assert!(contents.windows(2).all(|pair| pair[0] == pair[1]), "{contents:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_simulated_disk_answers_as_memory_does(ops in ops()) {
        agree(vec![Subject::new(Memory::new()), Subject::new(SimDisk::new())], &ops);
    }
}

#[cfg(feature = "rocksdb")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn rocksdb_answers_as_the_simulated_disk_does(ops in ops()) {
        let root = tempfile::tempdir().unwrap();
        let rocksdb = Subject::new(super::RocksDb::at(root.path()));
        agree(vec![Subject::new(Memory::new()), Subject::new(SimDisk::new()), rocksdb], &ops);
    }
}
