//! Where everything stands in a store. On disk: may only change with the format number.
//!
//! ```text
//! meta    m                                                   manifest
//!         a                                                   attempt number
//!         n                                                   plan of the next epoch, if it is a micro-batch that has begun
//!         p [operator u32][split]                             position of a split
//! log     [epoch u64][operator u32][task u16][index u16][chunk u32]        delta
//!         [epoch u64][ff ff ff ff  ff ff ff ff  ff ff ff ff]               index record, behind the epoch's deltas
//! rows    [operator u32][state u16]                           sentinel of a state, before its rows
//!         [operator u32][entry key]                           row
//! outbox  [operator u32][epoch u64][task u16][index u16][chunk u32]        rows of a sink
//! ```

use crate::id::{Epoch, OperatorId, SubtaskId};
use crate::position::SplitId;

/// The manifest's key.
pub(crate) const MANIFEST: &[u8] = b"m";
/// The attempt number's key.
pub(crate) const ATTEMPT: &[u8] = b"a";
/// The key of the next epoch's plan.
pub(crate) const PLAN: &[u8] = b"n";
/// Keys of positions are behind this one and before [`POSITIONS_END`].
pub(crate) const POSITIONS: &[u8] = b"p";
/// The first key behind all positions.
pub(crate) const POSITIONS_END: &[u8] = b"q";

/// Returns the key of a split's position.
pub(crate) fn position(operator: OperatorId, split: &SplitId) -> Vec<u8> {
    let mut key = POSITIONS.to_vec();
    key.extend_from_slice(&operator.number().to_be_bytes());
    key.extend_from_slice(split.as_str().as_bytes());
    key
}

/// Returns the first key that an epoch may have in the log.
pub(crate) fn log_epoch(epoch: Epoch) -> Vec<u8> {
    epoch.number().to_be_bytes().to_vec()
}

/// Returns the key of one chunk of a delta.
pub(crate) fn delta(epoch: Epoch, operator: OperatorId, subtask: SubtaskId, chunk: u32) -> Vec<u8> {
    let mut key = log_epoch(epoch);
    key.extend_from_slice(&operator.number().to_be_bytes());
    extend_chunk(&mut key, subtask, chunk);
    key
}

/// Returns the key of an epoch's index record.
pub(crate) fn index(epoch: Epoch) -> Vec<u8> {
    let mut key = log_epoch(epoch);
    key.extend_from_slice(&[0xFF; 12]);
    key
}

/// Says whether a key of the log is an index record's.
pub(crate) fn is_index(key: &[u8]) -> bool {
    key.ends_with(&[0xFF; 12])
}

/// Returns the key of one chunk of a sink's output.
pub(crate) fn outbox(operator: OperatorId, epoch: Epoch, subtask: SubtaskId, chunk: u32) -> Vec<u8> {
    let mut key = operator.number().to_be_bytes().to_vec();
    key.extend_from_slice(&epoch.number().to_be_bytes());
    extend_chunk(&mut key, subtask, chunk);
    key
}

fn extend_chunk(key: &mut Vec<u8>, subtask: SubtaskId, chunk: u32) {
    key.extend_from_slice(&subtask.task.number().to_be_bytes());
    key.extend_from_slice(&subtask.index.to_be_bytes());
    key.extend_from_slice(&chunk.to_be_bytes());
}

/// Returns the key of a state's sentinel: shorter than any row's key and before all of them.
pub(crate) fn sentinel(operator: OperatorId, state: u16) -> Vec<u8> {
    let mut key = operator.number().to_be_bytes().to_vec();
    key.extend_from_slice(&state.to_be_bytes());
    key
}

/// Takes a row's key apart into operator and entry key; nothing for a sentinel or a damaged key.
pub(crate) fn parse_row(key: &[u8]) -> Option<(OperatorId, &[u8])> {
    let (operator, entry_key) = key.split_first_chunk::<4>()?;
    Some((OperatorId::new(u32::from_be_bytes(*operator)), entry_key))
}

/// Says whether the key in the rows is a sentinel's.
pub(crate) const fn is_sentinel(key: &[u8]) -> bool {
    key.len() == 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_index_record_stands_behind_all_its_deltas_and_before_the_next_epoch() {
        let epoch = Epoch::new(7);
        let last = SubtaskId { task: crate::id::TaskId::new(u16::MAX), index: u16::MAX };
        let delta = delta(epoch, OperatorId::new(u32::MAX - 1), last, u32::MAX);
        assert!(log_epoch(epoch) < delta && delta < index(epoch) && index(epoch) < log_epoch(epoch.next()));
    }

    #[test]
    fn a_sentinel_stands_before_the_rows_of_its_state() {
        let (operator, state) = (OperatorId::new(1), 2u16);
        let mut entry = Vec::new();
        crate::state::entry::append(&mut entry, state, 0, |_| (), |_| (), None::<fn(&mut Vec<u8>) -> Result<(), ()>>)
            .unwrap();
        let entry = crate::state::entry::entries(&entry).next().unwrap();
        let row = crate::state::entry::row_key(operator, entry.key);
        assert!(sentinel(operator, state) < row && row < sentinel(operator, state + 1));
        assert!(is_sentinel(&sentinel(operator, state)) && !is_sentinel(&row));
        assert_eq!(parse_row(&row), Some((operator, entry.key)));
    }
}
