//! Windows: records of a key that belong together by their time or number, and one result for each.
//!
//! | windows | hold |
//! |---|---|
//! | [`Tumbling`] | a stretch of time each, one after the other |
//! | [`Sliding`] | a stretch of time each, one begins every so often |
//! | [`Session`] | what a key has without a pause |
//! | [`CountWindow`] | so many records each |
//! | [`Global`] | all records of a key |
//!
//! See [`KeyedStream::window`](crate::KeyedStream::window).

mod assigner;
mod error;
mod operator;
mod pane;
mod session;
mod settings;
mod stream;
mod time_window;
mod trigger;

pub use self::assigner::{CountWindow, Global, Sliding, Tumbling, WindowAssigner, WindowKind};
pub use self::error::WindowError;
pub use self::session::{FixedGap, Session};
pub use self::stream::{Windowed, WindowedStream};
pub use self::time_window::TimeWindow;
pub use self::trigger::Trigger;

#[cfg(test)]
mod tests;
