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
}
