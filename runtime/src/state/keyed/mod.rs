//! The state of a user's operator: named values, lists and maps per key, timers, and the late threshold.
//!
//! ```text
//!  KeyedState ─┬─ Scope: current key, processing time        <── set by the operator before user code runs
//!              ├─ Bound: one table per named state  <── Value, List, Map: handles that the user's code holds
//!              ├─ KeyTimers: a table of timers, and their order
//!              └─ LateRows: the last watermark that was handled, per key group
//! ```
//! Handles do not know the key's type: tables are keyed by its canonical bytes ([`PackedKey`](crate::state::PackedKey)), which is
//! what the store holds anyway. All of it is one delta per epoch. What fails inside a handle is kept in the scope and fails the
//! operator's call, so that handles read like collections.

mod bound;
mod handle;
mod late;
mod operator;
mod scope;
mod timers;

pub use self::handle::{List, ListIter, Map, MapIter, Value};
pub use self::operator::{KeyedSetup, KeyedState, Popped};
pub use self::scope::KeyedError;
pub use self::timers::{DueTimer, KeyTimers};

#[cfg(test)]
mod tests;
