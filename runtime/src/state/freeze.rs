//! Frozen epochs: dirty lists that wait to be encoded, and the deltas they become.

use std::ops::BitOr;

use crate::canary::{Canary, planted};
use crate::checkpoint::Delta;
use crate::codec::CodecError;
use crate::id::{Epoch, OperatorId};
use crate::state::entry::CHUNK_BYTES;
use crate::state::read::{StateRead, StateRows};
use crate::state::table::LoadError;

/// Keys per chunk of a [`KeyList`]: a list of a million keys must neither be copied when it grows nor freed at once.
const LIST_CHUNK: usize = 1024;

/// State that can be handed in at a barrier without a pause.
pub trait Snapshot {
    /// Closes `epoch`: what is dirty now belongs to it. Takes the same time whatever the number of dirty keys.
    fn freeze(&mut self, epoch: Epoch);

    /// Encodes up to `entries` entries of frozen epochs, oldest first.
    ///
    /// # Errors
    /// [`CodecError`] when a value's `Serialize` fails.
    fn encode_slice(&mut self, entries: usize) -> Result<Slice, CodecError>;

    /// How many entries are left in frozen epochs.
    fn left(&self) -> usize;
}

/// The state of one operator in one subtask, as its task drives it.
///
/// What is not in memory is in the rows. Before records, or timers, are worked on, all that belongs to their keys has to be in
/// memory: the operator finds out what is missing, the task waits for the rows, and user code never does. Nothing is evicted
/// while a frame is in work.
pub trait OperatorState: Snapshot {
    /// Takes what the operator found missing: rows that it has to have before it goes on.
    fn take_read(&mut self) -> Option<StateRead> {
        None
    }

    /// Takes in the rows that were asked for.
    ///
    /// # Errors
    /// [`LoadError`] when a row is not what this state writes.
    fn loaded(&mut self, read: &StateRead, rows: StateRows) -> Result<(), LoadError> {
        let _ = (read, rows);
        Ok(())
    }

    /// Takes a question for rows that nobody needs yet, if there is room for them: memory fills up in the background. At most
    /// one is under way.
    fn take_read_ahead(&mut self) -> Option<StateRead> {
        None
    }

    /// Takes in rows of [`OperatorState::take_read_ahead`]. May come in the middle of a frame.
    ///
    /// # Errors
    /// As [`OperatorState::loaded`].
    fn loaded_ahead(&mut self, read: &StateRead, rows: StateRows) -> Result<(), LoadError> {
        let _ = (read, rows);
        Ok(())
    }

    /// No frame is in work: whatever is too much for the memory budget may go. Called between frames, often.
    fn rest(&mut self) -> Rest {
        Rest::default()
    }
}

/// What a state asks for when it rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// It takes more than it may: to rest again soon, whether frames come or not.
    pub again: bool,
    /// To close the open epoch now: it has changed all that one may, or what cannot be evicted before it is written takes too much.
    pub close_epoch: bool,
}

impl BitOr for Rest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self { again: self.again | other.again, close_epoch: self.close_epoch | other.close_epoch }
    }
}

/// What a slice of encoding achieved.
#[derive(Debug, Default)]
pub struct Slice {
    /// Epochs that are complete now, in order.
    pub done: Vec<(Epoch, Delta)>,
    /// Entries that are left in frozen epochs.
    pub left: usize,
}

/// Keys with their hashes, in chunks.
#[derive(Debug)]
pub(crate) struct KeyList<K> {
    chunks: Vec<Vec<(u32, K)>>,
    length: usize,
}

impl<K> Default for KeyList<K> {
    fn default() -> Self {
        Self { chunks: Vec::new(), length: 0 }
    }
}

impl<K> KeyList<K> {
    #[inline]
    pub(crate) fn push(&mut self, hash: u32, key: K) {
        self.length += 1;
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < LIST_CHUNK => chunk.push((hash, key)),
            _ => {
                let mut chunk = Vec::with_capacity(if self.chunks.is_empty() { 16 } else { LIST_CHUNK });
                chunk.push((hash, key));
                self.chunks.push(chunk);
            }
        }
    }

    /// Takes at most `most` keys, at least one if there is one.
    pub(crate) fn take(&mut self, most: usize) -> Vec<(u32, K)> {
        let Some(chunk) = self.chunks.last_mut() else { return Vec::new() };
        let taken = chunk.split_off(chunk.len().saturating_sub(most.max(1)));
        if chunk.is_empty() {
            self.chunks.pop();
        }
        self.length -= taken.len();
        taken
    }

    /// The keys that were added last, at most `most` of them and fewer where a chunk begins.
    pub(crate) fn last(&self, most: usize) -> &[(u32, K)] {
        let chunk = self.chunks.last().map(Vec::as_slice).unwrap_or_default();
        chunk.get(chunk.len().saturating_sub(most)..).unwrap_or_default()
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// An epoch whose barrier has passed and whose entries are not all encoded.
#[derive(Debug)]
pub(crate) struct Frozen<K> {
    pub(crate) epoch: Epoch,
    pub(crate) keys: KeyList<K>,
    /// How many entries changed in the epoch: each is once in the list, and once in the delta in the end.
    pub(crate) changed: u64,
    pub(crate) delta: DeltaBuilder,
}

impl<K> Frozen<K> {
    /// Says whether every changed entry is in the delta, by its turn or by a later touch.
    pub(crate) fn is_encoded(&self) -> bool {
        self.delta.entries == self.changed && !planted(Canary::LateEncode)
    }

    /// How many entries are not in the delta.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.changed - self.delta.entries.min(self.changed)).unwrap_or(usize::MAX).min(self.keys.len())
    }
}

/// Collects entries into chunks; no chunk is ever copied when the delta grows.
#[derive(Debug)]
pub(crate) struct DeltaBuilder {
    operator: OperatorId,
    chunks: Vec<Vec<u8>>,
    entries: u64,
}

impl DeltaBuilder {
    pub(crate) const fn new(operator: OperatorId) -> Self {
        Self { operator, chunks: Vec::new(), entries: 0 }
    }

    #[inline]
    pub(crate) fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
            // The first chunk grows as it must; from the second on the delta is known to be large.
            let capacity = if self.chunks.is_empty() { 256 } else { CHUNK_BYTES + 4096 };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        if let Some(chunk) = self.chunks.last_mut() {
            write(chunk)?;
            self.entries += 1;
        }
        Ok(())
    }

    /// Bytes that are encoded.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    pub(crate) fn finish(mut self) -> Delta {
        self.chunks.retain(|chunk| !chunk.is_empty());
        Delta { operator: self.operator, chunks: self.chunks, entries: self.entries }
    }
}
