//! A record-at-a-time stream-processing runtime to embed in your own daemon.

#![forbid(unsafe_code)]

pub use millstream_connectors as connectors;
pub use millstream_operators as operators;
pub use millstream_runtime as runtime;

/// Everything that a pipeline's description and its daemon need.
pub mod prelude {
    pub use millstream_connectors::prelude::*;
    pub use millstream_operators::prelude::*;
    pub use millstream_runtime::time::Timestamp;
}
