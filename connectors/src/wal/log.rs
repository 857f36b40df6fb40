//! The log of one split: frames of records, numbered without a gap, in a store.
//!
//! | space | key | value |
//! |---|---|---|
//! | log | split, number of the first record | a frame: count, the source's own position behind it, the records |
//! | meta | split | number of the first record that is still wanted, the source's own position before it |
//! | meta | `format` | the number of this format |
//!
//! Integers are big-endian. A split is its name behind its length, a `u32`, so none is the beginning of another or `format`.
//! A frame is one synced write. What is removed goes in one write with the row that says so, which need not be synced: lost,
//! the frames are there once more.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use millstream_runtime::source::Position;
use millstream_runtime::state::store::{Durability, Space, Store, StoreError, WriteBatch};

/// The format that is written, and the newest that is read.
pub(super) const FORMAT: u32 = 1;
const FORMAT_KEY: &[u8] = b"format";

/// Returns the format of what is in a store, and notes it where there is none yet. A log from before this note has format 1 as well: a
/// format 2 will have to look whether there are frames.
pub(super) fn format(store: &mut dyn Store) -> Result<u32, Unreadable> {
    let Some(format) = store.multi_get(Space::Meta, &[FORMAT_KEY.to_vec()])?.pop().flatten() else {
        let mut batch = WriteBatch::default();
        batch.put(Space::Meta, FORMAT_KEY, FORMAT.to_be_bytes().to_vec());
        // Durable with the first frame: without one there is nothing to be read.
        store.write(batch, Durability::Buffered)?;
        return Ok(FORMAT);
    };
    let format = format.try_into().map(u32::from_be_bytes);
    format.map_err(|_| Unreadable::Damaged("the number of its format cannot be read".to_owned()))
}

/// Where frames are, without their records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    first: u64,
    end: u64,
    bytes: u64,
}

/// The log of one split as it is in the store.
#[derive(Debug)]
pub(super) struct SplitLog {
    split: String,
    frames: VecDeque<Frame>,
    /// The first record that is still wanted.
    first: u64,
    /// The number of the next record.
    next: u64,
    /// The source's own position behind the last record; nothing before the first.
    source_end: Option<Position>,
    bytes: u64,
}

/// Why a log could not be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    Store(StoreError),
    Damaged(String),
}

impl From<StoreError> for Unreadable {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl SplitLog {
    /// Reads what there is of a split: heads of frames only.
    pub(super) fn open(store: &dyn Store, split: &str) -> Result<Self, Unreadable> {
        let mut log =
            Self { split: split.to_owned(), frames: VecDeque::new(), first: 0, next: 0, source_end: None, bytes: 0 };
        if let Some(meta) = store.multi_get(Space::Meta, &[prefix(split)])?.pop().flatten() {
            let read = read_head(&meta).filter(|(_, _, rest)| rest.is_empty());
            let (first, source_end, _) = read.ok_or_else(|| Unreadable::Damaged("its head cannot be read".into()))?;
            (log.first, log.next, log.source_end) = (first, first, source_end);
        }
        let mut damage = None;
        // What was removed may be there once more: it was not synced.
        store.scan(Space::Log, &key(split, log.first), Some(&key(split, u64::MAX)), &mut |key, value| {
            damage = log.found(key, value).err();
            if damage.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match damage {
            Some(what) => Err(Unreadable::Damaged(what)),
            None => Ok(log),
        }
    }

    fn found(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let first = key.last_chunk().map(|number| u64::from_be_bytes(*number)).unwrap_or_default();
        if first != self.next {
            return Err(format!("record {} is missing, the next one is {first}", self.next));
        }
        let head = read_head(value).and_then(|(count, end, _)| Some((count, end?)));
        let (count, source_end) = head.ok_or_else(|| format!("the frame of record {first} cannot be read"))?;
        self.append(count, source_end, value.len());
        Ok(())
    }

    fn append(&mut self, count: u64, source_end: Position, bytes: usize) {
        let frame = Frame { first: self.next, end: self.next.saturating_add(count), bytes: bytes as u64 };
        (self.next, self.source_end) = (frame.end, Some(source_end));
        self.bytes += frame.bytes;
        self.frames.push_back(frame);
    }

    /// Writes a frame of `count` records, whose encoded form is `records`. After an error nobody knows whether it is in.
    pub(super) fn write(
        &mut self,
        store: &mut dyn Store,
        (count, records): (u64, &[u8]),
        source_end: &Position,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut value = head(count, Some(source_end));
        value.extend_from_slice(records);
        let bytes = value.len();
        let mut batch = WriteBatch::default();
        batch.put(Space::Log, key(&self.split, self.next), value);
        store.write(batch, durability)?;
        self.append(count, source_end.clone(), bytes);
        Ok(())
    }

    /// Returns the encoded records of the frame that has `number`, and the number of its first one.
    pub(super) fn read(&self, store: &dyn Store, number: u64) -> Result<(u64, Vec<u8>), Unreadable> {
        let gone = || Unreadable::Damaged(format!("the frame of record {number} is gone"));
        let after = self.frames.partition_point(|frame| frame.end <= number);
        let frame = self.frames.get(after).filter(|frame| frame.first <= number).ok_or_else(gone)?;
        let value = store.multi_get(Space::Log, &[key(&self.split, frame.first)])?.pop().flatten();
        let value = value.ok_or_else(gone)?;
        let (_, _, records) = read_head(&value).ok_or_else(gone)?;
        Ok((frame.first, records.to_vec()))
    }

    /// Removes the frames of which no record from `wanted` on is part.
    pub(super) fn remove_before(&mut self, store: &mut dyn Store, wanted: u64) -> Result<(), StoreError> {
        let gone = self.frames.partition_point(|frame| frame.end <= wanted.min(self.next));
        let Some(last) = gone.checked_sub(1).and_then(|last| self.frames.get(last)).copied() else { return Ok(()) };
        // The source's position behind it is in the frame after it, or is the last of all.
        let source_end = if last.end == self.next { self.source_end.clone() } else { self.end_of(store, last)? };
        let mut batch = WriteBatch::default();
        batch.delete_range(Space::Log, key(&self.split, 0), key(&self.split, last.end));
        batch.put(Space::Meta, prefix(&self.split), head(last.end, source_end.as_ref()));
        store.write(batch, Durability::Buffered)?;
        self.first = last.end;
        self.bytes -= self.frames.drain(..gone).map(|frame| frame.bytes).sum::<u64>();
        Ok(())
    }

    fn end_of(&self, store: &dyn Store, frame: Frame) -> Result<Option<Position>, StoreError> {
        let value = store.multi_get(Space::Log, &[key(&self.split, frame.first)])?.pop().flatten();
        Ok(value.and_then(|value| read_head(&value)?.1))
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn source_end(&self) -> Option<&Position> {
        self.source_end.as_ref()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// What all keys of a split begin with; no split's is the beginning of another's.
fn prefix(split: &str) -> Vec<u8> {
    let mut key = (split.len() as u32).to_be_bytes().to_vec();
    key.extend_from_slice(split.as_bytes());
    key
}

fn key(split: &str, first: u64) -> Vec<u8> {
    let mut key = prefix(split);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

/// A number and a position of at most 64 bytes, which is absent if its length is 255.
fn head(number: u64, position: Option<&Position>) -> Vec<u8> {
    let mut head = number.to_be_bytes().to_vec();
    match position {
        None => head.push(u8::MAX),
        Some(position) => {
            head.push(position.as_bytes().len() as u8);
            head.extend_from_slice(position.as_bytes());
        }
    }
    head
}

fn read_head(bytes: &[u8]) -> Option<(u64, Option<Position>, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let number = u64::from_be_bytes(*number);
    if *length == u8::MAX {
        return Some((number, None, rest));
    }
    let (position, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((number, Some(Position::from_bytes(position)?), rest))
}
