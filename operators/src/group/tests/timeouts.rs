//! When a timeout fires, and when it does not.

use std::time::Duration;

use millstream_runtime::testing::{SimConfig, SimSink, SimSource, simulate};

use super::*;

/// What a call was: `row` or `timeout`, the key, whether there is a state, and the watermark.
type Call = (String, String, bool, i64);

/// Runs a function that does what the rows say: `timeout N` sets the timeout to N ms, `update` gives the key a state, `remove`
/// removes it. It tells of every call.
fn calls(script: impl IntoIterator<Item = Row>) -> Vec<Call> {
    let out = through(OutputMode::Append, script, |rows| {
        rows.flat_map_groups_with_state(
            "calls",
            OutputMode::Append,
            GroupTimeout::EventTime,
            |key, rows, state: &mut GroupState<u32>, out| {
                let what = if state.has_timed_out() { "timeout" } else { "row" };
                assert_eq!(rows.len() == 0, state.has_timed_out());
                out.emit((what.to_owned(), key.clone(), state.exists(), state.current_watermark_ms()?));
                for (_, _, says, _) in rows {
                    let mut words = says.split_whitespace();
                    while let Some(word) = words.next() {
                        match word {
                            "update" => state.update(1)?,
                            "remove" => state.remove(),
                            "timeout" => {
                                let millis = words.next().ok_or("no time")?.parse()?;
                                state.set_timeout_timestamp(at(millis))?;
                            }
                            "plus" => {
                                let millis = words.next().ok_or("no time")?.parse()?;
                                state.set_timeout_timestamp_plus(at(millis), "5 seconds")?;
                            }
                            other => return Err(format!("what is {other}?").into()),
                        }
                    }
                }
                Ok(())
            },
        )
    });
    out.unwrap()
}

fn called(what: &str, key: &str, exists: bool, watermark: i64) -> Call {
    (what.to_owned(), key.to_owned(), exists, watermark)
}

/// The watermark at the end of the input.
const END: i64 = i64::MAX / 1_000;

/// S-GS-07
#[test]
fn a_timeout_fires_strictly_behind_its_time() {
    let script = [
        row("a", 5, "update timeout 10", Some(9)),
        row("other", 11, "", Some(10)),
        row("other", 12, "", Some(11)),
        row("other", 13, "", None),
    ];
    let wanted = [
        called("row", "a", false, 0),
        called("row", "other", false, 9),
        called("row", "other", false, 10),
        called("timeout", "a", true, 11),
        called("row", "other", false, 11),
    ];
    assert_eq!(calls(script), wanted);
}

/// S-GS-08
#[test]
fn a_timeout_is_cleared_before_every_call() {
    let script = [row("a", 5, "update timeout 15", None), row("a", 14, "", Some(20)), row("a", 30, "", Some(40))];
    let wanted = [called("row", "a", false, 0), called("row", "a", true, 0), called("row", "a", true, 20)];
    assert_eq!(calls(script), wanted);
}

/// S-GS-08: so it is before a call that it causes.
#[test]
fn a_timeout_that_fired_is_gone_unless_it_is_set_again() {
    let out = through(OutputMode::Append, [row("a", 5, "", Some(25)), row("b", 26, "", Some(50))], |rows| {
        rows.flat_map_groups_with_state(
            "again",
            OutputMode::Append,
            GroupTimeout::EventTime,
            |key, _, state: &mut GroupState<u32>, out| {
                let (times, watermark) = (state.get_option().map_or(0, |times| *times), state.current_watermark_ms()?);
                out.emit((key.clone(), times, watermark));
                state.update(times + 1)?;
                if times == 0 {
                    state.set_timeout_timestamp(at(10.max(watermark)))?;
                } else if times < 3 && watermark < END {
                    state.set_timeout_timestamp(at(watermark + 5))?;
                } else {
                    // At the end of the input there is no time left: legal, and without effect.
                    state.set_timeout_timestamp(at(1))?;
                }
                Ok(())
            },
        )
    });
    let calls: Vec<(String, u32, i64)> = out.unwrap();
    let of = |key: &str| -> Vec<(u32, i64)> {
        calls.iter().filter(|call| call.0 == key).map(|call| (call.1, call.2)).collect()
    };
    // Set to 10 and fired at 25, set to 30 and fired at 50, set to 55 and fired at the end.
    assert_eq!(of("a"), [(0, 0), (1, 25), (2, 50), (3, END)]);
    assert_eq!(of("b"), [(0, 25), (1, 50), (2, END)]);
}

/// §4.1 rule 2: a row with a new timeout takes the place of the old one.
#[test]
fn the_timeout_that_was_set_last_holds() {
    let script = [
        row("a", 5, "timeout 10", None),
        row("a", 6, "timeout 8 timeout 30", Some(20)),
        row("b", 21, "", Some(31)),
        row("b", 40, "", None),
    ];
    let wanted = [
        called("row", "a", false, 0),
        called("row", "a", false, 0),
        called("row", "b", false, 20),
        called("timeout", "a", false, 31),
        called("row", "b", false, 31),
    ];
    assert_eq!(calls(script), wanted);
}

/// S-GS-11
#[test]
fn what_is_added_to_a_timeout_counts() {
    let script = [row("a", 5, "plus 1000", Some(6_000)), row("b", 6_500, "", Some(6_001)), row("b", 7_000, "", None)];
    let wanted = [
        called("row", "a", false, 0),
        called("row", "b", false, 6_000),
        called("timeout", "a", false, 6_001),
        called("row", "b", false, 6_001),
    ];
    assert_eq!(calls(script), wanted);
}

/// S-GS-14
#[test]
fn a_timeout_needs_no_state_and_outlives_its_removal() {
    let script = [
        row("without", 5, "timeout 10", None),
        row("removed", 6, "update", None),
        row("removed", 7, "timeout 10 remove", Some(11)),
        row("without", 20, "", None),
        row("removed", 21, "", Some(30)),
    ];
    let wanted = [
        called("row", "without", false, 0),
        called("row", "removed", false, 0),
        called("row", "removed", true, 0),
        called("timeout", "without", false, 11),
        called("timeout", "removed", false, 11),
        called("row", "without", false, 11),
        called("row", "removed", false, 11),
    ];
    let mut found = calls(script);
    // Timeouts of one time come in no particular order.
    found[3..5].sort_by(|left, right| right.1.cmp(&left.1));
    assert_eq!(found, wanted);
}

/// §3.3: all that are due fire, earliest first, and what they emit is not late for the next operator.
#[test]
fn results_of_a_timeout_are_not_late_behind_it() {
    #[derive(Clone)]
    struct Pass;
    impl KeyedProcess for Pass {
        type Key = u8;
        type In = (String, i64);
        type Out = (String, i64, i64);
        type State = ();
        fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
            Ok(())
        }
        fn on_record(
            &mut self,
            (key, time): (String, i64),
            _state: &mut (),
            ctx: &mut ProcessContext<'_, Self::Out>,
        ) -> Result<(), BoxError> {
            ctx.emit((key, time, ctx.time().as_micros()));
            Ok(())
        }
    }
    let script = [row("late", 5, "", Some(6)), row("early", 7, "", Some(30))];
    let out = through(OutputMode::Append, script, |rows| {
        let timed_out = rows.flat_map_groups_with_state(
            "timeouts",
            OutputMode::Append,
            GroupTimeout::EventTime,
            |key, rows, state: &mut GroupState<i64>, out| {
                for (_, time, ..) in rows {
                    // The watermark itself is legal.
                    let timeout = if key == "late" { 20 } else { state.current_watermark_ms()? };
                    state.set_timeout_timestamp(at(timeout))?;
                    state.update(time)?;
                    out.emit((key.clone(), time));
                }
                if state.has_timed_out() {
                    out.emit((key.clone(), -1));
                }
                Ok(())
            },
        );
        timed_out.key_by(|_| 0u8).process("pass", Pass)
    });
    let told = |key: &str, time, micros| (key.to_owned(), time, micros);
    let wanted = [told("late", 5, 5_000), told("early", 7, 7_000), told("early", -1, 6_001), told("late", -1, 20_001)];
    assert_eq!(out.unwrap(), wanted);
}

/// S-GS-13
#[test]
fn a_timeout_by_processing_time_fires_without_rows_soon_behind_its_time_and_never_before() {
    let outside = Outside::default();
    let pipeline = || {
        let pipeline = Pipeline::new("soon").parallelism(1);
        let source = SimSource { lengths: vec![6_000], seed: 3, first_split: 0 };
        let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
        let waited = pipeline.source("in", source).key_by(|numbered| numbered.seq).flat_map_groups_with_state(
            "waited",
            OutputMode::Append,
            GroupTimeout::ProcessingTime,
            |_, rows, state: &mut GroupState<i64>, out| {
                let now = state.current_processing_time_ms();
                if rows.next().is_some() {
                    state.set_timeout_duration(Duration::from_millis(3))?;
                    return Ok(state.update(now)?);
                }
                assert!(state.has_timed_out());
                out.emit(now - *state.get()?);
                state.remove();
                Ok(())
            },
        );
        waited.sink("out", sink);
        pipeline.into()
    };
    simulate(&SimConfig::calm(1), &pipeline).unwrap();
    let waited = numbers(&outside);
    assert!(waited.len() > 50, "{} of 6,000 timed out before the input ended", waited.len());
    assert!(waited.iter().all(|waited| (3..=6).contains(waited)), "{waited:?}");
}
