//! Results that the daemon reads while the pipeline runs: Spark's memory sink.

mod sink;

pub use self::sink::{MemoryTable, Table, memory_table};
