//! State that is larger than its memory: all that is held stays within `state_memory`, and nothing ever waits for itself.
//!
//! Epochs close once an hour here, so whatever these jobs come to is due to epochs that memory has closed.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use millstream::connectors::channel::{FeedSource, feed};
use millstream::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::job::Held;
use millstream::runtime::time::Timestamp;

/// Longest that a record may take.
const PATIENCE: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug)]
struct Load {
    state_memory: u64,
    records: u64,
    keys: u64,
    /// Of each key's payload.
    bytes: usize,
}

fn runtime(state_memory: u64) -> Runtime {
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never());
    runtime.state_memory(state_memory).build().unwrap()
}

/// Counts the records of each key beside a payload; the counts come out as they are made.
fn start(runtime: &Runtime, load: Load, silent: Option<FeedSource<u64>>) -> (JobHandle, Receiver<u64>) {
    let Load { records, keys, bytes, .. } = load;
    let pipeline = Pipeline::new("larger").epoch_interval(HOUR);
    let numbers = pipeline.source("numbers", Generator::new(Some(records), |n| n)).erase();
    let numbers = match silent {
        Some(silent) => numbers.union(pipeline.source("silent", silent)),
        None => numbers,
    };
    // Room for all of them: whoever writes must not block.
    let (tell, counts) = sync_channel(usize::try_from(records).unwrap());
    numbers
        .key_by(move |n| n % keys)
        .fold(
            "held",
            || (0, String::new()),
            move |(count, payload), _| {
                *count += 1;
                *payload = "x".repeat(bytes);
            },
        )
        .map(|(_, (count, _)): (u64, (u64, String))| count)
        .sink("counts", try_for_each(move |count| Ok(tell.try_send(count)?)));
    (runtime.start(pipeline).unwrap(), counts)
}

/// Waits for the count of each record; looks at the job before each.
fn counts(load: Load, (job, counts): &(JobHandle, Receiver<u64>), mut look: impl FnMut(&JobHandle)) -> Vec<u64> {
    let mut seen = Vec::new();
    while (seen.len() as u64) < load.records {
        look(job);
        let count = counts.recv_timeout(PATIENCE);
        seen.push(
            count.unwrap_or_else(|_| panic!("{} of {load:?}: {:?}, {:?}", seen.len(), job.status(), job.state())),
        );
    }
    seen
}

fn expected(load: Load) -> Vec<u64> {
    let mut counts: Vec<u64> = (0..load.records).map(|n| n / load.keys + 1).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn nothing_waits_for_itself_however_small_the_memory() {
    let loads = [
        // Less than a single key takes, and at times less than one byte for each that shares it.
        Load { state_memory: 1, records: 6_000, keys: 50, bytes: 20 },
        Load { state_memory: 4 << 10, records: 6_000, keys: 1_000, bytes: 50 },
        // One key that is larger than all there is, over and over.
        Load { state_memory: 16 << 10, records: 3_000, keys: 1, bytes: 100_000 },
        Load { state_memory: 1 << 20, records: 6_000, keys: 3_000, bytes: 2_000 },
    ];
    for load in loads {
        for silent in [false, true] {
            let runtime = runtime(load.state_memory);
            let (_feed, source) = feed::<u64>(1);
            let running = start(&runtime, load, silent.then_some(source));
            let mut held = false;
            let mut seen = counts(load, &running, |job| held |= job.status().held == Some(Held::Memory));
            seen.sort_unstable();
            assert!(seen == expected(load), "{load:?}");
            let (job, _) = running;
            let (status, state) = (job.status(), job.state());
            assert!(held, "{load:?}: the sources were held back");
            assert!(status.committed.number() > 1 && state.evicted_keys > 0, "{load:?}: {status:?}, {state:?}");
            job.stop_blocking(PATIENCE).unwrap();
        }
    }
}

/// Grows by a kilobyte whenever its timer fires, and no record comes.
#[derive(Clone)]
struct Grow;

impl KeyedProcess for Grow {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = List<String>;

    fn open(&self, context: &mut OpenContext<'_>) -> Result<List<String>, BoxError> {
        Ok(context.list("grown")?)
    }

    fn on_record(
        &mut self,
        _: u64,
        _: &mut List<String>,
        context: &mut ProcessContext<'_, u64>,
    ) -> Result<(), BoxError> {
        context.timers().register(TimerKind::ProcessingTime, context.processing_time());
        Ok(())
    }

    fn on_timer(
        &mut self,
        _: Timestamp,
        grown: &mut List<String>,
        context: &mut ProcessContext<'_, u64>,
    ) -> Result<(), BoxError> {
        grown.push("x".repeat(1 << 10));
        let next = context.processing_time().saturating_add(Duration::from_micros(1));
        context.timers().register(TimerKind::ProcessingTime, next);
        context.emit(grown.len() as u64);
        Ok(())
    }
}

#[test]
fn an_epoch_that_only_timers_fill_is_closed_too() {
    const FIRED: u64 = 1_000;
    let runtime = runtime(4 << 20);
    let pipeline = Pipeline::new("timers").epoch_interval(HOUR);
    let (feed, source) = feed::<u64>(1);
    let (tell, fired) = sync_channel(1);
    let grown = pipeline.source("feed", source).key_by(|n| *n).process("grow", Grow);
    grown.sink(
        "fired",
        for_each(move |count| {
            if count == FIRED {
                let _ = tell.try_send(());
            }
        }),
    );
    let job = runtime.start(pipeline).unwrap();
    feed.send(1).unwrap();
    fired.recv_timeout(PATIENCE).unwrap();
    // A megabyte, of which an epoch may change a sixteenth of half of the memory.
    let committed = job.status().committed.number();
    assert!((4..FIRED / 10).contains(&committed), "{committed}");
    job.stop_blocking(PATIENCE).unwrap();
}

#[test]
#[cfg(feature = "rocksdb")]
fn all_that_is_held_for_state_stays_within_the_memory() {
    let load = Load { state_memory: 64 << 20, records: 100_000, keys: 50_000, bytes: 2_000 };
    let directory = tempfile::tempdir().unwrap();
    let runtime = Runtime::builder().workers(1).restart(RestartPolicy::never());
    let runtime = runtime.state_memory(load.state_memory).state_backend(RocksDb::at(directory.path())).build().unwrap();
    let running = start(&runtime, load, None);
    let (mut most, mut parts) = (0, Vec::new());
    let mut seen = counts(load, &running, |job| {
        let (state, status) = (job.state(), job.status());
        let held = [state.memory_bytes, state.store_bytes, state.fold_bytes, status.waiting_bytes as u64];
        if held.iter().sum::<u64>() > most {
            (most, parts) = (held.iter().sum(), held.to_vec());
        }
    });
    println!("of {}: {most} bytes in tables, store, folds and waiting epochs: {parts:?}", load.state_memory);
    seen.sort_unstable();
    assert!(seen == expected(load));
    // A channel has room for 33 MB of state on its way, if nobody saw to it that there is less.
    assert!(most <= load.state_memory, "{most} of {}: {parts:?}", load.state_memory);
    assert!(most > load.state_memory / 2, "it was needed");
    let state = running.0.state();
    assert!(state.evicted_keys > load.keys / 2 && state.read_keys > 0, "{state:?}");
    running.0.stop_blocking(PATIENCE).unwrap();
}
