//! Output modes of aggregations, with windows and without.

use super::*;

/// Counts by key, without windows.
fn totals(events: Stream<Event>) -> Stream<(String, u64)> {
    by_key(events).aggregate("totals", Count)
}

fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

/// S-MODE-02
#[test]
fn update_sends_the_new_value_of_a_key_with_every_record() {
    let script: [&[_]; 2] = [&[rec("a", 1), rec("a", 2), rec("b", 3)], &[rec("a", 4)]];
    let out = drains(OutputMode::Update, &script, totals).unwrap();
    assert_eq!(out.results, [pairs(&[("a", 1), ("a", 2), ("b", 1)]), pairs(&[("a", 3)]), vec![]]);
}

/// S-MODE-11: `per_record` is the default.
#[test]
fn update_per_epoch_sends_a_changed_key_once() {
    let script: [&[_]; 2] = [&[rec("a", 1), rec("b", 1), rec("a", 2)], &[rec("a", 3)]];
    let out = drains(OutputMode::Update, &script, |events| {
        let totals = by_key(events).window(Global).trigger(Trigger::epoch()).aggregate("totals", Count);
        totals.map(|row| (row.key, row.value)).erase()
    });
    assert_eq!(out.unwrap().results, [pairs(&[("a", 2), ("b", 1)]), pairs(&[("a", 3)]), vec![]]);
}

/// S-MODE-03
#[test]
fn complete_sends_the_whole_table_in_every_epoch_that_had_data() {
    let script: [&[_]; 3] = [
        &[rec("cat", 1), rec("dog", 1), rec("dog", 1), rec("dog", 1)],
        &[rec("cat", 2), rec("owl", 2)],
        &[rec("dog", 3), rec("owl", 3)],
    ];
    let mut out = drains(OutputMode::Complete, &script, totals).unwrap().results;
    out.iter_mut().for_each(|table| table.sort());
    let last = pairs(&[("cat", 2), ("dog", 4), ("owl", 2)]);
    let wanted = [pairs(&[("cat", 1), ("dog", 3)]), pairs(&[("cat", 2), ("dog", 3), ("owl", 1)]), last.clone(), last];
    assert_eq!(out, wanted);
}

/// S-MODE-10
#[test]
fn an_aggregation_without_key_has_a_row_from_the_start() {
    let script: [&[_]; 2] = [&[rec("a", 1), rec("a", 2)], &[number("a", 3, 9)]];
    let out = drains(OutputMode::Complete, &script, |events| {
        let large = events.filter(|(.., number): &Event| *number > 5);
        large.aggregate("all", (Count, Max::of(|(.., number): &Event| *number)))
    });
    assert_eq!(out.unwrap().results, [vec![(0, None)], vec![(1, Some(9))], vec![(1, Some(9))]]);
    let update = drains(OutputMode::Update, &script, |events| events.aggregate("all", Count));
    assert_eq!(update.unwrap().results, [vec![1, 2], vec![3], vec![]]);
}

/// S-MODE-04
#[test]
fn without_an_aggregation_update_is_append() {
    let script = [rec("a", 5), rec("b", 11), rec("a", 12)];
    let run = |mode| {
        steps(mode, &script, |events| {
            events.filter(|(_, seconds, _): &Event| *seconds > 10).map(|(key, ..)| key).erase()
        })
    };
    assert_eq!(run(OutputMode::Append).unwrap(), ["b", "a"]);
    assert_eq!(run(OutputMode::Update).unwrap(), ["b", "a"]);
}

/// S-MODE-05, S-MODE-12, S-ET-15, of operators as they are written; the whole matrix is a test of the runtime's graph.
#[test]
fn operators_say_which_modes_they_know() {
    use OutputMode::{Append, Complete, Update};
    let all =
        |describe: fn(Stream<Event>) -> Stream<u64>| [Append, Update, Complete].map(|mode| refusal(mode, describe));
    assert_eq!(all(|events| totals(events).map(|row| row.1).erase()), ["E-MODE-01", "", ""]);
    assert_eq!(all(|events| events.aggregate("all", Count)), ["E-MODE-01", "", ""]);
    assert_eq!(all(|events| counts(events).map(|row| row.3).erase()), ["", "", ""]);
    assert_eq!(all(|events| events.map(|_| 1).erase()), ["", "", "E-MODE-02"]);
    let session =
        |events| by_key(events).window(Session::gap(secs(5))).aggregate("sessions", Count).map(|row| row.value).erase();
    assert_eq!(all(session), ["", "E-MODE-03", ""]);
    let chain = |events: Stream<Event>| {
        let inner = tens(events).aggregate("inner", Count).key_by(|row| row.key.clone());
        inner.window(Tumbling::of(secs(60))).aggregate("outer", Count).map(|row| row.value).erase()
    };
    assert_eq!(all(chain), ["", "E-CHAIN-01", "E-CHAIN-01"]);
    let early = |events| tens(events).trigger(Trigger::count(2)).aggregate("early", Count).map(|row| row.value).erase();
    assert_eq!(all(early), ["E-TRG-05", "", ""]);
    let pieces = |events| {
        let discarding = Trigger::count(2).discarding();
        tens(events).trigger(discarding).aggregate("pieces", Count).map(|row| row.value).erase()
    };
    assert_eq!(all(pieces), ["", "", ""]);
    let global = |events| by_key(events).window(Global).aggregate("global", Count).map(|row| row.value).erase();
    assert_eq!(all(global), ["E-MODE-01", "", ""]);
    let batches =
        |events| by_key(events).window(CountWindow::of(3)).aggregate("batches", Count).map(|row| row.value).erase();
    assert_eq!(all(batches), ["", "", "E-MODE-02"]);
}

/// The second list's table is that of a new life: its keys are read back group by group.
#[test]
fn a_complete_table_is_whole_where_none_of_it_is_in_memory() {
    let keys: Vec<String> = (0..300).map(|key| format!("key {key}")).collect();
    let first: Vec<_> = keys.iter().map(|key| rec(key, 1)).collect();
    let script: [&[_]; 2] = [&first, &[rec("key 7", 2)]];
    let out = drains(OutputMode::Complete, &script, totals).unwrap().results;
    let mut last = out[1].clone();
    last.sort();
    assert_eq!((out[0].len(), last.len()), (300, 300));
    assert_eq!(last.iter().filter(|(key, count)| *count != if key == "key 7" { 2 } else { 1 }).count(), 0);
}
