//! When timers fire, and in which order.

use millstream_runtime::error::BoxError;
use millstream_runtime::testing::{Outside, SimConfig, SimSink, SimSource, simulate};
use millstream_runtime::time::Timestamp;

use crate::group::tests::{Row, at, numbers, row, through};
use crate::prelude::*;

/// Does what the rows say: `register N` and `delete N`, in milliseconds. Tells of each timer that fires.
#[derive(Clone)]
struct Timers;

/// The timer, the watermark, and the timers that are listed.
type Fired = (i64, i64, Vec<i64>);

fn millis(time: Timestamp) -> i64 {
    time.as_micros() / 1_000
}

impl StatefulProcessor for Timers {
    type Key = String;
    type In = Row;
    type Out = Fired;
    type State = ();

    fn init(&self, _handle: &mut VariableHandle<'_, '_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn handle_input_rows(
        &mut self,
        _key: &String,
        rows: &mut Rows<'_, Row>,
        _state: &mut (),
        ctx: &mut TransformContext<'_, Fired>,
    ) -> Result<(), BoxError> {
        for (_, _, says, _) in rows {
            let words: Vec<&str> = says.split_whitespace().collect();
            for order in words.chunks(2) {
                let [what, millis] = order else { return Err("half an order".into()) };
                let time = at(millis.parse()?);
                let (listed, done) = match *what {
                    "register" => (ctx.list_timers()?.contains(&time), ctx.register_timer(time)?),
                    _ => (!ctx.list_timers()?.contains(&time), ctx.delete_timer(time)?),
                };
                // The same timer again is no change.
                assert_eq!(done, !listed);
            }
        }
        Ok(())
    }

    fn handle_expired_timer(
        &mut self,
        _key: &String,
        expired_at: Timestamp,
        _state: &mut (),
        ctx: &mut TransformContext<'_, Fired>,
    ) -> Result<(), BoxError> {
        let listed = ctx.list_timers()?.into_iter().map(millis).collect();
        ctx.emit((millis(expired_at), ctx.timer_values().watermark_ms, listed));
        Ok(())
    }
}

fn fired(script: impl IntoIterator<Item = Row>) -> Vec<Fired> {
    let out = through(OutputMode::Append, script, |rows| {
        rows.transform_with_state("timers", OutputMode::Append, TimeMode::EventTime, Timers)
    });
    out.unwrap()
}

const END: i64 = i64::MAX / 1_000;

/// S-TWS-02
#[test]
fn a_timer_fires_once_the_watermark_is_at_its_time() {
    let script = [row("a", 5, "register 10", Some(9)), row("b", 11, "", Some(10)), row("b", 12, "", Some(11))];
    assert_eq!(fired(script), [(10, 10, vec![10])]);
}

/// S-TWS-03
#[test]
fn timers_fire_in_the_order_of_their_times_each_once() {
    let script = [
        row("a", 1, "register 12 register 10 register 3 register 10", Some(5)),
        row("a", 6, "", Some(10)),
        row("a", 11, "", Some(13)),
    ];
    assert_eq!(fired(script), [(3, 5, vec![3, 10, 12]), (10, 10, vec![10, 12]), (12, 13, vec![12])]);
}

/// S-TWS-04: what fires behind the rows is also what fires in their epoch.
#[test]
fn a_timer_in_the_past_fires_behind_the_rows_and_a_deleted_one_never() {
    let script = [
        row("a", 5, "register 30 register 40", Some(11)),
        row("a", 20, "register 1 delete 30 register 50 delete 50", None),
        row("b", 21, "", Some(100)),
    ];
    assert_eq!(fired(script), [(1, 11, vec![1, 40]), (40, 100, vec![40])]);
}

/// §4.2: late rows are those of event-time mode, the beginning of time included; timers of the end fire at the end.
#[test]
fn only_rows_of_event_time_mode_are_late() {
    #[derive(Clone)]
    struct Pass;
    impl StatefulProcessor for Pass {
        type Key = String;
        type In = Row;
        type Out = String;
        type State = ();
        fn init(&self, _handle: &mut VariableHandle<'_, '_>) -> Result<(), BoxError> {
            Ok(())
        }
        fn handle_input_rows(
            &mut self,
            _key: &String,
            rows: &mut Rows<'_, Row>,
            _state: &mut (),
            ctx: &mut TransformContext<'_, String>,
        ) -> Result<(), BoxError> {
            rows.for_each(|(_, _, says, _)| ctx.emit(says));
            Ok(())
        }
    }
    let script = || {
        [
            row("a", 0, "at zero", None),
            row("a", 1, "first", Some(10)),
            row("a", 10, "late", None),
            row("a", 11, "last", None),
        ]
    };
    let run = |mode: TimeMode| {
        through(OutputMode::Update, script(), |rows| rows.transform_with_state("pass", OutputMode::Update, mode, Pass))
    };
    let all = script().map(|(_, _, says, _)| says);
    assert_eq!(run(TimeMode::None).unwrap(), all);
    assert_eq!(run(TimeMode::ProcessingTime).unwrap(), all);
    assert_eq!(run(TimeMode::EventTime).unwrap(), ["first", "last"]);
    assert_eq!(fired([row("a", 5, "register 1000", None)]), [(1_000, END, vec![1_000])]);
}

/// Emits once a timer of the processing time has fired; counts what was closed.
#[derive(Clone)]
struct Later;

impl StatefulProcessor for Later {
    type Key = u64;
    type In = u64;
    type Out = i64;
    type State = ValueState<i64>;

    fn init(&self, handle: &mut VariableHandle<'_, '_>) -> Result<ValueState<i64>, BoxError> {
        Ok(handle.value_state("since", None)?)
    }

    fn handle_input_rows(
        &mut self,
        _key: &u64,
        rows: &mut Rows<'_, u64>,
        since: &mut ValueState<i64>,
        ctx: &mut TransformContext<'_, i64>,
    ) -> Result<(), BoxError> {
        assert_eq!(rows.count(), 1, "each key has one row");
        let now = ctx.timer_values().processing_time_ms;
        since.update(now)?;
        ctx.register_timer(at(now + 3))?;
        Ok(())
    }

    fn handle_expired_timer(
        &mut self,
        _key: &u64,
        _expired_at: Timestamp,
        since: &mut ValueState<i64>,
        ctx: &mut TransformContext<'_, i64>,
    ) -> Result<(), BoxError> {
        let waited = since.get().map(|since| ctx.timer_values().processing_time_ms - *since);
        ctx.emit(waited.ok_or("a timer of a key without a row")?);
        since.clear();
        Ok(())
    }
}

/// §3.3: processing time passes without rows.
#[test]
fn timers_of_the_processing_time_fire_without_rows() {
    let outside = Outside::default();
    let pipeline = || {
        let pipeline = Pipeline::new("later").parallelism(1);
        let source = SimSource { lengths: vec![6_000], seed: 3, first_split: 0 };
        let sink = SimSink { outside: outside.clone(), seed: 0, faults: 0.0 };
        let rows = pipeline.source("in", source).map(|numbered| numbered.seq).key_by(|seq| *seq);
        rows.transform_with_state("later", OutputMode::Append, TimeMode::ProcessingTime, Later).sink("out", sink);
        pipeline.into()
    };
    simulate(&SimConfig::calm(1), &pipeline).unwrap();
    let waited = numbers(&outside);
    assert!(waited.len() > 50, "{} of 6,000 fired before the input ended", waited.len());
    assert!(waited.iter().all(|waited| (3..=6).contains(waited)), "{waited:?}");
}
