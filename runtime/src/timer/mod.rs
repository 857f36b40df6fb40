//! Timers: which are due, in which order. Pure.
//!
//! A key may have any number of timers, each at most once per time and clock. They fire in ascending order of time when event
//! time has come to them (watermark ≥ time) or processing time has (now ≥ time): inclusive, as in Spark's `transformWithState` and
//! in Flink. The queue only remembers an order. What a key has registered is state, and state decides.

mod queue;

pub use self::queue::{Due, TimerKind, TimerQueue};
