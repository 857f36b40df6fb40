//! S-SESS: sessions.

use std::time::Duration;

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::operator::DropReason;

use super::drive::{Event, Script, number, on, secs};
use super::pieces::{Counted, by_key, counted, counts_in};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "SESS", title: "Sessions", module: "session", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-SESS-01", "Sessions that touch are one").passes("sessions_that_touch_are_one"),
    row("S-SESS-02", "A row behind the watermark joins a session that is still open")
        .passes("a_row_behind_the_watermark_extends_a_session_that_is_open"),
    row("S-SESS-03", "A gap per row: the session is the union of the rows' ranges; a row with gap 0 is in none")
        .passes("a_session_is_the_union_of_its_rows"),
    row("S-SESS-05", "Sessions need a key besides the session: E-WIN-05")
        .not_applicable("`window` is a method of keyed streams: a session without a key cannot be written"),
    row("S-SESS-06", "*complete*: the whole table of sessions after each drain").passes("complete_sends_all_sessions"),
];

fn sessions(events: Stream<Event>) -> Stream<Counted> {
    counts_in(by_key(events).window(Session::gap(secs(5))))
}

#[test]
fn sessions_that_touch_are_one() {
    let script = Script::new([vec![on("a", 0), on("a", 5), on("a", 11)], vec![on("end", 100)]]).delay(0);
    script.on_disk().gives(sessions, [vec![counted("a", 0, 10, 2)], vec![counted("a", 11, 16, 1)]]);
}

#[test]
fn a_row_behind_the_watermark_extends_a_session_that_is_open() {
    let script = Script::new([vec![on("a", 0), on("a", 8)], vec![on("a", 4)], vec![on("end", 100)]]).delay(2);
    script.gives(sessions, [vec![counted("a", 0, 5, 1)], vec![], vec![counted("a", 4, 13, 2)]]);
}

#[test]
fn a_session_is_the_union_of_its_rows() {
    let rows = vec![number("a", 0, 20), number("a", 3, 5), number("a", 4, 0), number("b", 4, 0)];
    let script = Script::new([rows, vec![number("end", 100, 1)]]).delay(0).dropping(DropReason::NoWindow, 2);
    let gap = |event: &Event| Duration::from_secs(event.number.unsigned_abs());
    script
        .gives(|events| counts_in(by_key(events).window(Session::gap_of(gap))), [vec![], vec![counted("a", 0, 20, 2)]]);
}

#[test]
fn complete_sends_all_sessions() {
    let script = Script::new([vec![on("a", 0), on("b", 60)], vec![on("a", 11)], vec![on("a", 5)]]);
    let b = counted("b", 60, 65, 1);
    script.delay(0).mode(OutputMode::Complete).gives(
        sessions,
        [
            vec![counted("a", 0, 5, 1), b.clone()],
            vec![counted("a", 0, 5, 1), counted("a", 11, 16, 1), b.clone()],
            vec![counted("a", 0, 10, 2), counted("a", 11, 16, 1), b],
        ],
    );
}
