//! The sinks: what a record looks like when it has arrived.

use std::sync::{Arc, Mutex};

use millstream::runtime::error::BoxError;
use millstream::runtime::sink::{
    Encoder, EpochBatch, IntoSink, Sink, SinkContext, SinkError, SinkErrorKind, SinkSpec, Token, TokenSink,
};

use crate::check::{Check, Stamp};
use crate::latency::Latency;
use crate::source::{Times, lock};

/// What leaves a workload: the stamp of its newest input, and the count where it counts.
pub(crate) type Output = (Stamp, Option<u64>);

/// What one subtask of a sink, or the reader of committed output, has seen.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// From the due time.
    pub(crate) response: Latency,
    /// From the moment of sending.
    pub(crate) service: Latency,
    /// As `response`, for all records since the last look.
    pub(crate) window: Latency,
    pub(crate) check: Check,
}

impl Probe {
    pub(crate) fn new(senders: u16) -> anyhow::Result<Self> {
        let [response, service, window] = [Latency::new()?, Latency::new()?, Latency::new()?];
        Ok(Self { response, service, window, check: Check::new(senders) })
    }

    #[inline]
    pub(crate) fn observe(&mut self, times: &Times, now: u64, (stamp, count): &Output) {
        let response = now.saturating_sub(stamp.due);
        if times.is_measured(stamp.due) {
            self.response.record(response);
            self.service.record(now.saturating_sub(stamp.sent));
        }
        self.window.record(response);
        self.check.observe(stamp, *count);
    }
}

/// All probes of one sink.
#[derive(Clone, Debug)]
pub(crate) struct Probes {
    pub(crate) times: Arc<Times>,
    pub(crate) senders: u16,
    pub(crate) all: Arc<Mutex<Vec<Arc<Mutex<Probe>>>>>,
}

impl Probes {
    pub(crate) fn new(times: Arc<Times>, senders: u16) -> Self {
        Self { times, senders, all: Arc::default() }
    }

    fn add(&self) -> anyhow::Result<Arc<Mutex<Probe>>> {
        let probe = Arc::new(Mutex::new(Probe::new(self.senders)?));
        lock(&self.all).push(Arc::clone(&probe));
        Ok(probe)
    }

    /// Outputs so far.
    pub(crate) fn completed(&self) -> u64 {
        lock(&self.all).iter().map(|probe| lock(probe).check.completed()).sum()
    }

    /// Takes the latencies since the last look.
    pub(crate) fn take_window(&self) -> anyhow::Result<Latency> {
        let mut sum = Latency::new()?;
        for probe in lock(&self.all).iter() {
            let mut probe = lock(probe);
            sum.merge(&probe.window)?;
            probe.window.clear();
        }
        Ok(sum)
    }

    /// All that was seen, as one.
    pub(crate) fn merged(&self) -> anyhow::Result<Probe> {
        let mut sum = Probe::new(self.senders)?;
        for probe in lock(&self.all).iter() {
            let probe = lock(probe);
            sum.response.merge(&probe.response)?;
            sum.service.merge(&probe.service)?;
            sum.check.merge(&probe.check);
        }
        Ok(sum)
    }
}

/// The sink operator has the record.
#[derive(Clone, Debug)]
pub(crate) struct Processed(pub(crate) Probes);

struct ProcessedSink {
    times: Arc<Times>,
    probe: Arc<Mutex<Probe>>,
}

impl IntoSink<Output> for Processed {
    fn into_sink(self) -> SinkSpec<Output> {
        SinkSpec::Direct(Arc::new(move || {
            Ok(Box::new(ProcessedSink { times: Arc::clone(&self.0.times), probe: self.0.add()? }))
        }))
    }
}

impl Sink<Output> for ProcessedSink {
    fn write(&mut self, output: Output) -> Result<(), BoxError> {
        // Read for each record: one reading per frame would hide what happens inside it.
        let now = self.times.clock.nanos();
        // The driver looks in a few times a second; otherwise the lock is free.
        lock(&self.probe).observe(&self.times, now, &output);
        Ok(())
    }
}

/// A reader of committed output sees the record: an outbox sink, exactly once.
#[derive(Clone, Debug)]
pub(crate) struct Visible(pub(crate) Probes);

impl IntoSink<Output> for Visible {
    fn into_sink(self) -> SinkSpec<Output> {
        SinkSpec::Outbox {
            encoder: Arc::new(StampRow),
            connector: Arc::new(move || {
                Ok(Box::new(VisibleSink { times: Arc::clone(&self.0.times), probe: self.0.add()? }))
            }),
        }
    }
}

struct VisibleSink {
    times: Arc<Times>,
    probe: Arc<Mutex<Probe>>,
}

impl TokenSink for VisibleSink {
    fn open(&mut self, _context: &SinkContext) -> Result<Token, SinkError> {
        Ok(Token::default())
    }

    fn apply(&mut self, batch: &EpochBatch<'_>) -> Result<(), SinkError> {
        // The rows become visible together.
        let now = self.times.clock.nanos();
        let mut probe = lock(&self.probe);
        for row in batch.rows() {
            let stamp = StampRow::decode(row.bytes)
                .ok_or_else(|| SinkError::plain(SinkErrorKind::Fatal, "a row of the load test has a wrong length"))?;
            probe.observe(&self.times, now, &(stamp, None));
        }
        Ok(())
    }
}

/// A stamp as 30 bytes.
struct StampRow;

impl StampRow {
    fn decode(bytes: &[u8]) -> Option<Stamp> {
        let (seq, rest) = bytes.split_first_chunk()?;
        let (due, rest) = rest.split_first_chunk()?;
        let (sent, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let sender = rest.try_into().ok()?;
        Some(Stamp {
            seq: u64::from_be_bytes(*seq),
            due: u64::from_be_bytes(*due),
            sent: u64::from_be_bytes(*sent),
            key: u32::from_be_bytes(*key),
            sender: u16::from_be_bytes(sender),
        })
    }
}

impl Encoder<Output> for StampRow {
    fn encode(&self, (stamp, _): &Output, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(&stamp.seq.to_be_bytes());
        out.extend_from_slice(&stamp.due.to_be_bytes());
        out.extend_from_slice(&stamp.sent.to_be_bytes());
        out.extend_from_slice(&stamp.key.to_be_bytes());
        out.extend_from_slice(&stamp.sender.to_be_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stopwatch;

    #[test]
    fn a_row_brings_its_stamp_back() {
        let stamp = Stamp { seq: 1, due: 2, sent: 3, key: 4, sender: 5 };
        let mut row = Vec::new();
        StampRow.encode(&(stamp, None), &mut row).unwrap();
        assert_eq!(StampRow::decode(&row), Some(stamp));
        assert_eq!(StampRow::decode(&row[1..]), None);
    }

    #[test]
    fn counts_the_response_from_the_due_time_and_the_service_from_the_sending() {
        let times = Times::new(Stopwatch::start());
        times.measure(100, 200);
        let mut probe = Probe::new(1).unwrap();
        for due in [99, 100, 199, 200] {
            probe.observe(&times, 1_000, &(Stamp { seq: due, due, sent: 900, ..Stamp::default() }, None));
        }
        assert_eq!((probe.response.count(), probe.window.count(), probe.check.completed()), (2, 4, 4));
        assert_eq!((probe.response.max(), probe.service.max()), (Some(900), Some(100)));
    }
}
