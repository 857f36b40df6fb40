//! Runs a graph of operators record by record; has never heard of map, window or CSV.

mod actor;
pub mod canary;
pub mod channel;
pub mod checkpoint;
pub mod codec;
pub mod config;
pub mod error;
pub mod fault;
pub mod graph;
pub mod guarantee;
pub mod handle;
#[cfg(feature = "http")]
mod http;
pub mod id;
pub mod job;
pub mod limits;
pub mod metrics;
pub mod mode;
pub mod operator;
pub mod plan;
pub mod position;
pub mod record;
pub mod rows;
pub mod runtime;
pub mod sink;
pub mod source;
pub mod state;
#[cfg(feature = "status")]
pub mod status;
pub mod task;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod time;
pub mod timer;
pub mod trigger;
pub mod watermark;
