//! [`Manifest`]: what a store says about itself. Rewritten by every commit, in the epoch's own batch.

use serde::{Deserialize, Serialize};

use super::frame::{self, FrameError};
use super::names::NameTable;
use super::part::Closing;
use crate::codec::CodecError;
use crate::id::{Epoch, OperatorId, ShardId, SubtaskId};

const MAGIC: [u8; 4] = *b"mMAN";

/// Count, size and checksum of the chunks of one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunks {
    /// How many.
    pub count: u32,
    /// Bytes in all of them.
    pub bytes: u64,
    /// CRC-32 over length and bytes of each.
    pub crc: u32,
}

impl Chunks {
    /// Describes these chunks.
    pub fn of(chunks: &[impl AsRef<[u8]>]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        let mut bytes = 0;
        for chunk in chunks.iter().map(AsRef::as_ref) {
            let length = chunk.len() as u64;
            bytes += length;
            hasher.update(&length.to_be_bytes());
            hasher.update(chunk);
        }
        Self { count: u32::try_from(chunks.len()).unwrap_or(u32::MAX), bytes, crc: hasher.finalize() }
    }
}

/// Output of one sink subtask in one epoch that is committed and not known to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRef {
    /// The sink.
    pub operator: OperatorId,
    /// The epoch.
    pub epoch: Epoch,
    /// Who handed it in.
    pub subtask: SubtaskId,
    /// How many rows.
    pub rows: u64,
    /// Their chunks.
    pub chunks: Chunks,
}

/// A state of an operator that has rows: a sentinel row with the same epoch stands among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoldedState {
    /// The operator.
    pub operator: OperatorId,
    /// The state's number.
    pub state: u16,
    /// The `folded_through` of the last fold that touched it.
    pub epoch: Epoch,
}

/// Count and checksum of all position rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionRows {
    /// How many.
    pub count: u64,
    /// Exclusive or of their checksums, so that a row of an older epoch is noticed.
    pub crc: u32,
}

/// What a store says about itself as of its last committed epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The pipeline whose store this is.
    pub pipeline: String,
    /// The copy of the daemon.
    pub shard: ShardId,
    /// Key groups, fixed when the store was made.
    pub key_groups: u16,
    /// The last committed epoch.
    pub epoch: Epoch,
    /// Deltas up to this epoch are in the rows; later ones, up to `epoch`, stand in the log.
    pub folded_through: Epoch,
    /// How the job ended for good, if it did.
    pub closing: Option<Closing>,
    /// Numbers of operators and states.
    pub names: NameTable,
    /// Checksum of the index record of `folded_through`, which is gone: the log's first record names it as its predecessor.
    pub log_base: u32,
    /// Checksum of the index record of `epoch`.
    pub log_head: u32,
    /// The position rows.
    pub positions: PositionRows,
    /// The states that have rows.
    pub folded: Vec<FoldedState>,
    /// Output that waits for its delivery, by epoch.
    pub outbox: Vec<OutboxRef>,
}

impl Manifest {
    /// Describes a new store.
    pub fn genesis(pipeline: impl Into<String>, shard: ShardId, key_groups: u16) -> Self {
        Self {
            pipeline: pipeline.into(),
            shard,
            key_groups,
            epoch: Epoch::GENESIS,
            folded_through: Epoch::GENESIS,
            closing: None,
            names: NameTable::default(),
            log_base: 0,
            log_head: 0,
            positions: PositionRows::default(),
            folded: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// Returns the bytes that stand in the store.
    ///
    /// # Errors
    /// [`CodecError::Encode`], which no manifest meets.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CodecError> {
        Ok(frame::write(MAGIC, self)?.0)
    }

    /// Reads the bytes that stand in the store.
    ///
    /// # Errors
    /// [`FrameError`] when they are damaged or of a newer format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrameError> {
        Ok(frame::read(MAGIC, bytes)?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let chunks = Chunks::of(&[b"ab".to_vec(), b"c".to_vec()]);
        let operator = OperatorId::new(3);
        Manifest {
            epoch: Epoch::new(41),
            closing: Some(Closing::Drained),
            folded: vec![FoldedState { operator, state: 1, epoch: Epoch::new(40) }],
            outbox: vec![OutboxRef { operator, epoch: Epoch::new(41), subtask: SubtaskId::default(), rows: 2, chunks }],
            ..Manifest::genesis("sensors", ShardId::new(1), 960)
        }
    }

    #[test]
    fn reads_what_it_wrote_and_refuses_every_flipped_byte() {
        let bytes = manifest().to_bytes().unwrap();
        assert_eq!(Manifest::from_bytes(&bytes).unwrap(), manifest());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(Manifest::from_bytes(&flipped).unwrap_err().is_corruption(), "byte {at}");
            assert!(Manifest::from_bytes(&bytes[..at]).unwrap_err().is_corruption(), "cut at {at}");
        }
    }

    #[test]
    fn chunks_cut_elsewhere_are_other_chunks() {
        let one = Chunks::of(&[b"ab".to_vec(), b"c".to_vec()]);
        let other = Chunks::of(&[b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!((one.count, one.bytes), (other.count, other.bytes));
        assert_ne!(one.crc, other.crc);
    }
}
