//! Check 4: state ten times as large as the memory for it, against Flink's RocksDB backend under the same limit in the same run.
//!
//! Both contenders run as a child in a memory cgroup of budget + 25 %, page cache included: source, exchange by key, a value of a
//! count and a payload per key that is read, changed and written, and an output that is dropped; two workers. First all keys come
//! once, then keys that are all alike, then keys by Zipf's law (0.99); what counts is the ratio of the rates, in turns,
//! and whether the memory that is nobody's file stays within the limit. Ours commits epochs every 100 ms, as by default, Flink
//! takes incremental checkpoints every 2 s. Flink's memory is what the limit leaves it beside its JVM; `MILLSTREAM_FLINK_EXTRA_MB` gives
//! that back to it, so that all of the budget is for its RocksDB.
//!
//! ```text
//! make peers                               once: builds Flink's side
//! make bench ARGS=larger_than_memory       as root, for the cgroup; minutes per round
//! ```
//! `MILLSTREAM_BUDGET_MB` (256), `MILLSTREAM_TIMES` (10: state / budget), `MILLSTREAM_VALUE_BYTES` (400), `MILLSTREAM_WARM_UP_S` (5),
//! `MILLSTREAM_MEASURE_S` (15), `MILLSTREAM_ROUNDS` (1), `MILLSTREAM_EPOCH_MS` (100), `MILLSTREAM_FLINK_EXTRA_MB` (0) and
//! `MILLSTREAM_ONLY` (`millstream` or `flink`) change what is done.

#[allow(dead_code, reason = "each bench uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

#[path = "../support/cgroup.rs"]
mod cgroup;
mod held;
mod keys;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::cgroup::{MemoryCgroup, Resident};
use crate::support::{Noise, Stopwatch, median, range, setting};

const NAME: &str = "larger_than_memory";
/// Set for a child that is our contender.
const CHILD: &str = "MILLSTREAM_LARGER_THAN_MEMORY_CHILD";
/// Without an answer for so long, something hangs.
const PATIENCE: Duration = Duration::from_secs(3600);
/// What a JVM with Flink takes besides the memory that it manages: heap, code, classes, stacks, network buffers.
const JVM_MB: u64 = 210;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    budget: u64,
    keys: u64,
    value_bytes: u64,
    epoch: Duration,
    warm_up: Duration,
    measured: Duration,
}

impl Setup {
    fn from_environment() -> Self {
        let budget = setting("MILLSTREAM_BUDGET_MB", 256) << 20;
        let value_bytes = setting("MILLSTREAM_VALUE_BYTES", 400);
        Self {
            budget,
            keys: budget * setting("MILLSTREAM_TIMES", 10) / value_bytes.max(1),
            value_bytes,
            epoch: Duration::from_millis(setting("MILLSTREAM_EPOCH_MS", 100)),
            warm_up: Duration::from_secs(setting("MILLSTREAM_WARM_UP_S", 5)),
            measured: Duration::from_secs(setting("MILLSTREAM_MEASURE_S", 15)),
        }
    }

    /// What the process may take: the goal of the check.
    const fn limit(self) -> u64 {
        self.budget / 4 * 5
    }
}

/// What a child says of itself.
#[derive(Clone, Copy, Debug, Deserialize, serde::Serialize)]
pub(crate) struct Answer {
    fill_per_second: f64,
    uniform_per_second: f64,
    zipf_per_second: f64,
}

/// One child's answer, and what was seen of it from outside.
#[derive(Clone, Copy, Debug)]
struct Sample {
    answer: Answer,
    anonymous: u64,
    peak: u64,
    group: Option<u64>,
}

/// A rate and its name.
type Pick = (&'static str, fn(&Answer) -> f64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    Millstream,
    Flink,
}

impl Contender {
    const fn label(self) -> &'static str {
        match self {
            Self::Millstream => "millstream",
            Self::Flink => "flink",
        }
    }
}

/// Runs a child to its end.
fn run(contender: Contender, setup: Setup) -> anyhow::Result<Sample> {
    let directory = tempfile::Builder::new().prefix("millstream-bench-").tempdir()?;
    let extra = if contender == Contender::Flink { setting("MILLSTREAM_FLINK_EXTRA_MB", 0) << 20 } else { 0 };
    let group = MemoryCgroup::new(contender.label(), setup.limit() + extra).map_err(anyhow::Error::msg)?;
    let mut command = match contender {
        Contender::Millstream => {
            let mut command = group.command(&std::env::current_exe()?);
            command.arg("--bench").env(CHILD, directory.path());
            // As an embedder would who is near a limit: as it is, glibc keeps an arena per thread and gives little back.
            command.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "131072");
            command
        }
        Contender::Flink => flink(&group, setup, extra, directory.path())?,
    };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().context("no output")?;
    let (waited, mut seen) = (Stopwatch::start(), Resident::default());
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if waited.elapsed() > PATIENCE {
            child.kill()?;
        }
        if let Some(now) = Resident::of(child.id()) {
            seen.anonymous = seen.anonymous.max(now.anonymous);
            seen.peak = seen.peak.max(now.peak);
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mut text = String::new();
    out.read_to_string(&mut text)?;
    let what = || format!("{} ended with {status} after {:?}", contender.label(), waited.elapsed());
    ensure!(status.success(), "{}; {} MiB of it anonymous", what(), seen.anonymous >> 20);
    let answer = serde_json::from_str(&text).with_context(what)?;
    Ok(Sample { answer, anonymous: seen.anonymous, peak: seen.peak, group: group.peak() })
}

fn flink_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("loadtest/peers/flink/target")
}

fn flink(group: &MemoryCgroup, setup: Setup, extra: u64, directory: &Path) -> anyhow::Result<Command> {
    let limit = (setup.limit() + extra) >> 20;
    ensure!(limit >= JVM_MB + 64, "{limit} MiB are too few for a JVM with Flink; give MILLSTREAM_FLINK_EXTRA_MB");
    let managed = (limit - JVM_MB).min(setup.budget >> 20);
    let target = flink_directory();
    let mut command = group.command(Path::new("java"));
    command.args(["-Xmx96m", "-XX:+UseSerialGC", "-XX:ReservedCodeCacheSize=48m", "-XX:MaxMetaspaceSize=96m"]);
    command.args(["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"]);
    command.arg("-cp").arg(format!("{0}:{0}/flink-dist.jar", target.display())).arg("FlinkState");
    command.args([setup.keys, setup.value_bytes].map(|number| number.to_string())).arg(directory);
    let numbers = [managed, 2_000, setup.warm_up.as_secs(), setup.measured.as_secs()];
    command.args(numbers.map(|number| number.to_string())).stderr(Stdio::null());
    Ok(command)
}

fn print(contender: Contender, sample: &Sample, limit: u64) {
    let Sample { answer, anonymous, peak, group } = sample;
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    println!(
        "{:<10} records/s: filling {:>7.0}, uniform {:>7.0}, Zipf {:>7.0}; anonymous memory {} ({:.0} % of the limit), most resident {}, \
         with page cache {}",
        contender.label(),
        answer.fill_per_second,
        answer.uniform_per_second,
        answer.zipf_per_second,
        mib(*anonymous),
        *anonymous as f64 * 100.0 / limit as f64,
        mib(*peak),
        group.map_or_else(|| "?".to_owned(), mib),
    );
}

fn main() -> anyhow::Result<()> {
    let setup = Setup::from_environment();
    if let Some(directory) = std::env::var_os(CHILD) {
        println!("{}", serde_json::to_string(&held::run(setup, Path::new(&directory))?)?);
        return Ok(());
    }
    if !support::is_wanted(NAME) {
        return Ok(());
    }
    if let Err(reason) = MemoryCgroup::new("probe", setup.limit()) {
        println!("{NAME}: skipped: {reason}");
        return Ok(());
    }
    let only = std::env::var("MILLSTREAM_ONLY").unwrap_or_default();
    let built = flink_directory().join("FlinkState.class").is_file();
    if !built {
        println!("{NAME}: flink: not built, run `make peers` (needs a JDK and pip)");
    }
    let wanted = |contender: &Contender| only.is_empty() || only == contender.label();
    let contenders: Vec<Contender> = [Contender::Millstream, Contender::Flink].into_iter().filter(wanted).collect();
    println!(
        "{NAME}: {} MiB for state, limit {} MiB, {} keys with {} bytes each",
        setup.budget >> 20,
        setup.limit() >> 20,
        setup.keys,
        setup.value_bytes
    );
    let noise = Noise::begin();
    let mut rounds: Vec<(Contender, Vec<Sample>)> = contenders.iter().map(|which| (*which, Vec::new())).collect();
    for _ in 0..setting("MILLSTREAM_ROUNDS", 1) {
        for (contender, samples) in &mut rounds {
            if *contender == Contender::Flink && !built {
                continue;
            }
            let sample = run(*contender, setup)?;
            print(*contender, &sample, setup.limit());
            samples.push(sample);
        }
    }
    let of = |contender| rounds.iter().find(|(which, _)| *which == contender).map(|(_, samples)| samples.as_slice());
    if let (Some(ours), Some(theirs)) = (of(Contender::Millstream), of(Contender::Flink)) {
        let picks: [Pick; 3] = [
            ("filling", |answer| answer.fill_per_second),
            ("uniform", |answer| answer.uniform_per_second),
            ("Zipf", |answer| answer.zipf_per_second),
        ];
        for (what, pick) in picks {
            let pairs = ours.iter().zip(theirs);
            let ratios: Vec<f64> = pairs.map(|(our, their)| pick(&our.answer) / pick(&their.answer)).collect();
            if !ratios.is_empty() {
                let (low, high) = range(&ratios);
                println!("millstream / flink, {what}: {:.2} ({low:.2}-{high:.2})", median(&ratios));
            }
        }
    }
    println!("{} foreign cores", noise.text());
    Ok(())
}
