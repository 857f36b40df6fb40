//! S-MODE: output modes.

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::id::ExecutionMode;

use super::drive::{Event, Script, number, on, secs};
use super::pieces::{by_key, counted, counts, pair, refusal, totals};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "MODE", title: "Output modes", module: "mode", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-MODE-01", "*append*, no state: what passes a filter leaves once").passes("what_passes_a_filter_leaves_once"),
    row("S-MODE-02", "*update*, count by key: the last row of each key that was touched, and only of those")
        .passes("update_sends_the_last_row_of_the_keys_that_were_touched"),
    row("S-MODE-03", "*complete*, count by key: the whole table after each drain")
        .passes("complete_sends_the_whole_table"),
    row("S-MODE-04", "*update* without aggregation gives the rows of *append*")
        .passes("without_an_aggregation_update_is_append"),
    row(
        "S-MODE-05",
        "*append* of a count without watermark is refused with E-MODE-01, *complete* of a plain select with E-MODE-02",
    )
    .passes("what_never_becomes_final_or_is_no_table_is_refused"),
    row("S-MODE-07", "*append*, window: the window leaves exactly once, when the watermark has come to its end")
        .passes("append_sends_a_window_once_when_it_is_closed"),
    row("S-MODE-08", "*update*, window: each window that was touched leaves after the drain that touched it")
        .passes("update_sends_a_window_when_it_is_touched"),
    row("S-MODE-09", "*complete*, window: records behind the watermark count").passes("complete_keeps_late_records"),
    row("S-MODE-10", "*complete*, aggregate without key: one row of zero when everything was filtered out")
        .passes("an_aggregation_without_key_has_a_row_of_nothing"),
    row("S-MODE-11", "*update*: a row for each record, or one row per key and epoch where that is asked for")
        .passes("update_has_a_row_for_each_record_or_one_for_each_epoch")
        .only_c(),
    row("S-MODE-12", "An unknown mode is refused with E-MODE-04, *update* of sessions with E-MODE-03")
        .passes("modes_that_there_are_not_are_refused"),
];

#[test]
fn what_passes_a_filter_leaves_once() {
    let script = Script::new([vec![number("a", 1, 5), number("b", 2, 11), number("a", 3, 12)]]);
    script
        .on_disk()
        .gives(|events| events.filter(|event| event.number > 10).map(|event| event.number).erase(), [vec![11, 12]]);
}

#[test]
fn update_sends_the_last_row_of_the_keys_that_were_touched() {
    let script = Script::new([vec![on("a", 1), on("a", 2), on("b", 3)], vec![on("a", 4)]]).mode(OutputMode::Update);
    let third = vec![pair("a", 3)];
    script.gives_apart(
        totals,
        [vec![pair("a", 1), pair("a", 2), pair("b", 1)], third.clone()],
        [vec![pair("a", 2), pair("b", 1)], third],
    );
}

#[test]
fn complete_sends_the_whole_table() {
    let drains = [["cat", "dog", "dog", "dog"].as_slice(), &["cat", "owl"], &["dog", "owl"]];
    let script = Script::new(drains.map(|words| words.iter().map(|word| on(word, 1)).collect()));
    script.mode(OutputMode::Complete).on_disk().gives(
        totals,
        [
            vec![pair("cat", 1), pair("dog", 3)],
            vec![pair("cat", 2), pair("dog", 3), pair("owl", 1)],
            vec![pair("cat", 2), pair("dog", 4), pair("owl", 2)],
        ],
    );
}

#[test]
fn without_an_aggregation_update_is_append() {
    let script = Script::new([vec![on("a", 5), on("b", 11)], vec![on("a", 12), on("a", 12)]]);
    for mode in [OutputMode::Append, OutputMode::Update] {
        let doubled = |events: Stream<Event>| events.map(|event| event.time.as_micros() / 500_000).erase();
        script.clone().mode(mode).gives(doubled, [vec![10, 22], vec![24, 24]]);
    }
}

#[test]
fn what_never_becomes_final_or_is_no_table_is_refused() {
    assert_eq!(refusal(OutputMode::Append, false, totals), "E-MODE-01");
    assert_eq!(refusal(OutputMode::Complete, false, |events| events.map(|event| event.key).erase()), "E-MODE-02");
}

#[test]
fn append_sends_a_window_once_when_it_is_closed() {
    let script = Script::new([vec![on("a", 5)], vec![on("a", 10)], vec![on("a", 11)]]).delay(0);
    script.on_disk().gives(counts, [vec![], vec![counted("a", 0, 10, 1)], vec![]]);
}

#[test]
fn update_sends_a_window_when_it_is_touched() {
    let script = Script::new([vec![on("a", 5)], vec![on("a", 10)]]).delay(0).mode(OutputMode::Update);
    script.gives(counts, [vec![counted("a", 0, 10, 1)], vec![counted("a", 10, 20, 1)]]);
}

#[test]
fn complete_keeps_late_records() {
    let script = Script::new([vec![on("a", 5), on("a", 100)], vec![on("a", 6)], vec![on("a", 7)]]);
    let table = |late| vec![counted("a", 0, 10, late), counted("a", 100, 110, 1)];
    script.delay(0).mode(OutputMode::Complete).gives(counts, [table(1), table(2), table(3)]);
}

#[test]
fn an_aggregation_without_key_has_a_row_of_nothing() {
    let script = Script::new([vec![on("a", 1), on("b", 2)], vec![on("c", 1)]]).mode(OutputMode::Complete);
    // The last epoch of a life has that row too, so that there is one where nothing ever came.
    let script = script.without_stops();
    script.gives(|events| events.filter(|event| event.number > 5).aggregate("all", Count), [vec![0], vec![0]]);
}

#[test]
fn update_has_a_row_for_each_record_or_one_for_each_epoch() {
    let script = Script::new([vec![on("a", 1), on("a", 2)]]).mode(OutputMode::Update);
    let inputs = |mut inputs: Vec<Stream<Event>>| inputs.remove(0);
    script.gives_in(ExecutionMode::Continuous, |events| totals(inputs(events)), &[vec![pair("a", 1), pair("a", 2)]]);
    let per_epoch = |events| {
        let totals = by_key(inputs(events)).window(Global).trigger(Trigger::epoch()).aggregate("totals", Count);
        totals.map(|row| (row.key, row.value)).erase()
    };
    script.gives_in(ExecutionMode::Continuous, per_epoch, &[vec![pair("a", 2)]]);
}

#[test]
fn modes_that_there_are_not_are_refused() {
    let error = "foo".parse::<OutputMode>().unwrap_err().to_string();
    assert!(error.contains("E-MODE-04") && error.contains("foo"), "{error}");
    let sessions = |events| by_key(events).window(Session::gap(secs(5))).aggregate("sessions", Count);
    assert_eq!(refusal(OutputMode::Update, true, sessions), "E-MODE-03");
}
