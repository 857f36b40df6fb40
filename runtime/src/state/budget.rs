//! The memory that all states of a job share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much memory a job's state may take. Cheap to clone; clones are the same budget.
///
/// Every table says now and then how much it takes. As long as all of them together are within the limit a table may take
/// what it likes; above it each gives back what it has beyond its even share.
#[derive(Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

struct Shared {
    limit: AtomicU64,
    used: AtomicU64,
    tables: AtomicU64,
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
        let (limit, used, tables) = (AtomicU64::new(limit), AtomicU64::new(0), AtomicU64::new(0));
        Self { shared: Arc::new(Shared { limit, used, tables }) }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit, at any moment: what is too much goes as frames come in, what there is room for is read ahead.
    pub fn set_limit(&self, limit: u64) {
        self.shared.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes that all tables said they take; an estimate.
    pub fn used(&self) -> u64 {
        self.shared.used.load(Ordering::Relaxed)
    }

    /// Adds a table, which takes nothing yet.
    pub(crate) fn join(&self) -> BudgetShare {
        self.shared.tables.fetch_add(1, Ordering::Relaxed);
        BudgetShare { budget: self.clone(), taken: 0 }
    }
}

/// One table's part of a budget; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: MemoryBudget,
    taken: u64,
}

impl BudgetShare {
    /// Says how much the table takes now.
    pub(crate) fn report(&mut self, bytes: u64) {
        let used = &self.budget.shared.used;
        if bytes >= self.taken {
            used.fetch_add(bytes - self.taken, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.taken - bytes, Ordering::Relaxed);
        }
        self.taken = bytes;
    }

    /// The limit of the whole budget in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// How many bytes the table has to give back.
    pub(crate) fn excess(&self) -> u64 {
        let Shared { used, tables, .. } = &*self.budget.shared;
        let limit = self.limit();
        let over = used.load(Ordering::Relaxed).saturating_sub(limit);
        let even = limit / tables.load(Ordering::Relaxed).max(1);
        over.min(self.taken.saturating_sub(even))
    }

    /// Says whether rows that nobody has asked for may be read in: an eighth of the budget is left for what is.
    pub(crate) fn has_room(&self) -> bool {
        self.budget.used() < self.budget.limit() / 8 * 7
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.report(0);
        self.budget.shared.tables.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_limit_each_gives_back_what_it_has_beyond_its_even_share() {
        let budget = MemoryBudget::new(100);
        let (mut small, mut large) = (budget.join(), budget.join());
        small.report(30);
        large.report(70);
        assert_eq!((small.excess(), large.excess()), (0, 0));
        assert!(!small.has_room());
        large.report(90);
        assert_eq!((small.excess(), large.excess()), (0, 20));
        small.report(60);
        assert_eq!((small.excess(), large.excess()), (10, 40));
        drop(large);
        assert_eq!((budget.used(), small.excess()), (60, 0));
    }
}
