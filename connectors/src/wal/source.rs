//! The source that writes ahead, and its readers.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millstream_runtime::error::BoxError;
use millstream_runtime::record::Record;
use millstream_runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};
use millstream_runtime::state::store::{Durability, StateBackend};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::WalError;
use super::shared::{Begin, Config, Wal};

/// Puts a write-ahead log in front of a source that cannot be read again: records are written to it, and synced, before they
/// enter the pipeline.
///
/// From the log on each record counts **exactly once**, also after `kill -9` or a power cut. What had not reached the log
/// is lost with the process, as it would be without: lines in a socket's buffers, items that a stream has given to nobody.
/// The source hears [`committed`](Source::committed) when its records are in the log: receipts of
/// [`Feed::send_durable`](crate::channel::Feed::send_durable) come true then, without waiting for the epoch.
///
/// The price is one synced write per batch of the reader, so some milliseconds of latency on a disk, and the records'
/// bytes once more. Records go through MessagePack. A record leaves the log when the epoch that covers it is committed,
/// so the log is as large as what is not committed yet.
///
/// The **position** is the number of the next record, counted from 0 by this log. The log and the pipeline's state belong
/// together: one of them alone brought back from a copy, or deleted, is refused by name where records would be lost. An
/// existing pipeline gets a log under a new name of its source.
#[must_use]
pub struct WalSource<S: Source> {
    source: Arc<S>,
    wal: Wal<S::Out>,
}

impl<S: Source> WalSource<S> {
    /// Puts the log `name` of `backend` in front of `source`. It is kept as the state of a pipeline of that name would be, so
    /// the name has to be another than those of the pipelines on that backend.
    pub fn new(name: impl Into<String>, source: S, backend: impl StateBackend + 'static) -> Self {
        let config = Config {
            name: name.into(),
            backend: Arc::new(backend),
            durability: Durability::Synced,
            max_bytes: 10 << 30,
            pause: Duration::from_millis(50),
        };
        Self { source: Arc::new(source), wal: Wal::new(config) }
    }

    /// Sets when a record counts as being in the log. With [`Durability::Buffered`] a batch waits for no disk, and what was
    /// written survives the end of the process but not that of the machine. Default [`Durability::Synced`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.wal.config().durability = durability;
        self
    }

    /// Sets how many bytes of records that are not committed yet the log may hold, over all splits; then nothing is taken
    /// from the source until an epoch is committed. The last batch may go beyond it. Default 10 GiB, at least 1.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.wal.config().max_bytes = bytes;
        self
    }
}

impl<S: Source> fmt::Debug for WalSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalSource").field("source", &self.source.declaration().connector).finish_non_exhaustive()
    }
}

impl<S> Source for WalSource<S>
where
    S: Source<Out: Serialize + DeserializeOwned>,
{
    type Out = S::Out;

    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        self.wal.check()?;
        let splits = self.source.splits()?;
        self.wal.open()?;
        Ok(splits)
    }

    fn concurrent_splits(&self) -> usize {
        self.source.concurrent_splits()
    }

    fn declaration(&self) -> SourceDeclaration {
        let source = self.source.declaration();
        SourceDeclaration::new(format!("WalSource<{}>", source.connector))
            .records(source.records)
            .position("number of the next record of the log, per split")
            .guarantee(Guarantee::ExactlyOnce, "from the log on")
            .after_restart("goes on in the log with the first record of the epoch that was open, then in the source")
    }

    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<S::Out>>, BoxError> {
        let number = from.map_or(Some(0), Position::as_u64).ok_or_else(|| WalError::Foreign {
            split: split.to_string(),
            position: from.map_or_else(String::new, Position::to_string),
        })?;
        let Begin { reader, next, source_from } = self.wal.begin(split, number)?;
        let inner = self.source.reader(split, source_from.as_ref())?;
        Ok(Box::new(WalReader {
            source: Arc::clone(&self.source),
            wal: self.wal.clone(),
            split: split.clone(),
            reader,
            inner,
            next,
            read: VecDeque::new(),
            ended: false,
        }))
    }

    fn committed(&self, at: &[(SplitId, Position)]) {
        for (split, position) in at {
            if let Some(number) = position.as_u64() {
                self.wal.remove_before(split, number);
            }
        }
    }
}

struct WalReader<S: Source> {
    source: Arc<S>,
    wal: Wal<S::Out>,
    split: SplitId,
    reader: u64,
    inner: Box<dyn Reader<S::Out>>,
    /// The number of the next record that is handed out.
    next: u64,
    /// Records that are in the log, from `next` on.
    read: VecDeque<Record<S::Out>>,
    /// The source has ended.
    ended: bool,
}

impl<S> Reader<S::Out> for WalReader<S>
where
    S: Source<Out: Serialize + DeserializeOwned>,
{
    fn poll(&mut self, batch: &mut Batch<S::Out>, limit: usize) -> Result<Polled, BoxError> {
        let polled = if self.read.is_empty() { self.fill(limit)? } else { Polled::More };
        let count = limit.min(self.read.len());
        batch.records.extend(self.read.drain(..count));
        self.next += count as u64;
        batch.end = Position::from_u64(self.next);
        Ok(polled)
    }
}

/// What became of what was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrote {
    /// Nothing was taken.
    Nothing,
    /// It is in the log.
    Records,
    /// The disk is full: it is tried again by the next poll.
    Later,
}

impl<S> WalReader<S>
where
    S: Source<Out: Serialize + DeserializeOwned>,
{
    /// Gets more records: from the log while it has some, then from the source by way of the log.
    fn fill(&mut self, limit: usize) -> Result<Polled, BoxError> {
        // First of all what could not be written before: it may be in the log all the same, and is not durable yet.
        match self.write()? {
            Wrote::Nothing => {}
            Wrote::Records => return Ok(Polled::More),
            Wrote::Later => return Ok(Polled::Idle),
        }
        self.read = self.wal.read(&self.split, self.reader, self.next)?.into();
        if !self.read.is_empty() {
            return Ok(Polled::More);
        }
        if self.ended {
            return Ok(Polled::End);
        }
        if self.wal.is_full() {
            return Ok(Polled::Idle);
        }
        let mut taken = Batch::default();
        let polled = self.inner.poll(&mut taken, limit)?;
        self.ended = polled == Polled::End;
        if taken.records.is_empty() {
            return Ok(polled);
        }
        self.wal.take(&self.split, self.reader, taken)?;
        Ok(if self.write()? == Wrote::Records { Polled::More } else { Polled::Idle })
    }

    /// Writes what was taken, and tells the source.
    fn write(&mut self) -> Result<Wrote, BoxError> {
        let (records, source_end) = match self.wal.write(&self.split, self.reader) {
            Ok(Some(written)) => written,
            Ok(None) => return Ok(Wrote::Nothing),
            Err(error) if is_full_disk(&error) => {
                tracing::warn!(%error, "the disk of a write-ahead log is full, it is tried again");
                self.wal.pause();
                return Ok(Wrote::Later);
            }
            Err(error) => return Err(error),
        };
        self.read = records.into();
        self.source.committed(&[(self.split.clone(), source_end)]);
        Ok(Wrote::Records)
    }
}

fn is_full_disk(error: &BoxError) -> bool {
    matches!(error.downcast_ref(), Some(WalError::Store { source, .. }) if source.is_retryable())
}

#[cfg(test)]
mod tests;
