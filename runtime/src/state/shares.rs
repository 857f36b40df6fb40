//! What the memory of a job's state is shared out to.

/// How many bytes of `state_memory` each of those may take that hold state; what is not said by an option of its own follows from here.
///
/// ```text
/// 1/2   tables: resident keys, changed and frozen ones among them
/// 1/4   store: RocksDB's block cache, with indexes, filters and memtables charged to it
/// 1/8   folding: the part of the log that is being folded, at most twice `fold`
/// 1/8   waiting: complete epochs that wait for the disk or are being written
/// ```
/// That is all of it. Of their part tables leave a sixteenth free, for the records that are on their way when the sources are held back:
/// no more of them wait in front of a table than that has room for once they are entries. What comes on top does not grow with the
/// state: the channels themselves, two pieces of an epoch that is being written
/// ([`LogLimits::batch_bytes`](crate::state::log::LogLimits::batch_bytes)), 13 bytes for each entry that is being folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryShares {
    /// Live tables.
    pub tables: u64,
    /// The store's own caches and buffers.
    pub store: u64,
    /// The log is folded at this size.
    pub fold: u64,
    /// Changed state that is not in the rows: it lies in the tables until then, and in the log, which a start reads whole.
    pub unfolded: u64,
    /// Complete epochs that wait for the committer.
    pub waiting: u64,
    /// Complete epochs in one commit.
    pub commit: u64,
}

impl MemoryShares {
    /// Shares out `state_memory`; each gets at least a byte.
    pub const fn of(state_memory: u64) -> Self {
        const fn share(of: u64, parts: u64) -> u64 {
            let share = of / parts;
            if share == 0 { 1 } else { share }
        }
        Self {
            tables: share(state_memory, 2),
            store: share(state_memory, 4),
            fold: share(state_memory, 16),
            unfolded: share(state_memory, 4),
            waiting: share(state_memory, 8),
            commit: share(state_memory, 32),
        }
    }
}

impl Default for MemoryShares {
    /// Of 1 GiB.
    fn default() -> Self {
        Self::of(1 << 30)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_no_more_than_there_is() {
        for memory in [1 << 20, (256 << 20) + 7, 1 << 30, 1 << 44] {
            let MemoryShares { tables, store, fold, unfolded, waiting, commit } = MemoryShares::of(memory);
            // Entries that are not folded are in the tables, and take more there than in the log.
            assert!(unfolded * 2 <= tables && commit <= waiting && fold * 2 <= unfolded, "{memory}");
            assert!(tables + store + 2 * fold + waiting <= memory, "{memory}");
            assert!(memory - (tables + store + 2 * fold + waiting) < 32, "all of {memory} is given away");
        }
        assert!(MemoryShares::of(1).commit > 0);
    }
}
