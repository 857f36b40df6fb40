//! Event time: what a watermark of several inputs is. Pure.

mod coalescer;

pub use self::coalescer::{Coalescer, Progress};
