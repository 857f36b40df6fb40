//! S-GS: group state.

mod programs;
mod state;
mod timeouts;

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;

use super::drive::{Event, on};
use super::pieces::{by_key, refusal};
use super::table::{Group, Row, Standing, row};

pub(super) const GROUP: Group = Group { name: "GS", title: "Group state", module: "group_state", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-GS-01", "`map_groups_with_state` in *append* or *complete* is E-GS-01").passes("modes_that_do_not_fit_are_refused"),
    row("S-GS-02", "`flat_map_groups_with_state` of another mode than the query is E-GS-02, of *complete* E-GS-04").passes("modes_that_do_not_fit_are_refused"),
    row("S-GS-03", "The program of activity spans").passes("programs::the_span_of_each_users_activity"),
    row("S-GS-04", "The program of means of 500: nothing before the 500th row, then the count begins anew").passes("programs::the_mean_of_every_500_values"),
    row(
        "S-GS-05",
        "The program of sessions: one row per session where the timeout is asked for before the rows, none where among them",
    ).passes("programs::sessions_end_by_timeout_where_it_is_asked_for_before_the_rows"),
    row("S-GS-06", "`exists`, `get`, `get_option`, `update`, `remove`; no state is E-GS-10, nothing as state E-GS-11").passes("state::each_method_of_the_state_does_what_it_says"),
    row("S-GS-07", "A timeout fires strictly behind its time, without rows, and says so").passes("timeouts::a_timeout_fires_strictly_behind_its_time"),
    row("S-GS-08", "A timeout is cleared by the next call").passes("timeouts::a_call_clears_the_timeout"),
    row("S-GS-09", "A key that gets a row in the epoch in which its timeout is due has the call of the row only").passes("timeouts::a_row_goes_before_a_timeout_that_is_due").only_m(),
    row("S-GS-10", "A timeout before the watermark is E-GS-16, at it legal, 0 is E-GS-14, a negative extra E-GS-15").passes("timeouts::a_timeout_has_to_be_ahead"),
    row("S-GS-11", "A timeout of 1000 ms and 5 s more fires above 6000 ms").passes("timeouts::what_is_added_to_a_timeout_counts"),
    row("S-GS-12", "A duration with timeouts by event time is E-GS-12, a timestamp without timeouts E-GS-13").passes("timeouts::a_timeout_of_another_kind_is_refused"),
    row("S-GS-13", "A timeout by processing time fires without records, soon after its time and never before").passes("timeouts::a_timeout_by_processing_time_needs_no_record"),
    row("S-GS-14", "A timeout fires without state and after `remove`; afterwards nothing is left of the key").open("what is left in the store afterwards is not looked at yet"),
    row("S-GS-15", "Late rows are dropped with timeouts by event time, and kept without").passes("state::rows_are_late_only_with_timeouts_by_event_time"),
    row("S-GS-16", "The watermark is 0 before the first row; where there is none E-GS-17").passes("state::the_watermark_is_zero_before_the_first_row"),
    row("S-GS-17", "Initial state: its keys are called before the first row, once, and later rows see it").passes("state::keys_with_an_initial_state_are_called_once").m(Standing::Open("a key that has rows in the first batch is called twice: with its initial state alone, then with the rows")),
    row(
        "S-GS-18",
        "A key twice in the initial state is E-GS-18, timeouts by event time without watermark E-GS-05, two `map_groups` E-GS-06",
    ).passes("what_does_not_go_together_is_refused"),
    row("S-GS-21", "`flat_map` of *append* in front of an aggregation in *complete* runs; of *update* it is E-GS-03").passes("state::group_state_may_stand_before_an_aggregation"),
    row("S-GS-22", "On bounded input: one call per key with all rows, no state before").not_applicable("there are no batch queries: bounded input is a stream that ends"),
    row("S-GS-23", "A function that fails is E-GS-20; the epoch is done again and the state is as before").passes("state::a_function_that_fails_leaves_no_trace"),
    row("S-GS-24", "More than 3 events within 10 s for a key raise an alert").passes("programs::more_than_three_events_within_ten_seconds_raise_an_alert"),
];

use OutputMode::{Append, Complete, Update};

fn map(events: Stream<Event>, name: &str, timeout: GroupTimeout) -> Stream<Event> {
    by_key(events).map_groups_with_state(name, timeout, |key, _, _: &mut GroupState<u64>| Ok(on(key, 0)))
}

fn flat_map(events: Stream<Event>, name: &str, mode: OutputMode, timeout: GroupTimeout) -> Stream<Event> {
    by_key(events).flat_map_groups_with_state(name, mode, timeout, |key, _, _: &mut GroupState<u64>, out| {
        out.emit(on(key, 0));
        Ok(())
    })
}

#[test]
fn modes_that_do_not_fit_are_refused() {
    let one = |mode| refusal(mode, false, |events| map(events, "one", GroupTimeout::None));
    assert_eq!([Append, Update, Complete].map(one), ["E-GS-01", "", "E-GS-01"]);
    let of = |own, query| refusal(query, false, move |events| flat_map(events, "one", own, GroupTimeout::None));
    assert_eq!([of(Append, Append), of(Update, Update)], ["", ""]);
    assert_eq!([of(Append, Update), of(Update, Append), of(Append, Complete)], ["E-GS-02"; 3]);
    assert_eq!([of(Complete, Complete), of(Complete, Append), of(Complete, Update)], ["E-GS-04"; 3]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let by_event_time = |events| flat_map(events, "one", Append, GroupTimeout::EventTime);
    assert_eq!(refusal(Append, false, by_event_time), "E-GS-05");
    assert_eq!(refusal(Append, true, by_event_time), "");
    let two = |events| map(map(events, "first", GroupTimeout::None), "second", GroupTimeout::None);
    assert_eq!(refusal(Update, false, two), "E-GS-06");
    let twice = |events| {
        let initial = by_key(events).initial_state([("a", 1), ("b", 2), ("a", 3)].map(|(key, n)| (key.to_owned(), n)));
        initial.map_groups_with_state("twice", GroupTimeout::None, |key, _, _: &mut GroupState<u64>| Ok(key.clone()))
    };
    let refused = refusal(Update, false, twice);
    assert!(refused.contains("E-GS-18"), "{refused}");
}
