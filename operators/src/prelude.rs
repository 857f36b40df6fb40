//! Everything that a pipeline's description needs.

pub use crate::aggregate::{Aggregate, ApproxDistinct, Avg, CollectList, Count, Max, Min, Sum, TopK, Variance};
pub use crate::state::{List, Map, Value, Versioned};
pub use crate::window::{
    CountWindow, Global, Session, Sliding, TimeWindow, Trigger, Tumbling, Windowed, WindowedStream,
};
pub use crate::{
    CoProcess, GroupOut, GroupState, GroupTimeout, KeyedProcess, KeyedStream, OpenContext, OutputMode, OutputTag,
    Pipeline, ProcessContext, Rows, Stream, TimerKind, WatermarkStrategy,
};
