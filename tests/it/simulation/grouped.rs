//! Random pipelines of group state and stateful processors, held against [`reference`], which knows no channels, epochs or stores.
//!
//! There are three kinds. In the first no record is late, and what the function does depends on the record alone, so that the result is the
//! same however watermarks fall between the records. In the second there is one split and one subtask, so that watermarks fall where the
//! script says, and the function may do all that depends on them. In the third timeouts go by processing time: when they fire is nobody's
//! business, but every record counts once.

mod processor;
mod program;
mod reference;

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::error::BoxError;
use millstream::runtime::graph::Graph;
use millstream::runtime::operator::DropReason;
use millstream::runtime::testing::{Numbered, Outside, ScriptedTime, SimReport, SimSink, SimSource};
use millstream::runtime::time::Timestamp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::processor::Timers;
use self::program::{Program, Session, Turn};

const MILLI: i64 = 1_000;
/// The time of the first records: well behind 1970, where watermarks begin.
const BEGIN: i64 = 1_000_000 * MILLI;
/// How far a record may be behind those before it, in milliseconds.
const DISORDER: i64 = 51;

/// A result: key, and what a call told.
type Row = (u64, Vec<String>);

/// A pipeline of an operator on groups.
#[derive(Clone, Debug)]
pub(super) struct Grouped {
    seed: u64,
    lengths: Vec<u64>,
    /// Keys per split.
    keys: u64,
    what: What,
    script: Option<Script>,
    /// Keys that have something before the first record.
    initial: Vec<u64>,
    sink_faults: f64,
}

/// The operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// `map_groups_with_state`, in the second kind only: a call has one result.
    Map(Program),
    FlatMap(Program),
    /// `flat_map_groups_with_state` with timeouts by processing time, the third kind.
    Delayed,
    Transform,
}

/// The state of [`What::Delayed`]: how many records there are, their sum, and when the timeout is due, in milliseconds.
type Sums = (u64, u64, i64);

/// Watermarks of the second kind.
#[derive(Clone, Copy, Debug)]
struct Script {
    /// One comes behind every so many records.
    every: u64,
    /// How far it stands behind them, in milliseconds.
    delay: i64,
    to_side: bool,
}

impl Script {
    fn watermark(self, seq: u64) -> Option<i64> {
        (seq % self.every == self.every - 1).then(|| BEGIN + (seq as i64 * 10 - self.delay) * MILLI)
    }
}

/// No two records of a split have the same time.
fn time(Numbered { split, seq }: Numbered) -> i64 {
    BEGIN + (seq as i64 * 10 - (seq * 7919) as i64 % DISORDER) * MILLI + i64::from(split)
}

fn timestamp(record: Numbered) -> Timestamp {
    Timestamp::from_micros(time(record))
}

impl Grouped {
    pub(super) fn draw(seed: u64, sink_faults: f64) -> (Self, Vec<Outside>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6709);
        let script = rng.random_bool(0.5).then(|| Script {
            every: rng.random_range(1..12),
            delay: rng.random_range(0..60),
            to_side: rng.random_bool(0.5),
        });
        let gap = rng.random_range(1..60) * MILLI;
        let what = match (rng.random_range(0..5), script) {
            (0 | 1, _) => What::Transform,
            (2, None) => What::Delayed,
            (2 | 3, Some(_)) => What::Map(Program { gap, scripted: true }),
            _ => What::FlatMap(Program { gap, scripted: script.is_some() }),
        };
        let splits = if script.is_some() { 1 } else { rng.random_range(1..=4) };
        let keys = rng.random_range(1..12);
        // Some that records come for, and one that none does.
        let initial = (0..keys).step_by(2).chain([99]);
        let initial = if rng.random_bool(0.4) && what != What::Delayed { initial.collect() } else { Vec::new() };
        let lengths = (0..splits).map(|_| rng.random_range(0..120)).collect();
        let grouped = Self { seed, lengths, keys, what, script, initial, sink_faults };
        (grouped, (0..2).map(|_| Outside::default()).collect())
    }

    /// Records of a key are of one split, so they come in the same order in every run.
    fn key(&self) -> impl Fn(&Numbered) -> u64 + Clone + Send + Sync + 'static {
        let keys = self.keys;
        move |record| u64::from(record.split) * 100 + record.seq % keys
    }

    pub(super) fn graph(&self, outsides: &[Outside]) -> Graph {
        let mode = if matches!(self.what, What::Map(_)) { OutputMode::Update } else { OutputMode::Append };
        let pipeline = Pipeline::new("sim").output_mode(mode);
        let pipeline = if self.script.is_some() { pipeline.parallelism(1) } else { pipeline };
        let source = SimSource { lengths: self.lengths.clone(), seed: self.seed, first_split: 0 };
        let numbered = pipeline.source("in", source);
        let timed = match self.script {
            None => numbered.event_time(|record| timestamp(*record), Duration::from_millis(DISORDER as u64)),
            Some(script) => {
                let say = move |record: &Numbered| {
                    (timestamp(*record), script.watermark(record.seq).map(Timestamp::from_micros))
                };
                numbered.apply::<Numbered>(None, ScriptedTime::new(say))
            }
        };
        let tag = OutputTag::new("late");
        let to_side = self.script.is_some_and(|script| script.to_side);
        let mut keyed = timed.key_by(self.key());
        if to_side {
            keyed = keyed.late_to(&tag);
        }
        let rows = self.operator(keyed);
        if to_side {
            rows.side(&tag).map(|record: Numbered| record.seq).sink("late", self.sink(outsides, 1));
        }
        rows.sink("out", self.sink(outsides, 0));
        pipeline.into()
    }

    fn operator(&self, keyed: KeyedStream<u64, Numbered>) -> Stream<Row> {
        let sessions: Vec<_> = self.initial.iter().map(|key| (*key, Session::initial(*key))).collect();
        match self.what {
            What::Map(program) => {
                let keyed = keyed.initial_state(sessions);
                keyed.map_groups_with_state("groups", GroupTimeout::EventTime, move |key, rows, state| {
                    Ok((*key, call(program, rows, state)?))
                })
            }
            What::FlatMap(program) => {
                let (mode, timeout) = (OutputMode::Append, GroupTimeout::EventTime);
                let keyed = keyed.initial_state(sessions);
                keyed.flat_map_groups_with_state("groups", mode, timeout, move |key, rows, state, out| {
                    out.extend(call(program, rows, state)?.into_iter().map(|told| (*key, vec![told])));
                    Ok(())
                })
            }
            What::Delayed => self.delayed(keyed),
            What::Transform => {
                let (mode, time_mode) = (OutputMode::Append, TimeMode::EventTime);
                let keyed = keyed.initial_state(self.initial.iter().map(|key| (*key, *key)).collect::<Vec<_>>());
                keyed.transform_with_state("groups", mode, time_mode, Timers { scripted: self.script.is_some() })
            }
        }
    }

    /// Adds records up until a timeout of the processing time, or the key's last record, sends the sum.
    fn delayed(&self, keyed: KeyedStream<u64, Numbered>) -> Stream<Row> {
        let (lengths, keys) = (self.lengths.clone(), self.keys);
        let is_last = move |record: Numbered| {
            lengths.get(record.split as usize).is_none_or(|length| record.seq + keys >= *length)
        };
        let (mode, timeout) = (OutputMode::Append, GroupTimeout::ProcessingTime);
        keyed.flat_map_groups_with_state(
            "groups",
            mode,
            timeout,
            move |key, rows, state: &mut GroupState<Sums>, out| {
                let (mut count, mut sum, due) = state.get_option().map_or((0, 0, 0), |state| *state);
                let now = state.current_processing_time_ms();
                let (mut ends, mut wait) = (state.has_timed_out(), 0);
                if ends && now < due {
                    return Err("it has timed out too early".into());
                }
                for record in rows {
                    (count, sum) = (count + 1, sum + record.seq);
                    (ends, wait) = (is_last(record), record.seq % 5);
                }
                if ends {
                    out.emit((*key, vec![count.to_string(), sum.to_string()]));
                    state.remove();
                    return Ok(());
                }
                state.update((count, sum, now + wait as i64))?;
                // Now and then there is none, and the next record brings it.
                if wait > 0 {
                    state.set_timeout_duration(Duration::from_millis(wait))?;
                }
                Ok(())
            },
        )
    }

    fn sink(&self, outsides: &[Outside], index: usize) -> SimSink {
        SimSink { outside: outsides[index].clone(), seed: self.seed ^ 77 ^ index as u64, faults: self.sink_faults }
    }

    /// Holds what a run has committed against what is known without a runtime.
    pub(super) fn verify(&self, outsides: &[Outside]) -> Result<(), String> {
        if self.what == What::Delayed {
            return self.verify_sums(&outsides[0]);
        }
        let (rows, late) = self.expected();
        let text = |row: Row| format!("{row:?}").into_bytes();
        super::compare(outsides[0].rows(), rows.into_iter().map(text).collect())
            .map_err(|text| format!("results: {text}"))?;
        if self.script.is_some_and(|script| script.to_side) {
            let late = late.into_iter().map(|seq| seq.to_string().into_bytes()).collect();
            super::compare(outsides[1].rows(), late).map_err(|text| format!("late records: {text}"))?;
        }
        Ok(())
    }

    /// Holds what a run without faults has dropped against what is known; one with faults drops some more than once.
    pub(super) fn verify_dropped(&self, report: &SimReport) -> Result<(), String> {
        let dropped = !self.script.is_some_and(|script| script.to_side);
        let wanted = if dropped { self.expected().1.len() as u64 } else { 0 };
        let got = report.dropped.get(&DropReason::Late).copied().unwrap_or(0);
        if got == wanted { Ok(()) } else { Err(format!("{got} late records where {wanted} were expected")) }
    }

    /// The rows that there must be, and the late records of the one split.
    fn expected(&self) -> (Vec<Row>, Vec<u64>) {
        let (records, initial) = (self.records(), &self.initial);
        match self.what {
            What::Map(program) => reference::groups(program, &records, initial),
            What::FlatMap(program) => {
                let (rows, late) = reference::groups(program, &records, initial);
                let one = |(key, told): Row| told.into_iter().map(move |told| (key, vec![told]));
                (rows.into_iter().flat_map(one).collect(), late)
            }
            What::Delayed => (Vec::new(), Vec::new()),
            What::Transform => reference::timers(self.script.is_some(), &records, initial),
        }
    }

    /// Each record with its key, and the watermark behind it.
    fn records(&self) -> Vec<(u64, Numbered, Option<i64>)> {
        let key = self.key();
        let splits = (0..).zip(&self.lengths);
        let all = splits.flat_map(|(split, length)| (0..*length).map(move |seq| Numbered { split, seq }));
        all.map(|record| (key(&record), record, self.script.and_then(|script| script.watermark(record.seq)))).collect()
    }

    /// The sums of each key's sums.
    fn verify_sums(&self, outside: &Outside) -> Result<(), String> {
        let mut wanted: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut add = |key, count, sum| {
            let sums = wanted.entry(key).or_default();
            *sums = (sums.0 + count, sums.1 + sum);
        };
        self.records().into_iter().for_each(|(key, record, _)| add(key, 1, record.seq));
        let mut got: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for row in outside.rows() {
            let text = String::from_utf8_lossy(&row).into_owned();
            let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
            let [key, count, sum] = numbers.collect::<Vec<u64>>()[..] else { return Err(format!("a row {text}")) };
            let sums = got.entry(key).or_default();
            *sums = (sums.0 + count, sums.1 + sum);
        }
        if got == wanted { Ok(()) } else { Err(format!("sums {got:?} where {wanted:?} were expected")) }
    }
}

/// Does as the program says; returns what it tells.
fn call(
    program: Program,
    rows: &mut Rows<'_, Numbered>,
    state: &mut GroupState<Session>,
) -> Result<Vec<String>, BoxError> {
    let mut told = Vec::new();
    let watermark = state.current_watermark_ms()? * MILLI;
    let mut turn = |state: &mut GroupState<Session>, record: Option<Numbered>| -> Result<(), BoxError> {
        let session = state.get_option().map(|session| session.clone());
        let Turn { tells, session, timeout } = match record {
            Some(record) => program.on_record(session, record, watermark),
            None if state.has_timed_out() => program.on_timeout(session, watermark),
            None => program.on_initial(session),
        };
        told.extend(tells);
        match session {
            Some(session) => state.update(session)?,
            None => state.remove(),
        }
        // In both ways.
        match timeout {
            Some(timeout) if timeout % 2 == 0 && timeout > BEGIN => {
                let earlier = Timestamp::from_micros(timeout - 5_500);
                Ok(state.set_timeout_timestamp_plus(earlier, Duration::from_micros(5_500))?)
            }
            Some(timeout) => Ok(state.set_timeout_timestamp(Timestamp::from_micros(timeout))?),
            None => Ok(()),
        }
    };
    let mut none = true;
    for record in rows {
        none = false;
        turn(state, Some(record))?;
    }
    if none {
        turn(state, None)?;
    }
    Ok(told)
}
