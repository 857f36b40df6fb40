//! The items of an iterator that can be made again.

mod source;

pub use self::source::{IterSource, IterSourceError};
