//! Known bugs that can be planted on purpose, so that the simulator proves that it would find them.
//!
//! Without the feature `canary` every question is answered `false` at compile time.

macro_rules! canaries {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// Every bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Canary {
            $($(#[$doc])* $name,)+
        }

        impl Canary {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The bug's name on command lines and in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

canaries! {
    /// A source's position is saved one record too far.
    OffsetTooFar = "offset-too-far",
    /// A source's position is saved one record too few.
    OffsetTooFew = "offset-too-few",
    /// Inputs past the barrier are read during alignment.
    NoAlignment = "no-alignment",
    /// An epoch is committed before all parts are in.
    CommitBeforeComplete = "commit-before-complete",
    /// The manifest of attempt n+1 is read before attempt n's writes are fenced.
    ManifestBeforeFence = "manifest-before-fence",
    /// A part of an abandoned loop of the old attempt is accepted for the same epoch number.
    OldAttemptPart = "old-attempt-part",
    /// The plan of a micro-batch is not written before its records pass.
    PlanNotWritten = "plan-not-written",
    /// The last row of a key is not sent at the end of a micro-batch.
    CoalescerDropsKey = "coalescer-drops-key",
    /// A position is taken from the reader instead of the batch in front of the barrier.
    ReaderPosition = "reader-position",
    /// An entry of a frozen epoch is encoded after its next change.
    LateEncode = "late-encode",
    /// A commit's batch is written before the deltas that went ahead of it are durable.
    AheadUnsynced = "ahead-unsynced",
    /// A fold goes beyond the committed epoch.
    FoldBeyondCommitted = "fold-beyond-committed",
    /// A key is evicted as soon as its last change is encoded, before it is folded into rows.
    EvictAtCommitted = "evict-at-committed",
    /// A tombstone is dropped when it is encoded, although the rows still hold the value.
    TombstoneEarly = "tombstone-early",
    /// Rows are read before the log is loaded, and win over it.
    ReadBeforeLog = "read-before-log",
    /// Two folds run at once, and the older one is ingested last.
    StaleFold = "stale-fold",
    /// Rows that are read unasked put an old value in the place of one that was changed and evicted meanwhile.
    StaleWarmUp = "stale-warm-up",
    /// A key group counts as complete although one of its keys was evicted while it was scanned.
    CompleteDespiteEviction = "complete-despite-eviction",
    /// The restored watermark is forgotten.
    WatermarkNotSaved = "watermark-not-saved",
    /// A split's idle time counts while its reader is blocked by back pressure.
    IdleWhileBackPressured = "idle-while-back-pressured",
    /// After a change of parallelism, keys are looked for in the key group of another hash.
    OtherKeyGroup = "other-key-group",
    /// A record that is skipped leaves the output that it had before it failed.
    SkippedLeavesOutput = "skipped-leaves-output",
    /// The outbox is delivered again without looking at the sink's token.
    TokenIgnored = "token-ignored",
    /// The timers of the keys are restored and the queue is not.
    TimerLostOnRestore = "timer-lost-on-restore",
    /// A timer that has fired stays registered.
    TimerFiredTwice = "timer-fired-twice",
    /// Late records are dropped without a word.
    LateDroppedUncounted = "late-dropped-uncounted",
    /// A window is closed by the watermark of the input that is ahead, not of the one that is behind.
    WrongWatermark = "wrong-watermark",
    /// A record is accepted after its window was closed.
    LateAccepted = "late-accepted",
    /// The timeout of a group outlives a call that sets none.
    TimeoutKept = "timeout-kept",
    /// The initial state of groups is applied in every life.
    InitialStateTwice = "initial-state-twice",
    /// A snapshot is taken behind the first records of the next epoch.
    SnapshotAfterNextRecord = "snapshot-after-next-record",
}

#[cfg(feature = "canary")]
mod planted {
    use super::Canary;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Canary>> = const { Cell::new(None) };
    }

    /// Plants one bug, or none, for everything that runs on this thread.
    pub fn plant(canary: Option<Canary>) {
        PLANTED.set(canary);
    }

    /// Says whether the bug is planted on this thread.
    pub fn planted(canary: Canary) -> bool {
        PLANTED.get() == Some(canary)
    }
}

#[cfg(feature = "canary")]
pub use planted::{plant, planted};

/// Says whether the bug is planted: never, without the feature `canary`.
#[cfg(not(feature = "canary"))]
#[inline(always)]
pub const fn planted(_canary: Canary) -> bool {
    false
}
