use std::time::Duration;

use millstream_runtime::operator::DropReason;

use crate::prelude::*;
use crate::scenario::{Event, drains, rec, refusal, steps, untimed, watermark};

fn shown(events: Vec<Event>) -> Vec<String> {
    events.into_iter().map(|(key, seconds, _)| format!("{key}@{seconds}")).collect()
}

/// S-DEDUP-01
#[test]
fn equal_records_are_sent_once_in_append_and_update() {
    let script = [rec("a", 1), rec("a", 2), rec("b", 3)];
    for mode in [OutputMode::Append, OutputMode::Update] {
        let words = steps(mode, &script, |events| events.map(|(key, ..)| key).distinct("distinct"));
        assert_eq!(words.unwrap(), ["a", "b"]);
    }
}

/// S-DEDUP-02
#[test]
fn a_key_is_remembered_for_ever() {
    let script =
        [rec("a", 10), watermark(10), rec("b", 100), watermark(100), rec("a", 101), untimed("c"), untimed("c")];
    let sent =
        steps(OutputMode::Append, &script, |events| events.key_by(|(key, ..)| key.clone()).drop_duplicates("dedup"));
    assert_eq!(shown(sent.unwrap()), ["a@10", "b@100", "c@0"]);
}

/// S-DEDUP-03
#[test]
fn a_key_and_time_is_remembered_until_the_watermark_has_come_to_it() {
    let first = [rec("a", 10), rec("a", 10), rec("a", 11), watermark(10)];
    // 10 s is forgotten, and late; 11 s is known still.
    let script: [&[_]; 2] = [&first, &[rec("a", 10), rec("a", 11), rec("a", 12)]];
    let out = drains(OutputMode::Append, &script, |events| {
        events.key_by(|(key, ..)| key.clone()).drop_duplicates_by_time("dedup")
    });
    let out = out.unwrap();
    let sent: Vec<_> = out.results.into_iter().map(shown).collect();
    assert_eq!(sent, [vec!["a@10", "a@11"], vec!["a@12"], vec![]]);
    assert_eq!(out.dropped, [(DropReason::Late, 1), (DropReason::Duplicate, 2)].into());
}

/// S-DEDUP-04: the delay is 10 s, and the watermark that much behind.
#[test]
fn a_key_is_remembered_for_the_delay_behind_its_first_record() {
    let script = [
        rec("a", 10),
        rec("a", 19),
        watermark(9),
        rec("x", 29),
        watermark(19),
        rec("a", 20),
        rec("x2", 30),
        watermark(20),
        rec("a", 31),
    ];
    let sent = steps(OutputMode::Append, &script, |events| {
        let keyed = events.key_by(|(key, ..)| key.clone());
        keyed.drop_duplicates_within_watermark("dedup", Duration::from_secs(10))
    });
    assert_eq!(shown(sent.unwrap()), ["a@10", "x@29", "x2@30", "a@31"]);
}

/// S-DEDUP-05: without a watermark, and for output modes that a suppressed duplicate has no place in.
#[test]
fn what_cannot_be_deduplicated_is_refused() {
    let within = |events: Stream<Event>| {
        events.key_by(|(key, ..)| key.clone()).drop_duplicates_within_watermark("dedup", Duration::from_secs(1))
    };
    assert_eq!(refusal(OutputMode::Append, within), "");
    assert_eq!(refusal(OutputMode::Complete, within), "E-MODE-02");
    let distinct = |events: Stream<Event>| events.map(|(key, ..)| key).distinct("distinct");
    assert_eq!(refusal(OutputMode::Complete, distinct), "E-MODE-02");
    let endless = |events: Stream<Event>| {
        events.key_by(|(key, ..)| key.clone()).drop_duplicates_within_watermark("dedup", Duration::MAX)
    };
    assert_eq!(refusal(OutputMode::Append, endless), "E-WM-01");

    use millstream_runtime::testing::{Outside, SimSink, SimSource};
    let pipeline = Pipeline::new("untimed");
    let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
    let keyed = pipeline.source("in", source).key_by(|numbered| numbered.seq);
    let deduplicated = keyed.drop_duplicates_within_watermark("dedup", Duration::from_secs(1));
    deduplicated.sink("out", SimSink { outside: Outside::default(), seed: 0, faults: 0.0 });
    let text = pipeline.validate().unwrap_err().to_string();
    assert!(text.contains("E-WM-03") && text.contains("dedup") && text.contains("assign event times"), "{text}");
}

/// S-DEDUP-06: the watermark 30 min behind, duplicates out, then counted by window, in complete.
#[test]
fn duplicates_are_counted_once_in_the_windows_behind() {
    let script: [&[_]; 2] = [&[rec("a", 60), rec("a", 60), rec("b", 70)], &[rec("a", 60), rec("a", 400)]];
    let out = drains(OutputMode::Complete, &script, |events| {
        let unique = events.key_by(|(key, ..)| key.clone()).drop_duplicates_by_time("dedup");
        let windows = unique.key_by(|_| 0_u8).window(Tumbling::of(Duration::from_secs(300)));
        windows.aggregate("counts", Count).map(|row| (row.window.start.as_micros() / 1_000_000, row.value)).erase()
    });
    let whole = vec![(0, 2), (300, 1)];
    assert_eq!(out.unwrap().results, [vec![(0, 2)], whole.clone(), whole]);
}
