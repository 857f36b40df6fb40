//! Numbers dealt out to splits: split *i* of *n* has *i*, *i + n*, *i + 2n* …

use millstream_runtime::source::SplitId;

/// Names the splits. The number of splits is part of each name: another number makes other splits.
pub(crate) fn splits(count: u32) -> Vec<SplitId> {
    (0..count).map(|split| SplitId::new(format!("{split}/{count}"))).collect()
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
        let firsts: Vec<_> = splits(3).iter().map(|split| first(split, 3)).collect();
        assert_eq!(firsts, [Some(0), Some(1), Some(2)]);
        for split in ["0/2", "3/3", "x/3", "0", "-1/3"] {
            assert_eq!(first(&SplitId::new(split), 3), None, "{split}");
        }
    }
}
