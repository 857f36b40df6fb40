//! S-ET: event time.

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::operator::DropReason;

use super::drive::{Event, Script, on, seconds, secs, untimed};
use super::pieces::{by_key, counted, counts, counts_in, refusal, tens};
use super::table::{Group, Row, Standing, row};

pub(super) const GROUP: Group = Group { name: "ET", title: "Event time", module: "event_time", rows: ROWS };

const ROWS: &[Row] = &[
    row(
        "S-ET-01",
        "The watermark is the highest event time less the delay: 4 s after 14 s and 9 s with a delay of 10 s, 11 s after 21 s",
    ).passes("the_watermark_is_the_highest_time_less_the_delay"),
    row("S-ET-02", "The watermark never falls, and is never below 0").passes("the_watermark_never_falls_and_is_never_negative"),
    row("S-ET-04", "A row at the watermark is late, one above it is not (group state by event time)").passes("a_row_at_the_watermark_is_late_and_counted"),
    row(
        "S-ET-05",
        "Late for a window is what comes when it has closed: a row behind the watermark counts in an open window",
    ).passes("a_row_behind_the_watermark_counts_in_a_window_that_is_open"),
    row("S-ET-06", "Sliding windows: a row may be late for one of its windows and counted in another").passes("a_row_that_is_late_for_one_window_counts_in_another"),
    row("S-ET-07", "No epochs without records: a row is late only by what two batches before have raised").passes("without_epochs_of_no_records_a_row_may_be_one_batch_later").only_m(),
    row("S-ET-08", "A late row is counted as dropped").passes("a_row_at_the_watermark_is_late_and_counted"),
    row("S-ET-09", "Rows of windows that end at or before 1970 are late from the start").passes("windows_that_end_in_1970_are_late_from_the_start"),
    row(
        "S-ET-10",
        "Of several watermarks the least or the greatest counts, by policy; the policy of the checkpoint holds after a restart",
    ).open("there is no policy: the least counts"),
    row("S-ET-12", "A silent input of two holds the watermark at 0: of two united streams, and of two connected ones (joins are not built)").passes("a_silent_input_holds_the_watermark"),
    row("S-ET-13", "With an idle time on the silent input the watermark follows the other").c(Standing::Passes("event_time::a_silent_source_holds_nobody_back_once_it_is_idle")).only_c(),
    row("S-ET-14", "Windows of windows close with one watermark: the outer window sums three rows of two inner ones").passes("windows_of_windows_close_with_one_watermark"),
    row("S-ET-15", "A stateful operator behind an aggregation is refused in *update*: E-CHAIN-01").passes("a_stateful_operator_behind_an_aggregation_in_update_is_refused"),
    row("S-ET-16", "What an operator sends because of a watermark is not late for the next operator").passes("windows_of_windows_close_with_one_watermark"),
    row("S-ET-17", "A row without event time is in no window").passes("a_row_without_time_is_in_no_window"),
    row(
        "S-ET-18",
        "A negative delay is E-WM-01, a column that is no time E-WM-02, an unreadable delay E-WM-06, a second watermark E-WM-04",
    ).open("a second `event_time` replaces the first, as in Flink, and is no E-WM-04; a delay is a `Duration` and a time a `Timestamp`, so the other mistakes cannot be written"),
    row("S-ET-19", "On bounded input a watermark has no effect").not_applicable("there are no batch queries: bounded input is a stream that ends"),
    row("S-ET-20", "An epoch without records sends what the watermark has closed").passes("an_epoch_without_records_sends_what_the_watermark_closed").only_m(),
];

/// Each row's second, and the watermark in seconds that group state sees with it.
fn watermarks(events: Stream<Event>) -> Stream<(i64, i64)> {
    let (mode, none) = (OutputMode::Append, GroupTimeout::None);
    by_key(events).flat_map_groups_with_state("watermarks", mode, none, |_, rows, state: &mut GroupState<u64>, out| {
        for event in rows {
            out.emit((seconds(event.time), state.current_watermark_ms()? / 1_000));
        }
        Ok(())
    })
}

#[test]
fn the_watermark_is_the_highest_time_less_the_delay() {
    let script = Script::new([vec![on("a", 14), on("a", 9)], vec![on("a", 21)], vec![on("a", 22)]]).delay(10);
    script.on_disk().gives(watermarks, [vec![(14, 0), (9, 0)], vec![(21, 4)], vec![(22, 11)]]);
}

#[test]
fn the_watermark_never_falls_and_is_never_negative() {
    let script = Script::new([vec![on("a", 20)], vec![on("a", 5)], vec![on("a", 6)]]);
    script.delay(0).gives(watermarks, [vec![(20, 0)], vec![(5, 20)], vec![(6, 20)]]);
    let script = Script::new([vec![on("a", 5)], vec![on("a", 6)]]);
    script.delay(10).gives(watermarks, [vec![(5, 0)], vec![(6, 0)]]);
}

#[test]
fn a_row_at_the_watermark_is_late_and_counted() {
    let times = |events| {
        let (mode, timeout) = (OutputMode::Append, GroupTimeout::EventTime);
        by_key(events).flat_map_groups_with_state("times", mode, timeout, |_, rows, _: &mut GroupState<u64>, out| {
            out.extend(rows.map(|event| seconds(event.time)));
            Ok(())
        })
    };
    let script = Script::new([vec![on("a", 10)], vec![on("a", 10), on("a", 11)]]).delay(0);
    script.dropping(DropReason::Late, 1).gives(times, [vec![10], vec![11]]);
}

#[test]
fn a_row_behind_the_watermark_counts_in_a_window_that_is_open() {
    let script = Script::new([vec![on("a", 5)], vec![on("a", 3)], vec![on("a", 10)]]).delay(0);
    script.gives(counts, [vec![], vec![], vec![counted("a", 0, 10, 2)]]);
}

#[test]
fn a_row_that_is_late_for_one_window_counts_in_another() {
    let script = Script::new([vec![on("a", 12)], vec![on("a", 7)], vec![on("end", 20)]]).delay(0);
    let sliding = |events| counts_in(by_key(events).window(Sliding::of(secs(10), secs(5))));
    let closed = vec![counted("a", 5, 15, 2), counted("a", 10, 20, 1)];
    script.dropping(DropReason::LateInPart, 1).gives(sliding, [vec![], vec![], closed]);
}

#[test]
fn without_epochs_of_no_records_a_row_may_be_one_batch_later() {
    let script = Script::new([vec![on("a", 5), on("a", 100)], vec![on("a", 6)], vec![on("a", 7)]]);
    // A stop in good order has an epoch of its own, which the watermark goes by.
    let script = script.delay(0).no_data_epochs(false).dropping(DropReason::Late, 1).without_stops();
    let one = |mut inputs: Vec<Stream<Event>>| counts(inputs.remove(0));
    script.gives_in(ExecutionMode::MicroBatch, one, &[vec![], vec![counted("a", 0, 10, 2)], vec![]]);
}

#[test]
fn windows_that_end_in_1970_are_late_from_the_start() {
    let script = Script::new([vec![on("a", -5), on("a", -11), on("a", 3)]]).delay(0).mode(OutputMode::Update);
    script.dropping(DropReason::Late, 2).gives(counts, [vec![counted("a", 0, 10, 1)]]);
}

/// As [`watermarks`], of two connected streams.
#[derive(Clone)]
struct Watermarks;

impl CoProcess for Watermarks {
    type Key = String;
    type Left = Event;
    type Right = Event;
    type Out = (i64, Option<i64>);
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_left(&mut self, event: Event, _: &mut (), ctx: &mut ProcessContext<'_, Self::Out>) -> Result<(), BoxError> {
        ctx.emit((seconds(event.time), ctx.watermark().map(seconds)));
        Ok(())
    }

    fn on_right(&mut self, _: Event, _: &mut (), _ctx: &mut ProcessContext<'_, Self::Out>) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_silent_input_holds_the_watermark() {
    // The other is silent, then has one row, which holds it as well.
    let script = Script::new([vec![on("a", 1_000)], vec![on("a", 1_001)], vec![], vec![on("a", 1_002)]]);
    let script = script.and([vec![], vec![], vec![on("a", 500)], vec![]]).delay(0);
    let united = |left: Stream<Event>, right: Stream<Event>| watermarks(left.union(right));
    script.gives_of_two(united, [vec![(1_000, 0)], vec![(1_001, 0)], vec![(500, 0)], vec![(1_002, 500)]]);
    let connected = |left, right| by_key(left).connect(by_key(right)).process("watermarks", Watermarks);
    script.gives_of_two(connected, [vec![(1_000, None)], vec![(1_001, None)], vec![], vec![(1_002, Some(500))]]);
}

/// Counts of 5 s, summed up in 10 s.
fn chained(events: Stream<Event>) -> Stream<(i64, (u64, u64))> {
    let inner = by_key(events).window(Tumbling::of(secs(5))).aggregate("inner", Count);
    let outer = inner.key_by(|row| row.key.clone()).window(Tumbling::of(secs(10)));
    let outer = outer.aggregate("outer", (Sum::of(|row: &Windowed<String, u64>| row.value), Count));
    outer.map(|row| (seconds(row.window.start), row.value)).erase()
}

#[test]
fn windows_of_windows_close_with_one_watermark() {
    let script = Script::new([vec![on("a", 1), on("a", 6), on("a", 5)], vec![on("a", 10)]]).delay(0);
    // No drop is expected, in either operator.
    script.on_disk().gives(chained, [vec![], vec![(0, (3, 2))]]);
}

#[test]
fn a_stateful_operator_behind_an_aggregation_in_update_is_refused() {
    assert_eq!(refusal(OutputMode::Update, true, chained), "E-CHAIN-01");
    assert_eq!(refusal(OutputMode::Append, true, chained), "");
}

#[test]
fn a_row_without_time_is_in_no_window() {
    let script = Script::new([vec![on("a", 7), untimed("a")], vec![on("end", 10)]]).delay(0);
    script.dropping(DropReason::NoWindow, 1).gives(counts, [vec![], vec![counted("a", 0, 10, 1)]]);
}

#[test]
fn an_epoch_without_records_sends_what_the_watermark_closed() {
    let script = Script::new([vec![on("a", 5)], vec![on("a", 10)]]).delay(0);
    let both = |mut inputs: Vec<Stream<Event>>| {
        let events = inputs.remove(0);
        let records = events.clone().map(|event| (event.key, seconds(event.time))).erase();
        let windows = tens(events).aggregate("counts", Count);
        records.union(windows.map(|row| (format!("window of {}", row.key), seconds(row.window.start))).erase())
    };
    let ran = script.calm(ExecutionMode::MicroBatch, both);
    let epochs_of = |text: &str| -> Vec<u64> {
        ran.rows.iter().filter(|(_, row)| row.contains(text)).map(|(epoch, _)| *epoch).collect()
    };
    let (records, windows) = (epochs_of("(\"a\""), epochs_of("(\"window of a\", 0)"));
    assert_eq!((records.len(), windows.len()), (2, 1), "{:?}", ran.rows);
    assert_eq!(windows[0], records[1] + 1, "the window leaves with the next epoch, which has no record");
}
