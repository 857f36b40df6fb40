//! A job: one running pipeline, over all its attempts.
//!
//! [`JobMachine`] decides, from events to orders; [`Committer`] writes. Neither knows threads, actors or the wall clock.

mod committer;
mod error;
mod machine;
mod protocol;
mod quarantine;
mod restart;
#[cfg(test)]
mod tests;

pub use self::committer::{Committer, CommitterAnswer, CommitterOrder, CommitterStep, OpenStore, WaitError};
pub use self::error::{Ended, JobError};
#[cfg(feature = "status")]
pub(crate) use self::machine::Checkpointed;
pub use self::machine::JobMachine;
pub(crate) use self::machine::{FailureKind, JobTally, PartPhase, RestartReason};
pub use self::protocol::{Held, JobConfig, JobEvent, JobOrder, JobPhase, JobStatus};
pub use self::restart::RestartPolicy;
