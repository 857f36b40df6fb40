//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use millstream::runtime::config::LatencyPolicy;

use crate::driver::Plan;
use crate::pacing::Pacing;
use crate::schedule::{Spec, parse_rate};
use crate::slo::Slo;
use crate::workload::{Kind, Workload};

const AFTER: &str = "\
Exit codes: 0 passed, 1 internal or I/O error, 2 usage, 3 an objective (--slo) is not met, 4 run invalid (tester, platform, unsteady), 5 wrong results (lost, doubled, \
reordered, wrong answer), 130 interrupted. Wrong results win over invalid, invalid over objectives.

Not built yet: sweep, curve, compare, plot, report, peers, --slo-for, --abort-on-slo, run directories with .hlog files, pinning, other targets than the \
embedded pipeline.";

/// Measures pipelines from outside, in open loop: latency counts from when a record was due, whatever the pipeline does.
#[derive(Debug, Parser)]
#[command(name = "millstream-loadtest", version, after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a workload at a rate, checks its results and reports its latencies.
    Run(RunArgs),
    /// Looks for the highest rate that is sustained: doubling, bisection, confirmation.
    Max(MaxArgs),
    /// Measures the platform's own hiccups, without a pipeline.
    Hiccup {
        /// How long.
        #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
        duration: Duration,
        #[command(flatten)]
        output: Output,
    },
    /// Lists the workloads.
    Workloads,
    /// Prints the JSON Schema of what --json writes: `result` for run, `suite` for max.
    Schema {
        /// Which.
        #[arg(value_parser = ["result", "suite"])]
        of: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Records per second: 800, 100k/s, 2.5M/s. For `word-count` a record is a line.
    #[arg(long, default_value = "100k/s", value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// poisson, constant, ramp:FROM..TO, steps:R@D,R@D, burst:BASE+PEAK/ON/OFF, sine:BASE±AMP/PERIOD; the last four bring their
    /// own rates, with even gaps, or exponential ones as `poisson-ramp:…`.
    #[arg(long, default_value = "poisson")]
    pub(crate) schedule: String,
    /// The measured phase.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// What the run has to reach: [TAG.]STAT OP VALUE, several joined by "and". TAG is processed (the default), durable, visible,
    /// service, send_lag or hiccup; STAT p50, p90, p99, p99.9, p99.99, mean or max; or throughput, lost, duplicated, reordered,
    /// wrong or backlog of the whole run. For example "p99<1ms and durable.p99<=200ms", "throughput>=100k/s".
    #[arg(long = "slo", value_name = "EXPR")]
    pub(crate) slos: Vec<Slo>,
}

#[derive(Debug, Args)]
pub(crate) struct MaxArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// The first rate that is tried.
    #[arg(long, default_value = "10k/s", value_parser = parse_rate)]
    pub(crate) start: f64,
    /// How close the answer is to be: 5%, 0.5 to 50.
    #[arg(long, default_value = "5%", value_parser = percent)]
    pub(crate) precision: f64,
    /// The measured phase of a step; a confirmation takes twice as long.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) step: Duration,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Output {
    /// Writes the result as JSON to a file, or to stdout (`-`); all else goes to stderr.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Shows no progress and no table.
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// What is put under load.
    pub(crate) workload: Kind,
    /// Keys or words that there are.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keys: u32,
    /// Threads that send, each its share of the schedule.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) senders: u16,
    /// How senders wait.
    #[arg(long, value_enum, default_value_t = Pacing::Auto)]
    pub(crate) pacing: Pacing,
    /// The idle time before the load, in which the platform's hiccups are measured.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) baseline: Duration,
    /// The warm-up is not shorter than this.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) warmup_min: Duration,
    /// The warm-up ends here, steady or not.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    pub(crate) warmup_max: Duration,
    /// How long records may take to come out after the last was due; what has not come out then is lost.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) drain: Duration,
    /// Seed of schedule and keys.
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Subtasks of each task, and workers. Default: one less than there are cores, which is left to the tester.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=960))]
    pub(crate) parallelism: Option<u16>,
    /// Time between barriers, in micro-batch mode between the beginnings of batches; or `off`.
    #[arg(long, default_value = "100ms", value_parser = epoch_interval)]
    pub(crate) epoch_interval: Interval,
    /// How records are driven.
    #[arg(long, value_enum, default_value_t = Mode::Continuous)]
    pub(crate) mode: Mode,
    /// How a subtask waits when it has nothing to do.
    #[arg(long, value_enum, default_value_t = Policy::Adaptive)]
    pub(crate) latency_policy: Policy,
    /// Where state is kept.
    #[arg(long, value_enum, default_value_t = Backend::BEST)]
    pub(crate) backend: Backend,
    /// Leaves out the exactly-once sink, and with it the latency `visible`.
    #[arg(long)]
    pub(crate) no_visible: bool,
    /// Takes a pipeline that was not steady after its warm-up for invalid.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Time between barriers; nothing for none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval(pub(crate) Option<Duration>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// In memory: nothing is durable.
    Memory,
    /// RocksDB in a temporary directory.
    #[cfg(feature = "rocksdb")]
    Rocksdb,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Each passes as it comes.
    Continuous,
    /// They wait until the next micro-batch begins.
    MicroBatch,
}

impl Mode {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Continuous => "continuous",
            Self::MicroBatch => "micro-batch",
        }
    }
}

impl Backend {
    #[cfg(feature = "rocksdb")]
    const BEST: Self = Self::Rocksdb;
    #[cfg(not(feature = "rocksdb"))]
    const BEST: Self = Self::Memory;

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => "rocksdb",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Sleeps at once.
    Park,
    /// Polls for a short while, then sleeps.
    Adaptive,
    /// Polls.
    Spin,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("`{text}` is no percentage; write 5%"))?;
    if (0.5..=50.0).contains(&number) { Ok(number / 100.0) } else { Err("take 0.5% to 50%".to_owned()) }
}

fn epoch_interval(text: &str) -> Result<Interval, String> {
    if text == "off" {
        return Ok(Interval(None));
    }
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(1) {
        Err("take 1ms or more, or off".to_owned())
    } else {
        Ok(Interval(Some(interval)))
    }
}

impl Common {
    /// The plan at a rate, over a time.
    ///
    /// # Errors
    /// What is wrong with the schedule or the times.
    pub(crate) fn plan(&self, rate: f64, schedule: &str, duration: Duration) -> Result<Plan, String> {
        if duration.is_zero() || self.warmup_max < self.warmup_min {
            return Err("a run must take some time, and --warmup-max must not be below --warmup-min".to_owned());
        }
        if self.mode == Mode::MicroBatch && self.epoch_interval.0.is_none() {
            return Err("a micro-batch is an epoch: give --epoch-interval a time".to_owned());
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let left = u16::try_from(cores.saturating_sub(1).max(1)).unwrap_or(960).min(960);
        let (latency_policy, policy_name) = match self.latency_policy {
            Policy::Park => (LatencyPolicy::Park, "park"),
            Policy::Adaptive => (LatencyPolicy::Adaptive, "adaptive"),
            Policy::Spin => (LatencyPolicy::Spin, "spin"),
        };
        Ok(Plan {
            workload: Workload { kind: self.workload, keys: self.keys, seed: self.seed },
            name: self.workload.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
            spec: Spec::parse(schedule, rate, duration)?,
            rate,
            seed: self.seed,
            senders: self.senders,
            pacing: self.pacing,
            baseline: self.baseline,
            warmup_min: self.warmup_min,
            warmup_max: self.warmup_max,
            duration,
            drain: self.drain,
            parallelism: self.parallelism.unwrap_or(left),
            epoch_interval: self.epoch_interval.0,
            mode: self.mode,
            latency_policy,
            policy_name: policy_name.to_owned(),
            backend: self.backend,
            visible: !self.no_visible,
            strict: self.strict,
            slos: Vec::new(),
        })
    }
}
