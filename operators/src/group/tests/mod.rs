//! Group state through the harness. Each test names the row of the semantics that it is about.

use millstream_runtime::error::BoxError;
use millstream_runtime::testing::{HarnessFailure, Outside, ScriptSink, ScriptSource, ScriptedTime, check};
use millstream_runtime::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::prelude::*;

mod initial;
mod programs;
mod state;
mod timeouts;

/// A row of the script: key, event time in milliseconds, what it says, and the watermark behind it, if one comes there.
pub(super) type Row = (String, i64, String, Option<i64>);

pub(super) fn row(key: &str, time: i64, says: &str, watermark: Option<i64>) -> Row {
    (key.to_owned(), time, says.to_owned(), watermark)
}

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The numbers that a simulated sink was given.
pub(super) fn numbers(outside: &Outside) -> Vec<i64> {
    outside.rows().into_iter().map(|row| String::from_utf8(row).unwrap().parse().unwrap()).collect()
}

/// Runs rows and watermarks through an operator in every cut of the harness, in one subtask: with more, a watermark waits for its
/// neighbours.
pub(super) fn through<R>(
    mode: OutputMode,
    script: impl IntoIterator<Item = Row>,
    describe: impl Fn(KeyedStream<String, Row>) -> Stream<R>,
) -> Result<Vec<R>, HarnessFailure>
where
    R: Serialize + DeserializeOwned + Send + 'static,
{
    check(script, |source: ScriptSource<Row>, sink: ScriptSink<R>| {
        let pipeline = Pipeline::new("groups").parallelism(1).output_mode(mode);
        let time = ScriptedTime::new(|(_, time, _, mark): &Row| (at(*time), mark.map(at)));
        let timed = pipeline.source("in", source).apply::<Row>(None, time);
        describe(timed.key_by_ref(|(key, ..)| key.as_str())).sink("out", sink);
        pipeline.into()
    })
}

/// As [`through`], without event times.
pub(super) fn untimed<R>(
    mode: OutputMode,
    script: impl IntoIterator<Item = Row>,
    describe: impl Fn(KeyedStream<String, Row>) -> Stream<R>,
) -> Result<Vec<R>, HarnessFailure>
where
    R: Serialize + DeserializeOwned + Send + 'static,
{
    check(script, |source: ScriptSource<Row>, sink: ScriptSink<R>| {
        let pipeline = Pipeline::new("groups").output_mode(mode);
        describe(pipeline.source("in", source).key_by_ref(|(key, ..)| key.as_str())).sink("out", sink);
        pipeline.into()
    })
}
