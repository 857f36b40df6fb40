//! Opening a store: what is missing, changed or does not fit is refused by name, and what was found is durable.

use super::*;

/// A store with rows of epochs 1 to 4 and a log of 5 and 6.
fn folded_store() -> SimDisk {
    let disk = SimDisk::new();
    live(&disk, Arc::new(NoFaults), &mut World::default(), 6).unwrap();
    disk
}

/// Opens and reads everything back.
fn verdict(disk: &SimDisk) -> String {
    let restored = open(disk, Arc::new(NoFaults)).and_then(|log| everything(&log));
    match restored {
        Ok(_) => "fine".to_owned(),
        Err(RecoveryError::Damaged { damage, .. }) => damage.to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_missing_or_changed_is_refused_by_name() {
    let epoch = Epoch::new(5);
    let subtask = SubtaskId { task: TaskId::new(1), index: 1 };
    let is = |wanted: Vec<u8>| move |key: &[u8]| key == wanted;
    type Hit = Box<dyn Fn(&[u8]) -> bool>;
    let table: Vec<(Space, Hit, &str)> = vec![
        (Space::Meta, Box::new(is(keys::MANIFEST.to_vec())), "manifest"),
        (Space::Meta, Box::new(is(keys::ATTEMPT.to_vec())), "its attempt number is missing"),
        (Space::Meta, Box::new(is(keys::position(SOURCE, &SplitId::new("split-1")))), "position"),
        (Space::Log, Box::new(is(keys::index(epoch))), "index record of epoch 5"),
        (Space::Log, Box::new(is(keys::index(epoch.next()))), "index record of epoch 6"),
        (
            Space::Log,
            Box::new(is(keys::delta(epoch, COUNT, subtask, 0))),
            "the delta of operator 1, subtask 1/1 in epoch 5",
        ),
        (Space::Rows, Box::new(is(keys::sentinel(COUNT, 1))), "the sentinel of state 1 of operator 1"),
        (
            Space::Outbox,
            Box::new(is(keys::outbox(SINK, epoch, subtask, 0))),
            "the output of sink 2, subtask 1/1 in epoch 5",
        ),
    ];
    type Harm = fn(Vec<u8>) -> Option<Vec<u8>>;
    let harms: [(&str, Harm); 4] = [
        ("drop", |_| None),
        ("empty", |_| Some(Vec::new())),
        ("truncate", |mut value| value.pop().map(|_| value)),
        ("extend", |mut value| {
            value.push(0);
            Some(value)
        }),
    ];
    assert_eq!(verdict(&folded_store()), "fine");
    for (space, hit, text) in table {
        for (name, harm) in harms {
            let disk = folded_store();
            let mut hits = 0;
            disk.damage("p", SHARD, space, |key, value| {
                if !hit(key) {
                    return Some(value);
                }
                hits += 1;
                harm(value)
            });
            assert_eq!(hits, 1, "{text}");
            assert!(verdict(&disk).contains(text), "{name}: {} instead of {text}", verdict(&disk));
        }
    }
}

#[test]
fn every_flipped_byte_outside_the_rows_is_refused() {
    for space in [Space::Meta, Space::Log, Space::Outbox] {
        let mut sizes = Vec::new();
        folded_store().damage("p", SHARD, space, |_, value| {
            sizes.push(value.len());
            Some(value)
        });
        for (entry, size) in sizes.into_iter().enumerate() {
            for at in 0..size {
                let disk = folded_store();
                let mut number = 0;
                disk.damage("p", SHARD, space, |_, mut value| {
                    if number == entry {
                        value[at] ^= 0x04;
                    }
                    number += 1;
                    Some(value)
                });
                let error = open(&disk, Arc::new(NoFaults)).and_then(|log| log.restore()).unwrap_err();
                assert!(error.is_corruption(), "byte {at} of entry {entry} in {space:?}: {error}");
            }
        }
    }
}

/// Takes the entries of one store that `hit` names over into another.
fn transplant(from: &SimDisk, to: &SimDisk, space: Space, hit: &[u8]) {
    let mut taken = None;
    from.damage("p", SHARD, space, |key, value| {
        if key == hit {
            taken = Some(value.clone());
        }
        Some(value)
    });
    to.damage("p", SHARD, space, |key, value| if key == hit { taken.clone() } else { Some(value) });
}

#[test]
fn records_of_another_time_or_history_are_refused() {
    // The same epochs, of later attempts: other index records.
    let other = SimDisk::new();
    let mut world = World::default();
    for last in 0..=6 {
        live(&other, Arc::new(NoFaults), &mut world, last).unwrap();
    }
    for epoch in [5, 6] {
        let disk = folded_store();
        transplant(&other, &disk, Space::Log, &keys::index(Epoch::new(epoch)));
        assert!(verdict(&disk).contains("does not follow"), "{}", verdict(&disk));
    }
    let earlier = SimDisk::new();
    live(&earlier, Arc::new(NoFaults), &mut World::default(), 5).unwrap();
    let disk = folded_store();
    transplant(&earlier, &disk, Space::Meta, &keys::position(SOURCE, &SplitId::new("split-0")));
    assert!(verdict(&disk).contains("positions are not those"), "{}", verdict(&disk));
    let disk = folded_store();
    transplant(&earlier, &disk, Space::Meta, keys::MANIFEST);
    assert_ne!(verdict(&disk), "fine");
}

#[test]
fn a_manifest_of_a_newer_format_is_refused_by_its_number() {
    let disk = folded_store();
    disk.damage("p", SHARD, Space::Meta, |key, mut value| {
        if key == keys::MANIFEST {
            value[4..6].copy_from_slice(&7u16.to_be_bytes());
            let crc = crc32fast::hash(&[&value[..6], &value[10..]].concat());
            value[6..10].copy_from_slice(&crc.to_be_bytes());
        }
        Some(value)
    });
    let error = open(&disk, Arc::new(NoFaults)).unwrap_err();
    let RecoveryError::TooNew { format, .. } = &error else { panic!("{error:?}") };
    assert!(format.to_string().contains("format 7, this build reads up to 1"), "{format}");
}

#[test]
fn a_start_that_does_not_fit_the_store_is_refused() {
    let disk = SimDisk::new();
    let start = |identity, start_from| {
        let store = disk.open("p", SHARD, true).unwrap();
        CommitLog::open(store, identity, start_from, limits(), no_faults()).map(|log| log.epoch())
    };
    assert!(matches!(start(identity(), StartFrom::Resume), Err(RecoveryError::NothingToResume { .. })));
    assert_eq!(start(identity(), StartFrom::Create).unwrap(), Epoch::GENESIS);
    assert_eq!(start(identity(), StartFrom::Create).unwrap(), Epoch::GENESIS, "its maker died before an epoch");
    live(&disk, Arc::new(NoFaults), &mut World::default(), 2).unwrap();
    assert!(matches!(start(identity(), StartFrom::Create), Err(RecoveryError::AlreadyThere { .. })));
    assert_eq!(start(identity(), StartFrom::Resume).unwrap(), Epoch::new(2));
    let strangers = [
        (Identity { pipeline: "q".to_owned(), ..identity() }, "made for pipeline p, the pipeline says q"),
        (Identity { shard: ShardId::new(1), ..identity() }, "made for shard 0, the pipeline says 1"),
        (Identity { key_groups: 128, ..identity() }, "made for key groups 960, the pipeline says 128"),
    ];
    for (stranger, text) in strangers {
        let error = start(stranger, StartFrom::ResumeOrCreate).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn what_an_open_found_or_made_is_durable() {
    let disk = SimDisk::new();
    open(&disk, Arc::new(NoFaults)).unwrap();
    disk.crash_with(|| false);
    let start = |start_from| {
        let store = disk.open("p", SHARD, false).unwrap();
        // Nothing goes ahead, so the first write is the batch.
        let limits = LogLimits { batch_bytes: usize::MAX, ..limits() };
        CommitLog::open(store, identity(), start_from, limits, no_faults())
    };
    let mut log = start(StartFrom::Resume).expect("the genesis survived");
    log.register(&decls()).unwrap();
    disk.fail_writes(WriteFaults { kind: StoreErrorKind::Io, after: 0, times: 1, outcome: FailedWrite::Written });
    assert!(!log.commit(vec![bundle(Attempt::new(1), 1)], &[]).unwrap_err().is_retryable());
    assert_eq!(start(StartFrom::Resume).unwrap().epoch(), Epoch::new(1), "it can be read, although it failed");
    disk.crash_with(|| false);
    assert_eq!(start(StartFrom::Resume).unwrap().epoch(), Epoch::new(1));
}

#[test]
fn operators_with_data_must_be_in_the_pipeline() {
    let disk = folded_store();
    for (missing, name) in [(0, "in"), (1, "count"), (2, "out")] {
        let mut log = open(&disk, Arc::new(NoFaults)).unwrap();
        let mut decls = decls();
        decls.remove(missing);
        let RecoveryError::Names { source, place, .. } = log.register(&decls).unwrap_err() else { panic!() };
        let error = source.to_string();
        assert!(error.contains(&format!("that the pipeline lacks: {name} (the store has: in, count, out;")), "{error}");
        assert_eq!(place, log.place());
    }
}

#[test]
fn a_store_that_has_been_further_than_it_is_now_is_refused() {
    let mark = |epoch, attempt| Mark { epoch: Epoch::new(epoch), attempt: Attempt::new(attempt) };
    for (mark, found) in [(mark(6, 1), "fine"), (mark(7, 1), "at epoch 7"), (mark(6, 2), "in attempt 2")] {
        let disk = folded_store();
        disk.open("p", SHARD, false).unwrap().set_mark(mark).unwrap();
        let verdict = verdict(&disk);
        assert!(verdict.contains(found), "{mark:?}: {verdict}");
        assert_eq!(verdict.contains("what was synced last is lost"), found != "fine", "{verdict}");
    }
    // Nothing is there any more: not even that makes it a new one.
    let disk = SimDisk::new();
    disk.open("p", SHARD, true).unwrap().set_mark(mark(1, 0)).unwrap();
    assert!(verdict(&disk).contains("it is at epoch 0"), "{}", verdict(&disk));
}

#[test]
fn a_mark_is_never_ahead_of_what_is_durable() {
    let disk = folded_store();
    let mut log = open(&disk, Arc::new(NoFaults)).unwrap();
    assert_eq!(log.raise_attempt().unwrap(), Attempt::new(2));
    log.register(&decls()).unwrap();
    disk.fail_writes(WriteFaults { kind: StoreErrorKind::Full, after: 1, times: 1, outcome: FailedWrite::Written });
    assert!(log.commit(vec![bundle(Attempt::new(2), 7)], &[]).unwrap_err().is_retryable());
    log.mark();
    drop(log);
    // The write is lost; had it been marked, the store would be refused now.
    disk.crash_with(|| false);
    let log = open(&disk, Arc::new(NoFaults)).unwrap();
    assert_eq!((log.epoch(), log.attempt()), (Epoch::new(6), Attempt::new(2)));
}
