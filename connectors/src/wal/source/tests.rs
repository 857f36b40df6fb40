//! A log on a disk that forgets, in front of a source that gives each number once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_runtime::fault::{CrashPoint, Crashed};
use millstream_runtime::state::store::{Memory, StoreErrorKind};
use millstream_runtime::testing::sim_store::{FailedWrite, SimDisk, WriteFaults};
use millstream_runtime::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::channel::feed;

mod format;

const SPLIT: &str = "once";

/// The world outside: it outlives every process, and gives each number once.
#[derive(Clone, Default)]
struct Once(Arc<World>);

#[derive(Default)]
struct World {
    next: AtomicU64,
    last: Option<u64>,
    /// What it gave, by the position behind it.
    given: Mutex<BTreeMap<u64, Vec<u64>>>,
    /// Numbers that it was told are safe.
    told: Mutex<BTreeSet<u64>>,
}

struct OnceReader(Arc<World>);

impl Source for Once {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new(SPLIT)])
    }

    fn reader(&self, _: &SplitId, _: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        Ok(Box::new(OnceReader(Arc::clone(&self.0))))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        let (given, mut told) = (self.0.given.lock().unwrap(), self.0.told.lock().unwrap());
        for (_, position) in at {
            // Only that batch: one before it may be lost, and then nobody said that it was safe.
            told.extend(&given[&position.as_u64().unwrap()]);
        }
    }
}

impl Reader<u64> for OnceReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        let first = self.0.next.load(Ordering::Relaxed);
        let end = (first + limit as u64).min(self.0.last.unwrap_or(u64::MAX));
        if first == end {
            return Ok(Polled::End);
        }
        self.0.next.store(end, Ordering::Relaxed);
        batch.records.extend((first..end).map(|number| Record::at(number, Timestamp::from_micros(number as i64))));
        batch.end = Position::from_u64(end);
        self.0.given.lock().unwrap().insert(end, (first..end).collect());
        Ok(Polled::More)
    }
}

/// A pipeline as far as the log can see one: what it has taken, and what of that is committed.
struct Pipeline {
    wal: WalSource<Once>,
    reader: Option<Box<dyn Reader<u64>>>,
    seen: Vec<u64>,
    position: Option<Position>,
    committed: (usize, Option<Position>),
}

impl Pipeline {
    fn start(world: &Once, disk: &SimDisk, durability: Durability, committed: (Vec<u64>, Option<Position>)) -> Self {
        let mut wal = WalSource::new("log", world.clone(), disk.clone()).durability(durability);
        wal.wal.config().pause = Duration::ZERO;
        let (seen, position) = committed;
        Self { wal, reader: None, committed: (seen.len(), position.clone()), seen, position }
    }

    /// An attempt ends; the next one goes on where the last epoch was committed.
    fn fail(&mut self) {
        self.reader = None;
        self.seen.truncate(self.committed.0);
        self.position = self.committed.1.clone();
    }

    /// Takes what one poll gives.
    fn step(&mut self, limit: usize) -> Result<Polled, BoxError> {
        if self.reader.is_none() {
            let split = &self.wal.splits()?[0];
            self.reader = Some(self.wal.reader(split, self.position.as_ref())?);
        }
        let mut batch = Batch::default();
        let polled = self.reader.as_mut().unwrap().poll(&mut batch, limit)?;
        for record in batch.records {
            assert_eq!(record.time.as_micros(), record.value as i64, "event times are kept");
            self.seen.push(record.value);
        }
        self.position = Some(batch.end);
        Ok(polled)
    }

    fn commit(&mut self) {
        self.committed = (self.seen.len(), self.position.clone());
        if let Some(position) = &self.position {
            self.wal.committed(&[(SplitId::new(SPLIT), position.clone())]);
        }
    }
}

/// One seeded life with crashes of every kind; returns what is wrong with its end.
fn live(seed: u64, durability: Durability) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (world, disk) = (Once(Arc::new(World { last: Some(120), ..World::default() })), SimDisk::new());
    let mut pipeline = Pipeline::start(&world, &disk, durability, (Vec::new(), None));
    let mut steps = 0;
    loop {
        steps += 1;
        // In the end nothing fails any more, and everything has to come.
        let quiet = steps > 150;
        if quiet {
            disk.heal();
        }
        match rng.random_range(0..12) {
            0 | 1 => pipeline.commit(),
            2 if !quiet => pipeline.fail(),
            3 if !quiet => {
                let outcome = if rng.random_bool(0.5) { FailedWrite::Lost } else { FailedWrite::Written };
                let kind = if rng.random_bool(0.5) { StoreErrorKind::Io } else { StoreErrorKind::Full };
                disk.fail_writes(WriteFaults { kind, after: rng.random_range(0..3), times: 1, outcome });
            }
            4 if !quiet => disk.between_write_and_sync(|| Err(Crashed(CrashPoint::CommitWritten))),
            5 if !quiet => {
                // The process dies, at this very step or within the write before it.
                disk.crash(&mut rng);
                pipeline.fail();
                let committed = (pipeline.seen.clone(), pipeline.position.clone());
                pipeline = Pipeline::start(&world, &disk, durability, committed);
            }
            _ => match pipeline.step(rng.random_range(1..4)) {
                Ok(Polled::End) if quiet => break,
                Ok(_) => {}
                Err(error) if error.downcast_ref::<WalError>().is_some_and(is_crash) => {
                    disk.crash(&mut rng);
                    pipeline.fail();
                    let committed = (pipeline.seen.clone(), pipeline.position.clone());
                    pipeline = Pipeline::start(&world, &disk, durability, committed);
                }
                Err(error) if quiet => return Err(format!("cannot go on: {error}")),
                Err(_) => pipeline.fail(),
            },
        }
        if steps > 1_000 {
            return Err("never ended".into());
        }
    }
    if !pipeline.seen.is_sorted_by(|one, other| one < other) {
        return Err(format!("twice, or out of order: {:?}", pipeline.seen));
    }
    let seen: BTreeSet<u64> = pipeline.seen.iter().copied().collect();
    let told = world.0.told.lock().unwrap();
    match told.difference(&seen).next() {
        Some(lost) => Err(format!("{lost} was safe and is lost")),
        None => Ok(()),
    }
}

fn is_crash(error: &WalError) -> bool {
    matches!(error, WalError::Store { source, .. } if source.kind == StoreErrorKind::Crashed)
}

#[test]
fn what_is_in_the_log_comes_exactly_once_whatever_fails_at_any_step() {
    for seed in 0..2_000 {
        live(seed, Durability::Synced).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn the_test_finds_a_log_that_is_not_synced() {
    assert!((0..200).any(|seed| live(seed, Durability::Buffered).is_err()));
}

fn open<S>(wal: &WalSource<S>, from: Option<u64>) -> Result<Box<dyn Reader<S::Out>>, BoxError>
where
    S: Source<Out: Serialize + DeserializeOwned>,
{
    let split = &wal.splits()?[0];
    wal.reader(split, from.map(Position::from_u64).as_ref())
}

fn take<T>(reader: &mut Box<dyn Reader<T>>, limit: usize) -> Vec<T> {
    let mut batch = Batch::default();
    reader.poll(&mut batch, limit).unwrap();
    batch.records.into_iter().map(|record| record.value).collect()
}

#[test]
fn a_receipt_comes_true_when_its_record_is_in_the_log_and_the_record_comes_after_the_end_of_the_process() {
    let backend = Memory::new();
    let (feed, source) = feed::<String>(8);
    let wal = WalSource::new("log", source, backend.clone());
    let mut reader = open(&wal, None).unwrap();
    let receipt = feed.send_durable("kept".to_owned()).unwrap();
    assert_eq!(receipt.try_wait(), None);
    assert_eq!(take(&mut reader, 9), ["kept"]);
    assert_eq!(receipt.try_wait(), Some(Ok(())));
    drop((reader, wal));
    let (feed, source) = crate::channel::feed::<String>(8);
    let wal = WalSource::new("log", source, backend);
    let mut reader = open(&wal, None).unwrap();
    feed.send("new".to_owned()).unwrap();
    assert_eq!((take(&mut reader, 9), take(&mut reader, 9)), (vec!["kept".to_owned()], vec!["new".to_owned()]));
}

#[test]
fn takes_nothing_while_the_log_is_full_of_what_is_not_committed() {
    let world = Once::default();
    let wal = WalSource::new("log", world.clone(), Memory::new()).max_bytes(1);
    let mut reader = open(&wal, None).unwrap();
    assert_eq!(take(&mut reader, 1), [0]);
    assert!(take(&mut reader, 1).is_empty());
    assert_eq!(world.0.next.load(Ordering::Relaxed), 1);
    wal.committed(&[(SplitId::new(SPLIT), Position::from_u64(1))]);
    assert_eq!(take(&mut reader, 1), [1]);
}

#[test]
fn waits_for_room_on_a_full_disk_and_loses_nothing() {
    let disk = SimDisk::new();
    let wal = WalSource::new("log", Once::default(), disk.clone());
    let mut reader = open(&wal, None).unwrap();
    disk.fail_next(StoreErrorKind::Full, 2);
    assert!(take(&mut reader, 1).is_empty() && take(&mut reader, 1).is_empty());
    assert_eq!((take(&mut reader, 1), take(&mut reader, 1)), (vec![0], vec![1]));
}

#[test]
fn removes_what_is_committed_and_refuses_a_pipeline_that_wants_it_back() {
    let backend = Memory::new();
    let wal = WalSource::new("log", Once::default(), backend.clone());
    let mut reader = open(&wal, None).unwrap();
    (0..5).for_each(|number| assert_eq!(take(&mut reader, 1), [number]));
    wal.committed(&[(SplitId::new(SPLIT), Position::from_u64(3))]);
    let text = |from: Option<u64>| open(&wal, from).err().unwrap().to_string();
    assert!(text(None).contains("begins with record 3") && text(Some(2)).contains("cannot go on with record 2"));
    assert!(text(Some(6)).contains("ends before record 5"), "{}", text(Some(6)));
    assert_eq!(take(&mut open(&wal, Some(3)).unwrap(), 9), [3]);
    let error = wal.reader(&SplitId::new(SPLIT), Position::from_bytes(vec![1]).as_ref()).err().unwrap().to_string();
    assert!(error.contains("was the source without one before?"), "{error}");
    // All of it committed and removed, the numbers go on.
    wal.committed(&[(SplitId::new(SPLIT), Position::from_u64(5))]);
    drop((reader, wal));
    let world = Once::default();
    world.0.next.store(5, Ordering::Relaxed);
    let wal = WalSource::new("log", world, backend);
    assert_eq!(take(&mut open(&wal, Some(5)).unwrap(), 1), [5]);
}

#[test]
fn an_older_reader_writes_nothing_any_more() {
    let wal = WalSource::new("log", Once::default(), Memory::new());
    let mut older = open(&wal, None).unwrap();
    assert_eq!(take(&mut older, 1), [0]);
    let mut newer = open(&wal, Some(0)).unwrap();
    assert!(older.poll(&mut Batch::default(), 1).unwrap_err().is::<crate::newest::Replaced>());
    assert_eq!((take(&mut newer, 1), take(&mut newer, 1)), (vec![0], vec![1]));
}

#[test]
fn refuses_a_bound_of_zero() {
    let wal = WalSource::new("log", Once::default(), Memory::new()).max_bytes(0);
    assert!(wal.splits().unwrap_err().to_string().contains("at least 1 byte"));
}
