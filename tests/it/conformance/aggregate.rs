//! S-AGG: aggregates.

use std::collections::BTreeMap;

use millstream::operators::OutputMode;
use millstream::prelude::*;

use super::drive::{Event, Script, number, on, seconds};
use super::pieces::by_key;
use super::table::{Group, Row, row};

pub(super) const GROUP: Group = Group { name: "AGG", title: "Aggregates", module: "aggregate", rows: ROWS };

const ROWS: &[Row] = &[
    row("S-AGG-01", "A filter and a count by key, typed and untyped, give the same")
        .not_applicable("there is one API, and it has types: nothing to compare"),
    row("S-AGG-02", "A cube over 2 × 2 has 9 groups, a rollup 7")
        .passes("a_cube_of_two_fields_has_nine_groups_and_a_rollup_seven"),
    row("S-AGG-03", "Averages over several fields, less those that were left out")
        .passes("means_of_several_fields_without_those_that_were_left_out"),
    row(
        "S-AGG-04",
        "There is no exact count of distinct values (E-OP-04), so it cannot be written; the approximate one works",
    )
    .passes("distinct_values_are_counted_approximately"),
    row("S-AGG-05", "One query writes files, a second one aggregates them")
        .passes("a_second_query_aggregates_what_the_first_has_written"),
];

/// The groups of a cube or a rollup over key and second.
type Groups = Vec<((Option<String>, Option<i64>), u64)>;

#[test]
fn a_cube_of_two_fields_has_nine_groups_and_a_rollup_seven() {
    let rows = vec![on("a", 0), on("a", 1), on("b", 0), on("b", 1), on("b", 1)];
    let script = Script::new([rows]).mode(OutputMode::Complete);
    let fields = |event: &Event| (event.key.clone(), seconds(event.time));
    let group = |key: Option<&str>, second: Option<i64>, count: u64| ((key.map(str::to_owned), second), count);
    let rollup: Groups = vec![
        group(Some("a"), Some(0), 1),
        group(Some("a"), Some(1), 1),
        group(Some("b"), Some(0), 1),
        group(Some("b"), Some(1), 2),
        group(Some("a"), None, 2),
        group(Some("b"), None, 3),
        group(None, None, 5),
    ];
    let seconds_alone = [group(None, Some(0), 2), group(None, Some(1), 3)];
    let cube: Groups = rollup.iter().cloned().chain(seconds_alone).collect();
    assert_eq!((cube.len(), rollup.len()), (9, 7));
    script.gives(|events| events.cube(fields).aggregate("cube", Count), [cube]);
    script.gives(|events| events.rollup(fields).aggregate("rollup", Count), [rollup]);
}

#[test]
fn means_of_several_fields_without_those_that_were_left_out() {
    let means = |events: Stream<Event>| {
        // Of key, time and number the row goes on with two, doubled and halved.
        let fields = events.map(|event| (event.key, (event.number * 2) as f64, event.number as f64 / 2.0));
        let means = (Avg::of(|row: &(String, f64, f64)| row.1), Avg::of(|row: &(String, f64, f64)| row.2));
        fields.key_by(|row| row.0.clone()).aggregate("means", means)
    };
    let script = Script::new([vec![number("a", 0, 1), number("b", 0, 10)], vec![number("a", 0, 3)]]);
    let mean = |key: &str, double: f64, half: f64| (key.to_owned(), (Some(double), Some(half)));
    script.mode(OutputMode::Complete).gives(
        means,
        [vec![mean("a", 2.0, 0.5), mean("b", 20.0, 5.0)], vec![mean("a", 4.0, 1.0), mean("b", 20.0, 5.0)]],
    );
}

#[test]
fn distinct_values_are_counted_approximately() {
    let numbers = |from: i64, to: i64| (from..to).map(|n| number("a", 0, n)).collect::<Vec<_>>();
    let script = Script::new([numbers(0, 100), numbers(50, 200)]).mode(OutputMode::Complete);
    let distinct = |events: Stream<Event>| {
        let counts = by_key(events).aggregate("distinct", ApproxDistinct::of(|event: &Event| event.number));
        // Three standard errors of 1.6 %.
        counts
            .map(|(_, count)| [100, 200].into_iter().find(|exact: &u64| count.abs_diff(*exact) * 20 <= *exact))
            .erase()
    };
    script.gives(distinct, [vec![Some(100)], vec![Some(200)]]);
}

#[test]
fn a_second_query_aggregates_what_the_first_has_written() {
    let runtime = || Runtime::builder().workers(2).build().unwrap();
    for trigger in [None, Some(Trigger::ProcessingTime(std::time::Duration::ZERO))] {
        let dir = tempfile::tempdir().unwrap();
        let with_trigger =
            |pipeline: Pipeline| if let Some(trigger) = trigger { pipeline.trigger(trigger) } else { pipeline };
        let first = with_trigger(Pipeline::new("first").parallelism(3));
        let numbers = first.source("numbers", Generator::new(Some(2_000), |n| n).with_max_records_per_epoch(300));
        numbers.key_by(|n| n % 7).count("counts").map(|(key, _)| key).sink("out", FileSink::at(dir.path()));
        runtime().start(first).unwrap().join().unwrap();

        let files = read_committed(dir.path()).unwrap();
        let lines: Vec<String> = files.iter().flat_map(|file| file.lines().unwrap()).collect();
        let (sink, collected) = Collect::new();
        let second = with_trigger(Pipeline::new("second").parallelism(3).output_mode(OutputMode::Update));
        let keys = second.source("keys", IterSource::new(lines)).try_map(|line: String| line.parse::<u64>());
        keys.key_by(|key| *key).aggregate("totals", Count).sink("out", sink);
        runtime().start(second).unwrap().join().unwrap();
        let mut last = BTreeMap::new();
        for (key, total) in collected.take() {
            let before = last.insert(key, total);
            assert!(before < Some(total));
        }
        let wanted: BTreeMap<u64, u64> = (0..7u64).map(|key| (key, (2_000 - key).div_ceil(7))).collect();
        assert_eq!(last, wanted, "{trigger:?}");
    }
}
