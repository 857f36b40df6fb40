//! Standard output: for demos and for a first look.

mod sink;

pub use self::sink::{AsDebug, AsDisplay, Console, ConsoleError};
