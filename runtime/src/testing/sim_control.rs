//! What a test's own source or operator may do to the life that it is part of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::testing::ManualClock;

/// A hand on a simulated run: its clock, and the end of the life that it is in. Clones are the same hand. For tests in which it matters
/// *when* something comes, or where exactly a life ends: give one to [`SimConfig::control`](super::SimConfig::control) and a clone to the
/// source.
#[derive(Clone, Debug, Default)]
pub struct SimControl {
    clock: ManualClock,
    stop: Arc<AtomicBool>,
    crash: Arc<AtomicBool>,
}

impl SimControl {
    /// The run's clock. Moving it is the same as having been busy for so long.
    pub const fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Stops the life in good order; the next one begins.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Crashes the process behind the present step; the next life begins.
    pub fn crash(&self) {
        self.crash.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }

    pub(super) fn take_crash(&self) -> bool {
        self.crash.swap(false, Ordering::Relaxed)
    }
}
