//! The last node of a chain that ends in a sink.

use std::sync::Arc;

use crate::channel::{Frame, Mark};
use crate::checkpoint::OutboxPart;
use crate::id::OperatorId;
use crate::metrics::OperatorMeter;
use crate::operator::{Flow, Node, OpenContext, TaskContext, TaskError};
use crate::record::Record;
use crate::sink::{Encoder, RowsBuilder, Sink};
use crate::time::Timestamp;

/// Counts what a sink takes, and how long after their events.
#[derive(Debug)]
struct SinkMeter {
    meter: OperatorMeter,
    /// Event times of the frame in work; empty where records have none.
    times: Vec<Timestamp>,
}

impl SinkMeter {
    fn new(open: &OpenContext) -> Self {
        Self { meter: open.meter(), times: Vec::new() }
    }

    fn takes<T>(&mut self, records: &[Record<T>]) {
        self.meter.took(records.len());
        // Either a stream has event times or it has none; a record without one among others counts for nothing.
        if records.first().is_some_and(|record| record.time > Timestamp::MIN) {
            self.times.extend(records.iter().map(|record| record.time));
        }
    }

    fn took(&mut self, context: &TaskContext) {
        if self.times.is_empty() {
            return;
        }
        // Once for the frame, behind its last record.
        let now = context.reads_clock().as_micros();
        for time in self.times.drain(..).filter(|time| *time > Timestamp::MIN) {
            self.meter.done_after(u64::try_from(now.saturating_sub(time.as_micros())).unwrap_or(0));
        }
    }
}

/// Writes each record at once: level 1.
pub struct DirectSink<T> {
    name: String,
    meter: SinkMeter,
    sink: Box<dyn Sink<T>>,
}

impl<T> std::fmt::Debug for DirectSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectSink").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T> DirectSink<T> {
    /// Wraps an opened sink.
    pub fn new(open: &OpenContext, sink: Box<dyn Sink<T>>) -> Self {
        Self { name: open.name.clone(), meter: SinkMeter::new(open), sink }
    }
}

impl<T: 'static> Node<T> for DirectSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                let Self { name, meter, sink } = self;
                meter.takes(&records);
                let write = || records.into_iter().try_for_each(|record| sink.write(record.value));
                TaskError::catch(name, context.epoch(), write)?;
                meter.took(context);
            }
            Err(Mark::Barrier(barrier)) => {
                TaskError::catch(&self.name, context.epoch(), || self.sink.flush(barrier.epoch))?;
            }
            Err(_) => {}
        }
        Ok(Flow::Ready)
    }
}

/// Encodes each record into the outbox of its epoch: level 2.
pub struct OutboxSink<T> {
    name: String,
    meter: SinkMeter,
    operator: OperatorId,
    encoder: Arc<dyn Encoder<T>>,
    rows: RowsBuilder,
}

impl<T> std::fmt::Debug for OutboxSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxSink").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<T> OutboxSink<T> {
    /// Makes a sink with an empty epoch.
    pub fn new(open: &OpenContext, encoder: Arc<dyn Encoder<T>>) -> Self {
        let (name, meter) = (open.name.clone(), SinkMeter::new(open));
        Self { name, meter, operator: open.operator, encoder, rows: RowsBuilder::default() }
    }
}

impl<T: 'static> Node<T> for OutboxSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                let Self { name, meter, rows, encoder, .. } = self;
                meter.takes(&records);
                let mut push = |record: Record<T>| rows.push(|out| encoder.encode(&record.value, out));
                TaskError::catch(name, context.epoch(), || records.into_iter().try_for_each(&mut push))?;
                meter.took(context);
            }
            Err(Mark::Barrier(_)) => {
                let (chunks, rows) = self.rows.take();
                if rows > 0 {
                    context.deliver_outbox(OutboxPart { operator: self.operator, chunks, rows });
                }
            }
            Err(_) => {}
        }
        Ok(Flow::Ready)
    }
}
