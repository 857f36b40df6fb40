//! S-DEDUP: duplicates.

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::operator::DropReason;

use super::drive::{Event, Script, number, on, seconds, secs};
use super::pieces::{by_key, counted, counts, refusal};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "DEDUP", title: "Duplicates", module: "dedup", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-DEDUP-01", "`distinct`: each record once, in *append* and *update*").passes("each_record_is_sent_once"),
    row("S-DEDUP-02", "By key without a time: the first record of a key for ever")
        .passes("a_key_without_time_is_remembered_for_ever"),
    row(
        "S-DEDUP-03",
        "By key and time: the first of each pair; the pair is forgotten once the watermark has come to its time",
    )
    .passes("a_key_with_its_time_is_forgotten_when_the_watermark_has_come_to_it"),
    row(
        "S-DEDUP-04",
        "Within the watermark: remembered from the first record's time for the delay; duplicates do not prolong it",
    )
    .passes("within_the_watermark_a_key_is_remembered_from_its_first_record"),
    row("S-DEDUP-05", "Within the watermark needs a watermark: E-WM-03")
        .passes("forgetting_by_the_watermark_needs_one"),
    row("S-DEDUP-06", "Duplicates out, then a windowed count in *complete*: each counted once")
        .passes("duplicates_count_once_in_windows_behind"),
];

/// Key and second.
fn shown(events: Stream<Event>) -> Stream<(String, i64)> {
    events.map(|event| (event.key, seconds(event.time))).erase()
}

fn row_of(key: &str, second: i64) -> (String, i64) {
    (key.to_owned(), second)
}

#[test]
fn each_record_is_sent_once() {
    let script = Script::new([vec![on("a", 1), on("a", 2)], vec![on("b", 3), on("a", 4)]]);
    let script = script.dropping(DropReason::Duplicate, 2);
    for mode in [OutputMode::Append, OutputMode::Update] {
        let keys = |events: Stream<Event>| events.map(|event| event.key).distinct("keys");
        script.clone().mode(mode).gives(keys, [vec!["a".to_owned()], vec!["b".to_owned()]]);
    }
}

#[test]
fn a_key_without_time_is_remembered_for_ever() {
    let script = Script::new([vec![on("a", 10)], vec![on("b", 100)], vec![on("a", 101)]]).delay(0);
    let first = |events| shown(by_key(events).drop_duplicates("first"));
    script.dropping(DropReason::Duplicate, 1).gives(first, [vec![row_of("a", 10)], vec![row_of("b", 100)], vec![]]);
}

#[test]
fn a_key_with_its_time_is_forgotten_when_the_watermark_has_come_to_it() {
    let drains = [vec![on("a", 10), on("a", 10), on("a", 11)], vec![on("b", 15)], vec![on("a", 10), on("a", 11)]];
    let script = Script::new(drains).delay(5).on_disk();
    let first = |events| shown(by_key(events).drop_duplicates_by_time("first"));
    let both = vec![row_of("a", 10), row_of("a", 11)];
    let script = script.dropping(DropReason::Duplicate, 2).dropping(DropReason::Late, 1);
    script.gives(first, [both.clone(), vec![row_of("b", 15)], vec![]]);
    // Whoever takes late rows sees that of 10 s, where the watermark is, nothing is left, and of 11 s there is.
    let accepting = |events| shown(by_key(events).accept_late().drop_duplicates_by_time("first"));
    let script = Script::new([vec![on("a", 10), on("a", 11)], vec![on("b", 15)], vec![on("a", 10), on("a", 11)]]);
    let script = script.delay(5).dropping(DropReason::Duplicate, 1);
    script.gives(accepting, [both, vec![row_of("b", 15)], vec![row_of("a", 10)]]);
}

#[test]
fn within_the_watermark_a_key_is_remembered_from_its_first_record() {
    let script = Script::new([
        vec![on("a", 10)],
        vec![on("a", 19)],
        vec![on("x", 29)],
        vec![on("a", 20)],
        vec![on("x2", 30)],
        vec![on("a", 31)],
    ]);
    let first = |events| shown(by_key(events).drop_duplicates_within_watermark("first", secs(10)));
    script.delay(10).dropping(DropReason::Duplicate, 2).gives(
        first,
        [vec![row_of("a", 10)], vec![], vec![row_of("x", 29)], vec![], vec![row_of("x2", 30)], vec![row_of("a", 31)]],
    );
}

#[test]
fn forgetting_by_the_watermark_needs_one() {
    let within = |events| by_key(events).drop_duplicates_within_watermark("first", secs(10));
    assert_eq!(refusal(OutputMode::Append, false, within), "E-WM-03");
    assert_eq!(refusal(OutputMode::Append, true, within), "");
}

#[test]
fn duplicates_count_once_in_windows_behind() {
    let minutes = |minutes: i64| minutes * 60;
    // The number says what a record is; it may be sent again for half an hour.
    let script = Script::new([
        vec![number("a", 1, 1), number("a", 2, 2), number("a", 1, 1)],
        vec![number("a", minutes(20), 3), number("a", 2, 2)],
        vec![number("b", 3, 4), number("a", minutes(20), 3)],
    ]);
    let counted_once = |events: Stream<Event>| {
        let unique = events.key_by(|event| (event.key.clone(), event.number));
        counts(unique.drop_duplicates_within_watermark("unique", secs(1_800)))
    };
    let (first, later) = (counted("a", 0, 10, 2), counted("a", 1_200, 1_210, 1));
    script.delay(1_800).mode(OutputMode::Complete).dropping(DropReason::Duplicate, 3).gives(
        counted_once,
        [vec![first.clone()], vec![first.clone(), later.clone()], vec![first, later, counted("b", 0, 10, 1)]],
    );
}
