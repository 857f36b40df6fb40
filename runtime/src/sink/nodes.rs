//! The last node of a chain that ends in a sink.

use std::sync::Arc;

use crate::channel::{Frame, Mark};
use crate::checkpoint::OutboxPart;
use crate::id::OperatorId;
use crate::operator::{Flow, Node, OpenContext, TaskContext, TaskError};
use crate::record::Record;
use crate::sink::{Encoder, RowsBuilder, Sink};

/// Writes each record at once: level 1.
pub struct DirectSink<T> {
    name: String,
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
        Self { name: open.name.clone(), sink }
    }
}

impl<T: 'static> Node<T> for DirectSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                let Self { name, sink } = self;
                let write = || records.into_iter().try_for_each(|record| sink.write(record.value));
                TaskError::catch(name, context.epoch(), write)?;
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
        Self { name: open.name.clone(), operator: open.operator, encoder, rows: RowsBuilder::default() }
    }
}

impl<T: 'static> Node<T> for OutboxSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                let Self { name, rows, encoder, .. } = self;
                let mut push = |record: Record<T>| rows.push(|out| encoder.encode(&record.value, out));
                TaskError::catch(name, context.epoch(), || records.into_iter().try_for_each(&mut push))?;
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
