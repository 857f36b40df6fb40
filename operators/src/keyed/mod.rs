//! Operators that keep state per key.

mod aggregate;
pub(crate) mod around;
mod co_process;
pub(crate) mod coalesced;
mod context;
pub(crate) mod engine;
mod key_by;
mod process;
mod update;
pub(crate) mod walk;

pub use self::co_process::{CoProcess, Connected};
pub(crate) use self::context::Outbox;
pub use self::context::{OpenContext, ProcessContext};
pub(crate) use self::engine::{Late, Logic};
pub use self::process::KeyedProcess;

#[cfg(test)]
mod tests;
