//! The mark that closes an epoch.

use crate::id::{Epoch, ExecutionMode};

/// Closes an epoch on one channel: every record before it belongs to the epoch, every record after it to a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The epoch it closes.
    pub epoch: Epoch,
    /// How the next epoch runs.
    pub next_mode: ExecutionMode,
    /// Whether only the end follows: the attempt closes its last epoch.
    pub last: bool,
    /// Whether records came before it in its epoch: of any source in front of the channel, or made on the way. All channels that leave
    /// one operator say the same, so that its successors agree on whether a complete result is due.
    pub had_data: bool,
}

impl Barrier {
    /// Makes the one barrier of those that two inputs sent for the same epoch.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Self { had_data: self.had_data || other.had_data, ..self }
    }
}
