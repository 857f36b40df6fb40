//! Numbers dealt out to splits: split *i* of *n* has *i*, *i + n*, *i + 2n* …

use millstream_runtime::source::SplitId;

/// Each split has a reader and a position in every epoch in which it moves.
const MOST_SPLITS: u32 = 65_536;

/// A number of splits that no source can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("splits is {splits}; it must be 1 to {MOST_SPLITS}")]
pub(crate) struct SplitsError {
    splits: u32,
}

/// Names the splits. The number of splits is part of each name: another number makes other splits.
pub(crate) fn splits(count: u32) -> Result<Vec<SplitId>, SplitsError> {
    match count {
        1..=MOST_SPLITS => Ok((0..count).map(|split| SplitId::new(format!("{split}/{count}"))).collect()),
        splits => Err(SplitsError { splits }),
    }
}

/// Returns the first number of a split, or nothing if it is none of `count` splits.
pub(crate) fn first(split: &SplitId, count: u32) -> Option<u64> {
    let (first, of) = split.as_str().split_once('/')?;
    let first = first.parse().ok().filter(|first| *first < u64::from(count))?;
    (of.parse() == Ok(count)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own_splits_and_no_others() {
        let firsts: Vec<_> = splits(3).unwrap().iter().map(|split| first(split, 3)).collect();
        assert_eq!(firsts, [Some(0), Some(1), Some(2)]);
        for split in ["0/2", "3/3", "x/3", "0", "-1/3"] {
            assert_eq!(first(&SplitId::new(split), 3), None, "{split}");
        }
    }

    #[test]
    fn refuses_no_splits_and_more_than_there_is_memory_for() {
        assert_eq!(splits(0).unwrap_err().to_string(), "splits is 0; it must be 1 to 65536");
        assert_eq!(splits(65_536).unwrap().len(), 65_536);
        assert!(splits(65_537).is_err() && splits(u32::MAX).is_err());
    }
}
