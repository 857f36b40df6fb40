//! Check 6: what does counting cost?
//!
//! The same pipeline runs with metrics on (`info`) and off, in pairs: on off, off on, and so on, so that whatever else the machine
//! does meets both. Closed loop, as fast as it goes. Two shapes, with one record a frame and with 64:
//!
//! * *fused*: source, three stateless operators and a sink in one subtask, so that every frame has just so many records, and what a
//!   frame costs is as little as it can be;
//! * *keyed*: source, exchange by key, count and sink, two subtasks each.
//!
//! What counts is the ratio of the rates, on to off: its geometric mean over the pairs with the interval in which it lies with 95 %
//! confidence (normal; pairs are independent). The same for CPU time per record of the workers, which is steadier where others use
//! the machine.
//!
//! ```text
//! make bench ARGS=metrics_cost
//! ```
//! `MILLSTREAM_PAIRS` (40), `MILLSTREAM_MEASURE_MS` (500) and `MILLSTREAM_FRAME` (a record count instead of 1 and 64) change what is
//! done.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::time::Duration;

use anyhow::ensure;
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

/// Numbers, in batches of the same size: a source task makes each batch a frame.
#[derive(Debug)]
struct Batches {
    records: usize,
    splits: u16,
}

impl Source for Batches {
    type Out = u64;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        Ok((0..self.splits).map(|split| SplitId::new(split.to_string())).collect())
    }

    fn reader(&self, _split: &SplitId, _from: Option<&Position>) -> Result<Box<dyn Reader<u64>>, BoxError> {
        Ok(Box::new(BatchReader { records: self.records, next: 0 }))
    }
}

struct BatchReader {
    records: usize,
    next: u64,
}

impl Reader<u64> for BatchReader {
    fn poll(&mut self, batch: &mut Batch<u64>, limit: usize) -> Result<Polled, BoxError> {
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

fn run(shape: Shape, frame: usize, level: MetricsLevel, measure: Duration) -> anyhow::Result<Sample> {
    let hole = Blackhole::new();
    let arrived = hole.count();
    let subtasks = if shape == Shape::Fused { 1 } else { 2 };
    let pipeline = Pipeline::new("p").parallelism(subtasks);
    let numbers = pipeline.source("numbers", Batches { records: frame, splits: subtasks });
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
    let waiting = Stopwatch::start();
    while arrived.records() < 4 * KEYS {
        ensure!(waiting.elapsed() < PATIENCE, "nothing comes: {:?}", job.status());
        std::thread::sleep(Duration::from_millis(1));
    }
    // Maps have grown and buffers are warm.
    std::thread::sleep(measure / 5);
    let (clock, before, cpu) = (Stopwatch::start(), arrived.records(), ran_on_a_core("millstream-work"));
    std::thread::sleep(measure);
    let (seconds, after, cpu_after) = (clock.elapsed(), arrived.records(), ran_on_a_core("millstream-work"));
    let status = job.status();
    ensure!(status.restarts == 0, "the job failed meanwhile: {:?}", status.last_failure);
    job.stop_blocking(PATIENCE)?;
    let records = (after - before) as f64;
    let cpu_nanos = cpu.zip(cpu_after).map_or(f64::NAN, |(before, after)| (after - before) / records);
    Ok(Sample { per_second: records / seconds.as_secs_f64(), cpu_nanos })
}

/// The geometric mean of ratios, and how far above and below it the true one lies with 95 % confidence; all in percent of change.
fn change(ratios: &[f64]) -> (f64, f64) {
    let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
    let count = logs.len() as f64;
    let mean = logs.iter().sum::<f64>() / count;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean.exp_m1() * 100.0, 1.96 * (variance / count).sqrt() * 100.0)
}

fn main() -> anyhow::Result<()> {
    if !support::is_wanted(NAME) {
        return Ok(());
    }
    let pairs = setting("MILLSTREAM_PAIRS", 40).max(2);
    let measure = Duration::from_millis(setting("MILLSTREAM_MEASURE_MS", 500));
    let frames = match setting("MILLSTREAM_FRAME", 0) {
        0 => vec![1, 64],
        given => vec![usize::try_from(given)?],
    };
    println!("{NAME}: {pairs} pairs of {measure:?} each, metrics on against off");
    println!(
        "{:<8} {:>8} {:>12} {:>19} {:>19} {:>12}  foreign cores",
        "shape", "records", "M records/s", "rate, %", "CPU per record, %", "CPU ns/rec"
    );
    for shape in [Shape::Fused, Shape::Keyed] {
        for frame in &frames {
            let noise = Noise::begin();
            let mut rates = Vec::new();
            let mut costs = Vec::new();
            let mut off_samples = Vec::new();
            for pair in 0..pairs {
                let mut levels = [MetricsLevel::Info, MetricsLevel::Off];
                if pair % 2 == 1 {
                    levels.reverse();
                }
                let [first, second] = levels.map(|level| run(shape, *frame, level, measure));
                let (first, second) = (first?, second?);
                let (on, off) = if pair % 2 == 1 { (second, first) } else { (first, second) };
                rates.push(on.per_second / off.per_second);
                costs.push(on.cpu_nanos / off.cpu_nanos);
                off_samples.push(off);
            }
            let (rate, rate_within) = change(&rates);
            let (cost, cost_within) = change(&costs);
            let of = |pick: fn(&Sample) -> f64| median(&off_samples.iter().map(pick).collect::<Vec<_>>());
            println!(
                "{:<8} {frame:>8} {:>12.2} {:>19} {:>19} {:>12.1}  {}",
                format!("{shape:?}").to_lowercase(),
                of(|sample| sample.per_second / 1e6),
                format!("{rate:+.2} ± {rate_within:.2}"),
                format!("{cost:+.2} ± {cost_within:.2}"),
                of(|sample| sample.cpu_nanos),
                noise.text(),
            );
        }
    }
    Ok(())
}
