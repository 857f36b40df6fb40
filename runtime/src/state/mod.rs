//! State: typed maps in memory, and the store that always holds exactly the last committed epoch.

pub(crate) mod budget;
mod cell;
pub mod entry;
mod fold;
mod form;
mod freeze;
pub mod key_group;
pub mod keyed;
pub mod log;
mod packed;
pub mod read;
mod shares;
pub mod store;
mod table;

pub use self::budget::MemoryBudget;
pub use self::cell::{Cell, Cells, Content, Element, Single};
pub use self::fold::{FoldJob, Folded, FoldedRun};
pub use self::form::{Form, FormError, Plain, StateValue, Versioned};
pub use self::freeze::{OperatorState, Rest, Slice, Snapshot};
pub use self::packed::PackedKey;
pub use self::shares::MemoryShares;
pub use self::table::{LoadError, StateError, Table, TableSetup, UnknownState};
