//! Everything that a pipeline's description needs.

pub use crate::state::{List, Map, Value, Versioned};
pub use crate::{
    CoProcess, KeyedProcess, KeyedStream, OpenContext, OutputTag, Pipeline, ProcessContext, Stream, TimerKind,
    WatermarkStrategy,
};
