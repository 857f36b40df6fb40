//! Every operator through the harness: one script, cut in every way that must not matter.

use std::cell::Cell;

use millstream_runtime::graph::BuildError;
use millstream_runtime::testing::{HarnessFailure, ScriptSink, ScriptSource, check};

use crate::{Pipeline, Stream};

fn through<In, Out>(
    script: impl IntoIterator<Item = In>,
    describe: impl Fn(Stream<In>) -> Stream<Out>,
) -> Result<Vec<Out>, HarnessFailure>
where
    In: Clone + Send + Sync + 'static,
    Out: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    check(script, |source: ScriptSource<In>, sink: ScriptSink<Out>| {
        let pipeline = Pipeline::new("test");
        describe(pipeline.source("in", source)).sink("out", sink);
        pipeline.into()
    })
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn stateless_operators_change_each_record_by_itself_and_keep_the_order() {
    let out = through(0..600u64, |stream| stream.map(|n| n * 2).filter(|n| n % 3 == 0).inspect(|_| ()).erase());
    assert_eq!(out.unwrap(), (0..600).map(|n| n * 2).filter(|n| n % 3 == 0).collect::<Vec<u64>>());
}

#[test]
fn flat_map_gives_all_results_of_a_record_before_those_of_the_next() {
    let wanted: Vec<u64> = [1000, 0, 3].into_iter().flat_map(|n| 0..n).collect();
    assert_eq!(through([1000u64, 0, 3], |stream| stream.flat_map(|n| 0..n).erase()).unwrap(), wanted);
    let into = through([1000u64, 0, 3], |stream| stream.flat_map_into(|n, out| out.extend(0..n)).erase());
    assert_eq!(into.unwrap(), wanted);
}

#[test]
fn a_failing_try_map_fails_the_job_with_its_operator_and_error() {
    let failed = through(words("1 2 three"), |stream| stream.try_map(|word| word.parse::<u64>()).erase());
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("try_map") && text.contains("invalid digit"), "{text}");
    assert_eq!(through(words("1 2"), |stream| stream.try_map(|word| word.parse::<u64>()).erase()).unwrap(), [1, 2]);
}

#[test]
fn running_aggregates_give_the_new_value_of_the_key_for_each_record() {
    let script = || words("a b a a b");
    let pairs = |numbers: [u64; 5]| script().into_iter().zip(numbers).collect::<Vec<_>>();
    let by_word = |stream: Stream<String>| stream.key_by_ref(|word| word.as_str());
    assert_eq!(through(script(), |stream| by_word(stream).count("n")).unwrap(), pairs([1, 1, 2, 3, 2]));
    assert_eq!(through(script(), |stream| by_word(stream).sum("n", |_| 2u64)).unwrap(), pairs([2, 2, 4, 6, 4]));
    let fold = |stream| by_word(stream).fold("n", || 10u64, |state, word| *state += word.len() as u64);
    assert_eq!(through(script(), fold).unwrap(), pairs([11, 11, 12, 13, 12]));
}

#[test]
fn reduce_joins_the_records_of_a_key_in_their_order() {
    let out = through(words("a1 b1 a2 a3"), |stream| {
        stream.key_by(|word| word.chars().next().unwrap_or(' ')).reduce("joined", |before, word| before + &word)
    });
    let out: Vec<String> = out.unwrap().into_iter().map(|(_, joined): (char, String)| joined).collect();
    assert_eq!(out, ["a1", "b1", "a1a2", "a1a2a3"]);
}

#[test]
fn a_union_and_a_branch_lose_nothing() {
    let out = through(0..100u64, |stream| {
        let copy = stream.clone().map(|n| n + 1000);
        stream.rebalance().union(copy).key_by(|_| 0u8).count("all").map(|(_, n)| n).erase()
    });
    assert_eq!(out.unwrap(), (1..=200).collect::<Vec<u64>>());
}

#[test]
fn a_counter_in_a_field_fails_the_first_test_of_its_author() {
    thread_local! {
        static SEEN: Cell<u64> = const { Cell::new(0) };
    }
    // What a closure counts beside the state is not taken back by a restore, and here it is not even begun anew.
    let failed = through(0..10u64, |stream| stream.map(|_| SEEN.with(|seen| seen.replace(seen.get() + 1))).erase());
    assert!(matches!(failed, Err(HarnessFailure::Differs { .. })));
}

#[test]
fn a_state_that_does_not_survive_its_encoding_is_refused_by_the_name_of_its_type() {
    #[derive(Clone, serde::Serialize, serde::Deserialize)]
    struct Forgetful {
        #[serde(skip_serializing)]
        count: u64,
    }
    let failed = through(0..3u64, |stream| {
        let start = || Forgetful { count: 0 };
        stream
            .key_by(|_| 1u8)
            .fold("forgetful", start, |state, _| state.count += 1)
            .map(|(_, state)| state.count)
            .erase()
    });
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("Forgetful") && text.contains("restored after every record"), "{text}");
}

#[test]
fn all_mistakes_are_returned_together_with_the_lines_that_made_them() {
    let pipeline = Pipeline::new("two words").parallelism(0);
    let other = Pipeline::new("other");
    let left = source(&pipeline, "in");
    let right = source(&other, "in");
    let _ = left.union(right).key_by(|n| *n).count("in");
    let errors = pipeline.validate().unwrap_err().0;
    let has = |wanted: fn(&BuildError) -> bool| errors.iter().any(wanted);
    assert!(has(|error| matches!(error, BuildError::BadName { what: "pipeline", .. })));
    assert!(has(|error| matches!(error, BuildError::OutOfRange { what: "parallelism", .. })));
    assert!(has(|error| matches!(error, BuildError::TwoPipelines { at } if at.contains("tests.rs"))));
    assert!(has(|error| matches!(error, BuildError::DuplicateName { name, .. } if name == "in")));
    assert!(has(|error| matches!(error, BuildError::Unread { .. })));
    assert!(has(|error| matches!(error, BuildError::NoSink)));
}

fn source(pipeline: &Pipeline, name: &str) -> Stream<u64> {
    let source = millstream_runtime::testing::SimSource { lengths: vec![1], seed: 0, first_split: 0 };
    pipeline.source(name, source).map(|numbered| numbered.seq).erase()
}

#[test]
fn a_pipeline_is_drawn_with_its_exchanges_and_states() {
    let pipeline = Pipeline::new("drawn");
    let sink = millstream_runtime::testing::SimSink {
        outside: millstream_runtime::testing::Outside::default(),
        seed: 0,
        faults: 0.0,
    };
    source(&pipeline, "in").filter(|_| true).key_by(|n| *n).count("counts").sink("out", sink);
    let text = pipeline.explain();
    assert!(text.contains("count counts <- ") && text.contains("(hash) [state value v1]"), "{text}");
    let dot = pipeline.to_dot();
    assert!(dot.starts_with("digraph \"drawn\"") && dot.contains("label=\"hash\""), "{dot}");
}
