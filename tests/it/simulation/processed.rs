//! Random pipelines of users' operators: state of every kind, timers, side outputs, late records.
//!
//! There are two kinds. In the first, late records are accepted and every record has a timer of its own, so that the output is the same
//! multiset however watermarks fall between the records. In the second there is one split and one subtask, so that watermarks fall
//! between the records where the script says: which records are late is the same after any crash, and known beforehand.

mod operators;

use millstream::operators::prelude::*;
use millstream::runtime::codec;
use millstream::runtime::graph::Graph;
use millstream::runtime::operator::{DropReason, Origin};
use millstream::runtime::source::Position;
use millstream::runtime::testing::{Numbered, Outside, ScriptedTime, SimReport, SimSink, SimSource, Timing};
use millstream::runtime::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(super) use self::operators::met;
use self::operators::{Both, CountTimes, Delay, Remember};

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

/// The first split of the second input.
const RIGHT: u32 = 10;

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
        let failing = failing.filter(|_| processed.late.is_none());
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
        let evens = OutputTag::new("evens");
        let dead = OutputTag::new("dead");
        let name = |record: Numbered| (record.split, record.seq);
        let out = self.sink(outsides, 0);
        match self.late {
            None => {
                let fails = if self.failing == Some(Failing::Panics) { panics } else { fails };
                let has_letters = self.failing.is_some_and(Failing::has_letters);
                // An input that fails as it was drawn to; or one without the records that would, and those apart.
                let input = |of: &str, first_split| {
                    let all = source(of, first_split);
                    if self.without_failing {
                        let failed = has_letters.then(|| all.clone().filter(fails).map(name).erase());
                        return (all.filter(move |record| !fails(record)).key_by(key).accept_late(), failed);
                    }
                    let records = all.key_by(key).accept_late();
                    let records = match self.failing {
                        None => records,
                        Some(Failing::Skipped) => records.skip_errors(),
                        Some(Failing::DeadLetters) => records.dead_letters_to(&dead),
                        Some(Failing::Panics) => records.dead_letters_to(&dead).quarantine_panics(),
                    };
                    (records, None)
                };
                let failing = self.failing.filter(|_| !self.without_failing);
                let remember = Remember { evens: evens.clone(), failing };
                let (left, mut failed) = input("left", 0);
                let remembered = if self.two_inputs {
                    let (right, failed_right) = input("right", RIGHT);
                    failed = failed.zip(failed_right).map(|(left, right)| left.union(right));
                    left.connect(right).process("both", Both(remember))
                } else {
                    left.process("remember", remember)
                };
                if has_letters {
                    let letters = failed.unwrap_or_else(|| remembered.side(&dead).map(name).erase());
                    letters.sink("dead", self.sink(outsides, 2));
                }
                remembered.side(&evens).sink("evens", self.sink(outsides, 1));
                remembered.sink("out", out);
                pipeline.into()
            }
            Some(late) => {
                let tag = OutputTag::new("late");
                let records = match late {
                    LateTo::Nowhere => source("left", 0).key_by(key),
                    LateTo::Side | LateTo::UnreadSide => source("left", 0).key_by(key).late_to(&tag),
                };
                let delayed = records.process("delay", Delay);
                if matches!(late, LateTo::Side) {
                    delayed.side(&tag).map(name).sink("late", self.sink(outsides, 1));
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

    /// Holds what is said of records in quarantine against what they are.
    pub(super) fn verify_origins(&self, report: &SimReport) -> Result<(), String> {
        for known in &report.quarantined {
            let (source, first, bytes) = match known.record.bytes.strip_prefix(&[0]) {
                Some(bytes) => ("right", RIGHT, bytes),
                None => ("left", 0, known.record.bytes.as_slice()),
            };
            let splits = (first..).zip(&self.lengths);
            let mut all = splits.flat_map(|(split, length)| (0..*length).map(move |seq| Numbered { split, seq }));
            let is = |record: &Numbered| {
                let mut encoded = Vec::new();
                codec::encode_into(record, &mut encoded).is_ok() && encoded == bytes
            };
            let record = all.find(is).ok_or("a record in quarantine is none")?;
            let split = (record.split - first).to_string();
            let mut of_split = known.origins.iter().filter(|at| &*at.source == source && at.split.as_str() == split);
            let after = |at: &Origin| at.after.as_ref().and_then(Position::as_u64).unwrap_or(0);
            if !of_split.any(|at| after(at) <= record.seq) {
                return Err(format!("{record:?} is not in {}", known.origins));
            }
        }
        Ok(())
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
