//! What pipelines are written with: [`Pipeline`], [`Stream`], [`KeyedStream`] and their operators.
//!
//! A pipeline is described first and started afterwards. Handles are cheap; every method consumes its handle and gives the next.
//! A chain cannot return `Result`: mistakes are collected with the line that made them, and `validate` and `start` return all
//! of them together.
//!
//! Closures are `Fn`, not `FnMut`, and what they capture is configuration: every subtask and every attempt after a failure
//! begins with a fresh copy, so what must survive goes through state (`fold`, `reduce`).

pub mod aggregate;
mod cube;
mod dedup;
mod failing;
mod group;
mod interval;
mod keyed;
mod keyed_stream;
mod pipeline;
pub mod prelude;
#[cfg(test)]
mod scenario;
mod side;
pub mod state;
mod stateless;
mod stream;
pub mod window;

pub use millstream_runtime::operator::{OutputMode, OutputTag};
pub use millstream_runtime::timer::TimerKind;
pub use millstream_runtime::watermark::WatermarkStrategy;

pub use self::cube::{CubeKey, CubedStream, CubedWindows};
pub use self::group::{
    GroupError, GroupOut, GroupState, GroupTimeout, InitialStateProcessor, ListState, MapState, Rows,
    StatefulProcessor, TimeMode, TimerValues, TransformContext, TransformError, ValueState, VariableHandle,
    WithInitialState,
};
pub use self::interval::{BadInterval, Interval};
pub use self::keyed::{CoProcess, Connected, KeyedProcess, OpenContext, ProcessContext};
pub use self::keyed_stream::KeyedStream;
pub use self::pipeline::Pipeline;
pub use self::stateless::{Chain, Erased, Filter, FlatMap, FlatMapInto, Inspect, Map, Pull, TryMap};
pub use self::stream::Stream;

#[cfg(test)]
mod tests;
