//! Runs a graph of operators record by record; has never heard of map, window or CSV.

pub mod id;
pub mod time;
pub mod position;
pub mod record;
pub mod rows;
pub mod codec;
pub mod error;
pub mod fault;
pub mod canary;
pub mod watermark;
pub mod channel;
pub mod operator;
pub mod checkpoint;
pub mod state;
pub mod source;
pub mod sink;
pub mod task;
pub mod graph;
pub mod plan;
pub mod job;
#[cfg(feature = "test-util")]
pub mod testing;
