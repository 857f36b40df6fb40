//! Windows that end when a key has had nothing for a while.

use super::*;

fn sessions(events: Stream<Event>) -> Stream<Row> {
    rows(by_key(events).window(Session::gap(secs(5))).aggregate("sessions", Count))
}

/// S-SESS-01
#[test]
fn sessions_that_touch_are_one() {
    let script = [rec("a", 0), rec("b", 0), rec("a", 5), rec("a", 11)];
    let mut out = steps(OutputMode::Append, &script, sessions).unwrap();
    out.sort();
    assert_eq!(out, [row("a", 0, 10, 2), row("a", 11, 16, 1), row("b", 0, 5, 1)]);
    // What comes between two makes one of three.
    let script = [rec("a", 0), rec("a", 11), rec("a", 5), rec("a", 8)];
    assert_eq!(steps(OutputMode::Append, &script, sessions).unwrap(), [row("a", 0, 16, 4)]);
}

/// S-SESS-02: lateness looks at the session of the record alone.
#[test]
fn a_record_behind_the_watermark_still_extends_a_session() {
    let script: [&[_]; 3] = [&[rec("a", 0), rec("a", 8), watermark(6)], &[rec("a", 4), rec("a", 1)], &[watermark(13)]];
    let out = drains(OutputMode::Append, &script, sessions).unwrap();
    assert_eq!(out.results, [vec![row("a", 0, 5, 1)], vec![], vec![row("a", 4, 13, 2)], vec![]]);
    assert_eq!(dropped(&out, DropReason::Late), 1, "1 s and its gap are 6 s, where the watermark is");
}

/// S-SESS-03
#[test]
fn a_session_reaches_as_far_as_its_farthest_record_and_a_gap_of_zero_is_none() {
    let script: [&[_]; 1] = [&[number("a", 0, 20), number("a", 3, 5), number("a", 4, 0)]];
    let out = drains(OutputMode::Append, &script, |events| {
        let gap = |(.., gap): &Event| Duration::from_secs(gap.unsigned_abs());
        rows(by_key(events).window(Session::gap_of(gap)).aggregate("sessions", Count))
    });
    let out = out.unwrap();
    assert_eq!(out.results, [vec![], vec![row("a", 0, 20, 2)]]);
    assert_eq!(out.dropped, [(DropReason::NoWindow, 1)].into());
}

/// S-SESS-06
#[test]
fn complete_sends_all_sessions_and_forgets_none() {
    let script: [&[_]; 2] = [&[rec("a", 0), watermark(60)], &[rec("a", 11), rec("a", 5)]];
    let out = drains(OutputMode::Complete, &script, sessions).unwrap();
    let last = vec![row("a", 0, 10, 2), row("a", 11, 16, 1)];
    assert_eq!(out.results, [vec![row("a", 0, 5, 1)], last.clone(), last]);
    assert_eq!(out.dropped, [].into());
}

#[test]
fn what_was_collected_in_two_sessions_is_in_the_one_that_they_become() {
    let script = [number("a", 0, 1), number("a", 8, 2), number("a", 4, 3)];
    let out = steps(OutputMode::Append, &script, |events| {
        let session = by_key(events).window(Session::gap(secs(5))).allowed_lateness(secs(100));
        let all = (CollectList::of(|(.., number): &Event| *number), Sum::of(|(.., number): &Event| *number));
        session.aggregate("sessions", all).map(|row| (seconds(row.window.end), row.value)).erase()
    });
    assert_eq!(out.unwrap(), [(13, (vec![1, 2, 3], 6))]);
}

#[test]
fn a_session_with_a_trigger_is_refused() {
    let triggered = |events| {
        rows(by_key(events).window(Session::gap(secs(5))).trigger(Trigger::count(1)).aggregate("sessions", Count))
    };
    assert_eq!(refusal(OutputMode::Append, triggered), "E-WIN-09");
}
