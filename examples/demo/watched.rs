//! A source of one's own, around another: paces the input, notes the time of reading, and keeps the journal.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use millstream::prelude::*;
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Polled, Position, Reader, Source, SplitId};
use millstream::runtime::time::{Clock, SystemClock};
use serde::{Deserialize, Serialize};

use crate::journal::Journal;

/// Files that are open at a time, per subtask.
const OPEN: usize = 4;

/// The longest latency that is told apart: a minute.
const LONGEST_MICROS: u64 = 60_000_000;

/// A line and when it was read.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) read_at: Timestamp,
}

/// Figures of one life.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) clock: SystemClock,
    pub(crate) lines: AtomicU64,
    pub(crate) records: AtomicU64,
    processed: Mutex<Histogram<u64>>,
    durable: Mutex<Histogram<u64>>,
}

/// A latency since the last look, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
}

impl Meter {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let histogram = || Ok::<_, anyhow::Error>(Mutex::new(Histogram::new_with_bounds(1, LONGEST_MICROS, 3)?));
        let (processed, durable) = (histogram()?, histogram()?);
        let clock = SystemClock::new();
        Ok(Self { clock, lines: AtomicU64::new(0), records: AtomicU64::new(0), processed, durable })
    }

    /// A word was counted whose line was read then.
    pub(crate) fn processed(&self, read_at: Timestamp) {
        self.records.fetch_add(1, Ordering::Relaxed);
        self.note(&self.processed, read_at);
    }

    pub(crate) fn take_processed(&self) -> Latency {
        take(&self.processed)
    }

    pub(crate) fn take_durable(&self) -> Latency {
        take(&self.durable)
    }

    fn note(&self, histogram: &Mutex<Histogram<u64>>, since: Timestamp) {
        let micros = self.clock.now().saturating_since(since).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
    }
}

fn take(histogram: &Mutex<Histogram<u64>>) -> Latency {
    let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    let latency = Latency { p50: histogram.value_at_quantile(0.5), p99: histogram.value_at_quantile(0.99) };
    histogram.reset();
    latency
}

/// What all readers share.
struct Shared {
    journal: Journal,
    meter: Arc<Meter>,
    pace: Mutex<Pace>,
    /// Batches that are not known to be durable: their end and when they were read.
    open: Mutex<BTreeMap<String, VecDeque<(u64, Timestamp)>>>,
}

/// So many lines are due at a time, over all readers together.
struct Pace {
    per_second: f64,
    began: Option<Timestamp>,
    issued: f64,
}

impl Pace {
    /// Takes at most `limit` lines of those that are due.
    fn take(&mut self, now: Timestamp, limit: usize) -> usize {
        let began = *self.began.get_or_insert(now);
        let due = now.saturating_since(began).as_secs_f64() * self.per_second - self.issued;
        let taken = (due.max(0.0) as usize).min(limit);
        self.issued += taken as f64;
        taken
    }
}

/// See the module.
pub(crate) struct Watched {
    inner: Lines,
    shared: Arc<Shared>,
    /// Where the text is, for the planted bug.
    bug: Option<PathBuf>,
}

impl Watched {
    /// `bug` plants one: readers that go on from a saved position begin one line too far, below this directory.
    pub(crate) fn new(
        inner: Lines,
        journal: Journal,
        meter: Arc<Meter>,
        per_second: f64,
        bug: Option<PathBuf>,
    ) -> Self {
        let pace = Mutex::new(Pace { per_second, began: None, issued: 0.0 });
        Self { inner, shared: Arc::new(Shared { journal, meter, pace, open: Mutex::default() }), bug }
    }
}

impl Source for Watched {
    type Out = Line;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.inner.splits()
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<Line>>, BoxError> {
        let mut from = from.cloned();
        if let (Some(below), Some(at)) = (&self.bug, from.as_ref().and_then(Position::as_u64)) {
            let text = fs::read(below.join(split.as_str()))?;
            let rest = text.iter().skip(usize::try_from(at)?);
            let line = rest.take_while(|byte| **byte != b'\n').count() as u64 + 1;
            from = Some(Position::from_u64((at + line).min(text.len() as u64)));
        }
        let at = from.as_ref().and_then(Position::as_u64).unwrap_or_default();
        self.shared.journal.opened(split.as_str(), at)?;
        let inner = self.inner.reader(split, from.as_ref())?;
        Ok(Box::new(WatchedReader { inner, split: split.to_string(), shared: Arc::clone(&self.shared) }))
    }

    fn concurrent_splits(&self) -> usize {
        OPEN
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (split, position) in at {
            let Some(position) = position.as_u64() else { continue };
            // A note for the judge; without it he has less to compare, and says so.
            let _ = self.shared.journal.committed(split.as_str(), position);
            let batches = open.entry(split.to_string()).or_default();
            let durable = batches.partition_point(|(end, _)| *end <= position);
            for (_, read_at) in batches.drain(..durable) {
                self.shared.meter.note(&self.shared.meter.durable, read_at);
            }
        }
    }
}

struct WatchedReader {
    inner: Box<dyn Reader<String>>,
    split: String,
    shared: Arc<Shared>,
}

impl Reader<Line> for WatchedReader {
    fn poll(&mut self, batch: &mut Batch<Line>, limit: usize) -> Result<Polled, BoxError> {
        let Shared { journal, meter, pace, open } = self.shared.as_ref();
        let now = meter.clock.now();
        // Few at a time, so that all open files move.
        let due = pace.lock().unwrap_or_else(PoisonError::into_inner).take(now, limit.min(32));
        if due == 0 {
            std::thread::sleep(Duration::from_millis(1));
            return Ok(Polled::Idle);
        }
        let mut lines = Batch::default();
        let polled = self.inner.poll(&mut lines, due)?;
        let read = lines.records.len();
        pace.lock().unwrap_or_else(PoisonError::into_inner).issued -= (due - read.min(due)) as f64;
        if read > 0 {
            journal.read(&self.split, read)?;
            meter.lines.fetch_add(read as u64, Ordering::Relaxed);
            if let Some(end) = lines.end.as_u64() {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                open.entry(self.split.clone()).or_default().push_back((end, now));
            }
        }
        let stamped = lines.records.into_iter().map(|record| record.map(|text| Line { text, read_at: now }));
        batch.records.extend(stamped.collect::<Vec<Record<Line>>>());
        batch.end = lines.end;
        Ok(polled)
    }
}
