//! The items of a `futures` stream.

mod source;

pub use self::source::StreamSource;
