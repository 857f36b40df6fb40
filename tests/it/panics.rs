//! A panic in every callback: each ends its attempt, is named, and nothing is lost or doubled.
//!
//! Places are hit by number, so that the first record, one in the middle and the first one behind a restart are met.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream::prelude::*;
use millstream::runtime::record::Record;
use millstream::runtime::sink::{IntoSink, Sink, SinkContext, SinkSpec};
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream::runtime::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NUMBERS: u64 = 2_000;

/// Where it panics, and at which hit of that place; a place's hits are counted from its trap on.
type Trap = Vec<(&'static str, u64)>;

static TRAP: Mutex<Trap> = Mutex::new(Vec::new());
/// The trap is one for all of them.
static ALONE: Mutex<()> = Mutex::new(());

fn trap() -> MutexGuard<'static, Trap> {
    TRAP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place where user code runs.
fn pass(place: &str) {
    let mut trap = trap();
    for (_, left) in trap.iter_mut().filter(|(trapped, _)| *trapped == place) {
        *left -= 1;
    }
    if trap.iter().any(|(_, left)| *left == 0) {
        trap.retain(|(_, left)| *left > 0);
        drop(trap);
        // As a panic, without the message on the terminal.
        std::panic::resume_unwind(Box::new(format!("planned in {place}")));
    }
}

/// The numbers in one split, in batches of 50.
#[derive(Clone)]
struct Numbers;

struct NumbersReader {
    at: u64,
}

impl Source for Numbers {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        pass("splits");
        Ok(vec![SplitId::new("all")])
    }

    fn reader(&self, _: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        pass("reader");
        Ok(Box::new(NumbersReader { at: from.and_then(Position::as_u64).unwrap_or(0) }))
    }

    fn committed(&self, _: &[(SplitId, Position)]) {
        pass("committed");
    }
}

impl Reader<u64> for NumbersReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        pass("poll");
        let end = NUMBERS.min(self.at + (limit as u64).min(50));
        batch.records.extend((self.at..end).map(Record::new));
        self.at = end;
        batch.end = Position::from_u64(end);
        Ok(if end < NUMBERS { Polled::More } else { Polled::End })
    }
}

impl Drop for NumbersReader {
    fn drop(&mut self) {
        pass("drop of a reader");
    }
}

/// A number that is kept in state.
#[derive(Debug)]
struct Kept(u64);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        pass("encode");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        pass("decode");
        u64::deserialize(deserializer).map(Self)
    }
}

/// Counts per key, and tells the number at a timer.
struct Counting;

impl Clone for Counting {
    fn clone(&self) -> Self {
        pass("clone of an operator");
        Self
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        pass("drop of an operator");
    }
}

impl KeyedProcess for Counting {
    type Key = u64;
    type In = u64;
    type Out = (u64, u64);
    type State = Value<Kept>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<Kept>, BoxError> {
        pass("open of an operator");
        Ok(ctx.value("count")?)
    }

    fn on_record(
        &mut self,
        number: u64,
        count: &mut Value<Kept>,
        ctx: &mut ProcessContext<'_, (u64, u64)>,
    ) -> Result<(), BoxError> {
        count.update(|| Kept(0), |count| count.0 += 1);
        pass("on_record");
        ctx.timers().register(TimerKind::EventTime, Timestamp::from_millis(number as i64));
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        count: &mut Value<Kept>,
        ctx: &mut ProcessContext<'_, (u64, u64)>,
    ) -> Result<(), BoxError> {
        pass("on_timer");
        ctx.emit((time.as_micros() as u64 / 1_000, count.get().map_or(0, |count| count.0)));
        Ok(())
    }
}

/// A level-1 sink beside the other.
#[derive(Clone)]
struct Look;

impl Sink<(u64, u64)> for Look {
    fn open(&mut self, _: &SinkContext) -> Result<(), BoxError> {
        pass("open of a sink");
        Ok(())
    }

    fn write(&mut self, _: (u64, u64)) -> Result<(), BoxError> {
        pass("write");
        Ok(())
    }

    fn flush(&mut self, _: millstream::runtime::id::Epoch) -> Result<(), BoxError> {
        pass("flush");
        Ok(())
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        pass("drop of a sink");
    }
}

impl IntoSink<(u64, u64)> for Look {
    fn into_sink(self) -> SinkSpec<(u64, u64)> {
        SinkSpec::Direct(Arc::new(|| {
            pass("factory of a sink");
            Ok(Box::new(Look))
        }))
    }
}

fn describe() -> (Pipeline, Collected<(u64, u64)>) {
    let (sink, collected) = Collect::new();
    let pipeline = Pipeline::new("panics").epoch_interval(Duration::from_millis(2));
    let counted = pipeline
        .source("numbers", Numbers)
        .map(|number| {
            pass("map");
            number
        })
        .filter(|_| {
            pass("filter");
            true
        })
        .flat_map(|number| {
            (0..2).map(move |half| {
                pass("flat_map");
                number * 2 + half
            })
        })
        .filter(|half| half % 2 == 0)
        .try_map(|half| {
            pass("try_map");
            Ok::<_, BoxError>(half / 2)
        })
        .event_time(
            |number| {
                pass("event_time");
                Timestamp::from_millis(*number as i64)
            },
            Duration::ZERO,
        )
        .key_by(|number| {
            pass("key_by");
            number % 7
        })
        .accept_late()
        .process("count", Counting);
    counted.clone().sink("look", Look);
    counted
        .key_by(|(number, _)| number % 3)
        .fold(
            "last",
            || {
                pass("init of a fold");
                (0, 0)
            },
            |last, record| {
                pass("update of a fold");
                *last = record;
            },
        )
        .map(|(_, record)| record)
        .sink("out", sink);
    (pipeline, collected)
}

fn threads() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.starts_with("millstream-")).count()
}

/// What the operator of a place is called in the error; nothing where the subtask alone is named.
const PLACES: [(&str, u64, &str); 20] = [
    ("splits", 1, ""),
    ("reader", 1, ""),
    ("poll", 10, ""),
    ("map", 700, "operator map"),
    ("filter", 700, "operator map"),
    ("flat_map", 701, "operator map"),
    ("try_map", 700, "operator map"),
    ("event_time", 700, ""),
    ("key_by", 700, ""),
    ("clone of an operator", 1, "operator count"),
    ("open of an operator", 1, "operator count"),
    ("on_record", 700, "operator count"),
    ("on_timer", 700, "operator count"),
    ("encode", 5, "operator count"),
    ("init of a fold", 1, "operator last"),
    ("update of a fold", 700, "operator last"),
    ("factory of a sink", 1, "operator look"),
    ("open of a sink", 1, "operator look"),
    ("write", 700, "operator look"),
    ("flush", 2, "operator look"),
];

/// Runs with a trap, and gives the last failure.
#[track_caller]
fn run(traps: &[(&'static str, u64)]) -> String {
    let runtime = Runtime::builder().workers(2).restart(RestartPolicy::at_most(5).backoff(Duration::from_millis(1)));
    let runtime = runtime.build().unwrap();
    // What is called while the pipeline is described is no attempt's.
    let (pipeline, collected) = describe();
    *trap() = traps.to_vec();
    let job = runtime.start(pipeline).unwrap();
    let ended = job.join();
    assert!(matches!(ended, Ok(Ended::Finished { .. })), "{traps:?}: {ended:?}");
    let mut numbers: Vec<u64> = collected.snapshot().into_iter().map(|(number, _)| number).collect();
    numbers.sort_unstable();
    assert!(numbers == (0..NUMBERS).collect::<Vec<_>>(), "{traps:?}: {} numbers", numbers.len());
    let status = job.status();
    let left = std::mem::take(&mut *trap());
    assert_eq!(left, [], "{traps:?}: a place was not hit that often");
    assert_eq!((status.abandoned, threads()), (0, 0), "{traps:?}");
    status.last_failure.unwrap_or_default()
}

#[test]
fn a_panic_in_any_callback_restarts_the_attempt_and_loses_and_doubles_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (place, middle, operator) in PLACES {
        // The first, one in the middle, and that one with the next, which comes in the attempt behind it.
        for at in [vec![1], vec![middle], vec![middle, middle + 1]] {
            let traps: Vec<_> = at.into_iter().map(|at| (place, at)).collect();
            let failure = run(&traps);
            assert!(failure.contains(&format!("planned in {place}")), "{traps:?}: {failure}");
            assert!(failure.contains(operator), "{traps:?}: {failure}");
            assert!(operator.is_empty() || failure.contains("epoch"), "{traps:?}: {failure}");
        }
    }
}

/// Numbers of which some are bad.
static BAD_SEEN: AtomicU64 = AtomicU64::new(0);

#[test]
fn a_record_that_panics_twice_goes_to_quarantine_and_leaves_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    BAD_SEEN.store(0, Ordering::SeqCst);
    let runtime = Runtime::builder().workers(2).restart(RestartPolicy::at_most(2).backoff(Duration::from_millis(1)));
    let runtime = runtime.build().unwrap();
    let (sink, good) = Collect::new();
    let (dead_sink, dead) = Collect::new();
    let pipeline = Pipeline::new("quarantine").epoch_interval(Duration::from_millis(2));
    let letters = OutputTag::new("dead");
    let checked = pipeline
        .source("numbers", Numbers)
        .try_map(|number| {
            if number == 700 || number == 701 {
                BAD_SEEN.fetch_add(1, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new("planned"));
            }
            if number == 5 { Err("planned") } else { Ok(number) }
        })
        .quarantine_panics()
        .dead_letters_to(&letters);
    checked.side(&letters).sink("dead", dead_sink);
    checked.key_by(|number| number % 7).count("count").map(|(key, count)| (key, count)).sink("out", sink);
    let job = runtime.start(pipeline).unwrap();
    let ended = job.join();
    assert!(matches!(ended, Ok(Ended::Finished { .. })), "{ended:?}");
    // Two panics each: once suspect, once convicted. Only the first of each counts as a restart.
    let status = job.status();
    assert_eq!((BAD_SEEN.load(Ordering::SeqCst), status.restarts), (4, 4));
    let mut letters = dead.snapshot();
    letters.sort_unstable();
    assert_eq!(letters, [5, 700, 701]);
    let mut counts = good.snapshot();
    counts.sort_unstable();
    let twin = (0..NUMBERS).filter(|number| ![5, 700, 701].contains(number));
    let mut wanted: Vec<(u64, u64)> = Vec::new();
    for number in twin {
        let before = wanted.iter().filter(|(key, _)| *key == number % 7).count() as u64;
        wanted.push((number % 7, before + 1));
    }
    wanted.sort_unstable();
    assert!(counts == wanted, "{} results where {} were expected", counts.len(), wanted.len());
    let quarantined: Vec<&[u8]> = status.quarantined.iter().map(|known| known.record.bytes.as_slice()).collect();
    assert_eq!(quarantined.len(), 2, "{quarantined:?}");
}

#[test]
fn a_panic_while_an_attempt_ends_does_not_hide_the_first() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for place in ["drop of an operator", "drop of a sink"] {
        let failure = run(&[("on_record", 700), (place, 1)]);
        assert!(failure.contains("planned in on_record"), "{place}: {failure}");
        // When all is done, one changes nothing.
        assert_eq!(run(&[(place, 1)]), "");
    }
    let failure = run(&[("drop of a reader", 1)]);
    assert!(failure.is_empty() || failure.contains("planned in drop of a reader"), "{failure}");
}
