//! Random pipelines of users' operators: state of every kind, timers, side outputs, late records.
//!
//! There are two kinds. In the first, late records are accepted and every record has a timer of its own, so that the output is the same
//! multiset however watermarks fall between the records. In the second there is one split and one subtask, so that watermarks fall
//! between the records where the script says: which records are late is the same after any crash, and known beforehand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::graph::Graph;
use millstream::runtime::operator::DropReason;
use millstream::runtime::testing::{Numbered, Outside, ScriptedTime, SimReport, SimSink, SimSource, Timing};
use millstream::runtime::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A pipeline of process operators.
#[derive(Clone, Debug)]
pub(super) struct Processed {
    seed: u64,
    lengths: Vec<u64>,
    keys: u64,
    /// A watermark comes behind every so many records.
    every: u64,
    /// How far it stands behind them, in milliseconds.
    delay: i64,
    late: Option<LateTo>,
    two_inputs: bool,
    failing: Option<Failing>,
    /// Records that fail never come: what is left of a run that skips them must be the same.
    without_failing: bool,
    sink_faults: f64,
}

/// What becomes of records for which the operator returns an error, in the first kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Skipped,
    DeadLetters,
    /// The operator panics, and quarantine takes the record to the dead letters.
    Panics,
}

impl Failing {
    const fn has_letters(self) -> bool {
        matches!(self, Self::DeadLetters | Self::Panics)
    }
}

/// Which records fail.
const fn fails(record: &Numbered) -> bool {
    record.seq % 7 == 3
}

/// Which records panic: few, since each ends two attempts.
const fn panics(record: &Numbered) -> bool {
    record.seq % 61 == 30
}

/// What becomes of late records, in the second kind.
#[derive(Clone, Copy, Debug)]
enum LateTo {
    Nowhere,
    Side,
    UnreadSide,
}

/// A result: key, time in microseconds, and what the operator found.
type Row = (u64, i64, String);

impl Processed {
    pub(super) fn draw(seed: u64, sink_faults: f64) -> (Self, Vec<Outside>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x9c0c);
        let late = match rng.random_range(0..6) {
            0 => Some(LateTo::Nowhere),
            1 => Some(LateTo::Side),
            2 => Some(LateTo::UnreadSide),
            _ => None,
        };
        let splits = if late.is_some() { 1 } else { rng.random_range(1..=4) };
        let processed = Self {
            seed,
            lengths: (0..splits).map(|_| rng.random_range(0..120)).collect(),
            keys: rng.random_range(1..20),
            every: rng.random_range(1..12),
            delay: rng.random_range(0..60),
            late,
            two_inputs: late.is_none() && rng.random_bool(0.4),
            failing: None,
            without_failing: false,
            sink_faults,
        };
        let failing = match rng.random_range(0..4) {
            0 => Some(Failing::Skipped),
            1 => Some(Failing::DeadLetters),
            2 => Some(Failing::Panics),
            _ => None,
        };
        let failing = failing.filter(|_| processed.late.is_none() && !processed.two_inputs);
        (Self { failing, ..processed }, (0..3).map(|_| Outside::default()).collect())
    }

    /// The same pipeline, to which no record comes that would fail.
    pub(super) fn without_failing(self) -> Self {
        Self { without_failing: self.failing.is_some(), ..self }
    }

    pub(super) fn graph(&self, outsides: &[Outside]) -> Graph {
        let pipeline = Pipeline::new("sim");
        let pipeline = if self.late.is_some() { pipeline.parallelism(1) } else { pipeline };
        let source = |name: &str, first_split| {
            let source = SimSource { lengths: self.lengths.clone(), seed: self.seed, first_split };
            let (every, delay) = (self.every, self.delay);
            let time = ScriptedTime::new(move |record: &Numbered| timing(*record, every, delay));
            pipeline.source(name, source).apply::<Numbered>(None, time)
        };
        let keys = self.keys;
        let key = move |record: &Numbered| (u64::from(record.split) * 31 + record.seq) % keys;
        let records = || source("left", 0).key_by(key);
        let evens = OutputTag::new("evens");
        let out = self.sink(outsides, 0);
        match self.late {
            None if self.two_inputs => {
                let others = source("right", 10).key_by(key).accept_late();
                let joined = records()
                    .accept_late()
                    .connect(others)
                    .process("both", Both(Remember { evens: evens.clone(), failing: None }));
                joined.side(&evens).sink("evens", self.sink(outsides, 1));
                joined.sink("out", out);
                pipeline.into()
            }
            None => {
                let dead = OutputTag::new("dead");
                let name = |record: Numbered| (record.split, record.seq);
                let accepted = || records().accept_late();
                let fails = if self.failing == Some(Failing::Panics) { panics } else { fails };
                let has_letters = self.failing.is_some_and(Failing::has_letters);
                let (records, failing) = match self.failing {
                    None => (accepted(), None),
                    Some(_) if self.without_failing => {
                        let all = source("left", 0);
                        if has_letters {
                            all.clone().filter(fails).map(name).sink("dead", self.sink(outsides, 2));
                        }
                        (all.filter(move |record| !fails(record)).key_by(key).accept_late(), None)
                    }
                    Some(Failing::Skipped) => (accepted().skip_errors(), self.failing),
                    Some(Failing::DeadLetters) => (accepted().dead_letters_to(&dead), self.failing),
                    Some(Failing::Panics) => (accepted().dead_letters_to(&dead).quarantine_panics(), self.failing),
                };
                let remembered = records.process("remember", Remember { evens: evens.clone(), failing });
                if failing.is_some() && has_letters {
                    remembered.side(&dead).map(name).sink("dead", self.sink(outsides, 2));
                }
                remembered.side(&evens).sink("evens", self.sink(outsides, 1));
                remembered.sink("out", out);
                pipeline.into()
            }
            Some(late) => {
                let tag = OutputTag::new("late");
                let records = match late {
                    LateTo::Nowhere => records(),
                    LateTo::Side | LateTo::UnreadSide => records().late_to(&tag),
                };
                let delayed = records.process("delay", Delay);
                if matches!(late, LateTo::Side) {
                    delayed.side(&tag).map(|record| (record.split, record.seq)).sink("late", self.sink(outsides, 1));
                }
                // What timers emit because of a watermark is not late for the next operator.
                delayed.key_by(|(key, ..)| *key % 3).process("count", CountTimes).sink("out", out);
                pipeline.into()
            }
        }
    }

    fn sink(&self, outsides: &[Outside], index: usize) -> SimSink {
        SimSink { outside: outsides[index].clone(), seed: self.seed ^ 77 ^ index as u64, faults: self.sink_faults }
    }

    /// Holds a run without faults against what can be known without a runtime.
    pub(super) fn verify(&self, report: &SimReport, outsides: &[Outside]) -> Result<(), String> {
        let total: u64 = self.lengths.iter().sum();
        let dropped = |reason| report.dropped.get(&reason).copied().unwrap_or(0);
        let rows = |index: usize| outsides[index].rows().len() as u64;
        let (late, unread) = (dropped(DropReason::Late), dropped(DropReason::UnreadSide));
        let Some(late_to) = self.late else {
            let inputs = if self.two_inputs { 2 } else { 1 };
            let failed = self.lengths.iter().flat_map(|length| (0..*length).map(|seq| Numbered { split: 0, seq }));
            let failed = match self.failing {
                None => 0,
                Some(Failing::Panics) => failed.filter(panics).count() as u64,
                Some(_) => failed.filter(fails).count() as u64,
            };
            // One of the record's event-time timer, and one of the promise that either of its timers keeps.
            return check("rows", (rows(0), late + unread), ((total - failed) * inputs * 2, 0));
        };
        let expected = self.late_records();
        check("results", rows(0), total - expected)?;
        match late_to {
            LateTo::Nowhere => check("late, unread, side", (late, unread, rows(1)), (expected, 0, 0)),
            LateTo::UnreadSide => check("late, unread, side", (late, unread, rows(1)), (0, expected, 0)),
            LateTo::Side => check("late, unread, side", (late, unread, rows(1)), (0, 0, expected)),
        }
    }

    /// Counts the late records of the one split, in the order of the script.
    fn late_records(&self) -> u64 {
        let (mut watermark, mut late) = (None, 0);
        for seq in 0..self.lengths[0] {
            let (time, after) = timing(Numbered { split: 0, seq }, self.every, self.delay);
            late += u64::from(watermark.is_some_and(|watermark| time <= watermark));
            watermark = watermark.max(after);
        }
        late
    }
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, got: T, wanted: T) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{what}: {got:?} where {wanted:?} were expected")) }
}

/// Times rise by 10 ms per record, and a record may be up to 50 ms behind that; no two have the same.
fn timing(Numbered { split, seq }: Numbered, every: u64, delay: i64) -> Timing {
    let millis = seq as i64 * 10 - (seq * 7919 % 51) as i64;
    let time = Timestamp::from_micros(millis * 1_000 + i64::from(split));
    let after = (seq % every == every - 1).then(|| Timestamp::from_millis(seq as i64 * 10 - delay));
    (time, after)
}

/// Remembers every record in a map, a list and a value, and tells at its timer what it remembers of it.
#[derive(Clone)]
struct Remember {
    evens: OutputTag<i64>,
    /// Some records fail when everything is done.
    failing: Option<Failing>,
}

struct Memory {
    seen: Value<u64>,
    by_time: Map<i64, (u32, u64)>,
    all: List<(u32, u64)>,
    /// Records by the processing time at which they are told of, unless their event-time timer does it before.
    promised: Map<i64, (u32, u64)>,
    /// When a record came last, for a while.
    brief: Value<i64>,
}

/// How long [`Memory::brief`] lasts.
const BRIEF: Duration = Duration::from_millis(5);
/// Promises that were kept by a processing-time timer, in all runs of the process.
static KEPT: AtomicU64 = AtomicU64::new(0);
/// Records that found nothing left of the one before, in all runs of the process.
static EXPIRED: AtomicU64 = AtomicU64::new(0);

/// What users' operators did in processing time, which is no part of the output that must be the same.
pub(super) fn met() -> [(&'static str, u64); 2] {
    [
        ("processing-time timers fired", KEPT.load(Ordering::Relaxed)),
        ("values expired", EXPIRED.load(Ordering::Relaxed)),
    ]
}

impl Remember {
    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Memory, BoxError> {
        ctx.side_output(&self.evens)?;
        Ok(Memory {
            seen: ctx.value("seen")?,
            by_time: ctx.map("by-time")?,
            all: ctx.list("all")?,
            promised: ctx.map("promised")?,
            brief: ctx.value("brief")?.ttl(BRIEF),
        })
    }

    fn on_record(&self, record: Numbered, memory: &mut Memory, ctx: &mut ProcessContext<'_, Row>) {
        memory.seen.update(|| 0, |seen| *seen += 1);
        memory.all.push((record.split, record.seq));
        memory.by_time.insert(&ctx.time().as_micros(), (record.split, record.seq));
        let timers = ctx.timers();
        let at = ctx.time().saturating_add(Duration::from_millis(record.seq % 5 * 10));
        timers.register(TimerKind::EventTime, unique(at, record));
        timers.register(TimerKind::EventTime, unique(at, record));
        if record.seq % 5 == 2 {
            // One that must never fire.
            let decoy = Timestamp::from_micros(ctx.time().as_micros() * 10_000 + 9_999);
            timers.register(TimerKind::EventTime, decoy);
            timers.delete(TimerKind::EventTime, decoy);
        }
        if record.seq.is_multiple_of(2) {
            ctx.emit_to(&self.evens, ctx.time().as_micros());
        }
        Self::promise(record, memory, ctx);
    }

    /// Does what depends on the processing time, and shows in the output only where it is wrong.
    fn promise(record: Numbered, memory: &mut Memory, ctx: &mut ProcessContext<'_, Row>) {
        let now = ctx.processing_time().as_micros();
        let before = memory.brief.get().map(|written| *written);
        match before {
            Some(written) if now - written > BRIEF.as_micros() as i64 => ctx.emit((u64::MAX, 0, "expired".to_owned())),
            None if memory.seen.get().is_some_and(|seen| *seen > 1) => drop(EXPIRED.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        memory.brief.set(now);
        let soonest = now + record.seq as i64 % 7 * 500;
        let due = (soonest..).find(|at| !memory.promised.contains_key(at)).unwrap_or(soonest);
        memory.promised.insert(&due, (record.split, record.seq));
        ctx.timers().register(TimerKind::ProcessingTime, Timestamp::from_micros(due));
    }

    /// Tells of a record, once.
    fn keep_promise((split, seq): (u32, u64), ctx: &mut ProcessContext<'_, Row>) -> Result<(), BoxError> {
        let key = ctx.key()?;
        ctx.emit((key, 0, format!("promise of {split} {seq}")));
        Ok(())
    }

    /// Makes a mess that must leave no trace.
    fn fail(memory: &mut Memory, ctx: &mut ProcessContext<'_, Row>) -> BoxError {
        memory.by_time.clear();
        memory.all.clear();
        memory.seen.take();
        memory.promised.clear();
        for kind in [TimerKind::EventTime, TimerKind::ProcessingTime] {
            for time in ctx.timers().list(kind) {
                ctx.timers().delete(kind, time);
            }
        }
        ctx.emit((u64::MAX, 0, "never".to_owned()));
        "it was to fail".into()
    }

    fn on_timer(
        &self,
        time: Timestamp,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        if ctx.firing() == Some(TimerKind::ProcessingTime) {
            KEPT.fetch_add(1, Ordering::Relaxed);
            // A timer of nothing would be a bug, and shows in the output.
            let promised = memory.promised.remove(&time.as_micros()).unwrap_or((u32::MAX, 0));
            return Self::keep_promise(promised, ctx);
        }
        let place = (time.as_micros().rem_euclid(100) as u32, (time.as_micros() / 100).rem_euclid(10_000) as u64);
        let (listed, seen) = (memory.all.iter().any(|known| *known == place), memory.seen.get().is_some());
        let by_time = memory.by_time.iter().find(|(_, known)| **known == place).map(|(key, _)| key);
        let removed = by_time.and_then(|key| memory.by_time.remove(&key));
        let key = ctx.key()?;
        ctx.emit((key, time.as_micros(), format!("{removed:?} {listed} {seen}")));
        let promised = memory.promised.iter().find(|(_, known)| **known == place).map(|(due, _)| due);
        if let Some(due) = promised {
            memory.promised.remove(&due);
            ctx.timers().delete(TimerKind::ProcessingTime, Timestamp::from_micros(due));
            Self::keep_promise(place, ctx)?;
        }
        Ok(())
    }
}

/// A timer's time that no other record has, and that tells whose it is.
fn unique(at: Timestamp, record: Numbered) -> Timestamp {
    Timestamp::from_micros(at.as_micros() / 1_000_000 * 1_000_000 + record.seq as i64 * 100 + i64::from(record.split))
}

impl KeyedProcess for Remember {
    type Key = u64;
    type In = Numbered;
    type Out = Row;
    type State = Memory;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Memory, BoxError> {
        Self::open(self, ctx)
    }

    fn on_record(
        &mut self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Self::on_record(self, record, memory, ctx);
        match self.failing {
            // A panic, without its message on the terminal.
            Some(Failing::Panics) if panics(&record) => {
                drop(Self::fail(memory, ctx));
                std::panic::resume_unwind(Box::new("it was to panic"))
            }
            Some(Failing::Skipped | Failing::DeadLetters) if fails(&record) => Err(Self::fail(memory, ctx)),
            _ => Ok(()),
        }
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Self::on_timer(self, time, memory, ctx)
    }
}

/// The same with two inputs.
#[derive(Clone)]
struct Both(Remember);

impl CoProcess for Both {
    type Key = u64;
    type Left = Numbered;
    type Right = Numbered;
    type Out = Row;
    type State = Memory;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Memory, BoxError> {
        self.0.open(ctx)
    }

    fn on_left(
        &mut self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Remember::on_record(&self.0, record, memory, ctx);
        Ok(())
    }

    fn on_right(
        &mut self,
        record: Numbered,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Remember::on_record(&self.0, record, memory, ctx);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        memory: &mut Memory,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        Remember::on_timer(&self.0, time, memory, ctx)
    }
}

/// Sends every record on at a timer 20 ms behind it.
#[derive(Clone)]
struct Delay;

impl KeyedProcess for Delay {
    type Key = u64;
    type In = Numbered;
    type Out = (u64, i64, u64);
    type State = Map<i64, u64>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Map<i64, u64>, BoxError> {
        Ok(ctx.map("waiting")?)
    }

    fn on_record(
        &mut self,
        record: Numbered,
        waiting: &mut Map<i64, u64>,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        // Unique, and after the watermark since the record is.
        let at = Timestamp::from_micros(ctx.time().as_micros() + 20_000 + record.seq as i64 % 1_000);
        let at = (at.as_micros()..).find(|at| !waiting.contains_key(at)).map_or(at, Timestamp::from_micros);
        waiting.insert(&at.as_micros(), record.seq);
        ctx.timers().register(TimerKind::EventTime, at);
        Ok(())
    }

    fn on_timer(
        &mut self,
        time: Timestamp,
        waiting: &mut Map<i64, u64>,
        ctx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), BoxError> {
        // A timer of nothing would be a bug, and shows in the output.
        let seq = waiting.remove(&time.as_micros()).unwrap_or(u64::MAX);
        let key = ctx.key()?;
        ctx.emit((key, time.as_micros(), seq));
        Ok(())
    }
}

/// Counts records per key and tells how many of each second there were before.
#[derive(Clone)]
struct CountTimes;

impl KeyedProcess for CountTimes {
    type Key = u64;
    type In = (u64, i64, u64);
    type Out = Row;
    type State = Map<i64, u64>;

    fn open(&self, ctx: &mut OpenContext<'_>) -> Result<Map<i64, u64>, BoxError> {
        Ok(ctx.map("seconds")?)
    }

    fn on_record(
        &mut self,
        (key, time, seq): Self::In,
        seconds: &mut Map<i64, u64>,
        ctx: &mut ProcessContext<'_, Row>,
    ) -> Result<(), BoxError> {
        let second = time / 1_000_000;
        let before = seconds.get(&second).map_or(0, |count| *count);
        seconds.insert(&second, before + 1);
        let counts: BTreeMap<i64, u64> = seconds.iter().map(|(second, count)| (second, *count)).collect();
        ctx.emit((key, time, format!("{seq}: {counts:?}")));
        Ok(())
    }
}
