//! How a data loop waits for its bell: polls for a while, then sleeps.
//!
//! A sleeping thread takes 9 to 19 µs to wake, a polling one 0.2 to 0.8 µs; but whoever polls on every core starves the
//! kernel's threads that sync the disk. So at most one loop fewer than there are cores polls, in the whole process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::actor::config::LatencyPolicy;
use crate::channel::Bell;
use crate::time::SharedClock;

/// Longest time that the adaptive policy polls.
const LONGEST_POLL: Duration = Duration::from_micros(200);
/// A gap beyond this counts as this one, so that a burst after a long silence is recognised soon.
const LONGEST_GAP: Duration = Duration::from_millis(1);
/// Polls between two looks at the clock and two offers of the core to other threads.
const POLLS: u32 = 8;
/// Most polls of one wait of the adaptive policy: the clock may be one that stands still.
const MOST_POLLS: u32 = 20_000;

static POLLING: AtomicUsize = AtomicUsize::new(0);

/// The right to poll.
struct Slot;

impl Slot {
    fn take(most: usize) -> Option<Self> {
        let more = |polling: usize| (polling < most).then(|| polling + 1);
        // Made only if it was granted: dropping one gives it back.
        POLLING.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok().map(|_| Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        POLLING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Waits for one loop.
pub(super) struct Waiter {
    policy: LatencyPolicy,
    /// How many loops may poll in the process.
    most: usize,
    clock: SharedClock,
    /// Smoothed time between running dry and the next ring.
    gap: Duration,
}

impl Waiter {
    pub(super) const fn new(policy: LatencyPolicy, most: usize, clock: SharedClock) -> Self {
        Self { policy, most, clock, gap: LONGEST_GAP }
    }

    /// Returns when the bell is rung.
    pub(super) async fn wait(&mut self, bell: &Bell) {
        if bell.is_rung() || self.policy == LatencyPolicy::Park {
            return bell.wait().await;
        }
        let began = self.clock.now();
        let within = match self.policy {
            LatencyPolicy::Spin => Duration::MAX,
            // Twice the gap catches most arrivals; where even one gap is too long, polling only burns.
            _ if self.gap <= LONGEST_POLL => (self.gap * 2).min(LONGEST_POLL),
            _ => Duration::ZERO,
        };
        if !within.is_zero()
            && let Some(_slot) = Slot::take(self.most)
        {
            let mut polls = 0_u32;
            while !bell.is_rung() {
                tokio::task::yield_now().await;
                polls = polls.wrapping_add(1);
                if polls.is_multiple_of(POLLS) {
                    // Where all cores are busy, somebody waits for this one: perhaps the one who will ring.
                    std::thread::yield_now();
                }
                if self.policy != LatencyPolicy::Spin
                    && (polls >= MOST_POLLS
                        || (polls.is_multiple_of(POLLS) && self.clock.now().saturating_since(began) >= within))
                {
                    break;
                }
            }
        }
        bell.wait().await;
        let gap = self.clock.now().saturating_since(began).min(LONGEST_GAP);
        self.gap = (self.gap * 7 + gap) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_polls_where_no_core_is_left() {
        assert!(Slot::take(0).is_none());
        let before = POLLING.load(Ordering::SeqCst);
        assert!(before < 1_000, "a refusal gave back what was never taken");
    }
}
