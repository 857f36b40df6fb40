//! Operators that keep state per key.

mod aggregate;
mod co_process;
mod context;
mod engine;
mod key_by;
mod process;
mod update;

pub use self::co_process::{CoProcess, Connected};
pub use self::context::{OpenContext, ProcessContext};
pub use self::process::KeyedProcess;

#[cfg(test)]
mod tests;
