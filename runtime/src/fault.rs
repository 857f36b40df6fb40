//! Named places at which a process may die: the simulator and the crash harness stop the world there.
//!
//! Production passes [`NoFaults`], which does nothing. A point stands before and after every durable operation.

use std::fmt;
use std::sync::Arc;

macro_rules! crash_points {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// Every named crash point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum CrashPoint {
            $($(#[$doc])* $name,)+
        }

        impl CrashPoint {
            /// All points, in the order of the protocol.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The point's name on command lines and in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

crash_points! {
    /// A new store exists, its genesis manifest is not written yet.
    GenesisBefore = "genesis-before",
    /// The genesis manifest is written and synced.
    GenesisAfter = "genesis-after",
    /// Recovery is about to raise the attempt number.
    AttemptBefore = "attempt-before",
    /// The attempt number is raised and synced.
    AttemptAfter = "attempt-after",
    /// Recovery has verified the manifest and is about to read the log.
    RecoverBefore = "recover-before",
    /// Recovery has read positions, rows and log; nothing runs yet.
    RecoverAfter = "recover-after",
    /// The plan of a micro-batch is about to be written.
    PlanBefore = "plan-before",
    /// The store was told to write the plan; whether it is durable is open.
    PlanWritten = "plan-written",
    /// The plan is durable; its records are not let through yet.
    PlanSynced = "plan-synced",
    /// A source task put a barrier in front of its outputs.
    BarrierOut = "barrier-out",
    /// A subtask handed in its part of an epoch.
    PartIn = "part-in",
    /// All parts of an epoch are in; nothing is written.
    EpochComplete = "epoch-complete",
    /// The epoch's batch is built and about to be written.
    CommitBeforeWrite = "commit-before-write",
    /// Deltas that are too large for the batch are written ahead of it; whether they are durable is open.
    CommitAhead = "commit-ahead",
    /// The store was told to write the batch; whether it is durable is open.
    CommitWritten = "commit-written",
    /// The batch is durable; nobody has been told.
    CommitSynced = "commit-synced",
    /// The epoch's publication is about to be raised.
    PublishBefore = "publish-before",
    /// The publication was raised; sinks and sources may know.
    PublishAfter = "publish-after",
    /// A fold is about to read a prefix of the log.
    FoldBefore = "fold-before",
    /// The folded rows are written beside the store.
    FoldWritten = "fold-written",
    /// The folded rows are ingested; the log still holds their deltas.
    FoldIngested = "fold-ingested",
    /// A commit that carries the new `folded_through` is durable; nobody has been told.
    FoldNoted = "fold-noted",
    /// A sink is about to deliver committed epochs outside.
    DeliverBefore = "deliver-before",
    /// The sink delivered; the job has not been told.
    DeliverAfter = "deliver-after",
    /// The fence of the next attempt was answered by the committer.
    FenceAnswered = "fence-answered",
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The world ended at a crash point. Only test hosts ever make one; it travels up to them unhandled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped at crash point {0}")]
pub struct Crashed(pub CrashPoint);

/// Decides what happens at a crash point.
pub trait Faults: Send + Sync + fmt::Debug {
    /// Is called whenever the point is passed.
    ///
    /// # Errors
    /// [`Crashed`] ends this life of the process; a test host may also never return.
    fn pass(&self, point: CrashPoint) -> Result<(), Crashed>;
}

/// Production: every point is passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFaults;

impl Faults for NoFaults {
    fn pass(&self, _point: CrashPoint) -> Result<(), Crashed> {
        Ok(())
    }
}

/// A shared [`Faults`].
pub type SharedFaults = Arc<dyn Faults>;
