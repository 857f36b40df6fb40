//! Pieces of pipelines that many rows are about.

use std::fmt::Debug;
use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::operators::window::WindowAssigner;
use millstream::operators::{OutputMode, Stream};
use millstream::runtime::error::BoxError;
use millstream::runtime::graph::BuildError;
use millstream::runtime::testing::{Outside, SimSink, SimSource};
use millstream::runtime::time::Timestamp;
use millstream::runtime::trigger::Trigger;

use super::drive::{Event, on, seconds, secs};

/// A result of a window: key, start and end in seconds, value.
pub(super) type Counted = (String, i64, i64, u64);

pub(super) fn counted(key: &str, start: i64, end: i64, count: u64) -> Counted {
    (key.to_owned(), start, end, count)
}

pub(super) fn pair(key: &str, count: u64) -> (String, u64) {
    (key.to_owned(), count)
}

pub(super) fn by_key(events: Stream<Event>) -> KeyedStream<String, Event> {
    events.key_by(|event| event.key.clone())
}

pub(super) fn tens(events: Stream<Event>) -> WindowedStream<String, Event, Tumbling> {
    by_key(events).window(Tumbling::of(secs(10)))
}

/// Counts by key and window.
pub(super) fn counts_in(windowed: WindowedStream<String, Event, impl WindowAssigner<Event>>) -> Stream<Counted> {
    let counts = windowed.aggregate("counts", Count);
    counts.map(|row| (row.key, seconds(row.window.start), seconds(row.window.end), row.value)).erase()
}

/// Counts by key and ten seconds.
pub(super) fn counts(events: Stream<Event>) -> Stream<Counted> {
    counts_in(tens(events))
}

/// Counts by key for ever.
pub(super) fn totals(events: Stream<Event>) -> Stream<(String, u64)> {
    by_key(events).aggregate("totals", Count)
}

/// Each row with the processing time that it meets.
#[derive(Clone)]
pub(super) struct Now;

impl KeyedProcess for Now {
    type Key = String;
    type In = Event;
    type Out = (Event, Timestamp);
    type State = ();

    fn open(&self, _ctx: &mut OpenContext<'_>) -> Result<(), BoxError> {
        Ok(())
    }

    fn on_record(&mut self, event: Event, _: &mut (), ctx: &mut ProcessContext<'_, Self::Out>) -> Result<(), BoxError> {
        ctx.emit((event, ctx.processing_time()));
        Ok(())
    }
}

/// The code with which `start` refuses a pipeline, the same in both modes; nothing if it does not.
#[track_caller]
pub(super) fn refusal<Out: Debug + Send + 'static>(
    mode: OutputMode,
    timed: bool,
    describe: impl Fn(Stream<Event>) -> Stream<Out>,
) -> String {
    let codes = [None, Some(Trigger::ProcessingTime(Duration::ZERO))].map(|trigger| {
        let pipeline = Pipeline::new("refused").output_mode(mode);
        let pipeline = if let Some(trigger) = trigger { pipeline.trigger(trigger) } else { pipeline };
        let source = SimSource { lengths: vec![1], seed: 0, first_split: 0 };
        let events = pipeline.source("in", source).map(|numbered| on("a", numbered.seq as i64)).erase();
        let events = if timed { events.event_time(|event| event.time, Duration::ZERO) } else { events };
        describe(events).sink("out", SimSink { outside: Outside::default(), seed: 0, faults: 0.0 });
        match pipeline.validate() {
            Ok(()) => String::new(),
            Err(errors) => match errors.0.first() {
                Some(BuildError::Unsupported { code, .. }) => (*code).to_owned(),
                other => format!("{other:?}"),
            },
        }
    });
    assert_eq!(codes[0], codes[1], "continuous and in micro-batches");
    codes.into_iter().next().unwrap()
}
