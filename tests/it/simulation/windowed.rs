//! Random pipelines of windows, sessions and duplicates, held against [`reference`](crate::reference).
//!
//! There are two kinds. In the first no record is behind its split's watermark, so that the result does not depend on how watermarks fall
//! between the records. In the second there is one split and one subtask, so that watermarks fall between the records where the script
//! says: which records are late, and for which of their windows, is the same after any crash.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::operators::prelude::*;
use millstream::runtime::graph::Graph;
use millstream::runtime::operator::DropReason;
use millstream::runtime::testing::{Numbered, Outside, ScriptedTime, SimReport, SimSink, SimSource};
use millstream::runtime::time::Timestamp;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::reference::{Aggregation, Dropped, Row, Windows};

const MILLI: i64 = 1_000;
/// The time of the first records: well behind 1970.
const BEGIN: i64 = 1_000_000 * MILLI;
/// How far a record may be behind those before it, in milliseconds.
const DISORDER: i64 = 51;
/// Keys of the aggregation behind the first.
const KEYS_AGAIN: u64 = 3;

/// A pipeline of windows.
#[derive(Clone, Debug)]
pub(super) struct InWindows {
    seed: u64,
    lengths: Vec<u64>,
    keys: u64,
    windows: Windows,
    lateness: i64,
    mode: OutputMode,
    late: Option<Late>,
    /// Every so often a record comes twice, and its second copy is dropped.
    unique: Option<Unique>,
    /// Size and allowed lateness of windows of the windows.
    again: Option<(i64, i64)>,
    sink_faults: f64,
}

/// Watermarks of the second kind.
#[derive(Clone, Copy, Debug)]
struct Late {
    /// One comes behind every so many records.
    every: u64,
    /// How far it stands behind them, in milliseconds.
    delay: i64,
    to_side: bool,
}

#[derive(Clone, Copy, Debug)]
enum Unique {
    ByTime,
    WithinWatermark,
    ForEver,
}

fn windows(rng: &mut impl Rng) -> Windows {
    if rng.random_bool(0.3) {
        return Windows::Session { gap: rng.random_range(1..40) * MILLI };
    }
    let size = rng.random_range(1..300);
    let slide = if rng.random_bool(0.5) { size } else { rng.random_range(size / 8 + 1..=size) };
    let offset = rng.random_range(1 - slide..slide);
    Windows::Grid { size: size * MILLI, slide: slide * MILLI, offset: offset * MILLI }
}

/// No two records of a split have the same time.
fn time(Numbered { split, seq }: Numbered) -> i64 {
    BEGIN + (seq as i64 * 10 - (seq * 7919) as i64 % DISORDER) * MILLI + i64::from(split)
}

fn timestamp(record: Numbered) -> Timestamp {
    Timestamp::from_micros(time(record))
}

/// How often a record comes.
const fn copies(Numbered { seq, .. }: Numbered) -> u64 {
    if seq % 5 == 2 { 2 } else { 1 }
}

impl Late {
    fn watermark(self, seq: u64) -> Option<i64> {
        (seq % self.every == self.every - 1).then(|| BEGIN + (seq as i64 * 10 - self.delay) * MILLI)
    }
}

impl InWindows {
    pub(super) fn draw(seed: u64, sink_faults: f64) -> (Self, Vec<Outside>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x3173);
        let late = rng.random_bool(0.4).then(|| Late {
            every: rng.random_range(1..12),
            delay: rng.random_range(0..60),
            to_side: rng.random_bool(0.5),
        });
        let splits = if late.is_some() { 1 } else { rng.random_range(1..=4) };
        let windows = windows(&mut rng);
        let session = matches!(windows, Windows::Session { .. });
        let mode = match rng.random_range(0..4) {
            0 if late.is_none() => OutputMode::Complete,
            1 if !session => OutputMode::Update,
            _ => OutputMode::Append,
        };
        let allows = mode != OutputMode::Complete && rng.random_bool(0.4);
        let lateness = if allows { rng.random_range(1..80) * MILLI } else { 0 };
        // Results wait for the lateness, so windows that allow less find some of them late; which ones is known in the second kind only.
        let again = rng.random_bool(0.4).then(|| rng.random_range(1..500) * MILLI);
        let again = again.map(|size| (size, if late.is_none() || rng.random_bool(0.7) { lateness } else { 0 }));
        let pipeline = Self {
            seed,
            lengths: (0..splits).map(|_| rng.random_range(0..120)).collect(),
            keys: rng.random_range(1..20),
            windows,
            lateness,
            mode,
            late,
            unique: match rng.random_range(0..6) {
                0 => Some(Unique::ByTime),
                1 => Some(Unique::WithinWatermark),
                2 => Some(Unique::ForEver),
                _ => None,
            }
            .filter(|_| late.is_none()),
            again: again.filter(|_| mode == OutputMode::Append),
            sink_faults,
        };
        (pipeline, (0..2).map(|_| Outside::default()).collect())
    }

    fn key(&self) -> impl Fn(&Numbered) -> u64 + Clone + Send + Sync + 'static {
        let keys = self.keys;
        move |record| (u64::from(record.split) * 31 + record.seq) % keys
    }

    pub(super) fn graph(&self, outsides: &[Outside]) -> Graph {
        let pipeline = Pipeline::new("sim").output_mode(self.mode);
        let pipeline = if self.late.is_some() { pipeline.parallelism(1) } else { pipeline };
        let source = SimSource { lengths: self.lengths.clone(), seed: self.seed, first_split: 0 };
        let numbered = pipeline.source("in", source);
        let timed = match self.late {
            None => numbered.event_time(|record| timestamp(*record), Duration::from_millis(DISORDER as u64)),
            Some(late) => {
                let say = move |record: &Numbered| {
                    (timestamp(*record), late.watermark(record.seq).map(Timestamp::from_micros))
                };
                numbered.apply::<Numbered>(None, ScriptedTime::new(say))
            }
        };
        let timed = match self.unique {
            None => timed,
            Some(unique) => {
                let twice = timed.flat_map(|record| (0..copies(record)).map(move |_| record));
                let by_record = twice.key_by(|record| (record.split, record.seq));
                match unique {
                    Unique::ByTime => by_record.drop_duplicates_by_time("unique"),
                    Unique::WithinWatermark => {
                        by_record.drop_duplicates_within_watermark("unique", Duration::from_millis(5))
                    }
                    Unique::ForEver => by_record.drop_duplicates("unique"),
                }
            }
        };
        let tag = OutputTag::new("late");
        let mut keyed = timed.key_by(self.key());
        if self.late.is_some_and(|late| late.to_side) {
            keyed = keyed.late_to(&tag);
        }
        let rows = self.aggregate(keyed);
        if self.late.is_some_and(|late| late.to_side) {
            rows.side(&tag).map(|record: Numbered| record.seq).sink("late", self.sink(outsides, 1));
        }
        let out = self.sink(outsides, 0);
        match self.again {
            // Which values came first depends on timing; how many came does not.
            None if self.mode == OutputMode::Update => {
                rows.map(row).map(|(key, bounds, (count, ..))| (key, bounds, (count, 0, None::<i64>))).sink("out", out);
            }
            None => rows.map(row).sink("out", out),
            Some((size, lateness)) => {
                let again = rows.key_by(|row| row.key % KEYS_AGAIN).window(Tumbling::of(micros(size)));
                let again = again.allowed_lateness(micros(lateness));
                let sum = |row: &Windowed<u64, Value>| row.value.1;
                again.aggregate("again", (Count, Sum::of(sum), Max::of(sum))).map(row).sink("out", out);
            }
        }
        pipeline.into()
    }

    fn aggregate(&self, keyed: KeyedStream<u64, Numbered>) -> Stream<Windowed<u64, Value>> {
        let value = |record: &Numbered| value(*record);
        let all = (Count, Sum::of(value), Max::of(value));
        let lateness = micros(self.lateness);
        match self.windows {
            Windows::Session { gap } => {
                keyed.window(Session::gap(micros(gap))).allowed_lateness(lateness).aggregate("windows", all)
            }
            Windows::Grid { size, slide, offset } => {
                let sliding = Sliding::of(micros(size), micros(slide)).offset(Timestamp::from_micros(offset));
                keyed.window(sliding).allowed_lateness(lateness).aggregate("windows", all)
            }
        }
    }

    fn sink(&self, outsides: &[Outside], index: usize) -> SimSink {
        SimSink { outside: outsides[index].clone(), seed: self.seed ^ 77 ^ index as u64, faults: self.sink_faults }
    }

    /// The rows and the late records that there must be, and what must be dropped: in input records, and results by the windows behind.
    fn expected(&self) -> (Vec<Row>, Vec<u64>, [Dropped; 2]) {
        let mut inner = match self.mode {
            OutputMode::Complete => Aggregation::complete(self.windows),
            _ => Aggregation::new(self.windows, self.lateness),
        };
        let again = |(size, lateness)| Aggregation::new(Windows::Grid { size, slide: size, offset: 0 }, lateness);
        let mut outer = self.again.map(again);
        let (mut updates, mut closed, mut late, mut duplicates) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let key = self.key();
        for (split, length) in (0..).zip(&self.lengths) {
            for record in (0..*length).map(|seq| Numbered { split, seq }) {
                let before = inner.dropped.late;
                let rows = inner.record(key(&record), Some(time(record)), value(record));
                updates.extend(rows.into_iter().map(|(key, bounds, (count, ..))| (key, bounds, (count, 0, None))));
                late.extend((inner.dropped.late > before).then_some(record.seq));
                duplicates += self.unique.map_or(0, |_| copies(record) - 1);
                if let Some(watermark) = self.late.and_then(|late| late.watermark(record.seq)) {
                    closed.extend(close(&mut inner, &mut outer, watermark));
                }
            }
        }
        closed.extend(close(&mut inner, &mut outer, i64::MAX));
        let dropped =
            [Dropped { duplicates, ..inner.dropped }, outer.map_or(Dropped::default(), |outer| outer.dropped)];
        let rows = match self.mode {
            OutputMode::Append => closed,
            OutputMode::Update => updates,
            OutputMode::Complete => inner.table(),
        };
        (rows, late, dropped)
    }

    /// Holds what a run has committed against what is known without a runtime. `coalesced`: some of its epochs may have been
    /// micro-batches, whose updates are the last ones of their keys.
    pub(super) fn verify(&self, outsides: &[Outside], coalesced: bool) -> Result<(), String> {
        let (rows, late, _) = self.expected();
        let text = |row: Row| format!("{row:?}").into_bytes();
        if self.mode == OutputMode::Update && coalesced {
            return last_updates(&outsides[0], rows.into_iter().map(text).collect())
                .and_then(|()| self.verify_late(outsides, late));
        }
        let got = match self.mode {
            OutputMode::Complete => self.last_table(&outsides[0])?,
            OutputMode::Append | OutputMode::Update => outsides[0].rows(),
        };
        super::compare(got, rows.into_iter().map(text).collect()).map_err(|text| format!("results: {text}"))?;
        self.verify_late(outsides, late)
    }

    fn verify_late(&self, outsides: &[Outside], late: Vec<u64>) -> Result<(), String> {
        if self.late.is_some_and(|late| late.to_side) {
            let late = late.into_iter().map(|seq| seq.to_string().into_bytes()).collect();
            super::compare(outsides[1].rows(), late).map_err(|text| format!("late records: {text}"))?;
        }
        Ok(())
    }

    /// Holds what a run without faults has dropped against what is known; one with faults drops some more than once.
    pub(super) fn verify_dropped(&self, report: &SimReport) -> Result<(), String> {
        let (.., [wanted, behind]) = self.expected();
        if behind.late > 0 && self.again.is_some_and(|(_, lateness)| lateness >= self.lateness) {
            return Err("results are late for the windows behind, which wait as long".to_owned());
        }
        let dropped = |reason| report.dropped.get(&reason).copied().unwrap_or(0);
        let late = if self.late.is_some_and(|late| late.to_side) { 0 } else { wanted.late };
        let got = (dropped(DropReason::Late), dropped(DropReason::LateInPart), dropped(DropReason::Duplicate));
        let wanted = (late + behind.late, wanted.late_in_part, wanted.duplicates);
        if got == wanted {
            Ok(())
        } else {
            Err(format!("late, in part, duplicates: {got:?} where {wanted:?} were expected"))
        }
    }

    /// The last of the tables that were sent, each at the end of an epoch. None of them may lack what one before it had.
    fn last_table(&self, outside: &Outside) -> Result<Vec<Vec<u8>>, String> {
        let mut tables: BTreeMap<_, Vec<Vec<u8>>> = BTreeMap::new();
        outside.rows_of_epochs().into_iter().for_each(|(epoch, row)| tables.entry(epoch).or_default().push(row));
        let mut last = Vec::new();
        for (epoch, table) in tables {
            // Sessions that become one are fewer than before.
            if table.len() < last.len() && !matches!(self.windows, Windows::Session { .. }) {
                return Err(format!("the table of {epoch} has {} rows, and that before {}", table.len(), last.len()));
            }
            last = table;
        }
        Ok(last)
    }
}

/// Updates of which some may be left out: each is one that there is, once, and the last one of each key and window is there.
fn last_updates(outside: &Outside, wanted: Vec<Vec<u8>>) -> Result<(), String> {
    let group = |row: &[u8]| row.iter().rposition(|byte| *byte == b'(').unwrap_or(0);
    let last = |rows: &[Vec<u8>]| -> BTreeMap<Vec<u8>, Vec<u8>> {
        rows.iter().map(|row| (row[..group(row)].to_vec(), row.clone())).collect()
    };
    let got = outside.rows();
    let (last_got, last_wanted) = (last(&got), last(&wanted));
    super::compare(last_got.into_values().collect(), last_wanted.into_values().collect())
        .map_err(|text| format!("last results: {text}"))?;
    let mut left: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    wanted.into_iter().for_each(|row| *left.entry(row).or_default() += 1);
    got.into_iter().for_each(|row| *left.entry(row).or_default() -= 1);
    match left.into_iter().find(|(_, count)| *count < 0) {
        None => Ok(()),
        Some((row, _)) => Err(format!("results: {} doubled or wrong", String::from_utf8_lossy(&row))),
    }
}

type Value = (u64, i64, Option<i64>);

fn value(record: Numbered) -> i64 {
    record.seq as i64 * 3 - 100 + i64::from(record.split)
}

fn row(row: Windowed<u64, Value>) -> Row {
    (row.key, (row.window.start.as_micros(), row.window.end.as_micros()), row.value)
}

const fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

/// What a watermark closes, of the windows or of those behind them, which hear of it after their input.
fn close(inner: &mut Aggregation, outer: &mut Option<Aggregation>, watermark: i64) -> Vec<Row> {
    let rows = inner.watermark(watermark);
    let Some(outer) = outer else { return rows };
    for (key, (_, end), (_, sum, _)) in rows {
        outer.record(key % KEYS_AGAIN, Some(end - 1), sum);
    }
    outer.watermark(watermark)
}
