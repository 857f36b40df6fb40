//! Windows through the harness: what is sent, when, and what is late.

use std::time::Duration;

use millstream_runtime::operator::DropReason;
use millstream_runtime::testing::{Drains, HarnessFailure};
use millstream_runtime::time::Timestamp;

use crate::prelude::*;
use crate::scenario::{Event, at, drains, number, rec, refusal, steps, untimed, watermark};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Key, start and end in seconds, value.
type Row = (String, i64, i64, u64);

fn seconds(time: Timestamp) -> i64 {
    time.as_micros() / 1_000_000
}

fn row(key: &str, start: i64, end: i64, value: u64) -> Row {
    (key.to_owned(), start, end, value)
}

fn rows(counts: Stream<Windowed<String, u64>>) -> Stream<Row> {
    let row = |row: Windowed<String, u64>| (row.key, seconds(row.window.start), seconds(row.window.end), row.value);
    counts.map(row).erase()
}

fn by_key(events: Stream<Event>) -> KeyedStream<String, Event> {
    events.key_by(|(key, ..)| key.clone())
}

fn tens(events: Stream<Event>) -> WindowedStream<String, Event, Tumbling> {
    by_key(events).window(Tumbling::of(secs(10)))
}

/// Counts in windows of 10 s.
fn counts(events: Stream<Event>) -> Stream<Row> {
    rows(tens(events).aggregate("counts", Count))
}

fn dropped<T>(drains: &Drains<T>, reason: DropReason) -> u64 {
    drains.dropped.get(&reason).copied().unwrap_or(0)
}

mod modes;
mod sessions;
mod triggers;

/// S-MODE-07, S-ET-20 without the empty batch: a window is sent when the watermark has come to its end.
#[test]
fn append_sends_a_window_once_when_it_is_closed() {
    let script = [rec("a", 5), watermark(5), rec("a", 10), watermark(10), rec("a", 9), watermark(20)];
    assert_eq!(steps(OutputMode::Append, &script, counts).unwrap(), [row("a", 0, 10, 1), row("a", 10, 20, 1)]);
}

/// S-MODE-08
#[test]
fn update_sends_a_window_whenever_it_changes_and_forgets_it_silently() {
    let script: [&[_]; 3] =
        [&[rec("a", 5), watermark(5)], &[rec("a", 10), watermark(10)], &[rec("a", 9), rec("a", 11)]];
    let out = drains(OutputMode::Update, &script, counts).unwrap();
    assert_eq!(out.results, [vec![row("a", 0, 10, 1)], vec![row("a", 10, 20, 1)], vec![row("a", 10, 20, 2)], vec![]]);
    assert_eq!(dropped(&out, DropReason::Late), 1);
}

/// S-MODE-09
#[test]
fn complete_sends_all_windows_and_keeps_late_records() {
    let script: [&[_]; 3] = [&[rec("a", 5), rec("a", 100), watermark(100)], &[rec("a", 6)], &[rec("a", 7)]];
    let out = drains(OutputMode::Complete, &script, counts).unwrap();
    let table = |late| vec![row("a", 0, 10, late), row("a", 100, 110, 1)];
    assert_eq!(out.results, [table(1), table(2), table(3), table(3)]);
    assert_eq!(dropped(&out, DropReason::Late), 0);
}

/// S-ET-05: late is what is in a closed window, not what is behind the watermark.
#[test]
fn a_record_behind_the_watermark_counts_in_a_window_that_is_open() {
    let script = [rec("a", 8), watermark(5), rec("a", 3), watermark(10), rec("a", 3)];
    assert_eq!(steps(OutputMode::Append, &script, counts).unwrap(), [row("a", 0, 10, 2)]);
}

/// S-ET-06: each window by itself.
#[test]
fn a_record_that_is_late_for_one_window_counts_in_the_others() {
    let script: [&[_]; 3] = [&[rec("a", 16), watermark(12)], &[rec("a", 7), rec("a", 2)], &[watermark(30)]];
    let out = drains(OutputMode::Append, &script, |events| {
        rows(by_key(events).window(Sliding::of(secs(10), secs(5))).aggregate("counts", Count))
    });
    let out = out.unwrap();
    let closed = vec![row("a", 5, 15, 1), row("a", 10, 20, 1), row("a", 15, 25, 1)];
    assert_eq!(out.results, [vec![], vec![], closed, vec![]]);
    assert_eq!((dropped(&out, DropReason::LateInPart), dropped(&out, DropReason::Late)), (1, 1));
}

/// S-ET-09: the watermark begins in 1970, so windows that end there are late from the start, unless they are asked for.
#[test]
fn windows_that_end_in_1970_are_late_from_the_start() {
    let script = [rec("a", -5), rec("a", -11), rec("a", 3)];
    assert_eq!(steps(OutputMode::Update, &script, counts).unwrap(), [row("a", 0, 10, 1)]);
    let all = steps(OutputMode::Update, &script, |events| rows(tens(events).before_1970().aggregate("counts", Count)));
    assert_eq!(all.unwrap(), [row("a", -10, 0, 1), row("a", -20, -10, 1), row("a", 0, 10, 1)]);
    // One that reaches beyond is not: S-WIN-03.
    let sliding = steps(OutputMode::Append, &[rec("a", -3)], |events| {
        rows(by_key(events).window(Sliding::of(secs(10), secs(5)).offset(at(2))).aggregate("counts", Count))
    });
    assert_eq!(sliding.unwrap(), [row("a", -8, 2, 1), row("a", -3, 7, 1)]);
}

/// S-ET-17
#[test]
fn a_record_without_event_time_is_in_no_window_and_is_counted() {
    let out = drains(OutputMode::Append, &[&[rec("a", 7), untimed("a")]], counts).unwrap();
    assert_eq!(out.results, [vec![], vec![row("a", 0, 10, 1)]]);
    assert_eq!(out.dropped, [(DropReason::NoWindow, 1)].into());
}

/// S-ET-14, S-ET-16: 5 s counts, summed up in 10 s. When the watermark comes to 10 s both close, and nothing is late behind.
#[test]
fn windows_of_windows_close_with_one_watermark() {
    let script: [&[_]; 2] = [&[rec("a", 1), rec("a", 6), rec("a", 5), watermark(6)], &[rec("a", 10), watermark(10)]];
    let out = drains(OutputMode::Append, &script, |events| {
        let inner = by_key(events).window(Tumbling::of(secs(5))).aggregate("inner", Count);
        let outer = inner.key_by(|row| row.key.clone()).window(Tumbling::of(secs(10)));
        let sum = Sum::of(|row: &Windowed<String, u64>| row.value);
        let outer = outer.aggregate("outer", (sum, Count));
        outer.map(|row| (seconds(row.window.start), row.value)).erase()
    });
    let out = out.unwrap();
    assert_eq!(out.results, [vec![], vec![(0, (3, 2))], vec![(10, (1, 1))]]);
    assert_eq!(out.dropped, [].into());
}

/// S-WIN-07: the watermark is 10 min behind, windows of 10 min every 5. Times in minutes behind 12:00.
#[test]
fn a_record_is_late_for_a_window_once_the_watermark_has_come_to_its_end() {
    let minutes = |minutes: i64| minutes * 60;
    let script: [&[_]; 3] = [
        &[rec("owl", minutes(14)), watermark(minutes(4))],
        &[rec("cat", minutes(9)), rec("owl", minutes(21)), watermark(minutes(11))],
        &[rec("dog", minutes(4)), watermark(minutes(40))],
    ];
    let out = drains(OutputMode::Append, &script, |events| {
        let counts = by_key(events).window(Sliding::of(secs(600), secs(300))).aggregate("counts", Count);
        counts.map(|row| (row.key, seconds(row.window.start) / 60, row.value)).erase()
    });
    let out = out.unwrap();
    let of = |rows: &[(String, i64, u64)], key: &str| -> Vec<(i64, u64)> {
        rows.iter().filter(|row| row.0 == key).map(|row| (row.1, row.2)).collect()
    };
    assert_eq!(of(&out.results[1], "cat"), [(0, 1)]);
    assert_eq!(of(&out.results[2], "cat"), [(5, 1)]);
    assert!(out.results.iter().all(|rows| of(rows, "dog").is_empty()), "12:04 is late for both its windows");
    assert_eq!(dropped(&out, DropReason::Late), 1);
}

#[test]
fn the_time_of_a_result_is_the_last_of_its_window() {
    let timed = steps(OutputMode::Append, &[rec("a", 5)], |events| {
        #[derive(Clone)]
        struct Times;
        impl KeyedProcess for Times {
            type Key = String;
            type In = Windowed<String, u64>;
            type Out = i64;
            type State = ();
            fn open(&self, _: &mut OpenContext<'_>) -> Result<(), millstream_runtime::error::BoxError> {
                Ok(())
            }
            fn on_record(
                &mut self,
                _: Self::In,
                _: &mut (),
                ctx: &mut ProcessContext<'_, i64>,
            ) -> Result<(), millstream_runtime::error::BoxError> {
                ctx.emit(ctx.time().as_micros());
                Ok(())
            }
        }
        tens(events).aggregate("counts", Count).key_by(|row| row.key.clone()).process("times", Times)
    });
    assert_eq!(timed.unwrap(), [9_999_999]);
}

#[test]
fn late_records_go_to_their_side_output_and_within_the_lateness_they_count() {
    let script = [
        rec("a", 5),
        watermark(12),
        rec("a", 6),
        watermark(14),
        rec("a", 7),
        watermark(15),
        number("a", 8, 80),
        rec("a", 16),
    ];
    let tag = OutputTag::new("late");
    let windowed = |events| tens(events).allowed_lateness(secs(5)).late_to(&tag);
    let closed = steps(OutputMode::Append, &script, |events| rows(windowed(events).aggregate("counts", Count)));
    assert_eq!(closed.unwrap(), [row("a", 0, 10, 3), row("a", 10, 20, 1)], "in append the result waits for the late");
    let updated = steps(OutputMode::Update, &script, |events| rows(windowed(events).aggregate("counts", Count)));
    assert_eq!(updated.unwrap(), [row("a", 0, 10, 1), row("a", 0, 10, 2), row("a", 0, 10, 3), row("a", 10, 20, 1)]);
    let late = steps(OutputMode::Append, &script, |events| {
        use millstream_runtime::testing::{Outside, SimSink};
        let counts = windowed(events).aggregate("counts", Count);
        let late = counts.side(&tag).map(|(_, seconds, number): Event| (seconds, number)).erase();
        counts.sink("elsewhere", SimSink { outside: Outside::default(), seed: 0, faults: 0.0 });
        late
    });
    assert_eq!(late.unwrap(), [(8, 80)]);
}

#[test]
fn the_end_of_one_lateness_does_not_close_the_window_that_ends_there() {
    let script = [rec("a", 5), rec("a", 15), watermark(20), rec("a", 16), watermark(30)];
    let out = steps(OutputMode::Append, &script, |events| {
        rows(tens(events).allowed_lateness(secs(10)).aggregate("counts", Count))
    });
    assert_eq!(out.unwrap(), [row("a", 0, 10, 1), row("a", 10, 20, 2)]);
}

/// The second window's sum overflows when the first has its record already: nothing of the record remains in either.
#[test]
fn a_record_that_an_aggregate_refuses_is_in_none_of_its_windows() {
    let script =
        [number("a", 6, i64::MAX), number("a", 3, 7), number("a", 8, 1), number("a", 12, -1), number("a", 13, 2)];
    let dead = OutputTag::new("dead");
    let sums = |events: Stream<Event>| {
        let windows = by_key(events).dead_letters_to(&dead).window(Sliding::of(secs(10), secs(5)));
        windows.aggregate("sums", Sum::of(|(.., number): &Event| *number))
    };
    let out = steps(OutputMode::Append, &script, |events| {
        sums(events).map(|row| (seconds(row.window.start), row.value)).erase()
    });
    // 3 s and 8 s do not fit behind 6 s; 12 s takes one off in [5, 15) only, and 13 s does not fit again.
    assert_eq!(out.unwrap(), [(0, i64::MAX), (5, i64::MAX - 1), (10, -1)]);
    let letters = steps(OutputMode::Append, &script, |events| {
        use millstream_runtime::testing::{Outside, SimSink};
        let sums = sums(events);
        let letters = sums.side(&dead).map(|(_, seconds, _): Event| seconds).erase();
        sums.sink("elsewhere", SimSink { outside: Outside::default(), seed: 0, faults: 0.0 });
        letters
    });
    assert_eq!(letters.unwrap(), [3, 8, 13]);
}

#[test]
fn windows_at_the_limits_of_time_are_closed_at_the_end_and_lose_nothing() {
    use millstream_runtime::testing::Step::Record;
    let far = |micros: i64| Record(("far".to_owned(), 0, 1), Timestamp::from_micros(micros));
    let script = [far(i64::MAX), far(i64::MAX - 1), far(i64::MIN + 1), rec("a", 5), watermark(20)];
    let out: Result<Vec<(String, u64)>, HarnessFailure> = steps(OutputMode::Append, &script, |events| {
        let sliding = by_key(events).window(Sliding::of(secs(10), secs(10))).before_1970();
        sliding.aggregate("counts", Count).map(|row| (row.key, row.value)).erase()
    });
    let pair = |key: &str, count| (key.to_owned(), count);
    assert_eq!(out.unwrap(), [pair("far", 1), pair("a", 1), pair("far", 2)]);
}

/// S-WIN-04, S-SESS-05 by its type: a window without a key cannot be written down.
#[test]
fn windows_that_cannot_be_are_mistakes_of_the_description() {
    let refused = |describe: fn(Stream<Event>) -> Stream<Row>| refusal(OutputMode::Append, describe);
    assert_eq!(refused(counts), "");
    let size = |events| rows(by_key(events).window(Tumbling::of(Duration::ZERO)).aggregate("counts", Count));
    assert_eq!(refused(size), "E-WIN-01");
    let slide = |events| rows(by_key(events).window(Sliding::of(secs(5), secs(10))).aggregate("counts", Count));
    assert_eq!(refused(slide), "E-WIN-02");
    let offset = |events| rows(by_key(events).window(Tumbling::of(secs(5)).offset(at(-5))).aggregate("counts", Count));
    assert_eq!(refused(offset), "E-WIN-03");
    let gap = |events| rows(by_key(events).window(Session::gap(Duration::ZERO)).aggregate("counts", Count));
    assert_eq!(refused(gap), "E-WIN-01");
    let endless = |events| rows(tens(events).allowed_lateness(Duration::MAX).aggregate("counts", Count));
    assert_eq!(refused(endless), "E-WIN-08");
    let accepting =
        |events| rows(by_key(events).accept_late().window(Tumbling::of(secs(10))).aggregate("counts", Count));
    assert_eq!(refused(accepting), "E-WIN-10");
    let none = |events| rows(tens(events).trigger(Trigger::count(0)).aggregate("counts", Count));
    assert_eq!(refused(none), "E-TRG-01");
    let at_once = |events| rows(tens(events).trigger(Trigger::every(Duration::ZERO)).aggregate("counts", Count));
    assert_eq!(refused(at_once), "E-TRG-01");
}

/// Windows, sessions and duplicates through crashes, failures of tasks and changes of parallelism: each result exactly once, and the
/// right one, whatever was lost on the way.
#[test]
fn results_are_exact_through_crashes_and_changes_of_parallelism() {
    use std::collections::BTreeMap;

    use millstream_runtime::testing::{Numbered, Outside, SimConfig, SimSink, SimSource, simulate};
    const LENGTH: u64 = 40;
    for seed in 0..6 {
        let outside = Outside::default();
        let pipeline = || {
            let pipeline = Pipeline::new("crashing");
            let source = SimSource { lengths: vec![LENGTH; 3], seed, first_split: 0 };
            let timed = pipeline.source("in", source).event_time(|n: &Numbered| at(n.seq as i64), secs(0));
            let unique = timed.key_by(|n| (n.seq, n.split)).drop_duplicates_within_watermark("unique", secs(3));
            let counts = unique.key_by(|n| n.seq % 3).window(Sliding::of(secs(10), secs(5))).aggregate("counts", Count);
            let again = counts.key_by(|row| row.key).window(Session::gap(secs(7))).aggregate("sums", Sum::of(value));
            let sink = SimSink { outside: outside.clone(), seed, faults: 0.2 };
            again.map(|row| (row.key, seconds(row.window.start), row.value)).sink("out", sink);
            pipeline.into()
        };
        let config = SimConfig {
            parallelism: vec![1, 3, 2],
            crashes: 4,
            crash_chance: 0.02,
            failures: 2,
            stops: 2,
            ..SimConfig::calm(seed)
        };
        simulate(&config, &pipeline).unwrap();

        // Every second is three records of one key, each in two windows, and all windows of a key are one session.
        let mut sums: BTreeMap<u64, u64> = BTreeMap::new();
        (0..LENGTH).for_each(|seq| *sums.entry(seq % 3).or_default() += 3 * 2);
        let mut wanted: Vec<_> = sums.into_iter().map(|(key, sum)| format!("({key}, 4, {sum})")).collect();
        let mut rows: Vec<_> = outside.rows().iter().map(|row| String::from_utf8_lossy(row).into_owned()).collect();
        rows.sort();
        wanted.sort();
        assert_eq!(rows, wanted, "seed {seed}");
    }
}

fn value<K>(row: &Windowed<K, u64>) -> u64 {
    row.value
}
