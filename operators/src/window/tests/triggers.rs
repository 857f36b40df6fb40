//! Results before a window is closed and behind it, of all records or of those since the last result.

use super::*;

fn by(trigger: Trigger) -> impl Fn(Stream<Event>) -> Stream<Row> {
    move |events| rows(tens(events).allowed_lateness(secs(5)).trigger(trigger).aggregate("counts", Count))
}

fn script() -> Vec<millstream_runtime::testing::Step<Event>> {
    let mut script: Vec<_> = (0..5).map(|second| rec("a", second)).collect();
    script.extend([watermark(10), rec("a", 6), watermark(14), rec("a", 7), watermark(15), rec("a", 8)]);
    script
}

fn values(rows: Vec<Row>) -> Vec<u64> {
    rows.into_iter().map(|row| row.3).collect()
}

#[test]
fn the_watermark_alone_sends_a_window_at_its_end_and_again_for_each_late_record() {
    let out = steps(OutputMode::Update, &script(), by(Trigger::watermark()));
    assert_eq!(values(out.unwrap()), [5, 6, 7]);
    let pieces = steps(OutputMode::Append, &script(), by(Trigger::watermark().discarding()));
    assert_eq!(values(pieces.unwrap()), [5, 1, 1]);
}

#[test]
fn a_count_sends_early_and_the_end_sends_only_what_changed_since() {
    let out = steps(OutputMode::Update, &script(), by(Trigger::count(2)));
    assert_eq!(values(out.unwrap()), [2, 4, 5, 6, 7]);
    let pieces = steps(OutputMode::Append, &script(), by(Trigger::count(2).discarding()));
    assert_eq!(values(pieces.unwrap()), [2, 2, 1, 1, 1]);
    let all = steps(OutputMode::Update, &script(), by(Trigger::count(5)));
    assert_eq!(values(all.unwrap()), [5, 6, 7], "nothing new at the end");
}

/// Each list of the script is a life of the job, which is long enough for the interval.
#[test]
fn processing_time_sends_what_changed_a_while_ago() {
    let trigger = Trigger::every(Duration::from_millis(1));
    let script: [&[_]; 3] = [&[rec("a", 1), rec("a", 2)], &[rec("a", 3)], &[watermark(3)]];
    let out = drains(OutputMode::Update, &script, by(trigger)).unwrap();
    assert_eq!(out.results.into_iter().map(values).collect::<Vec<_>>(), [vec![2], vec![3], vec![], vec![]]);
    let pieces = drains(OutputMode::Append, &script, by(trigger.discarding())).unwrap();
    assert_eq!(pieces.results.into_iter().map(values).collect::<Vec<_>>(), [vec![2], vec![1], vec![], vec![]]);
}

#[test]
fn the_end_of_an_epoch_sends_what_changed_in_it() {
    let script: [&[_]; 3] = [&[rec("a", 1), rec("a", 2), rec("b", 12)], &[rec("a", 3)], &[watermark(3)]];
    let out = drains(OutputMode::Update, &script, by(Trigger::epoch())).unwrap();
    let wanted = [vec![row("a", 0, 10, 2), row("b", 10, 20, 1)], vec![row("a", 0, 10, 3)], vec![], vec![]];
    assert_eq!(out.results, wanted);
    let both = drains(OutputMode::Update, &script, by(Trigger::epoch().or_count(2))).unwrap();
    let wanted = [vec![row("a", 0, 10, 2), row("b", 10, 20, 1)], vec![row("a", 0, 10, 3)], vec![], vec![]];
    assert_eq!(both.results, wanted, "what the count has sent is not sent again");
}

#[test]
fn so_many_records_are_a_window() {
    let script = [rec("a", 1), rec("b", 9), rec("a", 1), untimed("a"), watermark(50), rec("a", 2), rec("b", 3)];
    let out = steps(OutputMode::Append, &script, |events| {
        let batches = by_key(events).window(CountWindow::of(2));
        batches
            .aggregate("batches", (Count, CollectList::of(|(_, seconds, _): &Event| *seconds)))
            .map(|row| (row.key, row.value))
            .erase()
    });
    let batch = |key: &str, seconds: [i64; 2]| (key.to_owned(), (2, seconds.to_vec()));
    assert_eq!(out.unwrap(), [batch("a", [1, 1]), batch("a", [0, 2]), batch("b", [9, 3])]);
}

#[test]
fn one_window_for_all_sends_what_is_left_when_the_input_ends() {
    let script = [rec("a", 1), rec("a", 2), rec("a", 3)];
    let out = steps(OutputMode::Append, &script, |events| {
        let pieces = by_key(events).window(Global).trigger(Trigger::count(2).discarding());
        pieces.aggregate("pieces", Count).map(|row| row.value).erase()
    });
    assert_eq!(out.unwrap(), [2, 1]);
    let whole = steps(OutputMode::Update, &script, |events| {
        let whole = by_key(events).window(Global).trigger(Trigger::count(2)).aggregate("whole", Count);
        whole.map(|row| row.value).erase()
    });
    assert_eq!(whole.unwrap(), [2, 3]);
}
