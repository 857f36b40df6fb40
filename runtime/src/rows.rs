//! Rows of one sink and epoch, framed in chunks.

use std::sync::Arc;

use crate::id::Epoch;

/// A chunk is closed when it has reached this size.
const CHUNK_BYTES: usize = 1 << 20;

/// One row of committed output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// Its place in the epoch, from 0.
    pub seq: u32,
    /// Its bytes, as the encoder wrote them.
    pub bytes: &'a [u8],
}

/// Collects rows into chunks: each row is a big-endian `u32` length and its bytes, whole within one chunk.
#[derive(Clone, Debug, Default)]
pub struct RowsBuilder {
    chunks: Vec<Vec<u8>>,
    rows: u64,
}

impl RowsBuilder {
    /// Appends one row that `write` puts down. On an error nothing is appended.
    ///
    /// # Errors
    /// What `write` returns.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
            self.chunks.push(Vec::new());
        }
        let Some(chunk) = self.chunks.last_mut() else { return Ok(()) };
        let start = chunk.len();
        chunk.extend_from_slice(&[0; 4]);
        if let Err(error) = write(chunk) {
            chunk.truncate(start);
            return Err(error);
        }
        let length = u32::try_from(chunk.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(slot) = chunk.get_mut(start..start + 4) {
            slot.copy_from_slice(&length.to_be_bytes());
        }
        self.rows += 1;
        Ok(())
    }

    /// How many rows there are.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Hands out the chunks and starts anew.
    pub fn take(&mut self) -> (Vec<Vec<u8>>, u64) {
        (std::mem::take(&mut self.chunks), std::mem::take(&mut self.rows))
    }
}

/// All rows of one sink and epoch, in the order of (subtask, chunk). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rows {
    epoch: Epoch,
    chunks: Arc<[Vec<u8>]>,
    bytes: usize,
}

impl Rows {
    /// Wraps the chunks of one epoch.
    pub fn new(epoch: Epoch, chunks: impl Into<Arc<[Vec<u8>]>>) -> Self {
        let chunks = chunks.into();
        let bytes = chunks.iter().map(Vec::len).sum();
        Self { epoch, chunks, bytes }
    }

    /// The epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bytes with framing.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let epoch = self.epoch;
        self.chunks.iter().flat_map(|chunk| Framed(chunk)).zip(0u32..).map(move |(bytes, seq)| Row {
            epoch,
            seq,
            bytes,
        })
    }
}

struct Framed<'a>(&'a [u8]);

impl<'a> Iterator for Framed<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (row, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.0 = rest;
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_rows_whole_and_in_order_over_chunks() {
        let mut builder = RowsBuilder::default();
        let rows: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; 400_000]).collect();
        for row in &rows {
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(row);
                Ok::<_, ()>(())
            };
            builder.push(write).unwrap();
        }
        assert_eq!(builder.push(|_| Err("no")), Err("no"));
        let (chunks, count) = builder.take();
        assert_eq!((chunks.len(), count), (2, 5));
        let all = Rows::new(Epoch::new(3), chunks);
        let read: Vec<_> = all.iter().map(|row| (row.seq, row.bytes.to_vec())).collect();
        assert_eq!(read, (0u32..).zip(rows).collect::<Vec<_>>());
    }
}
