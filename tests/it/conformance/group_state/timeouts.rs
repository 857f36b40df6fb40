//! When a timeout fires, and which cannot be set.

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::time::Timestamp;

use crate::conformance::drive::{Event, MODES, Script, at, micros, on, says};
use crate::conformance::pieces::by_key;

/// What a call was: `row` or `timeout`, the key, whether there is a state, and the watermark in seconds.
type Call = (String, String, bool, i64);

fn called(what: &str, key: &str, exists: bool, watermark: i64) -> Call {
    (what.to_owned(), key.to_owned(), exists, watermark)
}

/// Does what a row says; times in milliseconds.
fn obey(says: &str, state: &mut GroupState<u64>) -> Result<(), BoxError> {
    let mut words = says.split_whitespace();
    while let Some(word) = words.next() {
        let mut millis =
            || -> Result<Timestamp, BoxError> { Ok(Timestamp::from_millis(words.next().ok_or("no time")?.parse()?)) };
        match word {
            "update" => state.update(1)?,
            "remove" => state.remove(),
            "timeout" => state.set_timeout_timestamp(millis()?)?,
            "plus" => state.set_timeout_timestamp_plus(millis()?, "5 seconds")?,
            other => return Err(format!("what is {other}?").into()),
        }
    }
    Ok(())
}

/// Does what rows say, and tells of every call.
fn calls(events: Stream<Event>) -> Stream<Call> {
    let (mode, timeout) = (OutputMode::Append, GroupTimeout::EventTime);
    by_key(events).flat_map_groups_with_state("calls", mode, timeout, |key, rows, state: &mut GroupState<u64>, out| {
        assert_eq!(rows.len() == 0, state.has_timed_out());
        let what = if state.has_timed_out() { "timeout" } else { "row" };
        out.emit((what.to_owned(), key.clone(), state.exists(), state.current_watermark_ms()? / 1_000));
        rows.try_for_each(|event| obey(&event.says, state))
    })
}

#[test]
fn a_timeout_fires_strictly_behind_its_time() {
    let script = Script::new([vec![says("a", 5, "update timeout 10000")], vec![on("b", 10)], vec![on("b", 11)]]);
    script.delay(0).on_disk().gives(
        calls,
        [
            vec![called("row", "a", false, 0)],
            vec![called("row", "b", false, 5)],
            vec![called("row", "b", false, 10), called("timeout", "a", true, 11)],
        ],
    );
}

#[test]
fn a_call_clears_the_timeout() {
    let script = Script::new([vec![says("a", 5, "update timeout 15000")], vec![on("a", 14)], vec![on("b", 30)]]);
    script.delay(0).gives(
        calls,
        [vec![called("row", "a", false, 0)], vec![called("row", "a", true, 5)], vec![called("row", "b", false, 14)]],
    );
}

#[test]
fn a_row_goes_before_a_timeout_that_is_due() {
    let drains = [vec![says("a", 5, "update timeout 10000")], vec![on("b", 20)], vec![on("a", 21)], vec![on("b", 22)]];
    // The watermark of 20 s is that of the third batch. A stop in good order has an epoch of its own, which brings it.
    let script = Script::new(drains).delay(0).no_data_epochs(false).without_stops();
    let wanted = [
        vec![called("row", "a", false, 0)],
        vec![called("row", "b", false, 0)],
        vec![called("row", "a", true, 5)],
        vec![called("row", "b", false, 20)],
    ];
    script.gives_in(ExecutionMode::MicroBatch, |mut events| calls(events.remove(0)), &wanted);
}

#[test]
fn what_is_added_to_a_timeout_counts() {
    let drains = [vec![says("a", 1, "plus 1000")], vec![on("b", 6)], vec![micros("b", 6_001_000)]];
    let script = Script::new(drains).delay(0);
    script.gives(
        calls,
        [
            vec![called("row", "a", false, 0)],
            vec![called("row", "b", false, 1)],
            vec![called("row", "b", false, 6), called("timeout", "a", false, 6)],
        ],
    );
}

/// The codes of what is tried in the last row.
fn tried(
    events: Stream<Event>,
    kind: GroupTimeout,
    all: fn(&mut GroupState<u64>) -> Vec<Result<(), millstream::operators::GroupError>>,
) -> Stream<Vec<String>> {
    let mode = OutputMode::Append;
    by_key(events).flat_map_groups_with_state("tried", mode, kind, move |_, rows, state, out| {
        if rows.any(|event| event.says == "try") {
            let codes =
                all(state).into_iter().map(|tried| tried.err().map_or("ok".to_owned(), |e| e.to_string()[..7].into()));
            out.emit(codes.collect());
        }
        Ok(())
    })
}

fn codes(codes: &[&str]) -> Vec<Vec<String>> {
    vec![codes.iter().map(|code| (*code).to_owned()).collect()]
}

#[test]
fn a_timeout_has_to_be_ahead() {
    let script = Script::new([vec![on("a", 10)], vec![says("a", 11, "try")]]).delay(0);
    let all = |state: &mut GroupState<u64>| {
        vec![
            state.set_timeout_timestamp(Timestamp::from_millis(9_999)),
            state.set_timeout_timestamp(at(10)),
            state.set_timeout_timestamp(at(0)),
            state.set_timeout_timestamp_plus(at(20), "-5 s"),
            state.set_timeout_timestamp_plus(at(5), "4 s"),
            state.set_timeout_timestamp_plus(at(5), "5 s"),
        ]
    };
    let wanted = codes(&["E-GS-16", "ok", "E-GS-14", "E-GS-15", "E-GS-16", "ok"]);
    // The last one that was set holds: at the watermark, so it fires with the next one.
    script.gives(|events| tried(events, GroupTimeout::EventTime, all), [vec![], wanted]);
}

#[test]
fn a_timeout_of_another_kind_is_refused() {
    let script = Script::new([vec![says("a", 11, "try")]]).delay(0);
    let all =
        |state: &mut GroupState<u64>| vec![state.set_timeout_duration("5 s"), state.set_timeout_timestamp(at(20))];
    for (kind, wanted) in [
        (GroupTimeout::EventTime, ["E-GS-12", "ok"]),
        (GroupTimeout::None, ["E-GS-12", "E-GS-13"]),
        (GroupTimeout::ProcessingTime, ["ok", "E-GS-13"]),
    ] {
        script.gives(|events| tried(events, kind, all), [codes(&wanted)]);
    }
}

/// Sets a timeout of half a second, and tells how many milliseconds it took.
fn delays(events: Stream<Event>) -> Stream<i64> {
    let (mode, timeout) = (OutputMode::Append, GroupTimeout::ProcessingTime);
    by_key(events).flat_map_groups_with_state("delays", mode, timeout, |_, _, state: &mut GroupState<i64>, out| {
        let now = state.current_processing_time_ms();
        if state.has_timed_out() {
            out.emit(now - *state.get()?);
            state.remove();
            return Ok(());
        }
        state.update(now)?;
        Ok(state.set_timeout_duration("500 ms")?)
    })
}

#[test]
fn a_timeout_by_processing_time_needs_no_record() {
    let script = Script::new([vec![on("a", 1)], vec![]]);
    // However lives end, it comes once, and never too early.
    script.gives(|events| delays(events).map(|millis| millis >= 500).erase(), [vec![true], vec![]]);
    for mode in MODES {
        let ran = script.calm(mode, |mut events| delays(events.remove(0)));
        let millis: i64 = ran.drains[0][0].parse().unwrap();
        assert!((500..=600).contains(&millis), "{mode:?}: {millis} ms");
    }
}
