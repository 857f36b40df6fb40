//! Teaches how to write a source of your own: splits, positions, waiting, and how to test that it goes on where it stood.
//!
//! ```sh
//! cargo run --example custom_source
//! ```
//! The outside system is a toy: a message log in memory with partitions and offsets. The comments say what matters where it is
//! a real one.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use millstream::prelude::*;
use millstream::runtime::record::Record;
use millstream::runtime::source::{Batch, Guarantee, Polled, Position, Reader, Source, SourceDeclaration, SplitId};

/// The outside system: messages in partitions, each known by its offset.
#[derive(Default)]
struct Broker {
    partitions: Mutex<Vec<Vec<String>>>,
    arrived: Condvar,
    /// Up to where each partition was acknowledged; from then on it may forget what lies before.
    acknowledged: Mutex<Vec<u64>>,
}

/// The source is a factory, and its fields are configuration: an attempt begins with `splits` and opens a reader per split.
#[derive(Clone)]
struct Messages {
    broker: Arc<Broker>,
    /// The source ends when it has read as many per partition. A real one would not end.
    last: u64,
}

/// Reads one split. It has the thread for itself, or shares it with other splits of the same subtask.
struct MessageReader {
    source: Messages,
    partition: usize,
    /// The next offset.
    next: u64,
}

impl Source for Messages {
    type Out = String;

    /// The names are durable: positions are kept under them. One that is gone at a later start is an error.
    fn splits(&self) -> Result<Vec<SplitId>, BoxError> {
        let partitions = self.broker.partitions.lock().unwrap_or_else(PoisonError::into_inner).len();
        Ok((0..partitions).map(|partition| SplitId::new(partition.to_string())).collect())
    }

    /// Opens a reader at the place where the last committed epoch ends, or at the beginning. Whatever an attempt had read
    /// beyond it is read again: that is what makes the source exactly-once.
    fn reader(&self, split: &SplitId, from: Option<&Position>) -> Result<Box<dyn Reader<String>>, BoxError> {
        let partition = split.as_str().parse()?;
        let next = match from {
            None => 0,
            // A position that this source did not make is no reason to begin anew.
            Some(position) => position.as_u64().ok_or_else(|| format!("{position} is no offset of {split}"))?,
        };
        Ok(Box::new(MessageReader { source: self.clone(), partition, next }))
    }

    /// Everything before `at` is durable here, so the outside system need not keep it. It may be told twice or late: never
    /// read it back as the place to go on at.
    fn committed(&self, at: &[(SplitId, Position)]) {
        let mut acknowledged = self.broker.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for (split, position) in at {
            let slot = split.as_str().parse().ok().and_then(|partition: usize| acknowledged.get_mut(partition));
            if let (Some(slot), Some(offset)) = (slot, position.as_u64()) {
                *slot = offset.max(*slot);
            }
        }
    }

    /// What `explain` shows.
    fn declaration(&self) -> SourceDeclaration {
        SourceDeclaration::new("Messages")
            .records("messages of a broker")
            .position("offset of the next message, per partition")
            .guarantee(Guarantee::ExactlyOnce, "as long as the broker keeps what is not acknowledged")
            .after_restart("goes on with the first message of the epoch that was open")
    }
}

impl Reader<String> for MessageReader {
    /// Gives at most `limit` records and the place behind them. It may wait, but only for about 50 ms: then it says that
    /// there is nothing, and is asked again.
    fn poll(&mut self, batch: &mut Batch<String>, limit: usize) -> Result<Polled, BoxError> {
        let wait = Duration::from_millis(50);
        let partitions = self.source.broker.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = usize::try_from(self.next)?;
        let is_empty =
            |partitions: &mut Vec<Vec<String>>| partitions.get(self.partition).is_none_or(|log| log.len() <= begin);
        let waits = self.next < self.source.last;
        let partitions = if waits {
            let waited = self.source.broker.arrived.wait_timeout_while(partitions, wait, is_empty);
            waited.unwrap_or_else(PoisonError::into_inner).0
        } else {
            partitions
        };
        let log = partitions.get(self.partition).ok_or("the partition is gone")?;
        let new = log.get(begin..).unwrap_or_default().iter().take(limit);
        batch.records.extend(new.map(|message| Record::new(message.clone())));
        self.next += batch.records.len() as u64;
        batch.end = Position::from_u64(self.next);
        Ok(match batch.records.is_empty() {
            _ if self.next >= self.source.last => Polled::End,
            true => Polled::Idle,
            false => Polled::More,
        })
    }
}

/// In your crate this is a test: a reader that is opened at any position it gave returns exactly what follows.
fn goes_on_at_every_position(source: &Messages) -> Result<(), BoxError> {
    let rest = |split: &SplitId, from: Option<&Position>| -> Result<Vec<String>, BoxError> {
        let (mut reader, mut batch) = (source.reader(split, from)?, Batch::default());
        while reader.poll(&mut batch, 256)? != Polled::End {}
        Ok(batch.records.into_iter().map(|record| record.value).collect())
    };
    for split in source.splits()? {
        let all = rest(&split, None)?;
        let mut reader = source.reader(&split, None)?;
        for taken in 1..=all.len() {
            let mut batch = Batch::default();
            reader.poll(&mut batch, 1)?;
            if Some(rest(&split, Some(&batch.end))?.as_slice()) != all.get(taken..) {
                return Err(format!("split {split} does not go on behind message {taken}").into());
            }
        }
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let broker = Arc::new(Broker::default());
    let message = |partition: usize| (0..50).map(|offset| format!("message {offset} of {partition}")).collect();
    *broker.partitions.lock().unwrap_or_else(PoisonError::into_inner) = (0..3).map(message).collect();
    *broker.acknowledged.lock().unwrap_or_else(PoisonError::into_inner) = vec![0; 3];
    let source = Messages { broker: Arc::clone(&broker), last: 50 };
    goes_on_at_every_position(&source).map_err(|error| anyhow::anyhow!(error))?;

    let pipeline = Pipeline::new("custom-source");
    let (sink, collected) = Collect::new();
    pipeline.source("messages", source).map(|message| message.len() as u64).sink("lengths", sink);
    print!("{}", pipeline.explain());
    Runtime::builder().build()?.start(pipeline)?.join()?;

    let read = collected.delivered();
    println!("{read} messages were read from three partitions, each exactly once");
    ensure!(read == 150, "150 were to come");
    Ok(())
}
