//! Whole programs as people write them.

use std::collections::VecDeque;

use super::*;

/// A user's last activity, from when to when.
type Span = (String, i64, i64);

/// S-GS-03
#[test]
fn the_span_of_each_users_activity() {
    let script = [("walk", 10_001), ("walk", 10_005), ("sit", 10_007), ("walk", 10_003)];
    let out = untimed(OutputMode::Update, script.map(|(what, time)| row("u", time, what, None)), |rows| {
        rows.map_groups_with_state("spans", GroupTimeout::None, |user, rows, state: &mut GroupState<Span>| {
            let mut span = state.get_option().map(|span| span.clone());
            for (_, time, activity, _) in rows {
                span = Some(match span.take() {
                    Some((before, start, end)) if before == activity => (before, start.min(time), end.max(time)),
                    Some((before, start, end)) if time <= end => (before, start, end),
                    _ => (activity, time, time),
                });
            }
            let span = span.ok_or("a call without rows")?;
            state.update(span.clone())?;
            Ok((user.clone(), span))
        })
    });
    let span = |what: &str, start, end| ("u".to_owned(), (what.to_owned(), start, end));
    let wanted = [
        span("walk", 10_001, 10_001),
        span("walk", 10_001, 10_005),
        span("sit", 10_007, 10_007),
        span("sit", 10_007, 10_007),
    ];
    assert_eq!(out.unwrap(), wanted);
}

/// The mean of every so many values of a key.
fn means(rows: KeyedStream<String, Row>, every: usize) -> Stream<(String, f64)> {
    rows.flat_map_groups_with_state(
        "means",
        OutputMode::Append,
        GroupTimeout::None,
        move |device, rows, state: &mut GroupState<Vec<i64>>, out| {
            let mut values = state.get_option().map_or_else(Vec::new, |values| values.clone());
            for (_, value, ..) in rows {
                values.push(value);
                if values.len() == every {
                    out.emit((device.clone(), values.iter().sum::<i64>() as f64 / every as f64));
                    values.clear();
                }
            }
            Ok(state.update(values)?)
        },
    )
}

/// S-GS-04
#[test]
fn the_mean_of_every_500_values() {
    let values = |count: i64| (1..=count).map(|value| row("d", value, "", None));
    let run = |count| untimed(OutputMode::Append, values(count), |rows| means(rows, 500)).unwrap();
    assert!(run(499).is_empty());
    let wanted = [("d".to_owned(), 250.5), ("d".to_owned(), 750.5)];
    assert_eq!(run(999), wanted[..1]);
    assert_eq!(run(1_000), wanted);
}

/// S-GS-05: sessions end 5 s after their last row or with the 1000th. Asked for before the rows, a timeout is seen; asked for among them, as
/// one program has it, it never is, since its call has no rows.
#[test]
fn sessions_end_by_timeout_only_where_it_is_asked_for_before_the_rows() {
    let script = || {
        [
            row("a", 1_000, "", None),
            row("a", 2_000, "", None),
            row("b", 20_000, "", Some(15_000)),
            row("c", 21_000, "", None),
        ]
    };
    let run = |literal: bool| {
        let out = through(OutputMode::Append, script(), move |rows| {
            rows.flat_map_groups_with_state(
                "sessions",
                OutputMode::Append,
                GroupTimeout::EventTime,
                move |user, rows, state: &mut GroupState<Vec<i64>>, out| {
                    if state.has_timed_out() && !literal {
                        out.emit((user.clone(), state.get()?.len(), state.current_watermark_ms()?));
                        state.remove();
                        return Ok(());
                    }
                    let mut values = state.get_option().map_or_else(Vec::new, |values| values.clone());
                    for (_, time, ..) in rows {
                        values.push(time);
                        if values.len() >= 1_000 || state.has_timed_out() {
                            out.emit((user.clone(), values.len(), state.current_watermark_ms()?));
                            state.remove();
                        } else {
                            state.update(values.clone())?;
                            state.set_timeout_timestamp_plus(at(time), "5 seconds")?;
                        }
                    }
                    Ok(())
                },
            )
        });
        let sessions: Vec<(String, usize, i64)> = out.unwrap();
        // What is open when the input ends is ended by that.
        sessions.into_iter().filter(|session| session.2 < i64::MAX / 1_000).collect::<Vec<_>>()
    };
    assert_eq!(run(false), [("a".to_owned(), 2, 15_000)]);
    assert!(run(true).is_empty());
}

/// S-GS-24
#[test]
fn an_alert_for_more_than_three_events_of_a_key_within_ten_seconds() {
    let seconds =
        [("a", 0), ("a", 4), ("b", 5), ("a", 9), ("a", 10), ("b", 11), ("a", 13), ("a", 30), ("a", 31), ("b", 32)];
    let out = untimed(OutputMode::Append, seconds.map(|(key, second)| row(key, second * 1_000, "", None)), |rows| {
        rows.flat_map_groups_with_state(
            "alerts",
            OutputMode::Append,
            GroupTimeout::None,
            |key, rows, state: &mut GroupState<VecDeque<i64>>, out| {
                let mut recent = state.get_option().map_or_else(VecDeque::new, |recent| recent.clone());
                for (_, time, ..) in rows {
                    recent.push_back(time);
                    recent.retain(|before| time - before < 10_000);
                    if recent.len() > 3 {
                        out.emit((key.clone(), time));
                    }
                }
                Ok(state.update(recent)?)
            },
        )
    });
    assert_eq!(out.unwrap(), [("a".to_owned(), 13_000)]);
}
