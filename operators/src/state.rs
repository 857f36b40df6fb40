//! What an operator keeps per key: handles that [`OpenContext`](crate::OpenContext) declares, and its timers.

pub use millstream_runtime::state::keyed::{KeyTimers, KeyedError, List, Map, Value};
pub use millstream_runtime::state::{StateValue, Versioned};
