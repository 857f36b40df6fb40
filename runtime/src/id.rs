//! Names of things: newtypes, so that an epoch can never be passed for an attempt.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// Wraps the bare number.
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// Returns the bare number.
            pub const fn number(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A stretch of a job between two barriers: the unit of commit.
    ///
    /// Epoch 0 is the genesis of a store, before any record; the first epoch that carries records is 1.
    Epoch(u64)
}

number! {
    /// One life of a job between failures. It is durable, only rises, and never repeats in a store's life.
    Attempt(u64)
}

number! {
    /// One copy of the daemon. A single process is shard 0.
    ShardId(u32)
}

number! {
    /// Durable number of an operator, handed out by the name table of the manifest and never by position.
    OperatorId(u32)
}

number! {
    /// Number of a fused chain within one plan. Not durable.
    TaskId(u16)
}

impl Epoch {
    /// The state of a store that was just created: no record has been seen.
    pub const GENESIS: Self = Self(0);

    /// Returns the epoch that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Attempt {
    /// Returns the attempt that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One parallel copy of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubtaskId {
    /// The fused chain.
    pub task: TaskId,
    /// Which copy, counted from 0.
    pub index: u16,
}

impl fmt::Display for SubtaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.task, self.index)
    }
}

/// How the epoch after a barrier runs. It travels in the barrier as a plain value, so that a change of mode is in-band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExecutionMode {
    /// Records pass as they come; barriers are cut by time.
    #[default]
    Continuous,
    /// Records are let through in planned batches, each closed by a barrier.
    MicroBatch,
}
