//! Whether and when a failed job starts again. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Timestamp;

/// How often a job may start again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestartPolicy {
    /// Most restarts within [`RestartPolicy::window`]. Default 3; 0 never restarts.
    pub restarts: usize,
    /// How long a restart counts. Default 10 minutes.
    pub window: Duration,
    /// Pause before the first restart in the window; doubled for each further one. Default 100 ms.
    pub backoff: Duration,
    /// Longest pause. Default 10 s.
    pub max_backoff: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            restarts: 3,
            window: Duration::from_secs(600),
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
        }
    }
}

impl RestartPolicy {
    /// Fails at the first failure.
    #[must_use]
    pub fn never() -> Self {
        Self { restarts: 0, ..Self::default() }
    }

    /// Restarts at most `restarts` times within the window.
    #[must_use]
    pub fn at_most(restarts: usize) -> Self {
        Self { restarts, ..Self::default() }
    }

    /// Sets the first pause.
    #[must_use]
    pub const fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }
}

/// Restarts so far.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    recent: VecDeque<Timestamp>,
    total: u64,
}

impl Restarts {
    /// Returns the pause before the next restart; nothing if there have been enough.
    pub(super) fn next(&mut self, policy: &RestartPolicy, now: Timestamp) -> Option<Duration> {
        while self.recent.front().is_some_and(|at| now.saturating_since(*at) >= policy.window) {
            self.recent.pop_front();
        }
        if self.recent.len() >= policy.restarts {
            return None;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).min(20);
        self.recent.push_back(now);
        self.total += 1;
        Some(policy.backoff.saturating_mul(1 << doublings).min(policy.max_backoff))
    }

    /// The pause before a restart that does not count, because what made the attempt fail does not come again.
    pub(super) const fn uncounted(&mut self, policy: &RestartPolicy) -> Duration {
        self.total += 1;
        policy.backoff
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_up_after_the_last_restart_of_the_window_and_forgets_old_ones() {
        let policy = RestartPolicy::at_most(2);
        let mut restarts = Restarts::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        assert_eq!(restarts.next(&policy, at(0)), Some(Duration::from_millis(100)));
        assert_eq!(restarts.next(&policy, at(1)), Some(Duration::from_millis(200)));
        assert_eq!(restarts.next(&policy, at(2)), None);
        assert_eq!(restarts.next(&policy, at(600)), Some(Duration::from_millis(200)));
        assert_eq!(restarts.total(), 3);
    }
}
