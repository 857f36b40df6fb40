//! Everything that a pipeline's description needs.

pub use crate::aggregate::{Aggregate, ApproxDistinct, Avg, CollectList, Count, Max, Min, Sum, TopK, Variance};
pub use crate::state::{List, Map, Value, Versioned};
pub use crate::window::{
    CountWindow, Global, Session, Sliding, TimeWindow, Trigger, Tumbling, Windowed, WindowedStream,
};
pub use crate::{
    CoProcess, GroupOut, GroupState, GroupTimeout, InitialStateProcessor, KeyedProcess, KeyedStream, ListState,
    MapState, OpenContext, OutputMode, OutputTag, Pipeline, ProcessContext, Rows, StatefulProcessor, Stream, TimeMode,
    TimerKind, TransformContext, ValueState, VariableHandle, WatermarkStrategy,
};
