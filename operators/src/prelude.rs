//! Everything that a pipeline's description needs.

pub use crate::{KeyedStream, Pipeline, Stream, WatermarkStrategy};
