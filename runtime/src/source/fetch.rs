//! Drives the readers of one subtask and hands their batches over.

use std::sync::Arc;

use crate::channel::{Bell, QueueSendError, QueueSender};
use crate::error::BoxError;
use crate::source::{Batch, Fetched, IdleWatch, Polled, Reader, Source, SplitStart};

/// Most records of one batch. A barrier falls between batches, so this bounds what may delay it.
const BATCH_RECORDS: usize = 256;

enum State<T> {
    Waiting,
    Open(Box<dyn Reader<T>>),
    Ended,
}

struct Split<T> {
    start: SplitStart,
    state: State<T>,
    /// Its reader had nothing once, and that was said.
    dry: bool,
}

impl<T> Split<T> {
    /// Takes note that the reader had nothing; says whether for the first time.
    const fn is_first_dry(&mut self) -> bool {
        !std::mem::replace(&mut self.dry, true)
    }
}

/// All readers of one subtask. It may block in a reader, so its host gives it a thread of its own; the simulator steps it.
pub struct Fetcher<T> {
    source: Arc<dyn Source<Out = T>>,
    splits: Vec<Split<T>>,
    out: QueueSender<Fetched<T>>,
    task: Bell,
    /// A batch that found no room.
    pending: Option<Fetched<T>>,
    idle: IdleWatch,
    turn: usize,
    /// Most records of one batch.
    limit: usize,
}

impl<T> std::fmt::Debug for Fetcher<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetcher").field("splits", &self.splits.len()).finish_non_exhaustive()
    }
}

/// What a step of a fetcher came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Fetch {
    /// A batch was handed over.
    Worked,
    /// No reader had anything.
    Idle,
    /// The hand-over queue is full.
    Full,
    /// Every split has ended, a reader failed (and that was handed over), or the task is gone.
    Done,
}

/// A fetcher without its record type, as hosts see it.
pub trait Fetching: Send {
    /// Polls one reader and hands over what it gave. May block as long as the reader does, about 50 ms.
    fn step(&mut self) -> Fetch;

    /// After [`Fetch::Full`]: blocks until there is room or the task is gone. Never called by the simulator.
    fn wait_for_room(&mut self) -> Fetch;
}

impl<T: Send + 'static> Fetcher<T> {
    /// Makes a fetcher; readers are opened when it is their turn.
    pub fn new(
        source: Arc<dyn Source<Out = T>>,
        splits: Vec<SplitStart>,
        out: QueueSender<Fetched<T>>,
        task: Bell,
        idle: IdleWatch,
    ) -> Self {
        let splits = splits.into_iter().map(|start| {
            let state = if start.ended { State::Ended } else { State::Waiting };
            Split { start, state, dry: false }
        });
        Self { source, splits: splits.collect(), out, task, pending: None, idle, turn: 0, limit: BATCH_RECORDS }
    }

    /// Asks readers for at most so many records at once, where that is less than usual.
    #[must_use]
    pub fn at_most(mut self, records: usize) -> Self {
        self.limit = records.clamp(1, BATCH_RECORDS);
        self
    }

    fn hand_over(&mut self, fetched: Fetched<T>) -> Fetch {
        match self.out.try_send(fetched) {
            Ok(()) => {
                self.idle.goes_on();
                self.task.ring();
                Fetch::Worked
            }
            Err(QueueSendError::Full(fetched)) => {
                self.idle.waits();
                self.pending = Some(fetched);
                Fetch::Full
            }
            Err(QueueSendError::Closed(_)) => self.stop(),
        }
    }

    fn stop(&mut self) -> Fetch {
        for split in &mut self.splits {
            split.state = State::Ended;
        }
        Fetch::Done
    }

    /// Polls one split; nothing if it had nothing.
    fn poll(&mut self, index: usize) -> Option<Fetched<T>> {
        let split = self.splits.get_mut(index)?;
        let before = split.start.from.clone().unwrap_or_default();
        let polled = match poll_split(self.source.as_ref(), split, self.limit) {
            Ok(polled) => polled,
            Err(error) => {
                let _ = self.stop();
                return Some(Fetched::Failed { split: index, error });
            }
        };
        let (polled, batch) = polled?;
        let at = self.idle.now();
        let ended = polled == Polled::End;
        if ended {
            split.state = State::Ended;
        }
        if ended || !batch.records.is_empty() {
            self.idle.gave(index);
            return Some(Fetched::Batch { split: index, batch, at, ended });
        }
        if polled == Polled::More {
            self.idle.is_busy(index);
        } else if self.idle.had_nothing(index) {
            self.task.ring();
        }
        // A place can move without a record: behind lines that are left out, behind an empty file.
        if batch.end == before {
            let first = polled == Polled::Idle && self.splits.get_mut(index).is_some_and(Split::is_first_dry);
            return first.then_some(Fetched::Dry { split: index });
        }
        self.idle.hands_over(index);
        Some(Fetched::Batch { split: index, batch, at, ended })
    }
}

fn poll_split<T: Send + 'static>(
    source: &dyn Source<Out = T>,
    split: &mut Split<T>,
    limit: usize,
) -> Result<Option<(Polled, Batch<T>)>, BoxError> {
    if matches!(split.state, State::Waiting) {
        split.state = State::Open(source.reader(&split.start.split, split.start.from.as_ref())?);
    }
    let State::Open(reader) = &mut split.state else { return Ok(None) };
    let mut batch = Batch::at(split.start.from.clone().unwrap_or_default());
    let polled = reader.poll(&mut batch, limit)?;
    if batch.records.len() > limit {
        return Err(format!("a reader returned {} records, more than the limit", batch.records.len()).into());
    }
    split.start.from = Some(batch.end.clone());
    Ok(Some((polled, batch)))
}

impl<T: Send + 'static> Fetching for Fetcher<T> {
    fn step(&mut self) -> Fetch {
        if let Some(pending) = self.pending.take() {
            return self.hand_over(pending);
        }
        let running = self.splits.iter().enumerate().filter(|(_, split)| !matches!(split.state, State::Ended));
        let running: Vec<usize> =
            running.map(|(index, _)| index).take(self.source.concurrent_splits().max(1)).collect();
        if running.is_empty() {
            return Fetch::Done;
        }
        self.turn = self.turn.wrapping_add(1);
        let Some(index) = running.get(self.turn % running.len()) else { return Fetch::Idle };
        match self.poll(*index) {
            Some(fetched) => self.hand_over(fetched),
            None => Fetch::Idle,
        }
    }

    fn wait_for_room(&mut self) -> Fetch {
        let Some(pending) = self.pending.take() else { return Fetch::Worked };
        if self.out.send(pending).is_err() {
            return self.stop();
        }
        self.idle.goes_on();
        self.task.ring();
        Fetch::Worked
    }
}
