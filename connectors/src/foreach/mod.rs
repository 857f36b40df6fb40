//! A writer that is opened and closed once per epoch: Spark's `ForeachWriter`.

mod sink;

pub use self::sink::{Foreach, ForeachError, ForeachWriter, foreach};
