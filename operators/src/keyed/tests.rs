//! Users' operators through the harness: state, timers, side outputs, late records.

use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::graph::BuildError;
use millstream_runtime::testing::{
    HarnessFailure, Outside, ScriptSink, ScriptSource, ScriptedTime, SimConfig, SimSink, SimSource, check, check_steps,
    simulate,
};
use millstream_runtime::time::Timestamp;

use crate::prelude::*;

/// Key, event time in milliseconds, and the watermark behind the record, if there is one.
type Step = (u32, i64, Option<i64>);

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// Runs a script of records and watermarks through an operator, with one subtask: with more, a watermark waits for its neighbours.
fn through<Out>(
    script: impl IntoIterator<Item = Step>,
    describe: impl Fn(KeyedStream<u32, Step>) -> Stream<Out>,
) -> Result<Vec<Out>, HarnessFailure>
where
    Out: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    check(script, |source: ScriptSource<Step>, sink: ScriptSink<Out>| {
        let pipeline = Pipeline::new("test").parallelism(1);
        let time = ScriptedTime::new(|(_, time, after): &Step| (at(*time), after.map(at)));
        let timed = pipeline.source("in", source).apply::<Step>(None, time);
        describe(timed.key_by(|(key, ..)| *key)).sink("out", sink);
        pipeline.into()
    })
}

/// A sink that nobody looks at.
fn elsewhere() -> SimSink {
    SimSink { outside: Outside::default(), seed: 0, faults: 0.0 }
}

/// Registers timers so many milliseconds behind every record and tells of each that fires, with the watermark it sees.
#[derive(Clone)]
struct Timers(&'static [i64]);

/// Key, time of the timer, watermark, timers that are listed.
type Fired = (u32, i64, Option<i64>, Vec<i64>);

fn millis(time: Timestamp) -> i64 {
    if time == Timestamp::MAX { i64::MAX } else { time.as_micros() / 1_000 }
}

impl KeyedProcess for Timers {
    type Key = u32;
    type In = Step;
    type Out = Fired;
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(
        &mut self,
        (_, time, _): Step,
        _state: &mut (),
        ctx: &mut ProcessContext<'_, Fired>,
    ) -> Result<(), BoxError> {
        for behind in self.0 {
            ctx.timers().register(TimerKind::EventTime, at(time + behind));
        }
        let decoy = at(time + 100);
        ctx.timers().register(TimerKind::EventTime, decoy);
        ctx.timers().delete(TimerKind::EventTime, decoy);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        _state: &mut (),
        ctx: &mut ProcessContext<'_, Fired>,
    ) -> Result<(), BoxError> {
        let listed = ctx.timers().list(TimerKind::EventTime).into_iter().map(millis).collect();
        let key = ctx.key()?;
        assert_eq!((ctx.firing(), ctx.time()), (Some(TimerKind::EventTime), time));
        ctx.emit((key, millis(time), ctx.watermark().map(millis), listed));
        Ok(())
    }
}

#[test]
fn timers_fire_once_at_or_below_the_watermark_in_ascending_order() {
    // The Spark test S-TWS-03: timers 3, 10, 10, 12; W = 5, 10, and the end.
    let out = through([(7, 1, None), (7, 1, Some(5)), (7, 11, Some(10))], |stream| {
        stream.accept_late().process("timers", Timers(&[2, 9, 9, 11]))
    });
    let seven = |time, watermark, listed: &[i64]| (7, time, Some(watermark), listed.to_vec());
    let wanted = [
        seven(3, 5, &[3, 10, 12]),
        seven(10, 10, &[10, 12, 13, 20, 22]),
        seven(12, i64::MAX, &[12, 13, 20, 22]),
        seven(13, i64::MAX, &[13, 20, 22]),
        seven(20, i64::MAX, &[20, 22]),
        seven(22, i64::MAX, &[22]),
    ];
    assert_eq!(out.unwrap(), wanted);
}

#[test]
fn a_timer_in_the_past_fires_behind_the_record_that_registered_it() {
    // S-TWS-04: the timer of time 1 is registered at W = 11.
    let out =
        through([(7, 20, Some(11)), (8, 20, None), (8, 21, None)], |stream| stream.process("timers", Timers(&[-19])));
    let fired: Vec<(u32, i64, Option<i64>)> =
        out.unwrap().into_iter().map(|(key, time, w, _)| (key, time, w)).collect();
    // That of the first record waited for the watermark; those of the others fired at once.
    assert_eq!(fired, [(7, 1, Some(11)), (8, 1, Some(11)), (8, 2, Some(11))]);
}

/// Sends on what it is given.
#[derive(Clone)]
struct Pass;

impl KeyedProcess for Pass {
    type Key = u32;
    type In = Step;
    type Out = i64;
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(
        &mut self,
        (_, time, _): Step,
        _state: &mut (),
        ctx: &mut ProcessContext<'_, i64>,
    ) -> Result<(), BoxError> {
        ctx.emit(time);
        Ok(())
    }
}

const LATE: [Step; 7] =
    [(1, -50, None), (1, -60, Some(10)), (1, 10, None), (2, 11, None), (2, 3, Some(20)), (1, 20, None), (1, 21, None)];

#[test]
fn a_record_at_or_below_the_watermark_is_late_and_nothing_is_before_the_first() {
    assert_eq!(through(LATE, |stream| stream.process("pass", Pass)).unwrap(), [-50, -60, 11, 21]);
    let all = through(LATE, |stream| stream.accept_late().process("pass", Pass));
    assert_eq!(all.unwrap(), LATE.map(|(_, time, _)| time));
}

#[test]
fn what_is_late_is_so_over_any_number_of_subtasks_and_restarts() {
    use millstream_runtime::testing::Step::{Record, Watermark};
    let script = [
        Record((1, -60, None), at(-60)),
        Watermark(at(10)),
        Record((1, 10, None), at(10)),
        Record((2, 11, None), at(11)),
        Watermark(at(20)),
        Record((2, 20, None), at(20)),
        Record((1, 21, None), at(21)),
        Record((3, 0, None), Timestamp::MIN),
    ];
    type Steps = millstream_runtime::testing::Step<Step>;
    let out = check_steps(script, |source: ScriptSource<Steps>, sink: ScriptSink<i64>| {
        let pipeline = Pipeline::new("test");
        let steps = pipeline.source("in", source).event_time_by(Steps::time, Steps::strategy());
        steps.flat_map(Steps::into_record).key_by(|(key, ..)| *key).process("pass", Pass).sink("out", sink);
        pipeline.into()
    });
    assert_eq!(out.unwrap(), [-60, 11, 21, 0]);
}

#[test]
fn late_records_go_to_their_side_output_and_all_is_in_order_there() {
    let tag = OutputTag::new("late");
    let out = through(LATE, |stream| {
        let passed = stream.late_to(&tag).process("pass", Pass);
        let late = passed.side(&tag).map(|(_, time, _)| time).erase();
        passed.sink("main", elsewhere());
        late
    });
    assert_eq!(out.unwrap(), [10, 3, 20]);
    let unread = through(LATE, |stream| stream.late_to(&tag).process("pass", Pass));
    assert_eq!(unread.unwrap(), [-50, -60, 11, 21]);
}

/// Adds the numbers of the right to those of the left, per key, and shows both kinds of state.
#[derive(Clone)]
struct Pairs {
    odd: OutputTag<String>,
}

impl CoProcess for Pairs {
    type Key = u32;
    type Left = u64;
    type Right = String;
    type Out = (u64, Vec<String>);
    type State = (List<u64>, Map<String, u64>);

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError> {
        ctx.side_output(&self.odd)?;
        Ok((ctx.list("numbers")?, ctx.map("words")?))
    }

    fn on_left(
        &mut self,
        number: u64,
        (numbers, words): &mut Self::State,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        numbers.push(number);
        let sum = numbers.iter().map(|number| *number).sum();
        ctx.emit((sum, words.keys().collect()));
        if number % 2 == 1 {
            ctx.emit_to(&self.odd, format!("{number} is odd"));
        }
        Ok(())
    }

    fn on_right(
        &mut self,
        word: String,
        (_, words): &mut Self::State,
        _ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        let before = words.get(&word).map_or(0, |count| *count);
        words.insert(&word, before + 1);
        Ok(())
    }
}

#[test]
fn two_inputs_meet_in_the_state_of_their_key() {
    // Between the two inputs there is no order, so only what the first one makes is compared.
    let odd = OutputTag::new("odd");
    let script: Vec<(u64, String)> = [(1, "b"), (2, "a"), (3, "b")].map(|(n, word)| (n, word.to_owned())).to_vec();
    let run = |side: bool| {
        let script = script.clone();
        check(script, |source: ScriptSource<(u64, String)>, sink: ScriptSink<String>| {
            let pipeline = Pipeline::new("test").parallelism(1);
            let both = pipeline.source("in", source);
            let numbers = both.clone().map(|(n, _)| n).key_by(|_| 1u32);
            let words = both.map(|(_, word)| word).key_by(|_| 1u32);
            let pairs = numbers.connect(words).process("pairs", Pairs { odd: odd.clone() });
            let sums = |pairs: Stream<(u64, Vec<String>)>| pairs.map(|(sum, _)| sum.to_string()).erase();
            if side {
                pairs.side(&odd).sink("out", sink);
                sums(pairs).sink("sums", elsewhere());
            } else {
                sums(pairs).sink("out", sink);
            }
            pipeline.into()
        })
    };
    assert_eq!(run(false).unwrap(), ["1", "3", "6"]);
    assert_eq!(run(true).unwrap(), ["1 is odd", "3 is odd"]);
}

/// Emits to a tag of somebody else.
#[derive(Clone)]
struct Stray(OutputTag<u8>);

impl KeyedProcess for Stray {
    type Key = u32;
    type In = Step;
    type Out = i64;
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(&mut self, _step: Step, _: &mut (), ctx: &mut ProcessContext<'_, i64>) -> Result<(), BoxError> {
        ctx.emit_to(&self.0, 1);
        Ok(())
    }
}

/// Cannot be opened.
#[derive(Clone)]
struct Closed;

impl KeyedProcess for Closed {
    type Key = u32;
    type In = Step;
    type Out = i64;
    type State = (Value<u8>, Value<u8>);

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Self::State, BoxError> {
        Ok((ctx.value("twice")?, ctx.value("twice")?))
    }

    fn on_record(&mut self, _: Step, _: &mut Self::State, _: &mut ProcessContext<'_, i64>) -> Result<(), BoxError> {
        Ok(())
    }
}

#[test]
fn a_tag_that_was_not_declared_fails_the_operator_by_name() {
    let text = through(LATE, |stream| stream.process("stray", Stray(OutputTag::new("lost")))).unwrap_err().to_string();
    assert!(text.contains("stray") && text.contains("\"lost\"") && text.contains("side_output"), "{text}");
}

#[test]
fn mistakes_with_tags_and_states_are_returned_with_the_line_that_made_them() {
    let pipeline = Pipeline::new("mistakes");
    let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
    let steps =
        pipeline.source("in", source).map(|numbered| (numbered.split, 0, None)).erase().key_by(|(key, ..)| *key);
    let (late, other) = (OutputTag::<Step>::new("late"), OutputTag::<Step>::new("other"));
    let passed = steps.clone().late_to(&late).process("pass", Pass);
    let _ = passed.side(&other);
    let _ = passed.side(&OutputTag::<u8>::new("late"));
    let _ = (passed.side(&late), passed.side(&late));
    let _ = steps.process("closed", Closed);
    let errors = pipeline.validate().unwrap_err().0;
    let has = |wanted: fn(&BuildError) -> bool| errors.iter().any(wanted);
    assert!(has(|error| matches!(error, BuildError::UnknownTag { tag, operator, at }
        if tag == "other" && operator == "pass" && at.contains("tests.rs"))));
    assert!(has(|error| matches!(error, BuildError::UnknownTag { tag, .. } if tag == "late")));
    assert!(has(|error| matches!(error, BuildError::TagTaken { tag, .. } if tag == "late")));
    assert!(has(|error| matches!(error, BuildError::Open { operator, error, .. }
        if operator == "closed" && error.contains("twice"))));
}

/// Waits a while by the processing time, and then tells its key.
#[derive(Clone)]
struct Later;

impl KeyedProcess for Later {
    type Key = u64;
    type In = u64;
    type Out = u64;
    type State = Value<u64>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<u64>, BoxError> {
        // Expires long after the timer has fired.
        Ok(ctx.value("since")?.ttl(Duration::from_secs(3_600)))
    }

    fn on_record(
        &mut self,
        seq: u64,
        since: &mut Value<u64>,
        ctx: &mut ProcessContext<'_, u64>,
    ) -> Result<(), BoxError> {
        since.set(seq);
        let at = ctx.processing_time().saturating_add(Duration::from_micros(100));
        ctx.timers().register(TimerKind::ProcessingTime, at);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        since: &mut Value<u64>,
        ctx: &mut ProcessContext<'_, u64>,
    ) -> Result<(), BoxError> {
        assert!(time <= ctx.processing_time() && ctx.time() == Timestamp::MIN);
        if let Some(seq) = since.take() {
            ctx.emit(seq);
        }
        Ok(())
    }
}

#[test]
fn processing_time_wakes_a_task_without_input() {
    // The first record's timers are due while the source, a slow one, has nothing: without an alarm of the task they would wait.
    let outside = Outside::default();
    let pipeline = || {
        let pipeline = Pipeline::new("later").parallelism(1);
        let source = SimSource { lengths: vec![50], seed: 3, first_split: 0 };
        let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
        pipeline
            .source("in", source)
            .map(|numbered| numbered.seq)
            .key_by(|seq| *seq)
            .process("later", Later)
            .sink("out", sink);
        pipeline.into()
    };
    simulate(&SimConfig::calm(1), &pipeline).unwrap();
    assert!(outside.rows().len() > 10, "{} of 50", outside.rows().len());
}

#[test]
fn a_change_of_parallelism_at_every_restart_changes_no_result() {
    let run = |parallelism: &[u16], stop_after: Option<Duration>| {
        let outside = Outside::default();
        let pipeline = || {
            let pipeline = Pipeline::new("rescaled");
            let source = SimSource { lengths: vec![60, 40, 80], seed: 5, first_split: 0 };
            let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
            let steps = pipeline
                .source("in", source)
                .map(|n| ((n.seq % 17) as u32, n.seq as i64 * 100 + i64::from(n.split), None::<i64>));
            let time = ScriptedTime::new(|(_, time, _): &Step| (at(*time), (time % 7 == 0).then(|| at(time - 300))));
            let timed = steps.erase().apply::<Step>(None, time).key_by(|(key, ..)| *key);
            timed.accept_late().process("timers", Timers(&[150])).map(|(key, time, ..)| (key, time)).sink("out", sink);
            pipeline.into()
        };
        let config = SimConfig { parallelism: parallelism.to_vec(), stop_after, ..SimConfig::calm(7) };
        let report = simulate(&config, &pipeline).unwrap();
        let mut rows = outside.rows();
        rows.sort();
        (rows, report.attempts)
    };
    let (wanted, _) = run(&[1], None);
    assert_eq!(wanted.len(), 180);
    let (rows, attempts) = run(&[1, 3, 2, 4], Some(Duration::from_millis(1)));
    assert!(attempts > 4, "only {attempts} lives");
    assert_eq!(rows, wanted);
}
