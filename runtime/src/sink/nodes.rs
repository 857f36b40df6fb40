//! The last node of a chain that ends in a sink.

use std::sync::Arc;

use crate::channel::{Frame, Mark};
use crate::checkpoint::OutboxPart;
use crate::error::BoxError;
use crate::id::OperatorId;
use crate::operator::{Flow, Node, OpenContext, TaskContext, TaskError};
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

fn failed(name: &str, context: &TaskContext, source: BoxError) -> TaskError {
    TaskError::Operator { operator: name.to_owned(), epoch: context.epoch(), source }
}

impl<T: 'static> Node<T> for DirectSink<T> {
    fn offer(&mut self, frame: Frame<T>, context: &mut TaskContext) -> Result<Flow, TaskError> {
        match frame.into_records() {
            Ok(records) => {
                for record in records {
                    self.sink.write(record.value).map_err(|source| failed(&self.name, context, source))?;
                }
            }
            Err(Mark::Barrier(barrier)) => {
                self.sink.flush(barrier.epoch).map_err(|source| failed(&self.name, context, source))?;
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
                for record in records {
                    let pushed = self.rows.push(|out| self.encoder.encode(&record.value, out));
                    pushed.map_err(|source| failed(&self.name, context, source))?;
                }
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
