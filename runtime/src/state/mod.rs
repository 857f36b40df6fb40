//! State: typed maps in memory, and the store that always holds exactly the last committed epoch.

pub mod entry;
pub mod store;
