//! Rows of a time and a rising number, as Spark's `rate` and `rate-micro-batch` make them: for tests, demos and load.

mod error;
mod micro_batch;
mod schedule;
mod source;

use millstream_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::error::RateError;
pub use self::micro_batch::RateMicroBatch;
pub use self::source::RateSource;

/// What both make. The record's event time is its `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RateRow {
    /// When the row was due.
    pub timestamp: Timestamp,
    /// 0, 1, 2 …, without a gap, over all splits together.
    pub value: u64,
}
