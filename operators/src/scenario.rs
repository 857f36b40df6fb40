//! Scripts of records and watermarks for tests of operators that go by event time.

use millstream_runtime::testing::{Drains, HarnessFailure, ScriptSink, ScriptSource, Step, check_drains, check_steps};
use millstream_runtime::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{OutputMode, Pipeline, Stream};

/// A record of a key at a time, in seconds, with a number.
pub(crate) type Event = (String, i64, i64);

/// A time in seconds.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// A record of a key at so many seconds.
pub(crate) fn rec(key: &str, seconds: i64) -> Step<Event> {
    number(key, seconds, 1)
}

/// A record with a number.
pub(crate) fn number(key: &str, seconds: i64, number: i64) -> Step<Event> {
    Step::Record((key.to_owned(), seconds, number), at(seconds))
}

/// A record without event time.
pub(crate) fn untimed(key: &str) -> Step<Event> {
    Step::Record((key.to_owned(), 0, 1), Timestamp::MIN)
}

/// A watermark, behind which the script may be cut.
pub(crate) fn watermark(seconds: i64) -> Step<Event> {
    Step::Watermark(at(seconds))
}

/// Runs a script record by record, as one frame, restored after every record, and over several subtasks. The results are those with one,
/// in their order.
pub(crate) fn steps<Out: Serialize + DeserializeOwned + Send + 'static>(
    mode: OutputMode,
    script: &[Step<Event>],
    describe: impl Fn(Stream<Event>) -> Stream<Out>,
) -> Result<Vec<Out>, HarnessFailure> {
    check_steps(script.iter().cloned(), |source: ScriptSource<Step<Event>>, sink: ScriptSink<Out>| {
        let pipeline = Pipeline::new("scenario").output_mode(mode);
        let steps = pipeline.source("in", source).event_time_by(Step::time, Step::strategy());
        describe(steps.flat_map(Step::into_record).erase()).sink("out", sink);
        pipeline.into()
    })
}

/// Runs a script list by list: each is an epoch.
pub(crate) fn drains<Out: Serialize + DeserializeOwned + Send + 'static>(
    mode: OutputMode,
    script: &[&[Step<Event>]],
    describe: impl Fn(Stream<Event>) -> Stream<Out>,
) -> Result<Drains<Out>, HarnessFailure> {
    let script = script.iter().map(|list| list.to_vec());
    check_drains(script, |source: ScriptSource<Vec<Step<Event>>>, sink: ScriptSink<Out>| {
        let pipeline = Pipeline::new("scenario").output_mode(mode);
        let steps = pipeline.source("in", source).flat_map(|list: Vec<Step<Event>>| list);
        let timed = steps.event_time_by(Step::time, Step::strategy());
        describe(timed.flat_map(Step::into_record).erase()).sink("out", sink);
        pipeline.into()
    })
}

/// The code with which a pipeline of a described stream is refused; nothing if it is not.
pub(crate) fn refusal<Out: Send + std::fmt::Debug + 'static>(
    mode: OutputMode,
    describe: impl Fn(Stream<Event>) -> Stream<Out>,
) -> String {
    use millstream_runtime::graph::BuildError;
    use millstream_runtime::testing::{Outside, SimSink, SimSource};
    let pipeline = Pipeline::new("refused").output_mode(mode);
    let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
    let events = pipeline.source("in", source).map(|numbered| (String::new(), numbered.seq as i64, 1));
    let timed = events.event_time(|(_, seconds, _): &Event| at(*seconds), std::time::Duration::ZERO);
    describe(timed).sink("out", SimSink { outside: Outside::default(), seed: 0, faults: 0.0 });
    match pipeline.validate() {
        Ok(()) => String::new(),
        Err(errors) => match errors.0.first() {
            Some(BuildError::Unsupported { code, .. }) => (*code).to_owned(),
            other => format!("{other:?}"),
        },
    }
}
