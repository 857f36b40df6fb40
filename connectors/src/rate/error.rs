//! What is wrong with the options, or with what was saved.

use millstream_runtime::source::{Position, SplitId};

/// A rate source cannot start, or not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// An option is zero that must not be.
    #[error("{option} is 0, so no row would ever come; give at least 1")]
    Zero {
        /// The option.
        option: &'static str,
    },
    /// The saved split or position was made with another number of splits, or by another kind of source.
    #[error(
        "cannot go on in split {split} at {position}: it is none of this source with {splits} splits; give it the \
         number of splits it had, or a new name"
    )]
    Foreign {
        /// The split.
        split: String,
        /// The position.
        position: String,
        /// How many splits there are.
        splits: u32,
    },
}

impl RateError {
    pub(super) fn foreign(split: &SplitId, position: Option<&Position>, splits: u32) -> Self {
        let position = position.map_or_else(|| "its beginning".to_owned(), Position::to_string);
        Self::Foreign { split: split.to_string(), position, splits }
    }
}

/// Refuses an option that is zero.
pub(super) fn at_least_one(option: &'static str, value: u64) -> Result<(), RateError> {
    if value == 0 { Err(RateError::Zero { option }) } else { Ok(()) }
}
