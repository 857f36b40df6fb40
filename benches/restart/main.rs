//! How long a restart takes by the size of the state: from `start` to the first output of a key whose value lies only in the rows.
//!
//! Each case is filled once and folded into rows, through the pipeline itself; every round then works on a copy of it (hard links):
//! the page cache is dropped (as root; else it is said that it was not) and the job is started with one record waiting. What
//! counts is the ratio to a start on an empty store in the same round, and the latency of the first 10,000 records, all of keys
//! whose value lies in the rows only, sent at fixed intended times.
//!
//! ```text
//! make bench ARGS=restart
//! ```
//! | variable | default | what |
//! |---|---|---|
//! | `MILLSTREAM_CASES` | `empty,small,rows,log,timers,all` | which cases are measured; `empty` always is |
//! | `MILLSTREAM_STATE_MB` | 1000 | size of `rows` and `all`: bytes of values, without keys |
//! | `MILLSTREAM_LOG_MB` | a quarter of the memory: its bound | bytes of the log of `log` and `all` that are not folded |
//! | `MILLSTREAM_TIMERS` | 1000000 | timers of `timers` and `all`, one per key, a millisecond apart; the probes let 10,000 of them come due |
//! | `MILLSTREAM_VALUE_BYTES` | 100 | bytes of one value |
//! | `MILLSTREAM_STATE_MEMORY_MB` | 1024 | `state_memory` |
//! | `MILLSTREAM_ROUNDS` | 3 | how often each case is measured; 0 only fills |
//! | `MILLSTREAM_KEEP` | none | a directory: cases that were filled are kept there and found again |
//!
//! Filling 1,000 MB takes a minute or so, 10,000 MB accordingly, with twice that room on the disk.

#[allow(dead_code, reason = "each bench uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

mod filled;
mod pipeline;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::filled::{Filled, Shape};
use crate::pipeline::{Bench, PROBES, STATE_MEMORY_MB};
use crate::support::{Noise, median, range, setting};

const NAME: &str = "restart";
const MB: u64 = 1 << 20;

/// What was found of one case, in seconds.
struct Case {
    name: String,
    filled: Filled,
    firsts: Vec<f64>,
    tails: Vec<f64>,
}

/// The cases that are asked for, `empty` first.
fn shapes() -> anyhow::Result<Vec<(String, Shape)>> {
    let value_bytes = setting("MILLSTREAM_VALUE_BYTES", 100).max(1);
    let state_mb = setting("MILLSTREAM_STATE_MB", 1_000);
    let log_mb = setting("MILLSTREAM_LOG_MB", setting("MILLSTREAM_STATE_MEMORY_MB", STATE_MEMORY_MB) / 4);
    let timers = setting("MILLSTREAM_TIMERS", 1_000_000);
    let of = |keys, timers, log_mb: u64| Shape { keys, value_bytes, timers, log_bytes: log_mb * MB };
    let rows = |mb: u64| mb * MB / value_bytes;
    let mut shapes = vec![("empty".to_owned(), of(0, 0, 0))];
    let wanted = std::env::var("MILLSTREAM_CASES").unwrap_or_else(|_| "small,rows,log,timers,all".to_owned());
    for case in wanted.split(',').map(str::trim).filter(|case| !case.is_empty() && *case != "empty") {
        shapes.push(match case {
            "small" => ("1 MB".to_owned(), of(rows(1), 0, 0)),
            "rows" => (format!("{state_mb} MB"), of(rows(state_mb), 0, 0)),
            "log" => (format!("1 MB, log of {log_mb} MB"), of(rows(1), 0, log_mb)),
            "timers" => (format!("{timers} timers"), of(timers, timers, 0)),
            "all" => {
                let keys = rows(state_mb).max(timers);
                (format!("{state_mb} MB, log of {log_mb} MB, {timers} timers"), of(keys, timers, log_mb))
            }
            other => anyhow::bail!("MILLSTREAM_CASES names {other}; there are empty, small, rows, log, timers and all"),
        });
    }
    Ok(shapes)
}

/// Drops the page cache; says whether it could.
fn drop_caches() -> bool {
    let synced = std::process::Command::new("sync").status().is_ok_and(|status| status.success());
    synced && std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn measure(round: u64, case: &mut Case) -> anyhow::Result<()> {
    let directory = case.filled.copy()?;
    let bench = Bench::new(case.filled.shape());
    let cold = drop_caches();
    let restart = bench.restart(directory.path())?;
    let cache = if cold { "page cache dropped" } else { "page cache NOT dropped: not root" };
    println!(
        "round {round}: {}: store open after {:?}, first output after {:?}, p99 of the next {PROBES} {:?} (max {:?}; {} keys \
         read, {} evicted{}; {cache})",
        case.name,
        restart.opened,
        restart.first,
        restart.p99,
        restart.max,
        restart.state.read_keys,
        restart.state.evicted_keys,
        restart
            .fired
            .map_or_else(String::new, |(fired, first)| format!("; {fired} timers fired, the first after {first:?}")),
    );
    case.firsts.push(restart.first.as_secs_f64());
    case.tails.push(restart.p99.as_secs_f64());
    Ok(())
}

fn main() -> anyhow::Result<()> {
    if !support::is_wanted(NAME) {
        return Ok(());
    }
    let rounds = setting("MILLSTREAM_ROUNDS", 3);
    let temporary = tempfile::tempdir()?;
    let keep = std::env::var_os("MILLSTREAM_KEEP").map(PathBuf::from);
    let place: &Path = keep.as_deref().unwrap_or(temporary.path());
    let mut cases = Vec::new();
    for (name, shape) in shapes()? {
        let filled = Filled::find_or_fill(place, shape).with_context(|| format!("filling {name}"))?;
        cases.push(Case { name, filled, firsts: Vec::new(), tails: Vec::new() });
    }
    let noise = Noise::begin();
    for round in 0..rounds {
        for case in &mut cases {
            measure(round, case).with_context(|| format!("restarting on {}", case.name))?;
        }
    }
    let (empty, filled) = cases.split_first().context("no cases")?;
    // Without rounds the cases are only filled.
    for case in filled.iter().filter(|_| rounds > 0) {
        let ratios =
            |some: &[f64], none: &[f64]| some.iter().zip(none).map(|(some, none)| some / none).collect::<Vec<_>>();
        let (first, tail) = (ratios(&case.firsts, &empty.firsts), ratios(&case.tails, &empty.tails));
        let ((low, high), (tail_low, tail_high)) = (range(&first), range(&tail));
        println!(
            "{} against the empty store: first output {:.2} ({low:.2}-{high:.2}), p99 {:.2} ({tail_low:.2}-{tail_high:.2}); \
             medians {:?} and {:?}; {rounds} rounds, {} foreign cores",
            case.name,
            median(&first),
            median(&tail),
            Duration::from_secs_f64(median(&case.firsts)),
            Duration::from_secs_f64(median(&case.tails)),
            noise.text()
        );
    }
    Ok(())
}
