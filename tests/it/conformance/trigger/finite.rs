//! Triggers that read what there is and stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::position::{Position, SplitId};
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Reader, Source};
use millstream::runtime::testing::{Outside, SimSink};

use crate::conformance::drive::secs;

fn runtime(store: &Memory) -> Runtime {
    Runtime::builder().workers(2).restart(RestartPolicy::never()).state_backend(store.clone()).build().unwrap()
}

/// 100, 200 and 300, and nothing more for now.
struct Waiting;

struct WaitingReader(u64);

impl Source for Waiting {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("numbers")])
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        Ok(Box::new(WaitingReader(from.and_then(Position::as_u64).unwrap_or(0))))
    }
}

impl Reader<u64> for WaitingReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        batch.records.extend((self.0 + 1..=3).take(limit).map(|n| Record::new(n * 100)));
        self.0 += batch.records.len() as u64;
        batch.end = Position::from_u64(self.0);
        Ok(if batch.records.is_empty() { Polled::Idle } else { Polled::More })
    }
}

/// Rows of 100, 200 and 300 s, at most one in an epoch, counted in windows of 10 s; the numbers themselves besides.
fn windows(trigger: Trigger) -> (Pipeline, Collected<i64>, Collected<u64>) {
    let ((windows, closed), (rows, seen)) = (Collect::new(), Collect::new());
    let pipeline = Pipeline::new("windows").parallelism(1).trigger(trigger);
    let strategy = WatermarkStrategy::delayed(Duration::ZERO);
    let source = pipeline.source("numbers", Waiting.with_max_records_per_epoch(1));
    let timed = source.event_time_by(|n| Timestamp::from_millis(*n as i64 * 1_000), strategy);
    timed.clone().sink("rows", rows);
    let counts = timed.key_by(|_| 0u64).window(Tumbling::of(secs(10))).aggregate("counts", Count);
    counts.map(|row| row.window.start.as_micros() / 1_000_000).sink("windows", windows);
    (pipeline, closed, seen)
}

#[test]
fn available_now_reads_in_limited_epochs_and_closes_what_it_can() {
    let (pipeline, closed, seen) = windows(Trigger::AvailableNow);
    let runtime = runtime(&Memory::new());
    let ended = runtime.start(pipeline).unwrap().join().unwrap();
    // Three epochs of a record each, one without, and the one that closes the life.
    assert!(matches!(ended, Ended::Stopped { epoch } if epoch.number() == 5), "{ended:?}");
    assert_eq!((seen.take(), closed.take()), (vec![100, 200, 300], vec![100, 200]));
}

/// Numbers; fails once it comes to `fails`.
fn numbers(trigger: Trigger, fails: Option<u64>, outside: &Outside) -> (Pipeline, Arc<AtomicU64>) {
    let worked = Arc::new(AtomicU64::new(0));
    let pipeline = Pipeline::new("numbers").parallelism(1).trigger(trigger);
    let source = pipeline.source("numbers", Generator::new(Some(1_000), |n| n).with_max_records_per_epoch(10));
    let count = Arc::clone(&worked);
    let checked = source.try_map(move |n: u64| {
        count.fetch_add(1, Ordering::Relaxed);
        if fails == Some(n) { Err("it was to fail") } else { Ok(n) }
    });
    checked.key_by(|n| n % 2).count("counts").sink("out", SimSink { outside: outside.clone(), seed: 0, faults: 0.0 });
    (pipeline, worked)
}

#[test]
fn once_after_a_crash_does_the_open_epoch_only() {
    let (store, outside) = (Memory::new(), Outside::default());
    // Epochs of ten: the fifth is planned and begun, and not committed.
    let (pipeline, _) = numbers(Trigger::AvailableNow, Some(45), &outside);
    let first = runtime(&store);
    first.start(pipeline).unwrap().join().unwrap_err();
    let (pipeline, worked) = numbers(Trigger::Once, None, &outside);
    let second = runtime(&store);
    let ended = second.start(pipeline).unwrap().join().unwrap();
    assert!(
        matches!(ended, Ended::Stopped { epoch } if epoch.number() == 6),
        "the fifth, and one that closes: {ended:?}"
    );
    assert_eq!(worked.load(Ordering::Relaxed), 10, "what is newer is not read");
    let wanted: Vec<Vec<u8>> = (0..50u64).map(|n| format!("{:?}", (n % 2, n / 2 + 1)).into_bytes()).collect();
    assert_eq!(outside.rows(), wanted);
}
