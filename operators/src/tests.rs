//! Every operator through the harness: one script, cut in every way that must not matter.

use std::cell::Cell;
use std::time::Duration;

use millstream_runtime::graph::BuildError;
use millstream_runtime::testing::{
    HarnessFailure, ObserveOf, Observed, ScriptSink, ScriptSource, Step, check, check_at, check_steps,
};
use millstream_runtime::time::Timestamp;

use crate::{Pipeline, Stream, WatermarkStrategy};

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

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The watermark that each record of a script met, in milliseconds.
fn met(script: &[Step<u64>], describe: impl Fn(Stream<u64>) -> Stream<u64>) -> Vec<(u64, Option<i64>)> {
    let out = check_steps(script.to_vec(), |source: ScriptSource<Step<u64>>, sink: ScriptSink<(u64, Option<i64>)>| {
        let pipeline = Pipeline::new("test");
        let steps = pipeline.source("in", source).event_time_by(Step::time, Step::strategy());
        let records = describe(steps.flat_map(Step::into_record).erase());
        let observed = records.apply(None, ObserveOf::<u64>::default());
        let millis = |observed: Observed<u64>| {
            (observed.value, observed.watermark.map(|watermark| watermark.as_micros() / 1_000))
        };
        observed.map(millis).sink("out", sink);
        pipeline.into()
    });
    out.unwrap()
}

#[test]
fn a_watermark_is_in_force_for_every_record_behind_it_and_survives_every_restart() {
    let script = [
        Step::Record(1, at(5)),
        Step::Watermark(at(7)),
        Step::Record(2, at(6)),
        Step::Record(3, at(9)),
        Step::Watermark(at(4)),
        Step::Record(4, at(9)),
        Step::Watermark(at(-3)),
        Step::Watermark(at(8)),
        Step::Record(5, Timestamp::MIN),
    ];
    let expected = [(1, None), (2, Some(7)), (3, Some(7)), (4, Some(7)), (5, Some(8))];
    assert_eq!(met(&script, |stream| stream), expected, "in the source's task");
    assert_eq!(met(&script, |stream| stream.filter(|n| *n > 0).map(|n| n).erase()), expected);
    assert_eq!(met(&script, Stream::rebalance), expected, "in another");
}

#[test]
fn a_branch_without_event_time_holds_no_watermark_back() {
    // So many that most of them have passed before the input ends and with it all that could hold a watermark back.
    let script = std::iter::once(Step::Watermark(at(7))).chain((0..300).map(|n| Step::Record(n, at(9))));
    let out = check_steps(script, |source: ScriptSource<Step<u64>>, sink: ScriptSink<Option<i64>>| {
        let pipeline = Pipeline::new("test");
        let steps = pipeline.source("in", source);
        let untimed = steps.clone().filter(|_| false);
        let timed = steps.event_time_by(Step::time, Step::strategy());
        let both = timed.union(untimed).flat_map(Step::into_record).erase();
        let watermark = |observed: Observed<u64>| observed.watermark.map(|watermark| watermark.as_micros() / 1_000);
        both.apply(None, ObserveOf::<u64>::default()).map(watermark).sink("out", sink);
        pipeline.into()
    });
    assert_eq!(out.unwrap(), [Some(7); 300]);
}

#[test]
fn two_event_times_in_one_task_keep_their_watermarks_apart_over_every_restart() {
    let script = [Step::Watermark(at(7)), Step::Record(1, at(9)), Step::Watermark(at(8)), Step::Record(2, at(9))];
    let out = check_steps(script, |source: ScriptSource<Step<u64>>, sink: ScriptSink<(i64, i64)>| {
        let pipeline = Pipeline::new("test");
        let millis = |watermark: Option<Timestamp>| watermark.map_or(0, |watermark| watermark.as_micros() / 1_000);
        let first = pipeline.source("in", source).event_time_by(Step::time, Step::strategy());
        let first = first.apply::<Observed<Step<u64>>>(None, ObserveOf::<Step<u64>>::default());
        let earlier = |observed: &Observed<Step<u64>>| match observed.value {
            Step::Watermark(time) => Some(time.saturating_sub(Duration::from_millis(5))),
            Step::Record(..) => None,
        };
        let second = first.watermark_by(WatermarkStrategy::punctuated(earlier));
        let second = second.apply::<Observed<Observed<Step<u64>>>>(None, ObserveOf::<Observed<Step<u64>>>::default());
        let both = second.filter(|observed| matches!(observed.value.value, Step::Record(..)));
        both.map(move |observed| (millis(observed.value.watermark), millis(observed.watermark))).sink("out", sink);
        pipeline.into()
    });
    assert_eq!(out.unwrap(), [(7, 2), (8, 3)]);
}

#[test]
fn what_is_within_the_disorder_is_never_late_and_one_absurd_time_makes_nothing_late() {
    // Three steps forward, one back by as much as is allowed, and once the end of time.
    let time = |n: &u64| match *n as i64 {
        77 => Timestamp::MAX,
        n if n % 4 == 3 => at(n * 10 - 30),
        n => at(n * 10),
    };
    let late = check(0..200u64, |source: ScriptSource<u64>, sink: ScriptSink<bool>| {
        let pipeline = Pipeline::new("test");
        let timed = pipeline.source("in", source).event_time(time, Duration::from_millis(20));
        let observed = timed.apply(None, ObserveOf::<u64>::default());
        observed.map(|observed: Observed<u64>| observed.is_late()).sink("out", sink);
        pipeline.into()
    });
    assert_eq!(late.unwrap(), vec![false; 200]);
    // The same by the times that the records bring along.
    let late = check_at((0..200u64).map(|n| (n, time(&n))), |source: ScriptSource<u64>, sink: ScriptSink<bool>| {
        let pipeline = Pipeline::new("test");
        let timed = pipeline.source("in", source).watermark_by(WatermarkStrategy::bounded(Duration::from_millis(20)));
        let observed = timed.apply(None, ObserveOf::<u64>::default());
        observed.map(|observed: Observed<u64>| observed.is_late()).sink("out", sink);
        pipeline.into()
    });
    assert_eq!(late.unwrap(), vec![false; 200]);
}

#[test]
fn splits_are_not_left_out_where_nobody_knows_them() {
    let idle = || WatermarkStrategy::monotonous().idle_after(Duration::from_secs(1));
    let refused = |describe: &dyn Fn(Stream<u64>) -> Stream<u64>| {
        let pipeline = Pipeline::new("test");
        let sink = millstream_runtime::testing::SimSink {
            outside: millstream_runtime::testing::Outside::default(),
            seed: 0,
            faults: 0.0,
        };
        describe(source(&pipeline, "in")).sink("out", sink);
        let errors = pipeline.validate().err().map(|errors| errors.0).unwrap_or_default();
        errors.iter().any(|error| matches!(error, BuildError::IdleUnknown { at } if at.contains("tests.rs")))
    };
    let time = |n: &u64| at(*n as i64);
    assert!(!refused(&|stream| stream.filter(|_| true).event_time_by(time, idle())));
    assert!(refused(&|stream| stream.rebalance().event_time_by(time, idle())));
    assert!(refused(&|stream| stream.clone().union(stream).event_time_by(time, idle())));
    assert!(!refused(&|stream| stream.rebalance().event_time(time, Duration::ZERO)));
    let twice = |stream: Stream<u64>| stream.event_time_by(time, idle()).rebalance().event_time_by(time, idle());
    assert!(!refused(&twice), "it hears of the idle splits from the first");
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
    assert!(
        text.contains("count counts <- ") && text.contains("(hash, by key group)\n      state value v1\n"),
        "{text}"
    );
    let dot = pipeline.to_dot();
    assert!(dot.starts_with("digraph \"drawn\"") && dot.contains("label=\"hash, by key group\""), "{dot}");
}

#[test]
fn records_that_fail_a_try_map_are_skipped_or_become_dead_letters() {
    let skip = through(words("1 x 2 y 3"), |stream| stream.try_map(|word| word.parse::<u64>()).skip_errors().erase());
    assert_eq!(skip.unwrap(), [1, 2, 3]);
    // Nothing of a run before it is lost, and one behind it goes on.
    let run = through(words("1 x 2"), |stream| {
        let parsed = stream.map(|word| word + "0").try_map(|word| word.parse::<u64>()).skip_errors();
        parsed.flat_map(|n| [n, n + 1]).erase()
    });
    assert_eq!(run.unwrap(), [10, 11, 20, 21]);
    let dead = through(words("1 x 2 y"), |stream| {
        let bad = crate::OutputTag::new("bad");
        let parsed = stream.try_map(|word| word.parse::<u64>()).dead_letters_to(&bad);
        // Both outputs together would come in an order that depends on the cut.
        parsed.side(&bad).union(parsed.filter(|_| false).map(|n| n.to_string()))
    });
    assert_eq!(dead.unwrap(), ["x", "y"]);
}
