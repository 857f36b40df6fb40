//! State of the user's own per group, as Spark Structured Streaming has it: a function, a state, one timeout.
//!
//! Runs on the engine of `process`: a timeout is a timer, and its state a value. What is different is in front of it: a
//! function is called with *rows of one key*, which [`gather`] puts together.

mod arrival;
mod error;
mod gather;
mod logic;
mod null;
mod rows;
mod state;
mod stream;
mod transform;

pub use self::error::GroupError;
pub use self::rows::{GroupOut, Rows};
pub use self::state::{GroupState, GroupTimeout};
pub use self::stream::WithInitialState;
pub use self::transform::{
    InitialStateProcessor, ListState, MapState, StatefulProcessor, TimeMode, TimerValues, TransformContext,
    TransformError, ValueState, VariableHandle,
};

#[cfg(test)]
mod tests;
