//! Operators that keep state per key.

mod aggregate;
mod key_by;
mod update;
