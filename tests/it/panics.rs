//! A panic in every callback: each ends its attempt, is named, and nothing is lost or doubled.
//!
//! Places are hit by number, so that the first record, one in the middle and the first one behind a restart are met.

mod phases;
mod pipeline;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream::prelude::*;

use self::pipeline::{Numbers, Outside, STAGE, describe};

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

/// Looks until it is so; a watchdog of the test runner ends it if it never is.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

fn threads() -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let name = |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.ok()?.path().join("comm")).ok();
    tasks.filter_map(name).filter(|name| name.starts_with("millstream-")).count()
}

/// What a place is called in the error; nothing where the subtask alone is named.
const PLACES: [(&str, u64, &str); 29] = [
    ("splits", 1, ""),
    ("reader", 1, ""),
    ("poll", 10, ""),
    ("map", 700, "operator map"),
    ("filter", 700, "operator map"),
    ("flat_map", 701, "operator map"),
    ("try_map", 700, "operator map"),
    ("event_time", 700, ""),
    ("key_by", 700, ""),
    ("hash of a key", 700, ""),
    ("bytes of a key", 700, "operator count"),
    ("key of its bytes", 700, "operator count"),
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
    ("encode of a row", 700, "operator out"),
    ("factory of a connector", 1, "sink out"),
    ("open of a connector", 1, "sink out"),
    ("roll", 2, "sink out"),
    ("apply", 2, "sink out"),
    ("end of apply", 2, "sink out"),
];

/// Runs with a trap, and gives the last failure.
#[track_caller]
fn run(traps: &[(&'static str, u64)]) -> String {
    let runtime = Runtime::builder().workers(2).restart(RestartPolicy::at_most(5).backoff(Duration::from_millis(1)));
    let runtime = runtime.build().unwrap();
    // What is called while the pipeline is described is no attempt's.
    let source = Numbers { upto: Arc::new(STAGE.into()) };
    let outside = Outside::raising(&source);
    let pipeline = describe(source, outside.clone(), Duration::from_millis(2));
    *trap() = traps.to_vec();
    let job = runtime.start(pipeline).unwrap();
    let ended = job.join();
    assert!(matches!(ended, Ok(Ended::Finished { .. })), "{traps:?}: {ended:?}");
    assert!(outside.is_each_once(NUMBERS), "{traps:?}");
    let status = job.status();
    let left = std::mem::take(&mut *trap());
    assert_eq!(left, [], "{traps:?}: a place was not hit that often");
    assert_eq!(status.abandoned, 0, "{traps:?}");
    // A thread that was joined stands in the kernel's list for a moment more.
    until(|| threads() == 0);
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
            assert!(!operator.starts_with("operator") || failure.contains("epoch"), "{traps:?}: {failure}");
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
        .source("numbers", Numbers::default())
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
    // The batch of 50 that it came in.
    for known in &*status.quarantined {
        let [origin] = &*known.origins else { panic!("{}", known.origins) };
        assert_eq!(origin.to_string(), "source numbers split all behind position 700 up to 750");
    }
}

#[test]
fn a_panic_while_an_attempt_ends_does_not_hide_the_first() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for place in ["drop of an operator", "drop of a sink", "drop of a connector"] {
        let failure = run(&[("on_record", 700), (place, 1)]);
        assert!(failure.contains("planned in on_record"), "{place}: {failure}");
        // When all is done, one changes nothing.
        assert_eq!(run(&[(place, 1)]), "");
    }
    let failure = run(&[("drop of a reader", 1)]);
    assert!(failure.is_empty() || failure.contains("planned in drop of a reader"), "{failure}");
}
