//! Check 6: what does counting cost?
//!
//! Two jobs of the same pipeline are there at a time, one with metrics on (`info`), the other off, and take turns: of each pair of
//! slices one is the one's, one the other's, in alternating order, so that whatever else the machine does meets both. Closed loop, as
//! fast as it goes. Two shapes, with one record a frame and with 64:
//!
//! * *fused*: source, three stateless operators and a sink in one subtask, so that every frame has just so many records, and what a
//!   frame costs is as little as it can be;
//! * *keyed*: source, exchange by key, count and sink, two subtasks each.
//!
//! What counts is the ratio of the rates, on to off: its median over the pairs, and the interval in which that lies with 95 %
//! confidence whatever the distribution (by the ranks of a sign test). The same for CPU time per record of the workers. Where the
//! machine lets no record come in a slice, its pair is left out; how many those are, and the longest silence, is printed.
//!
//! ```text
//! make bench ARGS=metrics_cost
//! ```
//! `MILLSTREAM_PAIRS` (1,000), `MILLSTREAM_SLICE_MS` (20) and `MILLSTREAM_FRAME` (a record count instead of 1 and 64) change what
//! is done.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use millstream::connectors::blackhole::BlackholeCount;
use millstream::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::metrics::MetricsLevel;
use millstream::runtime::record::Record;
use millstream::runtime::runtime::Runtime;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};

use crate::support::{Noise, Stopwatch, median, ran_on_a_core, setting};

const NAME: &str = "metrics_cost";
const KEYS: u64 = 10_000;
/// Without an answer for so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const WARM_UP: Duration = Duration::from_millis(500);

/// Numbers, in batches of the same size: a source task makes each batch a frame.
#[derive(Debug)]
struct Batches {
    records: usize,
    splits: u16,
    turn: Turn,
}

/// Which of the jobs may read, and which this one is.
#[derive(Clone, Debug)]
struct Turn {
    whose: Arc<AtomicUsize>,
    mine: usize,
}

impl Source for Batches {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok((0..self.splits).map(|split| SplitId::new(split.to_string())).collect())
    }

    fn reader(&self, _split: &SplitId, _from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        Ok(Box::new(BatchReader { records: self.records, next: 0, turn: self.turn.clone() }))
    }
}

struct BatchReader {
    records: usize,
    next: u64,
    turn: Turn,
}

impl Reader<u64> for BatchReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
        if self.turn.whose.load(Ordering::Relaxed) != self.turn.mine {
            batch.end = Position::from_u64(self.next);
            return Ok(Polled::Idle);
        }
        let end = self.next + self.records.min(limit) as u64;
        batch.records.extend((self.next..end).map(Record::new));
        self.next = end;
        batch.end = Position::from_u64(end);
        Ok(Polled::More)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Fused,
    Keyed,
}

/// Records per second, and nanoseconds of the workers' CPU per record.
#[derive(Clone, Copy, Debug)]
struct Sample {
    per_second: f64,
    cpu_nanos: f64,
}

/// One of the two jobs.
struct Contender {
    turn: Turn,
    runtime: Runtime,
    job: JobHandle,
    arrived: BlackholeCount,
}

impl Contender {
    fn start(shape: Shape, frame: usize, level: MetricsLevel, turn: Turn) -> anyhow::Result<Self> {
        let hole = Blackhole::new();
        let arrived = hole.count();
        let subtasks = if shape == Shape::Fused { 1 } else { 2 };
        let pipeline = Pipeline::new("p").parallelism(subtasks);
        let numbers = pipeline.source("numbers", Batches { records: frame, splits: subtasks, turn: turn.clone() });
        match shape {
            Shape::Fused => {
                numbers.map(|n: u64| n ^ 1).filter(|n: &u64| *n != u64::MAX).map(|n: u64| n + 1).sink("out", hole);
            }
            Shape::Keyed => {
                numbers.key_by(|n: &u64| n % KEYS).count("count").sink("out", hole);
            }
        }
        let runtime = Runtime::builder().workers(usize::from(subtasks)).metrics_level(level).build()?;
        let job = runtime.start(pipeline)?;
        Ok(Self { turn, runtime, job, arrived })
    }

    /// Has it read alone for a slice, behind a quarter of one in which the other comes to rest.
    /// Nothing if no record came.
    fn slice(&self, slice: Duration, longest: &mut Duration) -> anyhow::Result<Option<Sample>> {
        self.turn.whose.store(self.turn.mine, Ordering::Relaxed);
        std::thread::sleep(slice / 4);
        let (cpu, before, clock) = (ran_on_a_core("millstream-work"), self.arrived.records(), Stopwatch::start());
        std::thread::sleep(slice);
        let (after, seconds, cpu_after) = (self.arrived.records(), clock.elapsed(), ran_on_a_core("millstream-work"));
        if after == before {
            while self.arrived.records() == before {
                ensure!(clock.elapsed() < PATIENCE, "nothing comes: {:?}", self.job.status());
                std::thread::sleep(Duration::from_millis(1));
            }
            *longest = clock.elapsed().max(*longest);
            return Ok(None);
        }
        let records = (after - before) as f64;
        let cpu_nanos = cpu.zip(cpu_after).map_or(f64::NAN, |(before, after)| (after - before) / records);
        Ok(Some(Sample { per_second: records / seconds.as_secs_f64(), cpu_nanos }))
    }

    fn stop(self) -> anyhow::Result<()> {
        let status = self.job.status();
        ensure!(status.restarts == 0, "the job failed meanwhile: {:?}", status.last_failure);
        self.job.stop_blocking(PATIENCE)?;
        drop(self.runtime);
        Ok(())
    }
}

/// The median of ratios and its interval, in percent of change, as text.
fn change(ratios: &[f64]) -> String {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (count, within) = (sorted.len() as f64, 0.98 * (sorted.len() as f64).sqrt());
    let at = |rank: f64| {
        sorted.get(rank.max(0.0) as usize).or(sorted.last()).map_or(f64::NAN, |ratio| (ratio - 1.0) * 100.0)
    };
    let (low, high) = (at((count / 2.0 - within).floor()), at((count / 2.0 + within).ceil()));
    format!("{:+.2} ({low:+.2} to {high:+.2})", (median(ratios) - 1.0) * 100.0)
}

fn main() -> anyhow::Result<()> {
    if !support::is_wanted(NAME) {
        return Ok(());
    }
    let pairs = setting("MILLSTREAM_PAIRS", 1_000).max(2);
    let slice = Duration::from_millis(setting("MILLSTREAM_SLICE_MS", 20).max(1));
    let frames = match setting("MILLSTREAM_FRAME", 0) {
        0 => vec![1, 64],
        given => vec![usize::try_from(given)?],
    };
    println!("{NAME}: {pairs} pairs of slices of {slice:?}, metrics on against off");
    println!(
        "{:<6} {:>7} {:>12} {:>26} {:>26} {:>11}  foreign cores",
        "shape", "records", "M records/s", "rate, %", "CPU per record, %", "CPU ns/rec"
    );
    for shape in [Shape::Fused, Shape::Keyed] {
        for frame in &frames {
            let whose = Arc::new(AtomicUsize::new(usize::MAX));
            let start = |level, mine| Contender::start(shape, *frame, level, Turn { whose: Arc::clone(&whose), mine });
            let (on, off) = (start(MetricsLevel::Info, 0)?, start(MetricsLevel::Off, 1)?);
            // All keys are in, maps have grown, buffers are warm.
            for contender in [&on, &off] {
                contender.slice(WARM_UP, &mut Duration::default())?;
            }
            let (mut longest, mut silent) = (Duration::ZERO, 0);
            let noise = Noise::begin();
            let (mut rates, mut costs, mut plain) = (Vec::new(), Vec::new(), Vec::new());
            for pair in 0..pairs {
                let (with, without) = if pair % 2 == 0 {
                    let with = on.slice(slice, &mut longest)?;
                    (with, off.slice(slice, &mut longest)?)
                } else {
                    let without = off.slice(slice, &mut longest)?;
                    (on.slice(slice, &mut longest)?, without)
                };
                let Some((with, without)) = with.zip(without) else {
                    silent += 1;
                    continue;
                };
                rates.push(with.per_second / without.per_second);
                costs.push(with.cpu_nanos / without.cpu_nanos);
                plain.push(without);
            }
            if silent > 0 {
                println!("{silent} pairs with a slice without a record, the longest silence {longest:?}:");
            }
            let of = |pick: fn(&Sample) -> f64| median(&plain.iter().map(pick).collect::<Vec<_>>());
            println!(
                "{:<6} {frame:>7} {:>12.2} {:>26} {:>26} {:>11.1}  {}",
                format!("{shape:?}").to_lowercase(),
                of(|sample| sample.per_second / 1e6),
                change(&rates),
                change(&costs),
                of(|sample| sample.cpu_nanos),
                noise.text(),
            );
            on.stop()?;
            off.stop()?;
        }
    }
    Ok(())
}
