//! Micro-batches in a running job: triggers, limits, processing time, watermarks, and changes of the trigger while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::id::{Epoch, ExecutionMode};
use millstream::runtime::testing::{ObserveOf, Observed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SOON: Duration = Duration::from_secs(20);

fn runtime(store: &Memory) -> Runtime {
    Runtime::builder().workers(2).state_backend(store.clone()).build().unwrap()
}

/// Counts 0, 1, 2 … by their last digit.
fn counts(count: u64, limit: u64) -> (Pipeline, Collected<(u64, u64)>) {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("counts").parallelism(1);
    let numbers = Generator::new(Some(count), |n| n).with_max_records_per_epoch(limit);
    pipeline.source("numbers", numbers).key_by(|n| n % 10).count("times").sink("out", sink);
    (pipeline, collected)
}

fn expected(count: u64) -> BTreeSet<(u64, u64)> {
    (0..count).map(|n| (n % 10, n / 10 + 1)).collect()
}

fn once_each<T: Ord + Clone + std::fmt::Debug>(rows: &[T]) -> BTreeSet<T> {
    let all: BTreeSet<T> = rows.iter().cloned().collect();
    assert_eq!(all.len(), rows.len(), "a row came twice");
    all
}

#[test]
fn available_now_reads_what_there_is_in_limited_batches_and_stops() {
    let store = Memory::new();
    let (pipeline, collected) = counts(1_000, 100);
    let ended = runtime(&store).start(pipeline.trigger(Trigger::AvailableNow)).unwrap().join().unwrap();
    // Ten batches, and the one that closes the life.
    assert_eq!(ended, Ended::Stopped { epoch: Epoch::new(11) });
    assert_eq!(once_each(&collected.snapshot()), expected(1_000));
    // The next life finds nothing new, and does nothing again.
    let (pipeline, collected) = counts(1_000, 100);
    let ended = runtime(&store).start(pipeline.trigger(Trigger::AvailableNow)).unwrap().join().unwrap();
    assert!(matches!(ended, Ended::Stopped { .. }), "{ended:?}");
    assert_eq!(collected.snapshot(), []);
}

#[test]
fn once_takes_everything_in_one_batch_whatever_the_limit() {
    let (pipeline, collected) = counts(1_000, 10);
    let ended = runtime(&Memory::new()).start(pipeline.trigger(Trigger::Once)).unwrap().join().unwrap();
    assert_eq!(ended, Ended::Stopped { epoch: Epoch::new(2) });
    assert_eq!(once_each(&collected.snapshot()), expected(1_000));
}

#[test]
fn a_job_in_micro_batches_ends_with_its_input() {
    for parallelism in [1, 3] {
        let (pipeline, collected) = counts(500, 7);
        let pipeline = pipeline.parallelism(parallelism).trigger(Trigger::ProcessingTime(Duration::ZERO));
        let ended = runtime(&Memory::new()).start(pipeline).unwrap().join().unwrap();
        assert!(matches!(ended, Ended::Finished { epoch } if epoch.number() >= 500 / 9), "{ended:?}");
        assert_eq!(once_each(&collected.snapshot()), expected(500));
    }
}

#[test]
fn in_update_mode_a_batch_gives_the_last_row_of_each_key() {
    let rows = |trigger: Option<Trigger>| {
        let (sink, collected) = Collect::new();
        let pipeline = Pipeline::new("totals").parallelism(2).output_mode(OutputMode::Update);
        let pipeline = if let Some(trigger) = trigger { pipeline.trigger(trigger) } else { pipeline };
        let numbers = Generator::new(Some(1_000), |n| n).with_max_records_per_epoch(256);
        pipeline.source("numbers", numbers).key_by(|n| n % 10).aggregate("count", Count).sink("out", sink);
        runtime(&Memory::new()).start(pipeline).unwrap().join().unwrap();
        collected.snapshot()
    };
    let all = rows(None);
    assert_eq!(once_each(&all), expected(1_000));
    // Batches of 256, 256, 256 and 232 records; each has all ten keys.
    let counts = |upto: u64| (0..10).map(move |key| (key, (upto - key).div_ceil(10)));
    let wanted: BTreeSet<_> = [256, 512, 768, 1_000].into_iter().flat_map(counts).collect();
    assert_eq!(once_each(&rows(Some(Trigger::AvailableNow))), wanted);
}

#[test]
fn group_state_gets_all_rows_of_a_key_at_once() {
    let calls = |trigger: Option<Trigger>| {
        let (sink, collected) = Collect::new();
        let pipeline = Pipeline::new("groups").parallelism(2).output_mode(OutputMode::Update);
        let pipeline = if let Some(trigger) = trigger { pipeline.trigger(trigger) } else { pipeline };
        let numbers = Generator::new(Some(1_000), |n| n).with_max_records_per_epoch(256);
        let groups = pipeline.source("numbers", numbers).key_by(|n| n % 10);
        let calls = groups.map_groups_with_state(
            "calls",
            GroupTimeout::None,
            |key: &u64, rows: &mut Rows<'_, u64>, state: &mut GroupState<u64>| {
                let rows: Vec<u64> = rows.collect();
                let before = state.get_option().map_or(0, |count| *count);
                state.update(before + rows.len() as u64)?;
                Ok((*key, rows))
            },
        );
        calls.sink("out", sink);
        runtime(&Memory::new()).start(pipeline).unwrap().join().unwrap();
        collected.snapshot()
    };
    let alone = calls(None);
    assert_eq!(alone.len(), 1_000);
    assert!(alone.iter().all(|(_, rows)| rows.len() == 1));
    let of = |from: u64, to: u64, key: u64| (key, (from..to).filter(|n| n % 10 == key).collect::<Vec<_>>());
    let cuts = [0, 256, 512, 768, 1_000];
    let wanted: BTreeSet<_> = cuts.windows(2).flat_map(|cut| (0..10).map(move |key| of(cut[0], cut[1], key))).collect();
    assert_eq!(once_each(&calls(Some(Trigger::AvailableNow))), wanted);
}

#[test]
fn the_watermark_of_a_batch_is_that_of_the_batches_before() {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("watermarks").parallelism(1).trigger(Trigger::AvailableNow);
    let numbers = Generator::new(Some(50), |n| n).with_max_records_per_epoch(10);
    let timed = pipeline.source("numbers", numbers).event_time(|n| Timestamp::from_millis(*n as i64), Duration::ZERO);
    timed.apply::<Observed<u64>>(None, ObserveOf::<u64>::default()).sink("out", sink);
    runtime(&Memory::new()).start(pipeline).unwrap().join().unwrap();
    let seen = collected.snapshot();
    assert_eq!(seen.len(), 50);
    for observed in seen {
        // The batch before has raised it, and its own barrier has brought it: so it lags one more batch behind.
        let batch = observed.value / 10;
        let wanted = batch.checked_sub(1).and_then(|before| before.checked_sub(1)).map(|last| last * 10 + 8);
        assert_eq!(observed.watermark.map(|at| at.as_micros() / 1_000), wanted.map(|n| n as i64), "{observed:?}");
    }
}

/// Says when each record was worked on.
#[derive(Clone)]
struct Stamp;

impl KeyedProcess for Stamp {
    type Key = u64;
    type In = u64;
    type Out = (u64, Timestamp);
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(&mut self, n: u64, _state: &mut (), ctx: &mut ProcessContext<'_, Self::Out>) -> Result<(), BoxError> {
        ctx.emit((n, ctx.processing_time()));
        Ok(())
    }
}

#[test]
fn processing_time_stands_still_for_a_batch() {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("stamps").parallelism(2).trigger(Trigger::AvailableNow);
    let numbers = Generator::new(Some(20_000), |n| n).with_max_records_per_epoch(4_000);
    pipeline.source("numbers", numbers).key_by(|n| n % 7).process("stamp", Stamp).sink("out", sink);
    runtime(&Memory::new()).start(pipeline).unwrap().join().unwrap();
    let mut batches: BTreeMap<Timestamp, u64> = BTreeMap::new();
    collected.snapshot().iter().for_each(|(_, at)| *batches.entry(*at).or_default() += 1);
    // A reader gives 256 at once, and what would exceed the limit waits for the next batch.
    assert_eq!(batches.into_values().collect::<Vec<_>>(), [3_840, 3_840, 3_840, 3_840, 3_840, 800]);
}

#[test]
fn a_hundred_changes_of_the_trigger_change_nothing_in_the_result() {
    let (pipeline, collected) = counts(200_000, 1_000);
    let numbers = 200_000;
    let job = runtime(&Memory::new());
    let job = job.start(pipeline.parallelism(2).epoch_interval(Duration::from_millis(1))).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let (mut changes, mut modes) = (0, BTreeSet::new());
    // Each as soon as so many further rows are out: no two runs change at the same place, and all run under load.
    for step in 1..=100u64 {
        if collected.wait_for(usize::try_from(step * 1_500).unwrap()).is_err() {
            break;
        }
        let trigger = match rng.random_range(0..3) {
            0 => Trigger::ProcessingTime(Duration::ZERO),
            1 => Trigger::ProcessingTime(Duration::from_millis(rng.random_range(1..4))),
            _ => Trigger::Continuous(Duration::from_millis(rng.random_range(1..4))),
        };
        modes.insert(job.status().mode == ExecutionMode::MicroBatch);
        job.set_trigger(trigger).unwrap();
        changes += 1;
    }
    assert_eq!((changes, modes.len()), (100, 2));
    assert!(matches!(job.join().unwrap(), Ended::Finished { .. }));
    assert_eq!(once_each(&collected.snapshot()), expected(numbers));
    assert_eq!(job.status().restarts, 0);
}

#[test]
fn a_stop_a_drain_and_a_checkpoint_do_not_wait_for_the_trigger() {
    let hour = Trigger::ProcessingTime(Duration::from_secs(3_600));
    let (feed, source) = feed::<u64>(1_000);
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("slow").parallelism(1).trigger(hour);
    pipeline.source("numbers", source).sink("out", sink);
    let job = runtime(&Memory::new());
    let job = job.start(pipeline).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (0..5).for_each(|n| feed.send(n).unwrap());
    runtime.block_on(async {
        // What the first trigger did not find, a checkpoint takes.
        while collected.snapshot().len() < 5 {
            job.checkpoint_now().await.unwrap();
        }
        assert!(matches!(job.drain(SOON).await.unwrap(), Ended::Drained { .. }));
    });
    assert_eq!(collected.snapshot(), [0, 1, 2, 3, 4]);
}

#[test]
fn what_is_no_trigger_is_refused() {
    let refused = |trigger| {
        let (pipeline, _collected) = counts(1, 0);
        pipeline.trigger(trigger).validate().unwrap_err().to_string()
    };
    let short = refused(Trigger::RealTime(Duration::from_secs(4)));
    assert!(short.contains("E-TRG-03: \"counts\" at "), "{short}");
    assert!(short.contains("a real-time trigger every 4s; give at least 5s, or use Trigger::Continuous"), "{short}");
    assert!(short.contains("E-TRG-04: "), "{short}");
    assert!(short.contains("max_records_per_epoch is 0 for the source \"numbers\" at "), "{short}");
    let short = refused(Trigger::Continuous(Duration::ZERO));
    assert!(short.contains("the interval of Trigger::Continuous is 0ns; it must be at least 1 ms"), "{short}");
}
