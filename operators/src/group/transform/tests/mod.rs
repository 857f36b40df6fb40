//! Stateful processors through the harness. Each test names the row of the semantics that it is about.

mod mistakes;
mod timers;
mod variables;
