//! The memory that all states of a job share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The share of a budget that is kept free for records on their way.
const ROOM_SHARE: u64 = 16;
/// The share of a budget that one epoch may change: it is encoded, waits, and is copied when it is written.
const EPOCH_SHARE: u64 = 16;
/// What an entry is taken to need as long as there is none.
const UNKNOWN_ENTRY: u64 = 1 << 10;
/// What an epoch may change whatever the budget.
const LEAST_EPOCH: u64 = 64 << 10;

/// How much memory a job's state may take. Cheap to clone; clones are the same budget.
///
/// Every table says now and then how much it takes. As long as all of them together are within the limit a table may take
/// what it likes; a little below it each begins to give back what it has beyond its even share, and at it the sources are held
/// back, until enough is written that something can be given back.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    limit: AtomicU64,
    used: AtomicU64,
    /// Of it, what changed in open epochs.
    dirty: AtomicU64,
    tables: AtomicU64,
    /// What an entry takes, summed up over the tables: no record takes more than one entry of each, most of them.
    entries: AtomicU64,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").field("limit", &self.limit()).field("used", &self.used()).finish()
    }
}

impl Default for MemoryBudget {
    /// Without a limit.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl MemoryBudget {
    /// Makes a budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        let (limit, [used, dirty, tables, entries]) = (AtomicU64::new(limit), [0; 4].map(AtomicU64::new));
        Self { shared: Arc::new(Shared { limit, used, dirty, tables, entries }) }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit, at any moment: what is too much goes as frames come in, what there is room for is read ahead.
    pub fn set_limit(&self, limit: u64) {
        self.shared.limit.store(limit, Ordering::Relaxed);
    }

    /// Says whether more is taken than may be.
    pub fn is_full(&self) -> bool {
        self.used() > self.limit()
    }

    /// What one epoch may change, in bytes as they are written.
    fn epoch(&self) -> u64 {
        (self.limit() / EPOCH_SHARE).max(LEAST_EPOCH)
    }

    fn dirty(&self) -> u64 {
        self.shared.dirty.load(Ordering::Relaxed)
    }

    /// Says whether no records should come in for the time being: too much is taken, or the open epoch was asked to be closed at half
    /// of what it has changed by now.
    pub fn is_closed(&self) -> bool {
        self.is_full() || self.dirty() > self.epoch().saturating_mul(2)
    }

    /// How many records may wait in front of each subtask, if each of them becomes an entry of every state: those that are on their
    /// way when the sources are held back, or when the open epoch should be closed, still come.
    pub(crate) fn room_for_records(&self) -> u64 {
        let known = self.shared.entries.load(Ordering::Relaxed);
        (self.limit() / ROOM_SHARE) / if known == 0 { UNKNOWN_ENTRY } else { known }
    }

    /// Above so much tables give back: what is on its way to them has to find room.
    fn target(&self) -> u64 {
        let limit = self.limit();
        limit - limit / ROOM_SHARE
    }

    /// Bytes that all tables said they take; an estimate.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Adds a table, which takes nothing yet.
    pub(crate) fn join(&self) -> BudgetShare {
        self.shared.tables.fetch_add(1, Ordering::Relaxed);
        BudgetShare { budget: self.clone(), taken: Taken::default() }
    }
}

/// What a table takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// All of it.
    pub(crate) bytes: u64,
    /// What changed in the open epoch.
    pub(crate) dirty: u64,
    /// One entry, on average; 0 where there is none.
    pub(crate) entry: u64,
}

/// One table's part of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: MemoryBudget,
    taken: Taken,
}

impl BudgetShare {
    /// Says how much the table takes now.
    pub(crate) fn report(&mut self, now: Taken) {
        let before = std::mem::replace(&mut self.taken, now);
        if before == now {
            return;
        }
        let Shared { used, dirty, entries, .. } = &*self.budget.shared;
        // Wraps where it sinks, and back.
        used.fetch_add(now.bytes.wrapping_sub(before.bytes), Ordering::Relaxed);
        dirty.fetch_add(now.dirty.wrapping_sub(before.dirty), Ordering::Relaxed);
        entries.fetch_add(now.entry.wrapping_sub(before.entry), Ordering::Relaxed);
    }

    /// Says whether so much is taken that no records come in.
    pub(crate) fn is_full(&self) -> bool {
        self.budget.is_full()
    }

    /// Says whether the open epoch has changed all that one may, so that it should be closed.
    pub(crate) fn is_epoch_full(&self) -> bool {
        self.budget.dirty() > self.budget.epoch()
    }

    /// The limit of the whole budget in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// How many bytes the table has to give back.
    pub(crate) fn excess(&self) -> u64 {
        let target = self.budget.target();
        let over = self.budget.used().saturating_sub(target);
        let even = target / self.budget.shared.tables.load(Ordering::Relaxed).max(1);
        over.min(self.taken.bytes.saturating_sub(even))
    }

    /// Says whether rows that nobody has asked for may be read in: an eighth of the budget is left for what is.
    pub(crate) fn has_room(&self) -> bool {
        self.budget.used() < self.budget.limit() / 8 * 7
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.report(Taken::default());
        self.budget.shared.tables.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bytes: u64, dirty: u64) -> Taken {
        Taken { bytes, dirty, entry: 0 }
    }

    #[test]
    fn above_the_limit_each_gives_back_what_it_has_beyond_its_even_share() {
        let budget = MemoryBudget::new(100);
        let (mut small, mut large) = (budget.join(), budget.join());
        small.report(taken(30, 0));
        large.report(taken(60, 0));
        assert_eq!((small.excess(), large.excess()), (0, 0));
        assert!(!small.has_room());
        assert!(!budget.is_full());
        large.report(taken(90, 0));
        assert_eq!((small.excess(), large.excess()), (0, 26), "94 is to be taken, an even share is 47");
        assert!(budget.is_full());
        small.report(taken(60, 0));
        assert_eq!((small.excess(), large.excess()), (13, 43));
        drop(large);
        assert_eq!((budget.used(), small.excess()), (60, 0));
    }

    #[test]
    fn an_epoch_is_full_at_its_share() {
        let budget = MemoryBudget::new(16 << 20);
        let (mut one, mut two) = (budget.join(), budget.join());
        one.report(taken(8 << 20, 1 << 20));
        assert!(!two.is_epoch_full());
        two.report(taken(1, 1));
        assert!(one.is_epoch_full() && !budget.is_closed());
        two.report(taken(1, (1 << 20) + 1));
        assert!(budget.is_closed() && !budget.is_full(), "nobody has closed it for as much again");
        one.report(taken(8 << 20, 0));
        two.report(taken(1, 0));
        assert!(!one.is_epoch_full() && !budget.is_closed());
        drop(two);
        assert_eq!(budget.used(), 8 << 20);
    }

    #[test]
    fn what_is_on_its_way_has_room_by_the_size_of_entries() {
        let budget = MemoryBudget::new(16 << 20);
        assert_eq!(budget.room_for_records(), 1 << 10, "of a kibibyte, as long as nothing is known");
        let (mut one, mut two) = (budget.join(), budget.join());
        one.report(Taken { bytes: 8 << 10, dirty: 0, entry: 24 });
        two.report(Taken { bytes: 0, dirty: 0, entry: 8 });
        assert_eq!(budget.room_for_records(), (1 << 20) / 32);
        drop((one, two));
        assert_eq!(budget.room_for_records(), 1 << 10);
    }
}
