//! Stateful processors: variables and timers per key, as Spark's `transformWithState` has them.

mod error;
mod handle;
mod logic;
mod processor;
mod stream;
mod variables;

pub use self::error::TransformError;
pub use self::handle::{TimeMode, TimerValues, TransformContext, VariableHandle};
pub use self::processor::{InitialStateProcessor, StatefulProcessor};
pub use self::variables::{ListState, MapState, ValueState};

#[cfg(test)]
mod tests;
