//! The form of a log in its store, held against a stored one: bytes that were written once stay readable.
//!
//! A new form gets a new number, and a new file beside the old one; `MILLSTREAM_WRITE_FIXTURE=1` writes today's.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use millstream_runtime::id::ShardId;
use millstream_runtime::state::store::{Durability, Space, WriteBatch};

use super::*;

const V1: &str = include_str!("../../../../fixtures/wal-v1.txt");
const SPACES: [(Space, &str); 2] = [(Space::Log, "log"), (Space::Meta, "meta")];
const FORMAT_ROW: &str = "meta 666f726d6174 ";

/// A log on a store in memory, whose source goes on with this number and has ten.
fn wal(memory: &Memory, next: u64) -> WalSource<Once> {
    let world = World { next: next.into(), last: Some(10), ..World::default() };
    WalSource::new("log", Once(Arc::new(world)), memory.clone())
}

fn split() -> SplitId {
    SplitId::new(SPLIT)
}

/// Three frames of ten records, of which the first four are removed.
fn write() -> String {
    let memory = Memory::new();
    let wal = wal(&memory, 0);
    let split = wal.splits().unwrap().remove(0);
    let mut reader = wal.reader(&split, None).unwrap();
    while reader.poll(&mut Batch::default(), 4).unwrap() != Polled::End {}
    wal.committed(&[(split, Position::from_u64(6))]);
    drop((reader, wal));
    let store = memory.open("log", ShardId::default(), false).unwrap();
    let mut text = String::new();
    for (space, name) in SPACES {
        let mut visit = |key: &[u8], value: &[u8]| {
            let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
            writeln!(text, "{name} {} {}", hex(key), hex(value)).unwrap();
            ControlFlow::Continue(())
        };
        store.scan(space, &[], None, &mut visit).unwrap();
    }
    text
}

/// A store with these rows.
fn store(text: &str) -> Memory {
    let bytes = |hex: &str| -> Vec<u8> {
        let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    };
    let mut batch = WriteBatch::default();
    for line in text.lines() {
        let [name, key, value] = *line.split(' ').collect::<Vec<_>>() else { panic!("{line}") };
        let (space, _) = SPACES.into_iter().find(|(_, known)| *known == name).unwrap();
        batch.put(space, bytes(key), bytes(value));
    }
    let memory = Memory::new();
    memory.open("log", ShardId::default(), true).unwrap().write(batch, Durability::Synced).unwrap();
    memory
}

#[test]
fn what_is_written_today_is_format_1() {
    let written = write();
    if std::env::var_os("MILLSTREAM_WRITE_FIXTURE").is_some() {
        return std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/wal-v1.txt"), written).unwrap();
    }
    assert_eq!(written, V1, "another form needs another number, and code that reads both");
}

#[test]
fn a_log_of_format_1_is_read_and_gone_on_with_also_one_from_before_the_number() {
    let without: String =
        V1.lines().filter(|line| !line.starts_with(FORMAT_ROW)).map(|line| format!("{line}\n")).collect();
    assert!(without.len() < V1.len());
    for text in [V1, &without] {
        let memory = store(text);
        let wal = wal(&memory, 9);
        wal.splits().unwrap();
        let mut reader = wal.reader(&split(), Some(&Position::from_u64(6))).unwrap();
        let mut batch = Batch::default();
        while reader.poll(&mut batch, 100).unwrap() != Polled::End {}
        let found: Vec<_> = batch.records.iter().map(|record| (record.value, record.time.as_micros())).collect();
        // Ten are in the log; the one behind them is what the source had next.
        assert_eq!(found, [(6, 6), (7, 7), (8, 8), (9, 9), (9, 9)]);
        assert_eq!(batch.end, Position::from_u64(11));
        let gone = wal.reader(&split(), Some(&Position::from_u64(3))).err().unwrap().to_string();
        assert!(gone.contains("begins with record 4"), "{gone}");
    }
}

#[test]
fn a_log_of_a_newer_format_is_refused_and_what_to_do_is_said() {
    let newer = V1.replace(&format!("{FORMAT_ROW}00000001"), &format!("{FORMAT_ROW}00000002"));
    assert_ne!(newer, V1);
    let error = wal(&store(&newer), 0).splits().unwrap_err().to_string();
    for part in ["log", "has format 2", "up to 1", "the version that wrote it"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let broken = V1.replace(&format!("{FORMAT_ROW}00000001"), &format!("{FORMAT_ROW}01"));
    let error = wal(&store(&broken), 0).splits().unwrap_err().to_string();
    assert!(error.contains("the number of its format cannot be read"), "{error}");
}
