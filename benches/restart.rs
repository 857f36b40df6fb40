//! How long a restart takes by the size of the state: from `start` to the first output of a key whose value lies only in the rows.
//!
//! Each size is filled and folded into rows, then touched until the log that is not folded is at its bound, then stopped; the page
//! cache is dropped (as root; else it is said that it was not), and the job is started again with one record waiting. What
//! counts is the ratio to a start on an empty store in the same run, and the latency of the first 10,000 records of
//! existing keys, sent at fixed intended times.
//!
//! ```text
//! make bench ARGS=restart
//! ```
//! `MILLSTREAM_STATE_MB` (1000), `MILLSTREAM_LOG_MB` (200), `MILLSTREAM_VALUE_BYTES` (100) and `MILLSTREAM_ROUNDS` (3) change what is done.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use millstream::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::handle::StateStatus;
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream::runtime::state::log::LogLimits;
use serde::{Deserialize, Serialize};

use crate::support::{Noise, Stopwatch, lock, median, range, setting};

const NAME: &str = "restart";
/// Records whose latency is measured.
const PROBES: u64 = 10_000;
/// Their distance.
const APART: Duration = Duration::from_micros(200);
/// Without an answer for so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// A record: a key, and when it was meant to be sent.
#[derive(Clone, Copy, Debug)]
struct Touch {
    key: u64,
    at_nanos: u64,
}

/// What is kept per key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    count: u64,
    at_nanos: u64,
    payload: String,
}

/// First `fill` keys as fast as they are taken, from a position on that is kept; then what is asked for.
#[derive(Clone)]
struct Filling {
    fill: u64,
    asked: Arc<Mutex<VecDeque<Touch>>>,
}

struct FillingReader {
    source: Filling,
    next: u64,
}

impl Source for Filling {
    type Out = Touch;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok(vec![SplitId::new("all")])
    }

    fn reader(&self, _split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Touch>>, BoxError> {
        let next = from.and_then(Position::as_u64).unwrap_or(0);
        Ok(Box::new(FillingReader { source: self.clone(), next }))
    }
}

impl Reader<Touch> for FillingReader {
    fn poll(&mut self, batch: &mut Batch<Touch>, limit: usize) -> Result<Polled, BoxError> {
        if self.next < self.source.fill {
            let to = (self.next + limit as u64).min(self.source.fill);
            batch.records.extend((self.next..to).map(|key| Record::new(Touch { key, at_nanos: 0 })));
            self.next = to;
        } else {
            let mut asked = lock(&self.source.asked);
            let count = asked.len().min(limit);
            batch.records.extend(asked.drain(..count).map(Record::new));
        }
        batch.end = Position::from_u64(self.next);
        Ok(if batch.records.is_empty() { Polled::Idle } else { Polled::More })
    }
}

/// What came out.
#[derive(Default)]
struct Seen {
    records: u64,
    /// Of the last record: how often its key had come.
    count: u64,
    latency: Option<Histogram<u64>>,
}

struct Case {
    source: Filling,
    seen: Arc<Mutex<Seen>>,
    clock: Stopwatch,
    payload: String,
}

impl Case {
    fn start(&self, directory: &Path, limits: LogLimits) -> anyhow::Result<(Runtime, JobHandle)> {
        let pipeline = Pipeline::new("restart").parallelism(1);
        let (seen, clock, payload) = (Arc::clone(&self.seen), self.clock, self.payload.clone());
        pipeline
            .source("touches", self.source.clone())
            .key_by(|touch: &Touch| touch.key)
            .fold(
                "held",
                move || Held { count: 0, at_nanos: 0, payload: payload.clone() },
                |held, touch| {
                    held.count += 1;
                    held.at_nanos = touch.at_nanos;
                },
            )
            .sink(
                "seen",
                for_each(move |(_, held): (u64, Held)| {
                    let mut seen = lock(&seen);
                    seen.records += 1;
                    seen.count = held.count;
                    if let Some(latency) = &mut seen.latency {
                        latency.saturating_record(clock.nanos().saturating_sub(held.at_nanos));
                    }
                }),
            );
        let runtime = Runtime::builder()
            .state_backend(RocksDb::at(directory))
            .log_limits(limits)
            .state_memory(64 << 20)
            .workers(1)
            .build()?;
        let job = runtime.start(pipeline)?;
        Ok((runtime, job))
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Seen) -> bool) -> anyhow::Result<()> {
        let waited = Stopwatch::start();
        while !done(&lock(&self.seen)) {
            ensure!(waited.elapsed() < PATIENCE, "{what} takes too long");
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }

    fn stop(job: &JobHandle) -> anyhow::Result<()> {
        job.stop_blocking(PATIENCE).context("stopping")?;
        Ok(())
    }
}

/// Any key below `keys`, by number.
fn any_key(number: u64, keys: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)) % keys.max(1)
}

/// Drops the page cache; says whether it could.
fn drop_caches() -> bool {
    let synced = std::process::Command::new("sync").status().is_ok_and(|status| status.success());
    synced && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

struct Outcome {
    first: Duration,
    p99: Duration,
    cold: bool,
    state: StateStatus,
}

/// One size of state, and what was found of it, in seconds.
#[derive(Default)]
struct Size {
    bytes: u64,
    firsts: Vec<f64>,
    tails: Vec<f64>,
}

/// Fills `keys` keys and starts on them.
fn measure(keys: u64, value_bytes: u64, log_bytes: u64) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let clock = Stopwatch::start();
    let source = Filling { fill: keys, asked: Arc::default() };
    let payload = "x".repeat(usize::try_from(value_bytes)?);
    let case = Case { source, seen: Arc::default(), clock, payload };
    if keys > 0 {
        // Folded as it comes, then once more without a limit, so that the log fills up.
        let at_once = LogLimits { fold_bytes: 64 << 20, fold_epochs: 50 };
        let (_runtime, job) = case.start(directory.path(), at_once)?;
        case.wait_for("filling", |seen| seen.records >= keys)?;
        let filled = job.status().committed;
        let waited = Stopwatch::start();
        while job.state().folded_through <= filled {
            ensure!(waited.elapsed() < PATIENCE, "folding takes too long");
            std::thread::sleep(Duration::from_millis(5));
        }
        Case::stop(&job)?;
        drop(_runtime);
        let touches = (log_bytes / (value_bytes + 60)).min(keys / 2);
        if touches > 0 {
            let never = LogLimits { fold_bytes: u64::MAX, fold_epochs: u64::MAX };
            lock(&case.source.asked).extend((0..touches).map(|key| Touch { key, at_nanos: 0 }));
            let before = lock(&case.seen).records;
            let (_runtime, job) = case.start(directory.path(), never)?;
            case.wait_for("touching", |seen| seen.records >= before + touches)?;
            Case::stop(&job)?;
        }
    }
    let cold = drop_caches();
    // The upper half was not touched again: its values lie in the rows only.
    let untouched = |number| keys / 2 + any_key(number, keys / 2);
    let before = lock(&case.seen).records;
    lock(&case.source.asked).push_back(Touch { key: untouched(1), at_nanos: clock.nanos() });
    let started = Stopwatch::start();
    let (_runtime, job) = case.start(directory.path(), LogLimits::default())?;
    case.wait_for("the first output", |seen| seen.records > before)?;
    let first = started.elapsed();
    let expected = if keys > 0 { 2 } else { 1 };
    ensure!(lock(&case.seen).count == expected, "the first output is not that of the stored value");

    lock(&case.seen).latency = Some(Histogram::new_with_bounds(1, 600_000_000_000, 3)?);
    let begin = clock.nanos();
    for number in 0..PROBES {
        let at_nanos = begin + number * APART.as_nanos() as u64;
        while clock.nanos() < at_nanos {
            std::thread::sleep(Duration::from_micros(20));
        }
        lock(&case.source.asked).push_back(Touch { key: untouched(number + 2), at_nanos });
    }
    case.wait_for("the probes", |seen| seen.records > before + PROBES)?;
    let latency = lock(&case.seen).latency.take().context("no latencies")?;
    let state = job.state();
    Case::stop(&job)?;
    Ok(Outcome { first, p99: Duration::from_nanos(latency.value_at_quantile(0.99)), cold, state })
}

fn main() -> anyhow::Result<()> {
    if !support::is_wanted(NAME) {
        return Ok(());
    }
    let state = setting("MILLSTREAM_STATE_MB", 1_000) << 20;
    let log = setting("MILLSTREAM_LOG_MB", 200) << 20;
    let value = setting("MILLSTREAM_VALUE_BYTES", 100);
    let rounds = setting("MILLSTREAM_ROUNDS", 3);
    let noise = Noise::begin();
    let mut sizes: Vec<Size> = [0, 1 << 20, state].map(|bytes| Size { bytes, ..Size::default() }).into();
    for round in 0..rounds {
        for size in &mut sizes {
            let outcome = measure(size.bytes / value, value, if size.bytes == state { log } else { 0 })?;
            let Outcome { first, p99, cold, state } = outcome;
            let cache = if cold { "page cache dropped" } else { "page cache NOT dropped: not root" };
            println!(
                "round {round}: {:5} MB of values: first output after {first:?}, p99 of the next {PROBES} {p99:?} ({} keys read, \
                 {} evicted; {cache})",
                size.bytes >> 20,
                state.read_keys,
                state.evicted_keys
            );
            size.firsts.push(first.as_secs_f64());
            size.tails.push(p99.as_secs_f64());
        }
    }
    let (empty, filled) = sizes.split_first().context("no sizes")?;
    for size in filled {
        let ratios =
            |some: &[f64], none: &[f64]| some.iter().zip(none).map(|(some, none)| some / none).collect::<Vec<_>>();
        let (first, tail) = (ratios(&size.firsts, &empty.firsts), ratios(&size.tails, &empty.tails));
        let ((low, high), (tail_low, tail_high)) = (range(&first), range(&tail));
        println!(
            "{:5} MB against the empty store: first output {:.2} ({low:.2}-{high:.2}), p99 {:.2} ({tail_low:.2}-{tail_high:.2}); \
             {rounds} rounds, {} foreign cores",
            size.bytes >> 20,
            median(&first),
            median(&tail),
            noise.text()
        );
    }
    Ok(())
}
