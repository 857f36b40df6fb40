//! A task: a chain of fused operators run by one actor, as a machine that knows no thread, disk or wall clock.
//!
//! The machine polls its channels and never waits; its host calls [`TaskMachine::step`] and sleeps on the task's bell when a
//! turn says that there is nothing to do. The simulator hosts the same machine on one seeded thread.

mod run;

pub use self::run::{TaskMachine, Turn};
