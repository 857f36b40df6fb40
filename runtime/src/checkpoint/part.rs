//! What one subtask hands in for one epoch, and what an epoch is made of.

use serde::{Deserialize, Serialize};

use crate::id::{Attempt, Epoch, OperatorId, SubtaskId};
use crate::position::{Position, SplitId};
use crate::time::Timestamp;

/// Changed state entries of one operator in one subtask: one value, in chunks of about 1 MiB, not one put per key.
///
/// A chunk is a sequence of entries that are each whole within it; their form is [`crate::state::entry`]'s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Whose state.
    pub operator: OperatorId,
    /// The encoded entries. Absolute values, tombstones included; at most one entry per key in all chunks together.
    pub chunks: Vec<Vec<u8>>,
    /// How many entries.
    pub entries: u64,
}

/// Where one split of one source stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPosition {
    /// The source.
    pub operator: OperatorId,
    /// The split.
    pub split: SplitId,
    /// The end of the last batch that the source task put in front of the barrier.
    pub position: Position,
    /// Whether the split has ended there.
    pub ended: bool,
    /// The split's watermark there, one for each operator in the source's task that assigns event times, in their order;
    /// [`Timestamp::MIN`] where it is absent. The field itself is absent where nothing assigns them, and in older stores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<Timestamp>,
}

/// Output of one sink subtask in one epoch, in chunks of at most 1 MiB plus one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxPart {
    /// The sink.
    pub operator: OperatorId,
    /// The rows, framed by [`crate::rows::Rows`].
    pub chunks: Vec<Vec<u8>>,
    /// How many rows.
    pub rows: u64,
}

/// When a barrier came by a subtask. Not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarrierTimes {
    /// Its first input had it; in a source, its order was taken.
    pub came: Timestamp,
    /// All inputs had it, and what had changed was frozen.
    pub aligned: Timestamp,
    /// All that was frozen is encoded.
    pub encoded: Timestamp,
}

/// Everything one subtask contributes to one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The attempt whose subtask this is. A part of another attempt is dropped.
    pub attempt: Attempt,
    /// The epoch that the barrier closed.
    pub epoch: Epoch,
    /// Who.
    pub subtask: SubtaskId,
    /// Changed state.
    pub deltas: Vec<Delta>,
    /// Positions of the splits whose position changed; empty for tasks without a source.
    pub positions: Vec<SplitPosition>,
    /// Output for sinks that deliver after the commit.
    pub outbox: Vec<OutboxPart>,
    /// The watermark would rise with the next epoch, also if that has no records. Only said of micro-batches.
    pub wants_epoch: bool,
    /// When the first processing-time timer of the subtask is due.
    pub timer: Option<Timestamp>,
    /// When the barrier came by.
    pub times: BarrierTimes,
}

impl Part {
    /// Makes a part without content.
    pub fn new(attempt: Attempt, epoch: Epoch, subtask: SubtaskId) -> Self {
        Self {
            attempt,
            epoch,
            subtask,
            deltas: Vec::new(),
            positions: Vec::new(),
            outbox: Vec::new(),
            wants_epoch: false,
            timer: None,
            times: BarrierTimes::default(),
        }
    }

    /// Returns the bytes of deltas and output.
    pub fn bytes(&self) -> usize {
        self.bytes_by_operator().map(|(_, bytes)| bytes).sum()
    }

    /// Returns the bytes of each delta and output, with the operator whose they are.
    pub fn bytes_by_operator(&self) -> impl Iterator<Item = (OperatorId, usize)> {
        let deltas = self.deltas.iter().map(|delta| (delta.operator, &delta.chunks));
        let outbox = self.outbox.iter().map(|outbox| (outbox.operator, &outbox.chunks));
        deltas.chain(outbox).map(|(operator, chunks)| (operator, chunks.iter().map(Vec::len).sum()))
    }
}

/// How a job ended for good, if it did; stands in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Closing {
    /// All sources ended.
    Finished,
    /// `drain` ended the sources early.
    Drained,
}

/// One complete epoch: all parts of one attempt. The unit of commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochBundle {
    /// The attempt.
    pub attempt: Attempt,
    /// The epoch.
    pub epoch: Epoch,
    /// One part per subtask, ordered by subtask.
    pub parts: Vec<Part>,
    /// Set in the last epoch of a job that ended or was drained.
    pub closing: Option<Closing>,
}

/// What a sink has delivered outside: every row before epoch `next` is in, so its outbox rows may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The sink.
    pub operator: OperatorId,
    /// The first epoch that is not known to be delivered.
    pub next: Epoch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    /// The position as it was before watermarks were saved with it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct OldPosition {
        operator: OperatorId,
        split: SplitId,
        position: Position,
        ended: bool,
    }

    fn encoded(value: &impl Serialize) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode_into(value, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_position_without_watermarks_is_written_and_read_as_before_there_were_any() {
        let (operator, split) = (OperatorId::new(3), SplitId::new("a.txt"));
        let position = Position::from_u64(7);
        let old = OldPosition { operator, split: split.clone(), position: position.clone(), ended: true };
        let mut new = SplitPosition { operator, split, position, ended: true, watermarks: vec![] };
        assert_eq!(encoded(&new), encoded(&old));
        assert_eq!(codec::decode::<SplitPosition>(&encoded(&old)).unwrap(), new);
        new.watermarks = vec![Timestamp::MIN, Timestamp::from_millis(-5)];
        assert_eq!(codec::decode::<SplitPosition>(&encoded(&new)).unwrap(), new);
    }
}
