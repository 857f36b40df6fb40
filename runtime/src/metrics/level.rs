//! How much is counted.

use serde::{Deserialize, Serialize};

/// How much a runtime counts of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricsLevel {
    /// Nothing per frame: only what a job does as a whole, its state, restarts and checkpoints, and how full its channels are.
    Off,
    /// Besides: records, frames, time and latency of operators.
    #[default]
    Info,
    /// Besides: how long user code takes per record, and how long frames wait in channels. Two readings of the clock more per
    /// frame and operator, and two per frame and channel.
    Debug,
}
