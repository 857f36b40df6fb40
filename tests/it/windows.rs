//! Windows and duplicates of random scripts, epoch by epoch and however cut, against [`reference`](crate::reference).

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::operator::DropReason;
use millstream::runtime::testing::{Drains, ScriptSink, ScriptSource, Step, check_drains, check_steps};
use millstream::runtime::time::Timestamp;
use proptest::prelude::*;

use crate::reference::{Aggregation, Bounds, Deduplication, Dropped, Row, Windows};

const SECOND: i64 = 1_000_000;

/// A record: key, event time in microseconds if it has one, value.
type Event = (u64, Option<i64>, i64);

/// Records, and a watermark in whole seconds behind them.
type Epoch = (Vec<Event>, Option<i64>);

/// A script as the harness wants it.
fn steps(script: &[Epoch]) -> Vec<Vec<Step<Event>>> {
    let epoch = |(events, watermark): &Epoch| {
        let time = |time: Option<i64>| time.map_or(Timestamp::MIN, Timestamp::from_micros);
        let records = events.iter().map(|event| Step::Record(*event, time(event.1)));
        let watermark = watermark.map(|seconds| Step::Watermark(Timestamp::from_micros(seconds * SECOND)));
        records.chain(watermark).collect()
    };
    script.iter().map(epoch).collect()
}

/// Runs a script epoch by epoch, with restarts in between, with one subtask and with three.
fn drains<Out>(mode: OutputMode, script: &[Epoch], describe: impl Fn(Stream<Event>) -> Stream<Out>) -> Drains<Out>
where
    Out: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let ran = check_drains(steps(script), |source: ScriptSource<Vec<Step<Event>>>, sink: ScriptSink<Out>| {
        let pipeline = Pipeline::new("windows").output_mode(mode);
        let steps = pipeline.source("in", source).flat_map(|steps: Vec<Step<Event>>| steps);
        describe(steps.event_time_by(Step::time, Step::strategy()).flat_map(Step::into_record).erase())
            .sink("out", sink);
        pipeline.into()
    });
    ran.unwrap()
}

/// Runs a script record by record, as one frame, restored after every record, and with several subtasks: all give these results.
fn cuts<Out>(mode: OutputMode, script: &[Epoch], describe: impl Fn(Stream<Event>) -> Stream<Out>) -> Vec<Out>
where
    Out: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let script = steps(script).into_iter().flatten();
    let ran = check_steps(script, |source: ScriptSource<Step<Event>>, sink: ScriptSink<Out>| {
        let pipeline = Pipeline::new("windows").output_mode(mode);
        let steps = pipeline.source("in", source).event_time_by(Step::time, Step::strategy());
        describe(steps.flat_map(Step::into_record).erase()).sink("out", sink);
        pipeline.into()
    });
    ran.unwrap()
}

const fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

fn row<K: Into<u64>>(row: Windowed<K, (u64, i64, Option<i64>)>) -> Row {
    let bounds: Bounds = (row.window.start.as_micros(), row.window.end.as_micros());
    (row.key.into(), bounds, row.value)
}

/// The pipeline that [`Aggregation`] computes.
fn aggregated(events: Stream<Event>, windows: Windows, lateness: i64) -> Stream<Row> {
    let keyed = events.key_by(|(key, ..)| *key);
    let value = |(.., value): &Event| *value;
    let all = (Count, Sum::of(value), Max::of(value));
    match windows {
        Windows::Grid { size, slide, offset } => {
            let sliding = Sliding::of(micros(size), micros(slide)).offset(Timestamp::from_micros(offset));
            keyed.window(sliding).allowed_lateness(micros(lateness)).aggregate("windows", all).map(row).erase()
        }
        Windows::Session { gap } => {
            let sessions = keyed.window(Session::gap(micros(gap)));
            sessions.allowed_lateness(micros(lateness)).aggregate("windows", all).map(row).erase()
        }
    }
}

/// What the reference says of each epoch, the end of the input last.
fn expected(
    mode: OutputMode,
    script: &[Epoch],
    mut reference: Aggregation,
) -> (Vec<Vec<Row>>, BTreeMap<DropReason, u64>) {
    let mut results = Vec::new();
    for (events, watermark) in script {
        let updates = events.iter().flat_map(|(key, time, value)| reference.record(*key, *time, *value));
        let updates: Vec<Row> = updates.collect();
        let closed = watermark.map(|seconds| reference.watermark(seconds * SECOND)).unwrap_or_default();
        results.push(match mode {
            OutputMode::Append => closed,
            OutputMode::Update => updates,
            OutputMode::Complete => reference.table(),
        });
    }
    let closed = reference.watermark(i64::MAX);
    results.push(match mode {
        OutputMode::Append => closed,
        OutputMode::Update => Vec::new(),
        OutputMode::Complete => reference.table(),
    });
    (results, counts(reference.dropped))
}

fn counts(dropped: Dropped) -> BTreeMap<DropReason, u64> {
    let counts = [
        (DropReason::Late, dropped.late),
        (DropReason::LateInPart, dropped.late_in_part),
        (DropReason::NoWindow, dropped.in_no_window),
        (DropReason::Duplicate, dropped.duplicates),
    ];
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn sorted<Out: Ord>(mut rows: Vec<Out>) -> Vec<Out> {
    rows.sort();
    rows
}

/// Mostly times near each other and near 1970, now and then at a limit of time, or none.
fn time() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        12 => (-20_i64..60).prop_map(|seconds| Some(seconds * SECOND)),
        4 => (-20 * SECOND..60 * SECOND).prop_map(Some),
        1 => Just(None),
        1 => (0_i64..3).prop_map(|by| Some(i64::MAX - by)),
        1 => (1_i64..3).prop_map(|by| Some(i64::MIN + by)),
    ]
}

fn script() -> impl Strategy<Value = Vec<Epoch>> {
    let events = prop::collection::vec((0_u64..3, time(), -5_i64..100), 0..7);
    prop::collection::vec((events, prop::option::of(-5_i64..60)), 1..6)
}

fn windows() -> impl Strategy<Value = Windows> {
    let grid = (1_i64..=20, 1_i64..=20, -19_i64..=19).prop_map(|(size, slide, offset)| {
        let slide = slide.min(size);
        Windows::Grid { size: size * SECOND, slide: slide * SECOND, offset: offset % slide * SECOND }
    });
    prop_oneof![2 => grid, 1 => (1_i64..=9).prop_map(|gap| Windows::Session { gap: gap * SECOND })]
}

fn modes() -> impl Strategy<Value = OutputMode> {
    prop_oneof![Just(OutputMode::Append), Just(OutputMode::Update), Just(OutputMode::Complete)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// S-WIN, S-SESS, S-ET-05 to 09, S-MODE-07 to 09.
    #[test]
    fn windows_are_what_their_definition_says(
        script in script(),
        windows in windows(),
        lateness in prop_oneof![Just(0), 1_i64..15],
        mode in modes(),
    ) {
        // Update is not for sessions.
        let mode = match windows {
            Windows::Session { .. } if mode == OutputMode::Update => OutputMode::Append,
            _ => mode,
        };
        let lateness = lateness * SECOND;
        let reference = match mode {
            OutputMode::Complete => Aggregation::complete(windows),
            _ => Aggregation::new(windows, lateness),
        };
        let (results, dropped) = expected(mode, &script, reference);
        let out = drains(mode, &script, |events| aggregated(events, windows, lateness));
        prop_assert_eq!(&out.dropped, &dropped);
        for (epoch, (got, wanted)) in out.results.into_iter().zip(&results).enumerate() {
            prop_assert_eq!(sorted(got), sorted(wanted.clone()), "epoch {}", epoch);
        }
        if mode != OutputMode::Complete {
            let whole = cuts(mode, &script, |events| aggregated(events, windows, lateness));
            prop_assert_eq!(sorted(whole), sorted(results.concat()));
        }
    }

    /// S-DEDUP-04
    #[test]
    fn duplicates_are_what_their_definition_says(script in script(), delay in 0_i64..20) {
        let mut reference = Deduplication::new(delay * SECOND);
        let mut wanted: Vec<Vec<Event>> = Vec::new();
        for (events, watermark) in &script {
            wanted.push(events.iter().copied().filter(|(key, time, _)| reference.record(*key, *time)).collect());
            watermark.iter().for_each(|seconds| reference.watermark(seconds * SECOND));
        }
        wanted.push(Vec::new());
        let deduplicated = |events: Stream<Event>| {
            let keyed = events.key_by(|(key, ..)| *key);
            keyed.drop_duplicates_within_watermark("unique", micros(delay * SECOND))
        };
        let out = drains(OutputMode::Append, &script, deduplicated);
        prop_assert_eq!(&out.dropped, &counts(reference.dropped));
        let got: Vec<_> = out.results.into_iter().map(sorted).collect();
        prop_assert_eq!(got, wanted.into_iter().map(sorted).collect::<Vec<_>>());
    }
}
