//! The simulator: the shipped job machine, task machines, committer and deliveries on one seeded thread, with virtual time.
//!
//! A run is a sequence of *lives* on one [`SimDisk`]. In every step the seed picks one of those who could do something: a
//! task, a reader, the committer, a delivery, or a message on its way. A crash point may end the life: everything is dropped,
//! the disk forgets a subset of what was not synced, and the next life starts from the store. Tasks fail, loops
//! hang, are abandoned and wake up late. Nobody waits for real time, and no executor of its own hides how tasks wake each
//! other: a task runs only if its bell was rung.

mod faults;
mod life;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use self::faults::SimFaults;
use self::life::{Halt, Life};
use crate::fault::CrashPoint;
use crate::graph::{BuildErrors, Graph};
use crate::id::{Epoch, OperatorId};
use crate::job::{Ended, JobConfig, JobError, RestartPolicy};
use crate::operator::{DeadLetterKind, DropReason, Quarantined, TaskControl};
use crate::plan::Plan;
use crate::position::{Position, SplitId};
use crate::state::key_group::KeyGroups;
use crate::state::log::LogLimits;
use crate::testing::sim_store::SimDisk;
use crate::testing::{ManualClock, SimControl};
use crate::time::Timestamp;

/// How one run is drawn.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Everything random comes from it.
    pub seed: u64,
    /// Parallelism of each life, in turns; at least one.
    pub parallelism: Vec<u16>,
    /// Frames that fit into a channel.
    pub channel_frames: usize,
    /// Batches that a reader may be ahead.
    pub read_ahead: usize,
    /// How the job runs. Its times are virtual.
    pub job: JobConfig,
    /// When the log is folded.
    pub limits: LogLimits,
    /// Key groups of the pipeline.
    pub key_groups: KeyGroups,
    /// Bytes of memory that states may take.
    pub state_memory: u64,
    /// Most crashes of the process.
    pub crashes: u32,
    /// How likely a crash point is hit, 0 to 1.
    pub crash_chance: f64,
    /// The only point that is ever hit, with exactly that chance. Nothing: all of them.
    pub crash_point: Option<CrashPoint>,
    /// Most failures of tasks.
    pub failures: u32,
    /// Most orderly stops, each followed by a new life.
    pub stops: u32,
    /// Most changes of the trigger while a life runs: from continuous to micro-batches and back.
    pub switches: u32,
    /// Most times that the disk is full for a while, or that writes to it fail.
    pub full_disks: u32,
    /// Virtual time when the run begins. By default the year 2100, so that event times of today are not ahead of it.
    pub begins: Timestamp,
    /// A hand of the test on the run: its clock, and where lives end. None by default.
    pub control: Option<SimControl>,
    /// Stops every life in good order after this time, and starts the next, until the input is used up.
    pub stop_after: Option<Duration>,
    /// Lets that time begin only once somebody has set this in the life. Nothing: with the life.
    pub stop_when: Option<Arc<AtomicBool>>,
}

impl SimReport {
    /// Adds another run. The trace is that of both.
    pub fn add(&mut self, other: &Self) {
        self.trace ^= other.trace.rotate_left(1);
        let sums = [
            (&mut self.steps, other.steps),
            (&mut self.crashes, other.crashes),
            (&mut self.attempts, other.attempts),
            (&mut self.epochs, other.epochs),
            (&mut self.depth_two, other.depth_two),
            (&mut self.batches, other.batches),
            (&mut self.replays, other.replays),
            (&mut self.switches, other.switches),
            (&mut self.late_loops, other.late_loops),
            (&mut self.rescales, other.rescales),
            (&mut self.lazy_reads, other.lazy_reads),
            (&mut self.failed_reads, other.failed_reads),
            (&mut self.hung_ends, other.hung_ends),
            (&mut self.evicted_keys, other.evicted_keys),
            (&mut self.evicted_tombstones, other.evicted_tombstones),
            (&mut self.completed_groups, other.completed_groups),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        self.quarantined.extend_from_slice(&other.quarantined);
        for (reason, count) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += count;
        }
        for (kind, count) in &other.dead_letters {
            *self.dead_letters.entry(*kind).or_default() += count;
        }
        for (sums, counts) in [(&mut self.passed, &other.passed), (&mut self.hit, &other.hit)] {
            for (point, count) in counts {
                *sums.entry(*point).or_default() += count;
            }
        }
    }
}

impl SimConfig {
    /// A run without any fault.
    pub fn calm(seed: u64) -> Self {
        let restart = RestartPolicy::at_most(1000).backoff(Duration::from_millis(1));
        let job = JobConfig { restart, stop_timeout: Duration::from_millis(200), ..JobConfig::default() };
        Self {
            seed,
            parallelism: vec![1],
            channel_frames: 16,
            read_ahead: 4,
            job,
            limits: LogLimits::default(),
            key_groups: KeyGroups::default(),
            state_memory: u64::MAX,
            crashes: 0,
            crash_chance: 0.0,
            crash_point: None,
            failures: 0,
            stops: 0,
            switches: 0,
            full_disks: 0,
            begins: BEGINS,
            control: None,
            stop_after: None,
            stop_when: None,
        }
    }
}

/// What a run did: evidence that it tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimReport {
    /// Hash of everything that happened, in order. The same seed gives the same.
    pub trace: u64,
    /// Steps.
    pub steps: u64,
    /// Crashes of the process.
    pub crashes: u64,
    /// Attempts that were started.
    pub attempts: u64,
    /// Committed epochs that were published, over all lives.
    pub epochs: u64,
    /// Times that two epochs were in flight.
    pub depth_two: u64,
    /// Micro-batches that were let through, and those of them that were done again from their plan.
    pub batches: u64,
    /// See `batches`.
    pub replays: u64,
    /// Changes of the trigger.
    pub switches: u64,
    /// Loops that were abandoned and woke up late.
    pub late_loops: u64,
    /// Records that operators dropped on purpose, in all attempts together: what is replayed counts again.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Records that operators handed to the dead letters, in all attempts together.
    pub dead_letters: BTreeMap<DeadLetterKind, u64>,
    /// Records that went into quarantine, in each life.
    pub quarantined: Vec<Quarantined>,
    /// Lives with another parallelism than the one before.
    pub rescales: u64,
    /// Keys that tasks waited for because they were not in memory.
    pub lazy_reads: u64,
    /// Reads of rows that were answered with an error.
    pub failed_reads: u64,
    /// Loops that hung when everything was committed and delivered.
    pub hung_ends: u64,
    /// Keys that were evicted.
    pub evicted_keys: u64,
    /// Tombstones that were evicted with them.
    pub evicted_tombstones: u64,
    /// Key groups of which everything was read into memory.
    pub completed_groups: u64,
    /// How often each crash point was passed.
    pub passed: BTreeMap<CrashPoint, u64>,
    /// How often each crash point ended a life.
    pub hit: BTreeMap<CrashPoint, u64>,
}

/// A run that went wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SimFailure {
    /// Nobody can do anything and the job is not over.
    Stuck {
        /// What is known of the job.
        status: String,
    },
    /// The job is not over after very many steps.
    Endless {
        /// What is known of the job.
        status: String,
    },
    /// The job failed although nothing happened that may fail it.
    Failed {
        /// Why.
        error: String,
    },
    /// The pipeline cannot be built.
    Build(BuildErrors),
}

impl fmt::Display for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stuck { status } => write!(f, "stuck: nobody can do anything; {status}"),
            Self::Endless { status } => write!(f, "not over after {STEP_LIMIT} steps; {status}"),
            Self::Failed { error } => write!(f, "the job failed: {error}"),
            Self::Build(errors) => errors.fmt(f),
        }
    }
}

impl std::error::Error for SimFailure {}

/// 2100-01-01T00:00:00Z.
const BEGINS: Timestamp = Timestamp::from_millis(4_102_444_800_000);

/// More steps than any run needs.
const STEP_LIMIT: u64 = 3_000_000;

/// What outlives a crash, and what is left to go wrong.
struct World {
    rng: ChaCha8Rng,
    report: SimReport,
    clock: ManualClock,
    disk: SimDisk,
    faults: Arc<SimFaults>,
    failures: u32,
    stops: u32,
    switches: u32,
    full_disks: u32,
    /// The test has asked for the end of the life.
    stopped: bool,
    /// Where the splits stood at the end of each micro-batch that was let through.
    batches: BTreeMap<(Epoch, OperatorId, SplitId), Position>,
    /// Of all subtasks of all attempts.
    controls: Vec<TaskControl>,
}

/// Runs a pipeline to its end, through all lives. `pipeline` describes it anew for every life.
///
/// # Errors
/// [`SimFailure`] when it gets stuck, never ends, or fails. The caller compares its output.
pub fn simulate(config: &SimConfig, pipeline: &dyn Fn() -> Graph) -> Result<SimReport, SimFailure> {
    let clock = config.control.as_ref().map_or_else(ManualClock::default, |control| control.clock().clone());
    clock.set(config.begins);
    let mut world = World {
        rng: ChaCha8Rng::seed_from_u64(config.seed),
        report: SimReport { trace: 0xcbf2_9ce4_8422_2325, ..SimReport::default() },
        clock,
        disk: SimDisk::new(),
        faults: Arc::new(SimFaults::new(
            config.seed ^ 0x5eed,
            (config.crash_chance, config.crash_point),
            config.crashes,
        )),
        failures: config.failures,
        stops: config.stops,
        switches: config.switches,
        batches: BTreeMap::new(),
        full_disks: config.full_disks,
        stopped: false,
        controls: Vec::new(),
    };
    let mut last_parallelism = None;
    for life in 0usize.. {
        let parallelism = config.parallelism.get(life % config.parallelism.len().max(1)).copied().unwrap_or(1);
        let plan = Plan::new(pipeline(), parallelism).map_err(SimFailure::Build)?;
        world.report.rescales += u64::from(last_parallelism.replace(plan.parallelism()) != Some(plan.parallelism()));
        let stops = world.stops;
        let ended = Life::new(config, &mut world, plan).run();
        let stopped = world.stops < stops || config.stop_after.is_some() || std::mem::take(&mut world.stopped);
        match ended {
            Ok(Ok(Ended::Stopped { .. })) if stopped => {}
            Ok(Ok(_) | Err(JobError::AlreadyEnded { .. })) => break,
            // A stop that meets a failure returns it; the next life goes on from the last epoch all the same.
            Ok(Err(JobError::Task { .. } | JobError::Recovery { .. } | JobError::Commit { .. }))
                if world.stops < stops => {}
            Ok(Err(error)) => return Err(SimFailure::Failed { error: life::text(&error) }),
            Err(Halt::Crashed) => {
                world.report.crashes += 1;
                world.disk.heal();
                let World { disk, rng, .. } = &mut world;
                disk.crash(rng);
            }
            Err(Halt::Failure(failure)) => return Err(failure),
        }
    }
    let mut report = world.report;
    for dropped in world.controls.iter().flat_map(TaskControl::dropped) {
        *report.dropped.entry(dropped.reason).or_default() += dropped.records;
    }
    for letters in world.controls.iter().flat_map(TaskControl::dead_letters) {
        *report.dead_letters.entry(letters.kind).or_default() += letters.records;
    }
    (report.passed, report.hit) = world.faults.take_counts();
    Ok(report)
}
