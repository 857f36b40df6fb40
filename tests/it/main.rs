//! All integration tests in one binary, so that they link once. One module per theme.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly; clippy only knows that of functions marked #[test]"
)]

#[cfg(feature = "rocksdb")]
mod aborts;
mod architecture;
#[cfg(feature = "rocksdb")]
mod bad_files;
#[cfg(feature = "rocksdb")]
mod bad_input;
#[cfg(feature = "rocksdb")]
mod bad_options;
mod canaries;
mod configuration;
mod conformance;
#[cfg(feature = "rocksdb")]
mod damage;
#[cfg(all(feature = "rocksdb", target_os = "linux"))]
mod disk_full;
mod event_time;
#[cfg(feature = "rocksdb")]
mod examples;
mod explain;
#[cfg(all(feature = "rocksdb", target_os = "linux"))]
mod failing_calls;
mod formats;
mod generated;
mod group_state;
mod guarantees;
mod hosts;
#[cfg(feature = "rocksdb")]
mod kill9;
mod limits;
mod log;
mod memory;
#[cfg(feature = "prometheus")]
mod metrics;
mod micro_batch;
mod panics;
mod reference;
#[cfg(all(feature = "rocksdb", target_os = "linux"))]
mod refusals;
mod retail;
mod run_until;
mod simulation;
mod sockets;
#[cfg(feature = "rocksdb")]
mod stored;
#[cfg(feature = "rocksdb")]
mod tailing;
mod threads;
mod wakes;
#[cfg(feature = "rocksdb")]
mod watched;
mod windows;
