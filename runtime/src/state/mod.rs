//! State: typed maps in memory, and the store that always holds exactly the last committed epoch.

pub mod entry;
mod fold;
mod freeze;
pub mod key_group;
pub mod log;
pub mod read;
pub mod store;
mod table;

pub use self::fold::{FoldJob, Folded, FoldedRun};
pub use self::freeze::{OperatorState, Slice, Snapshot};
pub use self::table::{LoadError, StateError, StateValue, Table};
