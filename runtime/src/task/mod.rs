//! A task: a chain of fused operators run by one actor, as a machine that knows no thread, disk or wall clock.
//!
//! The machine polls its channels and never waits; its host calls [`TaskMachine::step`] and sleeps on the task's bell when a
//! turn says that there is nothing to do. The simulator hosts the same machine on one seeded thread.

mod control;
mod input;
mod output;
mod run;
mod sinks;
mod source;

pub use self::control::{SourceCommand, SourceControl, TaskControl};
pub use self::input::InputHead;
pub use self::output::Output;
pub use self::run::{Head, Polled, TaskMachine, Turn};
pub use self::sinks::{DirectSink, OutboxSink};
pub use self::source::SourceHead;
