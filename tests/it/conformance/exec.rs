//! S-EXEC: execution.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::operators::OutputMode;
use millstream::prelude::*;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::testing::SimControl;
use millstream::runtime::time::Clock;

use super::dam::{Dam, Holds};
use super::drive::{Event, MODES, Script, at, number, on, secs};
use super::lives::{BATCHES, Place};
use super::pieces::{pair, totals};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "EXEC", title: "Execution", module: "exec", rows: ROWS };

const ROWS: &[Row] = &[
    row(
        "S-EXEC-01",
        "A word count over 10 000 lines ends with the same table in micro-batches of 1, of 100 and of all lines, and in continuous mode",
    ).passes("a_word_count_is_the_same_in_batches_of_any_size_and_without"),
    row("S-EXEC-02", "With an interval of 10 s, one record is seen by a callback long before its barrier").passes("a_record_is_seen_long_before_its_barrier").only_c(),
    row(
        "S-EXEC-04",
        "Behind an output that is blocked, the source stops once the channels are full, and nothing is lost when it goes on",
    ).passes("a_blocked_output_stops_the_source_and_loses_nothing"),
    row(
        "S-EXEC-05",
        "Of two inputs one waits in front of its barrier: what the other brings behind its own is not in that snapshot",
    ).passes("what_is_behind_a_barrier_is_not_in_its_epoch").only_c(),
    row("S-EXEC-06", "A process that is killed 20 times, at random moments and at named points, counts a replayable input exactly").passes("kill9::loses_and_doubles_nothing_when_its_process_is_killed").only_c(),
    row(
        "S-EXEC-07",
        "Stopped after a micro-batch and started again continuously, a job goes on with the next epoch and the same state, and back",
    ).passes("a_job_goes_on_in_the_other_mode"),
];

/// Line `n` of a text: words of which some are frequent and many are rare.
fn line(n: u64) -> String {
    format!("{} {} {}", ["the", "a", "the"][(n % 3) as usize], n % 17, n * n % 1_013)
}

#[test]
fn a_word_count_is_the_same_in_batches_of_any_size_and_without() {
    const LINES: u64 = 10_000;
    let table = |trigger: Option<Trigger>, limit: u64| {
        let (sink, collected) = Collect::new();
        let pipeline = Pipeline::new("words").parallelism(3).output_mode(OutputMode::Update);
        let pipeline = if let Some(trigger) = trigger { pipeline.trigger(trigger) } else { pipeline };
        let lines = pipeline.source("lines", Generator::new(Some(LINES), line).with_max_records_per_epoch(limit));
        let words = lines.flat_map(|line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        words.key_by(String::clone).aggregate("counts", Count).sink("out", sink);
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let epochs = runtime.start(pipeline).unwrap().join().unwrap().epoch().number();
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        collected.take().into_iter().for_each(|(word, count)| {
            last.entry(word).and_modify(|last| *last = count.max(*last)).or_insert(count);
        });
        (last, epochs)
    };
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    (0..LINES).for_each(|n| line(n).split(' ').for_each(|word| *wanted.entry(word.to_owned()).or_default() += 1));
    let continuous = table(None, 1).0;
    let ones = table(Some(Trigger::AvailableNow), 1);
    let hundreds = table(Some(Trigger::AvailableNow), 100);
    let all = table(Some(Trigger::Once), 1);
    // Behind the last batch there is one epoch that closes the life.
    assert_eq!((ones.1, hundreds.1, all.1), (LINES + 1, LINES / 100 + 1, 2));
    for (table, what) in [(continuous, "continuous"), (ones.0, "by 1"), (hundreds.0, "by 100"), (all.0, "all at once")]
    {
        assert!(table == wanted, "{what}: {} words of {}", table.len(), wanted.len());
    }
}

#[test]
fn a_record_is_seen_long_before_its_barrier() {
    let (feed, numbers) = feed::<u64>(10);
    let (tell, seen) = std::sync::mpsc::sync_channel(1);
    let pipeline = Pipeline::new("early").epoch_interval(secs(10));
    let doubled = pipeline.source("numbers", numbers).map(|n| n * 2);
    doubled.sink("callback", try_for_each(move |n: u64| Ok(tell.send(n)?)));
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let job = runtime.start(pipeline).unwrap();
    feed.send(21).unwrap();
    assert_eq!(seen.recv(), Ok(42));
    assert_eq!(job.status().committed.number(), 0, "its epoch is open");
    job.stop_blocking(secs(60)).unwrap();
}

#[test]
fn a_blocked_output_stops_the_source_and_loses_nothing() {
    const RECORDS: i64 = 20_000;
    /// What fits: 16 frames of a channel, those at hand on both sides of it, and what the reader is ahead.
    const ROOM: u64 = 24 * 256;
    for mode in MODES {
        let all: Vec<Event> = (0..RECORDS).map(|n| number("a", 1, n)).collect();
        let begins = at(1_000);
        let control = SimControl::default();
        let script = Script::new([all, vec![]]).beginning(begins).controlled_by(&control);
        let clock = control.clock().clone();
        let (passed, before) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let opens = begins.saturating_add(secs(1));
        let is_shut = {
            let (clock, passed, before) = (clock.clone(), Arc::clone(&passed), Arc::clone(&before));
            move || {
                let shut = clock.now() < opens;
                if shut {
                    before.store(passed.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                shut
            }
        };
        let dam = Dam { holds: Holds::Everything, is_shut: Arc::new(is_shut) };
        let dammed = |mut events: Vec<Stream<Event>>| {
            let passed = Arc::clone(&passed);
            let counted = events.remove(0).inspect(move |_| {
                passed.fetch_add(1, Ordering::Relaxed);
            });
            counted.erase().rebalance().apply::<Event>(None, dam.clone()).map(|event| event.number).erase()
        };
        let ran = script.calm(mode, dammed);
        let before = before.load(Ordering::Relaxed);
        assert!(before > 0 && before <= ROOM, "{mode:?}: {before} records had left the source");
        let mut found: Vec<i64> = ran.drains.concat().iter().map(|row| row.parse().unwrap()).collect();
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..RECORDS), "{mode:?}: {} records", found.len());
    }
}

#[test]
fn what_is_behind_a_barrier_is_not_in_its_epoch() {
    let begins = at(1_000);
    let drains = [vec![on("a", 1)], vec![on("a", 1)], vec![], vec![]];
    let script = Script::new(drains).and([vec![on("b", 1)], vec![], vec![], vec![]]).beginning(begins);
    // Barriers every 500 ms. That of the second input is held for two seconds; the second record of the first comes after 0.7.
    let control = SimControl::default();
    let script = script.lasting(Duration::from_millis(700)).controlled_by(&control);
    let clock = control.clock().clone();
    let opens = begins.saturating_add(Duration::from_millis(2_500));
    let dam = Dam { holds: Holds::Barriers, is_shut: Arc::new(move || clock.now() < opens) };
    let united = |mut events: Vec<Stream<Event>>| {
        let held = events.remove(1).apply::<Event>(None, dam.clone());
        totals(events.remove(0).union(held))
    };
    let ran = script.mode(OutputMode::Update).calm(ExecutionMode::Continuous, united);
    let epoch_of = |row: (String, u64)| ran.rows.iter().find(|(_, found)| *found == format!("{row:?}")).unwrap().0;
    assert_eq!([pair("a", 1), pair("b", 1), pair("a", 2)].map(epoch_of), [1, 1, 2], "{:?}", ran.rows);
}

#[test]
fn a_job_goes_on_in_the_other_mode() {
    let place = Place::default();
    let counts = |numbers: Stream<u64>| numbers.key_by(|n| *n).count("counts");
    let batches = place.live(BATCHES, &[1, 1, 1, 2, 1], counts).unwrap();
    assert_eq!(batches.rows, [(1, 1), (1, 2), (1, 3), (2, 1), (1, 4)]);
    assert!(batches.epochs.1 > 5, "each number had an epoch: {:?}", batches.epochs);
    let continuous = place.live(None, &[1, 2], counts).unwrap();
    assert_eq!(continuous.rows, [(1, 5), (2, 2)]);
    assert_eq!(continuous.epochs.0, batches.epochs.1, "it goes on with the next epoch");
    let back = place.live(BATCHES, &[1], counts).unwrap();
    assert_eq!((back.rows, back.epochs.0), (vec![(1, 6)], continuous.epochs.1));
}
