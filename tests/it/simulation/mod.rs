//! Seeded sweeps of random topologies through crashes: committed output equals that of a run without faults.
//!
//! `make sim SEEDS=20000` sets `MILLSTREAM_SIM_SEEDS`; one failing seed is replayed with `MILLSTREAM_SIM_SEED=n`.

mod event_time;
mod grouped;
mod processed;
mod topology;
mod windowed;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::runtime::canary::{Canary, plant};
use millstream::runtime::fault::CrashPoint;
use millstream::runtime::job::{JobConfig, RestartPolicy};
use millstream::runtime::operator::{DeadLetterKind, DropReason};
use millstream::runtime::state::key_group::KeyGroups;
use millstream::runtime::state::log::LogLimits;
use millstream::runtime::testing::{Outside, SimConfig, SimReport, simulate};
use millstream::runtime::trigger::Trigger;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::grouped::Grouped;
use self::processed::Processed;
use self::topology::Topology;
use self::windowed::InWindows;

/// How often each crash point, each fold step and a depth of two must be met in a full sweep.
const ENOUGH: u64 = 100;
/// Keys of a pipeline of users' operators, of windows or of group state, at most.
const PROCESSED_KEYS: u64 = 20;
/// A sweep of this many seeds must meet them.
const FULL_SWEEP: u64 = 20_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The same topology, runs and faults for the same seed; `keys` is how many keys there are.
fn config(seed: u64, keys: u64) -> SimConfig {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xc0f1);
    let mut job = JobConfig::default();
    job.epoch_interval = Duration::from_micros(rng.random_range(200..5_000));
    job.restart = RestartPolicy::at_most(1_000).backoff(Duration::from_micros(100));
    job.stop_timeout = Duration::from_millis(20);
    if rng.random_bool(0.5) {
        // Bounds that every epoch exceeds many times over: nothing may wait for itself.
        job.max_outbox_bytes = rng.random_range(1..200);
        job.max_waiting_bytes = rng.random_range(1..200);
        job.max_unfolded_bytes = rng.random_range(1..200);
        job.max_commit_bytes = rng.random_range(1..200);
    }
    let (fold_bytes, fold_epochs) = (rng.random_range(50..5_000), rng.random_range(1..8));
    // Often so little that an epoch's deltas do not fit into its batch.
    let batch_bytes = *[20, 200, 1 << 20].get(rng.random_range(0..3)).unwrap();
    let limits = LogLimits { fold_bytes, fold_epochs, batch_bytes };
    // Less than one key takes, or hardly any key stays in memory, or about as many as there are, or all do.
    let state_memory = match rng.random_bool(0.7).then(|| rng.random_range(5..200)) {
        Some(bytes @ ..25) => bytes % 5,
        Some(bytes) => keys * bytes,
        None => u64::MAX,
    };
    // Few groups have many keys each, so that a group is not all in memory or all out.
    let groups = *[4, 12, 960].get(rng.random_range(0..3)).unwrap();
    let key_groups = KeyGroups::new(NonZeroU16::new(groups).unwrap());
    if rng.random_bool(0.5) {
        let interval = Duration::from_micros(rng.random_range(0..3_000));
        job.trigger = Some(Trigger::ProcessingTime(if rng.random() { Duration::ZERO } else { interval }));
    }
    let switches = if rng.random_bool(0.5) { rng.random_range(1..12) } else { 0 };
    let parallelism = (0..4).map(|_| rng.random_range(1..=4)).collect();
    SimConfig {
        parallelism,
        channel_frames: rng.random_range(1..=16),
        read_ahead: rng.random_range(1..=6),
        job,
        limits,
        key_groups,
        state_memory,
        crashes: rng.random_range(0..6),
        crash_chance: *[0.01, 0.05, 0.2].get(rng.random_range(0..3)).unwrap(),
        failures: rng.random_range(0..4),
        stops: rng.random_range(0..2),
        switches,
        full_disks: rng.random_range(0..2),
        ..SimConfig::calm(seed)
    }
}

/// Runs a seed and compares it with its twin. Every seed has a second pipeline: of group state, of windows, or of users' operators.
fn run(seed: u64) -> Result<SimReport, String> {
    let mut report = run_built_in(seed)?;
    report.add(&match seed % 3 {
        0 => run_grouped(seed)?,
        1 => run_windowed(seed)?,
        _ => run_processed(seed)?,
    });
    Ok(report)
}

fn run_built_in(seed: u64) -> Result<SimReport, String> {
    let (topology, outsides) = Topology::draw(seed, 0.05);
    let config = config(seed, topology.keys());
    let report = simulate(&config, &|| topology.graph(&outsides)).map_err(|failure| failure.to_string())?;
    if let Some(text) = topology.violation() {
        return Err(format!("event time, {text}"));
    }
    let (twin, expected) = Topology::draw(seed, 0.0);
    let calm = SimConfig { parallelism: config.parallelism.clone(), ..SimConfig::calm(seed) };
    simulate(&calm, &|| twin.graph(&expected)).map_err(|failure| format!("the twin: {failure}"))?;
    if let Some(text) = twin.violation() {
        return Err(format!("the twin: event time, {text}"));
    }
    compare_all(&outsides, &expected).map_err(|text| format!("{text} of {topology:?}"))?;
    Ok(report)
}

fn run_processed(seed: u64) -> Result<SimReport, String> {
    let config = config(seed, PROCESSED_KEYS);
    let (processed, outsides) = Processed::draw(seed, 0.05);
    let report = simulate(&config, &|| processed.graph(&outsides)).map_err(|failure| failure.to_string())?;
    processed.verify_origins(&report)?;
    let (twin, expected) = Processed::draw(seed, 0.0);
    let twin = twin.without_failing();
    let calm = SimConfig { parallelism: config.parallelism.clone(), ..SimConfig::calm(seed) };
    let calm = simulate(&calm, &|| twin.graph(&expected)).map_err(|failure| format!("the twin: {failure}"))?;
    twin.verify(&calm, &expected).map_err(|text| format!("the twin: {text} of {twin:?}"))?;
    compare_all(&outsides, &expected).map_err(|text| format!("{text} of {processed:?}"))?;
    Ok(report)
}

/// Windows need no twin: what must come of them is computed.
fn run_windowed(seed: u64) -> Result<SimReport, String> {
    let config = config(seed, PROCESSED_KEYS);
    let (windowed, outsides) = InWindows::draw(seed, 0.05);
    let report =
        simulate(&config, &|| windowed.graph(&outsides)).map_err(|failure| format!("{failure} of {windowed:?}"))?;
    windowed.verify(&outsides, true).map_err(|text| format!("{text} of {windowed:?}"))?;
    let (calm, outsides) = InWindows::draw(seed, 0.0);
    let config = SimConfig { parallelism: config.parallelism, ..SimConfig::calm(seed) };
    let calm_report = simulate(&config, &|| calm.graph(&outsides)).map_err(|failure| format!("calm: {failure}"))?;
    let verified = calm.verify(&outsides, false).and_then(|()| calm.verify_dropped(&calm_report));
    verified.map_err(|text| format!("calm: {text} of {calm:?}"))?;
    Ok(report)
}

/// Nor does group state, of which only continuous mode is held against its reference.
fn run_grouped(seed: u64) -> Result<SimReport, String> {
    let mut config = config(seed, PROCESSED_KEYS);
    (config.job.trigger, config.switches) = (None, 0);
    let (grouped, outsides) = Grouped::draw(seed, 0.05);
    let report =
        simulate(&config, &|| grouped.graph(&outsides)).map_err(|failure| format!("{failure} of {grouped:?}"))?;
    grouped.verify(&outsides).map_err(|text| format!("{text} of {grouped:?}"))?;
    let (calm, outsides) = Grouped::draw(seed, 0.0);
    let config = SimConfig { parallelism: config.parallelism, ..SimConfig::calm(seed) };
    let calm_report = simulate(&config, &|| calm.graph(&outsides)).map_err(|failure| format!("calm: {failure}"))?;
    let verified = calm.verify(&outsides).and_then(|()| calm.verify_dropped(&calm_report));
    verified.map_err(|text| format!("calm: {text} of {calm:?}"))?;
    Ok(report)
}

fn compare_all(outsides: &[Outside], expected: &[Outside]) -> Result<(), String> {
    for (sink, (got, wanted)) in outsides.iter().zip(expected).enumerate() {
        compare(got.rows(), wanted.rows()).map_err(|text| format!("sink {sink}: {text}"))?;
    }
    Ok(())
}

fn compare(got: Vec<Vec<u8>>, wanted: Vec<Vec<u8>>) -> Result<(), String> {
    let mut balance: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    wanted.into_iter().for_each(|row| *balance.entry(row).or_default() -= 1);
    got.into_iter().for_each(|row| *balance.entry(row).or_default() += 1);
    balance.retain(|_, count| *count != 0);
    if balance.is_empty() {
        return Ok(());
    }
    let lost = balance.values().filter(|count| **count < 0).count();
    let shown = balance.iter().take(4).map(|(row, count)| format!("{} {count:+}", String::from_utf8_lossy(row)));
    Err(format!(
        "{lost} rows lost, {} doubled or wrong: {}",
        balance.len() - lost,
        shown.collect::<Vec<_>>().join(", ")
    ))
}

fn command(seed: u64) -> String {
    format!(
        "MILLSTREAM_SIM_SEED={seed} cargo test --workspace --all-features --test it simulation::one_seed -- --nocapture"
    )
}

#[derive(Default)]
struct Sums {
    seeds: u64,
    all: SimReport,
}

impl Sums {
    fn add(&mut self, report: &SimReport) {
        self.seeds += 1;
        self.all.add(report);
    }

    /// What a sweep must have met besides the crash points, and how often it did.
    fn met(&self) -> [(&'static str, u64); 17] {
        let SimReport { depth_two, late_loops, rescales, lazy_reads, failed_reads, hung_ends, .. } = self.all;
        let SimReport { batches, replays, switches, .. } = self.all;
        let SimReport { evicted_keys, evicted_tombstones, completed_groups, .. } = self.all;
        let dropped = |reason| self.all.dropped.get(&reason).copied().unwrap_or(0);
        let letters = |kind| self.all.dead_letters.get(&kind).copied().unwrap_or(0);
        [
            ("two epochs in flight", depth_two),
            ("micro-batches", batches),
            ("micro-batches that had begun", replays),
            ("changes of the trigger", switches),
            ("loops that woke up late", late_loops),
            ("lives with another parallelism", rescales),
            ("keys read when they were needed", lazy_reads),
            ("reads of rows that failed", failed_reads),
            ("loops that hung when all was done", hung_ends),
            ("keys evicted", evicted_keys),
            ("tombstones evicted", evicted_tombstones),
            ("key groups read whole", completed_groups),
            ("records skipped", dropped(DropReason::Skipped)),
            ("dead letters", letters(DeadLetterKind::Error)),
            ("records in quarantine", letters(DeadLetterKind::Quarantined)),
            ("records late for some windows", dropped(DropReason::LateInPart)),
            ("duplicates", dropped(DropReason::Duplicate)),
        ]
    }
}

/// Runs seeds on all cores; the first failure ends it.
fn sweep(seeds: u64, check: impl Fn(u64) -> Result<SimReport, String> + Sync) -> Result<Sums, (u64, String)> {
    let next = AtomicU64::new(0);
    let sums = Mutex::new(Sums::default());
    let failure: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while failure.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    match check(seed) {
                        Ok(report) => sums.lock().unwrap().add(&report),
                        Err(text) => {
                            failure.lock().unwrap().get_or_insert((seed, text));
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner().unwrap() {
        Some(failure) => Err(failure),
        None => Ok(sums.into_inner().unwrap()),
    }
}

#[test]
fn committed_output_equals_the_twin_whatever_crashes() {
    let seeds = variable("MILLSTREAM_SIM_SEEDS").unwrap_or(200);
    let twice = |seed| {
        let first = run(seed)?;
        let second = run(seed)?;
        if first == second { Ok(first) } else { Err("the same seed gave another trace".to_owned()) }
    };
    let sums = match sweep(seeds, twice) {
        Ok(sums) => sums,
        Err((seed, text)) => panic!("seed {seed}: {text}\nreplay: {}", command(seed)),
    };
    let SimReport { steps, attempts, crashes, epochs, .. } = sums.all;
    println!(
        "{} seeds, each twice with the same trace: {steps} steps, {attempts} attempts, {crashes} crashes, {epochs} published \
         commits",
        sums.seeds
    );
    let met: Vec<_> = sums.met().into_iter().chain(processed::met()).collect();
    for (what, times) in &met {
        println!("  {what:32} {times:9}");
    }
    for point in CrashPoint::ALL {
        let count = |counts: &BTreeMap<_, _>| counts.get(point).copied().unwrap_or(0u64);
        println!("  {point:22} passed {:9}  ended a life {:6}", count(&sums.all.passed), count(&sums.all.hit));
    }
    if seeds >= FULL_SWEEP {
        for point in CrashPoint::ALL {
            let hit = sums.all.hit.get(point).copied().unwrap_or(0);
            assert!(hit >= ENOUGH, "crash point {point} ended only {hit} lives");
        }
        for (what, times) in met {
            assert!(times >= ENOUGH, "{what}: only {times} times");
        }
    }
}

#[test]
fn one_seed() {
    let seed = variable("MILLSTREAM_SIM_SEED").unwrap_or(1);
    match run(seed) {
        Ok(report) => println!("seed {seed}: {report:?}"),
        Err(text) => panic!("seed {seed}: {text}"),
    }
}

/// Looks for a planted bug and returns the first seed that shows it.
pub(crate) fn find(canary: Canary, seeds: u64) -> Option<(u64, String)> {
    let found = sweep(seeds, |seed| {
        plant(Some(canary));
        let outcome = std::panic::catch_unwind(|| run(seed));
        plant(None);
        outcome.unwrap_or_else(|_| Err("a check inside the machines failed".to_owned()))
    });
    found.err()
}
