//! How a record becomes the bytes of one row, and back.

mod lines;
mod msgpack;

pub(crate) use self::lines::escaped;
pub use self::lines::{LineBreakError, TextLine};
pub use self::msgpack::{Msgpack, MsgpackError, split_values};
