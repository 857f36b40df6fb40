//! The state of a key: what each method does, and what does not fit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream_runtime::job::RestartPolicy;
use millstream_runtime::testing::{SimConfig, SimSink, SimSource, simulate};

use super::*;
use crate::GroupError;

/// S-GS-06
#[test]
fn each_method_of_the_state_does_what_it_says() {
    let out = untimed(OutputMode::Update, [row("a", 0, "", None), row("a", 0, "", None)], |rows| {
        rows.map_groups_with_state("all", GroupTimeout::None, |key, rows, state: &mut GroupState<Option<u32>>| {
            assert_eq!(rows.count(), 1);
            let before = state.get_option().and_then(|value| *value);
            let mut told = vec![format!("{key} {} {before:?}", state.exists())];
            if before.is_none() {
                assert!(matches!(state.get(), Err(GroupError::NotDefined)));
                told.extend(state.get().err().map(|error| error.to_string()));
            }
            told.extend(state.update(None).err().map(|error| error.to_string()));
            state.update(Some(1))?;
            state.remove();
            assert!(!state.exists() && state.get().is_err() && state.get_option().is_none());
            state.update(Some(before.unwrap_or(0) + 7))?;
            told.push(format!("{} {:?}", state.exists(), *state.get()?));
            assert!(!state.has_timed_out());
            Ok(told)
        })
    });
    let null = "E-GS-11: the state cannot be updated to nothing (`None` or `()`); call `remove` instead";
    let none = "E-GS-10: the key has no state; ask `exists` first, or use `get_option`";
    let wanted = [vec!["a false None", none, null, "true Some(7)"], vec!["a true Some(7)", null, "true Some(14)"]];
    assert_eq!(out.unwrap(), wanted);
}

/// §4.1 rule 7: what is fetched and not given back by `update` is lost; here the compiler lends it read-only, and a clone is a clone.
#[test]
fn a_fetched_state_is_a_copy_until_it_is_given_back() {
    let out = untimed(OutputMode::Append, [1, 2, 3].map(|n| row("a", n, "", None)), |rows| {
        rows.flat_map_groups_with_state(
            "list",
            OutputMode::Append,
            GroupTimeout::None,
            |_, rows, state: &mut GroupState<Vec<i64>>, out| {
                let mut list = state.get_option().map_or_else(Vec::new, |list| list.clone());
                for (_, n, ..) in rows {
                    list.push(n);
                    out.emit(list.clone());
                    if n != 2 {
                        state.update(list.clone())?;
                    }
                }
                Ok(())
            },
        )
    });
    assert_eq!(out.unwrap(), [vec![1], vec![1, 2], vec![1, 3]]);
}

/// S-GS-10, S-GS-12, S-GS-16
#[test]
fn what_does_not_fit_the_kind_of_timeouts_or_the_time_is_refused_by_its_code() {
    let ask = |state: &mut GroupState<u8>, wanted: &[&str]| -> Result<(), BoxError> {
        let hour = Duration::from_secs(3_600);
        let tried = [
            state.set_timeout_duration(hour),
            state.set_timeout_duration("0 seconds"),
            state.set_timeout_duration("-1 s"),
            state.set_timeout_duration("soon"),
            state.set_timeout_timestamp(at(9_999)),
            state.set_timeout_timestamp(at(10_000)),
            state.set_timeout_timestamp(at(0)),
            state.set_timeout_timestamp_plus(at(10_001), "-5 s"),
            state.set_timeout_timestamp_plus(at(5_000), "5 seconds"),
            state.set_timeout_timestamp_plus(at(5_000), Duration::from_secs(4)),
            state.current_watermark_ms().map(|_| ()),
        ];
        let told = tried.map(|tried| tried.err().map_or("ok".to_owned(), |error| error.to_string()[..7].to_owned()));
        // The millisecond is the processing time's, which is that of the harness's clock: the year 2100.
        assert!(state.current_processing_time_ms() > 4_000_000_000_000);
        if told == *wanted { Ok(()) } else { Err(format!("{told:?} instead of {wanted:?}").into()) }
    };
    let run = |timed: bool, kind: GroupTimeout, wanted: &'static [&'static str]| {
        let script = [row("a", 10_500, "", Some(10_000)), row("a", 10_600, "ask", None)];
        let describe = |rows: KeyedStream<String, Row>| {
            rows.map_groups_with_state("asked", kind, move |_, rows, state: &mut GroupState<u8>| {
                if rows.any(|(_, _, says, _)| says == "ask") {
                    ask(state, wanted)?;
                }
                Ok(state.has_timed_out())
            })
        };
        let ran = if timed {
            through(OutputMode::Update, script, describe)
        } else {
            untimed(OutputMode::Update, script, describe)
        };
        ran.map_err(|error| error.to_string()).unwrap()
    };
    let (no_duration, no_timestamp) = (["E-GS-12"; 4], ["E-GS-13"; 6]);
    let list = |duration: [&'static str; 4], timestamp: [&'static str; 6], watermark: &'static str| {
        let all: Vec<&'static str> = duration.into_iter().chain(timestamp).chain([watermark]).collect();
        &*all.leak()
    };
    assert_eq!(run(false, GroupTimeout::None, list(no_duration, no_timestamp, "E-GS-17")), [false; 2]);
    assert_eq!(run(true, GroupTimeout::None, list(no_duration, no_timestamp, "ok")), [false; 2]);
    let durations = ["ok", "E-GS-14", "E-GS-14", "E-GS-14"];
    assert_eq!(run(true, GroupTimeout::ProcessingTime, list(durations, no_timestamp, "ok")), [false; 2]);
    let timestamps = ["E-GS-16", "ok", "E-GS-14", "E-GS-15", "ok", "E-GS-16"];
    // The last one that was set holds, and the end of the input comes to it.
    assert_eq!(run(true, GroupTimeout::EventTime, list(no_duration, timestamps, "ok")), [false, false, true]);
}

/// S-GS-16
#[test]
fn the_watermark_is_zero_before_the_first_and_never_less() {
    let script = [row("a", 5, "", Some(-20)), row("a", 6, "", Some(7)), row("a", 9, "", None)];
    let out = through(OutputMode::Update, script, |rows| {
        rows.map_groups_with_state("mark", GroupTimeout::EventTime, |_, _, state: &mut GroupState<u8>| {
            Ok(state.current_watermark_ms()?)
        })
    });
    assert_eq!(out.unwrap(), [0, 0, 7]);
}

/// S-GS-15
#[test]
fn rows_are_late_only_where_timeouts_go_by_event_time() {
    let script = || {
        [
            row("a", 0, "at the beginning", None),
            row("a", 1, "in time", Some(10)),
            row("a", 10, "at the watermark", None),
            row("a", 11, "behind it", None),
        ]
    };
    let run = |kind: GroupTimeout, late: Option<&OutputTag<Row>>, accept: bool| {
        let out = through(OutputMode::Append, script(), |mut rows| {
            if let Some(tag) = late {
                rows = rows.late_to(tag);
            }
            if accept {
                rows = rows.accept_late();
            }
            let name = "kept";
            let kept = rows.flat_map_groups_with_state(
                name,
                OutputMode::Append,
                kind,
                |_, rows, _: &mut GroupState<u8>, out| {
                    out.extend(rows.map(|(_, _, says, _)| says));
                    Ok(())
                },
            );
            match late {
                None => kept,
                Some(tag) => {
                    let late = kept.side(tag).map(|(_, _, says, _)| says).erase();
                    kept.sink("kept-rows", SimSink { outside: Outside::default(), seed: 0, faults: 0.0 });
                    late
                }
            }
        });
        out.unwrap()
    };
    let all = script().map(|(_, _, says, _)| says);
    assert_eq!(run(GroupTimeout::None, None, false), all);
    assert_eq!(run(GroupTimeout::ProcessingTime, None, false), all);
    assert_eq!(run(GroupTimeout::EventTime, None, false), ["in time", "behind it"]);
    assert_eq!(run(GroupTimeout::EventTime, None, true), all);
    let late = OutputTag::new("late");
    assert_eq!(run(GroupTimeout::EventTime, Some(&late), false), ["at the beginning", "at the watermark"]);
}

/// S-GS-23
#[test]
fn a_function_that_fails_ends_the_attempt_and_leaves_no_trace_in_the_state() {
    let run = |fails: bool, restart: RestartPolicy| {
        let (outside, failed) = (Outside::default(), Arc::new(AtomicBool::new(!fails)));
        let pipeline = || {
            let pipeline = Pipeline::new("failing").output_mode(OutputMode::Update).parallelism(1);
            let source = SimSource { lengths: vec![60], seed: 3, first_split: 0 };
            let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
            let failed = Arc::clone(&failed);
            let counts = pipeline.source("in", source).key_by(|numbered| numbered.seq % 3).map_groups_with_state(
                "count",
                GroupTimeout::None,
                move |key, rows, state: &mut GroupState<u64>| {
                    let before = state.get_option().map_or(0, |count| *count);
                    let count = before + rows.count() as u64;
                    state.update(count)?;
                    if count == 11 && !failed.swap(true, Ordering::Relaxed) {
                        return Err("the eleventh is too many".into());
                    }
                    Ok((*key, count))
                },
            );
            counts.sink("out", sink);
            pipeline.into()
        };
        let mut config = SimConfig::calm(5);
        config.job.restart = restart;
        let ran = simulate(&config, &pipeline);
        (ran.map(|report| report.attempts).map_err(|failure| failure.to_string()), outside.rows())
    };
    let (calm, wanted) = run(false, RestartPolicy::never());
    let (restarted, found) = run(true, RestartPolicy::default());
    assert_eq!((calm.unwrap(), wanted.len()), (1, 60));
    assert_eq!((restarted.unwrap(), found), (2, wanted));
    let (text, _) = run(true, RestartPolicy::never());
    let text = text.unwrap_err();
    assert!(text.contains("E-GS-20") && text.contains("the eleventh is too many") && text.contains("count"), "{text}");
}

/// S-GS-18: what can be told from the pipeline's description is told before anything runs.
#[test]
fn what_does_not_go_together_is_refused_before_the_start() {
    let find = |mode: OutputMode, timed: bool, describe: &dyn Fn(KeyedStream<String, Row>)| -> Vec<String> {
        let pipeline = Pipeline::new("refused").output_mode(mode);
        let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
        let rows = pipeline.source("in", source).map(|numbered| row("a", numbered.seq as i64, "", None)).erase();
        let rows = if timed {
            rows.apply::<Row>(None, ScriptedTime::new(|(_, time, ..): &Row| (at(*time), None)))
        } else {
            rows
        };
        describe(rows.key_by_ref(|(key, ..)| key.as_str()));
        let errors = pipeline.validate().err().map_or_else(Vec::new, |errors| errors.0);
        errors.iter().map(ToString::to_string).collect()
    };
    let none = || SimSink { outside: Outside::default(), seed: 0, faults: 0.0 };
    let map = |rows: KeyedStream<String, Row>, name: &str, kind| {
        rows.map_groups_with_state(name, kind, |key, _, _: &mut GroupState<u8>| Ok(row(key, 0, "", None)))
    };
    let flat_map = |rows: KeyedStream<String, Row>, name: &str, mode, kind| {
        rows.flat_map_groups_with_state(name, mode, kind, |_, _, _: &mut GroupState<u8>, out| {
            out.emit(0u8);
            Ok(())
        })
    };
    use OutputMode::{Append, Complete, Update};

    let has = |errors: &[String], code: &str| {
        assert!(errors.iter().any(|error| error.starts_with(code)), "{code} is not in {errors:?}");
    };
    // S-GS-01
    let one_map = |rows: KeyedStream<String, Row>| map(rows, "map", GroupTimeout::None).sink("out", none());
    assert!(find(Update, false, &one_map).is_empty());
    has(&find(Append, false, &one_map), "E-GS-01");
    has(&find(Complete, false, &one_map), "E-GS-01");
    // S-GS-02
    for (own, query, code) in [
        (Append, Append, None),
        (Update, Update, None),
        (Append, Update, Some("E-GS-02")),
        (Update, Append, Some("E-GS-02")),
        (Complete, Complete, Some("E-GS-04")),
        (Complete, Append, Some("E-GS-04")),
    ] {
        let one = |rows| flat_map(rows, "flat-map", own, GroupTimeout::None).sink("out", none());
        let errors = find(query, false, &one);
        code.map_or_else(|| assert!(errors.is_empty(), "{errors:?}"), |code| has(&errors, code));
    }
    // What other operators do with records that fail is not for these.
    let skips = |rows: KeyedStream<String, Row>| one_map(rows.skip_errors());
    let quarantines = |rows: KeyedStream<String, Row>| one_map(rows.quarantine_panics());
    for errors in [find(Update, false, &skips), find(Update, false, &quarantines)] {
        assert!(errors.iter().any(|error| error.contains("map") && error.contains("skip_errors")), "{errors:?}");
    }
    // S-GS-18
    let by_event_time = |rows| flat_map(rows, "timed", Append, GroupTimeout::EventTime).sink("out", none());
    assert!(find(Append, true, &by_event_time).is_empty());
    has(&find(Append, false, &by_event_time), "E-GS-05");
    let two_maps = |rows| {
        let first = map(rows, "first", GroupTimeout::None).key_by_ref(|(key, ..)| key.as_str());
        map(first, "second", GroupTimeout::None).sink("out", none());
    };
    has(&find(Update, false, &two_maps), "E-GS-06");
    let mixed = |rows| {
        let first = map(rows, "first", GroupTimeout::None).key_by_ref(|(key, ..)| key.as_str());
        flat_map(first, "second", Update, GroupTimeout::None).sink("out", none());
    };
    has(&find(Update, false, &mixed), "E-GS-07");
    let two_flat_maps = |kind: GroupTimeout| {
        move |rows: KeyedStream<String, Row>, mode: OutputMode| {
            let first = flat_map(rows, "first", mode, kind).map(|n| row("a", i64::from(n), "", None)).erase();
            flat_map(first.key_by_ref(|(key, ..)| key.as_str()), "second", mode, GroupTimeout::None)
                .sink("out", none());
        }
    };
    assert!(find(Append, false, &|rows| two_flat_maps(GroupTimeout::None)(rows, Append)).is_empty());
    has(&find(Update, false, &|rows| two_flat_maps(GroupTimeout::None)(rows, Update)), "E-GS-08");
    has(&find(Append, true, &|rows| two_flat_maps(GroupTimeout::EventTime)(rows, Append)), "E-CHAIN-02");
}
