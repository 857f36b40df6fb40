//! RocksDB as this library opens it: what is pinned, locked and refused.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::state::store::{Durability, Space, WriteBatch};

const SHARD: ShardId = ShardId::new(0);

fn put(key: &[u8]) -> WriteBatch<'static> {
    let mut batch = WriteBatch::default();
    batch.put(Space::Meta, key, b"value".repeat(100));
    batch
}

fn files(directory: &Path, starts: &str, ends: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut paths: Vec<_> = paths.filter(|path| name(path).starts_with(starts) && name(path).ends_with(ends)).collect();
    paths.sort();
    paths
}

/// The first byte of every key of the log.
fn found(store: &dyn Store) -> Vec<u8> {
    let mut keys = Vec::new();
    let mut visit = |key: &[u8], _: &[u8]| {
        keys.push(key[0]);
        std::ops::ControlFlow::Continue(())
    };
    store.scan(Space::Log, &[], None, &mut visit).unwrap();
    keys
}

/// Ingests four keys of the log.
fn ingest(store: &mut dyn Store, from: u8) {
    let mut entries = (from..from + 4).map(|key| (vec![key, 0], Some(vec![key; 1000].into())));
    let run = store.write_run(Space::Log, &mut entries).unwrap();
    store.ingest(run).unwrap();
}

#[test]
fn the_options_in_force_are_the_pinned_ones() {
    let root = tempfile::tempdir().unwrap();
    let mut store = RocksDb::at(root.path()).open("p", SHARD, true).unwrap();
    let directory = root.path().join("p/0");
    let wal = |directory: &Path| -> u64 {
        files(directory, "", ".log").iter().map(|path| path.metadata().unwrap().len()).sum()
    };
    let before = wal(&directory);
    store.write(put(b"k"), Durability::Buffered).unwrap();
    store.write(WriteBatch::default(), Durability::Synced).unwrap();
    assert!(wal(&directory) >= before + 500, "the WAL is on");

    let text = fs::read_to_string(files(&directory, "OPTIONS-", "").last().unwrap()).unwrap();
    let of_database = [
        "wal_recovery_mode=kTolerateCorruptedTailRecords",
        "recycle_log_file_num=0",
        "manual_wal_flush=false",
        "paranoid_checks=true",
        "max_total_wal_size=67108864",
        "max_open_files=512",
        "max_background_jobs=2",
        "bytes_per_sync=1048576",
        "wal_bytes_per_sync=1048576",
        "compaction_readahead_size=262144",
        "max_subcompactions=1",
        "skip_stats_update_on_db_open=true",
    ];
    let of_each_family = [
        "write_buffer_size=33554432",
        "max_write_buffer_number=3",
        "level0_file_num_compaction_trigger=4",
        "level0_slowdown_writes_trigger=20",
        "level0_stop_writes_trigger=36",
        // As RocksDB has it by itself, and as it has to stay.
        "metadata_block_size=4096",
        "pin_top_level_index_and_filter=true",
    ];
    let count = |line: &str| text.lines().filter(|found| found.trim() == line).count();
    for line in of_database {
        assert_eq!(count(line), 1, "{line}");
    }
    for line in of_each_family {
        assert_eq!(count(line), 1 + Space::ALL.len(), "{line}");
    }
    let of_each_but_the_log = [
        "index_type=kTwoLevelIndexSearch",
        "partition_filters=true",
        "cache_index_and_filter_blocks=true",
        "no_block_cache=false",
    ];
    for line in of_each_but_the_log {
        assert_eq!(count(line), Space::ALL.len(), "all but the log: {line}");
    }
    assert_eq!(count("no_block_cache=true"), 1, "the log");
    assert_eq!(count("compression=kLZ4Compression"), Space::ALL.len(), "all but the log");
    assert_eq!(count("compression=kNoCompression"), 1, "the log");
}

#[test]
fn memtables_follow_from_the_memory() {
    let root = tempfile::tempdir().unwrap();
    let backend = RocksDb::at(root.path());
    for (memory, expected) in [(1, "write_buffer_size=2097152"), (64 << 20, "write_buffer_size=8388608")] {
        let _store = backend.within(memory).unwrap().open("p", SHARD, true).unwrap();
        let text = fs::read_to_string(files(&root.path().join("p/0"), "OPTIONS-", "").last().unwrap()).unwrap();
        assert!(text.lines().any(|line| line.trim() == expected), "{memory}");
    }
}

#[test]
fn a_store_in_use_says_by_whom_and_is_free_after_the_drop() {
    let root = tempfile::tempdir().unwrap();
    let backend = RocksDb::at(root.path());
    let store = backend.open("p", SHARD, true).unwrap();
    let error = backend.open("p", SHARD, true).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Locked);
    let owner = format!("in use by pid {} since 2", std::process::id());
    assert!(error.source.to_string().starts_with(&owner), "{}", error.source);
    drop(store);
    backend.open("p", SHARD, true).unwrap();
}

#[test]
fn names_that_leave_the_root_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let backend = RocksDb::at(root.path().join("state"));
    for name in ["", ".", "..", "a/b", "a\0", "ä", &"x".repeat(65)] {
        assert_eq!(backend.open(name, SHARD, true).unwrap_err().kind, StoreErrorKind::Unsupported, "{name:?}");
    }
    assert_eq!(backend.open("a.b-c_9", SHARD, false).unwrap_err().kind, StoreErrorKind::Missing);
    assert!(!root.path().join("state").exists(), "nothing was created");
}

#[test]
fn a_store_that_was_written_never_comes_back_empty() {
    let root = tempfile::tempdir().unwrap();
    let backend = RocksDb::at(root.path());
    backend.open("p", SHARD, true).unwrap();
    let mut store = backend.open("p", SHARD, true).unwrap();
    store.write(put(b"k"), Durability::Synced).unwrap();
    drop(store);
    let directory = root.path().join("p/0");
    fs::rename(directory.join("CURRENT"), directory.join("lost")).unwrap();
    assert_eq!(backend.open("p", SHARD, true).unwrap_err().kind, StoreErrorKind::Corrupt);
    fs::rename(directory.join("lost"), directory.join("CURRENT")).unwrap();
    for path in files(&directory, "0", ".sst").into_iter().chain(files(&directory, "0", ".log")) {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(backend.open("p", SHARD, true).unwrap_err().kind, StoreErrorKind::Corrupt);
}

#[test]
fn a_copy_is_not_touched_by_later_writes() {
    let root = tempfile::tempdir().unwrap();
    let mut store = RocksDb::at(root.path()).open("p", SHARD, true).unwrap();
    store.write(put(b"a"), Durability::Buffered).unwrap();
    let kept = root.path().join("kept/0");
    fs::create_dir(root.path().join("kept")).unwrap();
    store.checkpoint(&kept).unwrap();
    assert_eq!(store.checkpoint(&kept).unwrap_err().kind, StoreErrorKind::Misuse);
    store.write(put(b"b"), Durability::Synced).unwrap();
    let copy = RocksDb::at(root.path()).open("kept", SHARD, false).unwrap();
    let found = copy.multi_get(Space::Meta, &[b"a".to_vec(), b"b".to_vec()]).unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_flipped_bit_in_the_middle_of_the_wal_is_refused_and_a_torn_tail_is_not() {
    let root = tempfile::tempdir().unwrap();
    let backend = RocksDb::at(root.path());
    let mut store = backend.open("p", SHARD, true).unwrap();
    for key in 0..20u8 {
        store.write(put(&[key]), Durability::Synced).unwrap();
    }
    let directory = root.path().join("p/0");
    let wal = files(&directory, "0", ".log").pop().unwrap();
    let whole = fs::read(&wal).unwrap();
    // A copy per case, taken while the store is open: as after a SIGKILL.
    let copy = |case: &str, bytes: &[u8]| {
        let to = root.path().join(case).join("0");
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() && entry.file_name() != "LOCK.millstream" {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        fs::write(to.join(wal.file_name().unwrap()), bytes).unwrap();
        backend.open(case, SHARD, false)
    };
    for at in (40..whole.len() - 1_200).step_by(991) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x20;
        let error = copy(&format!("flip-{at}"), &flipped).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt, "byte {at}: {}", error.source);
    }
    let torn = copy("torn", &whole[..whole.len() - 10]).unwrap();
    let found = torn.multi_get(Space::Meta, &(0..20u8).map(|key| vec![key]).collect::<Vec<_>>()).unwrap();
    assert_eq!(found.iter().filter(|value| value.is_some()).count(), 19);
}

#[test]
fn files_of_what_was_removed_go_once_that_is_durable_and_what_came_after_it_stays() {
    let root = tempfile::tempdir().unwrap();
    let mut store = RocksDb::at(root.path()).open("p", SHARD, true).unwrap();
    let directory = root.path().join("p/0");
    let tables = || files(&directory, "", ".sst").len();
    for from in [0, 4, 8] {
        ingest(store.as_mut(), from);
    }
    assert_eq!(tables(), 3);

    let mut removal = WriteBatch::default();
    // In the middle of the second file.
    removal.delete_range(Space::Log, [], [6]);
    store.write(removal.clone(), Durability::Buffered).unwrap();
    assert_eq!((tables(), found(store.as_ref())), (3, (6..12).collect()));
    store.write(WriteBatch::default(), Durability::Synced).unwrap();
    assert_eq!((tables(), found(store.as_ref())), (2, (6..12).collect()));

    // Removed and written again before it is durable, by a run and by a batch.
    store.write(removal.clone(), Durability::Buffered).unwrap();
    ingest(store.as_mut(), 0);
    store.write(WriteBatch::default(), Durability::Synced).unwrap();
    assert_eq!(found(store.as_ref()), (0..4).chain(6..12).collect::<Vec<_>>());
    removal.put(Space::Log, [1], vec![1]);
    store.write(removal, Durability::Synced).unwrap();
    drop(store);
    let store = RocksDb::at(root.path()).open("p", SHARD, false).unwrap();
    assert_eq!(found(store.as_ref()), [1].into_iter().chain(6..12).collect::<Vec<_>>());
}

#[test]
fn what_was_put_behind_a_removal_stays_if_a_compaction_gives_it_a_file_of_its_own_before_the_sync() {
    let root = tempfile::tempdir().unwrap();
    let memory = crate::state::MemoryShares::default().store;
    let mut store = RocksDbStore::open(root.path().join("p/0"), true, memory).unwrap();
    ingest(&mut store, 0);
    let mut removal = WriteBatch::default();
    removal.delete_range(Space::Log, [], [6]);
    store.write(removal, Durability::Buffered).unwrap();
    let mut put = WriteBatch::default();
    put.put(Space::Log, [1], vec![1]);
    store.write(put, Durability::Buffered).unwrap();
    // Merges it with what was removed: on the lowest level, where whole files of a range may be dropped, and where the removal,
    // whose end would lie outside of the range, is not needed any more.
    let family = store.shared.db.cf_handle(Space::Log.name()).unwrap();
    store.shared.db.compact_range_cf(family, None::<&[u8]>, None::<&[u8]>);
    store.write(WriteBatch::default(), Durability::Synced).unwrap();
    assert_eq!(found(&store), [1]);
}
