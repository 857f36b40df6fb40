//! Placeholder.
#[derive(Debug)]
pub struct RocksDb;
