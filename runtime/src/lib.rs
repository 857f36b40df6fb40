//! Runs a graph of operators record by record; has never heard of map, window or CSV.

pub mod id;
pub mod time;
pub mod record;
pub mod codec;
pub mod error;
pub mod fault;
pub mod canary;
pub mod checkpoint;
pub mod state;
pub mod source;
pub mod sink;
#[cfg(feature = "test-util")]
pub mod testing;
