//! The control plane: hosts the job machine and the task machines on threads, and only translates. The one door to actix.
//!
//! ```text
//!   millstream-control-<pipeline>  a private System: the job actor with the job machine, timers; no user code
//!   millstream-work-<n>            an Arbiter: one shell actor per subtask, its data loop a local task beside it
//!   millstream-read-<subtask>      one per source subtask and attempt; may block in a reader
//!   millstream-commit-<pipeline>   the committer; blocks on the disk
//!   millstream-sink-<sink>         one per level-2 sink, over all attempts; may block in the connector
//!   millstream-ack-<pipeline>      tells sources what is durable, so that a slow source delays no commit
//!   millstream-fold-<pipeline>     folds the log into rows
//!   millstream-rows-<n>-<pipeline> reads rows that a task waits for; millstream-warm-<pipeline> those that nobody waits for yet
//!   millstream-open-<pipeline>     opens the store, and is left behind if that hangs
//! ```
//! Orders to the actors are messages; no record sits in a mailbox. `do_send` ignores a mailbox's bound, so the protocol
//! bounds it: per subtask one part per epoch in flight and one end, one answer of the committer per order, one report per
//! delivery step. Everything else that the job actor hands out goes through an [`outlet`], which merges what waits.
//!
//! actix restarts no actor that panicked, runs `stopped()` even then and drops what is queued when an Arbiter stops. So
//! nothing is committed or acknowledged in `stopped()` or `Drop`, panics are caught at every turn of a loop, and an
//! Arbiter is stopped only after its loops have ended.

mod attempt;
mod blocking;
mod checkpoints;
mod collect;
mod config;
mod job;
mod link;
mod message;
mod outlet;
mod rows;
mod system;
mod task;
#[cfg(test)]
#[cfg(feature = "test-util")]
mod tests;
mod threads;
mod waiter;

pub use self::config::LatencyPolicy;
pub(crate) use self::config::{Bounds, MOST_WORKERS, RuntimeConfig, SHORTEST_EPOCH};
pub(crate) use self::link::{JobLink, JobList, StateView, SubtaskView, block_on, refuse_async};
pub(crate) use self::system::{JobSetup, start};
pub(crate) use self::threads::below_the_workers;
