//! S-FT: restarts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use millstream::operators::OutputMode;
use millstream::prelude::*;
use millstream::runtime::fault::CrashPoint;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::testing::{Outside, SimSink};

use super::drive::{Event, MODES, Script, on};
use super::lives::{BATCHES, Place};
use super::pieces::{pair, totals};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "FT", title: "Restarts", module: "restart", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-FT-01", "All parts of a checkpoint can be read back; the id stays, the id of the run changes").open("nothing reads all parts back yet"),
    row("S-FT-02", "A micro-batch whose plan was written has the same rows, watermark and time when it is done again").passes("a_batch_that_was_planned_is_done_again_as_it_was").only_m(),
    row(
        "S-FT-03",
        "A crash before the commit: nothing is visible; behind it, before or after the delivery: the output is there once",
    ).passes("a_crash_shows_nothing_early_and_nothing_twice"),
    row("S-FT-04", "What was read beyond the last commit is read again").passes("what_was_read_behind_the_last_commit_is_read_again").only_c(),
    row("S-FT-05", "A count of 5 before a crash is 6 with the next row").passes("a_count_goes_on_behind_a_crash"),
    row("S-FT-06", "Another filter, another function body, another limit of the source: it goes on").passes("a_pipeline_may_change_in_what_keeps_no_state"),
    row(
        "S-FT-07",
        "Another grouping key is E-FT-06, dedup instead of count E-FT-07, a second source E-FT-05; a new operator starts empty",
    ).open("not tested row by row yet"),
    row(
        "S-FT-08",
        "A second start on a checkpoint: within the process the old run ends and the new one runs, from another process E-FT-04",
    ).open("a second start is refused, since the store is locked; the old run is not stopped for it"),
    row("S-FT-09", "Another parallelism leaves the key groups of the state as they are: counts go on").passes("a_count_goes_on_with_another_parallelism"),
    row(
        "S-FT-10",
        "After more than 100 epochs only those that are kept remain and it starts again; without metadata E-FT-01",
    ).open("no epochs are kept yet"),
];

/// A number, the processing time that it met, and the watermark.
type Met = (u64, Timestamp, Option<Timestamp>);

/// Notes what every number meets, in whatever attempt, and fails at one of them.
#[derive(Clone)]
struct Note {
    met: Arc<Mutex<Vec<Met>>>,
    fails: Option<u64>,
}

impl KeyedProcess for Note {
    type Key = u64;
    type In = u64;
    type Out = Met;
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(&mut self, n: u64, _: &mut (), ctx: &mut ProcessContext<'_, Met>) -> Result<(), BoxError> {
        let met = (n, ctx.processing_time(), ctx.watermark());
        self.met.lock().unwrap().push(met);
        if self.fails == Some(n) {
            return Err("it was to fail".into());
        }
        ctx.emit(met);
        Ok(())
    }
}

#[test]
fn a_batch_that_was_planned_is_done_again_as_it_was() {
    let store = Memory::new();
    let met = Arc::new(Mutex::new(Vec::new()));
    let life = |fails: Option<u64>| {
        let (sink, collected) = Collect::new();
        let pipeline = Pipeline::new("planned").parallelism(1).trigger(Trigger::AvailableNow);
        let numbers = pipeline.source("numbers", Generator::new(Some(100), |n| n).with_max_records_per_epoch(10));
        let timed = numbers.event_time(|n| Timestamp::from_millis(*n as i64), std::time::Duration::ZERO);
        timed.key_by(|n| n % 3).accept_late().process("note", Note { met: Arc::clone(&met), fails }).sink("out", sink);
        let runtime = Runtime::builder().workers(2).restart(RestartPolicy::never()).state_backend(store.clone());
        let runtime = runtime.build().unwrap();
        let ended = runtime.start(pipeline).unwrap().join();
        (ended.is_ok(), collected.take())
    };
    assert!(!life(Some(45)).0);
    let first: Vec<Met> = std::mem::take(&mut *met.lock().unwrap()).split_off(40);
    assert_eq!(first.iter().map(|met| met.0).collect::<Vec<_>>(), (40..=45).collect::<Vec<_>>());
    // The next start finds the plan. The source has more by then, all of it.
    let (ended, rows) = life(None);
    assert!(ended);
    let (time, watermark) = (first[0].1, first[0].2);
    assert!(watermark.is_some());
    let again: Vec<Met> = rows.iter().copied().filter(|met| met.1 == time).collect();
    assert_eq!(again, (40..50).map(|n| (n, time, watermark)).collect::<Vec<Met>>());
    assert_eq!(again[..6], first);
    // What was committed and had not been delivered comes as well.
    assert_eq!(rows.iter().filter(|met| met.0 >= 40).count(), 60);
}

/// Three drains of a row each.
fn script() -> Script {
    Script::new([vec![on("a", 1)], vec![on("a", 1)], vec![on("a", 1)]]).mode(OutputMode::Update)
}

fn counts(rows: &[u64]) -> Vec<Vec<String>> {
    rows.iter().map(|count| vec![format!("{:?}", pair("a", *count))]).collect()
}

#[test]
fn a_crash_shows_nothing_early_and_nothing_twice() {
    for mode in MODES {
        for point in [CrashPoint::EpochComplete, CrashPoint::CommitBeforeWrite] {
            let ran = script().crashing_at(mode, point, totals);
            assert_eq!(ran.drains, counts(&[1, 2, 3]), "{mode:?} at {point}");
            // All four crashes meet the first epoch, which is not committed before them.
            assert_eq!(ran.report.crashes, 4, "{mode:?} at {point}");
            assert_eq!(
                ran.lives,
                [(0, 0); 5],
                "{mode:?} at {point}: lives, and what had been delivered when they began"
            );
        }
        let behind =
            [CrashPoint::CommitSynced, CrashPoint::PublishBefore, CrashPoint::DeliverBefore, CrashPoint::DeliverAfter];
        for point in behind {
            let ran = script().crashing_at(mode, point, totals);
            assert_eq!(ran.drains, counts(&[1, 2, 3]), "{mode:?} at {point}");
            assert!(ran.report.crashes >= 3, "{mode:?} at {point}: {} crashes", ran.report.crashes);
        }
    }
}

#[test]
fn what_was_read_behind_the_last_commit_is_read_again() {
    let worked = Arc::new(AtomicU64::new(0));
    let counted = |events: Stream<Event>| {
        let worked = Arc::clone(&worked);
        totals(
            events
                .inspect(move |_| {
                    worked.fetch_add(1, Ordering::Relaxed);
                })
                .erase(),
        )
    };
    let ran = script().crashing_at(ExecutionMode::Continuous, CrashPoint::EpochComplete, counted);
    assert_eq!(ran.drains, counts(&[1, 2, 3]));
    // The first row was worked on in five lives, and counts once.
    assert_eq!((ran.report.crashes, worked.load(Ordering::Relaxed)), (4, 5 + 2));
}

#[test]
fn a_count_goes_on_behind_a_crash() {
    let five = || (0..5).map(|_| on("a", 1)).collect::<Vec<_>>();
    let script = Script::new([five(), vec![on("a", 1)]]).mode(OutputMode::Update).on_disk();
    let sixth = vec![pair("a", 6)];
    let each = (1..=5).map(|count| pair("a", count)).collect();
    script.gives_apart(totals, [each, sixth.clone()], [vec![pair("a", 5)], sixth]);
}

#[test]
fn a_count_goes_on_with_another_parallelism() {
    // Every run with stops and crashes goes from one subtask to three and back; these keys are in many key groups.
    let keys: Vec<String> = (0..40).map(|key| format!("key {key}")).collect();
    let each = || keys.iter().map(|key| on(key, 1)).collect::<Vec<_>>();
    let counted = |count: u64| keys.iter().map(|key| pair(key, count)).collect::<Vec<_>>();
    let script = Script::new([each(), each(), each()]).mode(OutputMode::Update);
    script.gives(totals, [counted(1), counted(2), counted(3)]);
}

#[test]
fn a_pipeline_may_change_in_what_keeps_no_state() {
    for trigger in [None, BATCHES] {
        let place = Place::default();
        let life = |numbers: &[u64], least: u64, factor: u64| {
            let life = place.live(trigger, numbers, |numbers| {
                let chosen = numbers.filter(move |n| *n >= least).map(move |n| n * factor);
                chosen.key_by(|_| 0u64).sum("total", |n| *n).map(|(_, total)| total).erase()
            });
            life.unwrap().rows
        };
        assert_eq!(life(&[1, 2], 0, 1), [1, 3], "{trigger:?}");
        assert_eq!(life(&[1, 5], 2, 1), [8], "{trigger:?}");
        assert_eq!(life(&[7], 2, 100), [708], "{trigger:?}");
    }
    // Another limit of the source, in the middle of its input.
    let (store, outside) = (Memory::new(), Outside::default());
    let life = |limit: u64, fails: Option<u64>| {
        let pipeline = Pipeline::new("limits").parallelism(1).trigger(Trigger::AvailableNow);
        let numbers = pipeline.source("numbers", Generator::new(Some(100), |n| n).with_max_records_per_epoch(limit));
        let checked = numbers.try_map(move |n: u64| if fails == Some(n) { Err("it was to fail") } else { Ok(n) });
        let counts = checked.key_by(|_| 0u64).count("count").map(|(_, count)| count);
        counts.sink("out", SimSink { outside: outside.clone(), seed: 0, faults: 0.0 });
        let runtime = Runtime::builder().workers(2).restart(RestartPolicy::never()).state_backend(store.clone());
        let runtime = runtime.build().unwrap();
        runtime.start(pipeline).unwrap().join().is_ok()
    };
    assert!(!life(10, Some(55)));
    assert!(life(7, None));
    let counts = outside.rows().into_iter().map(|row| String::from_utf8(row).unwrap().parse::<u64>().unwrap());
    assert!(counts.eq(1..=100));
}
