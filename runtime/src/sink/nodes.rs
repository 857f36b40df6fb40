//! The last node of a chain that ends in a sink.

use std::sync::Arc;

use crate::channel::{Frame, Mark};
use crate::checkpoint::OutboxPart;
use crate::error::BoxError;
use crate::id::OperatorId;
use crate::metrics::OperatorMeter;
use crate::operator::{Flow, Node, OpenContext, TaskContext, TaskError};
use crate::record::Record;
use crate::sink::{Encoder, RowsBuilder, Sink};
use crate::time::Timestamp;

/// Counts what a sink takes, and how long after their events.
fn takes<T>(meter: &OperatorMeter, records: &[Record<T>], context: &TaskContext) {
    meter.took(records.len());
    // Either a stream has event times or it has none; a record without one among others counts for nothing.
    if meter.is_counting() && records.first().is_some_and(|record| record.time > Timestamp::MIN) {
        let now = context.turn_time().as_micros();
        for time in records.iter().map(|record| record.time).filter(|time| *time > Timestamp::MIN) {
            meter.done_after(u64::try_from(now.saturating_sub(time.as_micros())).unwrap_or(0));
        }
    }
}

/// Runs a sink's code on the records of a frame, and counts how long that takes where it is asked for.
fn work(
    (name, meter): (&str, &OperatorMeter),
    records: usize,
    context: &TaskContext,
    work: impl FnOnce() -> Result<(), BoxError>,
) -> Result<(), TaskError> {
    let began = meter.is_timing().then(|| context.read_clock());
    TaskError::catch(name, context.epoch(), work)?;
    if let Some(began) = began {
        meter.processed(records, context.read_clock().saturating_since(began));
    }
    meter.through(records, context.taken());
    Ok(())
}

/// Writes each record at once: level 1.
pub struct DirectSink<T> {
    name: String,
    meter: OperatorMeter,
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
        Self { name: open.name.clone(), meter: open.sink_meter(), sink }
    }
}

impl<T: 'static> Node<T> for DirectSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                let Self { name, meter, sink } = self;
                takes(meter, &records, context);
                let count = records.len();
                let write = || records.into_iter().try_for_each(|record| sink.write(record.value));
                work((name, meter), count, context, write)?;
            }
            Err(Mark::Barrier(barrier)) => {
                TaskError::catch(&self.name, context.epoch(), || self.sink.flush(barrier.epoch))?;
            }
            Err(Mark::Watermark(time)) => self.meter.reached(time),
            Err(_) => {}
        }
        Ok(Flow::Ready)
    }
}

/// Encodes each record into the outbox of its epoch: level 2.
pub struct OutboxSink<T> {
    name: String,
    meter: OperatorMeter,
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
        let (name, meter) = (open.name.clone(), open.sink_meter());
        Self { name, meter, operator: open.operator, encoder, rows: RowsBuilder::default() }
    }
}

impl<T: 'static> Node<T> for OutboxSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                let Self { name, meter, rows, encoder, .. } = self;
                takes(meter, &records, context);
                let count = records.len();
                let mut push = |record: Record<T>| rows.push(|out| encoder.encode(&record.value, out));
                work((name, meter), count, context, || records.into_iter().try_for_each(&mut push))?;
            }
            Err(Mark::Barrier(_)) => {
                let (chunks, rows) = self.rows.take();
                if rows > 0 {
                    context.deliver_outbox(OutboxPart { operator: self.operator, chunks, rows });
                }
            }
            Err(Mark::Watermark(time)) => self.meter.reached(time),
            Err(_) => {}
        }
        Ok(Flow::Ready)
    }
}
