//! [`EpochPlan`]: what a micro-batch will be made of, written before any of its records is worked on.

use serde::{Deserialize, Serialize};

use super::frame::{self, FrameError};
use crate::codec::CodecError;
use crate::id::{Epoch, OperatorId};
use crate::position::{Position, SplitId};
use crate::time::Timestamp;

const MAGIC: [u8; 4] = *b"mPLN";

/// What one split gives to a micro-batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSplit {
    /// The source.
    pub operator: OperatorId,
    /// The split.
    pub split: SplitId,
    /// How many records, from where the split stood at the end of the epoch before.
    pub records: u64,
    /// The place behind the last of them.
    pub end: Position,
}

/// What a micro-batch is made of. It stands in the store from before its first record until its epoch is committed, so that a
/// batch that is done again is the same batch, at the same processing time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochPlan {
    /// The epoch.
    pub epoch: Epoch,
    /// The processing time in all of it.
    pub time: Timestamp,
    /// The splits that give records, or whose place moves.
    pub splits: Vec<PlannedSplit>,
}

impl EpochPlan {
    /// Returns the bytes that stand in the store.
    ///
    /// # Errors
    /// [`CodecError::Encode`], which no plan meets.
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

    #[test]
    fn reads_what_it_wrote_and_refuses_every_flipped_byte() {
        let split = PlannedSplit {
            operator: OperatorId::new(3),
            split: SplitId::new("a.txt"),
            records: 20,
            end: Position::from_u64(812),
        };
        let plan = EpochPlan { epoch: Epoch::new(7), time: Timestamp::from_millis(5), splits: vec![split] };
        let bytes = plan.to_bytes().unwrap();
        assert_eq!(EpochPlan::from_bytes(&bytes).unwrap(), plan);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(EpochPlan::from_bytes(&flipped).unwrap_err().is_corruption(), "byte {at}");
        }
    }
}
