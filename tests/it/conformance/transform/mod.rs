//! S-TWS: `transform_with_state`.

mod obeying;

use std::time::Duration;

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;

use self::obeying::Obeying;
use super::drive::{Event, MODES, Script, number, on, says, secs};
use super::pieces::{by_key, refusal};
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "TWS", title: "`transform_with_state`", module: "transform", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-TWS-01", "Each method of `ValueState`, `ListState` and `MapState`, also behind a restart")
        .passes("each_method_of_a_variable_does_what_it_says"),
    row("S-TWS-02", "A timer fires at its time: 10 s at watermark 10 s").passes("a_timer_fires_at_its_time"),
    row("S-TWS-03", "Several timers of a key fire in the order of their times, each once")
        .passes("timers_fire_in_the_order_of_their_times_each_once"),
    row("S-TWS-04", "A timer in the past fires in the same epoch, a deleted one never, one that fires is still listed")
        .passes("a_timer_in_the_past_fires_in_its_epoch_and_a_deleted_one_never"),
    row("S-TWS-06", "A value is gone 1 s after it was written, and writing it begins that anew")
        .passes("a_value_is_gone_once_its_time_is_over"),
    row("S-TWS-07", "Timers and times to live that do not fit the time mode: E-TWS-01 to 03")
        .passes("what_does_not_fit_the_time_mode_is_refused"),
    row("S-TWS-08", "Initial state comes before any row, once in the life of the query")
        .passes("initial_state_comes_once_before_any_row"),
    row("S-TWS-09", "Between two starts a variable may come, empty, and go, removed")
        .passes("group_state::variables_come_and_go_between_two_starts"),
];

fn obeying(events: Stream<Event>, time_mode: TimeMode) -> Stream<String> {
    by_key(events).transform_with_state("obeying", OutputMode::Append, time_mode, Obeying::default())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn each_method_of_a_variable_does_what_it_says() {
    let steps = [
        ("update", 1, "Some(1) [] []"),
        ("append", 2, "Some(1) [2] []"),
        ("append-all", 3, "Some(1) [2, 3, 3] []"),
        ("put", 4, "Some(1) [4, 5] []"),
        ("insert", 6, "Some(1) [4, 5] [(6, 6)]"),
        ("insert", 7, "Some(1) [4, 5] [(6, 6), (7, 7)]"),
        ("remove", 6, "Some(1) [4, 5] [(7, 7)]"),
        ("clear-list", 0, "Some(1) [] [(7, 7)]"),
        ("append", 8, "Some(1) [8] [(7, 7)]"),
        ("clear-map", 0, "Some(1) [8] []"),
        ("clear-value", 0, "None [8] []"),
    ];
    // Each in a drain of its own, so that every run with stops and crashes restarts behind it.
    let script = Script::new(steps.map(|(what, n, _)| vec![Event { number: n, ..says("a", 1, what) }])).on_disk();
    script.gives(|events| obeying(events, TimeMode::None), steps.map(|(.., told)| texts(&[told])));
}

#[test]
fn a_timer_fires_at_its_time() {
    let script = Script::new([vec![says("a", 5, "register 10")], vec![on("b", 9)], vec![on("b", 10)]]).delay(0);
    script.gives(|events| obeying(events, TimeMode::EventTime), [vec![], vec![], texts(&["1st: 10 at 10 of [10]"])]);
}

#[test]
fn timers_fire_in_the_order_of_their_times_each_once() {
    let registers = "register 12 register 10 register 3 register 10 register 40 register 30";
    let drains =
        [vec![says("a", 5, registers)], vec![on("b", 10)], vec![on("b", 13)], vec![on("b", 50)], vec![on("b", 60)]];
    Script::new(drains).delay(0).gives(
        |events| obeying(events, TimeMode::EventTime),
        [
            texts(&["1st: 3 at 5 of [3, 10, 12, 30, 40]"]),
            texts(&["2nd: 10 at 10 of [10, 12, 30, 40]"]),
            texts(&["3rd: 12 at 13 of [12, 30, 40]"]),
            texts(&["4th: 30 at 50 of [30, 40]", "5th: 40 at 50 of [40]"]),
            vec![],
        ],
    );
}

#[test]
fn a_timer_in_the_past_fires_in_its_epoch_and_a_deleted_one_never() {
    let drains = [
        vec![on("a", 11)],
        vec![says("a", 20, "tell register 1 register 30 register 40 delete 30")],
        vec![on("b", 100)],
        vec![on("b", 200)],
    ];
    let script = Script::new(drains).delay(0);
    let timers = |events| obeying(events, TimeMode::EventTime);
    let past = texts(&["1st: 1 at 11 of [1, 40]", "row"]);
    script.gives(timers, [vec![], past.clone(), texts(&["2nd: 40 at 100 of [40]"]), vec![]]);
    for mode in MODES {
        let ran = script.calm(mode, |mut events| timers(events.remove(0)));
        let epochs: Vec<u64> =
            past.iter().map(|told| ran.rows.iter().find(|(_, row)| row.contains(told)).unwrap().0).collect();
        assert_eq!(epochs[0], epochs[1], "{mode:?}: {:?}", ran.rows);
    }
}

#[test]
fn a_value_is_gone_once_its_time_is_over() {
    let write = |n: i64| vec![Event { number: n, ..says("a", 1, "mortal") }];
    let read = || vec![says("a", 1, "tell-mortal")];
    // About 0.7 s apart: written again at 0.7 s, so it is there at 1.5 s, where the first would be gone, and gone at 2.2 s.
    let script = Script::new([write(1), write(2), read(), read()]).lasting(Duration::from_millis(700)).undisturbed();
    let mortal = |events| {
        let mortal = Obeying { ttl: Some(secs(1)) };
        by_key(events).transform_with_state("mortal", OutputMode::Append, TimeMode::ProcessingTime, mortal)
    };
    script.gives(mortal, [vec![], vec![], texts(&["Some(2)"]), texts(&["None"])]);
}

#[test]
fn what_does_not_fit_the_time_mode_is_refused() {
    let mortal = |ttl: Duration, time_mode: TimeMode| {
        refusal(OutputMode::Append, true, move |events| {
            let processor = Obeying { ttl: Some(ttl) };
            by_key(events).transform_with_state("mortal", OutputMode::Append, time_mode, processor)
        })
    };
    let zero = mortal(Duration::ZERO, TimeMode::ProcessingTime);
    assert!(zero.contains("E-TWS-02"), "{zero}");
    for time_mode in [TimeMode::None, TimeMode::EventTime] {
        let refused = mortal(secs(1), time_mode);
        assert!(refused.contains("E-TWS-03"), "{refused}");
    }
    for mode in MODES {
        let script = Script::new([vec![says("a", 1, "register 5")]]);
        let failure = script.failure(mode, |events| obeying(events, TimeMode::None));
        assert!(failure.contains("E-TWS-01"), "{mode:?}: {failure}");
    }
}

#[test]
fn initial_state_comes_once_before_any_row() {
    let sums = |events| {
        let initial = [("a", 100), ("a", 1), ("z", 200)].map(|(key, n): (&str, i64)| (key.to_owned(), n));
        let initial = by_key(events).initial_state(initial);
        initial.transform_with_state("sums", OutputMode::Append, TimeMode::None, obeying::Sums)
    };
    let script =
        Script::new([vec![number("a", 1, 5), number("b", 1, 7)], vec![number("z", 1, 3)], vec![number("a", 1, 1)]]);
    script.gives(
        sums,
        [
            texts(&["a 106", "a initial 100", "a initial 101", "b 7", "z initial 200"]),
            texts(&["z 203"]),
            texts(&["a 107"]),
        ],
    );
}
