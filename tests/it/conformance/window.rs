//! S-WIN: windows of time.

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::operator::DropReason;
use millstream::runtime::testing::{ObserveOf, Observed};
use std::time::Duration;

use super::drive::{Event, Script, at, micros, on, secs};
use super::pieces::{Counted, by_key, counted, counts, counts_in, refusal, tens};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "WIN", title: "Windows of time", module: "window", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-WIN-01", "Tumbling: 9.999999 s is in [0, 10), 10 s in [10, 20)").passes("a_window_begins_with_its_start_and_ends_before_its_end"),
    row("S-WIN-02", "Sliding, 10 s every 5 s from 2 s: 7 s is in [7, 17) and [2, 12)").passes("windows_slide_from_an_offset"),
    row("S-WIN-03", "Offsets and negative times floor").passes("offsets_and_negative_times_floor"),
    row("S-WIN-04", "A size of nothing is E-WIN-01, a slide above the size E-WIN-02, an offset of a slide or more E-WIN-03; months (E-WIN-04) cannot be written, sizes are `Duration`s").passes("windows_that_cannot_be_are_refused"),
    row("S-WIN-05", "10 min every 5 min: 12:07 counts in the windows of 12:00 and 12:05").passes("a_time_is_in_every_window_that_is_open_then"),
    row("S-WIN-06", "The time of a window is its last microsecond").passes("the_time_of_a_window_is_its_last_microsecond"),
    row(
        "S-WIN-07",
        "Delay 10 min, windows of 10 min every 5: 12:09 counts at 12:04, 12:04 no more in 12:00-12:10 at 12:11",
    ).passes("a_row_is_late_for_a_window_once_the_watermark_has_come_to_its_end"),
];

/// Every window that a record touches, in *update*.
fn touched(event: Event, windows: Sliding, wanted: &[(i64, i64)]) {
    let script = Script::new([vec![event]]).delay(0).mode(OutputMode::Update);
    let wanted: Vec<Counted> = wanted.iter().map(|(start, end)| counted("a", *start, *end, 1)).collect();
    script.gives(|events| counts_in(by_key(events).window(windows)), [wanted]);
}

#[test]
fn a_window_begins_with_its_start_and_ends_before_its_end() {
    let script = Script::new([vec![micros("a", 9_999_999), on("a", 10)]]).delay(0).mode(OutputMode::Update);
    script.on_disk().gives(counts, [vec![counted("a", 0, 10, 1), counted("a", 10, 20, 1)]]);
}

#[test]
fn windows_slide_from_an_offset() {
    let windows = Sliding::of(secs(10), secs(5)).offset(at(2));
    touched(on("a", 7), windows, &[(7, 17), (2, 12)]);
    touched(on("a", -3), windows, &[(-3, 7), (-8, 2)]);
    // Where the size is no multiple of the slide.
    touched(on("a", 4), Sliding::of(secs(12), secs(5)), &[(0, 12), (-5, 7)]);
}

#[test]
fn offsets_and_negative_times_floor() {
    touched(on("a", -3), Sliding::of(secs(10), secs(5)).offset(at(2)), &[(-3, 7), (-8, 2)]);
    touched(on("a", 7), Sliding::of(secs(10), secs(5)).offset(at(-1)), &[(4, 14), (-1, 9)]);
}

#[test]
fn windows_that_cannot_be_are_refused() {
    let refused = |describe: fn(Stream<Event>) -> Stream<Counted>| refusal(OutputMode::Append, true, describe);
    assert_eq!(refused(|events| counts_in(by_key(events).window(Tumbling::of(Duration::ZERO)))), "E-WIN-01");
    assert_eq!(refused(|events| counts_in(by_key(events).window(Sliding::of(secs(5), secs(10))))), "E-WIN-02");
    assert_eq!(refused(|events| counts_in(by_key(events).window(Sliding::of(secs(10), Duration::ZERO)))), "E-WIN-02");
    for offset in [5, -5, 6] {
        let shifted = move |events| counts_in(by_key(events).window(Sliding::of(secs(10), secs(5)).offset(at(offset))));
        assert_eq!(refusal(OutputMode::Append, true, shifted), "E-WIN-03");
    }
    let before = |events| counts_in(by_key(events).window(Sliding::of(secs(10), secs(5)).offset(at(-4))));
    assert_eq!(refused(before), "", "an offset may be negative");
}

#[test]
fn a_time_is_in_every_window_that_is_open_then() {
    let minutes = |hour: i64, minute: i64| (hour * 60 + minute) * 60;
    let windows = [(12, 0), (12, 5)].map(|(hour, minute)| (minutes(hour, minute), minutes(hour, minute + 10)));
    touched(on("a", minutes(12, 7)), Sliding::of(secs(600), secs(300)), &windows);
}

#[test]
fn the_time_of_a_window_is_its_last_microsecond() {
    let script = Script::new([vec![on("a", 5)], vec![on("a", 10)]]).delay(0);
    let times = |events| {
        let counts = tens(events).aggregate("counts", Count);
        let seen = counts.apply::<Observed<Windowed<String, u64>>>(None, ObserveOf::<Windowed<String, u64>>::default());
        seen.map(|seen| (seen.time.as_micros(), seen.value.window.time().as_micros())).erase()
    };
    script.gives(times, [vec![], vec![(9_999_999, 9_999_999)]]);
}

#[test]
fn a_row_is_late_for_a_window_once_the_watermark_has_come_to_its_end() {
    let noon = |minutes: i64| (12 * 60 + minutes) * 60;
    let script = Script::new([
        vec![on("owl", noon(14))],
        vec![on("cat", noon(9)), on("owl", noon(21))],
        vec![on("dog", noon(4))],
        vec![on("end", noon(60))],
    ]);
    let windows = |events| {
        let counts = by_key(events).window(Sliding::of(secs(600), secs(300))).aggregate("counts", Count);
        counts.map(|row| (row.key, row.window.start.as_micros() / 60_000_000 - 12 * 60, row.value)).erase()
    };
    let row = |key: &str, start: i64| (key.to_owned(), start, 1);
    // 12:09 counts at a watermark of 12:04, in both its windows. 12:04 is late for both of its own at 12:11.
    script.delay(600).dropping(DropReason::Late, 1).gives(
        windows,
        [
            vec![],
            vec![row("cat", 0)],
            vec![],
            vec![row("cat", 5), row("owl", 5), row("owl", 10), row("owl", 15), row("owl", 20)],
        ],
    );
}
