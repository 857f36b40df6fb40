//! What an operator and an output count in one subtask. One writer, its own thread; read by whoever wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::window::{Recent, SlotWriter, Slots};
use crate::metrics::{Buckets, MetricsLevel, SharedBuckets, SharedMeans};
use crate::time::Timestamp;

/// A number that one thread raises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owner's thread may.
    #[inline]
    pub fn add(&self, by: u64) {
        // One writer: a load and a store are cheaper than an atomic addition.
        self.0.store(self.0.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }

    /// Reads it and begins anew. Only the owner's thread may.
    #[inline]
    fn take(&self) -> u64 {
        let count = self.0.load(Ordering::Relaxed);
        if count > 0 {
            self.0.store(0, Ordering::Relaxed);
        }
        count
    }

    /// Reads it.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What an operator counts in one subtask. Cheap to clone; all clones count together. By default it counts nothing.
#[derive(Clone, Debug, Default)]
pub struct OperatorMeter(Option<Arc<OperatorCells>>);

/// In cache lines of its own: its neighbour in memory may be another worker's.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OperatorCells {
    records_in: Counter,
    frames_in: Counter,
    records_out: Counter,
    frames_out: Counter,
    event_time_latency: SharedBuckets,
    latency: SharedBuckets,
    /// The latencies of the last seconds.
    recent: Slots,
    /// How long user code takes for a record; nothing below the level `debug`.
    process: Option<SharedMeans>,
    /// Records of this turn that a sink is through with, and when a source took the oldest of them.
    through: Counter,
    taken: AtomicI64,
    watermark: Watermark,
}

/// A watermark, absent until the first.
#[derive(Debug)]
struct Watermark(AtomicI64);

impl Default for Watermark {
    fn default() -> Self {
        Self(AtomicI64::new(Timestamp::MIN.as_micros()))
    }
}

impl OperatorMeter {
    /// Makes one that counts as much as the level says.
    pub fn counting(level: MetricsLevel) -> Self {
        let process = (level >= MetricsLevel::Debug).then(SharedMeans::default);
        let cells = || Arc::new(OperatorCells { process, ..OperatorCells::default() });
        Self((level >= MetricsLevel::Info).then(cells))
    }

    /// Says whether it wants to know how long user code takes.
    #[inline]
    pub fn is_timing(&self) -> bool {
        self.process().is_some()
    }

    /// Counts how long user code took for the records of a frame.
    pub fn processed(&self, records: usize, took: Duration) {
        if let Some(process) = self.process() {
            process.record(took, records);
        }
    }

    /// How long user code takes for a record, if it counts that.
    pub fn process_times(&self) -> Option<Buckets> {
        self.process().map(SharedMeans::read)
    }

    fn process(&self) -> Option<&SharedMeans> {
        self.0.as_ref().and_then(|cells| cells.process.as_ref())
    }

    /// Says whether it counts.
    pub const fn is_counting(&self) -> bool {
        self.0.is_some()
    }

    /// Counts a frame of records that it took.
    #[inline]
    pub fn took(&self, records: usize) {
        if let Some(cells) = &self.0 {
            cells.records_in.add(records as u64);
            cells.frames_in.add(1);
        }
    }

    /// Counts a frame of records that it gave.
    #[inline]
    pub fn gave(&self, records: usize) {
        if let Some(cells) = &self.0 {
            cells.records_out.add(records as u64);
            cells.frames_out.add(1);
        }
    }

    /// Counts how long after its event a record was done with.
    #[inline]
    pub fn done_after(&self, micros: u64) {
        if let Some(cells) = &self.0 {
            cells.event_time_latency.record_micros(micros);
        }
    }

    /// Records went through a sink, the oldest of which a source took then; [`Timestamp::MIN`] if nobody knows.
    #[inline]
    pub fn through(&self, records: usize, taken: Timestamp) {
        if let Some(cells) = &self.0
            && taken > Timestamp::MIN
        {
            cells.through.add(records as u64);
            cells.taken.store(taken.as_micros(), Ordering::Relaxed);
        }
    }

    /// How long after a source had taken them a sink was through with records.
    pub fn latency(&self) -> Buckets {
        self.0.as_ref().map_or_else(Buckets::default, |cells| cells.latency.read())
    }

    /// The latencies of the last ten full seconds.
    pub(crate) fn recent(&self, now: Timestamp) -> Recent {
        self.0.as_ref().map_or_else(Recent::default, |cells| cells.recent.read(now))
    }

    /// A watermark has come.
    #[inline]
    pub fn reached(&self, watermark: Timestamp) {
        if let Some(cells) = &self.0 {
            cells.watermark.0.store(watermark.as_micros(), Ordering::Relaxed);
        }
    }

    /// The last watermark that came; nothing before the first and behind the final one.
    pub fn watermark(&self) -> Option<Timestamp> {
        let reached = Timestamp::from_micros(self.0.as_ref()?.watermark.0.load(Ordering::Relaxed));
        (Timestamp::MIN < reached && reached < Timestamp::MAX).then_some(reached)
    }

    /// Records and frames that it took.
    pub fn taken(&self) -> (u64, u64) {
        self.0.as_ref().map_or((0, 0), |cells| (cells.records_in.read(), cells.frames_in.read()))
    }

    /// Records and frames that it gave.
    pub fn given(&self) -> (u64, u64) {
        self.0.as_ref().map_or((0, 0), |cells| (cells.records_out.read(), cells.frames_out.read()))
    }

    /// How long after their event records were done with.
    pub fn event_time_latency(&self) -> Buckets {
        self.0.as_ref().map_or_else(Buckets::default, |cells| cells.event_time_latency.read())
    }
}

/// Counts the latency of what goes through a sink, at the end of each turn.
#[derive(Debug)]
pub(crate) struct SinkLatency {
    meter: OperatorMeter,
    recent: SlotWriter,
}

impl SinkLatency {
    /// Counts that of a sink. One per sink and subtask.
    pub(crate) fn of(meter: OperatorMeter) -> Self {
        Self { meter, recent: SlotWriter::default() }
    }

    /// Counts the latency of what went through since the last call.
    #[inline]
    pub(crate) fn settle(&mut self, now: Timestamp) {
        let Some(cells) = &self.meter.0 else { return };
        let records = cells.through.take();
        if records > 0 {
            let micros = micros_between(cells.taken.load(Ordering::Relaxed), now);
            cells.latency.record_many(micros, records);
            self.recent.record(micros, records, now, &cells.recent);
        } else {
            self.recent.turn(now, &cells.recent);
        }
    }
}

/// How long one output of a subtask waited for room. Cheap to clone. By default it counts nothing.
#[derive(Clone, Debug, Default)]
pub struct OutputMeter(Option<Arc<OutputCells>>);

#[derive(Debug, Default)]
struct OutputCells {
    /// Sent frames carry the time.
    timing: bool,
    waited_micros: Counter,
    /// Since when it waits, in microseconds; zero while it does not.
    since: AtomicI64,
}

impl OutputMeter {
    /// Makes one that counts as much as the level says.
    pub fn counting(level: MetricsLevel) -> Self {
        let cells = || Arc::new(OutputCells { timing: level >= MetricsLevel::Debug, ..OutputCells::default() });
        Self((level >= MetricsLevel::Info).then(cells))
    }

    /// Says whether frames have to carry the time at which they are sent.
    #[inline]
    pub fn is_timing(&self) -> bool {
        self.0.as_ref().is_some_and(|cells| cells.timing)
    }

    /// Takes note of whether the output waits for room. Only the owner's thread may.
    #[inline]
    pub fn note(&self, waits: bool, now: Timestamp) {
        let Some(cells) = &self.0 else { return };
        let since = cells.since.load(Ordering::Relaxed);
        if waits == (since != 0) {
            return;
        }
        cells.since.store(if waits { now.as_micros() } else { 0 }, Ordering::Relaxed);
        if !waits {
            // Behind the store above: who reads in between sees too little, never a time twice.
            cells.waited_micros.add(micros_between(since, now));
        }
    }

    /// How long it has waited until `now`, in all.
    pub fn waited(&self, now: Timestamp) -> Duration {
        let Some(cells) = &self.0 else { return Duration::ZERO };
        let waited = cells.waited_micros.read();
        let open = match cells.since.load(Ordering::Relaxed) {
            0 => 0,
            since => micros_between(since, now),
        };
        Duration::from_micros(waited + open)
    }
}

pub(super) fn micros_between(since: i64, now: Timestamp) -> u64 {
    u64::try_from(now.as_micros().saturating_sub(since)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn an_output_that_waits_shows_it_while_it_does() {
        let meter = OutputMeter::counting(MetricsLevel::Info);
        let waited = |now| meter.waited(at(now)).as_micros();
        meter.note(false, at(50));
        for (now, waits) in [(100, true), (110, true), (150, false), (160, false), (200, true)] {
            meter.note(waits, at(now));
        }
        assert_eq!((waited(200), waited(203)), (50, 53));
    }

    #[test]
    fn what_went_through_in_a_turn_counts_when_the_turn_is_over_by_its_oldest_record() {
        let meter = OperatorMeter::counting(MetricsLevel::Info);
        let mut sink = SinkLatency::of(meter.clone());
        sink.settle(at(50));
        meter.through(3, at(100));
        meter.through(2, at(100));
        assert_eq!(meter.latency().count(), 0);
        sink.settle(at(130));
        sink.settle(at(999));
        meter.through(7, Timestamp::MIN);
        sink.settle(at(1_000));
        sink.settle(at(1_000_000));
        assert_eq!(meter.recent(at(1_000_000)).quantile(1.0), Some(Duration::from_micros(30)));
        let latency = meter.latency();
        assert_eq!((latency.count(), latency.sum()), (5, Duration::from_micros(5 * 30)), "nobody knows of the seven");
    }

    #[test]
    fn a_watermark_is_there_between_the_first_and_the_final_one() {
        let meter = OperatorMeter::counting(MetricsLevel::Info);
        assert_eq!(meter.watermark(), None);
        meter.reached(at(5));
        assert_eq!(meter.watermark(), Some(at(5)));
        meter.reached(Timestamp::MAX);
        assert_eq!(meter.watermark(), None);
    }

    #[test]
    fn one_that_is_off_counts_nothing() {
        let (meter, output) = (OperatorMeter::default(), OutputMeter::default());
        meter.took(3);
        meter.gave(3);
        meter.done_after(5);
        meter.through(3, at(1));
        SinkLatency::of(meter.clone()).settle(at(2));
        output.note(true, at(1));
        assert_eq!((meter.taken(), meter.given(), meter.latency().count()), ((0, 0), (0, 0), 0));
        assert_eq!((meter.event_time_latency().count(), output.waited(at(9))), (0, Duration::ZERO));
    }
}
