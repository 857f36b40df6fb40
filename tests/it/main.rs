//! All integration tests in one binary, so that they link once. One module per theme.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly; clippy only knows that of functions marked #[test]"
)]

mod architecture;
mod canaries;
mod event_time;
mod formats;
mod hosts;
#[cfg(feature = "rocksdb")]
mod kill9;
mod retail;
mod simulation;
