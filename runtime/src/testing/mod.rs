//! Test kit.

pub mod sim_store;
