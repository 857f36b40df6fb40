//! Sources with one split, whose position counts what was taken.

use millstream_runtime::source::{Position, SplitId};

/// The name of the only split.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnlySplit(pub(crate) &'static str);

impl OnlySplit {
    /// Returns all splits there are.
    pub(crate) fn list(self) -> Vec<SplitId> {
        vec![SplitId::new(self.0)]
    }

    /// Returns where to begin to count; nothing if split or position were made by another kind of source.
    pub(crate) fn start(self, split: &SplitId, from: Option<&Position>) -> Option<u64> {
        from.map_or(Some(0), Position::as_u64).filter(|_| split.as_str() == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_0_or_where_it_was_and_nowhere_else() {
        let only = OnlySplit("only");
        let [split] = &only.list()[..] else { panic!("one") };
        assert_eq!(only.start(split, None), Some(0));
        assert_eq!(only.start(split, Some(&Position::from_u64(7))), Some(7));
        assert_eq!(only.start(split, Some(&Position::from_bytes(vec![7]).unwrap())), None);
        assert_eq!(only.start(&SplitId::new("other"), None), None);
    }
}
