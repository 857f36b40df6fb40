//! A watched directory under a whole pipeline with a real store: failures, restarts, other subtasks, a directory that goes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::testing::{ObserveOf, Observed};

use crate::stored::chain;

/// Lets a file appear whole, with these numbers as its lines.
fn appear(dir: &Path, name: &str, numbers: impl IntoIterator<Item = u64>) {
    let hidden = dir.join(".being-written");
    let text: String = numbers.into_iter().map(|number| format!("{number}\n")).collect();
    std::fs::write(&hidden, text).unwrap();
    std::fs::rename(hidden, dir.join(name)).unwrap();
}

fn watch(dir: &Path, backend: &RocksDb) -> WatchedDirectory {
    WatchedDirectory::at(dir, "files", backend.clone()).interval(Duration::from_millis(1))
}

fn number(line: String) -> Result<u64, std::num::ParseIntError> {
    line.parse()
}

/// One life of the pipeline; an attempt fails at the number 150, once in all lives.
fn live(source: WatchedDirectory, backend: &RocksDb, failed: &Arc<AtomicBool>) -> (Runtime, JobHandle, Collected<u64>) {
    let (sink, collected) = Collect::new();
    let failed = Arc::clone(failed);
    let fail_once = move |n: u64| match n == 150 && !failed.swap(true, Ordering::Relaxed) {
        true => Err("planned"),
        false => Ok(n),
    };
    let pipeline = Pipeline::new("watching").parallelism(2).epoch_interval(Duration::from_millis(5));
    pipeline
        .source("numbers", source)
        .try_map(number)
        .try_map(fail_once)
        .key_by(|n| *n)
        .count("times")
        .map(of)
        .sink("out", sink);
    let runtime = Runtime::builder().workers(2).state_backend(backend.clone()).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    (runtime, job, collected)
}

/// A number that has come for the first time.
fn of((number, times): (u64, u64)) -> u64 {
    assert_eq!(times, 1, "{number} came again");
    number
}

#[test]
fn every_line_of_every_file_counts_once_across_failed_attempts_and_restarts() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = RocksDb::at(state.path());
    let (failed, mut seen) = (Arc::new(AtomicBool::new(false)), Vec::new());
    let source = || watch(dir.path(), &backend).clean_source(CleanSource::Delete);
    // Among those that the first life finds, and while it runs.
    appear(dir.path(), "b", 0..100);
    let (_runtime, job, collected) = live(source(), &backend, &failed);
    collected.wait_for(100).unwrap();
    appear(dir.path(), "a", 100..300);
    appear(dir.path(), "c", []);
    collected.wait_for(300).unwrap();
    job.stop_blocking(Duration::from_secs(10)).unwrap();
    seen.extend(collected.snapshot());
    assert!(failed.load(Ordering::Relaxed));
    // While nobody watches.
    appear(dir.path(), "d", 300..310);
    let (_runtime, job, collected) = live(source(), &backend, &failed);
    appear(dir.path(), "e", 310..1_000);
    collected.wait_for(700).unwrap();
    job.stop_blocking(Duration::from_secs(10)).unwrap();
    seen.extend(collected.snapshot());
    // What is committed is cleaned away by the next life at the latest; a file behind it shows that it has come so far.
    let source = source();
    let counter = source.counter();
    let (_runtime, job, collected) = live(source, &backend, &failed);
    appear(dir.path(), "f", [1_000]);
    collected.wait_for(1).unwrap();
    job.stop_blocking(Duration::from_secs(10)).unwrap();
    seen.extend(collected.snapshot());
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..=1_000));
    assert_eq!((counter.counts().not_cleaned, counter.counts().missing), (0, 0));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "f"), "{left:?}");
}

#[test]
fn one_pipeline_goes_on_with_what_another_has_committed() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = RocksDb::at(state.path());
    let (runtime, between) =
        (Runtime::builder().workers(1).state_backend(backend.clone()).build().unwrap(), dir.path());
    let first = Pipeline::new("first").epoch_interval(Duration::from_millis(1));
    let files = FileSink::at(between).roll_bytes(100).roll_interval(Duration::from_millis(1));
    first.source("numbers", Generator::new(Some(5_000), |n| n)).sink("files", files);
    let second = Pipeline::new("second").epoch_interval(Duration::from_millis(5));
    let (sink, collected) = Collect::new();
    second.source("numbers", watch(between, &backend)).try_map(number).sink("out", sink);
    let job = runtime.start(second).unwrap();
    runtime.start(first).unwrap().join().unwrap();
    collected.wait_for(5_000).unwrap();
    job.stop_blocking(Duration::from_secs(10)).unwrap();
    let mut seen = collected.snapshot();
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..5_000));
}

#[test]
fn subtasks_that_read_nothing_hold_no_watermark_back() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = RocksDb::at(state.path());
    let (sink, observed) = channel_sink::<Observed<u64>>(10);
    let pipeline = Pipeline::new("watermarks").parallelism(3).epoch_interval(Duration::from_millis(5));
    let numbers = pipeline.source("numbers", watch(dir.path(), &backend)).try_map(number);
    let timed = numbers.event_time(|n| Timestamp::from_millis(*n as i64), Duration::ZERO).rebalance();
    timed.apply::<Observed<u64>>(None, ObserveOf::<u64>::default()).sink("out", sink);
    let runtime = Runtime::builder().workers(2).state_backend(backend).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    let risen = (1_000..2_000).any(|number| {
        appear(dir.path(), &number.to_string(), [number]);
        let seen = std::iter::from_fn(|| observed.recv()).find(|observed| observed.value == number).unwrap();
        seen.watermark >= Some(Timestamp::from_millis(999))
    });
    assert!(risen, "something holds the watermark back");
    drop(observed);
    drop(job.stop_blocking(Duration::from_secs(10)));
}

#[test]
fn a_directory_that_goes_ends_the_attempt_by_name() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (watched, backend) = (dir.path().join("in"), RocksDb::at(state.path()));
    std::fs::create_dir(&watched).unwrap();
    appear(&watched, "a", [1]);
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("gone").epoch_interval(Duration::from_millis(5));
    pipeline.source("lines", watch(&watched, &backend)).sink("out", sink);
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never()).state_backend(backend).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    collected.wait_for(1).unwrap();
    std::fs::remove_dir_all(&watched).unwrap();
    let error = chain(&job.join().expect_err("there is nothing to read"));
    assert!(error.contains("cannot watch ") && error.contains("create it, or correct the path"), "{error}");
}
