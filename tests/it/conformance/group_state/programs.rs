//! Whole programs as people write them.

use std::collections::VecDeque;

use millstream::operators::OutputMode;
use millstream::operators::prelude::*;

use crate::conformance::drive::{Event, Script, number, on, says, seconds};
use crate::conformance::pieces::by_key;

/// A user's last activity, from when to when.
type Span = (String, i64, i64);

fn spans(events: Stream<Event>) -> Stream<Span> {
    by_key(events).map_groups_with_state("spans", GroupTimeout::None, |_, rows, state: &mut GroupState<Span>| {
        let mut span = state.get_option().map(|span| span.clone());
        for Event { says, number: time, .. } in rows {
            span = Some(match span.take() {
                Some((before, start, end)) if before == says => (before, start.min(time), end.max(time)),
                Some((before, start, end)) if time <= end => (before, start, end),
                _ => (says, time, time),
            });
        }
        let span = span.ok_or("a call without rows")?;
        state.update(span.clone())?;
        Ok(span)
    })
}

#[test]
fn the_span_of_each_users_activity() {
    let rows = [("walk", 10_001), ("walk", 10_005), ("sit", 10_007), ("walk", 10_003)];
    let rows = rows.map(|(activity, time)| Event { number: time, ..says("u", 1, activity) });
    let span = |activity: &str, start: i64, end: i64| (activity.to_owned(), start, end);
    let last = span("sit", 10_007, 10_007);
    let wanted = [span("walk", 10_001, 10_001), span("walk", 10_001, 10_005), last.clone(), last.clone()];
    let script = Script::new(rows.clone().map(|row| vec![row])).mode(OutputMode::Update).on_disk();
    script.gives(spans, wanted.clone().map(|span| vec![span]));
    let script = Script::new([rows.to_vec()]).mode(OutputMode::Update);
    script.gives_apart(spans, [wanted.to_vec()], [vec![last]]);
}

#[test]
fn the_mean_of_every_500_values() {
    let means = |events| {
        let (mode, none) = (OutputMode::Append, GroupTimeout::None);
        by_key(events).flat_map_groups_with_state(
            "means",
            mode,
            none,
            |_, rows, state: &mut GroupState<Vec<i64>>, out| {
                let mut values = state.get_option().map_or_else(Vec::new, |values| values.clone());
                for event in rows {
                    values.push(event.number);
                    if values.len() == 500 {
                        out.emit(values.iter().sum::<i64>() as f64 / 500.0);
                        values.clear();
                    }
                }
                Ok(state.update(values)?)
            },
        )
    };
    let values = |from: i64, to: i64| (from..=to).map(|value| number("device", 1, value)).collect::<Vec<_>>();
    let script = Script::new([values(1, 499), values(500, 500), values(501, 999), values(1_000, 1_000)]);
    script.gives(means, [vec![], vec![250.5], vec![], vec![750.5]]);
}

/// Sessions end 5 s after their last row, or with the 1000th. As one program has it, the timeout is asked for among the rows, of which its
/// call has none.
fn sessions(events: Stream<Event>, asked_among_rows: bool) -> Stream<(String, usize)> {
    let (mode, timeout) = (OutputMode::Append, GroupTimeout::EventTime);
    by_key(events).flat_map_groups_with_state(
        "sessions",
        mode,
        timeout,
        move |user, rows, state: &mut GroupState<Vec<i64>>, out| {
            if state.has_timed_out() && !asked_among_rows {
                out.emit((user.clone(), state.get()?.len()));
                state.remove();
                return Ok(());
            }
            let mut values = state.get_option().map_or_else(Vec::new, |values| values.clone());
            for event in rows {
                values.push(seconds(event.time));
                if values.len() >= 1_000 || state.has_timed_out() {
                    out.emit((user.clone(), values.len()));
                    state.remove();
                } else {
                    state.update(values.clone())?;
                    state.set_timeout_timestamp_plus(event.time, "5 seconds")?;
                }
            }
            Ok(())
        },
    )
}

#[test]
fn sessions_end_by_timeout_where_it_is_asked_for_before_the_rows() {
    let script = Script::new([vec![on("a", 1), on("a", 2)], vec![on("b", 20)]]).delay(5);
    script.clone().on_disk().gives(|events| sessions(events, false), [vec![], vec![("a".to_owned(), 2)]]);
    script.gives(|events| sessions(events, true), [vec![], vec![]]);
}

#[test]
fn more_than_three_events_within_ten_seconds_raise_an_alert() {
    let alerts = |events| {
        let (mode, none) = (OutputMode::Append, GroupTimeout::None);
        by_key(events).flat_map_groups_with_state(
            "alerts",
            mode,
            none,
            |key, rows, state: &mut GroupState<VecDeque<i64>>, out| {
                let mut recent = state.get_option().map_or_else(VecDeque::new, |recent| recent.clone());
                for event in rows {
                    let now = seconds(event.time);
                    recent.push_back(now);
                    recent.retain(|before| now - before < 10);
                    if recent.len() > 3 {
                        out.emit((key.clone(), now));
                    }
                }
                Ok(state.update(recent)?)
            },
        )
    };
    let script = Script::new([
        vec![on("a", 0), on("a", 4), on("b", 5), on("a", 9), on("a", 10)],
        vec![on("b", 11), on("a", 13), on("a", 30)],
        vec![on("a", 31), on("b", 32), on("a", 32), on("a", 33)],
    ]);
    script.gives(alerts, [vec![], vec![("a".to_owned(), 13)], vec![("a".to_owned(), 33)]]);
}
