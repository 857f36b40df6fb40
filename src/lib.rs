#![cfg_attr(feature = "rocksdb", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "rocksdb"),
    doc = "A record-at-a-time stream-processing runtime to embed in your own daemon."
)]
#![forbid(unsafe_code)]

pub use millstream_connectors as connectors;
pub use millstream_operators as operators;
pub use millstream_runtime as runtime;

/// Everything that a pipeline's description and its daemon need.
pub mod prelude {
    pub use millstream_connectors::prelude::*;
    pub use millstream_operators::prelude::*;
    pub use millstream_runtime::error::BoxError;
    pub use millstream_runtime::handle::JobHandle;
    pub use millstream_runtime::job::{Ended, JobError, JobStatus, RestartPolicy};
    pub use millstream_runtime::runtime::Runtime;
    pub use millstream_runtime::source::Source as _;
    pub use millstream_runtime::state::store::Memory;
    #[cfg(feature = "rocksdb")]
    pub use millstream_runtime::state::store::RocksDb;
    pub use millstream_runtime::time::Timestamp;
    pub use millstream_runtime::trigger::{Trigger, TriggerError};
}
