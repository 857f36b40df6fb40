//! Made-up records, numbered: for tests, demos and load.

mod source;

pub use self::source::{Generator, GeneratorError};
