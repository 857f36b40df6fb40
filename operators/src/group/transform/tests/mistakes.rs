//! What a processor may not do, by its code.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::testing::{Outside, SimConfig, SimSink, SimSource, simulate};
use millstream_runtime::time::Timestamp;

use crate::group::tests::{Row, at, row, through, untimed};
use crate::prelude::*;

/// What a processor does with a row.
type OnRow = fn(&mut TransformContext<'_, i64>, i64) -> Result<(), BoxError>;

/// Asks for variables as `init` says, does as `rows` says.
#[derive(Clone)]
struct Wrong {
    init: fn(&mut VariableHandle<'_, '_>) -> Result<(), BoxError>,
    rows: OnRow,
    closed: Arc<AtomicUsize>,
}

fn wrong(init: fn(&mut VariableHandle<'_, '_>) -> Result<(), BoxError>, rows: OnRow) -> Wrong {
    Wrong { init, rows, closed: Arc::default() }
}

impl StatefulProcessor for Wrong {
    type Key = String;
    type In = Row;
    type Out = i64;
    type State = (ValueState<Option<u8>>, ListState<u8>);

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<Self::State, BoxError> {
        (self.init)(handle)?;
        Ok((handle.value_state("value", None)?, handle.list_state("list", None)?))
    }

    fn handle_input_rows(
        &mut self,
        _key: &String,
        rows: &mut Rows<'_, Row>,
        (value, list): &mut Self::State,
        ctx: &mut TransformContext<'_, i64>,
    ) -> Result<(), BoxError> {
        for (_, time, says, _) in rows {
            match says.as_str() {
                "null" => value.update(None)?,
                "empty" => list.put(Vec::new())?,
                "append empty" => list.append_list(Vec::new())?,
                _ => (self.rows)(ctx, time)?,
            }
        }
        Ok(())
    }

    fn close(&mut self, _state: &mut Self::State) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The mistake that `start` would return.
fn described(mode: TimeMode, processor: Wrong) -> String {
    let pipeline = Pipeline::new("wrong");
    let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
    let rows = pipeline.source("in", source).map(|_| row("a", 0, "", None)).key_by_ref(|(key, ..)| key.as_str());
    let sink = SimSink { outside: Outside::default(), seed: 0, faults: 0.0 };
    rows.transform_with_state("wrong", OutputMode::Append, mode, processor).sink("out", sink);
    pipeline.validate().map_or_else(|errors| errors.to_string(), |()| "no mistake".to_owned())
}

/// S-TWS-07
#[test]
fn mistakes_with_variables_are_found_before_the_start() {
    let quiet = |_: &mut TransformContext<'_, i64>, _| Ok(());
    let zero = wrong(|handle| Ok(handle.value_state::<u8>("mortal", Some(Duration::ZERO)).map(|_| ())?), quiet);
    assert!(described(TimeMode::ProcessingTime, zero).contains("E-TWS-02: the time to live of variable mortal"));
    let mortal = wrong(|handle| Ok(handle.list_state::<u8>("mortal", Some(Duration::MAX)).map(|_| ())?), quiet);
    assert!(described(TimeMode::EventTime, mortal.clone()).contains("E-TWS-03: variable mortal"));
    assert!(described(TimeMode::None, mortal.clone()).contains("E-TWS-03: variable mortal"));
    assert_eq!(described(TimeMode::ProcessingTime, mortal), "no mistake");
    let twice = wrong(|handle| Ok(handle.map_state::<u8, u8>("value", None).map(|_| ())?), quiet);
    assert!(described(TimeMode::None, twice).contains("E-TWS-07: variable value is asked for twice"));
    let given_up = wrong(|handle| Ok(handle.delete_if_exists("list")?), quiet);
    assert!(described(TimeMode::None, given_up).contains("E-TWS-07: variable list"));
    let early = wrong(|handle| Ok(handle.value_state("early", None)?.update(1u8)?), quiet);
    assert!(described(TimeMode::None, early).contains("E-TWS-08"));
}

/// E-TWS-05
#[test]
fn the_mode_of_a_processor_is_that_of_the_pipeline() {
    for (query, own) in [(OutputMode::Update, OutputMode::Append), (OutputMode::Append, OutputMode::Update)] {
        let out = untimed(query, [row("a", 0, "", None)], |rows| {
            rows.transform_with_state("wrong", own, TimeMode::None, wrong(|_| Ok(()), |_, _| Ok(())))
        });
        let text = out.unwrap_err().to_string();
        assert!(text.contains("E-TWS-05") && text.contains("wrong"), "{text}");
    }
}

/// Timers that nothing would ever let fire, and policies that are not there.
#[test]
fn what_could_not_work_is_refused_before_the_start() {
    let quiet = wrong(|_| Ok(()), |_, _| Ok(()));
    let text = described(TimeMode::EventTime, quiet.clone());
    assert!(text.contains("E-GS-05") && text.contains("timers by event time need a watermark"), "{text}");
    let out = untimed(OutputMode::Append, [row("a", 0, "", None)], |rows| {
        rows.skip_errors().transform_with_state("wrong", OutputMode::Append, TimeMode::None, quiet.clone())
    });
    let text = out.unwrap_err().to_string();
    assert!(text.contains("wrong") && text.contains("`skip_errors`"), "{text}");
}

/// S-TWS-07 and E-TWS-06
#[test]
fn mistakes_with_timers_and_values_fail_by_their_code() {
    let failed = |mode: TimeMode, says: &str, rows: OnRow| {
        let out = untimed(OutputMode::Append, [row("a", 0, says, None)], |stream| {
            stream.transform_with_state("wrong", OutputMode::Append, mode, wrong(|_| Ok(()), rows))
        });
        out.unwrap_err().to_string()
    };
    let nothing = |_: &mut TransformContext<'_, i64>, _| Ok(());
    for says in ["null", "empty", "append empty"] {
        let text = failed(TimeMode::None, says, nothing);
        assert!(text.contains("E-TWS-06"), "{text}");
    }
    let uses: [OnRow; 3] = [
        |ctx, _| Ok(ctx.register_timer(at(5)).map(|_| ())?),
        |ctx, _| Ok(ctx.delete_timer(at(5)).map(|_| ())?),
        |ctx, _| Ok(ctx.list_timers().map(|_| ())?),
    ];
    for rows in uses {
        let text = failed(TimeMode::None, "", rows);
        assert!(text.contains("E-TWS-01"), "{text}");
    }
}

/// E-TWS-04
#[test]
fn a_row_that_the_next_operator_would_drop_fails() {
    let run = |back: i64, mark: i64| {
        let script = [row("a", 100, "", Some(mark)), row("a", 200, "", None)];
        through(OutputMode::Append, script, move |rows| {
            let emit: OnRow = |ctx, time| {
                ctx.emit(time);
                Ok(())
            };
            let emit = wrong(|_| Ok(()), emit);
            let row_time = move |time: &i64| at(time - back);
            let out = rows.transform_with_state_at("wrong", OutputMode::Append, TimeMode::EventTime, emit, row_time);
            out.key_by(|_| 0u8).process("times", Times)
        })
    };
    assert_eq!(run(10, 90).unwrap(), [at(90), at(190)]);
    assert_eq!(run(109, 90).unwrap(), [at(-9), at(91)]);
    let text = run(110, 90).unwrap_err().to_string();
    assert!(text.contains("E-TWS-04: a row of time 90000us is not above the watermark 90000us"), "{text}");
}

/// Tells the event times of what it is given.
#[derive(Clone)]
struct Times;

impl KeyedProcess for Times {
    type Key = u8;
    type In = i64;
    type Out = Timestamp;
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(&mut self, _: i64, _: &mut (), ctx: &mut ProcessContext<'_, Timestamp>) -> Result<(), BoxError> {
        ctx.emit(ctx.time());
        Ok(())
    }
}

/// §4.2: `close` is called for every subtask of every attempt, after an error too.
#[test]
fn every_subtask_is_closed() {
    let run = |fails: bool| {
        let processor =
            if fails { wrong(|_| Ok(()), |_, _| Err("it fails".into())) } else { wrong(|_| Ok(()), |_, _| Ok(())) };
        let closed = Arc::clone(&processor.closed);
        let pipeline = || {
            let pipeline = Pipeline::new("closed");
            let source = SimSource { lengths: vec![3], seed: 0, first_split: 0 };
            let rows =
                pipeline.source("in", source).map(|_| row("a", 0, "", None)).key_by_ref(|(key, ..)| key.as_str());
            let sink = SimSink { outside: Outside::default(), seed: 0, faults: 0.0 };
            rows.transform_with_state("wrong", OutputMode::Append, TimeMode::None, processor.clone()).sink("out", sink);
            pipeline.into()
        };
        let mut config = SimConfig { parallelism: vec![3], ..SimConfig::calm(1) };
        config.job.restart = millstream_runtime::job::RestartPolicy::never();
        assert_eq!(simulate(&config, &pipeline).is_err(), fails);
        closed.load(Ordering::Relaxed)
    };
    assert_eq!(run(false), 3);
    assert_eq!(run(true), 3);
}
