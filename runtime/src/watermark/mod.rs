//! Event time: what the watermark of one split is, and what that of several inputs is. Pure.
//!
//! Watermark *t* promises that no record with a time ≤ *t* follows; watermarks are whole milliseconds. [`Timestamp::MIN`] stands
//! for *absent*: nothing was promised yet, and nothing is late. [`Timestamp::MAX`] is the **final** watermark: nothing follows at all.
//! Between the two it may be negative: there are data from before 1970.
//!
//! [`Timestamp::MIN`]: crate::time::Timestamp::MIN
//! [`Timestamp::MAX`]: crate::time::Timestamp::MAX

mod coalescer;
mod strategy;
mod threshold;

pub use self::coalescer::{Coalescer, Progress, Steps};
pub use self::strategy::{Pull, WatermarkStrategy};
pub use self::threshold::{Run, Thresholds};
