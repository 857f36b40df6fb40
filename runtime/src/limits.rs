//! How much of a source a micro-batch takes.

/// Most of a source in one micro-batch. It is shared out to the source's splits; each subtask that reads any takes at least one batch of
/// a reader. In continuous mode nothing is limited, and [`Trigger::Once`](crate::trigger::Trigger::Once) takes everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochLimits {
    /// Records, at least 1. Default 262,144: they are all in memory.
    pub records: u64,
    /// Files, at least 1; none without a limit. A micro-batch takes whole files then, and waits for the end of the first one, unless the
    /// limit in records is reached before: a source that has this limit has to say in its batches which files end in them. Not together
    /// with `bytes`. Default: no limit.
    pub files: Option<u64>,
    /// Bytes that the records were read from, at least 1; none without a limit. Default: no limit.
    pub bytes: Option<u64>,
}

impl Default for EpochLimits {
    fn default() -> Self {
        Self { records: 262_144, files: None, bytes: None }
    }
}

impl EpochLimits {
    /// Nothing but what memory sets a limit to.
    pub(crate) const NONE: Self = Self { records: u64::MAX, files: None, bytes: None };

    /// The limits of a subtask that reads so many of all splits.
    pub(crate) fn share(self, splits: usize, all: usize) -> Self {
        // By splits: a subtask that has none takes none.
        let of = |limit: u64| {
            let share = (u128::from(limit) * splits as u128).div_ceil(all.max(1) as u128);
            u64::try_from(share).unwrap_or(u64::MAX).max(1)
        };
        Self { records: of(self.records), files: self.files.map(of), bytes: self.bytes.map(of) }
    }
}
