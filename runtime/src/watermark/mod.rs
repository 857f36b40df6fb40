//! Event time: what a watermark of several inputs is. Pure.

mod coalescer;
mod threshold;

pub use self::coalescer::{Coalescer, Progress};
pub use self::threshold::{Run, Thresholds};
