//! A log that is followed by a whole pipeline, through rotations, failing attempts and ends of the process.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use millstream::connectors::file::{TailCounts, TailStart};
use millstream::prelude::*;
use millstream::runtime::source::{Position, Reader, Source, SplitId};

const PATIENCE: Duration = Duration::from_secs(10);

fn write(log: &Path, lines: impl IntoIterator<Item = u64>) {
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    lines.into_iter().for_each(|line| writeln!(log, "{line}").unwrap());
}

fn rotate(log: &Path) {
    let name = |number: u32| log.with_file_name(format!("app.log.{number}"));
    for number in (1..20).rev().filter(|number| name(*number).exists()) {
        fs::rename(name(number), name(number + 1)).unwrap();
    }
    fs::rename(log, name(1)).unwrap();
}

fn follow<S: Source<Out = String>>(
    source: S,
    backend: RocksDb,
    fail_at: Option<u64>,
) -> (Runtime, JobHandle, Collected<u64>) {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("follow").parallelism(3).epoch_interval(Duration::from_millis(5));
    let fail_at = Arc::new(AtomicU64::new(fail_at.unwrap_or(u64::MAX)));
    let parse = move |line: String| {
        let number: u64 = line.parse()?;
        if fail_at.compare_exchange(number, u64::MAX, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return Err("planned".into());
        }
        Ok::<_, BoxError>(number)
    };
    pipeline.source("log", source).try_map(parse).sink("out", sink);
    let runtime = Runtime::builder().workers(2).state_backend(backend).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    (runtime, job, collected)
}

#[test]
fn each_line_counts_once_through_rotations_failures_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let backend = RocksDb::at(dir.path().join("state"));
    // What was rotated before a pipeline begins is none of its lines.
    write(&log, [0]);
    let (_runtime, job, collected) = follow(TailLines::at(&log), backend.clone(), None);
    collected.wait_for(1).unwrap();
    job.stop_blocking(PATIENCE).unwrap();
    let mut seen = collected.take();
    for life in 0..5 {
        let first = 1 + life * 1_000;
        // Written and rotated while nobody reads, and while it is read.
        write(&log, first..first + 300);
        rotate(&log);
        write(&log, first + 300..first + 400);
        rotate(&log);
        write(&log, first + 400..first + 500);
        // One that fails in the middle begins again behind its last epoch, in whatever file that is by now.
        let (_runtime, job, collected) = follow(TailLines::at(&log), backend.clone(), Some(first + 350));
        collected.wait_for(450).unwrap();
        rotate(&log);
        write(&log, first + 500..first + 900);
        rotate(&log);
        write(&log, first + 900..first + 1_000);
        collected.wait_for(if life == 2 { 500 } else { 1_000 }).unwrap();
        job.stop_blocking(PATIENCE).unwrap();
        drop(job);
        seen.extend(collected.take());
        // In the third life it ended before all was read; the fourth one has that to do as well.
    }
    let (_runtime, job, collected) = follow(TailLines::at(&log), backend, None);
    write(&log, [5_001]);
    collected.wait_for(5_002 - seen.len()).unwrap();
    job.stop_blocking(PATIENCE).unwrap();
    seen.extend(collected.take());
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 5_002);
    assert!(seen.into_iter().eq(0..=5_001), "in order, since it is one split and nothing is exchanged");
}

/// Says when a place is durable.
struct Committed(TailLines, SyncSender<()>);

impl Source for Committed {
    type Out = String;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.0.splits()
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        self.0.reader(split, from)
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        if at.iter().any(|(_, position)| *position != Position::default()) {
            let _ = self.1.try_send(());
        }
    }
}

#[test]
fn where_a_pipeline_began_is_saved_before_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("app.log");
    let backend = RocksDb::at(dir.path().join("state"));
    write(&log, 0..10);
    let source = || TailLines::at(&log).start(TailStart::End);
    let (sender, committed) = sync_channel(1);
    let (_runtime, job, collected) = follow(Committed(source(), sender), backend.clone(), None);
    committed.recv().unwrap();
    job.stop_blocking(PATIENCE).unwrap();
    assert_eq!(collected.delivered(), 0);
    write(&log, 10..20);
    let (_runtime, job, collected) = follow(source(), backend, None);
    collected.wait_for(10).unwrap();
    job.stop_blocking(PATIENCE).unwrap();
    assert!(collected.take().into_iter().eq(10..20));
}

#[test]
fn what_became_of_a_log_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let log: PathBuf = dir.path().join("app.log");
    write(&log, 0..10);
    let source = TailLines::at(&log);
    let counter = source.counter();
    let (_runtime, job, collected) = follow(source, RocksDb::at(dir.path().join("state")), None);
    collected.wait_for(10).unwrap();
    rotate(&log);
    write(&log, 10..20);
    collected.wait_for(20).unwrap();
    OpenOptions::new().write(true).truncate(true).open(&log).unwrap();
    write(&log, [20]);
    collected.wait_for(21).unwrap();
    job.stop_blocking(PATIENCE).unwrap();
    let TailCounts { lines, rotations, truncations, lost_files, .. } = counter.counts();
    assert_eq!((lines, rotations, truncations, lost_files), (21, 1, 1, 0));
}
