//! Every option that a runtime, a job or a store takes, in one place; each is defined where it is used.

pub use crate::actor::LatencyPolicy;
pub use crate::job::{JobConfig, RestartPolicy};
pub use crate::state::log::{LogLimits, StartFrom};
