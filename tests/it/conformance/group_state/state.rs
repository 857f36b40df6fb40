//! The state of a key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream::operators::GroupError;
use millstream::operators::OutputMode;
use millstream::operators::prelude::*;
use millstream::runtime::id::ExecutionMode;
use millstream::runtime::operator::DropReason;

use crate::conformance::drive::{Event, MODES, Script, on, seconds};
use crate::conformance::pieces::{by_key, pair, refusal};

#[test]
fn each_method_of_the_state_does_what_it_says() {
    let all = |events| {
        let none = GroupTimeout::None;
        by_key(events).map_groups_with_state("all", none, |_, rows, state: &mut GroupState<Option<u64>>| {
            assert_eq!(rows.count(), 1);
            let before = state.get_option().and_then(|value| *value);
            let code = |error: GroupError| error.to_string()[..7].to_owned();
            let mut told = vec![format!("{} {before:?}", state.exists())];
            told.extend(state.get().err().map(code));
            told.extend(state.update(None).err().map(code));
            state.update(Some(1))?;
            state.remove();
            told.push(format!("{} {:?}", state.exists(), state.get_option().is_some()));
            told.extend(state.get().err().map(code));
            state.update(Some(before.unwrap_or(0) + 7))?;
            told.push(format!("{} {:?}", state.exists(), *state.get()?));
            Ok(told)
        })
    };
    let first = ["false None", "E-GS-10", "E-GS-11", "false false", "E-GS-10", "true Some(7)"];
    let second = ["true Some(7)", "E-GS-11", "false false", "E-GS-10", "true Some(14)"];
    let told = |told: &[&str]| vec![told.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()];
    let script = Script::new([vec![on("a", 1)], vec![on("a", 2)]]).mode(OutputMode::Update).on_disk();
    script.gives(all, [told(&first), told(&second)]);
}

/// The second of each row that comes through.
fn times(events: Stream<Event>, timeout: GroupTimeout) -> Stream<i64> {
    let mode = OutputMode::Append;
    by_key(events).flat_map_groups_with_state("times", mode, timeout, |_, rows, _: &mut GroupState<u64>, out| {
        out.extend(rows.map(|event| seconds(event.time)));
        Ok(())
    })
}

#[test]
fn rows_are_late_only_with_timeouts_by_event_time() {
    let script = Script::new([vec![on("a", 100)], vec![on("a", 50), on("a", 101)]]).delay(0);
    for kind in [GroupTimeout::None, GroupTimeout::ProcessingTime] {
        script.gives(|events| times(events, kind), [vec![100], vec![50, 101]]);
    }
    let script = script.dropping(DropReason::Late, 1);
    script.gives(|events| times(events, GroupTimeout::EventTime), [vec![100], vec![101]]);
}

fn watermark(events: Stream<Event>) -> Stream<i64> {
    let none = GroupTimeout::None;
    by_key(events).map_groups_with_state("watermark", none, |_, rows, state: &mut GroupState<u64>| {
        assert!(rows.count() > 0);
        Ok(state.current_watermark_ms()?)
    })
}

#[test]
fn the_watermark_is_zero_before_the_first_row() {
    let script = Script::new([vec![on("a", 20)], vec![on("a", 21)]]).mode(OutputMode::Update);
    script.clone().delay(0).gives(watermark, [vec![0], vec![20_000]]);
    for mode in MODES {
        let text = script.failure(mode, watermark);
        assert!(text.contains("E-GS-17"), "{mode:?}: {text}");
    }
}

#[test]
fn keys_with_an_initial_state_are_called_once() {
    type Call = (String, usize, Option<u64>);
    let told = |events: Stream<Event>| {
        let initial = [("a", 100), ("z", 200)].map(|(key, count): (&str, u64)| (key.to_owned(), count));
        let (mode, none) = (OutputMode::Append, GroupTimeout::None);
        by_key(events).initial_state(initial).flat_map_groups_with_state("told", mode, none, |key, rows, state, out| {
            assert!(!state.has_timed_out());
            let before = state.get_option().map(|count| *count);
            let rows = rows.count();
            if rows > 0 {
                state.update(before.unwrap_or(0) + rows as u64)?;
            }
            let call: Call = (key.clone(), rows, before);
            out.emit(call);
            Ok(())
        })
    };
    let call = |key: &str, rows, before| (key.to_owned(), rows, before);
    let script = Script::new([vec![on("a", 1), on("b", 2)], vec![on("z", 3)]]);
    let first = [call("a", 0, Some(100)), call("z", 0, Some(200)), call("a", 1, Some(100)), call("b", 1, None)];
    let wanted = [first.to_vec(), vec![call("z", 1, Some(200))]];
    script.gives_in(ExecutionMode::Continuous, |mut events| told(events.remove(0)), &wanted);
}

/// Sends two rows for each.
fn doubled(events: Stream<Event>, mode: OutputMode) -> Stream<(String, u64)> {
    let none = GroupTimeout::None;
    let doubled =
        by_key(events).flat_map_groups_with_state("doubled", mode, none, |_, rows, _: &mut GroupState<u64>, out| {
            for event in rows {
                out.extend([event.key.clone(), event.key]);
            }
            Ok(())
        });
    doubled.key_by(String::clone).aggregate("totals", Count)
}

#[test]
fn group_state_may_stand_before_an_aggregation() {
    let script = Script::new([vec![on("a", 1), on("b", 1)], vec![on("a", 2)]]).mode(OutputMode::Complete);
    script.gives(
        |events| doubled(events, OutputMode::Append),
        [vec![pair("a", 2), pair("b", 2)], vec![pair("a", 4), pair("b", 2)]],
    );
    for mode in [OutputMode::Update, OutputMode::Complete] {
        assert_eq!(refusal(mode, false, |events| doubled(events, OutputMode::Update)), "E-GS-03");
    }
}

#[test]
fn a_function_that_fails_leaves_no_trace() {
    let calls = Arc::new(AtomicU64::new(0));
    let count = |every: u64| {
        let calls = Arc::clone(&calls);
        move |events: Stream<Event>| {
            let (none, calls) = (GroupTimeout::None, Arc::clone(&calls));
            by_key(events).map_groups_with_state("count", none, move |_, rows, state: &mut GroupState<u64>| {
                let before = state.get_option().map_or(0, |count| *count);
                state.update(before + rows.count() as u64)?;
                if calls.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
                    return Err("it was to fail".into());
                }
                Ok(*state.get()?)
            })
        }
    };
    let script = Script::new([vec![on("a", 1)], vec![on("a", 2)], vec![on("a", 3)]]).mode(OutputMode::Update);
    script.gives(count(3), [vec![1], vec![2], vec![3]]);
    for mode in MODES {
        let text = script.failure(mode, count(1));
        assert!(text.contains("E-GS-20") && text.contains("it was to fail"), "{mode:?}: {text}");
    }
}
