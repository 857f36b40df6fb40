//! State that is there before the first row.

use millstream_runtime::graph::BuildError;
use millstream_runtime::testing::{SimConfig, SimSink, SimSource, simulate};

use super::*;

type Counts = [(String, u32); 2];

fn counts() -> Counts {
    [("a".to_owned(), 100), ("z".to_owned(), 200)]
}

/// Tells of each call: key, rows, and the state before it, to which the rows are added.
fn told(rows: crate::WithInitialState<String, Row, u32>) -> Stream<(String, usize, Option<u32>)> {
    rows.flat_map_groups_with_state("told", OutputMode::Append, GroupTimeout::None, |key, rows, state, out| {
        assert!(!state.has_timed_out());
        let before = state.get_option().map(|count| *count);
        let rows = rows.count();
        if rows > 0 {
            state.update(before.unwrap_or(0) + rows as u32)?;
        }
        out.emit((key.clone(), rows, before));
        Ok(())
    })
}

/// S-GS-17
#[test]
fn keys_with_an_initial_state_are_called_once_before_the_first_row() {
    let script = ["a", "b", "z", "a"].map(|key| row(key, 0, "", None));
    let out = untimed(OutputMode::Append, script, |rows| told(rows.initial_state(counts())));
    let call = |key: &str, rows, before| (key.to_owned(), rows, before);
    let wanted = [
        call("a", 0, Some(100)),
        call("z", 0, Some(200)),
        call("a", 1, Some(100)),
        call("b", 1, None),
        call("z", 1, Some(200)),
        call("a", 1, Some(101)),
    ];
    // The harness restarts behind every row in one of its cuts, and has three subtasks in another: no key is called again.
    assert_eq!(out.unwrap(), wanted);
}

/// S-GS-17: where no row ever comes.
#[test]
fn keys_with_an_initial_state_are_called_without_any_row() {
    let out = untimed(OutputMode::Append, [], |rows| told(rows.initial_state(counts())));
    assert_eq!(out.unwrap(), [("a".to_owned(), 0, Some(100)), ("z".to_owned(), 0, Some(200))]);
}

/// S-GS-17
#[test]
fn an_initial_state_is_applied_once_whatever_crashes_and_however_many_subtasks_there_are() {
    let run = |config: &SimConfig| {
        let outside = Outside::default();
        let pipeline = || {
            let pipeline = Pipeline::new("initial").output_mode(OutputMode::Update);
            let source = SimSource { lengths: vec![40, 30], seed: 5, first_split: 0 };
            let sink = SimSink { outside: outside.clone(), seed: config.seed, faults: 0.1 };
            let initial: Vec<(u64, u64)> = (0..20).map(|key| (key, key * 1_000)).collect();
            let rows = pipeline.source("in", source).key_by(|numbered| numbered.seq % 30).initial_state(initial);
            let counts = rows.map_groups_with_state("count", GroupTimeout::None, |key, rows, state| {
                let count = state.get_option().map_or(0, |count| *count) + rows.count() as u64;
                state.update(count)?;
                Ok((*key, count))
            });
            counts.sink("out", sink);
            pipeline.into()
        };
        let report = simulate(config, &pipeline).unwrap_or_else(|failure| panic!("seed {}: {failure}", config.seed));
        let mut rows = outside.rows();
        rows.sort();
        (rows, report)
    };
    let (wanted, _) = run(&SimConfig::calm(1));
    assert_eq!(wanted.len(), 20 + 70);
    let mut crashes = 0;
    for seed in 0..20 {
        let config = SimConfig { crashes: 3, crash_chance: 0.05, parallelism: vec![1, 3, 2], ..SimConfig::calm(seed) };
        let (found, report) = run(&config);
        crashes += report.crashes;
        assert_eq!(found, wanted, "seed {seed}");
    }
    assert!(crashes > 10, "only {crashes} crashes");
}

/// S-GS-18
#[test]
fn two_initial_states_of_one_key_are_a_mistake() {
    let pipeline = Pipeline::new("twice");
    let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
    let rows = pipeline.source("in", source).map(|_| row("a", 0, "", None)).key_by_ref(|(key, ..)| key.as_str());
    let twice = vec![("a".to_owned(), 1), ("b".to_owned(), 2), ("a".to_owned(), 3)];
    let _ = told(rows.initial_state(twice));
    let errors = pipeline.validate().unwrap_err().0;
    assert!(
        errors.iter().any(|error| matches!(error, BuildError::Open { operator, error, .. }
            if operator == "told" && error.starts_with("E-GS-18") && error.contains("row 2"))),
        "{errors:?}"
    );
}
