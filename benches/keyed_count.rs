//! Check 5: records per second of a keyed count over 100,000 keys, and what epochs cost of it.
//!
//! Closed loop, as fast as it goes, with epochs off (1 h), of 1 s, 100 ms and 10 ms; beside it a hand-written loop on one
//! thread and timely, in the same run, over the same records: absolute figures say more about the machine and its other
//! users than about us, so what counts are the ratios. All of them count the same number of records after the same
//! warm-up, keys come from the same cheap hash of a counter, and ours and timely have two workers and no operator but
//! source, exchange by key, count and a sink that drops.
//!
//! ```text
//! make peers                       once: builds timely, which is no dependency of ours
//! make bench ARGS=keyed_count
//! ```
//! `MILLSTREAM_ROUNDS` (5), `MILLSTREAM_MEASURE_S` (3: how long "off" takes for the records of one measurement),
//! `MILLSTREAM_WORKERS` (2) and `MILLSTREAM_TIMELY` (path of the binary) change what is done.

#[allow(dead_code, reason = "each bench uses a part of it")]
mod support;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use millstream::prelude::*;
use millstream::runtime::runtime::Runtime;

use crate::support::{Counted, Noise, Stopwatch, median, range, setting};

const NAME: &str = "keyed_count";
const KEYS: u64 = 100_000;
/// Counted before the clock starts: all keys are in, maps have grown, buffers are warm.
const WARM_UP: u64 = 4_000_000;
/// Without an answer for so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The key of record `number`: spread over all keys without order. `loadtest/peers` has the same function.
#[inline]
fn key(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed >> 32) * KEYS) >> 32
}

/// One multiplication: the loop to beat pays no more for hashing than it must. `loadtest/peers` has the same.
#[derive(Default)]
struct CheapHasher(u64);

impl Hasher for CheapHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Hand,
    Timely,
    Millstream(Duration),
}

impl Contender {
    const OFF: Self = Self::Millstream(Duration::from_secs(3600));
    const ALL: [Self; 6] = [
        Self::Hand,
        Self::Timely,
        Self::OFF,
        Self::Millstream(Duration::from_secs(1)),
        Self::Millstream(Duration::from_millis(100)),
        Self::Millstream(Duration::from_millis(10)),
    ];

    fn label(self) -> String {
        match self {
            Self::Hand => "hand-written, 1 thread".to_owned(),
            Self::Timely => "timely".to_owned(),
            Self::OFF => "millstream, epochs off".to_owned(),
            Self::Millstream(epoch) => format!("millstream, epochs {epoch:?}"),
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
struct Sample {
    per_second: f64,
    /// CPU time per record over all threads: steadier than the rate where others use the machine too.
    cpu_nanos: f64,
    /// Epochs per second that were written, and their median dirty keys.
    epochs: Option<(f64, f64)>,
    noise: String,
}

fn cpu_nanos(since: Noise, records: u64) -> f64 {
    since.own_seconds() * 1e9 / records as f64
}

fn hand(records: u64) -> Sample {
    let mut counts: HashMap<u64, u64, BuildHasherDefault<CheapHasher>> = HashMap::default();
    let mut count = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            let key = key(number);
            let count = counts.entry(key).or_insert(0);
            *count += 1;
            black_box((key, *count));
        }
    };
    count(0..WARM_UP);
    let (clock, noise) = (Stopwatch::start(), Noise::begin());
    count(WARM_UP..WARM_UP + records);
    let per_second = records as f64 / clock.elapsed().as_secs_f64();
    Sample { per_second, cpu_nanos: cpu_nanos(noise, records), epochs: None, noise: noise.text() }
}

fn millstream(epoch_interval: Duration, workers: u16, records: u64) -> anyhow::Result<Sample> {
    let directory = tempfile::Builder::new().prefix("millstream-bench-").tempdir()?;
    let clock = Stopwatch::start();
    let store = Counted::at(directory.path(), clock);
    let hole = Blackhole::new();
    let arrived = hole.count();

    let pipeline = Pipeline::new("count").parallelism(workers).epoch_interval(epoch_interval);
    pipeline
        .source("numbers", Generator::new(None, key).splits(u32::from(workers)))
        .key_by(|key| *key)
        .count("count")
        .sink("out", hole);
    let runtime = Runtime::builder().state_backend(store.clone()).workers(usize::from(workers)).build()?;
    let job = runtime.start(pipeline)?;

    // A look per millisecond costs nothing, and what it misses is below a thousandth of the whole.
    let reached = |count: u64| -> anyhow::Result<(u64, u64)> {
        let waiting = Stopwatch::start();
        loop {
            let (now, records) = (clock.nanos(), arrived.records());
            if records >= count {
                return Ok((now, records));
            }
            ensure!(waiting.elapsed() < PATIENCE, "{records} of {count} records came: {:?}", job.status());
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let (from, before) = reached(WARM_UP)?;
    let noise = Noise::begin();
    let (to, after) = reached(before + records)?;
    let (noise, cpu_nanos) = (noise.text(), cpu_nanos(noise, after - before));
    let status = job.status();
    ensure!(status.restarts == 0, "the job failed meanwhile: {:?}", status.last_failure);
    job.stop_blocking(Duration::from_secs(60))?;

    let closed = store.closed();
    let closed: Vec<f64> = closed
        .into_iter()
        .filter_map(|closed| (from..to).contains(&closed.at_nanos).then_some(closed.entries as f64))
        .collect();
    let seconds = (to - from) as f64 / 1e9;
    let epochs = Some((closed.len() as f64 / seconds, median(&closed)));
    Ok(Sample { per_second: (after - before) as f64 / seconds, cpu_nanos, epochs, noise })
}

fn timely_binary() -> Option<PathBuf> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("loadtest/peers/target/release/timely_count");
    let path = std::env::var_os("MILLSTREAM_TIMELY").map_or(built, PathBuf::from);
    path.is_file().then_some(path)
}

fn timely(binary: &PathBuf, workers: u16, records: u64) -> anyhow::Result<Sample> {
    let noise = Noise::begin();
    let arguments = [u64::from(workers), KEYS, WARM_UP, records].map(|number| number.to_string());
    let output = Command::new(binary).args(arguments).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{} failed: {}", binary.display(), output.status);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let counted = answer.get("counted").and_then(serde_json::Value::as_u64);
    ensure!(counted == Some(WARM_UP + records), "timely counted {counted:?} of {} records", WARM_UP + records);
    let per_second = answer.get("records_per_second").and_then(serde_json::Value::as_f64);
    let per_second = per_second.with_context(|| format!("{} did not say records_per_second", binary.display()))?;
    // It cannot be asked in between, so its warm-up counts on both sides.
    let cpu_nanos = cpu_nanos(noise, WARM_UP + records);
    Ok(Sample { per_second, cpu_nanos, epochs: None, noise: noise.text() })
}

fn main() -> anyhow::Result<()> {
    if !support::is_wanted(NAME) {
        return Ok(());
    }
    let workers = u16::try_from(setting("MILLSTREAM_WORKERS", 2))?;
    let binary = timely_binary();
    if binary.is_none() {
        println!("timely: not built, run `make peers`");
    }
    // The same number for all, chosen so that epochs of a second close more than once.
    let probe = millstream(Duration::from_secs(3600), workers, 4 * WARM_UP).context("calibration")?;
    let records = (probe.per_second * setting("MILLSTREAM_MEASURE_S", 3) as f64) as u64;
    println!("{NAME}: {KEYS} keys, {workers} workers, {:.0} M records per measurement", records as f64 / 1e6);

    let mut samples: Vec<(Contender, Vec<Sample>)> = Vec::new();
    for contender in Contender::ALL {
        if contender != Contender::Timely || binary.is_some() {
            samples.push((contender, Vec::new()));
        }
    }
    // In turns, so that whatever else the machine does meets all of them.
    for _ in 0..setting("MILLSTREAM_ROUNDS", 5) {
        for (contender, samples) in &mut samples {
            let sample = match (*contender, &binary) {
                (Contender::Hand, _) => hand(records),
                (Contender::Millstream(epoch_interval), _) => millstream(epoch_interval, workers, records)?,
                (Contender::Timely, Some(binary)) => timely(binary, workers, records)?,
                (Contender::Timely, None) => continue,
            };
            samples.push(sample);
        }
    }

    let rates = |wanted: Contender| -> Option<f64> {
        let (_, samples) = samples.iter().find(|(contender, _)| *contender == wanted)?;
        Some(median(&samples.iter().map(|sample| sample.per_second).collect::<Vec<_>>()))
    };
    let bases = [rates(Contender::Hand), rates(Contender::Timely), rates(Contender::OFF)];
    println!(
        "{:<28} {:>8} {:>8} {:>8} {:>19} {:>10} {:>9} {:>9}  foreign cores",
        "median", "/ hand", "/ timely", "/ off", "M records/s", "CPU ns/rec", "epochs/s", "dirty"
    );
    for (contender, samples) in &samples {
        let values: Vec<f64> = samples.iter().map(|sample| sample.per_second / 1e6).collect();
        let (low, high) = range(&values);
        let rate = median(&values);
        let [hand, timely, off] =
            bases.map(|base| base.map_or_else(|| "-".to_owned(), |base| format!("{:.3}", rate * 1e6 / base)));
        let of = |pick: fn((f64, f64)) -> f64| {
            let values: Vec<f64> = samples.iter().filter_map(|sample| sample.epochs.map(pick)).collect();
            median(&values)
        };
        let noise: Vec<&str> = samples.iter().map(|sample| sample.noise.as_str()).collect();
        println!(
            "{:<28} {hand:>8} {timely:>8} {off:>8} {:>19} {:>10.1} {:>9.1} {:>9.0}  {}",
            contender.label(),
            format!("{rate:.1} ({low:.1}-{high:.1})"),
            median(&samples.iter().map(|sample| sample.cpu_nanos).collect::<Vec<_>>()),
            of(|(per_second, _)| per_second),
            of(|(_, dirty)| dirty),
            noise.join(" "),
        );
    }
    Ok(())
}
