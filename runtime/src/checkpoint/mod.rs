//! Epochs: who has reported, and what an epoch is made of.

mod aligner;
mod barrier;
mod coordinator;
pub(crate) mod frame;
mod manifest;
mod names;
mod part;
mod plan;

pub use self::aligner::{Aligner, Misaligned};
pub use self::barrier::Barrier;
pub use self::coordinator::{EpochCoordinator, Reported};
pub use self::frame::{FORMAT, FrameError};
pub use self::manifest::{Chunks, FoldedState, Manifest, OutboxRef, PositionRows};
pub use self::names::{
    FIRST_RESERVED_STATE, NameError, NameTable, OperatorDecl, OperatorEntry, OperatorKind, StateDecl, StateEntry,
    StateKind,
};
pub use self::part::{BarrierTimes, Closing, Delivered, Delta, EpochBundle, OutboxPart, Part, SplitPosition};
pub use self::plan::{EpochPlan, PlannedSplit};
