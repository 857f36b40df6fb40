//! Real crashes: a child process with a real RocksDB and real files is killed with SIGKILL, again and again, and an oracle in
//! this process judges what its sink has committed, after every kill and at the end.
//!
//! The child is the example `ledger`: parallelism 2, epochs of 10 ms. Some kills come at random moments, some at named
//! failpoints, where the child stops and waits for its kill. `make kill9 KILLS=200` sets `MILLSTREAM_KILLS`;
//! `MILLSTREAM_KILL9_SEED` draws another plan.

#[path = "../../../examples/ledger/input.rs"]
mod input;
pub(crate) mod life;
pub(crate) mod oracle;
mod wal;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream::runtime::fault::CrashPoint;
use millstream::runtime::time::{Clock, SystemClock};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::life::{Life, Told};
use self::oracle::{Oracle, Workload};

/// Store by store, in turns.
const WORKLOADS: [Workload; 3] = [Workload::Ledger, Workload::Spans, Workload::Words];
/// Most kills per store; then it runs to its end and the next begins afresh.
const PER_STORE: usize = 20;
/// From this many kills on the plan meets every failpoint.
const FULL: usize = 200;
/// How often, then.
const EACH: usize = 5;
/// Records that a life reads at speed which is to be killed; then they trickle, so that the input lasts.
const BUDGET: [(Workload, u64); 3] = [(Workload::Ledger, 3_000), (Workload::Words, 800), (Workload::Spans, 3_000)];
/// Records per second of such a life.
const RATE: [(Workload, u64); 3] = [(Workload::Ledger, 20_000), (Workload::Words, 5_000), (Workload::Spans, 20_000)];

/// From the moment the store was told to write until the job's publication is raised.
const WINDOW: [CrashPoint; 3] = [CrashPoint::CommitWritten, CrashPoint::CommitSynced, CrashPoint::PublishBefore];
/// Met by a new store only.
const GENESIS: [CrashPoint; 2] = [CrashPoint::GenesisBefore, CrashPoint::GenesisAfter];
/// Met by micro-batches only.
const PLAN: [CrashPoint; 3] = [CrashPoint::PlanBefore, CrashPoint::PlanWritten, CrashPoint::PlanSynced];
/// Met by every attempt when it begins.
const RECOVERY: [CrashPoint; 4] =
    [CrashPoint::AttemptBefore, CrashPoint::AttemptAfter, CrashPoint::RecoverBefore, CrashPoint::RecoverAfter];

/// When a life ends.
#[derive(Clone, Debug)]
enum Kill {
    /// After its first commit, and then so much later.
    Random(Duration),
    /// So long after its start; as a random one if it has recovered by then.
    Early(Duration),
    /// At the nth pass of a failpoint.
    Failpoint { point: CrashPoint, nth: u64, provoke: Option<Provoke> },
}

/// What makes an attempt end, so that there is a fence, or a second attempt.
#[derive(Clone, Copy, Debug)]
enum Provoke {
    PanicAt(u64),
    StopAfter(u64),
}

impl Kill {
    fn at(point: CrashPoint, rng: &mut ChaCha8Rng) -> Self {
        let panic = |rng: &mut ChaCha8Rng| Some(Provoke::PanicAt(rng.random_range(1..500)));
        let (nth, provoke) = match point {
            CrashPoint::GenesisBefore | CrashPoint::GenesisAfter => (1, None),
            CrashPoint::FenceAnswered if rng.random() => (1, Some(Provoke::StopAfter(rng.random_range(1..5)))),
            CrashPoint::FenceAnswered => (1, panic(rng)),
            // In the second attempt of a life, which begins behind a fence.
            _ if RECOVERY.contains(&point) && rng.random() => (2, panic(rng)),
            _ if RECOVERY.contains(&point) => (1, None),
            CrashPoint::FoldBefore | CrashPoint::FoldWritten | CrashPoint::FoldIngested | CrashPoint::FoldNoted => {
                (rng.random_range(1..=2), None)
            }
            CrashPoint::DeliverBefore | CrashPoint::DeliverAfter => (rng.random_range(1..=2), None),
            _ => (rng.random_range(1..=12), None),
        };
        Self::Failpoint { point, nth, provoke }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Random(_) => "(random)",
            Self::Early(_) => "(early)",
            Self::Failpoint { point, .. } => point.name(),
        }
    }
}

/// The kills, store by store.
fn plan(kills: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<Kill>> {
    let mut plan = Vec::new();
    let window = (kills * 33).div_ceil(100);
    plan.extend((0..window).map(|index| Kill::at(WINDOW[index % WINDOW.len()], rng)));
    let others = CrashPoint::ALL.iter().filter(|point| !WINDOW.contains(point) && !GENESIS.contains(point));
    let mut others: Vec<CrashPoint> = others.copied().collect();
    others.shuffle(rng);
    let each = if kills >= FULL { kills * EACH / FULL } else { 0 };
    for point in &others {
        plan.extend((0..each).map(|_| Kill::at(*point, rng)));
    }
    // Every workload gets its turn.
    let stores = kills.div_ceil(PER_STORE).max(WORKLOADS.len());
    let per_store = kills.div_ceil(stores);
    // Dealt out below, since each store has only one genesis.
    let genesis: Vec<Kill> =
        GENESIS.iter().flat_map(|point| vec![*point; each]).map(|point| Kill::at(point, rng)).collect();
    let rest = kills.saturating_sub(plan.len() + genesis.len());
    for index in 0..rest {
        plan.push(match index % 4 {
            0 => Kill::Early(Duration::from_micros(rng.random_range(0..30_000))),
            1 => Kill::at(others[index / 4 % others.len()], rng),
            _ => Kill::Random(Duration::from_micros(rng.random_range(0..80_000))),
        });
    }
    plan.shuffle(rng);
    let mut stores: Vec<Vec<Kill>> = vec![Vec::new(); stores];
    let count = stores.len();
    for (index, kill) in genesis.into_iter().enumerate() {
        stores[index % count].push(kill);
    }
    for store in &mut stores {
        // Before the genesis first, or it would be too late.
        store.sort_by_key(|kill| kill.name() != CrashPoint::GenesisBefore.name());
        let room = (per_store - store.len()).min(plan.len());
        store.extend(plan.drain(..room));
    }
    stores
}

/// What a run came to; a run without faults proves nothing.
#[derive(Debug, Default)]
struct Summary {
    kills: BTreeMap<&'static str, u64>,
    /// Kills before the life was running.
    in_recovery: u64,
    /// Lives that went on from a committed epoch.
    recoveries: u64,
    lives: u64,
    /// Lives in micro-batches.
    batches: u64,
    epochs: u64,
    rows: u64,
    stores: u64,
    /// Keys that were read back and evicted, as far as the lives told.
    read: u64,
    evicted: u64,
}

impl Summary {
    fn total(&self) -> u64 {
        self.kills.values().sum()
    }

    fn killed_at(&self, points: &[CrashPoint]) -> u64 {
        points.iter().filter_map(|point| self.kills.get(point.name())).sum()
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for (name, kills) in &self.kills {
            writeln!(table, "  {name:20} {kills:5}").unwrap();
        }
        let share = self.killed_at(&WINDOW) * 100 / self.total().max(1);
        writeln!(
            table,
            "  {} kills, {share} % between write and publish, {} in recovery",
            self.total(),
            self.in_recovery
        )
        .unwrap();
        let Self { lives, batches, recoveries, epochs, stores, rows, read, evicted, .. } = self;
        writeln!(
            table,
            "  {lives} lives, {batches} of them in micro-batches, {recoveries} recoveries, {epochs} epochs, {stores} stores, {rows} \
             rows judged\n  {read} keys were read back and {evicted} evicted"
        )
        .unwrap();
        table
    }
}

/// One store: what is run on it and what it is held against.
struct Victim {
    exe: PathBuf,
    dir: tempfile::TempDir,
    workload: Workload,
    arguments: Vec<String>,
    oracle: Oracle,
    /// What the life before said is committed, and whether there must be an epoch.
    committed: u64,
    /// Lives that were killed.
    lives: u64,
}

impl Victim {
    fn new(exe: &Path, workload: Workload, kills: usize, seed: u64, bug: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let budget = of(&BUDGET, workload);
        let records = budget * (kills as u64 + 1);
        let mut arguments = vec![format!("--seed={seed}"), format!("--records={records}")];
        if !seed.is_multiple_of(3) {
            // A fraction of the keys: the others come and go.
            arguments.push("--memory=20000".to_owned());
        }
        arguments.extend(bug.map(|bug| format!("--bug={bug}")));
        let oracle = match workload {
            Workload::Ledger => {
                if seed % 4 == 1 {
                    arguments.push("--timers".to_owned());
                }
                Oracle::ledger(seed, records)
            }
            Workload::Spans => {
                arguments.push("--workload=spans".to_owned());
                Oracle::spans(seed, records)
            }
            Workload::Words => {
                arguments.push("--workload=words".to_owned());
                let files: Vec<String> = (0..input::PARTITIONS)
                    .map(|file| {
                        let lines = (0..records / u64::from(input::PARTITIONS)).map(|line| line_of(seed, file, line));
                        lines.flat_map(|line| [line, "\n".to_owned()]).collect()
                    })
                    .collect();
                let below = dir.path().join("input");
                std::fs::create_dir(&below).unwrap();
                for (index, text) in files.iter().enumerate() {
                    std::fs::write(below.join(format!("{index}.txt")), text).unwrap();
                }
                Oracle::words(files.iter().flat_map(|text| text.lines()))
            }
        };
        Self { exe: exe.to_owned(), dir, workload, arguments, oracle, committed: 0, lives: 0 }
    }

    /// All kills, and the end.
    fn live(&mut self, kills: &[Kill], summary: &mut Summary) -> Result<(), String> {
        for (index, kill) in kills.iter().enumerate() {
            self.kill(kill, summary).map_err(|text| format!("kill {index}, {kill:?}: {text}"))?;
        }
        self.end(summary).map_err(|text| format!("at the end: {text}"))
    }

    /// One life up to its kill, and a look at what it left behind.
    fn kill(&mut self, kill: &Kill, summary: &mut Summary) -> Result<(), String> {
        let mut arguments = self.arguments.clone();
        arguments.push(format!("--budget={}", of(&BUDGET, self.workload)));
        arguments.push(format!("--rate={}", of(&RATE, self.workload)));
        // In turns, so that most lives go on in the other mode.
        self.lives += 1;
        let mut batches = self.lives.is_multiple_of(2);
        let mut failpoint = None;
        if let Kill::Failpoint { point, nth, provoke } = kill {
            batches |= PLAN.contains(point);
            failpoint = Some(format!("{point}:{nth}"));
            arguments.extend(provoke.map(|provoke| match provoke {
                Provoke::PanicAt(record) => format!("--panic-at={record}"),
                Provoke::StopAfter(epochs) => format!("--stop-after={epochs}"),
            }));
        }
        if batches {
            arguments.push("--batches".to_owned());
            summary.batches += 1;
        }
        let environment: Vec<_> = failpoint.map(|failpoint| ("MILLSTREAM_FAILPOINT", failpoint)).into_iter().collect();
        let mut life = Life::begin(&self.exe, self.dir.path(), &arguments, &environment);
        match kill {
            Kill::Random(later) => {
                life.wait_for(|told| matches!(told, Told::Committed(_)))?;
                alive(life.listen(*later))?;
            }
            Kill::Early(after) => {
                alive(life.listen(*after))?;
                if life.restored.is_some() && life.epochs() == 0 {
                    life.wait_for(|told| matches!(told, Told::Committed(_)))?;
                }
            }
            Kill::Failpoint { point, .. } => {
                let stopped = Told::Stopped(point.name().to_owned());
                life.wait_for(|told| *told == stopped)?;
            }
        }
        let before = life.restored;
        let life = life.kill();
        let mut name = kill.name();
        if matches!(kill, Kill::Early(_)) {
            // Between the kill and our look at the pipe it may have said that it runs.
            name = if before.is_some() { "(random)" } else { "(early)" };
        }
        let first_attempt = RECOVERY.iter().chain(&GENESIS).any(|point| point.name() == name);
        summary.in_recovery += u64::from(name == "(early)" || first_attempt);
        if name == "(random)" && life.epochs() == 0 {
            return Err(format!("a life from epoch {:?} was killed at random and committed no epoch", life.restored));
        }
        *summary.kills.entry(name).or_default() += 1;
        self.after(&life, summary)?;
        self.oracle.look(&self.out())
    }

    /// Holds a life against the one before: what it said was committed is there.
    fn after(&mut self, life: &Life, summary: &mut Summary) -> Result<(), String> {
        summary.lives += 1;
        summary.read += life.read;
        summary.evicted += life.evicted;
        summary.epochs += life.epochs();
        let Some(restored) = life.restored else { return Ok(()) };
        summary.recoveries += u64::from(restored > 0);
        let known = self.committed.max(self.oracle.last_epoch());
        if restored < known {
            return Err(format!("lost: epoch {known} was committed, the next life went on from {restored}"));
        }
        self.committed = life.committed.max(restored);
        Ok(())
    }

    /// A life without a kill, to the end of the input, and the judgement.
    fn end(&mut self, summary: &mut Summary) -> Result<(), String> {
        let mut arguments = self.arguments.clone();
        if arguments.iter().any(|argument| argument.starts_with("--memory")) {
            // Long enough for folds, behind which keys may leave memory: the other lives are too short for that.
            arguments.push("--rate=20000".to_owned());
        }
        let mut life = Life::begin(&self.exe, self.dir.path(), &arguments, &[]);
        life.wait_for(|told| matches!(told, Told::Ended(_)))?;
        let life = life.wait()?;
        self.after(&life, summary)?;
        self.oracle.judge(&self.out())?;
        summary.rows += self.oracle.rows();
        summary.stores += 1;
        Ok(())
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }
}

/// Makes a line of a file, of one to eight words.
fn line_of(seed: u64, file: u32, number: u64) -> String {
    let drawn = input::mix(seed ^ input::mix(number.wrapping_mul(31).wrapping_add(u64::from(file))));
    let words = (0..=drawn % 8).map(|place| format!("w{}", input::mix(drawn ^ place) % 97));
    words.collect::<Vec<_>>().join(" ")
}

fn of(table: &[(Workload, u64)], workload: Workload) -> u64 {
    table.iter().find(|(of, _)| *of == workload).unwrap().1
}

fn alive(alive: bool) -> Result<(), String> {
    if alive { Ok(()) } else { Err("the child ended before its kill".to_owned()) }
}

/// Runs a plan to its end.
fn run(plan: &[Vec<Kill>], workloads: &[Workload], seed: u64, bug: Option<&str>) -> Result<Summary, String> {
    let exe = life::executable();
    let mut summary = Summary::default();
    for (number, kills) in plan.iter().enumerate() {
        let workload = workloads[number % workloads.len()];
        let seed = seed + number as u64;
        let mut victim = Victim::new(&exe, workload, kills.len(), seed, bug);
        if let Err(text) = victim.live(kills, &mut summary) {
            let text = format!("store {number} ({workload:?}, seed {seed}), {text}");
            // Kept for whoever has to find out; not where it was planted.
            victim.dir.disable_cleanup(bug.is_none());
            return Err(format!("{text}\n(in {})", victim.dir.path().display()));
        }
    }
    Ok(summary)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn loses_and_doubles_nothing_when_its_process_is_killed() {
    let kills = variable("MILLSTREAM_KILLS").unwrap_or(20) as usize;
    let seed = variable("MILLSTREAM_KILL9_SEED").unwrap_or(9);
    let clock = SystemClock::new();
    let began = clock.now();
    let plan = plan(kills, &mut ChaCha8Rng::seed_from_u64(seed));
    let summary = run(&plan, &WORKLOADS, seed, None).unwrap_or_else(|text| panic!("{text}"));
    let took = clock.now().saturating_since(began);
    println!("kill9: nothing lost, nothing doubled, in {:.1} s\n{}", took.as_secs_f64(), summary.table());

    assert_eq!(summary.total(), kills as u64);
    assert!(summary.recoveries > 0 || kills < 2, "no life went on from a committed epoch");
    assert!(summary.killed_at(&WINDOW) * 100 >= summary.total() * 30, "too few kills between write and publish");
    if kills >= FULL {
        let rare: Vec<_> = CrashPoint::ALL.iter().filter(|point| summary.killed_at(&[**point]) < EACH as u64).collect();
        assert!(rare.is_empty(), "fewer than {EACH} kills at {rare:?}");
        assert!(summary.in_recovery > 0, "no recovery was killed");
        assert!(summary.read > 0 && summary.evicted > 0, "everything stayed in memory");
    }
}

#[test]
fn a_planted_bug_is_found() {
    let random = |millis| Kill::Random(Duration::from_millis(millis));
    let plan = [vec![random(30), random(50)]];
    let bugs = [
        ("skip", Workload::Ledger, "lost"),
        ("double", Workload::Words, "doubled"),
        ("double", Workload::Spans, "wrong state"),
    ];
    for (bug, workload, word) in bugs {
        let text = run(&plan, &[workload], 3, Some(bug)).expect_err("the oracle is blind");
        println!("kill9: found {bug}: {text}");
        assert!(text.contains(word), "{bug} was found as: {text}");
    }
}
