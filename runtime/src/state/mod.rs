//! State: typed maps in memory, and the store that always holds exactly the last committed epoch.

mod freeze;
mod table;
pub mod entry;
mod fold;
pub mod key_group;
pub mod log;
pub mod store;

pub use self::fold::Folded;
pub use self::freeze::{Slice, Snapshot};
pub use self::table::{LoadError, StateError, StateValue, Table};
