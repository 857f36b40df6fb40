//! The pipelines that are restarted, and what is seen of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use millstream::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::handle::StateStatus;
use millstream::runtime::record::Record;
use millstream::runtime::runtime::RuntimeBuilder;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream::runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::filled::Shape;
use crate::support::payload::payload;
use crate::support::{Stopwatch, lock, setting};

/// Records whose latency is measured.
pub(crate) const PROBES: u64 = 10_000;
/// Their distance.
const APART: Duration = Duration::from_micros(200);
/// Between two looks for a result whose time counts.
const SOON: Duration = Duration::from_micros(20);
/// Memory for state: the product's default.
pub(crate) const STATE_MEMORY_MB: u64 = 1024;
/// Without progress for so long, something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// A record: a key, when it was meant to be sent, and its event time.
#[derive(Clone, Copy, Debug)]
struct Touch {
    key: u64,
    at_nanos: u64,
    event_ms: i64,
}

/// A result.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Record { count: u64, at_nanos: u64 },
    Timer,
}

/// What is kept per key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    count: u64,
    payload: String,
}

/// What is asked for: first a range of keys, then single records.
#[derive(Default)]
struct Asked {
    keys: Range<u64>,
    touches: VecDeque<Touch>,
}

/// A source of what is asked for. What was read once never comes again: the bench stops its jobs in order.
#[derive(Clone, Default)]
struct Asking {
    asked: Arc<Mutex<Asked>>,
}

impl Source for Asking {
    type Out = Touch;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("all")])
    }

    fn reader(&self, _split: &SplitId, _from: Option<&Position>) -> Result<Box<dyn Reader<Touch>>, BoxError> {
        Ok(Box::new(self.clone()))
    }
}

impl Reader<Touch> for Asking {
    fn poll(&mut self, batch: &mut Batch<Touch>, limit: usize) -> Result<Polled, BoxError> {
        let mut asked = lock(&self.asked);
        let keys = asked.keys.by_ref().take(limit).map(|key| Touch { key, at_nanos: 0, event_ms: 0 });
        batch.records.extend(keys.map(Record::new));
        let room = limit - batch.records.len();
        let count = asked.touches.len().min(room);
        batch.records.extend(asked.touches.drain(..count).map(Record::new));
        batch.end = Position::from_u64(0);
        Ok(if batch.records.is_empty() { Polled::Idle } else { Polled::More })
    }
}

/// Counts a key's records; the first keys have a timer, set by their first record.
#[derive(Clone)]
struct Hold {
    value_bytes: u64,
    timers: u64,
}

impl KeyedProcess for Hold {
    type Key = u64;
    type In = Touch;
    type Out = Seen;
    type State = Value<Held>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Value<Held>, BoxError> {
        Ok(ctx.value("held")?)
    }

    fn on_record(
        &mut self,
        Touch { key, at_nanos, .. }: Touch,
        state: &mut Value<Held>,
        ctx: &mut ProcessContext<'_, Seen>,
    ) -> Result<(), BoxError> {
        if key < self.timers && state.get().is_none() {
            // Spread over the keys, so that their order is not that of the time.
            let due = 1 + (key.wrapping_mul(7_919) % self.timers);
            ctx.timers().register(TimerKind::EventTime, Timestamp::from_millis(i64::try_from(due)?));
        }
        let mut count = 0;
        state.update(
            || Held { count: 0, payload: payload(key, self.value_bytes) },
            |held| {
                held.count += 1;
                count = held.count;
            },
        );
        ctx.emit(Seen::Record { count, at_nanos });
        Ok(())
    }

    fn on_timer(
        &mut self,
        _time: Timestamp,
        _state: &mut Value<Held>,
        ctx: &mut ProcessContext<'_, Seen>,
    ) -> Result<(), BoxError> {
        ctx.emit(Seen::Timer);
        Ok(())
    }
}

/// What came out.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) records: u64,
    /// Of the last record: how often its key had come.
    count: u64,
    fired: u64,
    /// When the first timer fired.
    first_fired: Option<u64>,
    latency: Option<Histogram<u64>>,
}

/// One pipeline and what is seen of it, over several starts.
pub(crate) struct Bench {
    shape: Shape,
    source: Asking,
    results: Arc<Mutex<Results>>,
    clock: Stopwatch,
}

/// What a restart came to.
pub(crate) struct Restart {
    pub(crate) opened: Duration,
    pub(crate) first: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    pub(crate) state: StateStatus,
    /// How many timers fired, and after what time the first of them.
    pub(crate) fired: Option<(u64, Duration)>,
}

impl Bench {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape, source: Asking::default(), results: Arc::default(), clock: Stopwatch::start() }
    }

    /// Asks for one record of each of these keys.
    pub(crate) fn feed(&self, keys: Range<u64>) {
        lock(&self.source.asked).keys = keys;
    }

    /// Starts on a store, with options of its own.
    pub(crate) fn start(
        &self,
        directory: &Path,
        options: impl FnOnce(RuntimeBuilder) -> RuntimeBuilder,
    ) -> anyhow::Result<(Runtime, JobHandle)> {
        let builder = Runtime::builder()
            .state_backend(RocksDb::at(directory))
            .state_memory(setting("MILLSTREAM_STATE_MEMORY_MB", STATE_MEMORY_MB) << 20)
            .workers(1);
        let runtime = options(builder).build()?;
        let job = runtime.start(self.pipeline())?;
        Ok((runtime, job))
    }

    fn pipeline(&self) -> Pipeline {
        let pipeline = Pipeline::new("restart").parallelism(1);
        let hold = Hold { value_bytes: self.shape.value_bytes, timers: self.shape.timers };
        let seen = pipeline
            .source("touches", self.source.clone())
            .event_time(|touch| Timestamp::from_millis(touch.event_ms), Duration::ZERO)
            .key_by(|touch: &Touch| touch.key)
            .process("held", hold);
        let (results, clock) = (Arc::clone(&self.results), self.clock);
        seen.sink(
            "seen",
            for_each(move |seen: Seen| {
                let mut results = lock(&results);
                match seen {
                    Seen::Record { count, at_nanos } => {
                        results.records += 1;
                        results.count = count;
                        if let Some(latency) = &mut results.latency {
                            latency.saturating_record(clock.nanos().saturating_sub(at_nanos));
                        }
                    }
                    Seen::Timer => {
                        results.fired += 1;
                        results.first_fired.get_or_insert(clock.nanos());
                    }
                }
            }),
        );
        pipeline
    }

    /// Waits until it is so, as long as there are new results now and then; looks every so often.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        every: Duration,
        mut done: impl FnMut(&Results) -> bool,
    ) -> anyhow::Result<()> {
        let (mut moved, mut last) = (Stopwatch::start(), 0);
        loop {
            let results = lock(&self.results);
            if done(&results) {
                return Ok(());
            }
            let now = results.records + results.fired;
            drop(results);
            if now != last {
                (moved, last) = (Stopwatch::start(), now);
            }
            ensure!(moved.elapsed() < PATIENCE, "{what} takes too long");
            std::thread::sleep(every);
        }
    }

    pub(crate) fn stop(&self, job: &JobHandle) -> anyhow::Result<()> {
        job.stop_blocking(PATIENCE).context("stopping")?;
        Ok(())
    }

    /// Starts on a store with one record waiting, then sends the probes.
    pub(crate) fn restart(&self, directory: &Path) -> anyhow::Result<Restart> {
        let keys = self.shape.keys;
        let clock = self.clock;
        let touch = |number: u64, at_nanos| Touch {
            key: any_key(number, keys),
            at_nanos,
            event_ms: i64::try_from(number).unwrap_or(i64::MAX),
        };
        lock(&self.source.asked).touches.push_back(touch(0, clock.nanos()));
        let started = Stopwatch::start();
        let began = clock.nanos();
        let (_runtime, job) = self.start(directory, |builder| builder)?;
        let opened = started.elapsed();
        self.wait_for("the first output", SOON, |results| results.records > 0)?;
        let first = started.elapsed();
        let expected = if keys > 0 { 2 } else { 1 };
        ensure!(lock(&self.results).count == expected, "the first output is not that of the stored value");

        lock(&self.results).latency = Some(Histogram::new_with_bounds(1, 600_000_000_000, 3)?);
        let begin = clock.nanos();
        for number in 1..=PROBES {
            let at_nanos = begin + number * APART.as_nanos() as u64;
            while clock.nanos() < at_nanos {
                std::thread::sleep(SOON);
            }
            lock(&self.source.asked).touches.push_back(touch(number, at_nanos));
        }
        self.wait_for("the probes", SOON, |results| results.records > PROBES)?;
        let fired = if self.shape.timers > 0 {
            // Nothing at or before the watermark follows, so it is below the last record's time.
            let due = self.shape.timers.min(PROBES - 1);
            self.wait_for("the timers", SOON, |results| results.fired >= due)?;
            let results = lock(&self.results);
            ensure!(results.fired == due, "{} timers fired, {due} were due", results.fired);
            results.first_fired.map(|at| (results.fired, Duration::from_nanos(at - began)))
        } else {
            None
        };
        let latency = lock(&self.results).latency.take().context("no latencies")?;
        let state = job.state();
        self.stop(&job)?;
        let nanos = Duration::from_nanos;
        let (p99, max) = (nanos(latency.value_at_quantile(0.99)), nanos(latency.max()));
        Ok(Restart { opened, first, p99, max, state, fired })
    }
}

/// Any key below `keys`, by number.
fn any_key(number: u64, keys: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)) % keys.max(1)
}
