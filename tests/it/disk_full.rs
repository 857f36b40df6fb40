//! A real RocksDB on a disk that is full for a while: epochs are late, none is lost, and all goes on when there is room.
//!
//! The disk is a tmpfs of 24 MB, which needs root; without it these tests say so and do nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::connectors::file::read_committed;
use millstream::prelude::*;
use millstream::runtime::checkpoint::{Delta, EpochBundle, Part};
use millstream::runtime::id::{Attempt, Epoch, OperatorId, SubtaskId};
use millstream::runtime::state::entry;
use millstream::runtime::state::log::{CommitError, CommitLog, LogLimits, Reopened, StartFrom};
use millstream::runtime::state::store::StateBackend;
use millstream::runtime::time::{Clock, SystemClock};

use crate::refusals::{Tmpfs, fill};
use crate::stored::{self, PIPELINE, SHARD};

/// Longest that anything awaited may take.
const PATIENCE: Duration = Duration::from_secs(60);
const SIZE: &str = "24m";
const KEYS: u64 = 10;

/// A job whose state is on a disk that is filled, and whose output is elsewhere.
struct Victim {
    disk: Tmpfs,
    out: tempfile::TempDir,
    runtime: Runtime,
    job: JobHandle,
    /// Makes the next record panic, once.
    panic: Arc<AtomicBool>,
    tokio: tokio::runtime::Runtime,
}

impl Victim {
    fn start(what: &str) -> Option<Self> {
        let disk = Tmpfs::mount(SIZE, what)?;
        let out = tempfile::tempdir().unwrap();
        let runtime = Runtime::builder()
            .workers(2)
            .state_backend(RocksDb::at(disk.path()))
            .epoch_interval(Duration::from_millis(10))
            .log_limits(LogLimits { fold_epochs: 5, ..LogLimits::default() })
            .restart(RestartPolicy::at_most(1).backoff(Duration::from_millis(1)))
            .build()
            .unwrap();
        let pipeline = Pipeline::new("books");
        let panic = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&panic);
        pipeline
            .source("numbers", Generator::new(None, |n| n).rate(5_000.0))
            .inspect(move |_: &u64| assert!(!told.swap(false, Ordering::Relaxed), "it panics as it was told to"))
            .key_by(|n| n % KEYS)
            .fold("counts", || (0u64, 0u64), |state, n| *state = (state.0 + 1, n))
            .map(|(_, (count, n))| format!("{n} {count}"))
            .sink("rows", FileSink::at(out.path().join("out")).roll_interval(Duration::from_millis(20)));
        let job = runtime.start(pipeline).unwrap();
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Some(Self { disk, out, runtime, job, panic, tokio })
    }

    /// Waits for an epoch that begins now.
    fn checkpoint(&self) -> u64 {
        let wait = async { tokio::time::timeout(PATIENCE, self.job.checkpoint_now()).await };
        self.tokio.block_on(wait).expect("no epoch is committed any more").unwrap().number()
    }

    /// Looks at the status until it is so.
    fn until(&self, what: &str, is_so: impl Fn(&JobStatus) -> bool) -> JobStatus {
        let clock = SystemClock::new();
        let late = clock.now().saturating_add(PATIENCE);
        loop {
            let status = self.job.status();
            if is_so(&status) {
                return status;
            }
            assert!(clock.now() < late, "{what} did not come: {status:?}");
            std::thread::yield_now();
        }
    }

    /// Takes what room there is, also what the database gives up when it closes its files.
    fn fill_up(&self) {
        fill(&self.disk.path().join("ballast"));
    }

    /// Fills the disk and waits until epochs wait for it.
    fn fill(&self) -> JobStatus {
        let status = self.until("waiting", |status| {
            self.fill_up();
            status.waiting.is_some()
        });
        let text = status.waiting.clone().unwrap();
        println!("  waiting: {text}");
        let late = format!("epochs {} to ", status.committed.number() + 1);
        let place = self.disk.path().join("books/0");
        for part in [&late, "No space left on device", "is intact; free some space", place.to_str().unwrap()] {
            assert!(text.contains(part), "{part}: {text}");
        }
        status
    }

    /// Keeps the disk full for a while.
    fn stay_full(&self, time: Duration) {
        let clock = SystemClock::new();
        let later = clock.now().saturating_add(time);
        self.until("time", |_| {
            self.fill_up();
            clock.now() > later
        });
    }

    fn free(&self) {
        fs::remove_file(self.disk.path().join("ballast")).unwrap();
    }

    /// Ends the job and holds its rows against the numbers.
    fn judge(self) {
        self.job.drain_blocking(PATIENCE).unwrap();
        drop(self.runtime);
        let mut next = 0;
        let mut last = 0;
        let mut seen = Vec::new();
        for file in read_committed(self.out.path().join("out")).unwrap() {
            assert!(file.first.number() > last, "an epoch is there twice");
            last = file.last.number();
            for row in file.lines().unwrap() {
                let (n, count) = row.split_once(' ').unwrap();
                seen.push((n.parse::<u64>().unwrap(), count.parse::<u64>().unwrap()));
            }
        }
        seen.sort_unstable();
        for (n, count) in seen {
            assert_eq!((n, count), (next, next / KEYS + 1), "lost or doubled");
            next += 1;
        }
        assert!(next > 0, "there are no rows");
    }
}

#[test]
fn a_full_disk_makes_epochs_late_and_loses_none() {
    let Some(victim) = Victim::start("a pipeline on a disk that is full for a while") else { return };
    victim.checkpoint();
    for _ in 0..2 {
        let full = victim.fill();
        // Over some of its trials, so that this is not one that it would have got over by itself.
        victim.stay_full(Duration::from_millis(1_200));
        victim.free();
        let committed = victim.checkpoint();
        assert!(committed > full.committed.number(), "{committed}");
        let status = victim.until("an end of the waiting", |status| status.waiting.is_none());
        assert_eq!((status.restarts, status.attempt), (0, full.attempt), "it was restarted");
    }
    victim.judge();
}

#[test]
fn an_attempt_waits_for_room_to_begin_and_costs_no_further_restart() {
    let Some(victim) = Victim::start("a restart on a disk that is full") else { return };
    victim.checkpoint();
    victim.fill();
    victim.panic.store(true, Ordering::Relaxed);
    let waits =
        |status: &JobStatus| status.waiting.as_ref().is_some_and(|text| text.contains("the job waits to begin"));
    let status = victim.until("a wait of the second attempt", |status| {
        victim.fill_up();
        waits(status)
    });
    println!("  waiting: {}", status.waiting.as_ref().unwrap());
    assert_eq!(status.restarts, 1);
    // The policy allows one restart: that the disk stays full must not cost another.
    victim.stay_full(Duration::from_millis(1_200));
    assert!(waits(&victim.job.status()), "{:?}", victim.job.status());
    victim.free();
    victim.checkpoint();
    assert_eq!((victim.job.status().restarts, victim.job.status().waiting), (1, None));
    victim.judge();
}

/// An epoch that sets so many keys of 1 KiB that do not compress.
fn large(attempt: Attempt, epoch: u64, counts: OperatorId, keys: u64) -> EpochBundle {
    let mut chunk = Vec::new();
    for key in 0..keys {
        let write = |out: &mut Vec<u8>| {
            (0..128u64).for_each(|word| {
                out.extend_from_slice(&stored::mix(epoch << 40 | key << 8 | word).to_be_bytes());
            });
            Ok::<_, ()>(())
        };
        entry::append(&mut chunk, 0, 0, |out| out.extend_from_slice(&key.to_be_bytes()), |_| (), Some(write)).unwrap();
    }
    let mut part = Part::new(attempt, Epoch::new(epoch), SubtaskId::default());
    part.deltas.push(Delta { operator: counts, chunks: vec![chunk], entries: keys });
    EpochBundle { attempt, epoch: Epoch::new(epoch), parts: vec![part], closing: None }
}

fn shrink(ballast: &Path, by: u64) {
    let file = fs::File::options().write(true).open(ballast).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

fn reopen(disk: &Tmpfs, log: &mut CommitLog) -> Reopened {
    log.close();
    log.reopen(RocksDb::at(disk.path()).open(PIPELINE, SHARD, false).unwrap()).unwrap()
}

#[test]
fn a_fold_without_room_leaves_the_log_as_it_was() {
    let Some(disk) = Tmpfs::mount(SIZE, "a fold on a disk that is full") else { return };
    let ballast = disk.path().join("ballast");
    let (mut log, share) = stored::open(disk.path(), StartFrom::Create).unwrap();
    let attempt = log.raise_attempt().unwrap();
    let counts = log.register(&stored::declared()).unwrap()[1];
    for epoch in 1..=3 {
        log.commit(vec![large(attempt, epoch, counts, 1_500)], &[]).unwrap();
    }
    // Room for small epochs, not for the run.
    fill(&ballast);
    shrink(&ballast, 1 << 20);
    let error = log.fold_if_full().unwrap_err();
    assert!(error.is_retryable() && matches!(error, CommitError::Store { .. }), "{error:?}");
    assert!(fs::read_dir(stored::directory(disk.path()).join("ingest")).unwrap().next().is_none(), "half a run stays");
    log.commit(vec![large(attempt, 4, counts, 10)], &[]).unwrap();

    // Room for the run, and then none for its ingestion: either outcome is right.
    fs::remove_file(&ballast).unwrap();
    let run = log.fold_job().unwrap().run().unwrap();
    fill(&ballast);
    let ingested = log.ingest(run);
    println!("  ingestion without room: {}", if ingested.is_ok() { "there was enough" } else { "failed" });
    fs::remove_file(&ballast).unwrap();
    if ingested.is_err() {
        assert_eq!(reopen(&disk, &mut log), Reopened::Old);
    }
    log.commit(vec![large(attempt, 5, counts, 10)], &[]).unwrap();
    log.fold_if_full().unwrap();
    log.commit(vec![large(attempt, 6, counts, 10)], &[]).unwrap();
    assert!(log.folded_through() >= Epoch::new(4));
    drop((log, share));

    let found = stored::read(disk.path()).unwrap();
    assert_eq!(found.epoch, Epoch::new(6));
    // A sentinel and the rows.
    assert_eq!(found.rows.len(), 1 + 1_500);
}
